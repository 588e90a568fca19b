//! Which sessions are revoked: as much as tens of millions, in some twenty bytes
//! each, looked at without a lock. Knows no store and no session in use.

mod tally;

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::ambient::Timestamp;
use crate::identity::SessionId;

pub use tally::Tally;

/// Leading bits of a session id that choose its shard.
const SHARD_BITS: u32 = 10;
const SHARDS: usize = 1 << SHARD_BITS;
/// How many of a shard may be recent, at least, before they are settled.
const RECENT_MIN: usize = 64;
/// The part of a shard that may be recent: a new one costs a copy of those, and
/// once in a while a copy of all.
const RECENT_SHARE: usize = 16;

/// Revoked sessions. Whoever reads sees one state of a shard, whole; whoever
/// changes one puts another state in its place, and is seen by all from then on.
pub struct Revoked {
    shards: Box<[Shard]>,
    /// The shard that is swept next.
    sweeps: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    held: ArcSwap<Held>,
    /// Held by whoever makes the next state.
    changing: Mutex<()>,
}

/// One state of a shard. Both parts are in the order of their ids.
#[derive(Default)]
struct Held {
    /// Nearly all; one state hands them on to the next.
    settled: Arc<Vec<Entry>>,
    recent: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    session: SessionId,
    /// Until when it is remembered: seconds since 1970, rounded up.
    until: u32,
}

impl Default for Revoked {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, sweeps: AtomicUsize::new(0) }
    }
}

impl Revoked {
    /// Until when a session's revocation is remembered; `None` when it is not revoked.
    #[must_use]
    pub fn until(&self, session: SessionId) -> Option<Timestamp> {
        let held = self.shard(session).held.load();
        let until = held.find(session)?;
        Some(Timestamp::from_seconds(i64::from(until)))
    }

    /// Whether a session is revoked.
    #[must_use]
    pub fn contains(&self, session: SessionId) -> bool {
        self.shard(session).held.load().find(session).is_some()
    }

    /// Revokes a session: known to every reader when this returns.
    pub fn insert(&self, session: SessionId, until: Timestamp) {
        let entry = Entry::new(session, until);
        let shard = self.shard(session);
        if shard.held.load().find(session).is_none_or(|known| known < entry.until) {
            shard.add(&[entry]);
        }
    }

    /// Revokes many: the more at once, the less each one costs.
    pub fn extend(&self, sessions: impl IntoIterator<Item = (SessionId, Timestamp)>) {
        let entries = sessions.into_iter().map(|(session, until)| Entry::new(session, until));
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_unstable_by_key(|entry| entry.session);
        entries.dedup_by(|later, kept| {
            let is_same = later.session == kept.session;
            kept.until = if is_same { kept.until.max(later.until) } else { kept.until };
            is_same
        });
        for of_one_shard in entries.chunk_by(|one, two| place(one.session) == place(two.session)) {
            self.shard(of_one_shard[0].session).add(of_one_shard);
        }
    }

    /// Forgets what is over in some of the shards, each time in others: all of them
    /// in `turns` calls.
    pub fn sweep(&self, now: Timestamp, turns: usize) {
        let count = SHARDS.div_ceil(turns.max(1));
        let first = self.sweeps.fetch_add(count, Ordering::Relaxed);
        for number in first..first + count {
            self.shards[number % SHARDS].sweep(now);
        }
    }

    /// How many there are; one that was revoked twice may for a while count twice.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.held.load().len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, session: SessionId) -> &Shard {
        &self.shards[place(session)]
    }
}

/// Which shard holds a session.
fn place(session: SessionId) -> usize {
    let [first, second, ..] = *session.as_bytes();
    usize::from(u16::from_be_bytes([first, second]) >> (u16::BITS - SHARD_BITS))
}

