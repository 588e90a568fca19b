//! The text that Active Directory puts beside result 49. The words around the code
//! differ between versions and servers; only `data` and the number after it count.

use crate::directory::outcome::{Bar, Change, Outcome, Rejection};

/// What the text says; `None` when it holds no code that is known.
pub(super) fn outcome(text: &str) -> Option<Outcome> {
    codes(text).find_map(meaning)
}

/// Every `data HEX` of a text.
fn codes(text: &str) -> impl Iterator<Item = u32> {
    text.match_indices("data ").filter_map(|(at, word)| {
        let rest = &text[at + word.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        // `data base` is no number, though it begins like one.
        let ends = rest.as_bytes().get(digits).is_none_or(|next| !next.is_ascii_alphanumeric());
        if ends { u32::from_str_radix(&rest[..digits], 16).ok() } else { None }
    })
}

const fn meaning(code: u32) -> Option<Outcome> {
    Some(match code {
        // The server found no such name; we had its DN, so the entry went away.
        0x525 => Outcome::Rejected(Rejection::Unbindable),
        0x52e => Outcome::Rejected(Rejection::WrongPassword),
        // From here on only the right password is told, but for 775.
        0x530 => Outcome::Barred(Bar::NotNow),
        0x531 => Outcome::Barred(Bar::NotHere),
        0x532 => Outcome::ChangeRequired(Change::Expired),
        0x533 => Outcome::Barred(Bar::Disabled),
        0x701 => Outcome::Barred(Bar::AccountExpired),
        0x773 => Outcome::ChangeRequired(Change::AfterReset),
        0x775 => Outcome::Rejected(Rejection::Locked),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::outcome;
    use crate::directory::outcome::{Bar, Change, Outcome, Rejection};

    #[test]
    fn every_code_is_understood_whatever_stands_around_it() {
        for (code, expected) in [
            ("525", Outcome::Rejected(Rejection::Unbindable)),
            ("52e", Outcome::Rejected(Rejection::WrongPassword)),
            ("530", Outcome::Barred(Bar::NotNow)),
            ("531", Outcome::Barred(Bar::NotHere)),
            ("532", Outcome::ChangeRequired(Change::Expired)),
            ("533", Outcome::Barred(Bar::Disabled)),
            ("701", Outcome::Barred(Bar::AccountExpired)),
            ("773", Outcome::ChangeRequired(Change::AfterReset)),
            ("775", Outcome::Rejected(Rejection::Locked)),
        ] {
            for text in [
                format!(
                    "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, \
                     data {code}, v1db1"
                ),
                format!("80090308: LdapErr: DSID-0C09, data {}, v4563\0", code.to_uppercase()),
                format!("data {code}"),
                format!("data base, data xyz, data , data 9999, data {code} rest"),
                format!("ë data 00000{code}\u{fffd}"),
            ] {
                assert_eq!(outcome(&text), Some(expected), "{text}");
            }
        }
        for text in ["", "data", "data ", "data  52e", "data 52ex", "data 52eg", "DATA 52e", "52e"]
        {
            assert_eq!(outcome(text), None, "{text}");
        }
        assert_eq!(outcome("data fffffffff"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(before in any::<String>(), after in any::<String>()) {
            outcome(&format!("{before}data {after}"));
        }
    }
}
