//! Tries of this process that are under way, by the window that they count in, and the
//! wait for one of them to end: by then it was a success and has given its place back,
//! or a failure and keeps it. Knows neither whose tries they are nor who counts them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Queue, Notify, OwnedMutexGuard};

use crate::store::{Window, WindowFamily};

/// Which window it is.
pub(super) type Place = (WindowFamily, [u8; 32]);
/// The right to ask again, of all who wait for one window. One has it at a time, first
/// come, first served: a place that becomes free wakes one, not all.
pub(super) type Turn = OwnedMutexGuard<()>;

/// The tries under way; clones share them. A window has its line while a try of it is
/// under way or somebody waits, so there are no more than there are logins under way.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashMap<Place, Held>>>);

struct Held {
    line: Arc<Line>,
    /// Tries and those who wait; without any it goes.
    holds: usize,
}

/// One window's tries, and who waits for their end.
#[derive(Default)]
struct Line {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The number of the next try.
    next: u64,
    /// The tries that count, or are just asking whether they do.
    tries: BTreeSet<u64>,
    /// How many that counted have ended.
    ended: u64,
    /// A queue for each number of places that one may see in the window: who has more of
    /// them does not wait behind who has less.
    queues: Vec<(u32, Arc<Queue<()>>)>,
}

/// A part in a line, which goes with the last.
struct Hold {
    under_way: UnderWay,
    place: Place,
    line: Arc<Line>,
}

/// A try's part in one window: under way until it is dropped.
pub(super) struct Try {
    hold: Hold,
    number: u64,
    /// How many had ended before it asked.
    ended: u64,
    counts: bool,
}

/// A try of which nobody knows yet whether it counts. It is under way from before the
/// store is asked, so that whoever is told "full" because of it sees it.
pub(super) struct Asking(Vec<Try>);

/// One who goes on alone of those who come to a place.
pub(super) struct Alone {
    _turn: Turn,
    /// Goes after the turn, so that those who wait have one queue.
    _hold: Hold,
}

/// Whoever was told that a window is full.
pub(super) struct Waiting {
    hold: Hold,
    ended: u64,
    /// Tries from this number on began when it had its answer, and have no part in it.
    before: u64,
}

/// What may make a window less full than it was said to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Chance {
    /// A try that counted has ended since.
    Ended,
    /// One that may have counted is under way.
    UnderWay,
    /// Nothing.
    None,
}

impl UnderWay {
    /// A try that is about to be counted in these windows, or in none.
    pub(super) fn ask(&self, windows: &[Window]) -> Asking {
        let begin = |window: &Window| {
            let hold = self.hold((window.family, window.key));
            let mut state = hold.line.state();
            let (number, ended) = (state.next, state.ended);
            state.next += 1;
            state.tries.insert(number);
            drop(state);
            Try { hold, number, ended, counts: false }
        };
        Asking(windows.iter().map(begin).collect())
    }

    /// Waits until nobody else goes on at this place.
    pub(super) async fn alone(&self, place: Place) -> Alone {
        let hold = self.hold(place);
        Alone { _turn: hold.line.turn(0).await, _hold: hold }
    }

    fn hold(&self, place: Place) -> Hold {
        let mut lines = self.lines();
        let held = lines.entry(place).or_insert_with(|| Held { line: Arc::default(), holds: 0 });
        held.holds += 1;
        Hold { under_way: self.clone(), place, line: Arc::clone(&held.line) }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Place, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lines().len()
    }
}

impl Asking {
    /// It counts: in `own`, some of the windows asked about, as a place of its own.
    pub(super) fn counted(self, own: &[Window]) -> Vec<(Window, Try)> {
        let counts = |mut begun: Try| {
            let window = own.iter().find(|own| begun.hold.place == (own.family, own.key))?;
            begun.counts = true;
            Some((*window, begun))
        };
        self.0.into_iter().filter_map(counts).collect()
    }

