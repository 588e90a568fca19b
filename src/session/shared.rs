//! What gateways that share a store hear of each other: whose sessions were ended,
//! and which keys sign. What is known here is told to a store that lost it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::ambient::Timestamp;
use crate::session::keys::{KeyChange, KeyEvent};
use crate::session::{Sessions, Tally};
use crate::store::{Feed, News, SharedKeys, StoreError};
use crate::token::{KeyError, KeyFacts, KeyRing, KeysDir};

/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one process looks after the keys, unless it says so again.
const TURN: Duration = Duration::from_secs(15);
/// How often a change of the keys is tried anew when another came between.
const TRIES: usize = 20;
/// Revocations told to the store in one go.
const AT_ONCE: usize = 4096;

/// Follows the news of the others, one at a time.
pub struct Follower<'s> {
    sessions: &'s Sessions,
    feed: Feed<'s>,
    /// What was known here when the store began to tell all it knows, and what of that
    /// it told; until all was told.
    told: Option<Tally>,
    /// Whether this start was counted.
    counted: bool,
}

impl Sessions {
    /// Whoever follows what others do; `None` when nobody shares the store.
    #[must_use]
    pub fn follower(&self) -> Option<Follower<'_>> {
        let feed = self.store.feed()?;
        Some(Follower { sessions: self, feed, told: None, counted: false })
    }
}

impl Follower<'_> {
    /// Waits for the next news, and does what they ask for, however long that takes.
    /// Answers with what happened to keys.
    pub async fn step(&mut self) -> Vec<KeyEvent> {
        let mut events = Vec::new();
        match self.feed.next().await {
            News::Begin => {
                self.told = Some(self.sessions.live.tally());
            }
            News::Revoked(mut revoked) => {
                if let Some(told) = &mut self.told {
                    revoked.retain(|(session, until)| !told.tell(*session, *until));
                }
                self.sessions.live.revoke_all(&revoked);
            }
            News::Complete => {
                while let Err(error) = self.complete(&mut events).await {
                    tracing::error!(%error, "the store was read, but not all could be done");
                    sleep(PAUSE).await;
                }
            }
            News::Keys => {
                while let Err(error) = self.sessions.load_shared(&mut events).await {
                    tracing::error!(%error, "the session keys could not be read");
                    sleep(PAUSE).await;
                }
            }
        }
        self.feed.settle();
        events
    }

    async fn complete(&mut self, events: &mut Vec<KeyEvent>) -> Result<(), KeyError> {
        if let Some(told) = &mut self.told {
            let left = told.left();
            if left > 0 {
                tracing::warn!(revocations = left, "the store lost these, and is told");
            }
            loop {
                let missing = told.untold(AT_ONCE);
                if missing.is_empty() {
                    break;
                }
                self.sessions.store.remember(&missing).await?;
                for (session, until) in missing {
                    told.tell(session, until);
                }
            }
            self.told = None;
        }
        self.sessions.load_shared(events).await?;
        // Again, when this one has just told a store all that it knows.
        self.sessions.count_start(!self.counted, events).await?;
        self.counted = true;
        Ok(())
    }
}

impl Sessions {
    /// Takes over the keys that the store holds. Makes the first one of a new store, with
    /// which all tokens of a lost one are dead; and one in place of keys that were put
    /// back, of which some may have been dropped since.
    async fn load_shared(&self, events: &mut Vec<KeyEvent>) -> Result<(), KeyError> {
        let (algorithm, now) = (self.lifetimes.load().algorithm, self.clock.now());
        for _ in 0..TRIES {
            // Looked at before the store is asked, which somebody may change meanwhile.
            let known = self.shared_version.load(Ordering::Acquire);
            let held = self.store.shared_keys().await?;
            if self.shared_version.load(Ordering::Acquire) != known {
                continue;
            }
            if let Some(held) = held.as_ref().filter(|held| held.version >= known) {
                self.hold_if_changed(KeyRing::from_shared(&held.plain, algorithm, now)?);
                self.shared_version.fetch_max(held.version, Ordering::AcqRel);
                return Ok(());
            }
            let first = KeyRing::fresh(algorithm, now, &self.entropy)?;
            if self.replace_shared(held.as_ref(), &first).await? {
                if held.is_some() {
                    self.metrics.keys_replaced().inc();
                    tracing::warn!(
                        "the store holds keys of before: all token keys are replaced, everybody logs in again"
                    );
                }
                events.extend(self.newest_event(&first));
                self.hold_if_changed(first);
                return Ok(());
            }
        }
        Err(StoreError::Unavailable.into())
    }

    /// Puts a ring in the place of the one that was read, unless somebody else did.
    async fn replace_shared(
        &self,
        before: Option<&SharedKeys>,
        ring: &KeyRing,
    ) -> Result<bool, KeyError> {
        // By the clock, so that the first keys of a new store are newer than those of a lost one.
        let now = u64::try_from(self.clock.now().millis()).unwrap_or(0);
        let known = self.shared_version.load(Ordering::Acquire);
        let newest = before.map_or(known, |before| known.max(before.version));
        let version = now.max(newest.saturating_add(1));
        let replaced =
            self.store.replace_shared_keys(before, (version, &ring.to_shared()?)).await?;
        if replaced {
            self.shared_version.fetch_max(version, Ordering::AcqRel);
        }
        Ok(replaced)
    }

