//! The keys of session tokens over time: when a new one signs, and how long an old
//! one is needed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::ambient::Timestamp;
use crate::identity::SessionId;
use crate::session::Sessions;
use crate::store::{PAGE, Replaced, SessionRecord};
use crate::token::{KeyError, KeyFacts, KeyRing, LEEWAY};

/// Pages of sessions that are looked through in one go for holders of old tokens.
const PAGES_MAX: usize = 16;

/// What happened to a key; a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// It was made and signs.
    Made,
    /// Nobody holds a token of it any more that could be used, and it was deleted.
    Retired,
    /// It was deleted at once, and every token of it is dead.
    Dropped,
}

impl KeyChange {
    /// The label in metrics and audit records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Retired => "retired",
            Self::Dropped => "dropped",
        }
    }
}

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    /// The key's name.
    pub kid: String,
    /// What happened.
    pub change: KeyChange,
}

/// Keys that were dropped at once.
#[derive(Debug)]
pub struct DroppedKeys {
    /// What happened.
    pub events: Vec<KeyEvent>,
    /// Why a file is still there, which the next start or reload would read again.
    pub left: Option<KeyError>,
}

impl Sessions {
    /// Every session key, oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyFacts> {
        self.keys.load().facts()
    }

    /// Makes a new key that signs from now on; the others verify for as long as
    /// anybody needs them.
    ///
    /// # Errors
    /// When the key cannot be made or written; all is then as it was.
    pub async fn rotate_keys(&self) -> Result<Vec<KeyEvent>, KeyError> {
        let _changing = self.retiring.lock().await;
        if self.store.is_shared() {
            return self.rotate_shared().await;
        }
        self.rotate().await.map(|made| vec![made])
    }

    /// Makes a new key and drops all others: every token is dead at once. The
    /// caller ends the sessions, of which nobody holds a token any more.
    ///
    /// # Errors
    /// When the new key cannot be made or written; all is then as it was.
    pub async fn drop_keys(&self) -> Result<DroppedKeys, KeyError> {
        let _changing = self.retiring.lock().await;
        if self.store.is_shared() {
            return Ok(DroppedKeys { events: self.drop_shared().await?, left: None });
        }
        let old = self.keys();
        let mut dropped = DroppedKeys { events: vec![self.rotate().await?], left: None };
        self.hold(self.keys.load().alone());
        for KeyFacts { kid, .. } in old {
            let deleted = self.delete(kid.clone()).await;
            dropped.left = dropped.left.or(deleted.err());
            dropped.events.push(self.event(kid, KeyChange::Dropped));
        }
        Ok(dropped)
    }

    /// Does what is due: a new key when the one that signs is old enough, and the
    /// end of keys that nobody needs any more.
    ///
    /// # Errors
    /// When a file cannot be written or deleted; it is tried again next time.
    pub async fn tend_keys(&self, events: &mut Vec<KeyEvent>) -> Result<(), KeyError> {
        let mut retiring = self.retiring.lock().await;
        let now = self.clock.now();
        // A clock that is off says wrongly what is due, and these keys are everybody's.
        let is_for_others = self.store.is_shared()
            && (self.clocks.are_apart() || !self.tend_shared(now, events).await?);
        if is_for_others {
            return Ok(());
        }
        let due = |every| now >= self.keys.load().signing_since().plus(every);
        if !self.store.is_shared() && self.lifetimes.load().rotate_every.is_some_and(due) {
            events.push(self.rotate().await?);
        }
        for KeyFacts { kid, replaced, .. } in self.keys() {
            let Some(replaced) = replaced else { continue };
            let mut cursor = retiring.remove(&kid);
            if self.is_needed(replaced, now, &mut cursor).await {
                retiring.extend(cursor.map(|cursor| (kid, cursor)));
                continue;
            }
            if self.store.is_shared() {
                self.change_shared(|ring| Ok(ring.without(&kid))).await?;
            } else {
                self.delete(kid.clone()).await?;
                self.hold(self.keys.load().without(&kid));
            }
            events.push(self.event(kid, KeyChange::Retired));
        }
        Ok(())
    }

    async fn rotate(&self) -> Result<KeyEvent, KeyError> {
        let (ring, source) = (self.keys.load_full(), self.source.clone());
        let (now, entropy) = (self.clock.now(), self.entropy.clone());
        let ring = aside(move || ring.rotated(&source, now, &entropy)).await?;
        let made = ring.facts().pop().map(|facts| facts.kid).unwrap_or_default();
        self.hold(ring);
        Ok(self.event(made, KeyChange::Made))
    }

    async fn delete(&self, kid: String) -> Result<(), KeyError> {
        let source = self.source.clone();
        aside(move || source.delete(&kid)).await
    }

    /// Takes over another ring; what was verified must be verified again.
    pub(super) fn hold(&self, ring: KeyRing) {
        let count = ring.facts().len();
        self.metrics.keys_held("session").set(i64::try_from(count).unwrap_or(i64::MAX));
        self.keys.store(Arc::new(ring));
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn event(&self, kid: String, change: KeyChange) -> KeyEvent {
        self.metrics.key_changes("session", change.label()).inc();
        tracing::info!(key.kid = kid, change = change.label(), "a session key changed");
        KeyEvent { kid, change }
    }

    /// Whether a session may hold a token of a key that was replaced then, and could
    /// still use it. No session begins to hold one: so each is looked at until it
    /// does not, and then never again.
    async fn is_needed(
        &self,
        replaced: Timestamp,
        now: Timestamp,
        cursor: &mut Option<SessionId>,
    ) -> bool {
        let times = **self.lifetimes.load();
        // A token was signed when it was issued, or a moment later.
        let replaced = replaced.plus(LEEWAY);
        let unexpired = replaced.plus(times.token_max).plus(times.grace).plus(LEEWAY);
        if now <= unexpired || !self.is_up() {
            return true;
        }
        let idle_before = self.idle_before(now);
        let is_done = |record: &SessionRecord| {
            record.is_over(now, idle_before)
                || (holds_newer_only(record, replaced) && !is_in_grace(record, now, times.grace))
        };
        for _ in 0..PAGES_MAX {
            let Ok(mut records) = self.page(*cursor).await else { return true };
            let count = records.len();
            let done = records.iter().take_while(|record| is_done(record)).count();
            records.truncate(done);
            *cursor = records.last().map(|record| record.session).or(*cursor);
            if done < count {
                return true;
            }
            if count < PAGE {
                return false;
            }
        }
        true
    }
}

/// Does what writes files where nobody waits for it.
async fn aside<A: Send + 'static>(
    work: impl FnOnce() -> Result<A, KeyError> + Send + 'static,
) -> Result<A, KeyError> {
    spawn_blocking(work).await.unwrap_or(Err(KeyError::Generation))
}

/// Whether a replaced token of the session may still be used.
fn is_in_grace(record: &SessionRecord, now: Timestamp, grace: Duration) -> bool {
    let since = |replaced: &Replaced| now.since(Timestamp::from_millis(replaced.since));
    record.replaced.iter().any(|replaced| since(replaced) <= grace)
}

/// Whether all tokens of a session that can be used were issued after this moment:
/// the session began later, or its newest token did and has been seen.
fn holds_newer_only(record: &SessionRecord, moment: Timestamp) -> bool {
    let newest = record.issued;
    record.created > moment
        || (newest.issued_at > moment.seconds() && record.newest_seen >= newest.generation)
}
