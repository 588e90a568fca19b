//! What memory holds of the sessions in use, so that an ordinary request costs a
//! few atomic loads; and how a revocation reaches them. No guard of the map leaves
//! this file.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;

use crate::ambient::Timestamp;
use crate::identity::{Attributes, SessionId};
use crate::session::revoked::{Revoked, Tally};
use crate::store::{Replaced, Seen, SessionRecord};
use crate::token::{AssertionMemory, Claims};

/// `end` of a session whose record is not known.
const UNKNOWN: i64 = i64::MAX;
/// How many replaced generations are remembered; more than fit into a grace period.
const REPLACED_MAX: usize = 16;
/// Activity is told to the store when it knows none as young as this.
const ACTIVITY_LAG: Duration = Duration::from_secs(30);

/// One session in use. Times are milliseconds since 1970.
pub(super) struct Live {
    session: SessionId,
    ended: AtomicBool,
    /// Empty while the record is not known.
    attributes: OnceLock<Arc<Attributes>>,
    /// What was signed for it, for all workers.
    pub(super) assertions: AssertionMemory,
    end: AtomicI64,
    last_activity: AtomicI64,
    newest_seen: AtomicU32,
    /// Touched only when a generation other than the newest is presented.
    replaced: Mutex<Vec<Replaced>>,
    /// What the store knows already.
    noted_activity: AtomicI64,
    noted_seen: AtomicU32,
    wake: Notify,
}

/// What a presented generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presented {
    /// None newer was seen.
    Newest,
    /// Its successor was seen, but not longer ago than the grace.
    InGrace,
    /// Its successor was seen longer ago.
    Replaced,
}

