//! `[headers]`, `[[upstream]]` and `[[route]]`.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::identity::Role;

/// `[headers]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Carries the subject.
    pub user: HeaderName,
    /// Carries the role.
    pub role: HeaderName,
    /// A family of headers that is added too.
    pub preset: HeaderPreset,
    /// `Strict-Transport-Security`; `None` switches it off.
    pub hsts: Option<Hsts>,
}

/// The value of `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hsts(pub HeaderValue);

/// Names that other gateways made common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderPreset {
    /// Only `headers.user` and `headers.role`.
    None,
    /// `Remote-User`, `Remote-Groups` (Authelia).
    Remote,
    /// `X-Forwarded-User`, `X-Forwarded-Groups` (oauth2-proxy).
    Forwarded,
    /// `X-Auth-Request-User`, `X-Auth-Request-Groups` (oauth2-proxy with nginx).
    AuthRequest,
}

impl HeaderPreset {
    /// The names that carry subject and role, if any.
    #[must_use]
    pub const fn names(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::None => None,
            Self::Remote => Some(("remote-user", "remote-groups")),
            Self::Forwarded => Some(("x-forwarded-user", "x-forwarded-groups")),
            Self::AuthRequest => Some(("x-auth-request-user", "x-auth-request-groups")),
        }
    }
}

/// One `[[upstream]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name, as routes and metrics call it.
    pub name: String,
    /// Its servers; exactly one until balancing is built.
    pub servers: Vec<UpstreamServer>,
    /// Names of client cookies that never pass.
    pub strip_cookies: Vec<String>,
    /// Headers of the client that never pass.
    pub strip_headers: Vec<HeaderName>,
    /// Headers that replace the client's.
    pub set_headers: BTreeMap<String, HeaderValue>,
    /// Headers that pass though they are in the list of dangerous ones.
    pub allow_headers: Vec<HeaderName>,
    /// Whether `;` may stand in a path.
    pub path_parameters: bool,
    /// To open a connection.
    pub connect_timeout: Duration,
    /// From the request's last byte to the response's head.
    pub response_timeout: Duration,
    /// How long an idle connection is kept; below the upstream's own time.
    pub idle_timeout: Duration,
    /// Connections of one worker.
    pub connections: usize,
}

/// One server of `upstream.urls`, over http.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Host name or address, without brackets.
    pub host: String,
    /// The port; 80 when the URL names none.
    pub port: u16,
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its label in metrics and audit: `name`, or the path.
    pub label: String,
    /// Lower-case host; `None` means the public origin's.
    pub host: Option<String>,
    /// Literal segments, `{name}` for one, `**` for the rest.
    pub path: String,
    /// Methods, compared exactly; `None` means all.
    pub methods: Option<Vec<String>>,
    /// Who may use it.
    pub access: Access,
    /// Index into `Config::upstreams`.
    pub upstream: usize,
}

/// Who may use a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, with or without a session.
    Public,
    /// Every role of `[[directory.role]]`.
    Authenticated,
    /// These roles only.
    Roles(Vec<Role>),
}
