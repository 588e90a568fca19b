//! Names and values of headers, cookies and methods.

use std::collections::BTreeMap;

use figment::value::Value;
use http::Method;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Value as Json, json};

use super::{Fault, Kind, Raw, Text, describe};
use crate::config::assertion::is_foreign_typ;
use crate::config::{Deliver, Hsts, PermissionsPolicy};

/// What frames a message, or is the gateway's own to say: no configuration names it.
const OWN_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// Headers that frameworks take as another path or method; only these can be
/// let through by `upstream.allow_headers`.
const OVERRIDING_HEADERS: [&str; 7] = [
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "proxy",
];

/// A header that carries an identity.
pub(in crate::config) const fn header_name() -> Text<HeaderName> {
    Text {
        allowed: "a header's name, none that the gateway or HTTP itself uses",
        pattern: Some(NAME_PATTERN),
        parse: |text| {
            let name = parse_name(text)?;
            let own = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "authorization"];
            if own.contains(&name.as_str()) { Err(Fault::default()) } else { Ok(name) }
        },
        show: show_name,
    }
}

/// A header of the client's that is taken away.
pub(in crate::config) const fn upstream_header() -> Text<HeaderName> {
    Text {
        allowed: "a header's name, none that HTTP itself uses",
        pattern: Some(NAME_PATTERN),
        parse: parse_name,
        show: show_name,
    }
}

/// A header of the list of dangerous ones.
pub(in crate::config) const fn overriding_header() -> Text<HeaderName> {
    Text {
        allowed: "\"X-Original-URL\", \"X-Original-URI\", \"X-Rewrite-URL\", \
                  \"X-HTTP-Method-Override\", \"X-HTTP-Method\", \"X-Method-Override\", \"Proxy\"",
        pattern: None,
        parse: |text| {
            let name: HeaderName = text.parse().map_err(|_| Fault::default())?;
            let known = OVERRIDING_HEADERS.contains(&name.as_str());
            if known { Ok(name) } else { Err(Fault::default()) }
        },
        show: show_name,
    }
}

/// The name of a cookie (RFC 6265 section 4.1.1).
pub(in crate::config) const fn cookie_name() -> Text<String> {
    Text {
        allowed: "a cookie's name: letters, digits and !#$%&'*+-.^_`|~, more than a prefix",
        pattern: Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
        parse: |text| {
            let fits =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let prefix = ["__host-", "__secure-"].contains(&text.to_ascii_lowercase().as_str());
            let good = (1..=256).contains(&text.len()) && text.bytes().all(fits) && !prefix;
            if good { Ok(text.to_owned()) } else { Err(Fault::default()) }
        },
        show: String::clone,
    }
}

/// How an upstream gets its assertions.
pub(in crate::config) const fn deliver() -> Text<Deliver> {
    Text {
        allowed: "\"header:NAME\", \"cookie:NAME\" or \"bearer\"",
        pattern: Some("^(header:.+|cookie:.+|bearer)$"),
        parse: |text| match text.split_once(':') {
            Some(("header", name)) => (header_name().parse)(name).map(Deliver::Header),
            Some(("cookie", name)) => (cookie_name().parse)(name).map(Deliver::Cookie),
            None if text == "bearer" => Ok(Deliver::Bearer),
            _ => Err(Fault::default()),
        },
        show: |deliver| match deliver {
            Deliver::Header(name) => format!("header:{}", show_name(name)),
            Deliver::Cookie(name) => format!("cookie:{name}"),
            Deliver::Bearer => "bearer".to_owned(),
        },
    }
}

/// The `typ` of a token that is none of the gateway's own (RFC 7515 section 4.1.9).
pub(in crate::config) const fn token_type() -> Text<String> {
    Text {
        allowed: "a media type without \"application/\", such as \"JWT\", none of the gateway's \
                  other tokens",
        pattern: Some("^[A-Za-z0-9!#$&^_.+-]+$"),
        parse: |text| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
            let good = (1..=64).contains(&text.len()) && text.bytes().all(fits);
            if good && !is_foreign_typ(text) { Ok(text.to_owned()) } else { Err(Fault::default()) }
        },
        show: String::clone,
    }
}

