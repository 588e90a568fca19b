//! Live sessions held against the directory: all of them on a timer, and each one at
//! its renewal. Whose account is gone, closed or in another role, and whose password
//! was set since, is ended; so is whose account could not be read for too long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};

use crate::ambient::Timestamp;
use crate::directory::{Directory, DirectoryError, Known, Standing};
use crate::identity::SessionId;
use crate::session::{Reason, Sessions};
use crate::store::{SessionRecord, StoreError};

/// Whose account was read so lately is not read again for a renewal.
const FRESH: Duration = Duration::from_secs(3);
/// How long a renewal waits for the directory; without it the session goes on.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(2);
/// How long renewals leave a directory alone that did not answer one.
const PAUSE: Duration = Duration::from_secs(5);
/// Renewals of one session take turns, so that one search serves all of them.
const TURNS: usize = 64;
/// The reasons that a recheck can find.
const REASONS: [Reason; 7] = [
    Reason::AccountGone,
    Reason::AccountDisabled,
    Reason::AccountExpired,
    Reason::PasswordChanged,
    Reason::RoleLost,
    Reason::RoleChanged,
    Reason::RecheckOverdue,
];

/// When accounts were read.
pub(super) struct Rechecks {
    /// When each session's account was last seen to stand as before, or began to wait.
    checked: Mutex<HashMap<SessionId, Timestamp>>,
    /// When the last look at all sessions began; before the first, the process.
    looked: AtomicI64,
    turns: [AsyncMutex<()>; TURNS],
    /// When a renewal last found the directory silent.
    silent: Mutex<Option<Instant>>,
}

/// What a look at all sessions came to.
#[derive(Debug, Default)]
pub struct Swept {
    /// Sessions looked at.
    pub sessions: usize,
    /// Those of them that the directory did not say anything about.
    pub unknown: usize,
    /// Those that were ended, and why.
    pub ended: Vec<(Reason, SessionRecord)>,
    /// Why some are unknown.
    pub error: Option<DirectoryError>,
}

impl Rechecks {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            checked: Mutex::default(),
            looked: AtomicI64::new(now.millis()),
            turns: std::array::from_fn(|_| AsyncMutex::default()),
            silent: Mutex::default(),
        }
    }

    fn checked(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Timestamp>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, session: SessionId) -> &AsyncMutex<()> {
        let [first, ..] = *session.as_bytes();
        // There are 64 of them.
        &self.turns[usize::from(first) % TURNS]
    }

    /// Since when a session waits to be read. One that no look has seen yet began, or
    /// came into use here, after the last.
    fn waiting_since(&self, record: &SessionRecord) -> Timestamp {
        let known = self.checked().get(&record.session).copied();
        let looked = Timestamp::from_millis(self.looked.load(Ordering::Relaxed));
        known.unwrap_or_else(|| record.created.max(looked))
    }

    fn is_silent(&self) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.is_some_and(|since| since.elapsed() < PAUSE)
    }

    fn set_silent(&self, is_silent: bool) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        *silent = is_silent.then(Instant::now);
    }
}

impl Sessions {
    /// Reads the accounts of all live sessions again, and ends those that are not to go
    /// on; and those that could not be read for longer than `overdue_after`.
    ///
    /// # Errors
    /// When the store cannot answer. What was to end has then ended here all the same.
    pub async fn recheck_all(
        &self,
        directory: &Directory,
        overdue_after: Duration,
    ) -> Result<Swept, StoreError> {
        let now = self.clock.now();
        let records = self.records_with_account().await?;
        let known: Vec<Known> = records.iter().map(known).collect();
        let rechecked = directory.recheck(&known, now).await;
        let mut swept =
            Swept { sessions: records.len(), error: rechecked.error, ..Swept::default() };
        let mut checked: HashMap<SessionId, Timestamp> = HashMap::with_capacity(records.len());
        let mut ending: Vec<(Reason, SessionRecord)> = Vec::new();
        for (record, standing) in records.into_iter().zip(rechecked.standings) {
            let reason = match reason(standing) {
                Ok(None) => {
                    checked.insert(record.session, now);
                    continue;
                }
                Ok(Some(reason)) => reason,
                Err(Unknown) => {
                    swept.unknown += 1;
                    let since = self.rechecks.waiting_since(&record);
                    checked.insert(record.session, since);
                    if now.since(since) <= overdue_after {
                        continue;
                    }
                    Reason::RecheckOverdue
                }
            };
            ending.push((reason, record));
        }
        self.rechecks.looked.store(now.millis(), Ordering::Relaxed);
        {
            let mut all = self.rechecks.checked();
            // What renewals found meanwhile is newer.
            all.retain(|session, at| *at >= now || checked.contains_key(session));
            for (session, at) in checked {
                let known = all.entry(session).or_insert(at);
                *known = at.max(*known);
            }
        }
        self.count(&swept, now);
        swept.ended = self.end_for(ending).await?;
        Ok(swept)
    }

