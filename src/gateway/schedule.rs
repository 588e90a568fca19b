//! A fixed grid of moments, for answers that must not tell why they are given: each
//! is released at the next moment of the grid that began with its request, however
//! long it took to know. Not a random sleep, which could be averaged out.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::ambient::next_step;

/// A thread that does nothing but wait, to the microsecond. The runtime's own timers wait
/// whole milliseconds from the moment at which a thread goes to wait, so that a fraction
/// of one would show when the answer was known.
#[derive(Clone)]
pub struct Timer {
    /// The thread ends with the last of these; `None` for the runtime's own timers.
    asked: Option<Sender<Wait>>,
}

/// Somebody who waits.
struct Wait {
    until: Instant,
    wake: oneshot::Sender<()>,
}

impl Timer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be none.
    pub fn start() -> io::Result<Self> {
        let (asked, waits) = channel();
        thread::Builder::new().name("schedule".to_owned()).spawn(move || wait_for_all(&waits))?;
        Ok(Self { asked: Some(asked) })
    }

    /// Waits there, and here if it has ended.
    async fn until(&self, moment: Instant) {
        let (wake, woken) = oneshot::channel();
        let wait = Wait { until: moment, wake };
        let is_asked = self.asked.as_ref().is_some_and(|asked| asked.send(wait).is_ok());
        if !is_asked || woken.await.is_err() {
            sleep_until(moment).await;
        }
    }

    /// Of a test's own time.
    #[cfg(test)]
    pub(super) const fn here() -> Self {
        Self { asked: None }
    }
}

/// Wakes each at its time, until nobody can ask any more.
fn wait_for_all(asked: &Receiver<Wait>) {
    // Two may wait for one moment.
    let mut waiting = BTreeMap::<(Instant, u64), oneshot::Sender<()>>::new();
    let mut number = 0;
    loop {
        // Also while further ones keep coming.
        let now = Instant::now();
        while let Some(first) = waiting.first_entry().filter(|it| it.key().0 <= now) {
            // Whoever waited may be gone.
            let _ = first.remove().send(());
        }
        let next = match waiting.first_key_value() {
            Some(((until, _), _)) => asked.recv_timeout(until.saturating_duration_since(now)),
            None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Wait { until, wake }) => {
                number += 1;
                waiting.insert((until, number), wake);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// One grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    step: Duration,
}

impl Schedule {
    /// A moment every so often; never zero.
    pub(super) const fn every(step: Duration) -> Self {
        Self { step }
    }

    /// Waits for the next moment of a request that began then.
    pub(super) async fn keep(self, timer: &Timer, began: Instant) {
        timer.until(began + next_step(self.step, began.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Schedule, Timer};

    /// Longer than any test.
    const STEP: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn answers_are_released_on_the_grid_alone() {
        let millis = Duration::from_millis;
        for (took, released) in
            [(0, 250), (1, 250), (249, 250), (250, 500), (251, 500), (900, 1000)]
        {
            let began = Instant::now();
            advance(millis(took)).await;
            Schedule::every(millis(250)).keep(&Timer::here(), began).await;
            assert_eq!(began.elapsed(), millis(released), "after {took} ms");
        }
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_at_the_moment_and_not_before() {
        let timer = Timer::start().unwrap();
        let began = Instant::now();
        // Later ones first, two of one moment, and one that is over.
        let moments = [30, 20, 20, 10, 0].map(|millis| began + Duration::from_millis(millis));
        let waits = moments.map(async |moment| {
            timer.until(moment).await;
            assert!(Instant::now() >= moment, "{moment:?}");
            Instant::now()
        });
        let woken = futures_util::future::join_all(waits).await;
        assert!(woken[3] <= woken[0] && woken[4] <= woken[0], "in their order: {woken:?}");
        // One that gives up keeps nobody else from being woken.
        drop(tokio::time::timeout(Duration::ZERO, timer.until(began + STEP)).await);
        timer.until(Instant::now() + Duration::from_millis(1)).await;
    }

    #[test]
    fn the_thread_ends_with_the_last_who_could_ask() {
        let (asked, waits) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || super::wait_for_all(&waits));
        let (wake, woken) = tokio::sync::oneshot::channel();
        asked.send(super::Wait { until: Instant::now() + STEP, wake }).unwrap();
        drop(asked);
        thread.join().unwrap();
        assert!(woken.blocking_recv().is_err(), "whoever waits there learns it");
    }
}