/// The value of `Strict-Transport-Security`, or `off`.
pub(in crate::config) const fn hsts() -> Text<Option<Hsts>> {
    Text {
        allowed: "a value with max-age such as \"max-age=63072000; includeSubDomains\", or \"off\"",
        pattern: None,
        parse: |text| {
            if text == "off" {
                return Ok(None);
            }
            let seconds = text.split(';').filter_map(|part| {
                let (name, seconds) = part.trim().split_once('=')?;
                name.eq_ignore_ascii_case("max-age").then(|| seconds.trim_matches('"'))
            });
            let mut seconds = seconds.map(str::parse::<u64>);
            let value = HeaderValue::from_str(text).map_err(|_| Fault::default())?;
            match (seconds.next(), seconds.next()) {
                (Some(Ok(_)), None) => Ok(Some(Hsts(value))),
                _ => Err(Fault::default()),
            }
        },
        show: |value| match value {
            Some(Hsts(value)) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            None => "off".to_owned(),
        },
    }
}

/// The value of `Permissions-Policy`, or `off`.
pub(in crate::config) const fn permissions_policy() -> Text<Option<PermissionsPolicy>> {
    Text {
        allowed: "features such as \"camera=(), geolocation=(self)\", each once, or \"off\"",
        pattern: None,
        parse: |text| match PermissionsPolicy::parse(text) {
            Some(policy) => Ok(Some(policy)),
            None if text == "off" => Ok(None),
            None => Err(Fault::default()),
        },
        show: |policy| match policy {
            Some(policy) => String::from_utf8_lossy(policy.value().as_bytes()).into_owned(),
            None => "off".to_owned(),
        },
    }
}

/// A request method, compared exactly.
pub(in crate::config) const fn method() -> Text<String> {
    Text {
        allowed: "a method such as \"GET\", in capitals; not \"CONNECT\"",
        pattern: Some("^[A-Z0-9!#$%&'*+.^_`|~-]+$"),
        parse: |text| {
            let method: Method = text.parse().map_err(|_| Fault::default())?;
            let capitals = !text.bytes().any(|byte| byte.is_ascii_lowercase());
            let good = capitals && method != Method::CONNECT;
            if good { Ok(text.to_owned()) } else { Err(Fault::default()) }
        },
        show: String::clone,
    }
}

/// A table of headers and their values.
pub(in crate::config) struct HeaderMapKind;

impl Kind for HeaderMapKind {
    type Out = BTreeMap<String, HeaderValue>;

    fn allowed(&self) -> String {
        "a table of header names, none that HTTP itself uses, each with its value".to_owned()
    }