    /// Reads the account of one session again, unless that was done just now, and says
    /// why the session is to end, if it is. A directory that does not answer holds
    /// nobody up.
    pub async fn recheck_one(
        &self,
        session: SessionId,
        directory: &Arc<Directory>,
        overdue_after: Duration,
    ) -> Option<Reason> {
        let _turn = self.rechecks.turn(session).lock().await;
        let now = self.clock.now();
        let last = self.rechecks.checked().get(&session).copied();
        if last.is_some_and(|last| now.since(last) < FRESH) {
            return None;
        }
        let record = self.store.read(session).await.ok().flatten()?;
        if !has_account(&record) || !self.is_live(&record) {
            return None;
        }
        match reason(self.standing(&record, directory, now).await) {
            Ok(None) => {
                self.rechecks.checked().insert(session, now);
                None
            }
            Ok(reason) => reason,
            Err(Unknown) => {
                let since = self.rechecks.waiting_since(&record);
                (now.since(since) > overdue_after).then_some(Reason::RecheckOverdue)
            }
        }
    }

    async fn standing(
        &self,
        record: &SessionRecord,
        directory: &Arc<Directory>,
        now: Timestamp,
    ) -> Standing {
        if self.rechecks.is_silent() {
            return Standing::Unknown;
        }
        let (directory, known) = (Arc::clone(directory), [known(record)]);
        // Nobody waits for it longer, but a search is not broken off: that would cost
        // others their connection.
        let asking = tokio::spawn(async move { directory.recheck(&known, now).await });
        let (standing, is_silent) = match timeout(RENEWAL_PATIENCE, asking).await {
            Err(_) | Ok(Err(_)) => (None, true),
            Ok(Ok(rechecked)) => {
                let is_outage = rechecked.error.is_some_and(|error| error.is_outage());
                (rechecked.standings.first().copied(), is_outage)
            }
        };
        self.rechecks.set_silent(is_silent);
        standing.unwrap_or(Standing::Unknown)
    }

    /// Every live session that somebody in the directory began; with a store that several
    /// gateways share those in use here, as each looks after its own.
    async fn records_with_account(&self) -> Result<Vec<SessionRecord>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let records = self.page(after).await?;
            let Some(last) = records.last() else { return Ok(all) };
            after = Some(last.session);
            let is_ours = |record: &SessionRecord| {
                !self.store.is_shared() || self.live.in_use(record.session).is_some()
            };
            let mine = |it: &SessionRecord| has_account(it) && is_ours(it) && self.is_live(it);
            all.extend(records.into_iter().filter(mine));
        }
    }

    async fn end_for(
        &self,
        mut ending: Vec<(Reason, SessionRecord)>,
    ) -> Result<Vec<(Reason, SessionRecord)>, StoreError> {
        let (mut ended, mut failed) = (Vec::new(), None);
        for reason in REASONS {
            let of_reason = ending.extract_if(.., |(for_reason, _)| *for_reason == reason);
            let records: Vec<SessionRecord> = of_reason.map(|(_, record)| record).collect();
            if records.is_empty() {
                continue;
            }
            match self.end_all(records, reason).await {
                Ok(records) => ended.extend(records.into_iter().map(|record| (reason, record))),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(ended), Err)
    }

    fn count(&self, swept: &Swept, now: Timestamp) {
        let result = match (&swept.error, swept.unknown) {
            (None, _) => "ok",
            (Some(_), unknown) if unknown < swept.sessions => "partial",
            (Some(_), _) => "failed",
        };
        self.metrics.rechecks(result).inc();
        self.metrics.recheck_unknown().set(i64::try_from(swept.unknown).unwrap_or(i64::MAX));
        if swept.unknown == 0 {
            self.metrics.recheck_success().set(now.seconds());
        }
    }
}

/// The directory did not say.
struct Unknown;

fn reason(standing: Standing) -> Result<Option<Reason>, Unknown> {
    Ok(match standing {
        Standing::Unchanged => None,
        Standing::Gone => Some(Reason::AccountGone),
        Standing::Disabled => Some(Reason::AccountDisabled),
        Standing::Expired => Some(Reason::AccountExpired),
        Standing::PasswordChanged => Some(Reason::PasswordChanged),
        Standing::RoleLost => Some(Reason::RoleLost),
        Standing::RoleChanged => Some(Reason::RoleChanged),
        Standing::Unknown => return Err(Unknown),
    })
}

fn known(record: &SessionRecord) -> Known {
    Known {
        subject: record.subject.clone(),
        account: record.account.clone(),
        role: record.role.clone(),
        stamp: record.stamp.clone(),
    }
}

/// Whether somebody of the directory began the session: a redeemed code is nobody there,
/// and an emergency account stands in a file of its own.
fn has_account(record: &SessionRecord) -> bool {
    !record.role.is_of_access_code() && !record.emergency
}
