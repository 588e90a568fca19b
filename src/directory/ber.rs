//! The outermost layer of BER, checked before any library sees it: a message's
//! length, its nesting, its envelope. Knows nothing of what messages mean.
//!
//! The library behind this recurses without limit, so that 100,000 nested
//! sequences would end the whole process, and panics on `30 00`.

/// Longest message, in bytes with its header; honest answers to our questions are far shorter.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting, the message itself being the first level.
const DEPTH_MAX: usize = 32;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const CONSTRUCTED: u8 = 0x20;
const CONTROLS: u8 = 0xa0;
/// Where Active Directory wrongly puts the name of its notice of disconnection.
const MISPLACED_NAME: u8 = 0x8a;

/// Why bytes are no message that an honest directory sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a message longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    #[error("a message nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("a message that is no LDAPMessage")]
    Envelope,
    #[error("a length that is indefinite, oversized, or over its parent's end")]
    Length,
    #[error("a tag of several bytes, which LDAP never uses")]
    Tag,
}

/// One element: its tag byte and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
}

struct Header {
    tag: u8,
    bytes: usize,
    content_bytes: usize,
}

/// The length of the message at the start of `bytes`, once it is there whole and
/// checked down to its last element; `None` while more bytes must come.
pub(super) fn message(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    if bytes.first().is_some_and(|tag| *tag != SEQUENCE) {
        return Err(Malformed::Envelope);
    }
    let Some(header) = header(bytes)? else { return Ok(None) };
    let total = header.bytes.saturating_add(header.content_bytes);
    if total > MESSAGE_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let Some(content) = bytes.get(header.bytes..total) else { return Ok(None) };
    check_nesting(content)?;
    check_envelope(content)?;
    Ok(Some(total))
}

/// The first element of `bytes`, and what follows it; `None` when there is no whole one.
pub(super) fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let header = header(bytes).ok()??;
    let end = header.bytes.checked_add(header.content_bytes)?;
    let content = bytes.get(header.bytes..end)?;
    Some((Element { tag: header.tag, content }, bytes.get(end..)?))
}

/// All elements of `content`; `None` when it does not consist of whole ones.
pub(super) fn elements(mut content: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    while !content.is_empty() {
        let (element, rest) = element(content)?;
        elements.push(element);
        content = rest;
    }
    Some(elements)
}

fn header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let [tag, first, rest @ ..] = bytes else { return Ok(None) };
    if tag & 0x1f == 0x1f {
        return Err(Malformed::Tag);
    }
    if *first < 0x80 {
        return Ok(Some(Header { tag: *tag, bytes: 2, content_bytes: usize::from(*first) }));
    }
    let length_bytes = usize::from(first & 0x7f);
    if !(1..=4).contains(&length_bytes) {
        return Err(Malformed::Length);
    }
    let Some(length) = rest.get(..length_bytes) else { return Ok(None) };
    let content_bytes = length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
    Ok(Some(Header { tag: *tag, bytes: 2 + length_bytes, content_bytes }))
}

/// Walks all elements without recursion; every one must lie within its parent.
fn check_nesting(content: &[u8]) -> Result<(), Malformed> {
    let mut ends = vec![content.len()];
    let mut position = 0;
    while let Some(&end) = ends.last() {
        if position == end {
            ends.pop();
            continue;
        }
        let within = content.get(position..end).ok_or(Malformed::Length)?;
        let header = header(within)?.ok_or(Malformed::Length)?;
        if header.content_bytes > within.len() - header.bytes {
            return Err(Malformed::Length);
        }
        position += header.bytes;
        if header.tag & CONSTRUCTED == 0 {
            position += header.content_bytes;
        } else if ends.len() < DEPTH_MAX {
            ends.push(position + header.content_bytes);
        } else {
            return Err(Malformed::TooDeep);
        }
    }
    Ok(())
}

