//! Which header fields may pass a hop, and which names an upstream could read
//! as one of ours. Removes, never adds. Knows no values of ours.

use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Names that frameworks take as another path, method or proxy, whatever the
/// request line says; compared folded.
pub const DANGEROUS: &[&str] = &[
    "X-Original-URL",
    "X-Original-URI",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "Proxy",
];

/// Names by which proxies tell of the client, beside [`FORWARDED_PREFIX`];
/// believed of trusted peers only; compared folded.
pub const FORWARDED: &[&str] =
    &["Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP", "X-Request-Id"];

/// What the `X-Forwarded-*` family begins with; compared folded.
pub const FORWARDED_PREFIX: &str = "X-Forwarded-";

/// Fields that belong to one connection (RFC 9110 section 7.6.1). `Trailer` passes.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TRANSFER_ENCODING,
    http::header::UPGRADE,
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
];

/// Names compared as the laxest upstream would: without case, and without all
/// that is neither letter nor digit, so that `X_Auth.User` is `X-Auth-User`.
#[derive(Clone, Debug, Default)]
pub struct FoldedNames {
    /// Sorted by hash; looking a name up allocates nothing.
    names: Vec<(u64, Box<[u8]>)>,
    prefixes: Vec<Box<[u8]>>,
}

impl FoldedNames {
    /// A set of these names.
    pub fn new(names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::default().and(names)
    }

    /// The headers that take another path or method, but not those in `allowed`
    /// (`upstream.allow_headers`).
    #[must_use]
    pub fn dangerous(allowed: &[HeaderName]) -> Self {
        Self::new(DANGEROUS).except(allowed)
    }

    /// The headers by which proxies tell of the client.
    #[must_use]
    pub fn forwarded() -> Self {
        Self::new(FORWARDED).and_prefix(FORWARDED_PREFIX)
    }

    /// These names too.
    #[must_use]
    pub fn and(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.names.extend(names.into_iter().filter_map(|name| {
            let folded: Box<[u8]> = fold(name.as_ref().as_bytes()).collect();
            (!folded.is_empty()).then(|| (hash(folded.iter().copied()), folded))
        }));
        self.names.sort();
        self.names.dedup();
        self
    }

    /// Every name that begins like this too.
    #[must_use]
    pub fn and_prefix(mut self, prefix: &str) -> Self {
        let folded: Box<[u8]> = fold(prefix.as_bytes()).collect();
        if !folded.is_empty() {
            self.prefixes.push(folded);
        }
        self
    }

    /// Without these names; prefixes stay.
    #[must_use]
    pub fn except(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let out = Self::new(names);
        self.names.retain(|entry| out.names.binary_search(entry).is_err());
        self
    }

    /// Whether an upstream could read this name as one of the set.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        let wanted = hash(fold(name));
        let from = self.names.partition_point(|(hash, _)| *hash < wanted);
        self.names
            .iter()
            .skip(from)
            .take_while(|(hash, _)| *hash == wanted)
            .any(|(_, known)| fold(name).eq(known.iter().copied()))
            || self.prefixes.iter().any(|prefix| {
                let mut folded = fold(name);
                prefix.iter().all(|byte| folded.next() == Some(*byte))
            })
    }
}

fn fold(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase)
}

