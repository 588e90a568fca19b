//! From credentials to an open session, recorded: the part of a login that runs to
//! its end on the control runtime, whatever its client does meanwhile. Knows no HTTP.

use std::sync::Arc;

use tokio::time::Instant;

use crate::audit::Record;
use crate::directory::{Directory, DirectoryError, Notice, Person, VerifyError};
use crate::gateway::Services;
use crate::gateway::endpoints::end_and_record;
use crate::gateway::session_limit::keep_to_limit;
use crate::identity::{Credentials, SessionId};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::session::{self, Opened, Origin, Reason};
use crate::throttle::{Attempt, Denied, Throttled};

/// A login that is not counted yet, and whose directory has not been asked.
pub(super) struct Opening {
    pub(super) directory: Arc<Directory>,
    pub(super) credentials: Credentials,
    pub(super) origin: Origin,
    /// The device cookie that the browser brought.
    pub(super) device: Option<Secret<String>>,
    /// The session that the browser already had, and the record of its end.
    pub(super) previous: Option<(SessionId, Record)>,
    /// The login's record, with the keyed hash of the name as typed.
    pub(super) record: Record,
    pub(super) began: Instant,
}

/// A login that succeeded.
pub(super) struct LoggedIn {
    pub(super) opened: Opened,
    /// The device cookie to set.
    pub(super) device: Option<Secret<String>>,
}

/// How a login went, with what its record says.
struct Verdict {
    result: Result<LoggedIn, Refusal>,
    /// The true outcome, for metric and audit.
    outcome: &'static str,
    /// Whose login it was, in the directory's spelling; `None` until an entry was found.
    account: Option<String>,
    /// What the directory warned of.
    notice: Option<Notice>,
}

impl Opening {
    /// Asks the directory, opens the session, records the outcome, and ends the session
    /// that the browser had before.
    pub(super) async fn complete(self, services: Arc<Services>) -> Result<LoggedIn, Refusal> {
        let Self { directory, credentials, origin, device, previous, mut record, began } = self;
        let verdict = verify_and_open(&services, &directory, (&credentials, device), origin).await;
        count(&services, verdict.outcome, began);
        record.outcome = verdict.outcome;
        record.duration = Some(began.elapsed());
        record.detail = verdict.notice.map(|notice| notice.detail().into());
        if let Some(account) = verdict.account {
            record.subject = Some(account.into());
            record.name_hash = None;
        }
        let logged_in = match verdict.result {
            Ok(logged_in) => logged_in,
            Err(refusal) => {
                tracing::info!(
                    request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok()),
                    client = record.client.map(tracing::field::display),
                    outcome = verdict.outcome,
                    "login refused"
                );
                record.status = Some(refusal.facts().status);
                if let (Refusal::TooManyAttempts { .. }, Some(client)) = (refusal, record.client) {
                    // A flood must not make the disk the bottleneck.
                    services.audit.refusal(client, record);
                    return Err(refusal);
                }
                let recorded = services.audit.durable(record).await;
                return Err(recorded.map_or(Refusal::AuditUnavailable, |()| refusal));
            }
        };
        let opened = &logged_in.opened;
        record.status = Some(200);
        record.subject = Some(opened.subject.shared());
        record.role = Some(opened.role.shared());
        record.session = Some(*opened.session.as_bytes());
        if services.audit.durable(record.clone()).await.is_err() {
            // A login that nobody can account for is no login.
            record.event = crate::audit::Event::Revocation;
            record.outcome = Reason::Unrecorded.label();
            end_and_record(services, opened.session, Reason::Unrecorded, record).await?;
            return Err(Refusal::AuditUnavailable);
        }
        tracing::info!(
            request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok()),
            client = record.client.map(tracing::field::display),
            session = %opened.session,
            "logged in"
        );
        if let Some((session, record)) = previous {
            end_and_record(Arc::clone(&services), session, Reason::NewLogin, record).await?;
        }
        keep_to_limit(&services, opened, &record).await?;
        Ok(logged_in)
    }
}

/// Counts a login by its true outcome.
pub(super) fn count(services: &Services, outcome: &'static str, began: Instant) {
    services.metrics.logins(outcome).inc();
    services.metrics.login_duration(outcome).observe(began.elapsed().as_secs_f64());
}

