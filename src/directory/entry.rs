//! One entry that a search found, and the subject in it. Values stay bytes until
//! somebody says what they are.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ldap3::asn1::{PL, StructureTag};

use crate::directory::filter::{Attribute, Filter};
use crate::identity::Subject;

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The name in the server's own spelling; empty for the root entry.
    pub(super) dn: String,
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

/// Why an entry names no subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoSubject {
    #[error("the entry does not have the subject attribute")]
    Missing,
    #[error("the entry has several values of the subject attribute")]
    Several,
    #[error("the subject attribute is empty or holds control characters")]
    Unusable,
}

impl Entry {
    /// Reads a `SearchResultEntry` (RFC 4511 section 4.5.2); `None` when it is none.
    pub(super) fn parse(tag: StructureTag) -> Option<Self> {
        let [name, attributes] = <[_; 2]>::try_from(constructed(tag)?).ok()?;
        let dn = String::from_utf8(primitive(name)?).ok()?;
        let attributes: Option<_> =
            constructed(attributes)?.into_iter().map(parse_attribute).collect();
        Some(Self { dn, attributes: attributes? })
    }

    /// The values of an attribute, whatever case the server writes its name in.
    pub(super) fn values(&self, attribute: &str) -> &[Vec<u8>] {
        let found = self.attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
        found.map_or(&[], |(_, values)| values)
    }

    /// The one value of an attribute, as text.
    pub(super) fn text(&self, attribute: &str) -> Option<&str> {
        let [value] = self.values(attribute) else { return None };
        std::str::from_utf8(value).ok()
    }

    /// The one value of an attribute, as a decimal number.
    pub(super) fn number(&self, attribute: &str) -> Option<i64> {
        self.text(attribute)?.parse().ok()
    }

    /// Who the entry is to the upstream: the one value of `attribute`.
    pub(super) fn subject(&self, attribute: &str) -> Result<Subject, NoSubject> {
        let value = match self.values(attribute) {
            [] => return Err(NoSubject::Missing),
            [value] => value,
            _ => return Err(NoSubject::Several),
        };
        let text = text_of(attribute, value).ok_or(NoSubject::Unusable)?;
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            return Err(NoSubject::Unusable);
        }
        Ok(Subject::new(&text))
    }

    /// All values of an attribute as text; bytes that are none as for a subject.
    pub(super) fn texts(&self, attribute: &str) -> Vec<String> {
        self.values(attribute).iter().filter_map(|value| text_of(attribute, value)).collect()
    }
}

/// `objectGUID` and `objectSid` in their usual text form, other bytes that are no
/// text as base64url; `None` for a malformed one of the former.
fn text_of(attribute: &str, value: &[u8]) -> Option<String> {
    match attribute.to_ascii_lowercase().as_str() {
        "objectguid" => guid(value),
        "objectsid" => sid(value),
        _ => Some(
            std::str::from_utf8(value)
                .map_or_else(|_| URL_SAFE_NO_PAD.encode(value), str::to_owned),
        ),
    }
}

/// What finds the entries whose attribute has this text form; any of these.
pub(super) fn conditions(attribute: &Attribute, text: &str) -> Vec<Filter> {
    let bytes = |bytes: Vec<u8>| Filter::Bytes(attribute.clone(), bytes);
    match attribute.as_str().to_ascii_lowercase().as_str() {
        "objectguid" => guid_bytes(text).map(bytes).into_iter().collect(),
        "objectsid" => sid_bytes(text).map(bytes).into_iter().collect(),
        _ => {
            // Perhaps the form of bytes that are no text.
            let decoded = URL_SAFE_NO_PAD.decode(text).ok();
            let decoded = decoded.filter(|bytes| std::str::from_utf8(bytes).is_err());
            let equal = Filter::Equal(attribute.clone(), text.to_owned());
            std::iter::once(equal).chain(decoded.map(bytes)).collect()
        }
    }
}

fn parse_attribute(tag: StructureTag) -> Option<(String, Vec<Vec<u8>>)> {
    let [name, values] = <[_; 2]>::try_from(constructed(tag)?).ok()?;
    let name = String::from_utf8(primitive(name)?).ok()?;
    let values: Option<_> = constructed(values)?.into_iter().map(primitive).collect();
    Some((name, values?))
}

fn constructed(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(parts) => Some(parts),
        PL::P(_) => None,
    }
}

fn primitive(tag: StructureTag) -> Option<Vec<u8>> {
    match tag.payload {
        PL::P(bytes) => Some(bytes),
        PL::C(_) => None,
    }
}

/// Where the bytes of a GUID stand in its text; 16 for a dash. As Microsoft stores it,
/// its first three fields are little-endian.
const GUID_ORDER: [usize; 20] =
    [3, 2, 1, 0, 16, 5, 4, 16, 7, 6, 16, 8, 9, 16, 10, 11, 12, 13, 14, 15];

fn guid(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let part =
        |index: &usize| bytes.get(*index).map_or("-".to_owned(), |byte| format!("{byte:02x}"));
    Some(GUID_ORDER.iter().map(part).collect())
}

