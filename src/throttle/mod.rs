//! Failed logins of one account and from one address, counted before the
//! directory is asked. Knows neither passwords nor who exists; names and addresses
//! are kept as keyed hashes. Requests on throttled routes are counted in `route`.

mod route;
mod table;
mod window;

pub use route::{Exceeded, RouteThrottles};

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::time::{MissedTickBehavior, interval};

use crate::ambient::{Clock, Entropy, EntropyFailed, Timestamp};
use crate::config;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::store::{FailureRow, SecretName, Store, StoreError};

use table::{Failure, Key, Table};

/// How often changed counters are kept.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Counters in one write.
const KEEP_CHUNK: usize = 256;
/// The limit of one account, as metrics and audit name it.
const PER_USER: &str = "login_per_user";
/// The limit of one address.
const PER_ADDRESS: &str = "login_per_address";

/// The login throttle. Clones share their counters.
#[derive(Clone)]
pub struct LoginThrottle(Arc<Inner>);

struct Inner {
    clock: Clock,
    metrics: Metrics,
    store: Arc<Store>,
    hash_key: hmac::Key,
    tables: Mutex<Tables>,
    attempts: AtomicU64,
}

/// Two tables under one lock, held for a few look-ups: an attempt counts in both or in none.
struct Tables {
    accounts: Table,
    addresses: Table,
}

/// One try, counted as a failure until `succeeded` or `withdraw`; so it stays one
/// when the client hangs up.
#[must_use = "a dropped attempt stays counted as a failure"]
pub struct Attempt {
    inner: Arc<Inner>,
    failure: Failure,
    name: Key,
    /// The account behind the name, once the directory has said which it is.
    account: Option<Key>,
    address: Key,
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
        let mut tables = Tables {
            accounts: Table::new(config.per_user, config.entries),
            addresses: Table::new(config.per_address, config.entries),
        };
        for FailureRow { key, at } in store.failures()? {
            tables.of(&key).restore(key, at, clock.now());
        }
        Ok(Self(Arc::new(Inner {
            clock,
            metrics: metrics.clone(),
            store,
            hash_key: hmac::Key::new(hmac::HMAC_SHA256, hash_key.expose()),
            tables: Mutex::new(tables),
            attempts: AtomicU64::new(1),
        })))
    }

    /// Counts a try of an account (its folded name) from an address.
    ///
    /// # Errors
    /// When either has failed too often; nothing is counted then.
    pub fn begin(&self, account: &str, address: IpAddr) -> Result<Attempt, Throttled> {
        let inner = &self.0;
        let now = inner.clock.now();
        let account = inner.key(Kind::Account, account.as_bytes());
        let address = inner.key(Kind::Address, &network(address).octets());
        let mut tables = inner.tables();
        let waits = [
            (PER_USER, tables.accounts.wait(&account, now)),
            (PER_ADDRESS, tables.addresses.wait(&address, now)),
        ];
        // The longer wait is the true one.
        let longest = waits.into_iter().filter_map(|(rule, wait)| Some((rule, wait?)));
        if let Some((rule, wait)) = longest.max_by_key(|(_, wait)| *wait) {
            return Err(inner.throttled(rule, wait));
        }
        let failure = Failure { at: now, attempt: inner.attempts.fetch_add(1, Ordering::Relaxed) };
        tables.accounts.count(account, failure);
        tables.addresses.count(address, failure);
        drop(tables);
        Ok(Attempt { inner: Arc::clone(inner), failure, name: account, account: None, address })
    }

    /// Takes over new limits; what was counted stays counted.
    pub fn reload(&self, config: &config::LoginThrottle) {
        let mut tables = self.0.tables();
        tables.accounts.limit(config.per_user, config.entries);
        tables.addresses.limit(config.per_address, config.entries);
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
        let rows = {
            let mut tables = self.0.tables();
            let now = self.0.clock.now();
            let mut rows = tables.accounts.take_changes(now);
            rows.extend(tables.addresses.take_changes(now));
            rows
        };
        for chunk in rows.chunks(KEEP_CHUNK) {
            if self.0.store.save_failures(chunk.to_vec()).await.is_err() {
                let mut tables = self.0.tables();
                for row in chunk {
                    tables.of(&row.key).changed(row.key);
                }
            }
        }
    }
}

impl Attempt {
    /// Counts the try for the account that the directory found behind the name too: a
    /// directory reads many spellings as one name, and an account may have several names.
    ///
    /// # Errors
    /// When the account has failed too often; the password must not be tried then.
    pub fn of_account(&mut self, account: &str) -> Result<(), Throttled> {
        // No typed name holds a NUL: none can stand for somebody else's account.
        let key = self.inner.key(Kind::Account, format!("\0{account}").as_bytes());
        let mut tables = self.inner.tables();
        if let Some(wait) = tables.accounts.wait(&key, self.failure.at) {
            drop(tables);
            return Err(self.inner.throttled(PER_USER, wait));
        }
        tables.accounts.count(key, self.failure);
        self.account = Some(key);
        Ok(())
    }

    /// The login succeeded: this try was no failure. Earlier ones stay counted.
    pub fn succeeded(self) {
        self.give_back();
    }

    /// Nobody could judge the password: an outage locks nobody out.
    pub fn withdraw(self) {
        self.give_back();
    }

    fn give_back(&self) {
        let mut tables = self.inner.tables();
        for account in [Some(self.name), self.account].into_iter().flatten() {
            tables.accounts.give_back(account, self.failure);
        }
        tables.addresses.give_back(self.address, self.failure);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Account,
    Address,
}

impl Inner {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the refusal. The wait is rounded up: who waits this long is not refused again.
    fn throttled(&self, rule: &'static str, wait: Duration) -> Throttled {
        self.metrics.throttled(rule).inc();
        Throttled { retry_after: whole_seconds(wait), rule }
    }

    /// A keyed hash, whose lowest bit says of what kind it is.
    fn key(&self, kind: Kind, name: &[u8]) -> Key {
        let mut key = [0; 32];
        let tag = hmac::sign(&self.hash_key, name);
        for (byte, hashed) in key.iter_mut().zip(tag.as_ref()) {
            *byte = *hashed;
        }
        key[0] = (key[0] & !1) | kind as u8;
        key
    }
}

impl Tables {
    fn of(&mut self, key: &Key) -> &mut Table {
        if key[0] & 1 == Kind::Account as u8 { &mut self.accounts } else { &mut self.addresses }
    }
}

/// Rounded up: who waits this long is not refused again.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

/// The network that counts as one: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> Ipv6Addr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)),
    }
}

/// The failures of a row, as the store keeps them.
fn row(key: Key, failures: impl Iterator<Item = Timestamp>) -> FailureRow {
    FailureRow { key, at: failures.collect() }
}

#[cfg(test)]
mod tests;