impl Live {
    fn new(record: Option<&SessionRecord>, claims: &Claims) -> Self {
        // Not the token's age where the record tells: it may have been renewed by a page alone.
        let activity = record.map_or(claims.issued_at, |record| record.last_activity);
        Self {
            session: claims.session,
            ended: AtomicBool::new(false),
            attributes: record
                .map(|record| Arc::new(record.attributes.clone()).into())
                .unwrap_or_default(),
            assertions: AssertionMemory::default(),
            end: AtomicI64::new(record.map_or(UNKNOWN, |record| record.end.millis())),
            last_activity: AtomicI64::new(activity.millis()),
            newest_seen: AtomicU32::new(record.map_or(0, |record| record.newest_seen)),
            replaced: Mutex::new(record.map(|record| record.replaced.clone()).unwrap_or_default()),
            noted_activity: AtomicI64::new(activity.millis()),
            noted_seen: AtomicU32::new(record.map_or(0, |record| record.newest_seen)),
            wake: Notify::new(),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The session's end; `None` while its record is not known.
    pub(super) fn end(&self) -> Option<Timestamp> {
        let end = self.end.load(Ordering::Relaxed);
        (end != UNKNOWN).then_some(Timestamp::from_millis(end))
    }

    /// What claims ask of the directory's entry; `None` while the record is not known.
    pub(super) fn attributes(&self) -> Option<&Arc<Attributes>> {
        self.attributes.get()
    }

    /// Takes over what the store knows: its record could not be read before, or other
    /// gateways told of what they saw.
    pub(super) fn learn(&self, record: &SessionRecord) {
        self.end.store(record.end.millis(), Ordering::Relaxed);
        self.attributes.get_or_init(|| Arc::new(record.attributes.clone()));
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        for known in &record.replaced {
            if !replaced.iter().any(|here| here.generation == known.generation) {
                replaced.push(*known);
            }
        }
        keep_newest(&mut replaced);
        self.touch(record.last_activity);
        self.noted_activity.fetch_max(record.last_activity.millis(), Ordering::Relaxed);
        self.newest_seen.fetch_max(record.newest_seen, Ordering::AcqRel);
        self.noted_seen.fetch_max(record.newest_seen, Ordering::Relaxed);
    }

    pub(super) fn last_activity(&self) -> Timestamp {
        Timestamp::from_millis(self.last_activity.load(Ordering::Relaxed))
    }

    pub(super) fn touch(&self, now: Timestamp) {
        if self.last_activity.load(Ordering::Relaxed) < now.millis() {
            self.last_activity.fetch_max(now.millis(), Ordering::Relaxed);
        }
    }

    /// Takes note that a generation was presented, and says what it is.
    pub(super) fn present(&self, generation: u32, now: Timestamp, grace: Duration) -> Presented {
        if generation == self.newest_seen.load(Ordering::Acquire) {
            return Presented::Newest;
        }
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.newest_seen.load(Ordering::Acquire);
        if generation < newest {
            let known = replaced.iter().find(|known| known.generation == generation);
            let in_grace =
                known.is_some_and(|known| now.since(Timestamp::from_millis(known.since)) <= grace);
            return if in_grace { Presented::InGrace } else { Presented::Replaced };
        }
        replaced.extend(
            (newest.max(1)..generation)
                .rev()
                .take(REPLACED_MAX)
                .map(|generation| Replaced { generation, since: now.millis() }),
        );
        keep_newest(&mut replaced);
        self.newest_seen.store(generation, Ordering::Release);
        Presented::Newest
    }

    /// All that was seen, as the store takes it.
    pub(super) fn seen(&self) -> Seen {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        Seen {
            session: self.session,
            last_activity: self.last_activity(),
            newest_seen: self.newest_seen.load(Ordering::Acquire),
            replaced: replaced.clone(),
        }
    }

    pub(super) fn noted(&self, seen: &Seen) {
        self.noted_activity.fetch_max(seen.last_activity.millis(), Ordering::Relaxed);
        self.noted_seen.fetch_max(seen.newest_seen, Ordering::Relaxed);
    }

    /// Whether the store should be told, when it may lag behind by `lag`.
    fn is_unnoted(&self, lag: Duration) -> bool {
        let noted = Timestamp::from_millis(self.noted_activity.load(Ordering::Relaxed));
        self.noted_seen.load(Ordering::Relaxed) != self.newest_seen.load(Ordering::Relaxed)
            || self.last_activity().since(noted) > lag
    }

    fn end_now(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    /// Resolves when the session is ended in memory.
    pub(super) async fn ended(&self) {
        let woken = self.wake.notified();
        tokio::pin!(woken);
        // From here on no wake-up is missed.
        woken.as_mut().enable();
        if !self.is_ended() {
            woken.await;
        }
    }
}

/// Those before were replaced so long ago that nobody asks when.
fn keep_newest(replaced: &mut Vec<Replaced>) {
    replaced.sort_by_key(|replaced| replaced.generation);
    let surplus = replaced.len().saturating_sub(REPLACED_MAX);
    replaced.drain(..surplus);
}

/// Every session in use, and which are revoked.
#[derive(Default)]
pub(super) struct Registry {
    in_use: DashMap<SessionId, Arc<Live>>,
    revoked: Revoked,
}

impl Registry {
    /// A session that is in use already.
    pub(super) fn in_use(&self, session: SessionId) -> Option<Arc<Live>> {
        self.in_use.get(&session).map(|live| Arc::clone(&live))
    }

    /// The session of verified claims. `read` is asked for its record when it is
    /// not in use yet. A revocation that comes in between is not missed: it is
    /// known before it looks for a session to end, and looked for here while nobody
    /// else can look at the place of the session.
    pub(super) fn live(
        &self,
        claims: &Claims,
        read: impl FnOnce() -> Option<SessionRecord>,
    ) -> Arc<Live> {
        if let Some(live) = self.in_use.get(&claims.session) {
            return Arc::clone(&live);
        }
        let record = if self.is_revoked(claims.session) { None } else { read() };
        match self.in_use.entry(claims.session) {
            Entry::Occupied(live) => Arc::clone(live.get()),
            Entry::Vacant(vacant) => {
                let live = Arc::new(Live::new(record.as_ref(), claims));
                if self.is_revoked(claims.session) {
                    live.end_now();
                } else {
                    vacant.insert(Arc::clone(&live));
                }
                live
            }
        }
    }

    /// The session's end, if it is in use and known.
    pub(super) fn end_of(&self, session: SessionId) -> Option<Timestamp> {
        self.in_use.get(&session)?.end()
    }

    /// The last activity of a session in use.
    pub(super) fn last_activity_of(&self, session: SessionId) -> Option<Timestamp> {
        Some(self.in_use.get(&session)?.last_activity())
    }

    pub(super) fn is_revoked(&self, session: SessionId) -> bool {
        self.revoked.contains(session)
    }

    /// The revocations that are known here now, to be ticked off.
    pub(super) fn tally(&self) -> Tally {
        self.revoked.tally()
    }

    /// Until when a session's revocation is remembered, if it is revoked.
    pub(super) fn revoked_until(&self, session: SessionId) -> Option<Timestamp> {
        self.revoked.until(session)
    }

    /// Ends a session here, and wakes its streams.
    pub(super) fn revoke(&self, session: SessionId, until: Timestamp) {
        self.revoked.insert(session, until);
        self.end_in_use(session);
    }

    /// Ends many, as they are read from the store.
    pub(super) fn revoke_all(&self, ended: &[(SessionId, Timestamp)]) {
        self.revoked.extend(ended.iter().copied());
        for (session, _) in ended {
            self.end_in_use(*session);
        }
    }

    /// Only after the session is known to be revoked.
    fn end_in_use(&self, session: SessionId) {
        if let Some((_, live)) = self.in_use.remove(&session) {
            live.end_now();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.in_use.len() + self.revoked.len()
    }

    /// What the store does not know yet; with `all`, activity of the last seconds too.
    pub(super) fn unnoted(&self, all: bool) -> Vec<Arc<Live>> {
        let lag = if all { Duration::ZERO } else { ACTIVITY_LAG };
        let in_use = self.in_use.iter().filter(|live| live.is_unnoted(lag));
        in_use.map(|live| Arc::clone(&live)).collect()
    }

    /// Ends sessions whose time is over, forgets those that nobody uses and whose
    /// activity the store knows, and in so many turns revocations that are over.
    pub(super) fn sweep(&self, now: Timestamp, turns: usize) {
        self.in_use.retain(|_, live| {
            if live.end().is_some_and(|end| end <= now) && !live.is_ended() {
                live.end_now();
            }
            Arc::strong_count(live) > 1 || live.is_unnoted(Duration::ZERO)
        });
        self.revoked.sweep(now, turns);
    }
}

#[cfg(test)]
mod tests;
