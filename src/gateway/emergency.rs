//! Emergency accounts at a login: how they are tried, the reason that they must give, and
//! the trace that they leave. Knows neither the accounts nor whether the directory is down.

use std::net::IpAddr;

use crate::audit::{Event, Record};
use crate::directory::{Bar, Directory, Person, Rejection, VerifyError};
use crate::gateway::Services;
use crate::identity::Credentials;
use crate::refusal::Refusal;
use crate::throttle::Denied;

/// Longest reason, in bytes: an audit record holds no more.
const REASON_BYTES_MAX: usize = 256;
/// What the outcomes of these logins begin with, where they are no other logins' too.
const PREFIX: &str = "break_glass_";

/// Why somebody needs an emergency account: one line that he typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenReason(String);

impl GivenReason {
    /// `None` when there is none, or nothing that could be recorded as one.
    pub(super) fn parse(typed: &str) -> Option<Self> {
        let text = typed.trim();
        let good = !text.is_empty()
            && text.len() <= REASON_BYTES_MAX
            && !text.chars().any(char::is_control);
        good.then(|| Self(text.to_owned()))
    }
}

/// Whether an emergency account with the right password gave a reason.
///
/// # Errors
/// When it did not; also how the login is counted.
pub(super) fn demand(reason: Option<&GivenReason>) -> Result<(), (Refusal, &'static str)> {
    reason.map(|_| ()).ok_or((Refusal::ReasonRequired, "break_glass_no_reason"))
}

/// What the emergency accounts say of somebody about whom the directory says nothing.
pub(super) enum Instead {
    /// It is one of them, and the password is right; the account may be disabled.
    Proved(Result<Person, Bar>),
    /// It is one of them, and the password is wrong.
    Wrong,
    /// It is none of them, or nobody could compare the password.
    Nothing,
    /// There were too many tries.
    Untried(Denied),
}

/// Tries a name and a password at the emergency accounts. For any name that takes the same
/// time and counts in the same way, so that those who do not know the password do not learn
/// which names are theirs. Only now is the try counted here: until the directory has been
/// silent nobody knows whether it will be, and what counts here must keep nobody from it.
pub(super) async fn instead(
    services: &Services,
    directory: &Directory,
    (credentials, address): (&Credentials, IpAddr),
) -> Instead {
    let begun = services.throttle.begin_outage(&credentials.folded_name(), address).await;
    let attempt = match begun {
        Ok(attempt) => attempt,
        Err(denied) => return Instead::Untried(denied),
    };
    match directory.verify_emergency(credentials).await {
        Ok(person) => {
            attempt.succeeded().await;
            Instead::Proved(Ok(person))
        }
        Err(VerifyError::AccountUnavailable(bar)) => {
            attempt.succeeded().await;
            Instead::Proved(Err(bar))
        }
        Err(VerifyError::Rejected(rejection)) => {
            attempt.failed();
            if rejection == Rejection::Emergency { Instead::Wrong } else { Instead::Nothing }
        }
        Err(_) => {
            attempt.withdraw().await;
            Instead::Nothing
        }
    }
}

/// Makes a login's record one of an emergency account's, with the reason that was given.
pub(super) fn mark(record: &mut Record, reason: Option<GivenReason>) {
    record.event = Event::BreakGlass;
    record.detail = reason.map(|reason| reason.0.into());
}

/// Makes a login by an emergency account heard, in metric and log, once it is certain how
/// it ended.
pub(super) fn announce(services: &Services, record: &Record) {
    let outcome = record.outcome;
    let result = outcome.strip_prefix(PREFIX).unwrap_or(outcome);
    services.metrics.break_glass_logins(result).inc();
    tracing::error!(
        request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok()),
        client = record.client.map(tracing::field::display),
        account = record.subject.as_deref(),
        outcome = result,
        reason = record.detail.as_deref(),
        "a login by an emergency account, as the directory is down"
    );
}

#[cfg(test)]
mod tests {
    use super::{GivenReason, demand};
    use crate::refusal::Refusal;

    #[test]
    fn a_reason_is_one_line_that_fits_a_record() {
        let parsed = |text: &str| GivenReason::parse(text).map(|reason| reason.0);
        assert_eq!(parsed("  the directory burns ").unwrap(), "the directory burns");
        assert_eq!(parsed(&"x".repeat(256)).unwrap().len(), 256);
        for text in ["", "  ", "two\nlines", "a\0b", &"x".repeat(257), &"é".repeat(129)] {
            assert_eq!(parsed(text), None, "{text:.10}");
        }
    }

    #[test]
    fn without_a_reason_nobody_gets_in() {
        assert_eq!(demand(None).unwrap_err().0, Refusal::ReasonRequired);
        assert!(demand(GivenReason::parse("x").as_ref()).is_ok());
    }
}
