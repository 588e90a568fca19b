//! Cookies of a request and of a response: finding ours, removing ours and
//! leaving all others byte for byte as they came. Knows no values' meaning.

use std::time::Duration;

use http::header::{COOKIE, InvalidHeaderValue, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::config::SameSite;

/// What a request presents under one cookie name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// No such cookie.
    None,
    /// Exactly one: its value as sent.
    One(&'a [u8]),
    /// More than one, or an odd spelling of the name: nothing to rely on.
    Several,
}

/// Looks a cookie up in all `Cookie` fields; HTTP/2 may send one field a cookie.
/// A name in quotes, in other case or with escapes counts as ours, never as a
/// proof: whoever sends it, no browser of ours does.
#[must_use]
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Found<'a> {
    let mut found = Found::None;
    for value in headers.get_all(COOKIE) {
        for pair in value.as_bytes().split(|byte| *byte == b';') {
            if !is_spelling_of(name_in(pair), name) {
                continue;
            }
            found = match (found, exact_value(pair, name)) {
                (Found::None, Some(value)) => Found::One(value),
                _ => Found::Several,
            };
        }
    }
    found
}

/// All values under a name in any spelling, in quotes or not: whatever somebody
/// who read the request could make of it. Nothing to rely on.
pub fn all_values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let fields = headers.get_all(COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| matches!(byte, b';' | b',')));
    pairs.filter(|pair| is_spelling_of(name_in(pair), name)).map(|pair| {
        let value = pair.get(name_in(pair).len() + 1..).unwrap_or_default().trim_ascii();
        let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        inner.unwrap_or(value)
    })
}

/// Removes the cookies of these names in any spelling; all others stay byte for
/// byte. Several `Cookie` fields become one, joined by `; ` (RFC 9113 section 8.2.3).
pub fn remove(headers: &mut HeaderMap, names: &[&str]) {
    let mut fields = headers.get_all(COOKIE).iter();
    let Some(first) = fields.next() else { return };
    let is_alone = fields.next().is_none();
    if is_alone && !first.as_bytes().split(|byte| *byte == b';').any(|pair| holds(pair, names)) {
        return;
    }
    let mut kept = Vec::with_capacity(first.len());
    for field in headers.get_all(COOKIE) {
        append_kept(&mut kept, field.as_bytes(), names);
    }
    // What is left of a valid value by cutting at `;` is a valid value.
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(kept)) {
        Ok(mut value) if !value.as_bytes().trim_ascii().is_empty() => {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
        _ => {
            headers.remove(COOKIE);
        }
    }
}

/// Drops every `Set-Cookie` of a response for one of these names, in any spelling.
pub fn remove_set_cookies(headers: &mut HeaderMap, names: &[&str]) {
    let is_ours = |value: &HeaderValue| {
        let pair = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        names.iter().any(|name| is_spelling_of(name_in(pair), name))
    };
    if !headers.get_all(SET_COOKIE).iter().any(is_ours) {
        return;
    }
    let all: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for value in all.into_iter().filter(|value| !is_ours(value)) {
        headers.append(SET_COOKIE, value);
    }
}

