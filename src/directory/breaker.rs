//! Whether a server is worth asking: after it failed it is left alone, longer each
//! time, and then tried by one at a time. Knows no protocol.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ambient::Entropy;

/// Failures in a row that may each be chance; together they are none.
const CHANCES: u32 = 3;
/// How long a server is left alone at first, before jitter.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// How long at most.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How sure it is that a server cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody gets through to it.
    Certain,
    /// One operation came to nothing.
    Perhaps,
}

/// What is known of one server.
pub(super) struct Breaker {
    state: Mutex<State>,
    tried: AtomicBool,
    entropy: Entropy,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nobody has asked it yet, or nothing came of it so far.
    Unheard { failures: u32 },
    /// It has answered.
    Up { failures: u32 },
    /// It is left alone until then, for the nth time in a row.
    Down { times: u32, until: Instant },
}

impl Breaker {
    pub(super) const fn new(entropy: Entropy) -> Self {
        let state = Mutex::new(State::Unheard { failures: 0 });
        Self { state, tried: AtomicBool::new(false), entropy }
    }

    /// Whether everybody may ask it.
    pub(super) fn is_closed(&self) -> bool {
        !matches!(*self.state(), State::Down { .. })
    }

    /// Whether it has answered, and has not failed since.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state(), State::Up { .. })
    }

    /// Until when it is left alone; `None` when it is not.
    pub(super) fn down_until(&self) -> Option<Instant> {
        match *self.state() {
            State::Down { until, .. } => Some(until),
            _ => None,
        }
    }

    /// The right to try a server that is left alone; `None` while somebody else does.
    pub(super) fn try_alone(&self) -> Option<Trial<'_>> {
        (!self.tried.swap(true, Ordering::AcqRel)).then_some(Trial(self))
    }

    /// It answered. True when that is news.
    pub(super) fn succeeded(&self) -> bool {
        let before = std::mem::replace(&mut *self.state(), State::Up { failures: 0 });
        !matches!(before, State::Up { .. })
    }

    /// It failed. True when it is left alone from now on.
    pub(super) fn failed(&self, failure: Failure) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let failures = match *state {
            // Those who asked before it was left alone, or against it, say nothing new.
            State::Down { until, .. } if now < until => return false,
            State::Down { times, .. } => {
                *state = self.down(now, times + 1);
                return false;
            }
            State::Unheard { failures } | State::Up { failures } => failures + 1,
        };
        if failure == Failure::Certain || failures >= CHANCES {
            *state = self.down(now, 1);
            return true;
        }
        match &mut *state {
            State::Unheard { failures: counted } | State::Up { failures: counted } => {
                *counted = failures;
            }
            State::Down { .. } => {}
        }
        false
    }

    /// Half of the pause is certain and half is chance, so that several gateways do not
    /// come back to a server all at once.
    fn down(&self, now: Instant, times: u32) -> State {
        let pause = PAUSE_MIN.saturating_mul(1 << (times - 1).min(16)).min(PAUSE_MAX);
        let half = u64::try_from(pause.as_millis() / 2).unwrap_or_default();
        let chance = self.entropy.below(half + 1).unwrap_or_default();
        State::Down { times, until: now + pause / 2 + Duration::from_millis(chance) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody else tries the server while this lives.
pub(super) struct Trial<'b>(&'b Breaker);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.tried.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Breaker, Failure, PAUSE_MAX, PAUSE_MIN};
    use crate::ambient::Entropy;

    #[tokio::test(start_paused = true)]
    async fn each_pause_is_twice_as_long_up_to_a_limit_and_none_is_foreseen() {
        let mut first_pauses = Vec::new();
        for seed in 0..20 {
            let breaker = Breaker::new(Entropy::seeded(seed));
            assert!(breaker.failed(Failure::Certain));
            let mut longest = PAUSE_MIN;
            for _ in 0..12 {
                let until = breaker.down_until().expect("it is left alone");
                let pause = until - Instant::now();
                assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
                if longest == PAUSE_MIN {
                    first_pauses.push(pause);
                }
                assert!(!breaker.failed(Failure::Certain), "too early to say anything new");
                assert_eq!(breaker.down_until(), Some(until));
                advance(pause).await;
                assert!(!breaker.is_closed() && !breaker.failed(Failure::Perhaps));
                longest = (longest * 2).min(PAUSE_MAX);
            }
            assert!(breaker.succeeded() && breaker.is_up());
            assert!(breaker.failed(Failure::Certain));
            let again = breaker.down_until().expect("down") - Instant::now();
            assert!(again <= PAUSE_MIN, "an answer makes the pauses short again");
        }
        first_pauses.sort();
        first_pauses.dedup();
        assert!(first_pauses.len() > 10, "{first_pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_chance_must_come_three_times_in_a_row() {
        let breaker = Breaker::new(Entropy::seeded(1));
        assert!(breaker.is_closed() && !breaker.is_up(), "not heard of yet");
        assert!(breaker.succeeded() && !breaker.succeeded());
        for _ in 0..5 {
            assert!(!breaker.failed(Failure::Perhaps) && !breaker.failed(Failure::Perhaps));
            assert!(breaker.is_up());
            breaker.succeeded();
        }
        assert!(!breaker.failed(Failure::Perhaps) && !breaker.failed(Failure::Perhaps));
        assert!(breaker.failed(Failure::Perhaps) && !breaker.is_closed());
        advance(Duration::from_secs(1)).await;
        assert!(!breaker.is_closed(), "it must answer first");
    }

    #[tokio::test]
    async fn one_alone_tries_a_server_that_is_left_alone() {
        let breaker = Breaker::new(Entropy::seeded(1));
        let trial = breaker.try_alone();
        assert!(trial.is_some() && breaker.try_alone().is_none());
        drop(trial);
        assert!(breaker.try_alone().is_some());
    }
}
