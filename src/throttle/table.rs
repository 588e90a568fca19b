//! Failure times by key: an exact sliding window in bounded memory. When the table
//! is full, a row makes room; nobody is refused for that.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::ambient::Timestamp;
use crate::config::Rate;
use crate::store::FailureRow;

/// A keyed hash of what is counted: uniformly spread, and not to be foreseen.
pub(super) type Key = [u8; 32];

/// Rows looked at to find the one that makes room.
const SAMPLE: usize = 8;
/// Rows looked at in one round for windows that are over, so that logins need not wait.
const ROUND: usize = 2048;

/// One failure, and the attempt it belongs to; 0 for those of an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) at: Timestamp,
    pub(super) attempt: u64,
}

pub(super) struct Table {
    rate: Rate,
    entries: usize,
    index: HashMap<Key, usize>,
    rows: Vec<Row>,
    /// Keys whose failures the store does not know yet.
    changed: HashSet<Key>,
    /// Where the next round begins.
    round: usize,
}

struct Row {
    key: Key,
    /// Oldest first; never empty.
    failures: VecDeque<Failure>,
}

impl Table {
    pub(super) fn new(rate: Rate, entries: usize) -> Self {
        let (index, rows, changed, round) = Default::default();
        Self { rate, entries: entries.max(1), index, rows, changed, round }
    }

    pub(super) fn limit(&mut self, rate: Rate, entries: usize) {
        (self.rate, self.entries) = (rate, entries.max(1));
        while self.rows.len() > self.entries {
            self.remove(self.rows.len() - 1);
        }
    }

    /// How long until the key may be tried; `None` when it may be now.
    pub(super) fn wait(&mut self, key: &Key, now: Timestamp) -> Option<Duration> {
        let index = *self.index.get(key)?;
        self.forget_old(index, now);
        let failures = &self.rows.get(*self.index.get(key)?)?.failures;
        let count = usize::try_from(self.rate.count).unwrap_or(usize::MAX);
        // The failure whose leaving makes room for one more.
        let oldest = failures.get(failures.len().checked_sub(count)?)?;
        Some(oldest.at.plus(self.rate.window).since(now))
    }

    pub(super) fn count(&mut self, key: Key, failure: Failure) {
        self.changed(key);
        if let Some(row) = self.index.get(&key).and_then(|index| self.rows.get_mut(*index)) {
            row.failures.push_back(failure);
            return;
        }
        if self.rows.len() >= self.entries {
            self.make_room(&key, failure.at);
        }
        self.index.insert(key, self.rows.len());
        self.rows.push(Row { key, failures: VecDeque::from([failure]) });
    }

    pub(super) fn give_back(&mut self, key: Key, failure: Failure) {
        let Some(index) = self.index.get(&key).copied() else {
            return; // It made room for another.
        };
        self.changed(key);
        let failures = &mut self.rows[index].failures;
        failures.retain(|known| *known != failure);
        if failures.is_empty() {
            self.remove(index);
        }
    }

    pub(super) fn restore(&mut self, key: Key, at: Vec<Timestamp>, now: Timestamp) {
        let in_window = at.into_iter().filter(|at| now.since(*at) < self.rate.window);
        let failures: VecDeque<_> = in_window.map(|at| Failure { at, attempt: 0 }).collect();
        if failures.is_empty() || self.rows.len() >= self.entries {
            self.changed(key);
        } else {
            self.index.insert(key, self.rows.len());
            self.rows.push(Row { key, failures });
        }
    }

    /// Notes that the store does not know the key's failures. While the store is
    /// down this is bounded; a stale row there only counts until its window is over.
    pub(super) fn changed(&mut self, key: Key) {
        if self.changed.len() < self.entries.saturating_mul(2) {
            self.changed.insert(key);
        }
    }

    /// What the store does not know yet. Rows whose window is over go on the way,
    /// some in each call.
    pub(super) fn take_changes(&mut self, now: Timestamp) -> Vec<FailureRow> {
        let from = if self.round < self.rows.len() { self.round } else { 0 };
        let to = from.saturating_add(ROUND).min(self.rows.len());
        // Backwards: a row that goes is replaced by the last one.
        for index in (from..to).rev() {
            self.forget_old(index, now);
        }
        self.round = to;
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .map(|key| {
                let row = self.index.get(&key).and_then(|index| self.rows.get(*index));
                let failures = row.into_iter().flat_map(|row| &row.failures);
                super::row(key, failures.map(|failure| failure.at))
            })
            .collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn forget_old(&mut self, index: usize, now: Timestamp) {
        let window = self.rate.window;
        let Row { key, failures } = &mut self.rows[index];
        let before = failures.len();
        while failures.front().is_some_and(|failure| now.since(failure.at) >= window) {
            failures.pop_front();
        }
        if failures.len() < before {
            let (key, empty) = (*key, failures.is_empty());
            self.changed(key);
            if empty {
                self.remove(index);
            }
        }
    }

    /// Drops the row of a sample that tells least: the fewest failures, the oldest
    /// of those. Inventing names thus pushes out invented names, not the account
    /// under attack. The new key is random enough to draw the sample.
    fn make_room(&mut self, key: &Key, now: Timestamp) {
        let (draws, _) = key.as_chunks::<4>();
        let draws = draws.iter().take(SAMPLE).filter_map(|draw| {
            usize::try_from(u32::from_le_bytes(*draw)).ok()?.checked_rem(self.rows.len())
        });
        let worth = |index: &usize| {
            let failures = &self.rows[*index].failures;
            let newest = failures.back().map_or(now, |failure| failure.at);
            let over = now.since(newest) >= self.rate.window;
            (!over, failures.len(), newest)
        };
        if let Some(index) = draws.min_by_key(worth) {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) {
        let Row { key, .. } = self.rows.swap_remove(index);
        self.index.remove(&key);
        if let Some(moved) = self.rows.get(index) {
            self.index.insert(moved.key, index);
        }
        self.changed(key);
    }
}
