//! Forgets in the file what is over. What is over is looked for beside the writer,
//! slice by slice, and only that is written: logins need not wait for it. A large
//! store is swept in several goes, so that it takes a small share of a core at most.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};
use tokio::task::yield_now;

use crate::ambient::Timestamp;
use crate::identity::SessionId;
use crate::store::StoreError;
use crate::store::embedded::{Embedded, OWNERS, REVOCATIONS, SESSIONS, expiring};
use crate::store::record::{SessionRecord, bytes_are_over};
use crate::store::slice::slices;

/// How many slices one sweep looks through: all of a store of a million rows.
const SLICES: usize = 64;

/// Where the next sweep goes on.
#[derive(Default)]
pub(super) struct NextSlice(AtomicUsize);

/// When it is, and since before when a session must have been idle to be over.
type Moment = (Timestamp, Timestamp);

/// What is over in one slice.
struct Over {
    sessions: Vec<[u8; 16]>,
    revocations: Vec<[u8; 16]>,
}

impl Embedded {
    pub(in crate::store) async fn sweep(
        &self,
        now: Timestamp,
        idle_before: Timestamp,
    ) -> Result<u64, StoreError> {
        // A write, always: it is what a store that failed is opened again by.
        self.0.write(move |transaction| expiring::sweep(transaction, now)).await?;
        let rows = |transaction: &ReadTransaction| {
            let sessions = transaction.open_table(SESSIONS)?.len()?;
            Ok((sessions, transaction.open_table(REVOCATIONS)?.len()?))
        };
        let (sessions, revocations) = self.reading(rows)?;
        let moment = (now, idle_before);
        let all: Vec<_> = slices(sessions.saturating_add(revocations)).collect();
        let first = self.1.0.fetch_add(SLICES, Ordering::Relaxed);
        for slice in all.iter().cycle().skip(first % all.len()).take(SLICES.min(all.len())) {
            let over = self.reading(|transaction| Over::find(transaction, slice, moment))?;
            if over.sessions.is_empty() && over.revocations.is_empty() {
                yield_now().await;
            } else {
                self.0.write(move |transaction| over.forget(transaction, moment)).await?;
            }
        }
        self.reading(rows).map(|(sessions, _)| sessions)
    }
}

impl Over {
    fn find(
        transaction: &ReadTransaction,
        slice: &RangeInclusive<SessionId>,
        (now, idle_before): Moment,
    ) -> Result<Self, redb::Error> {
        let range = || slice.start().as_bytes()..=slice.end().as_bytes();
        let mut over = Self { sessions: Vec::new(), revocations: Vec::new() };
        for row in transaction.open_table(SESSIONS)?.range::<&[u8; 16]>(range())? {
            let (session, bytes) = row?;
            if bytes_are_over(bytes.value(), now, idle_before) {
                over.sessions.push(*session.value());
            }
        }
        for row in transaction.open_table(REVOCATIONS)?.range::<&[u8; 16]>(range())? {
            let (session, until) = row?;
            if until.value() <= now.millis() {
                over.revocations.push(*session.value());
            }
        }
        Ok(over)
    }

    /// Looks again: somebody may have been active since.
    fn forget(
        self,
        transaction: &WriteTransaction,
        (now, idle_before): Moment,
    ) -> Result<(), redb::Error> {
        let mut revocations = transaction.open_table(REVOCATIONS)?;
        for session in &self.revocations {
            if revocations.get(session)?.is_some_and(|until| until.value() <= now.millis()) {
                revocations.remove(session)?;
            }
        }
        let mut sessions = transaction.open_table(SESSIONS)?;
        let mut owners = transaction.open_table(OWNERS)?;
        let is_over = |bytes: &[u8]| bytes_are_over(bytes, now, idle_before);
        for session in &self.sessions {
            if !sessions.get(session)?.is_some_and(|bytes| is_over(bytes.value())) {
                continue;
            }
            let Some(bytes) = sessions.remove(session)? else { continue };
            let id = SessionId::from_bytes(*session);
            if let Some(record) = SessionRecord::from_bytes(id, bytes.value()) {
                owners.remove((record.subject.as_str(), session))?;
            }
        }
        Ok(())
    }
}
