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
mod sessions;
mod shared;
mod slice;
mod table;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use crate::ambient::{Clock, Entropy, Timestamp};
use crate::config;
use crate::metrics::Metrics;
use crate::secret::Secret;

pub use self::redis::{Feed, News, SharedKeys, Survey, survey};
pub use attempts::{AttemptId, Counting, Taken, Window, WindowFamily};
pub use expiring::{Expiring, Family, Put};
pub use record::{Issued, Replaced, Seen, SessionRecord, USER_AGENT_BYTES_MAX};
pub use sessions::{PAGE, REVOCATIONS_PAGE};

#[cfg(test)]
pub(crate) use embedded::FullDisk;

use attempts::Counters;
use embedded::Embedded;
use memory::Memory;

use self::redis::Redis;

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
