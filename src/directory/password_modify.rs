//! How a server is asked to change a password, and what it says: the extended
//! operation of RFC 3062, or `unicodePwd` as Active Directory takes it. Both name
//! the old password; neither can reset one. Knows no accounts.

use std::collections::HashSet;

use ldap3::controls::Control;
use ldap3::exop::PasswordModify;
use ldap3::{LdapResult, Mod};
use zeroize::Zeroizing;

use crate::directory::bind;
use crate::directory::change::Objection;
use crate::directory::connection::Connection;
use crate::directory::{DirectoryError, Operation};
use crate::secret::Secret;

/// One change, in the words of one kind of server.
pub(super) struct PasswordChange<'c> {
    pub(super) old: &'c Secret<String>,
    pub(super) new: &'c Secret<String>,
    /// The entry of Active Directory; elsewhere it is the one that the connection is
    /// bound as, and never named.
    pub(super) unicode_of: Option<&'c str>,
}

/// What a server says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Done,
    /// The new password, or the change itself, breaks a rule.
    Objected(Objection),
    /// The old password is not the present one: somebody else was quicker.
    WrongPassword,
    /// The account is locked by now.
    Locked,
}

impl Connection {
    /// Asks for the change.
    ///
    /// # Errors
    /// When the server does not say whether it was made.
    pub(super) async fn change_password(
        &self,
        change: &PasswordChange<'_>,
    ) -> Result<Changed, DirectoryError> {
        let (old, new) = (change.old.expose(), change.new.expose());
        let mut library = self.library();
        let work = async {
            let result = if let Some(dn) = change.unicode_of {
                let (old, new) = (quoted(old), quoted(new));
                library.modify(dn, replaced(&old, &new)).await
            } else {
                library.with_controls(bind::password_policy_request());
                let (old_pass, new_pass) = (Some(old.as_str()), Some(new.as_str()));
                let request = PasswordModify { user_id: None, old_pass, new_pass };
                library.extended(request).await.map(|answer| answer.1)
            };
            result.map_err(|_| DirectoryError::Lost)
        };
        let LdapResult { rc, text, ctrls, .. } = self.watched(work).await?;
        let changed = judge(rc, &text, &ctrls)?;
        if changed == Changed::Objected(Objection::NotAllowed) {
            tracing::warn!(code = rc, "the directory does not let somebody change a password");
        }
        Ok(changed)
    }
}

/// The old value deleted and the new one added, in one; of neither there is a copy in it.
/// The library's own, in what it sends, are beyond us.
fn replaced<'v>(old: &'v [u8], new: &'v [u8]) -> Vec<Mod<&'v [u8]>> {
    let attribute = b"unicodePwd".as_slice();
    vec![Mod::Delete(attribute, HashSet::from([old])), Mod::Add(attribute, HashSet::from([new]))]
}

/// The form of `unicodePwd`: in quotes, UTF-16, little-endian ([MS-ADTS] 3.1.1.3.1.5).
fn quoted(password: &str) -> Zeroizing<Vec<u8>> {
    let text = ['"'].into_iter().chain(password.chars()).chain(['"']);
    let mut units = [0; 2];
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * password.len() + 4));
    for char in text {
        for unit in char.encode_utf16(&mut units) {
            bytes.extend_from_slice(&unit.to_le_bytes());
        }
    }
    bytes
}

fn judge(code: u32, text: &str, controls: &[Control]) -> Result<Changed, DirectoryError> {
    let objected = |objection| Ok(Changed::Objected(objection));
    if code == 0 {
        return Ok(Changed::Done);
    }
    if let Some(objection) = bind::policy_error(controls).and_then(policy_objection) {
        return objected(objection);
    }
    match (code, windows_code(text)) {
        (_, Some(0x775)) => Ok(Changed::Locked),
        (_, Some(0x52d)) => objected(worded_objection(text)),
        // 389-ds says 49 of the old password.
        (_, Some(0x56)) | (49, _) => Ok(Changed::WrongPassword),
        (19, _) => objected(Objection::Policy),
        // Not authenticated, not in clear, not with these rights, not for this entry.
        (1 | 2 | 8 | 13 | 32 | 34 | 48 | 50 | 53, _) => objected(Objection::NotAllowed),
        (code, _) => Err(DirectoryError::Refused { operation: Operation::PasswordChange, code }),
    }
}

/// The errors of draft-behera-ldap-password-policy section 6.2 that speak of a change.
const fn policy_objection(error: u8) -> Option<Objection> {
    Some(match error {
        // Must not be changed, or only with the old password, which we sent.
        3 | 4 => Objection::NotAllowed,
        5 => Objection::TooSimple,
        6 => Objection::TooShort,
        7 => Objection::TooYoung,
        8 => Objection::UsedBefore,
        _ => return None,
    })
}

