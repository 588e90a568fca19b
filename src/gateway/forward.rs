//! From a permitted request to what the upstream sees, and from its response to
//! what the client sees (contract section 7). An [`UpstreamRequest`] can be made
//! only from a [`Permit`], and the pools of this gateway send nothing else.

use std::net::IpAddr;
use std::rc::Rc;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, SERVER,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Uri, Version};

use crate::config::{self, Deliver};
use crate::gateway::body::ClientBody;
use crate::gateway::gate::{Grounds, Named, Permit};
use crate::refusal::Refusal;
use crate::upstream::Outgoing;
use crate::wire::cookie;
use crate::wire::headers::{self, FoldedNames};
use crate::wire::target::Target;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The header that names a request in logs.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header by which a page says that nobody asked for this.
pub(super) const PASSIVE: HeaderName = HeaderName::from_static("x-bindgate-passive");
const X_POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Where the identity is stated.
#[derive(Clone, Debug)]
pub(crate) struct IdentityHeaders {
    users: Vec<HeaderName>,
    roles: Vec<HeaderName>,
    reference: HeaderName,
}

impl IdentityHeaders {
    /// The configured names and those of the preset.
    pub(crate) fn new(headers: &config::Headers) -> Self {
        let mut users = vec![headers.user.clone()];
        let mut roles = vec![headers.role.clone()];
        if let Some((user, role)) = headers.preset.names() {
            users.push(HeaderName::from_static(user));
            roles.push(HeaderName::from_static(role));
        }
        Self { users, roles, reference: headers.reference.clone() }
    }

    /// All names that only the gateway may set.
    pub(crate) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.users.iter().chain(&self.roles).chain([&self.reference])
    }

    /// States the identity; replaces whatever stands there.
    pub(crate) fn state(&self, named: &Named, headers: &mut HeaderMap) {
        for name in &self.users {
            headers.insert(name.clone(), named.known.user.clone());
        }
        for name in &self.roles {
            headers.insert(name.clone(), named.known.role.clone());
        }
        if let Some(reference) = &named.known.reference {
            headers.insert(self.reference.clone(), reference.clone());
        }
    }

    /// States that there is no identity, so that another proxy overwrites the client's.
    pub(crate) fn state_nobody(&self, headers: &mut HeaderMap) {
        for name in self.names() {
            headers.insert(name.clone(), HeaderValue::from_static(""));
        }
    }
}

/// What is removed and set on the way to one upstream, made once a worker.
pub(crate) struct ForwardRules {
    identity: Rc<IdentityHeaders>,
    always: FoldedNames,
    trailers: Rc<FoldedNames>,
    untrusted: FoldedNames,
    cookies: Vec<String>,
    set: Vec<(HeaderName, HeaderValue)>,
    deliver: Option<Deliver>,
}

impl ForwardRules {
    /// The rules of one upstream.
    pub(crate) fn new(
        config: &config::Config,
        upstream: &config::Upstream,
        identity: &Rc<IdentityHeaders>,
    ) -> Self {
        let deliver = upstream.assertion.as_ref().map(|assertion| &assertion.deliver);
        let always = FoldedNames::dangerous(&upstream.allow_headers)
            .and(identity.names())
            .and([PASSIVE])
            .and(deliver.and_then(Deliver::header))
            .and(&upstream.strip_headers);
        let names = &config.cookie;
        let ours = [&names.context_name, &names.token_name, &names.device_name];
        let cookies = ours.into_iter().chain(&upstream.strip_cookies);
        let cookies = cookies.chain(deliver.and_then(Deliver::cookie)).cloned().collect();
        let set = upstream.set_headers.iter().filter_map(|(name, value)| {
            HeaderName::try_from(name.as_str()).ok().map(|name| (name, value.clone()))
        });
        Self {
            identity: Rc::clone(identity),
            // A trailer has no business telling of the client, whoever sends it.
            trailers: Rc::new(
                FoldedNames::forwarded()
                    .and(identity.names())
                    .and(headers::DANGEROUS)
                    .and(deliver.map(Deliver::trailer)),
            ),
            always,
            untrusted: FoldedNames::forwarded(),
            cookies,
            set: set.collect(),
            deliver: deliver.cloned(),
        }
    }

    /// Names that may not stand in a request's trailers.
    pub(crate) fn forbidden_trailers(&self) -> Rc<FoldedNames> {
        Rc::clone(&self.trailers)
    }
}

