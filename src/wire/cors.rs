//! Calls from pages of other origins (Fetch standard, "CORS protocol"): who asks,
//! and what is answered. Knows neither paths nor users.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The most bytes of header names that a preflight may ask for.
const REQUEST_HEADERS_BYTES_MAX: usize = 1024;
/// For how long browsers remember a preflight: ten minutes, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const TRUE: HeaderValue = HeaderValue::from_static("true");
/// What a page may read of our own answers, besides the body.
const EXPOSED: HeaderValue = HeaderValue::from_static("Retry-After, X-Request-Id");
const PREFIX: &str = "access-control-";

/// The origin that a request comes from, if it is exactly one of these.
#[must_use]
pub fn allowed(headers: &HeaderMap, origins: &[String]) -> Option<HeaderValue> {
    let origin = only(headers, &ORIGIN)?;
    let is_listed = origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
    is_listed.then(|| origin.clone())
}

/// The method that a preflight asks about; `None` when this is no preflight.
#[must_use]
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    let asked = only(headers, &ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

/// Grants a preflight: these methods, and the headers that it asks for.
pub fn grant(asked: &HeaderMap, methods: HeaderValue, answer: &mut HeaderMap) {
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(names) = requested_headers(asked) {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
}

/// Removes what an upstream says of other origins: where the gateway knows which
/// ones may call, nobody else says so.
pub fn strip(headers: &mut HeaderMap) {
    let is_of_cors = |name: &&HeaderName| name.as_str().starts_with(PREFIX);
    let names: Vec<HeaderName> = headers.keys().filter(is_of_cors).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Says on an answer who may read it: `origin`, one that may call, or nobody. The
/// answer is in either case another one for another origin.
pub fn state(origin: Option<HeaderValue>, answer: &mut HeaderMap) {
    if let Some(origin) = origin {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    let told = |value: &HeaderValue| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(ORIGIN.as_str().as_bytes()))
    };
    if !answer.get_all(VARY).iter().any(told) {
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// The names that a preflight asks for, if they are names and not too many.
fn requested_headers(asked: &HeaderMap) -> Option<HeaderValue> {
    let value = only(asked, &ACCESS_CONTROL_REQUEST_HEADERS)?;
    let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let good = value.len() <= REQUEST_HEADERS_BYTES_MAX
        && names.all(|name| HeaderName::from_bytes(name).is_ok());
    good.then(|| value.clone())
}

/// The value of a field that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

#[cfg(test)]
mod tests {
    use http::header::VARY;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::{allowed, grant, preflight, state, strip};

    const APP: &str = "https://app.example";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    #[test]
    fn only_one_exact_origin_is_allowed() {
        let origins = [APP.to_owned(), "http://localhost:3000".to_owned()];
        assert_eq!(allowed(&headers(&[("origin", APP)]), &origins).unwrap(), APP);
        for fields in [
            &[][..],
            &[("origin", "https://app.example:443")],
            &[("origin", "https://APP.example")],
            &[("origin", "https://app.example.evil.example")],
            &[("origin", "https://app.example/")],
            &[("origin", "http://app.example")],
            &[("origin", "null")],
            &[("origin", "*")],
            &[("origin", "")],
            &[("origin", APP), ("origin", APP)],
        ] {
            assert_eq!(allowed(&headers(fields), &origins), None, "{fields:?}");
        }
        assert_eq!(allowed(&headers(&[("origin", APP)]), &[]), None);
    }

    #[test]
    fn a_preflight_names_its_method() {
        let both = headers(&[("origin", APP), ("access-control-request-method", "PUT")]);
        assert_eq!(preflight(&Method::OPTIONS, &both), Some(Method::PUT));
        assert_eq!(preflight(&Method::GET, &both), None);
        for fields in [
            &[("origin", APP)][..],
            &[("access-control-request-method", "PUT")],
            &[("origin", APP), ("access-control-request-method", "P T")],
        ] {
            assert_eq!(preflight(&Method::OPTIONS, &headers(fields)), None, "{fields:?}");
        }
    }

    #[test]
    fn only_names_of_headers_are_granted() {
        let grant_of = |asked: &str| {
            let mut answer = HeaderMap::new();
            let asked = headers(&[("access-control-request-headers", asked)]);
            grant(&asked, HeaderValue::from_static("PUT"), &mut answer);
            assert_eq!(answer["access-control-allow-methods"], "PUT");
            let granted = answer.get("access-control-allow-headers");
            granted.map(|value| value.to_str().unwrap().to_owned())
        };
        let plain = "content-type, x-requested-with";
        assert_eq!(grant_of(plain).as_deref(), Some(plain));
        for asked in ["", "a b", "a,,b", "a\tb", "x:y", &"a".repeat(1025)] {
            assert_eq!(grant_of(asked), None, "{asked}");
        }
    }

    #[test]
    fn an_upstream_cannot_let_anybody_in() {
        let mut answer = headers(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-origin", "https://evil.example"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-private-network", "true"),
            ("vary", "Accept"),
        ]);
        strip(&mut answer);
        state(None, &mut answer);
        assert!(answer.keys().all(|name| name == VARY), "{answer:?}");
        assert_eq!(answer.get_all(VARY).iter().collect::<Vec<_>>(), ["Accept", "Origin"]);
    }

    #[test]
    fn the_origin_is_stated_and_varied_on_once() {
        for vary in ["Accept, origin", "*"] {
            let mut answer = headers(&[("vary", vary)]);
            state(Some(HeaderValue::from_static(APP)), &mut answer);
            assert_eq!(answer.get_all(VARY).iter().count(), 1, "{vary}");
            assert_eq!(answer["access-control-allow-origin"], APP);
            assert_eq!(answer["access-control-allow-credentials"], "true");
        }
    }
}