/// `LDAPMessage`: an id, an operation, at most controls (RFC 4511 section 4.1.1).
fn check_envelope(content: &[u8]) -> Result<(), Malformed> {
    let elements = elements(content).ok_or(Malformed::Envelope)?;
    let (id, operation, more) = match elements.as_slice() {
        [id, operation] => (id, operation, None),
        [id, operation, more] => (id, operation, Some(more)),
        _ => return Err(Malformed::Envelope),
    };
    let id_fits = id.tag == INTEGER && (1..=4).contains(&id.content.len());
    let operation_fits = operation.tag & 0xc0 == 0x40;
    let more_fits = more.is_none_or(|more| matches!(more.tag, CONTROLS | MISPLACED_NAME));
    if id_fits && operation_fits && more_fits { Ok(()) } else { Err(Malformed::Envelope) }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{MESSAGE_BYTES_MAX, Malformed, element, elements, message};

    /// A bind response with result 49 and a ppolicy control.
    const HONEST: &[u8] =
        b"\x30\x35\x02\x01\x01\x61\x07\x0a\x01\x31\x04\x00\x04\x00\xa0\x27\x30\x25\
        \x04\x19\x31.3.6.1.4.1.42.2.27.8.5.1\x04\x08\x30\x06\x80\x01\x00\x81\x01\x01";

    fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x84], length.as_slice(), content].concat()
    }

    fn answer(operation: &[u8]) -> Vec<u8> {
        wrapped(0x30, &[&[2, 1, 1], operation].concat())
    }

    #[test]
    fn an_honest_message_is_measured_and_waited_for() {
        assert_eq!(message(HONEST), Ok(Some(HONEST.len())));
        assert_eq!(message(&[HONEST, b"0"].concat()), Ok(Some(HONEST.len())));
        for cut in 0..HONEST.len() {
            assert_eq!(message(&HONEST[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn nesting_is_allowed_to_its_bound_and_no_deeper() {
        let nested = |levels: usize| {
            let inside = (0..levels).fold(Vec::new(), |inside, _| wrapped(0x30, &inside));
            answer(&wrapped(0x64, &inside))
        };
        assert!(matches!(message(&nested(30)), Ok(Some(_))));
        assert_eq!(message(&nested(31)), Err(Malformed::TooDeep));
        // What would end the process in a parser that recurses.
        let header = |inside: u32| [[0x30, 0x84].as_slice(), &(inside * 6).to_be_bytes()].concat();
        let hostile: Vec<u8> = (0..100_000).rev().flat_map(header).collect();
        assert_eq!(message(&answer(&wrapped(0x64, &hostile))), Err(Malformed::TooDeep));
    }

    #[test]
    fn what_no_directory_sends_is_refused_as_soon_as_it_shows() {
        for (bytes, why) in [
            (b"\x30\x00".as_slice(), Malformed::Envelope),
            (b"\x30\x80", Malformed::Length),
            (b"\x30\x88\0\0\0\0\0\0\0\x01", Malformed::Length),
            (b"\x30\x84\xff\xff\xff\xff", Malformed::TooLong),
            (b"\x04\x01a", Malformed::Envelope),
            (b"\xff\xff\xff", Malformed::Envelope),
            (b"\x30\x03\x02\x01\x01", Malformed::Envelope),
            (b"\x30\x05\x04\x01\x01\x61\x00", Malformed::Envelope),
            (b"\x30\x05\x02\x01\x01\x30\x00", Malformed::Envelope),
            (b"\x30\x04\x02\x00\x61\x00", Malformed::Envelope),
            (b"\x30\x05\x02\x01\x01\x61\x05", Malformed::Length),
            (b"\x30\x07\x02\x01\x01\x61\x02\x30\x80", Malformed::Length),
            (b"\x30\x07\x02\x01\x01\x61\x02\x1f\x00", Malformed::Tag),
        ] {
            assert_eq!(message(bytes), Err(why), "{bytes:02x?}");
        }
        let long = answer(&wrapped(0x61, &vec![4; MESSAGE_BYTES_MAX]));
        assert_eq!(message(&long[..6]), Err(Malformed::TooLong));
    }

    proptest! {
        #[test]
        fn nothing_from_the_wire_panics(bytes in vec(any::<u8>(), 0..300), depth in 0_usize..80) {
            let wrapped = (0..depth).fold(bytes.clone(), |inside, _| wrapped(0x30, &inside));
            for bytes in [bytes.as_slice(), wrapped.as_slice(), answer(&bytes).as_slice()] {
                if let Ok(Some(length)) = message(bytes) {
                    prop_assert!(length <= bytes.len());
                }
                let _ = (element(bytes), elements(bytes));
            }
        }

        #[test]
        fn what_passes_is_parsed_whole_by_the_library(bytes in vec(any::<u8>(), 0..60)) {
            let bytes = answer(&wrapped(0x61, &bytes));
            if let Ok(Some(length)) = message(&bytes) {
                let parsed = ldap3::asn1::parse_tag(&bytes[..length]);
                prop_assert!(parsed.is_ok_and(|(rest, _)| rest.is_empty()));
            }
        }
    }
}
