//! From an old password and a new one to a changed one, recorded: the part of a
//! change that runs to its end on the runtime of logins, whatever its client does
//! meanwhile. Knows no HTTP.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::audit::{Event, Record};
use crate::directory::{ChangeError, Directory, Objection};
use crate::gateway::Services;
use crate::gateway::logins::Place;
use crate::gateway::opening::{may_be_tried, not_tried, turned_away};
use crate::identity::{Credentials, Subject};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::session::Reason;
use crate::store::{Expiring, Family, Put};
use crate::throttle::{Attempt, Denied};
use crate::token::ChangeTicket;

/// The outcome of a change that the directory was asked for and did not answer.
pub(super) const UNKNOWN: &str = "unknown";

/// A change that is not counted yet, and whose directory has not been asked.
pub(super) struct Changing {
    pub(super) directory: Arc<Directory>,
    /// With the old password.
    pub(super) credentials: Credentials,
    /// With the new one.
    pub(super) renewed: Credentials,
    /// Where it came from.
    pub(super) address: IpAddr,
    /// The device cookie that the browser brought.
    pub(super) device: Option<Secret<String>>,
    /// What the change token said, if there was one.
    pub(super) ticket: Option<ChangeTicket>,
    pub(super) place: Arc<Place>,
}

/// Why a password is still the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unchanged {
    pub(super) refusal: Refusal,
    /// The true outcome, for metric and audit; what is wrong with the new password, when
    /// that is why.
    pub(super) outcome: &'static str,
}

impl Unchanged {
    pub(super) const fn new(refusal: Refusal, outcome: &'static str) -> Self {
        Self { refusal, outcome }
    }
}

/// Somebody whose password is another now, or may be.
struct Renewed {
    /// Who it is, if the entry says so.
    subject: Option<Subject>,
    /// Whether the directory said so.
    is_certain: bool,
}

impl From<Objection> for Unchanged {
    fn from(objection: Objection) -> Self {
        Self {
            refusal: Refusal::PasswordRefused { reason: sentence(objection) },
            outcome: objection.label(),
        }
    }
}

/// What is wrong with a new password, for the person who chose it.
const fn sentence(objection: Objection) -> &'static str {
    match objection {
        Objection::TooShort => "The new password is too short.",
        Objection::TooLong => "The new password is too long.",
        Objection::Unusable => "The new password holds what no password may hold.",
        Objection::Common => "The new password is one that others try first; choose another.",
        Objection::Name => "The new password is too close to your own name; choose another.",
        Objection::Unchanged => "The new password is the old one; choose another.",
        Objection::TooSimple => "The new password is too simple for the directory; choose another.",
        Objection::UsedBefore => "You have used this password before; choose another.",
        Objection::TooYoung => "The password was changed a short while ago; wait and try again.",
        Objection::Policy => {
            "The directory's rules do not allow this password: it is too short, too simple or \
             was used before, or the last change was too recent."
        }
        Objection::NotAllowed => {
            "The directory does not let you change this password; ask your administrator."
        }
    }
}

impl Changing {
    /// Asks the directory, ends what sessions the person had, and completes the record,
    /// which holds the keyed hash of the name so far.
    pub(super) async fn complete(
        self,
        services: Arc<Services>,
        mut record: Record,
    ) -> Result<(), Unchanged> {
        let began = Instant::now();
        let mut account = None;
        // Boxed, because it is large.
        let changed = Box::pin(self.ask(&services, &mut account)).await;
        if let Some(account) = account {
            record.subject = Some(account.into());
            record.name_hash = None;
        }
        record.duration = Some(began.elapsed());
        let Renewed { subject, is_certain } = match changed {
            Ok(renewed) => renewed,
            Err(unchanged) => return Err(recorded(&services, record, unchanged).await),
        };
        // What the client is told when nobody knows.
        let unknown = Unchanged::new(Refusal::DirectoryUnavailable, UNKNOWN);
        let (outcome, status) =
            if is_certain { ("ok", 200) } else { (UNKNOWN, unknown.refusal.facts().status) };
        services.metrics.password_changes(outcome).inc();
        record.outcome = outcome;
        record.status = Some(status);
        let said = if is_certain { "password changed" } else { "password perhaps changed" };
        tracing::info!(
            request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok()),
            client = record.client.map(tracing::field::display),
            "{said}"
        );
        let written = services.audit.durable(record.clone()).await;
        if let Some(subject) = subject {
            end_sessions(&services, &subject, record).await?;
        }
        // It is changed, but nobody logs in with it before that can be accounted for.
        written.map_err(|_| Unchanged::new(Refusal::AuditUnavailable, "audit_unavailable"))?;
        if is_certain { Ok(()) } else { Err(unknown) }
    }

    /// Everything but the record; `account` becomes whose password it is, once that is
    /// known.
    async fn ask(
        self,
        services: &Services,
        account: &mut Option<String>,
    ) -> Result<Renewed, Unchanged> {
        let Self { directory, credentials, renewed, address, device, ticket, place } = self;
        // Counted before anybody is asked.
        let name = credentials.folded_name();
        let begun = services.throttle.begin(&name, address, device.as_ref()).await;
        let mut attempt = begun.map_err(|denied| not_counted(services, denied))?;
        // Nobody has proved anything yet.
        if let Err(denied) = attempt.costs().await {
            attempt.withdraw().await;
            return Err(not_counted(services, denied));
        }
        place.put_off(attempt.delay());
        // Before the directory, as every try there may cost a login that the person has left.
        let judged = directory.judge_new(&credentials, renewed.password()).await;
        let ready = match judged {
            Ok(()) => spend(services, ticket.as_ref()).await,
            Err(ChangeError::Objected(objection)) => Err(objection.into()),
            Err(ChangeError::Unknown(_)) => Err(Unchanged::new(Refusal::Internal, "internal")),
            Err(ChangeError::Login(error)) => {
                let (refusal, outcome) = turned_away(&services.metrics, error, attempt, None).await;
                return Err(Unchanged::new(refusal, outcome));
            }
        };
        if let Err(unchanged) = ready {
            attempt.untried().await;
            return Err(unchanged);
        }
        let passwords = (&credentials, &renewed);
        let asked =
            ask_directory((services, &directory), passwords, (ticket.as_ref(), attempt), account);
        let changed = asked.await;
        if changed.is_err() {
            give_back(services, ticket.as_ref()).await;
        }
        changed
    }
}

