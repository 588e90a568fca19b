//! Distinguished names of the demo directory, compared as a directory compares
//! them: without case, without padding, whatever way they were escaped (RFC 4514).

/// A distinguished name in comparable form: its parts, the entry's own first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Dn(Vec<String>);

impl Dn {
    /// Reads a distinguished name; `None` when it is none. The empty one is the root.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::default());
        }
        split_unescaped(text).into_iter().map(fold_part).collect::<Option<Vec<_>>>().map(Self)
    }

    /// The name one step up; `None` above the root.
    pub(super) fn parent(&self) -> Option<Self> {
        (!self.0.is_empty()).then(|| Self(self.0.iter().skip(1).cloned().collect()))
    }

    /// Whether this name is `base` or lies anywhere below it.
    pub(super) fn is_within(&self, base: &Self) -> bool {
        self.0.ends_with(&base.0)
    }
}

/// Cuts at commas that no backslash protects.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b',' && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// One part in comparable form: `type=value`, lower case, unescaped, without padding.
fn fold_part(part: &str) -> Option<String> {
    let (kind, value) = part.split_once('=')?;
    let (kind, value) = (kind.trim(), unescape(value.trim())?);
    (!kind.is_empty() && !value.is_empty())
        .then(|| format!("{}={}", kind.to_lowercase(), value.trim().to_lowercase()))
}

fn unescape(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let first = rest.next()?;
        if let Some(high) = hex(first) {
            bytes.push(high << 4 | hex(rest.next()?)?);
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::Dn;

    #[test]
    fn spellings_of_one_name_are_equal() {
        let plain = Dn::parse("uid=ada,ou=people,dc=example,dc=org").unwrap();
        for spelling in [
            "UID=Ada, OU=People, DC=example, DC=org",
            r"uid=\61da,ou=people,dc=example,dc=org",
            " uid = ada ,ou=people,dc=example,dc=org",
        ] {
            assert_eq!(Dn::parse(spelling).unwrap(), plain, "{spelling}");
        }
        assert_ne!(Dn::parse("uid=ben,ou=people,dc=example,dc=org").unwrap(), plain);
        assert_eq!(Dn::parse(r"cn=a\,b"), Dn::parse(r"cn=a\2cb"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["ada", "uid=", "=ada", "uid=ada,,dc=org", r"uid=ada\", r"uid=\6"] {
            assert_eq!(Dn::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_lies_within_its_parents_and_itself() {
        let ada = Dn::parse("uid=ada,ou=people,dc=example").unwrap();
        let people = Dn::parse("ou=people,dc=example").unwrap();
        assert_eq!(ada.parent().unwrap(), people);
        assert!(ada.is_within(&people) && ada.is_within(&ada) && ada.is_within(&Dn::default()));
        assert!(!people.is_within(&ada));
        assert_eq!(Dn::default().parent(), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = Dn::parse(&text);
        }
    }
}
