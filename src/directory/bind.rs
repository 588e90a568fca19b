//! What an answer to a bind says, result code and password policy control
//! together. Knows no connection.

use ldap3::controls::{Control, RawControl};

use crate::directory::ber;
use crate::directory::{DirectoryError, Operation, Rejection};

/// draft-behera-ldap-password-policy; a server speaks of it only when asked on the bind itself.
const PASSWORD_POLICY: &str = "1.3.6.1.4.1.42.2.27.8.5.1";
/// Netscape's "password expired", also sent when it must be changed.
const PASSWORD_EXPIRED: &str = "2.16.840.1.113730.3.4.4";

const POLICY_PASSWORD_EXPIRED: u8 = 0;
const POLICY_ACCOUNT_LOCKED: u8 = 1;
const POLICY_CHANGE_AFTER_RESET: u8 = 2;

/// What a directory said of a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Right.
    Accepted,
    /// Right, but expired or to be changed first.
    MustChange,
    /// Not right, or not to be told.
    Rejected(Rejection),
}

/// A verdict, and whether the connection it came on may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BindAnswer {
    pub(super) verdict: Verdict,
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

/// Judges an answer.
///
/// # Errors
/// When the directory does not say whether the password is right.
pub(super) fn judge(code: u32, controls: &[Control]) -> Result<BindAnswer, DirectoryError> {
    let policy = policy(controls).ok_or(DirectoryError::Protocol("a password policy control"))?;
    let expired = controls.iter().any(|control| control.1.ctype == PASSWORD_EXPIRED);
    let verdict = match (code, policy.error) {
        // 389-ds says 19 and 53 whether or not the password is right.
        (0 | 49, Some(POLICY_ACCOUNT_LOCKED)) | (19, _) => Verdict::Rejected(Rejection::Locked),
        (0 | 49, Some(POLICY_PASSWORD_EXPIRED | POLICY_CHANGE_AFTER_RESET)) => Verdict::MustChange,
        (0 | 49, _) if expired => Verdict::MustChange,
        (0, _) => Verdict::Accepted,
        (49, _) => Verdict::Rejected(Rejection::WrongPassword),
        (53, _) => Verdict::Rejected(Rejection::Disabled),
        // A referral, an entry that went away, has no password, or may not bind.
        (10 | 32 | 34 | 48 | 50, _) => Verdict::Rejected(Rejection::Unbindable),
        (code, _) => return Err(DirectoryError::Refused { operation: Operation::UserBind, code }),
    };
    let silent = controls.iter().all(|control| control.1.ctype == PASSWORD_POLICY);
    let plain = matches!(code, 0 | 49) && silent && policy.is_silent();
    Ok(BindAnswer { verdict, code, plain })
}

/// The state a password policy control tells.
#[derive(Clone, Copy, Default)]
struct Policy {
    error: Option<u8>,
    warning: bool,
}

impl Policy {
    /// OpenLDAP adds an empty control to every answer.
    const fn is_silent(self) -> bool {
        self.error.is_none() && !self.warning
    }
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
            (0xa0, _) if !policy.warning => policy.warning = true,
            (0x81, [error]) if policy.error.is_none() => policy.error = Some(*error),
            _ => return None,
        }
    }
    Some(policy)
}

#[cfg(test)]
mod tests {
    use ldap3::controls::{Control, RawControl};

    use super::{BindAnswer, PASSWORD_EXPIRED, PASSWORD_POLICY, Verdict, judge};
    use crate::directory::Rejection;

    fn control(ctype: &str, value: &[u8]) -> Control {
        Control(
            None,
            RawControl { ctype: ctype.to_owned(), crit: false, val: Some(value.to_vec()) },
        )
    }

    fn answer(code: u32, policy: &[u8]) -> BindAnswer {
        judge(code, &[control(PASSWORD_POLICY, policy)]).unwrap()
    }

    const LOCKED: Verdict = Verdict::Rejected(Rejection::Locked);
    const WRONG: Verdict = Verdict::Rejected(Rejection::WrongPassword);

    #[test]
    fn answers_of_real_servers_are_understood() {
        for (code, policy, verdict, plain) in [
            (0, b"\x30\x00".as_slice(), Verdict::Accepted, true),
            (49, b"\x30\x00", WRONG, true),
            (49, b"\x30\x03\x81\x01\x01", LOCKED, false),
            (49, b"\x30\x03\x81\x01\x00", Verdict::MustChange, false),
            (0, b"\x30\x03\x81\x01\x02", Verdict::MustChange, false),
            (0, b"\x30\x05\xa0\x03\x81\x01\x02", Verdict::Accepted, false), // two grace logins left
            (0, b"\x30\x08\xa0\x06\x80\x04\x01\x02\x03\x04", Verdict::Accepted, false),
            (19, b"\x30\x03\x81\x01\x01", LOCKED, false),
            (53, b"\x30\x03\x81\x01\x01", Verdict::Rejected(Rejection::Disabled), false),
        ] {
            assert_eq!(
                answer(code, policy),
                BindAnswer { verdict, code, plain },
                "{code} {policy:02x?}"
            );
        }
    }

    #[test]
    fn answers_without_controls_are_told_by_their_code() {
        for (code, verdict, plain) in [
            (0, Verdict::Accepted, true),
            (49, WRONG, true),
            (19, LOCKED, false),
            (10, Verdict::Rejected(Rejection::Unbindable), false),
            (48, Verdict::Rejected(Rejection::Unbindable), false),
        ] {
            assert_eq!(judge(code, &[]).unwrap(), BindAnswer { verdict, code, plain }, "{code}");
        }
        for code in [1, 2, 3, 8, 11, 13, 51, 52, 80, 9999] {
            assert!(judge(code, &[]).is_err(), "{code}");
        }
        let expired = [control(PASSWORD_EXPIRED, b"0")];
        assert_eq!(judge(0, &expired).unwrap().verdict, Verdict::MustChange);
        assert_eq!(judge(49, &expired).unwrap().verdict, Verdict::MustChange);
    }

    #[test]
    fn a_policy_that_cannot_be_read_lets_nobody_in() {
        for value in [b"".as_slice(), b"\x30", b"\x04\x00", b"\x30\x02\x81\x00", b"\x30\x00\x00"] {
            assert!(judge(0, &[control(PASSWORD_POLICY, value)]).is_err(), "{value:02x?}");
        }
        let twice = [control(PASSWORD_POLICY, b"\x30\x00"), control(PASSWORD_POLICY, b"\x30\x00")];
        assert!(judge(0, &twice).is_err());
    }
}
