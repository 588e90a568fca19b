//! Every way the gateway says no: one row a refusal, with status, code, log
//! level and the sentence the public reads. Knows neither HTTP types nor causes;
//! a cause is logged where it is turned into a refusal.

use std::time::Duration;

use tracing::Level;

/// Why a request was refused, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown user, wrong password, or an account that may not say which.
    InvalidCredentials,
    /// The password is right, but must be changed first.
    PasswordChangeRequired,
    /// The old password is right, but the new one is not taken.
    PasswordRefused {
        /// What is wrong with it, one sentence; never text from the request or a server.
        reason: &'static str,
    },
    /// The password is right, but the account is locked, disabled, expired or not allowed here or now.
    AccountUnavailable,
    /// The password of an emergency account is right, but a reason is missing.
    ReasonRequired,
    /// The password is right, but no configured role fits.
    NoRole,
    /// The access code is wrong, spent or expired.
    InvalidAccessCode,
    /// Too many tries.
    TooManyAttempts {
        /// When to try again.
        retry_after: Duration,
    },
    /// The directory cannot answer.
    DirectoryUnavailable,
    /// Nothing was presented.
    Unauthenticated,
    /// The token is malformed, forged, doubled, or of a wrong key, type or algorithm.
    InvalidToken,
    /// The token is past `exp` and was not renewed.
    TokenExpired,
    /// The context cookie is missing, doubled or not the token's.
    ContextMismatch,
    /// The session was revoked or has ended.
    SessionRevoked,
    /// The role may not do this.
    Forbidden,
    /// The proof that our own page made the request is missing.
    CsrfRejected,
    /// The peer may not ask this endpoint.
    PeerNotTrusted,
    /// The request is ambiguous or malformed.
    BadRequest {
        /// What is wrong with it, one sentence; never text from the request.
        reason: &'static str,
    },
    /// No route and no origin has this host.
    Misdirected,
    /// An endpoint of ours, asked with another method.
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: &'static str,
    },
    /// The client was too slow with its body.
    RequestTimeout,
    /// No route matches.
    NoRoute,
    /// The body is over the limit.
    BodyTooLarge,
    /// The headers are over the limit.
    HeadersTooLarge,
    /// A token, a cookie of ours or a login came over plain HTTP.
    CredentialExposed,
    /// Something else than reading was asked over plain HTTP.
    HttpsRequired,
    /// The store cannot answer.
    StoreUnavailable,
    /// The audit record cannot be written.
    AuditUnavailable,
    /// Too many connections, requests or WebSockets.
    Overloaded,
    /// The upstream refuses, breaks off or is down.
    UpstreamUnavailable,
    /// The upstream is too slow.
    UpstreamTimeout,
    /// Something of ours failed that should not; the log says what.
    Internal,
}

/// One row of the table: all that is fixed about a refusal.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The HTTP status code.
    pub status: u16,
    /// The `error` member, also the label of metrics and audit records.
    pub code: &'static str,
    /// How loudly it is logged.
    pub level: Level,
    /// What the client reads.
    pub message: &'static str,
    /// The value of `Retry-After`, in seconds.
    pub retry_after_seconds: Option<u64>,
}

/// Seconds after which to ask again when something behind the gateway is down.
const RETRY_OUTAGE_SECONDS: u64 = 5;

