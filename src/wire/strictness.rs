//! How strict a response is about what browsers may do, as browsers read it:
//! Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options,
//! Referrer-Policy, Permissions-Policy. Knows nothing of what is configured.

use http::header::{
    REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{FrameOptions, PermissionsPolicy, ReferrerPolicy};

/// Whether `Strict-Transport-Security` is in nothing laxer than `ours`: as long, for
/// as many names, as ready for the browsers' list.
#[must_use]
pub fn hsts(headers: &HeaderMap, ours: &HeaderValue) -> bool {
    let mut fields = headers.get_all(STRICT_TRANSPORT_SECURITY).iter();
    // Of several fields browsers read the first (RFC 6797 section 8.1).
    let (Some(theirs), None) = (fields.next(), fields.next()) else { return false };
    match (Hsts::parse(theirs), Hsts::parse(ours)) {
        (Some(theirs), Some(ours)) => {
            theirs.max_age >= ours.max_age
                && theirs.subdomains >= ours.subdomains
                && theirs.preload >= ours.preload
        }
        _ => false,
    }
}

/// Whether browsers are told not to guess types.
#[must_use]
pub fn is_nosniff(headers: &HeaderMap) -> bool {
    // The first of a list counts (Fetch standard, "determine nosniff").
    let first = members(headers, &X_CONTENT_TYPE_OPTIONS).into_iter().flatten().next();
    first.is_some_and(|value| value.eq_ignore_ascii_case("nosniff"))
}

/// What `X-Frame-Options` says; `None` when browsers would not heed it.
#[must_use]
pub fn frame_options(headers: &HeaderMap) -> Option<FrameOptions> {
    let mut values = members(headers, &X_FRAME_OPTIONS)?;
    for value in &mut values {
        value.make_ascii_lowercase();
    }
    values.sort_unstable();
    values.dedup();
    match values.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["sameorigin"] => Some(FrameOptions::SameOrigin),
        ["deny"] => Some(FrameOptions::Deny),
        [_] | [] => None,
        // Those that contradict each other deny (HTML standard, section 7.6).
        several => several
            .iter()
            .any(|value| ["deny", "sameorigin", "allowall"].contains(value))
            .then_some(FrameOptions::Deny),
    }
}

/// What `Referrer-Policy` says: the last one that is known counts.
#[must_use]
pub fn referrer_policy(headers: &HeaderMap) -> Option<ReferrerPolicy> {
    let values = members(headers, &REFERRER_POLICY)?;
    values.iter().rev().find_map(|value| {
        ReferrerPolicy::ALL.into_iter().find(|known| value.eq_ignore_ascii_case(known.as_str()))
    })
}

/// The policy of all fields of this name; `None` when browsers might not heed it.
#[must_use]
pub fn permissions_policy(headers: &HeaderMap, name: &HeaderName) -> Option<PermissionsPolicy> {
    PermissionsPolicy::parse(&members(headers, name)?.join(", "))
}

struct Hsts {
    max_age: u64,
    subdomains: bool,
    preload: bool,
}

impl Hsts {
    fn parse(value: &HeaderValue) -> Option<Self> {
        let mut parsed = (None, false, false);
        for directive in value.to_str().ok()?.split(';').map(str::trim) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                // Twice is malformed, and browsers ignore what is.
                "max-age" if parsed.0.is_some() => return None,
                "max-age" => parsed.0 = Some(value.trim().trim_matches('"').parse().ok()?),
                "includesubdomains" => parsed.1 = true,
                "preload" => parsed.2 = true,
                _ => {}
            }
        }
        let (max_age, subdomains, preload) = parsed;
        Some(Self { max_age: max_age?, subdomains, preload })
    }
}

/// All members of a header that is a list, over all its fields; `None` when it holds
/// what is no text.
fn members(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let mut members = Vec::new();
    for field in headers.get_all(name) {
        members.extend(field.to_str().ok()?.split(',').map(|member| member.trim().to_owned()));
    }
    Some(members)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{frame_options, hsts, is_nosniff, permissions_policy, referrer_policy};
    use crate::config::FrameOptions::{Deny, SameOrigin};
    use crate::config::ReferrerPolicy;

    fn fields(name: &'static str, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn hsts_is_as_strict_only_in_every_respect() {
        let ours = HeaderValue::from_static("max-age=1000; includeSubDomains");
        for (theirs, strict) in [
            (&["max-age=1000; includeSubDomains"][..], true),
            (&["Max-Age=\"2000\" ;INCLUDESUBDOMAINS; preload"], true),
            (&["max-age=999; includeSubDomains"], false),
            (&["max-age=0"], false),
            (&["max-age=99999"], false),
            (&["includeSubDomains"], false),
            (&["max-age=2000; max-age=0; includeSubDomains"], false),
            (&["max-age=soon; includeSubDomains"], false),
            (&["max-age=1000; includeSubDomains", "max-age=0"], false),
            (&[], false),
        ] {
            let headers = fields("strict-transport-security", theirs);
            assert_eq!(hsts(&headers, &ours), strict, "{theirs:?}");
        }
        let preload = HeaderValue::from_static("max-age=1; preload");
        assert!(!hsts(&fields("strict-transport-security", &["max-age=9"]), &preload));
    }

    #[test]
    fn the_first_word_on_guessing_counts() {
        for (values, expected) in [
            (&["nosniff"][..], true),
            (&["NoSniff"], true),
            (&["nosniff, x"], true),
            (&["x, nosniff"], false),
            (&["x", "nosniff"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(
                is_nosniff(&fields("x-content-type-options", values)),
                expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn frame_options_that_browsers_do_not_know_are_none() {
        for (values, expected) in [
            (&["DENY"][..], Some(Deny)),
            (&["deny"], Some(Deny)),
            (&["SAMEORIGIN"], Some(SameOrigin)),
            (&["SAMEORIGIN", "sameorigin"], Some(SameOrigin)),
            (&["DENY, SAMEORIGIN"], Some(Deny)),
            (&["SAMEORIGIN", "ALLOWALL"], Some(Deny)),
            (&["x, y"], None),
            (&["ALLOW-FROM https://a.example"], None),
            (&["ALLOWALL"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(frame_options(&fields("x-frame-options", values)), expected, "{values:?}");
        }
        assert!(Deny < SameOrigin);
    }

    #[test]
    fn the_last_known_referrer_policy_counts() {
        for (values, expected) in [
            (&["no-referrer"][..], Some("no-referrer")),
            (&["no-referrer, unsafe-url"], Some("unsafe-url")),
            (&["no-referrer, newer-policy"], Some("no-referrer")),
            (&["unsafe-url", "Same-Origin, "], Some("same-origin")),
            (&["newer-policy"], None),
            (&[""], None),
            (&[], None),
        ] {
            let found = referrer_policy(&fields("referrer-policy", values));
            assert_eq!(found.map(ReferrerPolicy::as_str), expected, "{values:?}");
        }
        assert!(ReferrerPolicy::ALL.is_sorted());
    }

    #[test]
    fn the_fields_of_a_permissions_policy_are_one_list() {
        let name = HeaderName::from_static("permissions-policy");
        let found = |values| permissions_policy(&fields("permissions-policy", values), &name);
        let both = found(&["camera=()", "usb=(self), payment=*"]).unwrap();
        assert_eq!(both.value(), "camera=(), usb=(self), payment=*");
        assert!(found(&["camera=()", "camera 'none'"]).is_none());
    }
}