/// What the gateway knows of a request besides its head.
pub(crate) struct Origin<'r> {
    /// The judged target; its bytes are forwarded.
    pub target: &'r Target,
    /// The `Host` that chose the route, as sent.
    pub host: HeaderValue,
    /// Whose address the other end of the connection is.
    pub peer: IpAddr,
    /// Whether that peer may speak forwarded headers.
    pub peer_is_trusted: bool,
    /// The request id.
    pub request_id: &'r HeaderValue,
    /// Whether `Authorization` carried a token of ours.
    pub authorization_is_ours: bool,
    /// The assertion of the identity that the permit rests on.
    pub assertion: Option<HeaderValue>,
    /// Whether this is a WebSocket handshake.
    pub is_websocket: bool,
}

/// The only request that an upstream pool of the gateway accepts.
pub(crate) struct UpstreamRequest(Request<ClientBody>);

impl UpstreamRequest {
    /// Strips what a client could forge, then states the identity (rule 4: hop-by-hop
    /// headers go first, so that nobody can have ours removed).
    ///
    /// # Errors
    /// When a header of ours cannot be written.
    pub(crate) fn new(
        parts: &mut Parts,
        body: ClientBody,
        permit: Permit,
        rules: &ForwardRules,
        origin: &Origin<'_>,
    ) -> Result<Self, Refusal> {
        let mut headers = std::mem::take(&mut parts.headers);
        headers::strip_hop_by_hop(&mut headers);
        headers::strip(&mut headers, &rules.always);
        let forwarded_for = forwarded_for(&headers, origin)?;
        if !origin.peer_is_trusted {
            headers::strip(&mut headers, &rules.untrusted);
        }
        headers.remove(EXPECT);
        let names: Vec<&str> = rules.cookies.iter().map(String::as_str).collect();
        cookie::remove(&mut headers, &names);
        if origin.authorization_is_ours {
            headers.remove(AUTHORIZATION);
        }
        for (name, value) in &rules.set {
            headers.insert(name.clone(), value.clone());
        }
        if let Grounds::Session(named) = permit.spend() {
            rules.identity.state(&named, &mut headers);
            if let (Some(deliver), Some(assertion)) = (&rules.deliver, &origin.assertion) {
                deliver.state(assertion, &mut headers);
            }
        }
        headers.insert(HOST, origin.host.clone());
        headers.insert(X_FORWARDED_FOR, forwarded_for);
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        headers.insert(X_FORWARDED_HOST, origin.host.clone());
        headers.insert(X_REQUEST_ID, origin.request_id.clone());
        if origin.is_websocket {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, WEBSOCKET);
            headers.remove(CONTENT_LENGTH);
        }
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = Uri::from(origin.target.path_and_query().clone());
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Ok(Self(request))
    }
}

impl Outgoing for UpstreamRequest {
    type Body = ClientBody;

    fn into_request(self) -> Request<ClientBody> {
        self.0
    }
}

/// The chain of addresses: a trusted peer's own, and the peer's.
fn forwarded_for(headers: &HeaderMap, origin: &Origin<'_>) -> Result<HeaderValue, Refusal> {
    let peer = origin.peer.to_canonical().to_string();
    let before = headers.get_all(X_FORWARDED_FOR).iter();
    let chain = if origin.peer_is_trusted {
        let mut chain = Vec::new();
        for value in before {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(peer.as_bytes());
        chain
    } else {
        peer.into_bytes()
    };
    HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)).map_err(|_| Refusal::Internal)
}

/// Filters the head of the upstream's response for the client.
pub(super) fn filter_response(
    headers: &mut HeaderMap,
    config: &config::Cookie,
    route_is_public: bool,
) {
    headers::strip_hop_by_hop(headers);
    headers.remove(SERVER);
    headers.remove(X_POWERED_BY);
    // An upstream that sets a cookie of ours could log somebody in or out.
    cookie::remove_set_cookies(
        headers,
        &[&config.context_name, &config.token_name, &config.device_name],
    );
    if !route_is_public && !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{CACHE_CONTROL, HeaderMap, SERVER, SET_COOKIE};

    use super::filter_response;
    use crate::config::{Cookie, SameSite};

    #[test]
    fn an_upstream_cannot_set_a_cookie_of_ours() {
        let cookie = Cookie {
            context_name: "__Host-context".to_owned(),
            token_name: "access_token".to_owned(),
            device_name: "device".to_owned(),
            same_site: SameSite::Strict,
        };
        let mut headers = HeaderMap::new();
        for value in ["a=1", " access_token =x; Path=/", "__host-context=", "access_tokens=2"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(value));
        }
        headers.insert(SERVER, HeaderValue::from_static("node"));
        filter_response(&mut headers, &cookie, false);
        let kept: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(kept, ["a=1", "access_tokens=2"]);
        assert!(!headers.contains_key(SERVER));
        assert_eq!(headers[CACHE_CONTROL], "private, no-store");
    }
}
