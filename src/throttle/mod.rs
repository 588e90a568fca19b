//! Failed logins of one account and from one address, counted before the
//! directory is asked. Knows neither passwords nor who exists; names and addresses
//! are kept as keyed hashes. How many an account may have is decided in `share`; whose
//! device it is, in `device`. Requests on throttled routes are counted in `route`.

mod attempt;
mod device;
mod route;
mod share;
mod under_way;
mod unproved;
mod window;

pub use attempt::Attempt;
pub use device::{DEVICE_LIFETIME, Remembering};
pub use route::{Exceeded, RouteThrottles};
pub use share::Share;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use tokio::time::{MissedTickBehavior, interval};

use crate::ambient::{Clock, Entropy, EntropyFailed};
use crate::config::{self, Lockout, Rate};
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::store::{Counting, SecretName, Store, StoreError, Window, WindowFamily};

use device::Device;
use share::PER_USER;
use under_way::UnderWay;

/// How often changed counters are kept.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The limit of one address, as metrics and audit name it.
const PER_ADDRESS: &str = "login_per_address";
/// The limit of different accounts failed on from one address.
const ACCOUNTS: &str = "accounts_per_address";

/// Failures of a name in an outage, from everywhere together, that its window has room
/// for, as many as NIST SP 800-63B-4 section 3.2.2 allows an account.
const OUTAGE_MAX: u32 = 100;

/// A keyed hash.
type Key = [u8; 32];

/// The login throttle. Clones share their counters.
#[derive(Clone)]
pub struct LoginThrottle(Arc<Inner>);