/// A `Set-Cookie` value for the whole origin, out of scripts' reach, over TLS
/// only; for the browser's session unless `max_age` says longer.
///
/// # Errors
/// When name or value cannot stand in a header.
pub fn set_cookie(
    name: &str,
    value: &str,
    same_site: SameSite,
    max_age: Option<Duration>,
) -> Result<HeaderValue, InvalidHeaderValue> {
    let same_site = same_site.as_str();
    let mut text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={same_site}");
    if let Some(max_age) = max_age {
        text.push_str("; Max-Age=");
        text.push_str(&max_age.as_secs().to_string());
    }
    let mut value = HeaderValue::try_from(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A `Set-Cookie` value that makes the browser forget the cookie.
///
/// # Errors
/// When the name cannot stand in a header.
pub fn clear_cookie(name: &str, same_site: SameSite) -> Result<HeaderValue, InvalidHeaderValue> {
    set_cookie(name, "", same_site, Some(Duration::ZERO))
}

fn append_kept(kept: &mut Vec<u8>, field: &[u8], names: &[&str]) {
    let mut starts_field = true;
    for pair in field.split(|byte| *byte == b';').filter(|pair| !holds(pair, names)) {
        if !starts_field {
            kept.push(b';');
            kept.extend_from_slice(pair);
            continue;
        }
        starts_field = false;
        // The first of a field has lost the separator before it, and its space with it.
        let pair = pair.trim_ascii_start();
        if !kept.is_empty() && !pair.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        kept.extend_from_slice(pair);
    }
}

/// Whether a pair is, or for servers that also split at commas or spaces
/// contains, a cookie of one of these names.
fn holds(pair: &[u8], names: &[&str]) -> bool {
    let is_ours = |part: &[u8]| names.iter().any(|name| is_spelling_of(name_in(part), name));
    is_ours(pair) || pair.split(|byte| matches!(byte, b',' | b' ' | b'\t')).any(is_ours)
}

fn name_in(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default()
}

fn exact_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Whether some server could read `sent` as `name`: without case, spaces and
/// quotes, with escapes decoded.
fn is_spelling_of(sent: &[u8], name: &str) -> bool {
    readings(sent).eq(readings(name.as_bytes()))
}

fn readings(name: &[u8]) -> impl Iterator<Item = u8> {
    percent_encoding::percent_decode(name)
        .filter(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\''))
        .map(|byte| byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{COOKIE, SET_COOKIE};
    use http::{HeaderMap, HeaderValue};
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::{Found, all_values, clear_cookie, find, remove, remove_set_cookies, set_cookie};
    use crate::config::SameSite;

    const TOKEN: &str = "__Host-bindgate-token";
    const CONTEXT: &str = "__Host-bindgate-context";
    const OURS: [&str; 2] = [TOKEN, CONTEXT];

    fn cookies(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        headers
    }

    fn left(fields: &[&str]) -> Option<String> {
        let mut headers = cookies(fields);
        remove(&mut headers, &OURS);
        assert!(headers.get_all(COOKIE).iter().count() <= 1);
        headers.get(COOKIE).map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn every_value_that_somebody_could_read_is_found() {
        let headers = cookies(&[
            "a=1; __Host-bindgate-token=v=1;b=2",
            "__host-bindgate-token=\"w\" , __Host-bindgate-token",
            "__Host-bindgate-tokens=x",
        ]);
        let values: Vec<_> = all_values(&headers, TOKEN).collect();
        assert_eq!(values, [b"v=1".as_slice(), b"w", b""]);
    }

    #[test]
    fn a_cookie_is_found_once_in_whatever_field() {
        let one = Found::One(b"v=1");
        assert_eq!(find(&cookies(&["a=1; __Host-bindgate-token=v=1;b=2"]), TOKEN), one);
        assert_eq!(find(&cookies(&["a=1", "__Host-bindgate-token=v=1", "b"]), TOKEN), one);
        assert_eq!(find(&cookies(&["__Host-bindgate-token="]), TOKEN), Found::One(b""));
        assert_eq!(find(&cookies(&["a=__Host-bindgate-token=1", ""]), TOKEN), Found::None);
        assert_eq!(find(&cookies(&["__Host-bindgate-token2=1"]), TOKEN), Found::None);
        assert_eq!(find(&HeaderMap::new(), TOKEN), Found::None);
    }

    #[test]
    fn a_doubled_or_oddly_spelled_cookie_proves_nothing() {
        for fields in [
            &["__Host-bindgate-token=1; __Host-bindgate-token=1"][..],
            &["__Host-bindgate-token=1", "__Host-bindgate-token=2"],
            &["__Host-bindgate-token=1; __host-bindgate-token=2"],
            &["\"__Host-bindgate-token\"=1"],
            &["%5f%5FHost-bindgate-token=1"],
            &["__Host-bindgate-token =1"],
            &["__Host-bindgate-token"],
        ] {
            assert_eq!(find(&cookies(fields), TOKEN), Found::Several, "{fields:?}");
        }
    }

    #[test]
    fn ours_go_and_others_stay_byte_for_byte() {
        for (sent, rest) in [
            ("a=1; b=2", Some("a=1; b=2")),
            ("a=1;b=\"x y\" ; c", Some("a=1;b=\"x y\" ; c")),
            ("a=1; __Host-bindgate-token=x; b=2", Some("a=1; b=2")),
            ("__Host-bindgate-token=x;b=2", Some("b=2")),
            ("a=1; __Host-bindgate-token=x", Some("a=1")),
            ("__Host-bindgate-token=x; __Host-bindgate-context=y", None),
            ("__Host-bindgate-token=x;", None),
            ("__HOST-bindgate-token=x; a=1", Some("a=1")),
            ("%5f_Host-bindgate-token=x; a=1", Some("a=1")),
            ("a=1, __Host-bindgate-token=x; b=2", Some("b=2")),
            ("a=1 __Host-bindgate-token=x", None),
            ("a=\"x; __Host-bindgate-token=x\"; b=2", Some("a=\"x; b=2")),
        ] {
            assert_eq!(left(&[sent]).as_deref(), rest, "{sent}");
        }
    }

    #[test]
    fn several_fields_become_one() {
        assert_eq!(left(&["a=1", "b=2; c=3"]).as_deref(), Some("a=1; b=2; c=3"));
        assert_eq!(left(&["a=1", "__Host-bindgate-token=x", "c=3"]).as_deref(), Some("a=1; c=3"));
        assert_eq!(left(&["__Host-bindgate-token=x", "__Host-bindgate-context=y"]), None);
    }

    #[test]
    fn the_upstream_cannot_set_our_cookies() {
        let mut headers = HeaderMap::new();
        for value in
            ["a=1; Path=/", "__Host-bindgate-token=evil; Path=/", "__HOST-BINDGATE-CONTEXT=", "b=2"]
        {
            headers.append(SET_COOKIE, HeaderValue::from_static(value));
        }
        remove_set_cookies(&mut headers, &OURS);
        assert_eq!(headers.get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1; Path=/", "b=2"]);
    }

    #[test]
    fn a_cookie_is_set_for_the_session_and_out_of_scripts_reach() {
        assert_eq!(
            set_cookie(TOKEN, "v", SameSite::Strict, None).unwrap(),
            "__Host-bindgate-token=v; Path=/; Secure; HttpOnly; SameSite=Strict"
        );
        let device = set_cookie("d", "v", SameSite::Lax, Some(Duration::from_mins(1))).unwrap();
        assert_eq!(device, "d=v; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60");
        assert!(device.is_sensitive());
        assert_eq!(
            clear_cookie("d", SameSite::None).unwrap(),
            "d=; Path=/; Secure; HttpOnly; SameSite=None; Max-Age=0"
        );
        assert!(set_cookie("d", "a\nb", SameSite::Lax, None).is_err());
    }

    fn pair() -> impl Strategy<Value = (bool, String)> {
        prop_oneof![
            "[a-z]{1,5}=[!-+/-:<-~]{0,6}".prop_map(|other| (false, other)),
            (Just(TOKEN), any::<bool>(), "[a-z0-9.=]{0,6}").prop_map(|(name, upper, value)| {
                (
                    true,
                    format!(
                        "{}={value}",
                        if upper { name.to_uppercase() } else { name.to_owned() }
                    ),
                )
            }),
        ]
    }

    proptest! {
        #[test]
        fn cookies_of_others_stay_byte_for_byte(fields in vec(vec(pair(), 1..5), 0..4)) {
            let joined = |keep_ours: bool, pairs: &[(bool, String)]| {
                let kept = pairs.iter().filter(|(ours, _)| keep_ours || !ours);
                kept.map(|(_, pair)| pair.as_str()).collect::<Vec<_>>().join("; ")
            };
            let sent: Vec<String> = fields.iter().map(|field| joined(true, field)).collect();
            let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
            let others = joined(false, &fields.concat());
            assert_eq!(left(&sent).unwrap_or_default(), others);
        }

        #[test]
        fn no_cookie_makes_the_parser_panic(bytes in vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(COOKIE, value);
                let _ = find(&headers, TOKEN);
                remove(&mut headers, &OURS);
                assert_eq!(find(&headers, TOKEN), Found::None);
            }
        }
    }
}
