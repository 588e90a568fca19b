//! The store in Redis, which several gateways share. Every decision is one script,
//! and every key of a script is in one slot of a cluster.
//!
//! Names, with `bindgate` for `store.key_prefix`; what is in braces decides the slot:
//! - `{bindgate}:…`: what is one for all: revocations and news of them, signing keys,
//!   entries that end, counted windows;
//! - `{bindgate:7f}:…`: the records of sessions whose ids begin with this byte, and
//!   their order, ends and activity;
//! - `{bindgate:HASH}:owned`: the sessions of the subject of this hash.

mod connect;
mod expiring;
mod feed;
mod keys;
mod scripts;
mod seal;
mod sentinel;
mod sessions;
mod survey;
mod windows;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use redis::{FromRedisValue, Value};
use tokio::runtime::Handle;

use crate::ambient::{Clock, Entropy, Timestamp};
use crate::config::RedisStore;
use crate::secret::Secret;
use crate::store::{SecretName, StoreError};

use connect::{Link, Target};
use feed::Heard;
use scripts::{LASTING, Script, Scripts};
use seal::Seal;

pub use feed::{Feed, News};
pub use keys::SharedKeys;
pub use survey::{Survey, survey};

/// Values of `replicas`.
const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const SOME: u8 = 2;

pub(super) struct Redis {
    /// For what is asked and answered at once.
    link: Link,
    /// For what waits for a replica.
    durable: Link,
    /// For the feed, which waits for news.
    listening: Link,
    scripts: Scripts,
    seal: Seal,
    clock: Clock,
    entropy: Entropy,
    prefix: String,
    /// Whether the server of what is one for all has a replica.
    replicas: AtomicU8,
    /// How often another server took the place of the one before.
    moves: AtomicU64,
    heard: Heard,
    /// How many access codes were taken, as far as somebody was told.
    taken: AtomicU64,
    /// Tells this process from others.
    name: [u8; 16],
}

impl Redis {
    /// Opens no connection: a gateway starts without its store, too.
    pub(super) fn new(
        settings: &RedisStore,
        clock: Clock,
        entropy: Entropy,
    ) -> Result<Self, String> {
        let target = Target::of(settings).map_err(|error| error.to_string())?;
        let (target, runtime) = (Arc::new(target), Handle::current());
        let link = || Link::new(&target, runtime.clone());
        let name = entropy.bytes().map_err(|error| error.to_string())?;
        let seal = Seal::new(&settings.encryption_key, &settings.key_prefix, entropy.clone());
        Ok(Self {
            link: link(),
            durable: link(),
            listening: link(),
            scripts: Scripts::default(),
            seal: seal.ok_or("the encryption key cannot be used")?,
            clock,
            entropy,
            prefix: settings.key_prefix.clone(),
            replicas: AtomicU8::new(UNKNOWN),
            moves: AtomicU64::new(0),
            heard: Heard::new(settings.max_staleness),
            taken: AtomicU64::new(0),
            name,
        })
    }

    /// Never in Redis: all gateways derive it from the same file.
    pub(super) fn secret(&self, name: SecretName) -> Result<Secret<[u8; 32]>, StoreError> {
        self.seal.secret(name).ok_or(StoreError::Unavailable)
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up() && !self.heard.is_stale()
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) const fn heard(&self) -> &Heard {
        &self.heard
    }

    pub(super) async fn starts(&self) -> Result<Option<u64>, StoreError> {
        let key = self.common("starts");
        let get = redis::cmd("GET").arg(&key).take();
        parsed(self.link.command(&get, &key, Duration::ZERO).await?)
    }

    pub(super) async fn set_starts(&self, starts: u64) -> Result<(), StoreError> {
        let key = self.common("starts");
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(starts).arg("PX").arg(LASTING);
        self.link.command(&set, &key, Duration::ZERO).await.map(drop)
    }

    /// Counts a start of this process, from no less than was counted before; answers
    /// with the count.
    pub(super) async fn begin(&self, before: u64) -> Result<u64, StoreError> {
        let keys = [self.common("starts")];
        let args = [number(LASTING), before.to_string().into_bytes()];
        parsed(self.durably(&self.scripts.start, &keys, &args).await?)
    }

    /// Whether this process looks after what all share, for so long.
    pub(super) async fn is_our_turn(&self, length: Duration) -> Result<bool, StoreError> {
        let keys = [self.common("turn")];
        let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        let args = [self.name.to_vec(), number(length)];
        parsed(self.link.script(&self.scripts.turn, &keys, &args).await?)
    }

    /// The name of a key of what is one for all.
    fn common(&self, name: &str) -> Vec<u8> {
        format!("{{{}}}:{name}", self.prefix).into_bytes()
    }

    /// Leaves the server that another one took the place of. What is still under way
    /// there is not answered as done.
    async fn leave(&self) {
        self.moves.fetch_add(1, Ordering::AcqRel);
        self.replicas.store(UNKNOWN, Ordering::Release);
        for link in [&self.link, &self.durable, &self.listening] {
            link.drop_connection().await;
        }
    }

    /// Runs a script whose answer must outlive a failing primary, where there is a replica.
    async fn durably(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Value, StoreError> {
        let moves = self.moves.load(Ordering::Acquire);
        let answer = self.held_durably(script, keys, args).await?;
        // Of what was written meanwhile to the server before, nobody tells the next one.
        let has_moved = self.moves.load(Ordering::Acquire) != moves;
        if has_moved { Err(StoreError::Unavailable) } else { Ok(answer) }
    }

    async fn held_durably(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Value, StoreError> {
        if self.replicas.load(Ordering::Acquire) == UNKNOWN {
            self.look_for_replicas().await?;
        }
        if self.replicas.load(Ordering::Acquire) == NONE {
            return self.link.script(script, keys, args).await;
        }
        let answer = self.durable.durable_script(script, keys, args).await;
        if answer.is_err() {
            self.replicas.store(UNKNOWN, Ordering::Release);
        }
        answer
    }

    /// Asks the server of what is one for all who it is, and whether a replica follows it.
    async fn look_for_replicas(&self) -> Result<String, StoreError> {
        let mut info = redis::cmd("INFO");
        info.arg("replication");
        let info = self.link.command(&info, &self.common(""), Duration::ZERO).await?;
        let info: String = parsed(info)?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        let has_replica = info.lines().any(survey::is_replica);
        self.replicas.store(if has_replica { SOME } else { NONE }, Ordering::Release);
        Ok(field("master_replid:").unwrap_or_default().trim().to_owned())
    }

    /// The time that a script goes by: nothing, which is Redis's own, unless a test
    /// governs ours.
    fn time(&self, now: Timestamp) -> Vec<u8> {
        if self.clock.is_manual() { number(now.millis()) } else { Vec::new() }
    }
}

fn number(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn parsed<A: FromRedisValue>(value: Value) -> Result<A, StoreError> {
    redis::from_redis_value(value).map_err(|error| {
        tracing::error!(%error, "Redis answered with something else than was asked");
        StoreError::Unavailable
    })
}
