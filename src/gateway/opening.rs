//! From credentials to an open session, recorded: the part of a login that runs to
//! its end on the runtime of logins, whatever its client does meanwhile. Knows no HTTP.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::{OptionFuture, join3};
use tokio::time::Instant;

use crate::audit::{Event, Record};
use crate::directory::{
    Account, Bar, Directory, DirectoryError, Notice, Person, Rejection, VerifyError,
};
use crate::gateway::Services;
use crate::gateway::emergency::{self, GivenReason, Instead};
use crate::gateway::endpoints::end_and_record;
use crate::gateway::logins::{Place, Refused};
use crate::gateway::session_limit::keep_to_limit;
use crate::identity::{Credentials, SessionId};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::session::{self, OpenError, Opened, Origin, Prepared, Reason};
use crate::throttle::{Attempt, Denied, Remembering, Throttled};

/// A login that is not counted yet, and whose directory has not been asked.
pub(super) struct Opening {
    pub(super) directory: Arc<Directory>,
    pub(super) credentials: Credentials,
    pub(super) origin: Origin,
    /// The device cookie that the browser brought.
    pub(super) device: Option<Secret<String>>,
    /// What an emergency account must give; others are not asked.
    pub(super) reason: Option<GivenReason>,
    /// The session that the browser already had, and the record of its end.
    pub(super) previous: Option<(SessionId, Record)>,
    /// The login's record, with the keyed hash of the name as typed.
    pub(super) record: Record,
    pub(super) began: Instant,
    pub(super) place: Arc<Place>,
}

/// A login that succeeded.
pub(super) struct LoggedIn {
    pub(super) opened: Opened,
    /// The device cookie to set.
    pub(super) device: Option<Secret<String>>,
}

/// Why no session was opened.
pub(super) struct Unopened {
    pub(super) refusal: Refusal,
    /// The account whose password is right, but must be changed first.
    pub(super) change: Option<String>,
}

impl From<Refusal> for Unopened {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, change: None }
    }
}

impl Refused for Unopened {
    fn refusal(&self) -> Refusal {
        self.refusal
    }
}

/// Somebody whose password was right, before anything of it is kept.
struct Verified {
    prepared: Prepared,
    /// Nothing of an emergency account.
    remembering: Option<Remembering>,
}

/// How a login went, with what its record says.
struct Verdict {
    result: Result<Verified, Refusal>,
    /// The true outcome, for metric and audit.
    outcome: &'static str,
    /// Whose login it was, in the directory's spelling; `None` until an entry was found.
    account: Option<String>,
    /// What the directory warned of.
    notice: Option<Notice>,
    /// Whether it was an emergency account's, in earnest.
    emergency: bool,
}

impl Opening {
    /// Asks the directory, opens the session, records the outcome, and ends the session
    /// that the browser had before.
    pub(super) async fn complete(self, services: Arc<Services>) -> Result<LoggedIn, Unopened> {
        let Self { directory, credentials, origin, device, reason, previous, .. } = self;
        let (mut record, began) = (self.record, self.began);
        let asked = (&credentials, device, reason.as_ref());
        let verdict = verify(&services, (&directory, &self.place), asked, origin).await;
        record.outcome = verdict.outcome;
        record.duration = Some(began.elapsed());
        record.detail = verdict.notice.map(|notice| notice.detail().into());
        if let Some(account) = &verdict.account {
            record.subject = Some(account.as_str().into());
            record.name_hash = None;
        }
        if verdict.emergency {
            emergency::mark(&mut record, reason);
        }
        let Verified { prepared, remembering } = match verdict.result {
            Ok(verified) => verified,
            Err(refusal) => {
                conclude(&services, &record, began);
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
                    return Err(refusal.into());
                }
                if services.audit.durable(record).await.is_err() {
                    return Err(Refusal::AuditUnavailable.into());
                }
                let must_change = refusal == Refusal::PasswordChangeRequired;
                return Err(Unopened { refusal, change: verdict.account.filter(|_| must_change) });
            }
        };
        record.status = Some(200);
        record.subject = Some(prepared.subject().shared());
        record.role = Some(prepared.role().shared());
        record.session = Some(*prepared.session().as_bytes());
        // All of it is to be on a disk before the answer, and none waits for the others.
        let (opened, device, recorded) = join3(
            services.sessions.open(prepared),
            OptionFuture::from(remembering.map(Remembering::remember)),
            services.audit.durable(record.clone()),
        )
        .await;
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(unopened(&services, error, record, began).await.into()),
        };
        if recorded.is_err() {
            return Err(unrecorded(services, opened.session, record, began).await.into());
        }
        conclude(&services, &record, began);
        tracing::info!(
            request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok()),
            client = record.client.map(tracing::field::display),
            session = %opened.session,
            "logged in"
        );
        if let Some((session, record)) = previous {
            end_and_record(Arc::clone(&services), session, Reason::NewLogin, record).await?;
        }
        keep_to_limit(&services, &opened, &record).await?;
        Ok(LoggedIn { opened, device: device.flatten() })
    }
}

