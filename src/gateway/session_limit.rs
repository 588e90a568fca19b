//! The limit of sessions that one user may have: the oldest ends for the newest.

use std::sync::Arc;

use crate::audit::Event;
use crate::gateway::Gateway;
use crate::gateway::exchange::Exchange;
use crate::refusal::Refusal;
use crate::session::{Opened, Reason};

impl Gateway {
    /// Ends what is too much after a login, with a record of each.
    ///
    /// # Errors
    /// When the store cannot answer, or a record not be written.
    pub(super) async fn keep_to_limit(
        &self,
        exchange: &Exchange,
        opened: &Opened,
    ) -> Result<(), Refusal> {
        let services = self.services();
        let (sessions, subject) = (Arc::clone(&services.sessions), opened.subject.clone());
        let ended = services.control.spawn(async move { sessions.keep_to_limit(&subject).await });
        let ended = ended.await.map_err(|_| Refusal::Internal)?.map_err(|error| {
            tracing::error!(%error, "the sessions of a user could not be counted");
            Refusal::StoreUnavailable
        })?;
        for record in ended {
            let mut entry = exchange.record(Event::Revocation, Reason::SessionLimit.label(), None);
            entry.session = Some(*record.session.as_bytes());
            entry.subject = Some(record.subject.shared());
            entry.role = Some(record.role.shared());
            services.audit.durable(entry).await.map_err(|_| Refusal::AuditUnavailable)?;
        }
        Ok(())
    }
}
