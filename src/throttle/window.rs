//! How often each key came: exact sliding windows in bounded memory. When there
//! is no more room, a row makes room; nobody is refused for that.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::ambient::Timestamp;
use crate::config::Rate;

/// Rows looked at to find the one that makes room.
const SAMPLE: usize = 8;
/// Rows looked at with each count, so that those whose window is over go.
const SWEEP: usize = 2;
/// Times kept, for each row that there may be.
const TIMES_PER_ENTRY: usize = 8;

/// At most `entries` keys and a multiple of that in times, whoever comes.
pub(super) struct Windows<K> {
    rate: Rate,
    entries: usize,
    times_max: usize,
    times: usize,
    index: HashMap<K, usize>,
    rows: Vec<Row<K>>,
    /// Where sweeping, and the search for room, go on.
    hand: usize,
}

struct Row<K> {
    key: K,
    /// Oldest first; never empty.
    times: VecDeque<Timestamp>,
}

impl<K: Clone + Eq + Hash> Windows<K> {
    pub(super) fn new(rate: Rate, entries: usize) -> Self {
        let entries = entries.max(1);
        // One key alone must be able to reach the limit.
        let times_max = entries.saturating_mul(TIMES_PER_ENTRY).max(limit(rate));
        let (times, index, rows, hand) = Default::default();
        Self { rate, entries, times_max, times, index, rows, hand }
    }

    /// How long until the key may come once more; `None` when it may now.
    pub(super) fn wait(&mut self, key: &K, now: Timestamp) -> Option<Duration> {
        let index = *self.index.get(key)?;
        self.forget_old(index, now);
        let times = &self.rows.get(*self.index.get(key)?)?.times;
        // The one whose leaving makes room for one more.
        let oldest = times.get(times.len().checked_sub(limit(self.rate))?)?;
        // A clock that was put back must not make the wait any longer.
        Some(oldest.plus(self.rate.window).since(now).min(self.rate.window))
    }

