//! From a typed code to an open session, recorded: the part of a redemption that runs
//! to its end on the control runtime, whatever its client does meanwhile. Knows no HTTP.

use std::sync::Arc;

use crate::access_code::{AccessCodes, Code, RedeemError, Redeemed};
use crate::audit::{Event, Record};
use crate::gateway::Services;
use crate::gateway::endpoints::end_and_record;
use crate::identity::{Reference, SessionId};
use crate::refusal::Refusal;
use crate::session::{Guest, Opened, Origin, Reason};
use crate::store::StoreError;

/// A code that somebody typed.
pub(super) struct Redeeming {
    pub(super) codes: Arc<AccessCodes>,
    pub(super) code: Code,
    pub(super) origin: Origin,
    /// The session that the browser already had, and the record of its end.
    pub(super) previous: Option<(SessionId, Record)>,
    /// The redemption's record; it never holds the code.
    pub(super) record: Record,
}

/// A session that a code opened.
pub(super) struct Welcomed {
    pub(super) opened: Opened,
    /// What the code was given out with.
    pub(super) reference: Option<Reference>,
}

impl Redeeming {
    /// Redeems the code, opens the session, records the outcome, and ends the session
    /// that the browser had before.
    pub(super) async fn complete(self, services: Arc<Services>) -> Result<Welcomed, Refusal> {
        let Self { codes, code, origin, previous, mut record } = self;
        let address = origin.address;
        let redeemed = if services.sessions.is_stale() {
            // Nobody is let in here now: the code is not spent on a session that cannot be.
            Err(StoreError::Unavailable.into())
        } else {
            codes.redeem(&code, address).await
        };
        let redeemed = match redeemed {
            Ok(redeemed) => redeemed,
            Err(error) => {
                let (refusal, outcome) = refused(&error);
                record.outcome = outcome;
                record.status = Some(refusal.facts().status);
                return Err(if refusal == Refusal::InvalidAccessCode {
                    // No more of these than the budgets have.
                    let recorded = services.audit.durable(record).await;
                    recorded.map_or(Refusal::AuditUnavailable, |()| refusal)
                } else {
                    services.audit.refusal(address, record);
                    refusal
                });
            }
        };
        let Redeemed { subject, reference, lifetime } = redeemed;
        let guest = Guest { subject, reference: reference.clone(), lifetime };
        let opened = services.sessions.open_for_guest(guest, origin).await.map_err(|error| {
            tracing::error!(%error, "a session could not be opened; the code is spent");
            Refusal::StoreUnavailable
        })?;
        record.outcome = "redeemed";
        record.status = Some(200);
        record.subject = Some(opened.subject.shared());
        record.role = Some(opened.role.shared());
        record.session = Some(*opened.session.as_bytes());
        if services.audit.durable(record.clone()).await.is_err() {
            // What nobody can account for opens nothing.
            record.event = Event::Revocation;
            record.outcome = Reason::Unrecorded.label();
            end_and_record(services, opened.session, Reason::Unrecorded, record).await?;
            return Err(Refusal::AuditUnavailable);
        }
        if let Some((session, record)) = previous {
            end_and_record(services, session, Reason::NewLogin, record).await?;
        }
        Ok(Welcomed { opened, reference })
    }
}

/// What the client is told, and what metrics and audit are.
pub(super) fn refused(error: &RedeemError) -> (Refusal, &'static str) {
    match error {
        RedeemError::Invalid(outcome) => (Refusal::InvalidAccessCode, outcome),
        RedeemError::Spent { retry_after } => {
            (Refusal::TooManyAttempts { retry_after: *retry_after }, "throttled")
        }
        RedeemError::Store(_) => (Refusal::StoreUnavailable, "store_unavailable"),
        RedeemError::Entropy(error) => {
            tracing::error!(%error, "a code could not be tried");
            (Refusal::Internal, "internal")
        }
    }
}