    /// Keeps beside the keys how far the store has come, so that the next start sees it
    /// when it was put back.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn note_starts(&self) -> Result<(), KeyError> {
        let mut noted = self.starts_noted.lock().await;
        match (self.store.starts_heard(), self.keys_dir.clone()) {
            (Some(starts), Some(dir)) if starts != *noted => {
                write_starts(dir, starts, self.store.name()).await?;
                *noted = starts;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The store counts the starts and all that must not be undone, and a folder of ours
    /// remembers how many there were: a store that is behind was put back, and may have
    /// lost revocations. Nobody here knows them any more if this is the `first` time.
    async fn count_start(&self, first: bool, events: &mut Vec<KeyEvent>) -> Result<(), KeyError> {
        let Some(dir) = self.keys_dir.clone() else { return Ok(()) };
        let mut noted = self.starts_noted.lock().await;
        let known = match dir.starts(&self.store.name()) {
            Err(_) if !first => *noted,
            read => read?.unwrap_or(0),
        };
        let starts = self.store.starts().await?.unwrap_or(0);
        if first && starts < known {
            self.metrics.keys_replaced().inc();
            tracing::warn!(
                store.starts = starts,
                keys.starts = known,
                "the store is behind what it was: all token keys are replaced, everybody logs in again"
            );
            events.extend(self.drop_shared().await?);
            self.store.void_codes().await?;
        }
        // Only now, as what is behind must be seen to be until the keys are gone.
        let starts = self.store.count_start(known).await?;
        match write_starts(dir, starts, self.store.name()).await {
            Ok(()) => *noted = starts,
            // Whoever notes how far the store has come does it later; the news go on.
            Err(error) => tracing::error!(%error, "the start could not be noted beside the keys"),
        }
        Ok(())
    }

    /// A key that all hold before it signs: whoever has not heard of it by then lets
    /// nobody in.
    pub(super) async fn rotate_shared(&self) -> Result<Vec<KeyEvent>, KeyError> {
        let algorithm = self.lifetimes.load().algorithm;
        let now = self.clock.now();
        let begins = now.plus(self.store.max_staleness());
        let ring = self
            .change_shared(|ring| ring.followed(algorithm, (now, begins), &self.entropy))
            .await?;
        Ok(self.newest_event(&ring).into_iter().collect())
    }

    /// A new key alone, which signs at once.
    pub(super) async fn drop_shared(&self) -> Result<Vec<KeyEvent>, KeyError> {
        let old = self.keys();
        let algorithm = self.lifetimes.load().algorithm;
        let fresh = |_: &KeyRing| KeyRing::fresh(algorithm, self.clock.now(), &self.entropy);
        let ring = self.change_shared(fresh).await?;
        let mut events: Vec<_> = self.newest_event(&ring).into_iter().collect();
        events.extend(
            old.into_iter().map(|KeyFacts { kid, .. }| self.event(kid, KeyChange::Dropped)),
        );
        Ok(events)
    }

    /// The keys as they stand at this moment: a key that all hold signs from its time
    /// on, however long ago anybody looked after them.
    pub(super) fn signing_keys(&self) -> Result<Arc<KeyRing>, KeyError> {
        let keys = self.keys.load_full();
        if !self.store.is_shared() {
            return Ok(keys);
        }
        keys.at(self.lifetimes.load().algorithm, self.clock.now()).map(Arc::new)
    }

    /// Lets the next key sign when its time has come. Says whether this process is the
    /// one that looks after the keys; then it has made what was due.
    pub(super) async fn tend_shared(
        &self,
        now: Timestamp,
        events: &mut Vec<KeyEvent>,
    ) -> Result<bool, KeyError> {
        if self.is_stale() {
            return Ok(false);
        }
        let times = **self.lifetimes.load();
        let (held, settled) = {
            let held = self.keys.load_full();
            let settled = held.at(times.algorithm, now)?;
            (held, settled)
        };
        let due = times.rotate_every.is_some_and(|every| now >= held.newest().plus(every));
        if !settled.signs_as(&held) {
            self.settle(&held, settled);
        }
        if !self.store.is_our_turn(TURN).await? {
            return Ok(false);
        }
        if due || !held.has(times.algorithm) {
            events.extend(self.rotate_shared().await?);
        }
        Ok(true)
    }

    /// Changes the keys of all gateways; others that do the same come before or after.
    pub(super) async fn change_shared(
        &self,
        change: impl Fn(&KeyRing) -> Result<KeyRing, KeyError>,
    ) -> Result<Arc<KeyRing>, KeyError> {
        let (algorithm, now) = (self.lifetimes.load().algorithm, self.clock.now());
        for _ in 0..TRIES {
            let known = self.shared_version.load(Ordering::Acquire);
            let held = self.store.shared_keys().await?;
            // What was lost or put back is seen to by whoever follows the news.
            let held = held.filter(|held| held.version >= known).ok_or(StoreError::Unavailable)?;
            let changed = change(&KeyRing::from_shared(&held.plain, algorithm, now)?)?;
            if self.replace_shared(Some(&held), &changed).await? {
                self.hold_if_changed(changed);
                return Ok(self.keys.load_full());
            }
        }
        Err(StoreError::Unavailable.into())
    }

    /// Takes over the same keys with another one that signs, unless others came meanwhile:
    /// some of these may have been dropped.
    pub(super) fn settle(&self, held: &Arc<KeyRing>, settled: KeyRing) {
        self.keys.compare_and_swap(held, settled.into());
    }

    fn hold_if_changed(&self, ring: KeyRing) {
        if ring.same_keys(&self.keys.load()) {
            self.keys.store(ring.into());
        } else {
            self.hold(ring);
        }
    }

    fn newest_event(&self, ring: &KeyRing) -> Option<KeyEvent> {
        ring.facts().pop().map(|facts| self.event(facts.kid, KeyChange::Made))
    }
}

async fn write_starts(dir: KeysDir, starts: u64, store: String) -> Result<(), KeyError> {
    let written = spawn_blocking(move || dir.set_starts(starts, &store)).await;
    written.unwrap_or(Err(KeyError::Generation))
}