    /// Counts one that came.
    pub(super) fn count(&mut self, key: &K, now: Timestamp) {
        self.sweep(now);
        let is_known = self.index.contains_key(key);
        if self.times >= self.times_max || (!is_known && self.rows.len() >= self.entries) {
            self.make_room(key, now);
        }
        self.times += 1;
        if let Some(row) = self.index.get(key).and_then(|index| self.rows.get_mut(*index)) {
            row.times.push_back(now);
        } else {
            self.index.insert(key.clone(), self.rows.len());
            self.rows.push(Row { key: key.clone(), times: VecDeque::from([now]) });
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        assert_eq!(self.times, self.rows.iter().map(|row| row.times.len()).sum::<usize>());
        assert_eq!(self.rows.len(), self.index.len());
        (self.rows.len(), self.times)
    }

    fn forget_old(&mut self, index: usize, now: Timestamp) {
        let window = self.rate.window;
        let Some(row) = self.rows.get_mut(index) else { return };
        let before = row.times.len();
        while row.times.front().is_some_and(|time| now.since(*time) >= window) {
            row.times.pop_front();
        }
        self.times -= before - row.times.len();
        if row.times.is_empty() {
            self.remove(index);
        }
    }

    fn sweep(&mut self, now: Timestamp) {
        for _ in 0..SWEEP.min(self.rows.len()) {
            let index = self.advance();
            self.forget_old(index, now);
        }
    }

    /// Drops the row of a sample that tells least: the fewest times, the oldest of
    /// those. Whoever comes under many names so pushes out such names, not the one
    /// that is at its limit. The key that room is made for stays.
    fn make_room(&mut self, key: &K, now: Timestamp) {
        let sample: Vec<usize> = (0..SAMPLE.min(self.rows.len())).map(|_| self.advance()).collect();
        let worth = |index: &usize| {
            let times = &self.rows[*index].times;
            (times.len(), times.back().copied().unwrap_or(now))
        };
        let others = sample.into_iter().filter(|index| self.rows[*index].key != *key);
        if let Some(index) = others.min_by_key(worth) {
            self.remove(index);
        }
    }

    /// Moves the hand on; only while there are rows.
    fn advance(&mut self) -> usize {
        self.hand = (self.hand + 1) % self.rows.len().max(1);
        self.hand
    }

    fn remove(&mut self, index: usize) {
        let Row { key, times } = self.rows.swap_remove(index);
        self.times -= times.len();
        self.index.remove(&key);
        if let Some(moved) = self.rows.get(index) {
            self.index.insert(moved.key.clone(), index);
        }
    }
}

fn limit(rate: Rate) -> usize {
    usize::try_from(rate.count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::{prop, proptest};

    use super::{TIMES_PER_ENTRY, Windows};
    use crate::ambient::Timestamp;
    use crate::config::Rate;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// Counts it if it may come.
    fn admit(windows: &mut Windows<u16>, key: u16, now: Timestamp) -> bool {
        let may = windows.wait(&key, now).is_none();
        if may {
            windows.count(&key, now);
        }
        may
    }

    #[test]
    fn the_window_slides_to_the_millisecond() {
        let mut windows = Windows::new(Rate { count: 2, window: SECOND }, 10);
        assert!(admit(&mut windows, 1, at(0)));
        assert!(admit(&mut windows, 1, at(600)));
        assert_eq!(windows.wait(&1, at(600)), Some(Duration::from_millis(400)));
        assert_eq!(windows.wait(&1, at(999)), Some(Duration::from_millis(1)));
        assert!(admit(&mut windows, 1, at(1000)));
        assert_eq!(windows.wait(&1, at(1000)), Some(Duration::from_millis(600)));
        assert!(admit(&mut windows, 2, at(1000)), "another key");
    }

    #[test]
    fn a_clock_put_back_does_not_lengthen_the_wait() {
        let mut windows = Windows::new(Rate { count: 1, window: SECOND }, 10);
        assert!(admit(&mut windows, 1, at(1_000_000)));
        assert_eq!(windows.wait(&1, at(0)), Some(SECOND));
    }

    #[test]
    fn whoever_fills_the_table_forgets_no_row_at_its_limit_and_locks_nobody_out() {
        let mut windows = Windows::new(Rate { count: 3, window: SECOND }, 50);
        for _ in 0..3 {
            assert!(admit(&mut windows, 9999, at(0)));
        }
        for key in 0..5000 {
            assert!(admit(&mut windows, key, at(1)), "{key}");
        }
        assert!(!admit(&mut windows, 9999, at(2)));
        assert_eq!(windows.size().0, 50);
    }

    #[test]
    fn what_is_over_goes_without_being_asked_for() {
        let mut windows = Windows::new(Rate { count: 3, window: SECOND }, 1000);
        for key in 0..500 {
            assert!(admit(&mut windows, key, at(0)));
        }
        for step in 0..400 {
            assert!(admit(&mut windows, 1000, at(1000 * (step + 1))));
        }
        assert!(windows.size().0 <= 2, "{:?}", windows.size());
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_no_window_holds_more_than_the_rate(
            (count, entries) in (1_u32..20, 1_usize..6),
            steps in prop::collection::vec((0_u16..12, 0_i64..300), 1..600),
        ) {
            let rate = Rate { count, window: SECOND };
            let mut windows = Windows::new(rate, entries);
            let mut roomy = Windows::new(rate, 100);
            let mut admitted: HashMap<u16, Vec<Timestamp>> = HashMap::new();
            let mut now = 0;
            for (key, pause) in steps {
                now += pause;
                admit(&mut windows, key, at(now));
                let (rows, times) = windows.size();
                assert!(rows <= entries && times <= (entries * TIMES_PER_ENTRY).max(count as usize));
                // With room for all keys the count is exact.
                let times = admitted.entry(key).or_default();
                times.retain(|time| at(now).since(*time) < SECOND);
                let may = admit(&mut roomy, key, at(now));
                assert_eq!(may, times.len() < count as usize);
                if may {
                    times.push(at(now));
                }
            }
        }
    }
}
