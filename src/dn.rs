//! Distinguished names in one normal form, because servers spell the same name in
//! different ways (`\2C` and `\,`, case, spaces), and so do people. Knows no directory.

use std::fmt;

/// A name in the normal form of RFC 4514: attribute types and values in lower case,
/// spaces trimmed and collapsed, every special character written `\XX`, the parts
/// of a multi-valued RDN in order. Two names are equal when these texts are. It is
/// for comparing and recording; binds use the server's own spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Dn(String);

impl Dn {
    /// Reads a name; `None` when it is none, or empty.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim_start_matches(' ').as_bytes();
        let mut normal = String::with_capacity(text.len());
        loop {
            let (rdn, end) = parse_rdn(&mut rest)?;
            normal.push_str(&rdn.join("+"));
            if end == End::Name {
                return Some(Self(normal));
            }
            normal.push(',');
        }
    }

    /// Whether it is this entry, or one somewhere below it.
    pub(crate) fn is_within(&self, base: &Self) -> bool {
        let above = self.0.strip_suffix(&base.0);
        above.is_some_and(|above| above.is_empty() || above.ends_with(','))
    }
}

impl fmt::Display for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What ended a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Value,
    Rdn,
    Name,
}

fn parse_rdn(rest: &mut &[u8]) -> Option<(Vec<String>, End)> {
    let mut parts = Vec::new();
    loop {
        let kind = parse_type(rest)?;
        let (value, end) = parse_value(rest)?;
        parts.push(format!("{kind}={value}"));
        if end != End::Value {
            parts.sort_unstable();
            return Some((parts, end));
        }
    }
}

fn parse_type(rest: &mut &[u8]) -> Option<String> {
    let equals = rest.iter().position(|byte| *byte == b'=')?;
    let (kind, after) = rest.split_at(equals);
    *rest = after.get(1..)?;
    let kind = std::str::from_utf8(kind).ok()?.trim_matches(' ').to_ascii_lowercase();
    let kind = kind.strip_prefix("oid.").unwrap_or(&kind);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if kind.is_empty() || !kind.bytes().all(plain) {
        return None;
    }
    Some(short_name(kind).to_owned())
}

/// The names of RFC 4514 section 3 for their numbers.
fn short_name(kind: &str) -> &str {
    match kind {
        "2.5.4.3" | "commonname" => "cn",
        "2.5.4.7" | "localityname" => "l",
        "2.5.4.8" | "stateorprovincename" => "st",
        "2.5.4.10" | "organizationname" => "o",
        "2.5.4.11" | "organizationalunitname" => "ou",
        "2.5.4.6" | "countryname" => "c",
        "2.5.4.9" | "streetaddress" => "street",
        "0.9.2342.19200300.100.1.25" | "domaincomponent" => "dc",
        "0.9.2342.19200300.100.1.1" | "userid" => "uid",
        other => other,
    }
}

fn parse_value(rest: &mut &[u8]) -> Option<(String, End)> {
    *rest = rest.trim_ascii_start();
    let encoded = rest.first() == Some(&b'#');
    let mut bytes = Vec::new();
    let end = loop {
        let Some((&byte, after)) = rest.split_first() else { break End::Name };
        *rest = after;
        match byte {
            b',' => break End::Rdn,
            b'+' => break End::Value,
            b'\\' => bytes.push(parse_escape(rest)?),
            b'"' | b';' | b'<' | b'>' | 0 => return None,
            _ => bytes.push(byte),
        }
    };
    let value = if encoded { decode_hexadecimal(&bytes)? } else { Value::of(bytes) };
    Some((value.normal(), end))
}

fn parse_escape(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = rest.split_first()?;
    if let (Some(high), Some(low)) = (digit(byte), after.first().copied().and_then(digit)) {
        *rest = after.get(1..)?;
        return Some(high << 4 | low);
    }
    *rest = after;
    br##" "#+,;<=>\"##.contains(&byte).then_some(byte)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A value: text, bytes that are none, or BER that is no string.
enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Encoded(Vec<u8>),
}

impl Value {
    fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes(error.into_bytes()),
        }
    }

    fn normal(&self) -> String {
        match self {
            Self::Text(text) => {
                let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
                words.join(" ").to_lowercase().chars().map(escaped).collect()
            }
            Self::Bytes(bytes) => bytes
                .iter()
                .copied()
                .fold(String::new(), |text, byte| text + "\\" + &hexadecimal(byte)),
            Self::Encoded(bytes) => {
                bytes.iter().copied().fold("#".to_owned(), |text, byte| text + &hexadecimal(byte))
            }
        }
    }
}

fn hexadecimal(byte: u8) -> String {
    format!("{byte:02x}")
}

fn escaped(character: char) -> String {
    match character {
        ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' | '#' | '\0'..='\x1f' | '\x7f' => {
            format!("\\{:02x}", u32::from(character))
        }
        _ => character.to_string(),
    }
}