struct Inner {
    clock: Clock,
    entropy: Entropy,
    metrics: Metrics,
    store: Arc<Store>,
    hash_key: hmac::Key,
    device_key: hmac::Key,
    config: ArcSwap<config::LoginThrottle>,
    /// What the directory said of its lock-out, as far as it did.
    lockout: ArcSwap<Option<Lockout>>,
    under_way: UnderWay,
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

impl Throttled {
    fn by(rule: &'static str, wait: Duration) -> Self {
        Self { retry_after: whole_seconds(wait), rule }
    }
}

/// Why a try may not be made. Metrics count it where it becomes an answer: in an outage it may
/// become another.
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
        let fresh = || entropy.bytes().map(Secret::new);
        let hash_key = store.secret(SecretName::Names, fresh()?).await?;
        let device_key = store.secret(SecretName::Device, fresh()?).await?;
        store.open_windows(config.entries, clock.now())?;
        let throttle = Self(Arc::new(Inner {
            clock,
            entropy: entropy.clone(),
            metrics: metrics.clone(),
            store,
            hash_key: hmac::Key::new(hmac::HMAC_SHA256, hash_key.expose()),
            device_key: hmac::Key::new(hmac::HMAC_SHA256, device_key.expose()),
            config: ArcSwap::from_pointee(config.clone()),
            lockout: ArcSwap::from_pointee(None),
            under_way: UnderWay::default(),
        }));
        throttle.0.tell_limits();
        Ok(throttle)
    }

    /// Counts a try of an account (its folded name) from an address. `device` is what
    /// the browser brought of an earlier login: from a device that it knows, the
    /// account has further tries, and the address does not matter. Where there is no room
    /// because tries are under way, it waits until they have ended.
    ///
    /// # Errors
    /// When one of them has failed too often, or the store cannot answer; nothing is
    /// counted then.
    pub async fn begin(
        &self,
        account: &str,
        address: IpAddr,
        device: Option<&Secret<String>>,
    ) -> Result<Attempt, Denied> {
        let inner = &self.0;
        let name = inner.key(account.as_bytes());
        let device = inner.device(device).await?;
        let is_known = device.knows_name(&name);
        let share = inner.share(None);
        let mut windows = vec![share.window(WindowFamily::Account, name, is_known)];
        if !is_known {
            windows.extend(inner.address_windows(address, &name));
        }
        let mut attempt = Attempt::new(inner, device, name)?;
        attempt.delay = attempt.count(&windows, &[share.rule, PER_ADDRESS, ACCOUNTS]).await?;
        Ok(attempt)
    }

    /// Counts a try of a name while the directory does not answer, whether or not it is an
    /// emergency account's, so that it is refused at the same try for any name. No directory
    /// locks such an account, and it is needed when others work against it: one address's
    /// failures refuse that address alone, and only a hundred of all together refuse
    /// everybody. Nothing here counts when the directory is back, nor for an address under
    /// other names, where everybody fails now; but of one address one goes on at a time, so
    /// that those of many keep nobody else waiting.
    ///
    /// # Errors
    /// As for [`Self::begin`].
    pub async fn begin_outage(&self, account: &str, address: IpAddr) -> Result<Attempt, Denied> {
        let inner = &self.0;
        let per_user = inner.config.load().per_user;
        let network = network(address).octets();
        let name = inner.key(&[b"outage\0", account.as_bytes()].concat());
        let from_here = inner.key(&[b"from\0", &network[..], account.as_bytes()].concat());
        let window = |key, count| Window {
            family: WindowFamily::Account,
            key,
            count,
            length: per_user.window,
            counting: Counting::Sliding,
        };
        let all = per_user.count.max(OUTAGE_MAX);
        let windows = [window(from_here, per_user.count), window(name, all)];
        let mut attempt = Attempt::new(inner, Device::unknown(), name)?;
        attempt.delay = attempt.count(&windows, &[PER_USER, PER_USER]).await?;
        attempt
            .alone((WindowFamily::Address, inner.key(&[b"outage\0", &network[..]].concat())))
            .await
    }

    /// Takes over what the directory says of its lock-out; `None` while it says nothing.
    pub fn follow(&self, lockout: Option<Lockout>) {
        if **self.0.lockout.load() != lockout {
            self.0.lockout.store(Arc::new(lockout));
            self.0.tell_limits();
        }
    }

    /// The directory's lock-out was not read, or it tells none: what was known of it holds.
    pub fn miss_lockout(&self) {
        if self.0.lockout().is_some() {
            tracing::info!("the directory's lock-out was not read; what is known holds");
        } else {
            tracing::warn!(
                "it is not known when the directory locks accounts, and \
                 throttle.directory_lockout does not say it: strangers may lock them"
            );
        }
    }

    /// Whether the configuration says when the directory locks accounts.
    #[must_use]
    pub fn states_lockout(&self) -> bool {
        self.0.config.load().directory_lockout.is_some()
    }

    /// Takes over new limits; what was counted stays counted.
    pub fn reload(&self, config: &config::LoginThrottle) {
        self.0.store.bound_windows(config.entries);
        self.0.config.store(Arc::new(config.clone()));
        self.0.tell_limits();
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

impl Inner {
    fn key(&self, name: &[u8]) -> Key {
        hashed(&self.hash_key, name)
    }

    /// What the configuration states of the directory's lock-out, or else what the
    /// directory says.
    fn lockout(&self) -> Option<Lockout> {
        let stated = self.config.load().directory_lockout;
        stated.or_else(|| **self.lockout.load())
    }

    /// The share of an account: by what the directory says of this one, or of all.
    fn share(&self, lockout: Option<Lockout>) -> Share {
        Share::of(&self.config.load(), lockout.or_else(|| self.lockout()))
    }

    /// Where a stranger's try of a name counts for the address.
    fn address_windows(&self, address: IpAddr, name: &Key) -> [Window; 2] {
        let config = self.config.load();
        let window = |key, Rate { count, window }, counting| {
            let (family, length) = (WindowFamily::Address, window);
            Window { family, key, count, length, counting }
        };
        let network = network(address).octets();
        let accounts = [b"accounts".as_slice(), &network].concat();
        let member = name.first_chunk().copied().unwrap_or_default();
        [
            window(self.key(&network), config.per_address, Counting::Sliding),
            window(self.key(&accounts), config.accounts_per_address, Counting::Distinct(member)),
        ]
    }

    /// Says in log and metrics what is in force.
    fn tell_limits(&self) {
        let (lockout, share) = (self.lockout(), self.share(None));
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.metrics.login_limit("strangers").set(share.strangers.into());
        self.metrics.login_limit("known_devices").set(share.all.into());
        self.metrics.login_limit_window().set(seconds(share.window));
        let threshold = lockout.map_or(-1, |lockout| lockout.threshold.into());
        self.metrics.lockout_threshold().set(threshold);
        self.metrics.lockout_window().set(lockout.map_or(-1, |lockout| seconds(lockout.window)));
        tracing::info!(
            directory_threshold = lockout.map(|lockout| lockout.threshold),
            directory_window_s = lockout.map(|lockout| lockout.window.as_secs()),
            strangers = share.strangers,
            known_devices = share.all,
            window_s = share.window.as_secs(),
            "failed logins that an account may have"
        );
        if lockout.is_some_and(|lockout| lockout.threshold == 1) {
            tracing::warn!(
                "the directory locks an account at its first wrong password: a stranger can do \
                 that through the gateway, which no limit prevents"
            );
        } else if lockout.is_some_and(|it| it.threshold > 0 && it.window.is_zero()) {
            tracing::warn!(
                "the directory forgets wrong passwords only with a right one, and the gateway after \
                 a day: strangers can lock an account from day to day"
            );
        }
    }
}

fn hashed(key: &hmac::Key, bytes: &[u8]) -> Key {
    let mut hash = [0; 32];
    let tag = hmac::sign(key, bytes);
    for (byte, hashed) in hash.iter_mut().zip(tag.as_ref()) {
        *byte = *hashed;
    }
    hash
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
