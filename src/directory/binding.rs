//! One try of a password: how far it has come, so that whoever comes away without an
//! outcome knows whether the directory may have counted a wrong one. Knows no connection.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::directory::bind::BindAnswer;
use crate::directory::{DirectoryError, VerifyError};

/// Whether the directory may have counted the try as a wrong password: from the moment
/// that a bind is sent, until an answer says that the password is right.
#[derive(Default)]
pub(super) struct Binding(AtomicBool);

impl Binding {
    /// Sends a bind; what goes before it, as waiting for a connection, is no part of this.
    pub(super) async fn sent(
        &self,
        bind: impl Future<Output = Result<BindAnswer, DirectoryError>>,
    ) -> Result<BindAnswer, DirectoryError> {
        self.0.store(true, Ordering::Relaxed);
        let answer = bind.await?;
        self.0.store(!answer.outcome.proves_the_password(), Ordering::Relaxed);
        Ok(answer)
    }

    /// What an error means for the try.
    pub(super) fn weighed(&self, error: VerifyError) -> VerifyError {
        match error {
            VerifyError::Unavailable(error) if self.0.load(Ordering::Relaxed) => {
                VerifyError::Unjudged(error)
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Binding;
    use crate::directory::bind::BindAnswer;
    use crate::directory::outcome::{Bar, Change, Outcome, Rejection};
    use crate::directory::{DirectoryError, VerifyError};

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
            let binding = Binding::default();
            assert!(!may_be_counted(&binding), "nothing is sent");
            let answer = async {
                assert!(may_be_counted(&binding), "it is on its way");
                Ok(BindAnswer { outcome, code: 0, plain: true })
            };
            binding.sent(answer).await.unwrap();
            assert_eq!(may_be_counted(&binding), counted, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_bind_without_an_outcome_may_be_counted() {
        let binding = Binding::default();
        let odd = DirectoryError::Protocol("an answer");
        assert!(binding.sent(async { Err(odd) }).await.is_err());
        assert!(may_be_counted(&binding));
    }
}
