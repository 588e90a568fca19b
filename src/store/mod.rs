//! What must outlive the process: sessions, revocations, counted attempts, and
//! the start counter. A write is durable before it is answered. Speaks of records
//! and times only; what they mean is decided by pure functions passed in.

mod attempts;
mod embedded;
mod expiring;
mod file;
mod memory;
mod record;
mod redis;
mod shared;
mod slice;
mod table;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use crate::ambient::{Clock, Entropy, Timestamp};
use crate::config;
use crate::identity::{SessionId, Subject};
use crate::metrics::Metrics;
use crate::secret::Secret;

pub use self::redis::{Feed, News, SharedKeys, Survey, survey};
pub use attempts::{AttemptId, Counting, Taken, Window, WindowFamily};
pub use expiring::{Expiring, Family, Put};
pub use record::{Issued, Replaced, Seen, SessionRecord, USER_AGENT_BYTES_MAX};

#[cfg(test)]
pub(crate) use embedded::FullDisk;

use attempts::Counters;
use embedded::Embedded;
use memory::Memory;

use self::redis::Redis;

/// Records that one page holds.
pub const PAGE: usize = 256;
/// Revocations that one page holds.
pub const REVOCATIONS_PAGE: usize = 65_536;

/// The store did not answer, or answered with an error that the log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing is known of the operation: it may have happened.
    #[error("the store cannot answer")]
    Unavailable,
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system or the database library said no.
    #[error("{path}: {reason}")]
    File {
        /// The store's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What is said of Redis cannot be.
    #[error("Redis: {0}")]
    Redis(String),
    /// Another process has it open, and did not let go in time.
    #[error("{path}: is still open in another process")]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
}

/// Windows in one write.
const WINDOWS_CHUNK: usize = 256;

/// What a secret of the store's own is for; none serves two purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretName {
    /// Names and addresses are hashed with it, in counters and in the audit log.
    Names,
    /// Tickets for a change of password are sealed with it.
    PasswordChange,
    /// Device cookies are bound with it.
    Device,
    /// Access codes are hashed with it.
    AccessCode,
}

impl SecretName {
    /// The row that it stands in.
    const fn row(self) -> &'static str {
        match self {
            Self::Names => "hash_key",
            Self::PasswordChange => "password_change",
            Self::Device => "device",
            Self::AccessCode => "access_code",
        }
    }
}

/// The store of this process.
pub struct Store {
    kind: Kind,
    /// The counted windows of a store that is this process's alone.
    counters: Counters,
    metrics: Metrics,
}

enum Kind {
    Memory(Box<Memory>),
    Embedded(Embedded),
    Redis(Box<Redis>),
}