impl Refusal {
    /// The row of the table.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table, one row a refusal")]
    pub fn facts(self) -> Facts {
        let row = |status, code, level, message| Facts {
            status,
            code,
            level,
            message,
            retry_after_seconds: None,
        };
        let outage = |code, message| Facts {
            retry_after_seconds: Some(RETRY_OUTAGE_SECONDS),
            ..row(503, code, Level::ERROR, message)
        };
        match self {
            Self::InvalidCredentials => row(
                401,
                "InvalidCredentials",
                Level::INFO,
                "The user name or the password is not right.",
            ),
            Self::PasswordChangeRequired => row(
                401,
                "PasswordChangeRequired",
                Level::INFO,
                "The password has expired and must be changed before you can log in.",
            ),
            Self::PasswordRefused { reason } => row(422, "PasswordRefused", Level::INFO, reason),
            Self::AccountUnavailable => row(
                403,
                "AccountUnavailable",
                Level::INFO,
                "This account cannot be used here now; ask your administrator.",
            ),
            Self::ReasonRequired => row(
                401,
                "ReasonRequired",
                Level::WARN,
                "An emergency account must give a short reason, in one line.",
            ),
            Self::NoRole => row(
                403,
                "NoRole",
                Level::INFO,
                "This account has no role here; ask your administrator.",
            ),
            Self::InvalidAccessCode => row(
                403,
                "InvalidAccessCode",
                Level::INFO,
                "The access code is not right, or not good any more.",
            ),
            Self::TooManyAttempts { retry_after } => Facts {
                retry_after_seconds: Some(retry_after.as_secs().max(1)),
                ..row(429, "TooManyAttempts", Level::WARN, "Too many attempts; wait and try again.")
            },
            Self::DirectoryUnavailable => outage(
                "DirectoryUnavailable",
                "The directory cannot answer now; try again in a moment.",
            ),
            Self::Unauthenticated => {
                row(401, "Unauthenticated", Level::DEBUG, "Log in first; no token was presented.")
            }
            Self::InvalidToken => row(401, "InvalidToken", Level::INFO, "The token is not valid."),
            Self::TokenExpired => {
                row(401, "TokenExpired", Level::DEBUG, "The token has expired; log in again.")
            }
            Self::ContextMismatch => row(
                401,
                "ContextMismatch",
                Level::WARN,
                "The token and the context cookie do not belong together.",
            ),
            Self::SessionRevoked => {
                row(401, "SessionRevoked", Level::INFO, "The session has ended; log in again.")
            }
            Self::Forbidden => row(403, "Forbidden", Level::INFO, "Your role may not do this."),
            Self::CsrfRejected => row(
                403,
                "CsrfRejected",
                Level::WARN,
                "The request does not prove that it comes from our own pages.",
            ),
            Self::PeerNotTrusted => {
                row(403, "Forbidden", Level::WARN, "Only a trusted proxy may ask this endpoint.")
            }
            Self::BadRequest { reason } => row(400, "BadRequest", Level::INFO, reason),
            Self::Misdirected => {
                row(421, "Misdirected", Level::INFO, "This host is not served here.")
            }
            Self::MethodNotAllowed { .. } => row(
                405,
                "MethodNotAllowed",
                Level::INFO,
                "This endpoint does not take that method.",
            ),
            Self::RequestTimeout => {
                row(408, "RequestTimeout", Level::INFO, "The request's body came too slowly.")
            }
            Self::NoRoute => row(404, "NoRoute", Level::INFO, "There is nothing here."),
            Self::BodyTooLarge => {
                row(413, "TooLarge", Level::INFO, "The request's body is too large.")
            }
            Self::HeadersTooLarge => {
                row(431, "TooLarge", Level::INFO, "The request's headers are too large.")
            }
            Self::CredentialExposed => row(
                403,
                "CredentialExposed",
                Level::WARN,
                "Credentials must not be sent over plain HTTP; what was sent is no longer safe.",
            ),
            Self::HttpsRequired => {
                row(403, "HttpsRequired", Level::INFO, "This needs https; nothing was done.")
            }
            Self::StoreUnavailable => outage(
                "StoreUnavailable",
                "The session store cannot answer now; try again in a moment.",
            ),
            Self::AuditUnavailable => row(
                503,
                "AuditUnavailable",
                Level::ERROR,
                "The audit record cannot be written; requests are refused until it can.",
            ),
            Self::Overloaded => {
                outage("Overloaded", "Too much is going on here; try again in a moment.")
            }
            Self::UpstreamUnavailable => row(
                502,
                "UpstreamUnavailable",
                Level::WARN,
                "The service behind this gateway did not answer.",
            ),
            Self::UpstreamTimeout => row(
                504,
                "UpstreamTimeout",
                Level::WARN,
                "The service behind this gateway took too long.",
            ),
            Self::Internal => {
                row(500, "Internal", Level::ERROR, "The gateway failed; its log says why.")
            }
        }
    }
}
