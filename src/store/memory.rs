//! The store that dies with the process. Its lock is held for a few look-ups, or for
//! a slice of a sweep.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ambient::Timestamp;
use crate::identity::{SessionId, Subject};
use crate::secret::Secret;
use crate::store::expiring::Entries;
use crate::store::slice::slices;
use crate::store::{
    Expiring, Family, PAGE, Put, REVOCATIONS_PAGE, SecretName, Seen, SessionRecord, StoreError,
};

#[derive(Default)]
pub(super) struct Memory(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    sessions: BTreeMap<SessionId, SessionRecord>,
    /// Whose a session is, so that those of one subject are found without a search.
    owners: BTreeMap<Subject, BTreeSet<SessionId>>,
    revocations: BTreeMap<SessionId, Timestamp>,
    starts: Option<u64>,
    secrets: HashMap<SecretName, Secret<[u8; 32]>>,
    expiring: HashMap<Family, Entries>,
}

impl Rows {
    fn disown(&mut self, record: &SessionRecord) {
        if let Some(sessions) = self.owners.get_mut(&record.subject) {
            sessions.remove(&record.session);
            if sessions.is_empty() {
                self.owners.remove(&record.subject);
            }
        }
    }
}

// The same shapes as the embedded store's, which can fail.
#[expect(clippy::unnecessary_wraps, reason = "every kind of store answers alike")]
impl Memory {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn create(&self, record: SessionRecord) -> Result<(), StoreError> {
        let mut rows = self.rows();
        rows.owners.entry(record.subject.clone()).or_default().insert(record.session);
        rows.sessions.insert(record.session, record);
        Ok(())
    }

    pub(super) fn page(&self, after: Option<SessionId>) -> Result<Vec<SessionRecord>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows();
        let records = rows.sessions.range((from, Bound::Unbounded)).take(PAGE);
        Ok(records.map(|(_, record)| record.clone()).collect())
    }

    pub(super) fn of_subject(&self, subject: &Subject) -> Result<Vec<SessionRecord>, StoreError> {
        let rows = self.rows();
        let sessions = rows.owners.get(subject).into_iter().flatten();
        Ok(sessions.filter_map(|session| rows.sessions.get(session).cloned()).collect())
    }

    pub(super) fn read(&self, session: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        Ok(self.rows().sessions.get(&session).cloned())
    }

    pub(super) fn update<A>(
        &self,
        session: SessionId,
        decide: impl Fn(&mut SessionRecord) -> A,
    ) -> Result<Option<A>, StoreError> {
        Ok(self.rows().sessions.get_mut(&session).map(decide))
    }

    pub(super) fn note(&self, seen: &[Seen]) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for seen in seen {
            if let Some(record) = rows.sessions.get_mut(&seen.session) {
                record.absorb(seen);
            }
        }
        Ok(())
    }

    pub(super) fn revoke(&self, session: SessionId, until: Timestamp) -> Result<bool, StoreError> {
        self.revoke_all(&[(session, until)]).map(|had_record| !had_record.is_empty())
    }

    pub(super) fn revoke_all(
        &self,
        ended: &[(SessionId, Timestamp)],
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut rows = self.rows();
        let mut had_record = Vec::new();
        for (session, until) in ended {
            rows.revocations.insert(*session, *until);
            if let Some(record) = rows.sessions.remove(session) {
                rows.disown(&record);
                had_record.push(*session);
            }
        }
        Ok(had_record)
    }

    pub(super) fn revocations(
        &self,
        after: Option<SessionId>,
    ) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows();
        let page = rows.revocations.range((from, Bound::Unbounded)).take(REVOCATIONS_PAGE);
        Ok(page.map(|(session, until)| (*session, *until)).collect())
    }

    pub(super) fn sweep(&self, now: Timestamp, idle_before: Timestamp) -> Result<u64, StoreError> {
        let counts = || {
            let rows = self.rows();
            let counts = (rows.sessions.len(), rows.revocations.len());
            drop(rows);
            counts
        };
        let (sessions, revocations) = counts();
        for slice in slices(u64::try_from(sessions + revocations).unwrap_or(u64::MAX)) {
            let mut rows = self.rows();
            let over: Vec<SessionRecord> = rows
                .sessions
                .extract_if(slice.clone(), |_, record| record.is_over(now, idle_before))
                .map(|(_, record)| record)
                .collect();
            for record in &over {
                rows.disown(record);
            }
            rows.revocations.extract_if(slice, |_, until| *until <= now).for_each(drop);
        }
        self.rows().expiring.values_mut().for_each(|entries| entries.forget(now));
        Ok(u64::try_from(counts().0).unwrap_or(u64::MAX))
    }

    pub(super) fn starts(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.rows().starts)
    }

    pub(super) fn set_starts(&self, starts: u64) -> Result<(), StoreError> {
        self.rows().starts = Some(starts);
        Ok(())
    }

    pub(super) fn secret(
        &self,
        name: SecretName,
        fresh: Secret<[u8; 32]>,
    ) -> Result<Secret<[u8; 32]>, StoreError> {
        Ok(self.rows().secrets.entry(name).or_insert(fresh).clone())
    }

    pub(super) fn put(
        &self,
        entry: Expiring,
        now: Timestamp,
        at_most: Option<u64>,
    ) -> Result<Put, StoreError> {
        Ok(self.rows().expiring.entry(entry.family).or_default().put(entry, now, at_most))
    }

    pub(super) fn replace(
        &self,
        before: Option<&[u8]>,
        entry: Expiring,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut rows = self.rows();
        Ok(rows.expiring.entry(entry.family).or_default().replace(before, entry, now))
    }

    pub(super) fn take(
        &self,
        family: Family,
        key: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut rows = self.rows();
        Ok(rows.expiring.get_mut(&family).and_then(|entries| entries.take(key, now)))
    }

    pub(super) fn get(
        &self,
        family: Family,
        key: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows().expiring.get(&family).and_then(|entries| entries.get(key, now)))
    }

    pub(super) fn count(&self, family: Family, now: Timestamp) -> Result<u64, StoreError> {
        Ok(self.rows().expiring.get_mut(&family).map_or(0, |entries| entries.count(now)))
    }
}
