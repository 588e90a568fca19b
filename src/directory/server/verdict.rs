//! What the end of an operation says of the server: whether it answers, and so whether
//! others may be sent there. Knows not for whom anything was asked.

use std::time::Duration;

use tokio::time::Instant;

use crate::directory::breaker::Failure;
use crate::directory::server::Server;
use crate::directory::{DirectoryError, Operation};

impl Server {
    /// Runs an operation, counts how it ended, and remembers what that says of the server.
    pub(super) async fn observe<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        self.observe_after(Duration::ZERO, operation, work).await
    }

    /// The same for what waits for others first, and so may have little time left.
    pub(super) async fn observe_fairly<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        self.observe_after(self.terms.fair, operation, work).await
    }

    async fn observe_after<T>(
        &self,
        least: Duration,
        operation: Operation,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        let due = Instant::now() + least;
        let mut verdict = Verdict { server: self, operation, due, spoken: false };
        let result = self.meter.observe(operation, work).await;
        verdict.spoken = true;
        self.judge(operation, result.as_ref().err());
        result
    }

    fn judge(&self, operation: Operation, error: Option<&DirectoryError>) {
        let server = self.meter.server();
        let begins = matches!(operation, Operation::Connect | Operation::ServiceBind);
        match error {
            Some(error) if error.is_of_the_server() => {
                let certain = match error {
                    // It may be the only one that was.
                    DirectoryError::Lost => false,
                    // One slow answer alone does not say that the only server is down; but
                    // nobody else should wait for it while there is another.
                    DirectoryError::Timeout if self.terms.several => true,
                    _ => begins || operation == Operation::Probe,
                };
                let failure = if certain { Failure::Certain } else { Failure::Perhaps };
                if self.breaker.failed(failure) {
                    tracing::warn!(server, %error, "a directory server does not answer");
                    self.idle().clear();
                }
                self.look_again.notify_one();
            }
            // That somebody is there is not yet an answer.
            _ if begins => {}
            _ => {
                if self.breaker.succeeded() {
                    tracing::info!(server, "a directory server answers");
                }
            }
        }
        self.up.set(self.breaker.is_up());
    }
}

/// An operation that is dropped half-way ran out of time.
struct Verdict<'s> {
    server: &'s Server,
    operation: Operation,
    /// From when on that is the server's fault.
    due: Instant,
    spoken: bool,
}

impl Drop for Verdict<'_> {
    fn drop(&mut self) {
        if self.spoken {
            return;
        }
        if Instant::now() >= self.due {
            self.server.judge(self.operation, Some(&DirectoryError::Timeout));
        } else {
            self.server.look_again.notify_one();
        }
    }
}
