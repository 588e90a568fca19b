//! The windows of one family: exact, in bounded memory. When the table is full, a
//! window makes room; nobody is refused for that.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::ambient::Timestamp;
use crate::store::attempts::{AttemptId, Counted, Counting, Window, WindowFamily, WindowRow};

type Key = [u8; 32];

/// Rows looked at to find the one that makes room.
const SAMPLE: usize = 8;
/// Rows looked at in one round for windows that are over, so that attempts need not wait.
const ROUND: usize = 2048;

pub(super) struct Table {
    family: WindowFamily,
    entries: usize,
    index: HashMap<Key, usize>,
    rows: Vec<Row>,
    /// Keys whose attempts the disk does not know yet.
    changed: HashSet<Key>,
    /// Where the next round begins.
    round: usize,
}

struct Row {
    key: Key,
    /// As the window was when it was asked for last.
    length: Duration,
    renewed: bool,
    /// Oldest first; never empty.
    attempts: VecDeque<Counted>,
}

impl Table {
    pub(super) fn new(family: WindowFamily, entries: usize) -> Self {
        let (index, rows, changed, round) = Default::default();
        Self { family, entries, index, rows, changed, round }
    }

    pub(super) fn bound(&mut self, entries: usize) {
        self.entries = entries.max(1);
        while self.rows.len() > self.entries {
            self.remove(self.rows.len() - 1);
        }
    }

    /// How long until the window has room for the member; `None` when it has now.
    pub(super) fn wait(
        &mut self,
        window: &Window,
        member: AttemptId,
        now: Timestamp,
    ) -> Option<Duration> {
        let attempts = &self.row(window, now)?.attempts;
        let is_in = |counted: &Counted| counted.member == member;
        if matches!(window.counting, Counting::Distinct(_)) && attempts.iter().any(is_in) {
            return None;
        }
        let count = usize::try_from(window.count).unwrap_or(usize::MAX);
        let too_many = attempts.len().checked_sub(count)?;
        // The one whose leaving makes room for one more.
        let leaves = match window.counting {
            Counting::Renewed => attempts.back(),
            Counting::Sliding | Counting::Distinct(_) => attempts.get(too_many),
        };
        let leaves = leaves.map_or(now, |counted| counted.at);
        // A clock that was put back must not make the wait any longer.
        Some(leaves.plus(window.length).since(now).min(window.length))
    }

    /// Counts it; says whether its member was in already.
    pub(super) fn count(&mut self, window: &Window, counted: Counted) -> bool {
        let key = window.key;
        self.changed(key);
        if let Some(row) = self.index.get(&key).and_then(|index| self.rows.get_mut(*index)) {
            let before = row.attempts.len();
            row.attempts.retain(|known| known.member != counted.member);
            let was_in = row.attempts.len() < before;
            row.attempts.push_back(counted);
            return was_in;
        }
        if self.rows.len() >= self.entries {
            self.make_room(&key, counted.at);
        }
        self.insert(Row {
            key,
            length: window.length,
            renewed: window.counting == Counting::Renewed,
            attempts: VecDeque::from([counted]),
        });
        false
    }

    pub(super) fn give_back(&mut self, key: &Key, member: AttemptId) {
        let Some(index) = self.index.get(key).copied() else {
            return; // It made room for another.
        };
        self.changed(*key);
        let attempts = &mut self.rows[index].attempts;
        attempts.retain(|known| known.member != member);
        if attempts.is_empty() {
            self.remove(index);
        }
    }

    pub(super) fn attempts(&mut self, window: &Window, now: Timestamp) -> u32 {
        let row = self.row(window, now);
        row.map_or(0, |row| u32::try_from(row.attempts.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn restore(&mut self, row: WindowRow, now: Timestamp) {
        let WindowRow { key, length, renewed, attempts, .. } = row;
        if self.index.contains_key(&key) {
            return;
        }
        let mut row = Row { key, length, renewed, attempts: attempts.into() };
        let forgot = row.forget_old(now);
        if forgot || self.rows.len() >= self.entries {
            self.changed(key);
        }
        if !row.attempts.is_empty() && self.rows.len() < self.entries {
            self.insert(row);
        }
    }

    /// Notes that the disk does not know the key's attempts. While it cannot be
    /// written this is bounded; a stale row there only counts until its window is over.
    pub(super) fn changed(&mut self, key: Key) {
        if self.changed.len() < self.entries.saturating_mul(2) {
            self.changed.insert(key);
        }
    }

    /// What the disk does not know yet. Rows whose window is over go on the way,
    /// some in each call.
    pub(super) fn take_changes(&mut self, now: Timestamp) -> Vec<WindowRow> {
        let from = if self.round < self.rows.len() { self.round } else { 0 };
        let to = from.saturating_add(ROUND).min(self.rows.len());
        // Backwards: a row that goes is replaced by the last one.
        for index in (from..to).rev() {
            self.forget_old(index, now);
        }
        self.round = to;
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed.map(|key| self.kept(key)).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn kept(&self, key: Key) -> WindowRow {
        let family = self.family;
        match self.index.get(&key).and_then(|index| self.rows.get(*index)) {
            Some(Row { length, renewed, attempts, .. }) => WindowRow {
                family,
                key,
                length: *length,
                renewed: *renewed,
                attempts: attempts.iter().copied().collect(),
            },
            None => WindowRow {
                family,
                key,
                length: Duration::ZERO,
                renewed: false,
                attempts: Vec::new(),
            },
        }
    }

    /// The window's row as it is now, by the length that holds now.
    fn row(&mut self, window: &Window, now: Timestamp) -> Option<&Row> {
        let index = *self.index.get(&window.key)?;
        let row = self.rows.get_mut(index)?;
        row.length = window.length;
        row.renewed = window.counting == Counting::Renewed;
        self.forget_old(index, now);
        self.rows.get(*self.index.get(&window.key)?)
    }

    fn forget_old(&mut self, index: usize, now: Timestamp) {
        let Some(row) = self.rows.get_mut(index) else { return };
        if row.forget_old(now) {
            let (key, empty) = (row.key, row.attempts.is_empty());
            self.changed(key);
            if empty {
                self.remove(index);
            }
        }
    }

    /// Drops the row of a sample that tells least: the fewest attempts, the oldest
    /// of those. Inventing names thus pushes out invented names, not the account
    /// under attack. The new key is random enough to draw the sample.
    fn make_room(&mut self, key: &Key, now: Timestamp) {
        let (draws, _) = key.as_chunks::<4>();
        let draws = draws.iter().take(SAMPLE).filter_map(|draw| {
            usize::try_from(u32::from_le_bytes(*draw)).ok()?.checked_rem(self.rows.len())
        });
        let worth = |index: &usize| {
            let row = &self.rows[*index];
            let newest = row.attempts.back().map_or(now, |counted| counted.at);
            let over = now.since(newest) >= row.length;
            (!over, row.attempts.len(), newest)
        };
        if let Some(index) = draws.min_by_key(worth) {
            self.remove(index);
        }
    }

    fn insert(&mut self, row: Row) {
        self.index.insert(row.key, self.rows.len());
        self.rows.push(row);
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

impl Row {
    /// Forgets what is over; says whether anything was.
    fn forget_old(&mut self, now: Timestamp) -> bool {
        let length = self.length;
        let is_over = |counted: &Counted| now.since(counted.at) >= length;
        let before = self.attempts.len();
        if !self.renewed {
            while self.attempts.front().is_some_and(is_over) {
                self.attempts.pop_front();
            }
        } else if self.attempts.back().is_some_and(is_over) {
            self.attempts.clear();
        }
        self.attempts.len() < before
    }
}