/// `#04024869`: a value as hexadecimal BER; the string types are read as text.
fn decode_hexadecimal(text: &[u8]) -> Option<Value> {
    let digits = text.trim_ascii_end().strip_prefix(b"#")?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let bytes = bytes.filter(|bytes| !bytes.is_empty())?;
    Some(match string(&bytes) {
        Some(text) => Value::of(text.to_vec()),
        None => Value::Encoded(bytes),
    })
}

/// What is in a BER string, if it is one and nothing more.
fn string(bytes: &[u8]) -> Option<&[u8]> {
    let [0x04 | 0x0c | 0x13 | 0x16, first, rest @ ..] = bytes else { return None };
    // Beyond 127 bytes the first one says how many hold the length.
    let (length, content) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, content) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), content)
        }
        _ => return None,
    };
    (content.len() == length).then_some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::Dn;

    #[track_caller]
    fn same(one: &str, other: &str) {
        assert_eq!(Dn::parse(one).unwrap(), Dn::parse(other).unwrap());
    }

    #[test]
    fn what_is_below_a_name_ends_with_it() {
        let within = |name, base| Dn::parse(name).unwrap().is_within(&Dn::parse(base).unwrap());
        assert!(within("cn=a,ou=G,dc=x", "OU=g, dc=x"));
        assert!(within("dc=x", "dc=x"));
        assert!(!within("cn=a,ou=gg,dc=x", "ou=g,dc=x"));
        assert!(!within(r"cn=a\,ou=g,dc=x", "ou=g,dc=x"));
        assert!(!within("dc=x", "ou=g,dc=x"));
    }

    #[test]
    fn spellings_of_one_name_are_equal() {
        same("cn=Admins,ou=Groups,dc=example,dc=org", "CN=admins, OU=groups , DC=Example,DC=ORG");
        same(r"cn=O'Brien\, Pat,dc=x", r"cn=O'Brien\2C Pat,dc=x");
        same(r#"cn=\#a\"b\<c\>\;d\\\=e,dc=x"#, r"cn=\23a\22b\3Cc\3E\3bd\5C\3De,dc=x");
        same(r"cn=\ a  b\ ,dc=x", "cn=a b,dc=x");
        same(r"cn=Zo\C3\8B,dc=x", "cn=zoë,dc=x");
        same("uid=a+cn=b,dc=x", "CN=B+UID=A,dc=x");
        same("2.5.4.3=a,OID.2.5.4.11=b", "cn=a,ou=b");
        same("cn=#0c024869,dc=x", "cn=hi,dc=x");
        same("cn=#0c8200024869,dc=x", "cn=hi,dc=x");
        same(r"cn=a\=b,dc=x", "cn=a=b,dc=x");
    }

    #[test]
    fn different_names_stay_different() {
        let names = [
            "cn=admins,ou=groups,dc=example,dc=org",
            "cn=admins,ou=contractors,dc=example,dc=org",
            "cn=admins,dc=example,dc=org",
            r"cn=admins\,ou\=groups,dc=example,dc=org",
            r"cn=admins\+ou\=groups,dc=example,dc=org",
            "cn=admins+ou=groups,dc=example,dc=org",
            "ou=groups,cn=admins,dc=example,dc=org",
            "cn=ad mins,ou=groups,dc=example,dc=org",
            r"cn=\ff,dc=org",
            r"cn=\#ff,dc=org",
            "cn=hi,dc=org",
            "cn=#0c036869,dc=org",
            "cn=#0c016869,dc=org",
            "cn=#0c80,dc=org",
            "cn=#02016a,dc=org",
        ];
        let unique: std::collections::HashSet<Dn> =
            names.iter().map(|name| Dn::parse(name).unwrap()).collect();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            " ",
            "admins",
            "=a",
            "cn=a,",
            "cn=a,,dc=b",
            "cn=a;dc=b",
            "cn=\"a\"",
            r"cn=a\",
            r"cn=a\x",
            "c n=a",
            "cn=a\0",
            "cn=#",
            "cn=#0",
            "cn=#xy",
            "cn=<a>",
        ] {
            assert_eq!(Dn::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_normal_form_is_its_own(text in r#"([a-zA-Z0-9.]{0,3}=)?[ a-zA-ZëË0-9=,+#;"<>\\\x00]{0,20}"#) {
            if let Some(name) = Dn::parse(&text) {
                prop_assert_eq!(Dn::parse(&name.to_string()), Some(name.clone()), "{}", text);
            }
        }

        #[test]
        fn an_escaped_value_reads_back(value in r#"[a-z,+"\\<>;=# é]{1,12}"#) {
            let escaped = format!("cn={},dc=x", ldap3::dn_escape(value.as_str()));
            let hexadecimal = value
                .bytes()
                .fold(String::new(), |text, byte| text + "\\" + &super::hexadecimal(byte));
            prop_assert_eq!(Dn::parse(&escaped), Dn::parse(&format!("cn={hexadecimal},dc=x")));
        }
    }
}
