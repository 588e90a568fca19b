//! Failed logins of one account and from one address, counted before the
//! directory is asked. Knows neither passwords nor who exists; names and addresses
//! are kept as keyed hashes. Requests on throttled routes are counted in `route`.

mod route;
mod window;

pub use route::{Exceeded, RouteThrottles};

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use tokio::time::{MissedTickBehavior, interval};

use crate::ambient::{Clock, Entropy, EntropyFailed, Timestamp};
use crate::config::{self, Rate};
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::store::{
    AttemptId, Counting, SecretName, Store, StoreError, Taken, Window, WindowFamily,
};

/// How often changed counters are kept.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The limit of one account, as metrics and audit name it.
const PER_USER: &str = "login_per_user";
/// The limit of one address.
const PER_ADDRESS: &str = "login_per_address";

/// The login throttle. Clones share their counters.
#[derive(Clone)]
pub struct LoginThrottle(Arc<Inner>);

struct Inner {
    clock: Clock,
    entropy: Entropy,
    metrics: Metrics,
    store: Arc<Store>,
    hash_key: hmac::Key,
    limits: ArcSwap<config::LoginThrottle>,
}

/// One try, counted as a failure until `succeeded` or `withdraw`; so it stays one
/// when the client hangs up.
#[must_use = "a dropped attempt stays counted as a failure"]
pub struct Attempt {
    inner: Arc<Inner>,
    id: AttemptId,
    at: Timestamp,
    /// Where it counts.
    windows: Vec<Window>,
}

/// Too many failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failures by {rule}")]
pub struct Throttled {
    /// Until one failure leaves the window, in whole seconds.
    pub retry_after: Duration,
    /// The key of the limit, for metric and audit.
    pub rule: &'static str,
}

/// Why a try may not be made.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Denied {
    /// Too many were.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// Nobody knows how many were.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness to tell it from others.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
}

/// The counters could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness for a hash key.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
}

impl LoginThrottle {
    /// Takes up the counters that the store kept.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn open(
        config: &config::LoginThrottle,
        store: Arc<Store>,
        clock: Clock,
        entropy: &Entropy,
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let hash_key = store.secret(SecretName::Names, Secret::new(entropy.bytes()?)).await?;
        store.open_windows(config.entries, clock.now())?;
        Ok(Self(Arc::new(Inner {
            clock,
            entropy: entropy.clone(),
            metrics: metrics.clone(),
            store,
            hash_key: hmac::Key::new(hmac::HMAC_SHA256, hash_key.expose()),
            limits: ArcSwap::from_pointee(config.clone()),
        })))
    }

    /// Counts a try of an account (its folded name) from an address.
    ///
    /// # Errors
    /// When either has failed too often, or the store cannot answer; nothing is
    /// counted then.
    pub async fn begin(&self, account: &str, address: IpAddr) -> Result<Attempt, Denied> {
        let inner = &self.0;
        let limits = inner.limits.load_full();
        let address = inner.key(&network(address).octets());
        let windows = [
            window(WindowFamily::Account, inner.key(account.as_bytes()), limits.per_user),
            window(WindowFamily::Address, address, limits.per_address),
        ];
        let mut attempt = Attempt {
            id: inner.entropy.bytes()?,
            at: inner.clock.now(),
            inner: Arc::clone(inner),
            windows: Vec::new(),
        };
        attempt.count(&windows).await?;
        Ok(attempt)
    }

    /// Takes over new limits; what was counted stays counted.
    pub fn reload(&self, config: &config::LoginThrottle) {
        self.0.store.bound_windows(config.entries);
        self.0.limits.store(Arc::new(config.clone()));
    }

    /// Keeps the counters until it is dropped.
    pub async fn run(self) {
        let mut ticks = interval(KEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.flush().await;
        }
    }

    /// Tells the store what changed; at the end of a drain.
    pub async fn flush(&self) {
        self.0.store.keep_windows(self.0.clock.now()).await;
    }
}

impl Attempt {
    /// Counts the try for the account that the directory found behind the name too: a
    /// directory reads many spellings as one name, and an account may have several names.
    ///
    /// # Errors
    /// When the account has failed too often, or the store cannot answer; the
    /// password must not be tried then.
    pub async fn of_account(&mut self, account: &str) -> Result<(), Denied> {
        // No typed name holds a NUL: none can stand for somebody else's account.
        let key = self.inner.key(format!("\0{account}").as_bytes());
        let rate = self.inner.limits.load().per_user;
        self.count(&[window(WindowFamily::Account, key, rate)]).await
    }

    /// The login succeeded: this try was no failure. Earlier ones stay counted.
    pub async fn succeeded(self) {
        self.give_back().await;
    }

    /// Nobody could judge the password: an outage locks nobody out.
    pub async fn withdraw(self) {
        self.give_back().await;
    }

    async fn count(&mut self, windows: &[Window]) -> Result<(), Denied> {
        let taken = self.inner.store.count_attempt(self.id, windows, self.at).await?;
        match taken {
            Taken::Counted => {
                self.windows.extend_from_slice(windows);
                Ok(())
            }
            Taken::Full { index, wait } => {
                let family = windows.get(index).map(|window| window.family);
                let is_address = family == Some(WindowFamily::Address);
                let rule = if is_address { PER_ADDRESS } else { PER_USER };
                Err(self.inner.throttled(rule, wait).into())
            }
        }
    }

    /// A store that cannot answer leaves the try counted: for a time, nothing worse.
    async fn give_back(&self) {
        let given = self.inner.store.give_back(self.id, &self.windows, self.at).await;
        if let Err(error) = given {
            tracing::warn!(%error, "a try that was no failure stays counted as one");
        }
    }
}

impl Inner {
    /// Counts the refusal. The wait is rounded up: who waits this long is not refused again.
    fn throttled(&self, rule: &'static str, wait: Duration) -> Throttled {
        self.metrics.throttled(rule).inc();
        Throttled { retry_after: whole_seconds(wait), rule }
    }

    /// A keyed hash.
    fn key(&self, name: &[u8]) -> [u8; 32] {
        let mut key = [0; 32];
        let tag = hmac::sign(&self.hash_key, name);
        for (byte, hashed) in key.iter_mut().zip(tag.as_ref()) {
            *byte = *hashed;
        }
        key
    }
}

const fn window(family: WindowFamily, key: [u8; 32], Rate { count, window }: Rate) -> Window {
    Window { family, key, count, length: window, counting: Counting::Sliding }
}

/// Rounded up: who waits this long is not refused again.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

/// The network that counts as one: an IPv4 address, or an IPv6 /64.
#[must_use]
pub fn network(address: IpAddr) -> Ipv6Addr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)),
    }
}

#[cfg(test)]
mod tests;