    /// It counts nowhere, as the window at this place is full; `None` if there is none.
    pub(super) fn full(self, index: usize) -> Option<Waiting> {
        let asked = self.0.get(index)?;
        let before = asked.hold.line.state().next;
        let hold = asked.hold.under_way.hold(asked.hold.place);
        Some(Waiting { hold, ended: asked.ended, before })
    }
}

impl Waiting {
    /// The turn of those who see so many places in the window.
    pub(super) async fn turn(&self, places: u32) -> Turn {
        self.hold.line.turn(places).await
    }

    /// Whether there is a use in waiting or in asking again.
    pub(super) fn chance(&self) -> Chance {
        let state = self.hold.line.state();
        if state.ended != self.ended {
            Chance::Ended
        } else if state.tries.first().is_some_and(|first| *first < self.before) {
            Chance::UnderWay
        } else {
            Chance::None
        }
    }

    /// Waits for a try's end. False when none was under way after all: those who were
    /// just asking were told that it is full, too.
    pub(super) async fn end(&self) -> bool {
        loop {
            // Before the look, so that no change falls in between.
            let changed = self.hold.line.changed.notified();
            match self.chance() {
                Chance::Ended => return true,
                Chance::None => return false,
                Chance::UnderWay => changed.await,
            }
        }
    }
}

impl Line {
    async fn turn(&self, places: u32) -> Turn {
        let queue = {
            let mut state = self.state();
            let known = state.queues.iter().find(|(count, _)| *count == places);
            if let Some((_, queue)) = known {
                Arc::clone(queue)
            } else {
                let queue = Arc::default();
                state.queues.push((places, Arc::clone(&queue)));
                queue
            }
        };
        queue.lock_owned().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        let line = &self.hold.line;
        let mut state = line.state();
        state.tries.remove(&self.number);
        state.ended += u64::from(self.counts);
        drop(state);
        line.changed.notify_waiters();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut lines = self.under_way.lines();
        if let Some(held) = lines.get_mut(&self.place) {
            held.holds -= 1;
            if held.holds == 0 {
                lines.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{Chance, UnderWay};
    use crate::store::{Counting, Window, WindowFamily};

    const MOMENT: Duration = Duration::from_millis(10);

    fn window() -> Window {
        Window {
            family: WindowFamily::Account,
            key: [7; 32],
            count: 1,
            length: Duration::from_mins(15),
            counting: Counting::Sliding,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_not_missed_wherever_it_falls() {
        let (under_way, windows) = (UnderWay::default(), [window()]);
        let one = under_way.ask(&windows).counted(&windows);
        let asking = under_way.ask(&windows);
        // Here the store said that it is full.
        drop(one);
        let waiting = asking.full(0).unwrap();
        assert!(waiting.chance() == Chance::Ended);
        assert_eq!(timeout(MOMENT, waiting.end()).await, Ok(true));
        drop(waiting);

        let one = under_way.ask(&windows).counted(&windows);
        let waiting = under_way.ask(&windows).full(0).unwrap();
        assert!(waiting.chance() == Chance::UnderWay);
        assert!(timeout(MOMENT, waiting.end()).await.is_err());
        drop(one);
        assert_eq!(timeout(MOMENT, waiting.end()).await, Ok(true));
        drop(waiting);
        assert_eq!(under_way.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_at_the_same_moment_may_have_the_place_and_who_comes_later_has_not() {
        let (under_way, windows) = (UnderWay::default(), [window()]);
        let before = under_way.ask(&windows);
        let waiting = under_way.ask(&windows).full(0).unwrap();
        let _later = under_way.ask(&windows);
        assert!(waiting.chance() == Chance::UnderWay);
        // It was told the same.
        drop(before);
        assert_eq!(timeout(MOMENT, waiting.end()).await, Ok(false));
        let before = under_way.ask(&windows);
        let waiting = under_way.ask(&windows).full(0).unwrap();
        let before = before.counted(&windows);
        assert!(timeout(MOMENT, waiting.end()).await.is_err());
        drop(before);
        assert_eq!(timeout(MOMENT, waiting.end()).await, Ok(true));
    }
}
