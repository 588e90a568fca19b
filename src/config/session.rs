//! `[token]`, `[cookie]`, `[throttle]`, `[store]` and `[login_page]`.

use std::path::PathBuf;
use std::time::Duration;

/// `[token]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// How new tokens are signed.
    pub algorithm: TokenAlgorithm,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
    /// From login to the end of the session, whatever happens.
    pub session_lifetime: Duration,
    /// The longest pause after which a session can be renewed; not below `lifetime`.
    pub idle_timeout: Duration,
    /// How long a replaced token still works once its successor was seen.
    pub replay_grace: Duration,
    /// One JSON Web Key a file; `None` with the memory store, whose keys die with it.
    pub keys_dir: Option<PathBuf>,
    /// Where the client gets its token.
    pub delivery: Delivery,
}

/// How tokens are signed (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// Ed25519.
    EdDsa,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

/// Where the client gets its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In the token cookie.
    Cookie,
    /// In the JSON answer.
    Bearer,
    /// In both.
    Both,
}

impl Delivery {
    /// Whether the token cookie is set.
    #[must_use]
    pub const fn by_cookie(self) -> bool {
        matches!(self, Self::Cookie | Self::Both)
    }

    /// Whether the token stands in the JSON answer.
    #[must_use]
    pub const fn by_answer(self) -> bool {
        matches!(self, Self::Bearer | Self::Both)
    }
}

/// `[cookie]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The cookie that the token is bound to.
    pub context_name: String,
    /// The cookie that carries the token.
    pub token_name: String,
    /// The cookie of a device that logged in before.
    pub device_name: String,
    /// `SameSite` of all of them.
    pub same_site: SameSite,
}

/// `SameSite` (RFC 6265bis).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never on requests from another site.
    Strict,
    /// On top-level navigations too.
    Lax,
    /// Always.
    None,
}

impl SameSite {
    /// The attribute's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// `[throttle]`: failed logins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginThrottle {
    /// Failures of one account.
    pub per_user: Rate,
    /// Failures from one address (IPv6: one /64).
    pub per_address: Rate,
    /// Accounts and addresses remembered, each.
    pub entries: usize,
}

/// `"5 per 15m"`: at most `count` in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1, at most 1,000,000.
    pub count: u32,
    /// In which time.
    pub window: Duration,
}

/// `[store]`: what outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A file of our own.
    Embedded {
        /// Where it lies.
        path: PathBuf,
    },
    /// Nothing outlives the process.
    Memory,
}

/// `[login_page]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginPage {
    /// The page's title and heading.
    pub title: String,
    /// A sentence above the form; may be empty.
    pub notice: String,
}
