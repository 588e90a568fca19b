//! One try of a password: how far it has come, so that whoever runs out of time knows
//! whether a server may have counted it. Knows no connection.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::directory::DirectoryError;
use crate::directory::bind::BindAnswer;

/// Whether a server has a password and has not answered: it may have counted it as wrong.
#[derive(Default)]
pub(super) struct Binding(AtomicBool);

impl Binding {
    /// Sends a bind; what goes before it, as waiting for a connection, is no part of this.
    pub(super) async fn sent(
        &self,
        bind: impl Future<Output = Result<BindAnswer, DirectoryError>>,
    ) -> Result<BindAnswer, DirectoryError> {
        self.0.store(true, Ordering::Relaxed);
        let answer = bind.await;
        self.0.store(false, Ordering::Relaxed);
        answer.map_err(|error| match error {
            DirectoryError::Lost => DirectoryError::BindUnanswered,
            error => error,
        })
    }

    /// Why the whole was not done in time.
    pub(super) fn timed_out(self) -> DirectoryError {
        if self.0.into_inner() { DirectoryError::BindUnanswered } else { DirectoryError::Timeout }
    }
}