/// A login whose session the store did not keep, though a record may say that it was
/// opened: another one says how it ended.
async fn unopened(
    services: &Services,
    error: OpenError,
    mut record: Record,
    began: Instant,
) -> Refusal {
    let (refusal, outcome) = not_opened(&error);
    record.outcome = outcome;
    conclude(services, &record, began);
    record.status = Some(refusal.facts().status);
    match services.audit.durable(record).await {
        Ok(()) => refusal,
        Err(_) => Refusal::AuditUnavailable,
    }
}

/// A login that nobody can account for is no login.
async fn unrecorded(
    services: Arc<Services>,
    session: SessionId,
    mut record: Record,
    began: Instant,
) -> Refusal {
    record.outcome = Reason::Unrecorded.label();
    conclude(&services, &record, began);
    record.event = Event::Revocation;
    let ended = end_and_record(services, session, Reason::Unrecorded, record).await;
    ended.err().unwrap_or(Refusal::AuditUnavailable)
}

fn not_opened(error: &OpenError) -> (Refusal, &'static str) {
    tracing::error!(%error, "a session could not be opened");
    (Refusal::StoreUnavailable, "store_unavailable")
}

/// Counts a login by the outcome that its record has, now that it is certain.
fn conclude(services: &Services, record: &Record, began: Instant) {
    count(services, record.outcome, began);
    if record.event == Event::BreakGlass {
        emergency::announce(services, record);
    }
}

/// Counts a login by its true outcome.
pub(super) fn count(services: &Services, outcome: &'static str, began: Instant) {
    services.metrics.logins(outcome).inc();
    services.metrics.login_duration(outcome).observe(began.elapsed().as_secs_f64());
}

/// Verifies the password at the directory and prepares the session.
async fn verify(
    services: &Services,
    (directory, place): (&Directory, &Place),
    (credentials, device, reason): (&Credentials, Option<Secret<String>>, Option<&GivenReason>),
    origin: Origin,
) -> Verdict {
    let asked = (credentials, device.as_ref(), origin.address);
    let Judged { person, account, emergency } =
        Box::pin(judge(services, (directory, place), asked)).await;
    let (person, remembering) = match person {
        Ok(proved) => proved,
        Err((refusal, outcome)) => {
            return Verdict { account, emergency, ..Verdict::refused(refusal, outcome) };
        }
    };
    let notice = person.notice;
    let (result, outcome) = match prepare(services, person, reason, origin) {
        Ok(prepared) => (Ok(Verified { prepared, remembering }), "ok"),
        Err((refusal, outcome)) => (Err(refusal), outcome),
    };
    Verdict { result, outcome, account, notice, emergency }
}

