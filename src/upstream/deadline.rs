//! One timer for all requests of a connection, moved only when it fires or when
//! a nearer deadline appears.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// A reusable timer.
#[derive(Debug)]
pub(crate) struct Deadline(Pin<Box<Sleep>>);

impl Deadline {
    pub(crate) fn new(at: Instant) -> Self {
        Self(Box::pin(tokio::time::sleep_until(at)))
    }

    /// Ready once `at` has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if at < self.0.deadline() {
            self.0.as_mut().reset(at);
        }
        while self.0.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Deadline;

    #[tokio::test(start_paused = true)]
    async fn a_later_deadline_is_kept_though_the_timer_was_set_for_an_earlier_one() {
        let begun = Instant::now();
        let mut deadline = Deadline::new(begun + Duration::from_secs(1));
        for seconds in [3, 5, 4] {
            let at = begun + Duration::from_secs(seconds);
            poll_fn(|cx| deadline.poll(cx, at)).await;
            assert!(Instant::now() >= at);
            assert!(begun.elapsed() <= Duration::from_millis(seconds.max(5) * 1000 + 2));
        }
    }
}
