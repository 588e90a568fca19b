//! The endpoints that are the gateway's own: where they lie, and their methods.
//! Knows nothing of what they do.

use crate::config::{Config, Delivery, Server};

/// An endpoint that the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnEndpoint {
    /// `/auth/login`.
    Login,
    /// A path of `server.login_aliases`: the login, for clients of an older era.
    LoginAlias,
    /// `/auth/password`.
    Password,
    /// `/auth/`, for people.
    LoginPage,
    /// `/auth/logout`.
    Logout,
    /// `/auth/session`.
    Session,
    /// `/auth/refresh`.
    Refresh,
    /// `/auth/verify`, for other proxies.
    Verify,
    /// `/.well-known/jwks.json`.
    Jwks,
    /// `/auth/access-codes`: the page, and where codes are given out.
    AccessCodes,
    /// `/auth/access-codes/redeem`.
    RedeemCode,
    /// `/auth/access-codes/revoke`.
    RevokeCode,
}

impl OwnEndpoint {
    /// Its methods, as `Allow` lists them. Logging out by `HEAD` is left out, as
    /// any page could make a browser do that.
    #[must_use]
    pub const fn allow(self) -> &'static str {
        match self {
            Self::Login
            | Self::LoginAlias
            | Self::Password
            | Self::Refresh
            | Self::RedeemCode
            | Self::RevokeCode => "POST",
            Self::AccessCodes => "GET, HEAD, POST",
            Self::Logout => "GET, POST",
            Self::LoginPage | Self::Session | Self::Verify | Self::Jwks => "GET, HEAD",
        }
    }

    /// Whether it takes this method.
    #[must_use]
    pub fn takes(self, method: &str) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method)
    }
}

/// The paths where passwords are posted.
#[must_use]
pub fn password_paths(server: &Server) -> Vec<String> {
    let prefix = server.auth_prefix.trim_end_matches('/');
    let own = ["login", "password"].map(|name| format!("{prefix}/{name}"));
    server.login_aliases.iter().cloned().chain(own).collect()
}

/// The paths that are ours on a host; `None` is never forwarded and not built.
pub(super) fn paths(config: &Config) -> Vec<(String, Option<OwnEndpoint>)> {
    let has_page = !matches!(config.token.delivery, Delivery::Bearer);
    let code = |endpoint| config.access_codes.as_ref().map(|_| endpoint);
    let below_prefix = [
        ("/", has_page.then_some(OwnEndpoint::LoginPage)),
        ("/login", Some(OwnEndpoint::Login)),
        ("/logout", Some(OwnEndpoint::Logout)),
        ("/session", Some(OwnEndpoint::Session)),
        ("/refresh", Some(OwnEndpoint::Refresh)),
        ("/verify", Some(OwnEndpoint::Verify)),
        ("/password", Some(OwnEndpoint::Password)),
        ("/access-codes", code(OwnEndpoint::AccessCodes)),
        ("/access-codes/redeem", code(OwnEndpoint::RedeemCode)),
        ("/access-codes/revoke", code(OwnEndpoint::RevokeCode)),
        ("/mfa/**", None),
    ];
    let prefix = config.server.auth_prefix.trim_end_matches('/');
    let own = below_prefix.into_iter().map(|(path, owner)| (format!("{prefix}{path}"), owner));
    let aliases = config.server.login_aliases.iter();
    let aliases = aliases.map(|path| (path.clone(), Some(OwnEndpoint::LoginAlias)));
    let jwks = ("/.well-known/jwks.json".to_owned(), Some(OwnEndpoint::Jwks));
    own.chain(aliases).chain([jwks]).collect()
}