/// Verifies the password at the directory and opens the session.
async fn verify_and_open(
    services: &Services,
    directory: &Directory,
    (credentials, device): (&Credentials, Option<Secret<String>>),
    origin: Origin,
) -> Verdict {
    // Counted before anybody is asked.
    let name = credentials.folded_name();
    let begun = services.throttle.begin(&name, origin.address, device.as_ref()).await;
    let mut attempt = match begun {
        Ok(attempt) => attempt,
        Err(denied) => {
            let (refusal, outcome) = not_tried(denied);
            return Verdict { result: Err(refusal), outcome, account: None, notice: None };
        }
    };
    let (mut account, mut notice, mut denied) = (None, None, None);
    let verified = directory
        .verify_if(credentials, async |found| {
            if found.general_lockout.is_some() {
                services.throttle.follow(found.general_lockout);
            }
            denied = attempt.of_account(&found.name, found.own_lockout).await.err();
            account = Some(found.name);
            denied.is_none()
        })
        .await;
    let (refusal, outcome) = match verified {
        Ok(person) => {
            let remembering = attempt.succeeded().await;
            notice = person.notice;
            let Person { subject, role, account: name, attributes, stamp, .. } = person;
            let person = session::Person { subject, role, account: name, attributes, stamp };
            match services.sessions.open(person, origin).await {
                Ok(opened) => {
                    let result = Ok(LoggedIn { opened, device: remembering.remember().await });
                    return Verdict { result, outcome: "ok", account, notice };
                }
                Err(error) => {
                    tracing::error!(%error, "a session could not be opened");
                    (Refusal::StoreUnavailable, "store_unavailable")
                }
            }
        }
        Err(error) => turned_away(error, attempt, denied).await,
    };
    Verdict { result: Err(refusal), outcome, account, notice }
}

/// Why somebody is turned away, and whether the try counts as a failure.
async fn turned_away(
    error: VerifyError,
    attempt: Attempt,
    denied: Option<Denied>,
) -> (Refusal, &'static str) {
    match error {
        // The attempt is dropped here and stays counted.
        VerifyError::Rejected(rejection) => (Refusal::InvalidCredentials, rejection.label()),
        VerifyError::MustChange(change) => {
            attempt.succeeded().await;
            (Refusal::PasswordChangeRequired, change.label())
        }
        VerifyError::AccountUnavailable(bar) => {
            attempt.succeeded().await;
            (Refusal::AccountUnavailable, bar.label())
        }
        VerifyError::NoRole { .. } => {
            attempt.succeeded().await;
            (Refusal::NoRole, "no_role")
        }
        // As for a name that nobody has: the attempt stays counted, and the answer does
        // not tell that this spelling leads to an account.
        VerifyError::Withheld => match denied.map(not_tried) {
            Some((Refusal::TooManyAttempts { .. }, outcome)) => {
                (Refusal::InvalidCredentials, outcome)
            }
            Some(not_tried) => {
                attempt.withdraw().await;
                not_tried
            }
            None => (Refusal::Internal, "internal"),
        },
        VerifyError::Unavailable(error @ DirectoryError::BindUnanswered) => {
            attempt.unanswered().await;
            tracing::error!(%error, "the directory cannot answer");
            (Refusal::DirectoryUnavailable, "directory_unavailable")
        }
        VerifyError::Unavailable(error) => {
            // An outage locks nobody out.
            attempt.withdraw().await;
            tracing::error!(%error, "the directory cannot answer");
            (Refusal::DirectoryUnavailable, "directory_unavailable")
        }
    }
}

/// Why a password is not tried.
fn not_tried(denied: Denied) -> (Refusal, &'static str) {
    match denied {
        Denied::Throttled(Throttled { retry_after, .. }) => {
            (Refusal::TooManyAttempts { retry_after }, "throttled")
        }
        Denied::Store(_) => (Refusal::StoreUnavailable, "store_unavailable"),
        Denied::Entropy(error) => {
            tracing::error!(%error, "a login could not be counted");
            (Refusal::Internal, "internal")
        }
    }
}

#[cfg(test)]
mod tests;
