//! A fixed grid of moments, for answers that must not tell why they are given: each
//! is released at the next moment of the grid that began with its request, however
//! long it took to know. Not a random sleep, which could be averaged out.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Instant, sleep_until};

use crate::ambient::next_step;

/// A thread that does nothing but wait. Where sockets are waited for too, whole
/// milliseconds go by from the moment at which a thread went to wait, so that a fraction
/// of one would show when the answer was known.
#[derive(Clone)]
pub struct Timer {
    runtime: Handle,
    /// The thread ends with the last of these.
    _in_use: Option<Sender<()>>,
}

impl Timer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be none.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (in_use, mut ended) = channel(1);
        let timer = Self { runtime: runtime.handle().clone(), _in_use: Some(in_use) };
        let wait = move || runtime.block_on(ended.recv());
        thread::Builder::new().name("schedule".to_owned()).spawn(wait)?;
        Ok(timer)
    }

    /// Waits there, and here if it has ended.
    async fn until(&self, moment: Instant) {
        if self.runtime.spawn(async move { sleep_until(moment).await }).await.is_err() {
            sleep_until(moment).await;
        }
    }

    /// Of a test's own time.
    #[cfg(test)]
    pub(super) fn here() -> Self {
        Self { runtime: Handle::current(), _in_use: None }
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
    async fn who_waits_is_woken_and_the_thread_ends_with_the_last_who_could() {
        let timer = Timer::start().unwrap();
        let (began, step) = (Instant::now(), Duration::from_millis(3));
        Schedule::every(step).keep(&timer, began).await;
        assert!(began.elapsed() >= step);
        let runtime = timer.runtime.clone();
        drop(timer);
        // Whatever waits there is broken off when it goes.
        let forever = runtime.spawn(std::future::pending::<()>());
        assert!(forever.await.unwrap_err().is_cancelled());
    }
}
