//! The configuration: one TOML file plus `BINDGATE_SECTION__KEY` from the
//! environment becomes typed sections. A section that exists is valid. Loading
//! changes nothing else in the process and opens no port, store or network.

mod access_codes;
mod assertion;
mod break_glass;
mod cookie;
mod crosscheck;
mod declaration;
mod directory;
mod document;
mod guess_budget;
mod guess_guard;
mod headers;
mod kind;
mod limits;
mod listen;
mod load;
mod password_rules;
mod pem;
mod policy_value;
mod problem;
mod reader;
mod redis;
mod reload;
mod response_headers;
mod route;
mod rows;
#[cfg(test)]
pub(crate) mod sample;
mod secret_key;
mod servers;
mod session;
mod store;
mod suggestion;
mod telemetry;
#[cfg(test)]
mod tests;
mod throttle_rule;
mod upstream;
mod users;

pub use access_codes::AccessCodes;
pub use assertion::{Assertion, AssertionSignature, Deliver, Publication};
pub use break_glass::BreakGlass;
pub use cookie::{Cookie, SameSite};
pub use declaration::{KeyDefault, KeyDescription};
pub use directory::{Directory, DirectoryKind, RoleMapping};
pub use guess_budget::{DIGITS_MAX, GUESS_WINDOW, GuessBudget, SuccessBound};
pub use guess_guard::{FailureTest, GuessGuard};
pub use headers::{HeaderPreset, Headers, Hsts};
pub use limits::Limits;
pub use listen::{ClientVerification, Origin, Server, Tls, TlsVersion};
pub use load::Loaded;
pub use password_rules::PasswordRules;
pub use policy_value::{FrameOptions, PermissionsPolicy, ReferrerPolicy};
pub use problem::{Expected, Problem, Problems};
pub use redis::{RedisServer, RedisStore, Topology};
pub use route::{Access, Route};
pub use servers::{Discovery, LdapServer, LdapTransport};
pub use session::{
    Delivery, FIXED_CLAIMS, Lockout, LoginPage, LoginThrottle, Rate, SESSION_TYP, Token,
    TokenAlgorithm,
};
pub use store::Store;
pub use telemetry::{LogFormat, LogLevel, Telemetry};
pub use throttle_rule::{ThrottleRule, ThrottleScope};
pub use upstream::{Upstream, UpstreamServer};
pub use users::{FileState, User, UsersFile};

use std::net::SocketAddr;

/// The whole configuration, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`: listeners, origin, TLS, limits.
    pub server: Server,
    /// `[telemetry]`: metrics, health, logs, audit.
    pub telemetry: Telemetry,
    /// `[directory]`; absent means that nobody can log in.
    pub directory: Option<Directory>,
    /// `[token]`: tokens and session lifetimes.
    pub token: Token,
    /// `[cookie]`: names and attributes.
    pub cookie: Cookie,
    /// `[throttle]`: login attempts.
    pub throttle: LoginThrottle,
    /// `[access_codes]`; `None` when they are off.
    pub access_codes: Option<AccessCodes>,
    /// `[store]`: what outlives the process.
    pub store: Store,
    /// `[headers]`: how the upstream is told who is calling, and response headers.
    pub headers: Headers,
    /// `[login_page]`: title and notice.
    pub login_page: LoginPage,
    /// `[[upstream]]`, at least one.
    pub upstreams: Vec<Upstream>,
    /// `[[route]]`, at least one; every `upstream` index is valid.
    pub routes: Vec<Route>,
}

impl Config {
    /// Where the keys of internal assertions are told; `None` when there are none.
    #[must_use]
    pub fn jwks_address(&self) -> Option<SocketAddr> {
        let mut assertions = self.upstreams.iter().filter_map(|it| it.assertion.as_ref());
        assertions
            .any(|assertion| assertion.publication() == Some(Publication::Internal))
            .then_some(self.server.jwks_listen)
    }
}