fn guid_bytes(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    let mut bytes = vec![0; 16];
    let places = GUID_ORDER.iter().filter(|place| **place < 16).enumerate();
    for (at, place) in places {
        *bytes.get_mut(*place)? = u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    // Only the text that we write ourselves.
    (guid(&bytes)? == text).then_some(bytes)
}

/// A security identifier: revision, count, a big-endian authority, little-endian parts.
fn sid(bytes: &[u8]) -> Option<String> {
    let [revision, count, rest @ ..] = bytes else { return None };
    let (authority, parts) = rest.split_first_chunk::<6>()?;
    let authority = authority.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (parts, []) = parts.as_chunks::<4>() else { return None };
    if parts.len() != usize::from(*count) {
        return None;
    }
    let parts = parts.iter().map(|part| format!("-{}", u32::from_le_bytes(*part)));
    Some(std::iter::once(format!("S-{revision}-{authority}")).chain(parts).collect())
}

fn sid_bytes(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.strip_prefix("S-")?.split('-');
    let revision: u8 = parts.next()?.parse().ok()?;
    let authority: u64 = parts.next()?.parse().ok()?;
    let parts: Vec<u32> = parts.map(str::parse).collect::<Result<_, _>>().ok()?;
    let mut bytes = vec![revision, u8::try_from(parts.len()).ok()?];
    bytes.extend_from_slice(authority.to_be_bytes().get(2..)?);
    bytes.extend(parts.iter().flat_map(|part| part.to_le_bytes()));
    (sid(&bytes)? == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use ldap3::asn1::{PL, StructureTag, TagClass};

    use super::{Entry, NoSubject, conditions};
    use crate::directory::filter::Attribute;

    fn entry(attribute: &str, values: &[&[u8]]) -> Entry {
        let values = values.iter().map(|value| value.to_vec()).collect();
        Entry { dn: "uid=a,dc=x".to_owned(), attributes: vec![(attribute.to_owned(), values)] }
    }

    fn subject(attribute: &str, value: &[u8]) -> Result<String, NoSubject> {
        entry(attribute, &[value]).subject(attribute).map(|subject| subject.to_string())
    }

    #[test]
    fn a_subject_is_exactly_one_usable_value() {
        assert_eq!(entry("UID", &[b"Alice"]).subject("uid").unwrap().as_str(), "Alice");
        assert_eq!(entry("uid", &[]).subject("uid"), Err(NoSubject::Missing));
        assert_eq!(entry("cn", &[b"a"]).subject("uid"), Err(NoSubject::Missing));
        assert_eq!(entry("uid", &[b"a", b"b"]).subject("uid"), Err(NoSubject::Several));
        for value in [b"".as_slice(), b"  ", b"a\r\nX-Auth-Role: admin", b"a\0"] {
            assert_eq!(subject("uid", value), Err(NoSubject::Unusable));
        }
    }

    #[test]
    fn binary_identifiers_have_one_text_form() {
        let guid: Vec<u8> = (0..16).collect();
        assert_eq!(subject("objectGUID", &guid).unwrap(), "03020100-0504-0706-0809-0a0b0c0d0e0f");
        let sid = b"\x01\x02\0\0\0\0\0\x05\x20\0\0\0\x20\x02\0\0";
        assert_eq!(subject("objectSid", sid).unwrap(), "S-1-5-32-544");
        assert_eq!(subject("objectSid", b"\x01\x02\0\0\0\0\0\x05"), Err(NoSubject::Unusable));
        assert_eq!(subject("employeeKey", b"\xff\xfe").unwrap(), "__4");
        assert_eq!(entry("Key", &[b"\xff\xfe", b"\xc3\xa9"]).texts("key"), ["__4", "é"]);
    }

    #[test]
    fn what_has_a_text_form_is_found_by_it() {
        let found = |attribute: &str, value: &[u8]| {
            let text = subject(attribute, value).unwrap();
            let conditions = conditions(&Attribute::parse(attribute).unwrap(), &text);
            conditions.iter().map(ToString::to_string).collect::<String>()
        };
        let guid: Vec<u8> = (0..16).collect();
        let bytes = r"\00\01\02\03\04\05\06\07\08\09\0a\0b\0c\0d\0e\0f";
        assert_eq!(found("objectGUID", &guid), format!("(objectGUID={bytes})"));
        let sid = b"\x01\x02\0\0\0\0\0\x05\x20\0\0\0\x20\x02\0\0";
        let bytes = r"\01\02\00\00\00\00\00\05\20\00\00\00\20\02\00\00";
        assert_eq!(found("objectSid", sid), format!("(objectSid={bytes})"));
        assert_eq!(found("employeeKey", b"\xff\xfe"), r"(employeeKey=__4)(employeeKey=\ff\fe)");
        assert_eq!(found("uid", b"a*"), r"(uid=a\2a)");
        for text in ["", "alice", "S-1", "03020100-0504-0706-0809-0a0b0c0d0e0", "03020100"] {
            for attribute in ["objectGUID", "objectSid"] {
                let attribute = Attribute::parse(attribute).unwrap();
                assert!(conditions(&attribute, text).is_empty(), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let tag = |payload| StructureTag { class: TagClass::Universal, id: 4, payload };
        let bytes = |text: &[u8]| tag(PL::P(text.to_vec()));
        for payload in [
            PL::P(Vec::new()),
            PL::C(Vec::new()),
            PL::C(vec![bytes(b"uid=a"), bytes(b"")]),
            PL::C(vec![bytes(b"\xff"), tag(PL::C(Vec::new()))]),
            PL::C(vec![bytes(b"uid=a"), tag(PL::C(vec![tag(PL::C(vec![bytes(b"uid")]))]))]),
        ] {
            assert!(Entry::parse(tag(payload)).is_none());
        }
        let whole = PL::C(vec![bytes(b"uid=a"), tag(PL::C(Vec::new()))]);
        assert_eq!(Entry::parse(tag(whole)).unwrap().dn, "uid=a");
    }
}
