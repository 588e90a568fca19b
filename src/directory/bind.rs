//! What an answer to a bind says: result code, text and controls together. Knows no connection.

use std::time::Duration;

use ldap3::controls::{Control, RawControl};

use crate::directory::ber;
use crate::directory::diagnostic;
use crate::directory::outcome::{Change, Notice, Outcome, Rejection};
use crate::directory::{DirectoryError, Operation};

/// draft-behera-ldap-password-policy; a server speaks of it only when asked on the bind itself.
const PASSWORD_POLICY: &str = "1.3.6.1.4.1.42.2.27.8.5.1";
/// Netscape's "password expired", also sent when it must be changed.
const PASSWORD_EXPIRED: &str = "2.16.840.1.113730.3.4.4";

/// Netscape's "password expires in so many seconds".
const PASSWORD_EXPIRING: &str = "2.16.840.1.113730.3.4.5";

const POLICY_PASSWORD_EXPIRED: u8 = 0;
const POLICY_ACCOUNT_LOCKED: u8 = 1;
const POLICY_CHANGE_AFTER_RESET: u8 = 2;

/// An outcome, and whether the connection it came on may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BindAnswer {
    pub(super) outcome: Outcome,
    /// The LDAP result code.
    pub(super) code: u32,
    /// A plain success or a plain refusal; after anything else the server may treat
    /// the connection specially.
    pub(super) plain: bool,
}

/// The control that asks for the password policy's state.
pub(super) fn password_policy_request() -> Vec<RawControl> {
    vec![RawControl { ctype: PASSWORD_POLICY.to_owned(), crit: false, val: None }]
}

/// Judges an answer: its result code, its text, and its controls.
///
/// # Errors
/// When the directory does not say whether the password is right.
pub(super) fn judge(
    code: u32,
    text: &str,
    controls: &[Control],
) -> Result<BindAnswer, DirectoryError> {
    let policy = match policy(controls) {
        Some(policy) => policy,
        // It is refused, and may be counted, whatever else the server meant to say.
        None if code == 49 => {
            let outcome = Outcome::Rejected(Rejection::WrongPassword);
            return Ok(BindAnswer { outcome, code, plain: false });
        }
        None => return Err(DirectoryError::Protocol("a password policy control")),
    };
    let expired = controls.iter().any(|control| control.1.ctype == PASSWORD_EXPIRED);
    let outcome = match (code, policy.error) {
        // Said whether or not the password is right, as 389-ds does 19 and 53.
        (0 | 49, Some(POLICY_ACCOUNT_LOCKED)) | (19, _) => Outcome::Rejected(Rejection::Locked),
        (53, _) => Outcome::Rejected(Rejection::Disabled),
        (0 | 49, Some(POLICY_PASSWORD_EXPIRED)) => Outcome::ChangeRequired(Change::Expired),
        (0 | 49, Some(POLICY_CHANGE_AFTER_RESET)) => Outcome::ChangeRequired(Change::AfterReset),
        (49, _) if expired => Outcome::ChangeRequired(Change::Expired),
        // 389-ds says "expired" of grace logins and of a reset too.
        (0, _) if expired && policy.warning.is_none() => {
            Outcome::ChangeRequired(Change::AfterReset)
        }
        (0, _) => Outcome::Accepted(policy.warning.or_else(|| expiring(controls))),
        (49, _) => diagnostic::outcome(text).unwrap_or(Outcome::Rejected(Rejection::WrongPassword)),
        // A referral, an entry that went away, has no password, or may not bind.
        (10 | 32 | 34 | 48 | 50, _) => Outcome::Rejected(Rejection::Unbindable),
        (code, _) => return Err(DirectoryError::Refused { operation: Operation::UserBind, code }),
    };
    let silent = controls.iter().all(|control| control.1.ctype == PASSWORD_POLICY);
    let usual =
        matches!(outcome, Outcome::Accepted(None) | Outcome::Rejected(Rejection::WrongPassword));
    let plain = matches!(code, 0 | 49) && silent && usual && policy.error.is_none();
    Ok(BindAnswer { outcome, code, plain })
}

