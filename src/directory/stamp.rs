//! What tells an account from a later one of the same name, and its password from a
//! later one: values that the directory keeps, compared as text. They are times to the
//! directory and nothing to us: no clock is ever compared with them.

use crate::directory::entry::Entry;

/// When the password was set, in the words of each kind of server: Active Directory,
/// OpenLDAP's ppolicy, 389-ds with `passwordTrackUpdateTime`.
pub(super) const PASSWORD: [&str; 3] = ["pwdLastSet", "pwdChangedTime", "pwdUpdateTime"];
/// Which entry it is, however it is named: Active Directory, 389-ds (which may get an
/// entryUUID later), RFC 4530.
const ENTRY: [&str; 3] = ["objectGUID", "nsUniqueId", "entryUUID"];
/// What is read for a stamp.
pub(super) const ATTRIBUTES: [&str; 6] =
    ["pwdLastSet", "pwdChangedTime", "pwdUpdateTime", "objectGUID", "nsUniqueId", "entryUUID"];

/// What an entry says of itself; either may be kept from us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) password: Option<String>,
    pub(super) entry: Option<String>,
}

impl Stamp {
    pub(super) fn read(entry: &Entry) -> Self {
        let first = |names: [&str; 3]| {
            names.into_iter().find_map(|name| {
                let value = entry.texts(name).into_iter().next()?;
                Some(format!("{name}={value}"))
            })
        };
        Self { password: first(PASSWORD), entry: first(ENTRY) }
    }

    /// From the text that a session keeps.
    pub(super) fn parse(text: &str) -> Self {
        let (password, entry) = text.split_once('/').unwrap_or((text, ""));
        let told = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        Self { password: told(password), entry: told(entry) }
    }

    /// The text that a session keeps.
    pub(super) fn text(&self) -> String {
        let part = |part: &Option<String>| part.as_deref().unwrap_or_default().replace('/', "_");
        format!("{}/{}", part(&self.password), part(&self.entry))
    }
}

#[cfg(test)]
mod tests {
    use ldap3::asn1::{PL, StructureTag, TagClass};

    use super::Stamp;
    use crate::directory::entry::Entry;

    fn entry(attributes: &[(&str, &str)]) -> Entry {
        let tag = |payload| StructureTag { class: TagClass::Universal, id: 4, payload };
        let text = |text: &str| tag(PL::P(text.as_bytes().to_vec()));
        let attribute = |(name, value): &(&str, &str)| {
            tag(PL::C(vec![text(name), tag(PL::C(vec![text(value)]))]))
        };
        let attributes = tag(PL::C(attributes.iter().map(attribute).collect()));
        Entry::parse(tag(PL::C(vec![text("uid=a"), attributes]))).unwrap()
    }

    #[test]
    fn each_kind_of_server_tells_password_and_entry_in_its_own_words() {
        for (attributes, text) in [
            (vec![], "/"),
            (
                vec![("pwdlastset", "13"), ("objectGUID", "0123456789abcdef")],
                "pwdLastSet=13/objectGUID=33323130-3534-3736-3839-616263646566",
            ),
            (
                vec![("entryUUID", "u-1"), ("pwdChangedTime", "20260101000000Z")],
                "pwdChangedTime=20260101000000Z/entryUUID=u-1",
            ),
            (vec![("nsUniqueId", "a/b")], "/nsUniqueId=a_b"),
        ] {
            let stamp = Stamp::read(&entry(&attributes));
            assert_eq!(stamp.text(), text);
            assert_eq!(Stamp::parse(text).text(), text);
        }
    }
}