/// Counts and records a change that was not made.
async fn recorded(services: &Services, mut record: Record, unchanged: Unchanged) -> Unchanged {
    services.metrics.password_changes(unchanged.outcome).inc();
    record.outcome = unchanged.outcome;
    record.status = Some(unchanged.refusal.facts().status);
    tracing::info!(
        request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok()),
        client = record.client.map(tracing::field::display),
        outcome = unchanged.outcome,
        "password change refused"
    );
    if let (Refusal::TooManyAttempts { .. }, Some(client)) = (unchanged.refusal, record.client) {
        // A flood must not make the disk the bottleneck.
        services.audit.refusal(client, record);
        return unchanged;
    }
    match services.audit.durable(record).await {
        Ok(()) => unchanged,
        Err(_) => Unchanged::new(Refusal::AuditUnavailable, "audit_unavailable"),
    }
}

/// Takes the token out of use, before the directory is asked: of several changes at
/// once with one token, one goes on.
async fn spend(services: &Services, ticket: Option<&ChangeTicket>) -> Result<(), Unchanged> {
    let Some(ticket) = ticket else { return Ok(()) };
    let entry = Expiring {
        family: Family::SpentToken,
        key: ticket.key(),
        value: Vec::new(),
        until: ticket.expires_at,
    };
    let store = services.sessions.store();
    match store.put(entry, services.clock.now(), None).await {
        Ok(Put::Kept) => Ok(()),
        Ok(Put::Exists | Put::Full) => Err(Unchanged::new(Refusal::InvalidToken, "token_spent")),
        Err(error) => {
            tracing::error!(%error, "a change token could not be spent");
            Err(Unchanged::new(Refusal::StoreUnavailable, "store_unavailable"))
        }
    }
}

/// The token of a change that was not made may be used again, until its end.
async fn give_back(services: &Services, ticket: Option<&ChangeTicket>) {
    let Some(ticket) = ticket else { return };
    let store = services.sessions.store();
    let taken = store.take(Family::SpentToken, ticket.key(), services.clock.now()).await;
    if let Err(error) = taken {
        tracing::warn!(%error, "a change token stays spent");
    }
}

async fn ask_directory(
    (services, directory): (&Services, &Directory),
    (credentials, renewed): (&Credentials, &Credentials),
    (ticket, mut attempt): (Option<&ChangeTicket>, Attempt),
    account: &mut Option<String>,
) -> Result<Renewed, Unchanged> {
    let (mut denied, mut is_other) = (None, false);
    let changed = directory
        .change(credentials, renewed.password(), async |found| {
            // The name may mean another account by now.
            is_other = ticket.is_some_and(|ticket| ticket.account != found.name);
            if !is_other {
                denied = may_be_tried(services, &mut attempt, &found).await.err();
            }
            *account = Some(found.name);
            denied.is_none() && !is_other
        })
        .await;
    let error = match changed {
        Ok(subject) => {
            attempt.succeeded().await;
            return Ok(Renewed { subject, is_certain: true });
        }
        Err(ChangeError::Unknown(subject)) => {
            attempt.succeeded().await;
            return Ok(Renewed { subject, is_certain: false });
        }
        Err(ChangeError::Objected(objection)) => {
            attempt.succeeded().await;
            return Err(objection.into());
        }
        Err(ChangeError::Login(error)) => error,
    };
    if is_other {
        attempt.withdraw().await;
        return Err(Unchanged::new(Refusal::InvalidToken, "token_of_another"));
    }
    let (refusal, outcome) = turned_away(&services.metrics, error, attempt, denied).await;
    Err(Unchanged::new(refusal, outcome))
}

fn not_counted(services: &Services, denied: Denied) -> Unchanged {
    let (refusal, outcome) = not_tried(&services.metrics, denied);
    Unchanged::new(refusal, outcome)
}

/// Ends every session of somebody whose password is another now, or may be, with a record
/// of each in the manner of the change's own.
async fn end_sessions(
    services: &Services,
    subject: &Subject,
    change: Record,
) -> Result<(), Unchanged> {
    let ended = match services.sessions.end_all_of(subject, Reason::PasswordChanged).await {
        Ok(ended) => ended,
        Err(error) => {
            tracing::error!(%error, "sessions of a password that is no more could not be ended");
            return Err(Unchanged::new(Refusal::StoreUnavailable, "store_unavailable"));
        }
    };
    for ended in ended {
        let record = Record {
            event: Event::Revocation,
            outcome: Reason::PasswordChanged.label(),
            subject: Some(ended.subject.shared()),
            role: Some(ended.role.shared()),
            session: Some(*ended.session.as_bytes()),
            status: None,
            duration: None,
            ..change.clone()
        };
        // They have ended, recorded or not.
        if services.audit.durable(record).await.is_err() {
            return Err(Unchanged::new(Refusal::AuditUnavailable, "audit_unavailable"));
        }
    }
    Ok(())
}
