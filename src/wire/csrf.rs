//! Whether a request proves that one of our own pages made it. Who needs the
//! proof, and for which methods, is the gate's to say.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName, HeaderValue};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// What a request says about the page that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It comes from our own pages, or from a script that we let read answers.
    Given,
    /// It says nothing.
    Absent,
    /// It comes from elsewhere, or contradicts itself.
    Failed,
}

/// Reads the proof: `Origin`, `Sec-Fetch-Site`, `X-Requested-With`; the first one
/// present decides and is never outvoted. `host` is name and port as asked for;
/// `cors` are the exact further origins that may call.
#[must_use]
pub fn proof(headers: &HeaderMap, host: &str, cors: &[String]) -> Proof {
    let has_site = headers.contains_key(SEC_FETCH_SITE);
    if headers.contains_key(ORIGIN) {
        let origin = only(headers, &ORIGIN);
        // Browsers send `null` for reasons of privacy too; the other header then knows more.
        if !(origin == Some(b"null") && has_site) {
            return judged(origin.is_some_and(|origin| is_ours(origin, host, cors)));
        }
    }
    if has_site {
        return judged(matches!(only(headers, &SEC_FETCH_SITE), Some(b"same-origin" | b"none")));
    }
    if headers.contains_key(X_REQUESTED_WITH) {
        return judged(only(headers, &X_REQUESTED_WITH) == Some(b"XMLHttpRequest"));
    }
    Proof::Absent
}

const fn judged(holds: bool) -> Proof {
    if holds { Proof::Given } else { Proof::Failed }
}

/// The value of a field that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(HeaderValue::as_bytes);
    if values.next().is_some() { None } else { first }
}

fn is_ours(origin: &[u8], host: &str, cors: &[String]) -> bool {
    let same_host = origin.strip_prefix(b"https://").is_some_and(|authority| {
        let host = without_default_port(host.as_bytes());
        !host.is_empty() && without_default_port(authority).eq_ignore_ascii_case(host)
    });
    same_host || cors.iter().any(|allowed| allowed.as_bytes() == origin)
}

/// Browsers leave the default port out of `Origin`; other clients may write it in `Host`.
fn without_default_port(authority: &[u8]) -> &[u8] {
    authority.strip_suffix(b":443").unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::Proof::{self, Absent, Failed, Given};
    use super::proof;

    fn judge(fields: &[(&'static str, &'static str)]) -> Proof {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        proof(&headers, "a.example:8443", &["https://app.example".to_owned()])
    }

    const O: &str = "origin";
    const S: &str = "sec-fetch-site";
    const X: &str = "x-requested-with";

    #[test]
    fn each_header_alone_can_prove_or_fail() {
        for (fields, expected) in [
            (&[][..], Absent),
            (&[(O, "https://a.example:8443")], Given),
            (&[(O, "https://A.EXAMPLE:8443")], Given),
            (&[(O, "https://app.example")], Given),
            (&[(O, "https://a.example")], Failed),
            (&[(O, "http://a.example:8443")], Failed),
            (&[(O, "https://a.example:8443/")], Failed),
            (&[(O, "https://a.example:84430")], Failed),
            (&[(O, "https://app.example.evil.example")], Failed),
            (&[(O, "https://evil.example")], Failed),
            (&[(O, "")], Failed),
            (&[(O, "null")], Failed),
            (&[(S, "same-origin")], Given),
            (&[(S, "none")], Given),
            (&[(S, "same-site")], Failed),
            (&[(S, "cross-site")], Failed),
            (&[(S, "")], Failed),
            (&[(X, "XMLHttpRequest")], Given),
            (&[(X, "com.example.app")], Failed),
        ] {
            assert_eq!(judge(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn the_first_header_present_is_never_outvoted() {
        for (fields, expected) in [
            (&[(O, "https://evil.example"), (S, "same-origin"), (X, "XMLHttpRequest")][..], Failed),
            (&[(O, "https://a.example:8443"), (S, "cross-site")], Given),
            (&[(S, "cross-site"), (X, "XMLHttpRequest")], Failed),
            (&[(S, "same-origin"), (X, "no")], Given),
            (&[(O, "null"), (S, "same-origin")], Given),
            (&[(O, "null"), (S, "cross-site")], Failed),
            (&[(O, "null"), (X, "XMLHttpRequest")], Failed),
            (&[(O, "https://a.example:8443"), (O, "https://a.example:8443")], Failed),
            (&[(O, "null"), (O, "null"), (S, "same-origin")], Failed),
            (&[(S, "same-origin"), (S, "cross-site")], Failed),
        ] {
            assert_eq!(judge(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn the_default_port_may_be_written_or_not() {
        let mut headers = HeaderMap::new();
        headers.insert("origin", HeaderValue::from_static("https://a.example"));
        assert_eq!(proof(&headers, "a.example:443", &[]), Given);
        assert_eq!(proof(&headers, "a.example", &[]), Given);
        assert_eq!(proof(&headers, "", &[]), Failed);
        headers.insert("origin", HeaderValue::from_static("https://"));
        assert_eq!(proof(&headers, "", &[]), Failed);
    }
}
