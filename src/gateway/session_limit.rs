//! The limit of sessions that one user may have: the oldest ends for the newest.

use std::sync::Arc;

use crate::audit::{Event, Record};
use crate::gateway::Services;
use crate::gateway::endpoints::end_and_record;
use crate::refusal::Refusal;
use crate::session::{Opened, Reason};

/// Ends what is too much after a login, with a record of each in the manner of the
/// login's own.
///
/// # Errors
/// When the store cannot answer, and then the new session has ended; or when a record
/// cannot be written.
pub(super) async fn keep_to_limit(
    services: &Arc<Services>,
    opened: &Opened,
    login: &Record,
) -> Result<(), Refusal> {
    let record = Record {
        event: Event::Revocation,
        outcome: Reason::SessionLimit.label(),
        status: None,
        duration: None,
        ..login.clone()
    };
    let ended = match services.sessions.keep_to_limit(&opened.subject).await {
        Ok(ended) => ended,
        Err(error) => {
            tracing::error!(%error, "the sessions of a user could not be counted");
            let services = Arc::clone(services);
            end_and_record(services, opened.session, Reason::SessionLimit, record).await?;
            return Err(Refusal::StoreUnavailable);
        }
    };
    for ended in ended {
        let mut record = record.clone();
        record.role = Some(ended.role.shared());
        record.session = Some(*ended.session.as_bytes());
        services.audit.durable(record).await.map_err(|_| Refusal::AuditUnavailable)?;
    }
    Ok(())
}
