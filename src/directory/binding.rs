//! One try of a password: how far it has come, so that whoever comes away without an
//! outcome knows whether the directory may have counted a wrong one. Knows no connection.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::directory::bind::BindAnswer;
use crate::directory::{DirectoryError, VerifyError};

/// Where a try is.
pub(super) struct Binding {
    /// How much time it has, but for a pause.
    time: Duration,
    /// When that began, later by a pause that is over; `None` in one.
    began: Mutex<Option<Instant>>,
    /// Others' binds have to end first.
    waits: AtomicBool,
    /// The directory may have counted it as a wrong password: from the moment that a bind
    /// is sent, until an answer says that the password is right.
    is_sent: AtomicBool,
}

impl Binding {
    /// A try that begins now and has so much time.
    pub(super) fn within(time: Duration) -> Self {
        let (waits, is_sent) = Default::default();
        Self { time, began: Mutex::new(Some(Instant::now())), waits, is_sent }
    }

    /// Does what there is time for; `None` when the time is over.
    pub(super) async fn limits<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut end) = (pin!(work), pin!(sleep_until(Instant::now() + self.time)));
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            // The work alone begins and ends pauses.
            let Some(began) = *self.began() else { return Poll::Pending };
            if end.deadline() != began + self.time {
                end.as_mut().reset(began + self.time);
            }
            end.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    /// Waits for something that says nothing of the directory: no time goes by for it.
    pub(super) async fn pauses<T>(&self, wait: impl Future<Output = T>) -> T {
        let (since, before) = (Instant::now(), self.began().take());
        let done = wait.await;
        *self.began() = before.map(|before| before + since.elapsed());
        done
    }

    fn began(&self) -> MutexGuard<'_, Option<Instant>> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From when on it is too late to begin.
    fn last_call(&self) -> Instant {
        self.began().unwrap_or_else(Instant::now) + self.time * 9 / 10
    }

    /// Waits until it is this one's turn.
    ///
    /// # Errors
    /// When hardly any time is left by then: whoever sends a password and does not wait
    /// for the answer has a failure counted for nothing.
    pub(super) async fn waits<T>(
        &self,
        turn: impl Future<Output = T>,
    ) -> Result<T, DirectoryError> {
        self.waits.store(true, Ordering::Relaxed);
        let turn = turn.await;
        if Instant::now() >= self.last_call() {
            return Err(DirectoryError::Busy);
        }
        self.waits.store(false, Ordering::Relaxed);
        Ok(turn)
    }

    /// Sends a bind; what goes before it, as waiting for a connection, is no part of this.
    pub(super) async fn sent(
        &self,
        bind: impl Future<Output = Result<BindAnswer, DirectoryError>>,
    ) -> Result<BindAnswer, DirectoryError> {
        self.is_sent.store(true, Ordering::Relaxed);
        let answer = bind.await?;
        let is_open = !answer.outcome.proves_the_password();
        self.is_sent.store(is_open, Ordering::Relaxed);
        Ok(answer)
    }

    /// Does something beside the bind, as long as there is time left to judge what the
    /// bind said: a rejection is final, whatever becomes of the rest.
    pub(super) async fn beside<T>(
        &self,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        timeout_at(self.last_call(), work).await.unwrap_or(Err(DirectoryError::Timeout))
    }

    /// What an error means for the try.
    pub(super) fn weighed(&self, error: VerifyError) -> VerifyError {
        match error {
            VerifyError::Unavailable(error) if self.is_sent.load(Ordering::Relaxed) => {
                VerifyError::Unjudged(error)
            }
            VerifyError::Unavailable(DirectoryError::Timeout)
                if self.waits.load(Ordering::Relaxed) =>
            {
                DirectoryError::Busy.into()
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::Binding;
    use crate::directory::bind::BindAnswer;
    use crate::directory::outcome::{Bar, Change, Outcome, Rejection};
    use crate::directory::{DirectoryError, VerifyError};

    const TIME: Duration = Duration::from_secs(5);

    fn may_be_counted(binding: &Binding) -> bool {
        match binding.weighed(DirectoryError::Timeout.into()) {
            VerifyError::Unjudged(DirectoryError::Timeout) => true,
            VerifyError::Unavailable(DirectoryError::Timeout) => false,
            error => panic!("{error:?}"),
        }
    }

    #[tokio::test]
    async fn a_try_may_be_counted_until_the_password_is_proved() {
        for (outcome, counted) in [
            (Outcome::Accepted(None), false),
            (Outcome::ChangeRequired(Change::Expired), false),
            (Outcome::Barred(Bar::Disabled), false),
            (Outcome::Rejected(Rejection::WrongPassword), true),
            (Outcome::Rejected(Rejection::Locked), true),
        ] {
            let binding = Binding::within(TIME);
            binding.waits(async {}).await.unwrap();
            assert!(!may_be_counted(&binding), "nothing is sent");
            let answer = async {
                assert!(may_be_counted(&binding), "it is on its way");
                Ok(BindAnswer { outcome, code: 0, plain: true })
            };
            binding.sent(answer).await.unwrap();
            assert_eq!(may_be_counted(&binding), counted, "{outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whose_turn_comes_too_late_sends_nothing() {
        let binding = Binding::within(TIME);
        assert!(binding.waits(sleep(TIME / 2)).await.is_ok());
        let late = binding.waits(sleep(TIME / 2)).await;
        assert!(matches!(late, Err(DirectoryError::Busy)));
        let whole = binding.weighed(DirectoryError::Timeout.into());
        assert!(matches!(whole, VerifyError::Unavailable(DirectoryError::Busy)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_costs_no_time_and_the_rest_no_more_than_there_is() {
        for (before, after, in_time) in [(4, 4, true), (4, 7, false), (11, 0, false)] {
            let (began, binding) = (Instant::now(), Binding::within(10 * TIME));
            let done = binding.limits(async {
                sleep(before * TIME).await;
                binding.pauses(sleep(100 * TIME)).await;
                let seat = binding.waits(sleep(after * TIME)).await;
                assert!(seat.is_ok(), "the last call is put off too");
            });
            assert_eq!(done.await.is_some(), in_time);
            let took =
                if in_time { before + 100 + after } else { 10 + (100 * u32::from(before < 10)) };
            assert_eq!(began.elapsed(), took * TIME, "{before} {after}");
        }
    }

    #[tokio::test]
    async fn a_bind_without_an_outcome_may_be_counted() {
        let binding = Binding::within(TIME);
        let odd = DirectoryError::Protocol("an answer");
        assert!(binding.sent(async { Err(odd) }).await.is_err());
        assert!(may_be_counted(&binding));
    }
}
