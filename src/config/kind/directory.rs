//! What LDAP has words for: distinguished names, attributes, filters, roles.

use super::{Fault, Text, one_line};
use crate::dn::Dn;
use crate::identity::{ACCESS_CODE_ROLE, Role};

/// A distinguished name (RFC 4514).
pub(in crate::config) const fn distinguished_name() -> Text<String> {
    Text {
        allowed: "a distinguished name such as \"cn=admins,ou=groups,dc=example,dc=org\", never \
                  a bare name",
        pattern: Some("="),
        parse: |text| if is_distinguished_name(text) { one_line(text) } else { wrong() },
        show: String::clone,
    }
}

/// An attribute's name or numeric identifier (RFC 4512 section 1.4).
pub(in crate::config) const fn attribute() -> Text<String> {
    Text {
        allowed: "an attribute's name such as \"uid\"",
        pattern: Some("^[A-Za-z0-9.-]+$"),
        parse: |text| if is_attribute(text) { Ok(text.to_owned()) } else { wrong() },
        show: String::clone,
    }
}

/// A search filter (RFC 4515).
pub(in crate::config) const fn filter() -> Text<String> {
    Text {
        allowed: "a filter such as \"(objectClass=inetOrgPerson)\", with its brackets",
        pattern: Some("^\\(.*\\)$"),
        parse: |text| {
            // The parser takes a comparison without brackets too, which could not be and-ed.
            let nested = text.bytes().filter(|byte| *byte == b'(').count();
            let good = text.starts_with('(') && nested <= 256 && ldap3::parse_filter(text).is_ok();
            if good { Ok(text.to_owned()) } else { wrong() }
        },
        show: String::clone,
    }
}

/// The name of a role.
pub(in crate::config) const fn role_name() -> Text<Role> {
    Text {
        allowed: "a role's name of up to 64 bytes without outer spaces, not \"access_code\"",
        pattern: None,
        parse: |text| {
            // The role of redeemed access codes: nobody logs in with it.
            let reserved = text == ACCESS_CODE_ROLE;
            let good = text.len() <= 64 && text.trim() == text && !reserved;
            if good { one_line(text).map(|name| Role::new(&name)) } else { wrong() }
        },
        show: Role::to_string,
    }
}

fn wrong<T>() -> Result<T, Fault> {
    Err(Fault::default())
}

pub(super) fn is_attribute(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let name = text.starts_with(|first: char| first.is_ascii_alphabetic());
    let number = |arc: &str| {
        let digits = !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
        digits && (arc == "0" || !arc.starts_with('0'))
    };
    let oid = text.contains('.') && text.split('.').all(number);
    text.len() <= 128 && ((name && text.bytes().all(letters)) || oid)
}

/// Whether every part names an attribute and a value.
fn is_distinguished_name(text: &str) -> bool {
    let Some(name) = Dn::parse(text).filter(|_| text.len() <= 4096) else { return false };
    // In its normal form, what is special within a value is escaped.
    name.to_string().split([',', '+']).all(|part| {
        part.split_once('=').is_some_and(|(kind, value)| is_attribute(kind) && !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::{attribute, distinguished_name, filter, role_name};
    use crate::config::kind::read;

    #[test]
    fn a_group_is_a_distinguished_name_never_a_bare_one() {
        for text in [
            "cn=admins,ou=groups,dc=example,dc=org",
            "CN=Smith\\, Jane+uid=js, DC=example",
            "cn=caf\\c3\\a9,dc=x",
            "2.5.4.3=admins,dc=x",
            "cn=\\ leading,dc=x",
            "cn=#04024869,dc=x",
            "cn=\\#tag,dc=x",
            r"cn=a\,b\+c\=d,dc=x",
        ] {
            assert!(read(&distinguished_name(), text).is_ok(), "{text}");
        }
        for text in [
            "",
            "admins",
            "cn=",
            "cn=a,,dc=b",
            "cn=a,b",
            "cn=a\\",
            "cn=a\\zz",
            "=a",
            "c n=a",
            "cn=a;b",
            "cn=a\nb",
            "cn=\"a\"",
            "cn=a,",
            "cn=#,dc=x",
            "cn=#tag,dc=x",
            "cn=a,dc= #040",
            "2.05.4.3=a",
            "cn\u{a0}=a,dc=x",
            "cn=a+ou=,dc=x",
            r"cn=\ ,dc=x",
        ] {
            assert!(read(&distinguished_name(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn attributes_are_names_or_numbers() {
        for (text, good) in [
            ("uid", true),
            ("sAMAccountName", true),
            ("x-y", true),
            ("2.5.4.3", true),
            ("", false),
            ("u id", false),
            ("uid)(", false),
            ("1x", false),
            ("1.", false),
            ("0.9.2342", true),
            ("2.05.4", false),
        ] {
            assert_eq!(read(&attribute(), text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_filter_has_balanced_brackets() {
        assert!(read(&filter(), "(&(objectClass=person)(!(disabled=TRUE)))").is_ok());
        for text in ["", "objectClass=person", "(objectClass=person", "(a=b)(c=d)", "(a=b))", "()"]
        {
            assert!(read(&filter(), text).is_err(), "{text}");
        }
        assert!(read(&filter(), &"(!".repeat(10_000)).is_err());
    }

    #[test]
    fn the_role_of_access_codes_is_reserved() {
        assert!(read(&role_name(), "super_admin").is_ok());
        for text in ["", " a", "a\n", "access_code", &"x".repeat(65)] {
            assert!(read(&role_name(), text).is_err(), "{text}");
        }
    }
}