/// The number that begins the texts of Active Directory: `0000052D: …`.
fn windows_code(text: &str) -> Option<u32> {
    let (digits, _) = text.split_once(':')?;
    let is_code = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_code { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// Samba says in words which rule it was; Windows does not.
fn worded_objection(text: &str) -> Objection {
    [
        ("too young", Objection::TooYoung),
        ("too short", Objection::TooShort),
        ("complexity", Objection::TooSimple),
        ("history", Objection::UsedBefore),
    ]
    .into_iter()
    .find(|(words, _)| text.contains(words))
    .map_or(Objection::Policy, |(_, objection)| objection)
}

#[cfg(test)]
mod tests {
    use ldap3::Mod;
    use ldap3::controls::{Control, RawControl};

    use super::{Changed, judge, quoted, replaced};
    use crate::directory::change::Objection;

    fn policy(value: &[u8]) -> Control {
        let ctype = "1.3.6.1.4.1.42.2.27.8.5.1".to_owned();
        Control(None, RawControl { ctype, crit: false, val: Some(value.to_vec()) })
    }

    #[test]
    fn the_form_of_active_directory_is_quoted_utf_16() {
        assert_eq!(&quoted("aé")[..], b"\"\0a\0\xe9\0\"\0");
        assert_eq!(&quoted("\u{1f511}")[..], b"\"\0\x3d\xd8\x11\xdd\"\0");
    }

    #[test]
    fn no_copy_of_a_password_is_left_behind() {
        for password in ["aé", "\u{1f511}\u{20ac}", "a wholly new secret"] {
            // A buffer that grows leaves its old self behind.
            let quoted = quoted(password);
            assert_eq!(quoted.capacity(), 2 * password.len() + 4, "{password}");
            let [Mod::Delete(_, old), Mod::Add(_, new)] = &replaced(&quoted, &quoted)[..] else {
                panic!("a deletion and an addition");
            };
            for values in [old, new] {
                assert!(values.iter().all(|value| std::ptr::eq(*value, quoted.as_slice())));
            }
        }
    }

    #[test]
    fn answers_of_real_servers_are_understood() {
        use Objection::{NotAllowed, Policy, TooShort, TooSimple, TooYoung, UsedBefore};
        let samba = |words: &str| {
            format!("0000052D: Constraint violation - check_password_restrictions: {words}")
        };
        for (code, text, control, objection) in [
            // OpenLDAP and 389-ds, which writes lengths in their long form.
            (19, String::new(), b"\x30\x03\x81\x01\x06".as_slice(), TooShort),
            (19, String::new(), b"\x30\x84\0\0\0\x03\x81\x01\x05", TooSimple),
            (19, String::new(), b"\x30\x03\x81\x01\x07", TooYoung),
            (19, String::new(), b"\x30\x03\x81\x01\x08", UsedBefore),
            (50, String::new(), b"\x30\x03\x81\x01\x03", NotAllowed),
            (50, String::new(), b"\x30\x03\x81\x01\x04", NotAllowed),
            (19, String::new(), b"", Policy),
            (53, "unwilling to verify old password".to_owned(), b"", NotAllowed),
            (8, "only authenticated users may change passwords".to_owned(), b"", NotAllowed),
            (13, "Operation requires a secure connection.\n".to_owned(), b"", NotAllowed),
            (19, samba("password is too young to change!"), b"", TooYoung),
            (19, samba("the password was already used (in history)!"), b"", UsedBefore),
            (19, "0000052D: AtrErr: DSID-03191083, #1:".to_owned(), b"", Policy),
            (53, "0000052D: SvcErr: DSID-031A12D2, problem 5003".to_owned(), b"", Policy),
            (53, "0000001F: SvcErr: DSID-031A12D2, problem 5003".to_owned(), b"", NotAllowed),
        ] {
            let controls = [policy(control)];
            let controls = if control.is_empty() { &[][..] } else { &controls[..] };
            let answer = judge(code, &text, controls).unwrap();
            assert_eq!(answer, Changed::Objected(objection), "{code} {text}");
        }
        let told = |code, text| judge(code, text, &[]).ok();
        assert_eq!(told(0, ""), Some(Changed::Done));
        assert_eq!(told(49, "Invalid oldPasswd value.\n"), Some(Changed::WrongPassword));
        assert_eq!(told(19, "00000056: Constraint violation"), Some(Changed::WrongPassword));
        assert_eq!(told(19, "00000775: Password change"), Some(Changed::Locked));
        for code in [3, 51, 52, 80] {
            assert_eq!(told(code, ""), None, "{code}");
        }
    }
}
