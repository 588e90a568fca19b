//! A fixed grid of moments, for answers that must not tell why they are given: each
//! is released at the next moment of the grid that began with its request, however
//! long it took to know. Not a random sleep, which could be averaged out.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

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
    pub(super) async fn keep(self, began: Instant) {
        sleep_until(began + self.after(began.elapsed())).await;
    }

    /// The next moment for what took so long.
    fn after(self, elapsed: Duration) -> Duration {
        let past = elapsed.as_nanos().checked_div(self.step.as_nanos()).unwrap_or(0);
        self.step.saturating_mul(u32::try_from(past).unwrap_or(u32::MAX).saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::Schedule;

    #[tokio::test(start_paused = true)]
    async fn answers_are_released_on_the_grid_alone() {
        let millis = Duration::from_millis;
        for (took, released) in
            [(0, 250), (1, 250), (249, 250), (250, 500), (251, 500), (900, 1000)]
        {
            let began = Instant::now();
            advance(millis(took)).await;
            Schedule::every(millis(250)).keep(began).await;
            assert_eq!(began.elapsed(), millis(released), "after {took} ms");
        }
    }
}
