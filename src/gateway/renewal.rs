//! A renewal, run on the control runtime: first the directory is asked how the account
//! stands, then the session for the next token.

use std::sync::Arc;

use crate::audit::{Event, Record};
use crate::gateway::endpoints::end_and_record;
use crate::gateway::exchange::{Exchange, Renewal};
use crate::gateway::{Gateway, Services};
use crate::session::{Carrier, CheckedPair, RenewError};

impl Gateway {
    /// Begins a renewal; whoever asked may wait for it or not.
    pub(super) fn renewal(
        &self,
        exchange: &Exchange,
        pair: &CheckedPair,
        carrier: Carrier,
    ) -> Renewal {
        let (services, pair) = (Arc::clone(self.services()), pair.clone());
        let mut record = exchange.record(Event::Revocation, "", None);
        record.subject = Some(pair.subject().shared());
        record.role = Some(pair.role().shared());
        record.session = Some(*pair.session().as_bytes());
        let presence = exchange.presence;
        self.services().control.spawn(async move {
            recheck(&services, &pair, record).await?;
            services.sessions.renew(&pair, carrier, presence).await
        })
    }
}

/// Ends the session if its account no longer stands as it did.
async fn recheck(
    services: &Arc<Services>,
    pair: &CheckedPair,
    mut record: Record,
) -> Result<(), RenewError> {
    let snapshot = services.snapshot.load_full();
    let (directory, config) = (&snapshot.directory, &snapshot.config.directory);
    let Some((directory, config)) = directory.as_ref().zip(config.as_ref()) else { return Ok(()) };
    let session = pair.session();
    let overdue_after = config.overdue_after();
    let reason = services.sessions.recheck_one(session, directory, overdue_after).await;
    let Some(reason) = reason else { return Ok(()) };
    tracing::info!(%session, reason = reason.label(), "a session ended at its renewal");
    record.outcome = reason.label();
    // It has ended here, whether or not store and audit log could be told.
    if end_and_record(Arc::clone(services), session, reason, record).await.is_err() {
        tracing::error!(%session, "the end of a session is not in the store or the audit log yet");
    }
    Err(RenewError::Ended)
}
