//! The host that a request asks for, exactly one. It chooses the route and is
//! forwarded as sent. Knows no routes and no TLS.

use std::net::Ipv6Addr;

use http::header::{HOST, InvalidHeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Version};

/// The one host of a request.
#[derive(Clone, Debug)]
pub struct Host {
    sent: Sent,
    /// The name in lower case, when it was not sent so.
    lowered: Option<Box<str>>,
}

/// Where the host stood; cloning either copies no text.
#[derive(Clone, Debug)]
enum Sent {
    Field(HeaderValue),
    Authority(Authority),
}

impl Host {
    /// The host of a request: the one `Host` field, or on HTTP/2 `:authority`
    /// when there is none. An absolute-form or `:authority` beside it must agree.
    ///
    /// # Errors
    /// One sentence for the client when there is not exactly one host.
    pub fn of(parts: &Parts) -> Result<Self, &'static str> {
        let mut fields = parts.headers.get_all(HOST).iter();
        let sent = match (fields.next(), parts.uri.authority()) {
            (Some(field), in_target) => {
                let agrees = |target: &Authority| {
                    target.as_str().as_bytes().eq_ignore_ascii_case(field.as_bytes())
                };
                if !in_target.is_none_or(agrees) {
                    return Err("The request names two different hosts.");
                }
                Sent::Field(field.clone())
            }
            (None, Some(authority)) if parts.version == Version::HTTP_2 => {
                Sent::Authority(authority.clone())
            }
            (None, _) => return Err("The request has no Host."),
        };
        if fields.next().is_some() {
            return Err("The request has more than one Host.");
        }
        Self::judged(sent)
    }

    /// The host that another proxy names on behalf of its client.
    ///
    /// # Errors
    /// One sentence for the client when it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let value = HeaderValue::from_str(text).map_err(|_| "The Host is malformed.")?;
        Self::judged(Sent::Field(value))
    }

    fn judged(sent: Sent) -> Result<Self, &'static str> {
        let name = name_of(sent.as_str()).ok_or("The Host is malformed.")?;
        let has_capitals = name.bytes().any(|byte| byte.is_ascii_uppercase());
        let lowered = has_capitals.then(|| name.to_ascii_lowercase().into());
        Ok(Self { sent, lowered })
    }

    /// The name in lower case, without port and brackets: what routes are found by.
    #[must_use]
    pub fn name(&self) -> &str {
        self.lowered.as_deref().unwrap_or_else(|| name_of(self.authority()).unwrap_or_default())
    }

    /// Name and port as a header's value.
    ///
    /// # Errors
    /// When an `:authority` cannot stand in a header; a parsed one can.
    pub fn value(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        match &self.sent {
            Sent::Field(value) => Ok(value.clone()),
            Sent::Authority(authority) => HeaderValue::from_str(authority.as_str()),
        }
    }

    /// Name and port as sent: what is forwarded.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.sent.as_str()
    }
}

impl Sent {
    /// The text; empty, which no host is, when it is not text.
    fn as_str(&self) -> &str {
        match self {
            Self::Field(value) => value.to_str().unwrap_or_default(),
            Self::Authority(authority) => authority.as_str(),
        }
    }
}

/// The name in an authority, without port and brackets, in its own case; `None`
/// unless it is a host name, an IPv4 address or a bracketed IPv6 address, with
/// or without a port.
#[must_use]
pub fn name_of(authority: &str) -> Option<&str> {
    let (name, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (name, port) = rest.split_once(']')?;
        name.parse::<Ipv6Addr>().ok()?;
        (name, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        let (name, port) = match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return None;
        }
        (name, port)
    };
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    port.is_none_or(is_port).then_some(name)
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};
    use proptest::prelude::proptest;

    use super::{Host, name_of};

    fn host(
        version: Version,
        uri: &str,
        fields: &[&[u8]],
    ) -> Result<(String, String), &'static str> {
        let mut request = Request::builder().version(version).uri(uri);
        for field in fields {
            request = request.header("host", *field);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Host::of(&parts).map(|host| (host.name().to_owned(), host.authority().to_owned()))
    }

    #[test]
    fn a_host_is_compared_without_case_and_port_and_forwarded_as_sent() {
        for (sent, name) in [
            ("example.org", "example.org"),
            ("Example.ORG:8443", "example.org"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8443", "::1"),
            ("[::1]", "::1"),
            ("a_b.example", "a_b.example"),
        ] {
            let found = host(Version::HTTP_11, "/", &[sent.as_bytes()]).unwrap();
            assert_eq!(found, (name.to_owned(), sent.to_owned()));
        }
    }

    #[test]
    fn none_or_two_hosts_are_refused() {
        assert!(host(Version::HTTP_11, "/", &[]).is_err());
        assert!(host(Version::HTTP_11, "https://a.example/", &[]).is_err());
        assert!(host(Version::HTTP_2, "/", &[]).is_err());
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert!(host(version, "/", &[b"a.example", b"a.example"]).is_err());
            assert!(host(version, "/", &[b"a.example", b"b.example"]).is_err());
        }
    }

    #[test]
    fn a_target_that_names_another_host_is_refused() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert!(host(version, "https://a.example/", &[b"A.example"]).is_ok());
            for other in [&b"b.example"[..], b"a.example:444", b"a.example.", b"user@a.example"] {
                assert!(host(version, "https://a.example/", &[other]).is_err());
            }
        }
        assert!(host(Version::HTTP_2, "https://a.example/", &[]).is_ok());
        assert!(host(Version::HTTP_2, "https://user@a.example/", &[]).is_err());
    }

    #[test]
    fn a_malformed_host_is_refused() {
        for sent in [
            &b""[..],
            b" ",
            b"a b",
            b"a/b",
            b"a@b",
            b"a:",
            b"a:x",
            b"a:99999",
            b"a:+1",
            b"a:1:2",
            b"a,b",
            b"[::1",
            b"::1",
            b"[::1]x",
            b"[a]",
            b"a%62",
            b"a\\b",
            b"a?b",
            b"a#b",
            b"\xff",
            b":80",
        ] {
            assert!(host(Version::HTTP_11, "/", &[sent]).is_err(), "{sent:?}");
        }
    }

    proptest! {
        #[test]
        fn no_authority_makes_the_parser_panic(text in ".*", odd in "[\\[\\]:a1.@]{0,9}") {
            for text in [text, odd] {
                if let Some(name) = name_of(&text) {
                    assert!(text.contains(name) && !name.is_empty());
                }
            }
        }
    }
}