/// The error of a password policy control, if one that can be read says one.
pub(super) fn policy_error(controls: &[Control]) -> Option<u8> {
    policy(controls)?.error
}

/// The time that a Netscape control tells, as decimal text; one that cannot be read
/// is only a warning lost.
fn expiring(controls: &[Control]) -> Option<Notice> {
    let control = controls.iter().find(|control| control.1.ctype == PASSWORD_EXPIRING)?;
    let text = std::str::from_utf8(control.1.val.as_deref()?).ok()?;
    Some(Notice::Expiring(Duration::from_secs(text.trim().parse().ok()?)))
}

/// The state a password policy control tells.
#[derive(Clone, Copy, Default)]
struct Policy {
    error: Option<u8>,
    warning: Option<Notice>,
}

/// The policy's state, silent when there is no control; `None` when it cannot be read.
fn policy(controls: &[Control]) -> Option<Policy> {
    let mut states = controls.iter().filter(|control| control.1.ctype == PASSWORD_POLICY);
    match (states.next(), states.next()) {
        (None, _) => Some(Policy::default()),
        (Some(control), None) => control.1.val.as_deref().and_then(parse_policy),
        (Some(_), Some(_)) => None,
    }
}

/// `SEQUENCE { warning [0] CHOICE OPTIONAL, error [1] ENUMERATED OPTIONAL }`.
fn parse_policy(value: &[u8]) -> Option<Policy> {
    let (sequence, []) = ber::element(value)? else { return None };
    if sequence.tag != 0x30 {
        return None;
    }
    let mut policy = Policy::default();
    for element in ber::elements(sequence.content)? {
        match (element.tag, element.content) {
            (0xa0, warning) if policy.warning.is_none() => {
                policy.warning = Some(parse_warning(warning)?);
            }
            (0x81, [error]) if policy.error.is_none() => policy.error = Some(*error),
            _ => return None,
        }
    }
    Some(policy)
}

