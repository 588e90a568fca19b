//! Counts and times what is asked of one server.

use tokio::time::Instant;

use crate::directory::DirectoryError;
use crate::metrics::{DirectoryUp, IntGauge, Metrics};

/// What is asked of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A connection, with TLS.
    Connect,
    /// A bind as the service account.
    ServiceBind,
    /// A search for a user.
    UserSearch,
    /// A bind as a user.
    UserBind,
    /// A change of password.
    PasswordChange,
    /// A search for groups.
    GroupSearch,
    /// A search for what a domain says of itself.
    DomainSearch,
    /// A search for when accounts are locked.
    PolicySearch,
    /// A search for accounts whose sessions are live, or for who is in a role's group.
    Recheck,
    /// A look whether the server answers.
    Probe,
    /// A comparison with a hash of our own.
    PasswordCheck,
}

impl Operation {
    /// The label of the metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ServiceBind => "service_bind",
            Self::UserSearch => "user_search",
            Self::UserBind => "user_bind",
            Self::PasswordChange => "password_change",
            Self::GroupSearch => "group_search",
            Self::DomainSearch => "domain_search",
            Self::PolicySearch => "policy_search",
            Self::Recheck => "recheck",
            Self::Probe => "probe",
            Self::PasswordCheck => "password_check",
        }
    }
}

/// The metrics of one server.
#[derive(Clone)]
pub(super) struct Meter {
    metrics: Metrics,
    server: String,
}

impl Meter {
    pub(super) const fn new(metrics: Metrics, server: String) -> Self {
        Self { metrics, server }
    }

    /// Runs an operation and counts how it ended; one that is dropped ran out of time.
    pub(super) async fn observe<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        let started = Instant::now();
        let mut running = Running { meter: self, operation, started, result: "timeout" };
        let result = work.await;
        running.result = result.as_ref().map_or_else(DirectoryError::label, |_| "ok");
        result
    }

    /// The server's own name.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// A connection of this purpose that is open until the value is dropped.
    pub(super) fn opened(&self, purpose: Purpose) -> Counted {
        let open = self.metrics.directory_connections_open(&self.server, purpose.label());
        open.inc();
        Counted(open)
    }

    /// Somebody has to wait until another's bind has ended.
    pub(super) fn bind_waits(&self) {
        self.metrics.limit_hits("directory_bind_connections").inc();
    }

    pub(super) fn up(&self) -> DirectoryUp {
        self.metrics.directory_server(&self.server)
    }
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// The searches of the service account.
    Service,
    /// Binds of users, and what is done in their name.
    Bind,
}

impl Purpose {
    const fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Bind => "bind",
        }
    }
}

/// One open connection in the metrics.
pub(super) struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Running<'m> {
    meter: &'m Meter,
    operation: Operation,
    started: Instant,
    result: &'static str,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (metrics, server) = (&self.meter.metrics, &self.meter.server);
        let operation = self.operation.label();
        metrics.directory_operations(server, operation, self.result).inc();
        metrics
            .directory_operation_duration(server, operation)
            .observe(self.started.elapsed().as_secs_f64());
    }
}
