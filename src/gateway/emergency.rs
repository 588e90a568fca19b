//! Emergency accounts at a login: the reason that they must give, and the trace that
//! they leave. Knows neither the accounts nor whether the directory is down.

use crate::audit::{Event, Record};
use crate::directory::{Bar, Rejection, VerifyError};
use crate::gateway::Services;
use crate::refusal::Refusal;

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

/// Whether a refusal is one of an emergency account's.
pub(super) const fn concerns(error: &VerifyError) -> bool {
    matches!(
        error,
        VerifyError::Rejected(Rejection::Emergency)
            | VerifyError::AccountUnavailable(Bar::EmergencyDisabled)
    )
}

/// Makes a login by an emergency account heard: in metric, log and audit.
pub(super) fn announce(services: &Services, record: &mut Record, reason: Option<GivenReason>) {
    let outcome = record.outcome;
    let result = outcome.strip_prefix(PREFIX).unwrap_or(outcome);
    services.metrics.break_glass_logins(result).inc();
    tracing::error!(
        request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok()),
        client = record.client.map(tracing::field::display),
        account = record.subject.as_deref(),
        outcome = result,
        reason = reason.as_ref().map(|reason| reason.0.as_str()),
        "a login by an emergency account, as the directory is down"
    );
    record.event = Event::BreakGlass;
    record.detail = reason.map(|reason| reason.0.into());
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