impl Shard {
    /// Adds entries that are in order.
    fn add(&self, new: &[Entry]) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held.load();
        let recent = merged(&held.recent, new);
        let recent_max = RECENT_MIN.max(held.settled.len() / RECENT_SHARE);
        let next = if recent.len() <= recent_max {
            Held { settled: Arc::clone(&held.settled), recent }
        } else {
            Held { settled: Arc::new(merged(&held.settled, &recent)), recent: Vec::new() }
        };
        self.held.store(Arc::new(next));
    }

    fn sweep(&self, now: Timestamp) {
        let is_left = |entry: &Entry| i64::from(entry.until) > now.seconds();
        if self.held.load().entries().all(is_left) {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held.load();
        let mut settled = merged(&held.settled, &held.recent);
        settled.retain(is_left);
        settled.shrink_to_fit();
        self.held.store(Arc::new(Held { settled: Arc::new(settled), recent: Vec::new() }));
    }
}

impl Held {
    fn find(&self, session: SessionId) -> Option<u32> {
        let recent = self.recent.binary_search_by_key(&session, |entry| entry.session);
        let recent = recent.ok().map(|at| self.recent[at].until);
        let settled = settled_at(&self.settled, session).map(|at| self.settled[at].until);
        recent.max(settled)
    }

    /// The entry at a place in the order of `entries`.
    fn at(&self, place: usize) -> Option<&Entry> {
        self.settled.get(place).or_else(|| self.recent.get(place.checked_sub(self.settled.len())?))
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.settled.iter().chain(&self.recent)
    }

    fn len(&self) -> usize {
        self.settled.len() + self.recent.len()
    }
}

/// Looks first where an id would lie if all were spread evenly, as random ones
/// are, and from there in steps that double: right for every set of ids, and for
/// random ones a matter of a few neighbouring cache lines.
fn settled_at(entries: &[Entry], session: SessionId) -> Option<usize> {
    let guess = evenly(session, entries.len());
    let is_before = |entry: &Entry| entry.session < session;
    let (mut low, mut high) = (guess, guess);
    let mut step = RECENT_MIN;
    while low > 0 && !is_before(&entries[low - 1]) {
        high = low - 1;
        low = low.saturating_sub(step);
        step *= 2;
    }
    while high < entries.len() && is_before(&entries[high]) {
        low = high + 1;
        high = entries.len().min(high + step);
        step *= 2;
    }
    let at = low + entries[low..high].partition_point(is_before);
    entries.get(at).is_some_and(|entry| entry.session == session).then_some(at)
}

/// Where among `len` evenly spread ids of its shard an id would lie.
fn evenly(session: SessionId, len: usize) -> usize {
    let [head @ .., _, _, _, _, _, _, _, _] = *session.as_bytes();
    let within = u128::from(u64::from_be_bytes(head) << SHARD_BITS);
    let at = (within * len as u128) >> u64::BITS;
    usize::try_from(at).unwrap_or(len)
}

/// Both in one order; of two of one session the one that lasts longer.
fn merged(one: &[Entry], two: &[Entry]) -> Vec<Entry> {
    let mut all = Vec::with_capacity(one.len() + two.len());
    let mut left = one;
    for entry in two {
        let before = left.partition_point(|known| known.session < entry.session);
        let (earlier, mut rest) = left.split_at(before);
        all.extend_from_slice(earlier);
        let mut entry = *entry;
        if let Some((same, later)) =
            rest.split_first().filter(|(it, _)| it.session == entry.session)
        {
            entry.until = entry.until.max(same.until);
            rest = later;
        }
        all.push(entry);
        left = rest;
    }
    all.extend_from_slice(left);
    // Only what was in both leaves room; a shard is kept for long.
    all.shrink_to_fit();
    all
}

impl Entry {
    fn new(session: SessionId, until: Timestamp) -> Self {
        let seconds = until.millis().saturating_add(999).div_euclid(1000);
        let until = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        Self { session, until }
    }
}

const _: () = assert!(mem::size_of::<Entry>() == 20, "what docs/performance.md says");

#[cfg(test)]
mod tests;