/// What became of a name and a password.
struct Judged {
    /// Who it is, with the device to remember; or what is answered, and the true outcome.
    person: Result<(Person, Option<Remembering>), (Refusal, &'static str)>,
    account: Option<String>,
    emergency: bool,
}

/// Verifies the password at the directory, or, if that does not answer, at the emergency
/// accounts. Who proves it at neither gets the directory's answer.
async fn judge(
    services: &Services,
    (directory, place): (&Directory, &Place),
    (credentials, device, address): (&Credentials, Option<&Secret<String>>, IpAddr),
) -> Judged {
    let judged = |person, account, emergency| Judged { person, account, emergency };
    let metrics = &services.metrics;
    // Counted before anybody is asked.
    let begun = services.throttle.begin(&credentials.folded_name(), address, device).await;
    let (mut account, mut denied) = (None, None);
    let (attempt, error) = match begun {
        Ok(mut attempt) => {
            place.put_off(attempt.delay());
            let found = async |found: Account| {
                denied = may_be_tried(services, &mut attempt, &found).await.err();
                account = Some(found.name);
                denied.is_none()
            };
            match directory.verify_if(credentials, found).await {
                Ok(person) => {
                    let remembering = attempt.succeeded().await;
                    return judged(Ok((person, Some(remembering))), account, false);
                }
                Err(error) => (Some(attempt), error),
            }
        }
        // What counts at the directory keeps nobody from an emergency account. That tells
        // of none, as it is so for every name.
        Err(Denied::Throttled(_)) if directory.is_emergency() => {
            (None, VerifyError::Unavailable(DirectoryError::AllDown))
        }
        Err(denied) => return judged(Err(not_tried(metrics, denied)), None, false),
    };
    let instead = if directory.calls_for_emergency(&error) {
        emergency::instead(services, directory, (credentials, address)).await
    } else {
        Instead::Nothing
    };
    // It is one of ours, so that nobody typed a password into the name field.
    let ours = || Some(credentials.folded_name());
    if let Instead::Proved(person) = instead {
        if let Some(mut attempt) = attempt {
            if matches!(error, VerifyError::Unjudged(_)) {
                attempt.leave_account();
            }
            attempt.withdraw().await;
        }
        let person = person.map(|person| (person, None));
        let disabled = |bar: Bar| (Refusal::AccountUnavailable, bar.label());
        return judged(person.map_err(disabled), ours(), true);
    }
    let (refusal, outcome) = match attempt {
        Some(attempt) => turned_away(metrics, error, attempt, denied).await,
        None => (Refusal::DirectoryUnavailable, "directory_unavailable"),
    };
    match instead {
        Instead::Wrong => judged(Err((refusal, Rejection::Emergency.label())), ours(), true),
        Instead::Untried(denied) => judged(Err(not_tried(metrics, denied)), account, false),
        _ => judged(Err((refusal, outcome)), account, false),
    }
}

/// Counts a try for the account that was found, by what the directory says of its
/// lock-out.
pub(super) async fn may_be_tried(
    services: &Services,
    attempt: &mut Attempt,
    found: &Account,
) -> Result<(), Denied> {
    if found.general_lockout.is_some() {
        services.throttle.follow(found.general_lockout);
    }
    // What cannot be read is what the configuration states.
    let is_stated = found.own_is_assumed && services.throttle.states_lockout();
    attempt.of_account(&found.name, found.own_lockout.filter(|_| !is_stated)).await
}

/// Prepares the session of somebody whose password was right.
fn prepare(
    services: &Services,
    person: Person,
    reason: Option<&GivenReason>,
    origin: Origin,
) -> Result<Prepared, (Refusal, &'static str)> {
    if person.emergency {
        emergency::demand(reason)?;
    }
    let Person { subject, role, account, attributes, stamp, emergency, lifetime_max, .. } = person;
    let person =
        session::Person { subject, role, account, attributes, stamp, emergency, lifetime_max };
    services.sessions.prepare(person, origin).map_err(|error| not_opened(&error))
}

impl Verdict {
    /// Of somebody who was not let in.
    const fn refused(refusal: Refusal, outcome: &'static str) -> Self {
        Self { result: Err(refusal), outcome, account: None, notice: None, emergency: false }
    }
}

/// Why somebody is turned away, and whether the try counts as a failure.
pub(super) async fn turned_away(
    metrics: &Metrics,
    error: VerifyError,
    attempt: Attempt,
    denied: Option<Denied>,
) -> (Refusal, &'static str) {
    match error {
        VerifyError::Rejected(rejection) => {
            attempt.failed();
            (Refusal::InvalidCredentials, rejection.label())
        }
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
        VerifyError::Withheld => match denied.map(|denied| not_tried(metrics, denied)) {
            Some((Refusal::TooManyAttempts { .. }, outcome)) => {
                attempt.failed();
                (Refusal::InvalidCredentials, outcome)
            }
            Some(not_tried) => {
                attempt.withdraw().await;
                not_tried
            }
            None => (Refusal::Internal, "internal"),
        },
        VerifyError::Unjudged(error) => {
            attempt.unanswered().await;
            tracing::error!(%error, "the directory cannot answer");
            (Refusal::DirectoryUnavailable, "directory_unavailable")
        }
        VerifyError::Unavailable(error) => {
            // The password is right, or nobody was told it: an outage locks nobody out.
            attempt.withdraw().await;
            tracing::error!(%error, "the directory cannot answer");
            (Refusal::DirectoryUnavailable, "directory_unavailable")
        }
    }
}

/// Why a password is not tried, counted if that is a throttle's doing.
pub(super) fn not_tried(metrics: &Metrics, denied: Denied) -> (Refusal, &'static str) {
    match denied {
        Denied::Throttled(Throttled { retry_after, rule }) => {
            metrics.throttled(rule).inc();
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