impl Store {
    /// Tells it from others that a gateway may have had before; not from one of the same
    /// kind and prefix elsewhere.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Memory(_) => "memory".to_owned(),
            Kind::Embedded(_) => "embedded".to_owned(),
            Kind::Redis(redis) => format!("redis {}", redis.prefix()),
        }
    }

    /// Opens the store. Waits as long as `lock_wait` for another process to let go
    /// of it. A file that cannot be read as a store is moved aside, never deleted.
    ///
    /// # Errors
    /// When the file cannot be opened or made, or stays locked. Never because Redis
    /// does not answer: it may be down when a gateway starts.
    pub async fn open(
        config: &config::Store,
        lock_wait: Duration,
        (clock, entropy): (&Clock, &Entropy),
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let kind = match config {
            config::Store::Memory => Kind::Memory(Box::default()),
            config::Store::Embedded { path } => {
                Kind::Embedded(Embedded::open(path, lock_wait, clock.now()).await?)
            }
            config::Store::Redis(settings) => {
                let redis = Redis::new(settings, clock.clone(), entropy.clone());
                Kind::Redis(Box::new(redis.map_err(OpenError::Redis)?))
            }
        };
        Ok(Self { kind, counters: Counters::new(), metrics: metrics.clone() })
    }

    #[cfg(test)]
    pub(crate) fn on_disk(disk: &FullDisk, metrics: &Metrics) -> Self {
        let kind = Kind::Embedded(Embedded::on_disk(disk));
        Self { kind, counters: Counters::new(), metrics: metrics.clone() }
    }

    /// Keeps a new session.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn create(&self, record: SessionRecord) -> Result<(), StoreError> {
        self.counted(
            "create",
            match &self.kind {
                Kind::Memory(memory) => memory.create(record),
                Kind::Embedded(embedded) => embedded.create(record).await,
                Kind::Redis(redis) => redis.create(record).await,
            },
        )
    }

    /// A session's record; `None` when there is none, or no more.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn read(&self, session: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.counted(
            "read",
            match &self.kind {
                Kind::Memory(memory) => memory.read(session),
                Kind::Embedded(embedded) => embedded.read(session),
                Kind::Redis(redis) => redis.read(session).await,
            },
        )
    }

    /// Decides on a session's record and keeps what the decision made of it, in
    /// one step that no other can come between. `None` when there is no record.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn update<A: Send + 'static>(
        &self,
        session: SessionId,
        decide: impl Fn(&mut SessionRecord) -> A + Send + 'static,
    ) -> Result<Option<A>, StoreError> {
        self.counted(
            "update",
            match &self.kind {
                Kind::Memory(memory) => memory.update(session, decide),
                Kind::Embedded(embedded) => embedded.update(session, decide).await,
                Kind::Redis(redis) => redis.update(session, decide).await,
            },
        )
    }

    /// Keeps what was seen of sessions since; those without a record are skipped.
    /// Answers with the records as they then are, where others change them, too.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn note(&self, seen: Vec<Seen>) -> Result<Vec<SessionRecord>, StoreError> {
        self.counted(
            "note",
            match &self.kind {
                Kind::Memory(memory) => memory.note(&seen).map(|()| Vec::new()),
                Kind::Embedded(embedded) => embedded.note(seen).await.map(|()| Vec::new()),
                Kind::Redis(redis) => redis.note(&seen).await,
            },
        )
    }

    /// Ends a session: drops its record and remembers the revocation until `until`.
    /// Says whether there was a record.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn revoke(&self, session: SessionId, until: Timestamp) -> Result<bool, StoreError> {
        self.counted(
            "revoke",
            match &self.kind {
                Kind::Memory(memory) => memory.revoke(session, until),
                Kind::Embedded(embedded) => embedded.revoke(session, until).await,
                Kind::Redis(redis) => redis
                    .revoke_all(&[(session, until)])
                    .await
                    .map(|had_record| !had_record.is_empty()),
            },
        )
    }

    /// Ends several sessions in one step; answers with the records that there were.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn revoke_all(
        &self,
        ended: Vec<(SessionId, Timestamp)>,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.counted(
            "revoke",
            match &self.kind {
                Kind::Memory(memory) => memory.revoke_all(&ended),
                Kind::Embedded(embedded) => embedded.revoke_all(ended).await,
                Kind::Redis(redis) => redis.revoke_all(&ended).await,
            },
        )
    }

    /// The next records after a session, in the order of their ids: at most
    /// [`PAGE`], none at the end.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn page(&self, after: Option<SessionId>) -> Result<Vec<SessionRecord>, StoreError> {
        self.counted(
            "page",
            match &self.kind {
                Kind::Memory(memory) => memory.page(after),
                Kind::Embedded(embedded) => embedded.page(after),
                Kind::Redis(redis) => redis.page(after).await,
            },
        )
    }

    /// The records of one subject.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn of_subject(&self, subject: &Subject) -> Result<Vec<SessionRecord>, StoreError> {
        self.counted(
            "of_subject",
            match &self.kind {
                Kind::Memory(memory) => memory.of_subject(subject),
                Kind::Embedded(embedded) => embedded.of_subject(subject),
                Kind::Redis(redis) => redis.of_subject(subject).await,
            },
        )
    }

    /// The next revocations after one of them, in an order of the store's own, and
    /// until when they are remembered: at most [`REVOCATIONS_PAGE`], none at the end.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn revocations(
        &self,
        after: Option<(SessionId, Timestamp)>,
    ) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
        let after_session = after.map(|(session, _)| session);
        self.counted(
            "revocations",
            match &self.kind {
                Kind::Memory(memory) => memory.revocations(after_session),
                Kind::Embedded(embedded) => embedded.revocations(after_session),
                Kind::Redis(redis) => redis.revocations(after).await,
            },
        )
    }

    /// Forgets sessions that ended or were last active before `idle_before`, and
    /// revocations and entries that are over. Says how many sessions are left. A store
    /// with a clock of its own goes by that, and takes of ours only what lies between.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn sweep(&self, now: Timestamp, idle_before: Timestamp) -> Result<u64, StoreError> {
        self.counted(
            "sweep",
            match &self.kind {
                Kind::Memory(memory) => memory.sweep(now, idle_before),
                Kind::Embedded(embedded) => embedded.sweep(now, idle_before).await,
                Kind::Redis(redis) => redis.sweep(now, idle_before).await,
            },
        )
    }

    /// How often the gateway started with this store; `None` when it is new.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn starts(&self) -> Result<Option<u64>, StoreError> {
        self.counted(
            "starts",
            match &self.kind {
                Kind::Memory(memory) => memory.starts(),
                Kind::Embedded(embedded) => embedded.starts(),
                Kind::Redis(redis) => redis.starts().await,
            },
        )
    }

    /// Records a start.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn set_starts(&self, starts: u64) -> Result<(), StoreError> {
        self.counted(
            "starts",
            match &self.kind {
                Kind::Memory(memory) => memory.set_starts(starts),
                Kind::Embedded(embedded) => embedded.set_starts(starts).await,
                Kind::Redis(redis) => redis.set_starts(starts).await,
            },
        )
    }

    /// A key of the store's own, kept under a name; `fresh` becomes it when there is
    /// none yet.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn secret(
        &self,
        name: SecretName,
        fresh: Secret<[u8; 32]>,
    ) -> Result<Secret<[u8; 32]>, StoreError> {
        self.counted(
            "secret",
            match &self.kind {
                Kind::Memory(memory) => memory.secret(name, fresh),
                Kind::Embedded(embedded) => embedded.secret(name, fresh).await,
                Kind::Redis(redis) => redis.secret(name),
            },
        )
    }

    /// Counts an attempt in every window, or in none: one step that no other comes
    /// between.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn count_attempt(
        &self,
        attempt: AttemptId,
        windows: &[Window],
        now: Timestamp,
    ) -> Result<Taken, StoreError> {
        self.counted(
            "count_attempt",
            match &self.kind {
                Kind::Memory(_) | Kind::Embedded(_) => {
                    Ok(self.counters.count(attempt, windows, now))
                }
                Kind::Redis(redis) => redis.count_attempt(attempt, windows, now).await,
            },
        )
    }

    /// The attempt was no failure: it no longer counts in these windows.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn give_back(
        &self,
        attempt: AttemptId,
        windows: &[Window],
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        self.counted(
            "give_back",
            match &self.kind {
                Kind::Memory(_) | Kind::Embedded(_) => {
                    self.counters.give_back(attempt, windows);
                    Ok(())
                }
                Kind::Redis(redis) => redis.give_back(attempt, windows).await,
            },
        )
    }

    /// How many attempts a window holds now.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn attempts(&self, window: &Window, now: Timestamp) -> Result<u32, StoreError> {
        self.counted(
            "attempts",
            match &self.kind {
                Kind::Memory(_) | Kind::Embedded(_) => Ok(self.counters.attempts(window, now)),
                Kind::Redis(redis) => redis.attempts(window, now).await,
            },
        )
    }

    /// Takes up the windows that were kept. At most `entries` of a family are
    /// remembered from here on, in a store that is this process's alone.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub fn open_windows(&self, entries: usize, now: Timestamp) -> Result<(), StoreError> {
        self.bound_windows(entries);
        self.counted(
            "open_windows",
            match &self.kind {
                Kind::Memory(_) | Kind::Redis(_) => Ok(()),
                Kind::Embedded(embedded) => {
                    embedded.windows().map(|rows| self.counters.restore(rows, now))
                }
            },
        )
    }

    /// Remembers at most `entries` windows of a family.
    pub fn bound_windows(&self, entries: usize) {
        self.counters.bound(entries);
    }

    /// Keeps the windows that changed, where they would not outlive the process, and
    /// forgets some that are over.
    pub async fn keep_windows(&self, now: Timestamp) {
        let rows = self.counters.take_changes(now);
        let Kind::Embedded(embedded) = &self.kind else { return };
        for chunk in rows.chunks(WINDOWS_CHUNK) {
            let kept = embedded.keep_windows(chunk.to_vec()).await;
            if self.counted("keep_windows", kept).is_err() {
                self.counters.not_kept(chunk);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn windows(&self, family: WindowFamily) -> usize {
        self.counters.len(family)
    }

    #[cfg(test)]
    pub(crate) fn windows_on_disk(&self) -> Option<usize> {
        match &self.kind {
            Kind::Memory(_) | Kind::Redis(_) => None,
            Kind::Embedded(embedded) => embedded.windows().ok().map(|rows| rows.len()),
        }
    }

    /// Whether the last write was answered, and news of revocations are fresh.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match &self.kind {
            Kind::Memory(_) => true,
            Kind::Embedded(embedded) => embedded.is_up(),
            Kind::Redis(redis) => redis.is_up(),
        }
    }

    fn counted<A>(
        &self,
        operation: &'static str,
        result: Result<A, StoreError>,
    ) -> Result<A, StoreError> {
        let label = if result.is_ok() { "ok" } else { "unavailable" };
        self.metrics.store_operations(operation, label).inc();
        result
    }
}

#[cfg(test)]
pub(crate) mod tests;