    fn schema(&self) -> Json {
        json!({
            "type": "object",
            "propertyNames": {"pattern": NAME_PATTERN},
            "additionalProperties": {"type": "string"},
        })
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Self::Out, Fault> {
        let parsed;
        let values = match raw.value {
            Value::Dict(_, values) => values,
            Value::String(_, text) if raw.from_environment => {
                let Ok(value) = text.parse::<Value>();
                parsed = value.into_dict().ok_or_else(Fault::default)?;
                &parsed
            }
            _ => return Err(Fault::default()),
        };
        let mut headers = BTreeMap::new();
        for (name, value) in values {
            let found = || format!("{name:?} = {}", describe(value));
            let name = parse_name(name).map_err(|fault| fault.found(found()))?;
            let text = value.as_str().and_then(|text| HeaderValue::from_str(text).ok());
            let text = text.ok_or_else(|| Fault::default().found(found()))?;
            if headers.insert(name.as_str().to_owned(), text).is_some() {
                return Err(Fault::default().found(format!("{:?} twice", name.as_str())));
            }
        }
        Ok(headers)
    }

    fn show(&self, value: &Self::Out) -> Json {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        json!(value.iter().map(|(name, value)| (name, text(value))).collect::<BTreeMap<_, _>>())
    }
}

const NAME_PATTERN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

fn parse_name(text: &str) -> Result<HeaderName, Fault> {
    let name: HeaderName = text.parse().map_err(|_| Fault::default())?;
    if OWN_HEADERS.contains(&name.as_str()) { Err(Fault::default()) } else { Ok(name) }
}

/// `x-auth-user` as people write it: `X-Auth-User`.
fn show_name(name: &HeaderName) -> String {
    let mut start = true;
    let letters = name.as_str().chars().map(|letter| {
        let shown = if start { letter.to_ascii_uppercase() } else { letter };
        start = letter == '-';
        shown
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::{
        HeaderMapKind, Value, cookie_name, deliver, header_name, hsts, method, overriding_header,
        token_type,
    };
    use crate::config::Deliver;
    use crate::config::kind::{Kind, Raw, read};

    #[test]
    fn a_header_that_http_needs_cannot_carry_an_identity() {
        assert_eq!(read(&header_name(), "X-Auth-User").unwrap(), "x-auth-user");
        for text in ["Host", "content-length", "Authorization", "X-Request-Id", "a b", "", "é"] {
            assert!(read(&header_name(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_dangerous_header_can_be_allowed() {
        assert!(read(&overriding_header(), "X-HTTP-Method-Override").is_ok());
        assert!(read(&overriding_header(), "X-Auth-User").is_err());
    }

    #[test]
    fn a_cookie_name_is_more_than_its_prefix() {
        assert!(read(&cookie_name(), "__Host-bindgate-token").is_ok());
        for text in ["__Host-", "__secure-", "", "a b", "a=b", "a;b", "\"a\""] {
            assert!(read(&cookie_name(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_assertion_comes_in_a_header_a_cookie_or_as_bearer() {
        let name = "x-assertion".parse().unwrap();
        assert_eq!(read(&deliver(), "header:X-Assertion").unwrap(), Deliver::Header(name));
        let cookie = Deliver::Cookie("access_token".to_owned());
        assert_eq!(read(&deliver(), "cookie:access_token").unwrap(), cookie);
        assert_eq!(read(&deliver(), "bearer").unwrap(), Deliver::Bearer);
        for text in ["header:Authorization", "header:Cookie", "header:", "cookie:a b", "Bearer", ""]
        {
            assert!(read(&deliver(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_assertion_passes_for_a_session_token() {
        for text in ["JWT", "at+jwt", "bindgate-assertion+jwt", "Bindgate-Assertion+JWT"] {
            assert!(read(&token_type(), text).is_ok(), "{text}");
        }
        for text in ["bindgate-session+jwt", "BINDGATE-Session+jwt", "bindgate-mfa+jwt", "", "a b"]
        {
            assert!(read(&token_type(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn hsts_needs_one_age_or_off() {
        assert!(read(&hsts(), "off").unwrap().is_none());
        assert!(read(&hsts(), "max-age=63072000; includeSubDomains; preload").unwrap().is_some());
        for text in
            ["", "on", "includeSubDomains", "max-age=soon", "max-age=1; max-age=2", "max-age=1\n"]
        {
            assert!(read(&hsts(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_method_in_small_letters_would_never_match() {
        assert!(read(&method(), "PROPFIND").is_ok());
        for text in ["get", "Get", "", "A B", "CONNECT"] {
            assert!(read(&method(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn header_tables_are_read_from_the_environment_too() {
        let value = Value::from("{X-Requested-With=XMLHttpRequest}");
        let raw = Raw { value: &value, from_environment: true };
        assert_eq!(HeaderMapKind.parse(&raw).unwrap()["x-requested-with"], "XMLHttpRequest");
        let value = Value::from(figment::value::Dict::from([("Host".into(), "a".into())]));
        assert!(HeaderMapKind.parse(&Raw { value: &value, from_environment: false }).is_err());
    }
}
