//! The start: store, keys, and whether the two belong together. Keys and
//! revocations live and die together, so that what was revoked stays dead.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::ambient::{Clock, Entropy, Timestamp};
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::session::clock::ClockWatch;
use crate::session::emergency::Emergencies;
use crate::session::live::Registry;
use crate::session::recheck::Rechecks;
use crate::session::{Lifetimes, Sessions};
use crate::store::{OpenError, Store, StoreError};
use crate::token::{KeyError, KeyRing, KeySource, KeysDir};

/// How much longer than its drain a former process may hold the store.
const LOCK_MARGIN: Duration = Duration::from_secs(5);

/// There are no sessions without store and keys.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be opened.
    #[error("store: {0}")]
    Open(#[from] OpenError),
    /// The store was opened, but does not answer.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The keys could not be read, made or replaced.
    #[error("token.keys_dir: {0}")]
    Keys(#[from] KeyError),
}

/// Why a new configuration does not apply; all is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The keys are not in order.
    #[error("token.keys_dir: {0}")]
    Keys(#[from] KeyError),
    /// Another folder holds other keys: that is a start.
    #[error("token.keys_dir: a change needs a restart")]
    KeysDirChanged,
}

/// What became of the keys at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysMade {
    /// They are those of the last start.
    None,
    /// There were none.
    First,
    /// All were replaced, and with them all sessions ended.
    Replaced,
}

impl Sessions {
    /// Opens store and keys.
    ///
    /// # Errors
    /// When either is not in order.
    pub async fn open_store(
        config: &Config,
        clock: Clock,
        entropy: Entropy,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, StartError> {
        let lock_wait = config.server.limits.drain_timeout + LOCK_MARGIN;
        let store = Store::open(&config.store, lock_wait, (&clock, &entropy), metrics).await?;
        Self::start(&config.token, &config.store, store, (clock, entropy, metrics)).await
    }

    pub(super) async fn start(
        token: &config::Token,
        kind: &config::Store,
        store: Store,
        (clock, entropy, metrics): (Clock, Entropy, &Metrics),
    ) -> Result<Arc<Self>, StartError> {
        let keys_dir = match (kind, &token.keys_dir) {
            (config::Store::Memory, _) | (_, None) => None,
            (_, Some(path)) => Some(KeysDir::open(path)?),
        };
        let source = match &keys_dir {
            Some(dir) if !store.is_shared() => KeySource::Dir(dir.clone()),
            _ => KeySource::Memory,
        };
        let (keys, keys_made) = if store.is_shared() {
            // Nobody gets a token of this one: the store's keys take its place.
            (KeyRing::fresh(token.algorithm, clock.now(), &entropy)?, KeysMade::None)
        } else {
            keys_for(&store, &source, token, (clock.now(), &entropy, metrics)).await?
        };
        metrics.keys_held("session").set(i64::try_from(keys.facts().len()).unwrap_or(i64::MAX));
        let live = Registry::default();
        let rechecks = Rechecks::new(clock.now());
        if !store.is_shared() {
            read_revocations(&store, &live).await?;
        }
        Ok(Arc::new(Self {
            clock,
            entropy,
            metrics: metrics.clone(),
            store: Arc::new(store),
            source,
            keys_dir,
            keys: ArcSwap::from_pointee(keys),
            version: AtomicU64::new(0),
            shared_version: AtomicU64::new(0),
            starts_noted: tokio::sync::Mutex::default(),
            retiring: tokio::sync::Mutex::new(HashMap::new()),
            keys_made,
            lifetimes: ArcSwap::from_pointee(Lifetimes::from(token)),
            claims: ArcSwap::from_pointee(token.claims.clone()),
            live,
            clocks: ClockWatch::default(),
            rechecks,
            unwritten: Mutex::new(HashMap::new()),
            emergencies: Emergencies::default(),
        }))
    }

    /// Takes over new times and an altered set of keys.
    ///
    /// # Errors
    /// When the keys are not in order; all is then as it was.
    pub async fn reload(&self, token: &config::Token) -> Result<(), ReloadError> {
        if let (Some(dir), Some(path)) = (&self.keys_dir, &token.keys_dir)
            && dir.path() != path
        {
            return Err(ReloadError::KeysDirChanged);
        }
        let _changing = self.retiring.lock().await;
        let old = self.keys.load_full();
        let now = self.clock.now();
        let new = if self.store.is_shared() {
            // What is missing is made for all, in the course of things.
            old.at(token.algorithm, now)?
        } else {
            old.reopen(&self.source, token.algorithm, now, &self.entropy)?
        };
        let changed = !new.same_keys(&old);
        let mut lifetimes = Lifetimes::from(token);
        lifetimes.token_max = lifetimes.token.max(self.lifetimes.load().token_max);
        self.lifetimes.store(Arc::new(lifetimes));
        self.claims.store(Arc::new(token.claims.clone()));
        if changed {
            self.hold(new);
        } else {
            // Another one of the same keys may sign.
            self.settle(&old, new);
        }
        Ok(())
    }
}

/// Page by page, so that memory holds no more than it keeps.
async fn read_revocations(store: &Store, live: &Registry) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = store.revocations(after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(*last);
        live.revoke_all(&page);
    }
}

/// The keys that belong to this store. When the store is new, or older than the
/// keys, or nothing says how old those are, it may have lost revocations: then all
/// keys are replaced.
async fn keys_for(
    store: &Store,
    source: &KeySource,
    token: &config::Token,
    (now, entropy, metrics): (Timestamp, &Entropy, &Metrics),
) -> Result<(KeyRing, KeysMade), StartError> {
    let KeySource::Dir(dir) = source else {
        return Ok((KeyRing::open(source, token.algorithm, now, entropy)?, KeysMade::First));
    };
    let (in_store, in_dir) = (store.starts().await?, dir.starts(&store.name())?);
    let belong = in_store.zip(in_dir).is_some_and(|(in_store, in_dir)| in_store >= in_dir);
    let made = if belong {
        (KeyRing::open(source, token.algorithm, now, entropy)?, KeysMade::None)
    } else {
        let (keys, replaced) = KeyRing::replace(source, token.algorithm, now, entropy)?;
        if replaced > 0 {
            metrics.keys_replaced().inc();
            tracing::warn!(
                keys.replaced = replaced,
                store.starts = in_store,
                keys.starts = in_dir,
                "the store is new or behind the keys: all token keys were replaced, everybody logs in again"
            );
            // Some may have been redeemed since.
            store.void_codes().await?;
        }
        (keys, if replaced > 0 { KeysMade::Replaced } else { KeysMade::First })
    };
    // The store first: a crash in between leaves it ahead, which loses nothing.
    let starts = in_store.max(in_dir).unwrap_or(0).saturating_add(1);
    store.set_starts(starts).await?;
    dir.set_starts(starts, &store.name())?;
    Ok(made)
}
