//! Sessions: opened by a login, proved by token and cookie, renewed, and ended.
//! What a request needs lies in memory; what must outlive the process is in the
//! store. Knows no HTTP, and the directory only to read accounts again.

mod assertion;
mod clock;
mod emergency;
mod end;
mod keys;
mod listing;
mod live;
mod open;
mod recheck;
mod renewal;
mod revoked;
mod shared;
mod start;
mod upkeep;
mod verify;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::ambient::{Clock, Entropy, Timestamp};
use crate::config::{self, TokenAlgorithm};
use crate::identity::{ClaimTemplates, SessionId};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::token::{KeyRing, KeySource, KeysDir};

pub use end::Reason;
pub use keys::{DroppedKeys, KeyChange, KeyEvent};
pub use listing::Owner;
pub use open::{Guest, OpenError, Opened, Origin, Person, Prepared};
pub use recheck::Swept;
pub use renewal::{RenewError, Renewed};
pub use revoked::{Revoked, Tally};
pub use shared::Follower;
pub use start::{KeysMade, ReloadError, StartError};
pub use verify::{Admission, Carrier, CheckError, CheckedPair, Presence, VerifiedIdentity};

use clock::ClockWatch;
use emergency::Emergencies;
use live::Registry;
use recheck::Rechecks;

/// All sessions of this process.
pub struct Sessions {
    clock: Clock,
    entropy: Entropy,
    metrics: Metrics,
    store: Arc<Store>,
    source: KeySource,
    /// Where the keys lie that are this process's alone.
    keys_dir: Option<KeysDir>,
    keys: ArcSwap<KeyRing>,
    version: AtomicU64,
    /// Of the keys that all gateways share, as they were read or changed last.
    shared_version: AtomicU64,
    /// The count of starts as it stands beside the keys; held while that is written.
    starts_noted: tokio::sync::Mutex<u64>,
    /// Held while the keys change; for each old key, up to which session nobody
    /// holds a token of it.
    retiring: tokio::sync::Mutex<HashMap<String, SessionId>>,
    keys_made: KeysMade,
    lifetimes: ArcSwap<Lifetimes>,
    /// What tokens say besides, for others to read.
    claims: ArcSwap<ClaimTemplates>,
    live: Registry,
    clocks: ClockWatch,
    rechecks: Rechecks,
    /// Revocations that hold here, but are not in the store yet, with their end.
    unwritten: Mutex<HashMap<SessionId, (Timestamp, Reason)>>,
    emergencies: Emergencies,
}

/// The times and numbers of `[token]`.
#[derive(Clone, Copy, Debug)]
struct Lifetimes {
    /// How new tokens are signed.
    algorithm: TokenAlgorithm,
    token: Duration,
    /// The longest that a token out there may have been given.
    token_max: Duration,
    session: Duration,
    idle: Duration,
    grace: Duration,
    rotate_every: Option<Duration>,
    per_user: Option<usize>,
}

impl From<&config::Token> for Lifetimes {
    fn from(token: &config::Token) -> Self {
        Self {
            algorithm: token.algorithm,
            token: token.lifetime,
            token_max: token.lifetime,
            session: token.session_lifetime,
            idle: token.idle_timeout,
            grace: token.replay_grace,
            rotate_every: token.rotate_every,
            per_user: token.sessions_per_user,
        }
    }
}

impl Sessions {
    /// Changes whenever the keys do: what was verified before must be verified again.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What became of the keys at the start.
    #[must_use]
    pub const fn keys_made(&self) -> KeysMade {
        self.keys_made
    }

    /// The public session keys as a key set (RFC 7517 section 5).
    #[must_use]
    pub fn public_jwks(&self) -> serde_json::Value {
        self.keys.load().public_jwks()
    }

    /// Whether a Bearer value claims to be one of our tokens, valid or not.
    #[must_use]
    pub fn is_ours(&self, bearer: &str) -> bool {
        crate::token::is_ours(bearer)
    }

    /// Whether revocations may be missing here, so that nobody can be let in: none were
    /// read yet, or not for too long. Takes no lock and asks nobody.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.store.is_stale()
    }

    /// Whether the store answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.store.is_up()
    }

    /// The store, for the login throttle's counters.
    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// The folder of key files; `None` when keys are in memory.
    #[must_use]
    pub fn keys_dir(&self) -> Option<&KeysDir> {
        self.keys_dir.as_ref()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