/// `CHOICE { timeBeforeExpiration [0] INTEGER, graceAuthNsRemaining [1] INTEGER }`.
fn parse_warning(value: &[u8]) -> Option<Notice> {
    let (choice, []) = ber::element(value)? else { return None };
    let number = match choice.content {
        [] => return None,
        // Less than nothing is left: nothing.
        [first, ..] if first & 0x80 != 0 => 0,
        bytes if bytes.len() <= 5 => {
            bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        }
        _ => return None,
    };
    match choice.tag {
        0x80 => Some(Notice::Expiring(Duration::from_secs(number))),
        0x81 => Some(Notice::GraceLogins(u32::try_from(number).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ldap3::controls::{Control, RawControl};

    use std::time::Duration;

    use super::{BindAnswer, PASSWORD_EXPIRED, PASSWORD_EXPIRING, PASSWORD_POLICY, judge};
    use crate::directory::outcome::{Change, Notice, Outcome, Rejection};

    fn control(ctype: &str, value: &[u8]) -> Control {
        Control(
            None,
            RawControl { ctype: ctype.to_owned(), crit: false, val: Some(value.to_vec()) },
        )
    }

    const ACCEPTED: Outcome = Outcome::Accepted(None);
    const LOCKED: Outcome = Outcome::Rejected(Rejection::Locked);
    const WRONG: Outcome = Outcome::Rejected(Rejection::WrongPassword);
    const EXPIRED: Outcome = Outcome::ChangeRequired(Change::Expired);
    const RESET: Outcome = Outcome::ChangeRequired(Change::AfterReset);
    const GRACE: Outcome = Outcome::Accepted(Some(Notice::GraceLogins(2)));
    const UNBINDABLE: Outcome = Outcome::Rejected(Rejection::Unbindable);

    const fn expiring(seconds: u64) -> Outcome {
        Outcome::Accepted(Some(Notice::Expiring(Duration::from_secs(seconds))))
    }

    #[test]
    fn answers_of_real_servers_are_understood() {
        for (code, policy, outcome, plain) in [
            (0, b"\x30\x00".as_slice(), ACCEPTED, true),
            (49, b"\x30\x00", WRONG, true),
            (49, b"\x30\x03\x81\x01\x01", LOCKED, false),
            (49, b"\x30\x03\x81\x01\x00", EXPIRED, false),
            (0, b"\x30\x03\x81\x01\x02", RESET, false),
            (0, b"\x30\x05\xa0\x03\x81\x01\x02", GRACE, false),
            (0, b"\x30\x08\xa0\x06\x80\x04\x01\x02\x03\x04", expiring(0x0102_0304), false),
            (19, b"\x30\x03\x81\x01\x01", LOCKED, false),
            (53, b"\x30\x03\x81\x01\x01", Outcome::Rejected(Rejection::Disabled), false),
        ] {
            assert_eq!(
                judge(code, "", &[control(PASSWORD_POLICY, policy)]).unwrap(),
                BindAnswer { outcome, code, plain },
                "{code} {policy:02x?}"
            );
        }
    }

    #[test]
    fn answers_without_controls_are_told_by_their_code() {
        for (code, outcome, plain) in [
            (0, ACCEPTED, true),
            (49, WRONG, true),
            (19, LOCKED, false),
            (10, UNBINDABLE, false),
            (48, UNBINDABLE, false),
        ] {
            let answer = judge(code, "", &[]).unwrap();
            assert_eq!(answer, BindAnswer { outcome, code, plain }, "{code}");
        }
        for code in [1, 2, 3, 8, 11, 13, 51, 52, 80, 9999] {
            assert!(judge(code, "data 533", &[]).is_err(), "{code}");
        }
    }

    #[test]
    fn the_text_counts_beside_a_refusal_alone() {
        let told = |code, text| judge(code, text, &[]).map(|answer| (answer.outcome, answer.plain));
        assert_eq!(told(49, "comment: x, data 52e, v1db1").unwrap(), (WRONG, true));
        assert_eq!(told(49, "comment: x, data 775, v1db1").unwrap(), (LOCKED, false));
        assert_eq!(told(49, "comment: x, data 532, v1db1").unwrap(), (EXPIRED, false));
        assert_eq!(told(0, "data 775").unwrap(), (ACCEPTED, true));
    }

    #[test]
    fn the_controls_of_netscape_are_understood_with_and_without_the_policys() {
        let expired = control(PASSWORD_EXPIRED, b"0");
        let grace = control(PASSWORD_POLICY, b"\x30\x05\xa0\x03\x81\x01\x02");
        for (code, controls, outcome) in [
            (0, vec![expired.clone()], RESET),
            (49, vec![expired.clone()], EXPIRED),
            (0, vec![grace.clone(), expired.clone()], GRACE),
            (0, vec![expired, grace], GRACE),
            (0, vec![control(PASSWORD_EXPIRING, b"3600")], expiring(3600)),
            (0, vec![control(PASSWORD_EXPIRING, b"soon")], ACCEPTED),
        ] {
            let answer = judge(code, "", &controls).unwrap();
            assert_eq!(answer, BindAnswer { outcome, code, plain: false }, "{controls:?}");
        }
    }

    #[test]
    fn a_policy_that_cannot_be_read_lets_nobody_in_and_excuses_nobody() {
        let refused = BindAnswer { outcome: WRONG, code: 49, plain: false };
        for value in [
            b"".as_slice(),
            b"\x30",
            b"\x04\x00",
            b"\x30\x02\x81\x00",
            b"\x30\x00\x00",
            b"\x30\x02\xa0\x00",
            b"\x30\x04\xa0\x02\x81\x00",
            b"\x30\x05\xa0\x03\x82\x01\x02",
        ] {
            let controls = [control(PASSWORD_POLICY, value)];
            assert!(judge(0, "", &controls).is_err(), "{value:02x?}");
            assert_eq!(judge(49, "", &controls).unwrap(), refused, "{value:02x?}");
        }
        let twice = [control(PASSWORD_POLICY, b"\x30\x00"), control(PASSWORD_POLICY, b"\x30\x00")];
        assert!(judge(0, "", &twice).is_err());
        assert_eq!(judge(49, "", &twice).unwrap(), refused);
    }
}