/// FNV-1a; a collision only costs a comparison.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Removes every field, also of trailers, whose name is in the set in any spelling.
pub fn strip(headers: &mut HeaderMap, names: &FoldedNames) {
    let found: Vec<HeaderName> =
        headers.keys().filter(|name| names.contains(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Removes the fields of one hop and those that `Connection` names, but keeps
/// `TE: trailers` and, as no request can go without it, `Host`. To be called
/// before ours are set, so that `Connection` cannot have them removed.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let takes_trailers = headers.get_all(TE).iter().any(names_trailers);
    if headers.contains_key(CONNECTION) {
        for name in named_in_connection(headers) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(TE);
    }
}

fn names_trailers(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|coding| {
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

fn named_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| *name != HOST)
        .collect()
}

/// Checks what hyper leaves to us of a request's framing.
///
/// # Errors
/// One sentence for the client when `Transfer-Encoding` is other than exactly `chunked`.
pub fn check_framing(parts: &Parts) -> Result<(), &'static str> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding == "chunked" => Ok(()),
        _ => Err("The only Transfer-Encoding taken is chunked."),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Request};
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, proptest};

    use super::{DANGEROUS, FORWARDED, FoldedNames, check_framing, strip, strip_hop_by_hop};

    const MANAGED: [&str; 3] = ["X-Auth-User", "X-Auth-Role", "Remote-User"];

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn every_spelling_of_a_managed_name_is_removed() {
        let set = FoldedNames::new(MANAGED);
        let mut headers = map(&[
            ("x-auth-user", "1"),
            ("X-AUTH-USER", "2"),
            ("x_auth_user", "3"),
            ("x.auth.user", "4"),
            ("xauthuser", "5"),
            ("-x--auth~user!", "6"),
            ("REMOTE_USER", "7"),
            ("x-auth-users", "stays"),
            ("x-auth", "stays"),
            ("accept", "stays"),
        ]);
        strip(&mut headers, &set);
        let mut left = names(&headers);
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-auth", "x-auth-users"]);
    }

    #[test]
    fn headers_that_mean_another_path_or_method_never_pass_unless_allowed() {
        let allowed = [HeaderName::from_static("x_http_method_override")];
        for name in DANGEROUS {
            let folded = name.replace('-', "_");
            let header = HeaderName::from_bytes(folded.as_bytes()).unwrap();
            assert!(FoldedNames::dangerous(&[]).contains(&header), "{name}");
            let is_allowed = *name == "X-HTTP-Method-Override";
            assert_eq!(FoldedNames::dangerous(&allowed).contains(&header), !is_allowed, "{name}");
        }
    }

    #[test]
    fn every_header_that_tells_of_the_client_is_known() {
        let set = FoldedNames::forwarded();
        for name in
            FORWARDED.iter().chain(&["x-forwarded-for", "X_Forwarded_Anything", "xforwardedhost"])
        {
            assert!(set.contains(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
        for name in ["x-forward", "via", "x-request-identity", "x"] {
            assert!(!set.contains(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn hop_by_hop_headers_and_those_named_in_connection_go() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret ,,bad name, Host"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("te", "gzip"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("host", "a.example"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left = names(&headers);
        left.sort_unstable();
        assert_eq!(left, ["accept", "host", "trailer"]);
    }

    #[test]
    fn te_passes_only_as_trailers() {
        let mut headers = map(&[("connection", "te"), ("te", "gzip;q=0.5, Trailers")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers")]));
    }

    #[test]
    fn only_chunked_is_a_transfer_encoding() {
        let check = |values: &[&str]| {
            let mut request = Request::builder();
            for value in values {
                request = request.header("transfer-encoding", *value);
            }
            check_framing(&request.body(()).unwrap().into_parts().0)
        };
        assert!(check(&[]).is_ok());
        assert!(check(&["chunked"]).is_ok());
        for values in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity"],
            &[""],
        ] {
            assert!(check(values).is_err(), "{values:?}");
        }
    }

    /// A managed name with random case and random punctuation thrown in.
    fn spelling() -> impl Strategy<Value = String> {
        let noise = "[-_.~!#$%&'*+^`|]{0,2}";
        (0..MANAGED.len(), vec((any::<bool>(), noise), 16)).prop_map(|(which, noise)| {
            let letters = MANAGED[which].chars().filter(char::is_ascii_alphanumeric);
            let mut spelled = String::new();
            for (letter, (upper, noise)) in letters.zip(noise) {
                spelled.push_str(&noise);
                spelled.push(if upper {
                    letter.to_ascii_uppercase()
                } else {
                    letter.to_ascii_lowercase()
                });
            }
            spelled
        })
    }

    proptest! {
        #[test]
        fn no_set_of_headers_leaves_a_name_that_reads_as_managed(
            spelled in vec(spelling(), 0..8),
            others in vec("[-_.a-zA-Z0-9]{1,12}", 0..8),
            connection in vec(spelling(), 0..3),
        ) {
            let mut headers = HeaderMap::new();
            for name in spelled.iter().chain(&others) {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("evil"));
            }
            headers.insert("connection", HeaderValue::from_str(&connection.join(", ")).unwrap());
            strip_hop_by_hop(&mut headers);
            strip(&mut headers, &FoldedNames::new(MANAGED));
            // The upstream's reading, written independently of the code.
            let read = |name: &str| name.to_uppercase().replace(|c: char| !c.is_alphanumeric(), "");
            for name in headers.keys() {
                for managed in MANAGED {
                    assert_ne!(read(name.as_str()), read(managed), "{name}");
                }
            }
            for other in others {
                let kept = headers.contains_key(&other);
                let managed = MANAGED.iter().any(|managed| read(managed) == read(&other));
                let hop = ["te", "upgrade"].contains(&other.to_lowercase().as_str());
                assert!(kept || managed || hop, "{other}");
            }
        }
    }
}
