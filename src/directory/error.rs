//! Why a directory did not answer, and why somebody is turned away. Neither holds
//! text that a user or a server sent.

use std::io;

use crate::directory::Operation;
use crate::identity::Subject;

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The name and the password do not fit, or it must not be told whether they do.
    #[error("rejected: {}", .0.label())]
    Rejected(Rejection),
    /// The password is right, but expired or to be changed first.
    #[error("the password must be changed")]
    MustChange,
    /// The password is right, but the entry names no usable subject; the log says why.
    #[error("the account cannot be used")]
    AccountUnavailable,
    /// The password is right, but no configured role fits.
    #[error("the account has no role")]
    NoRole {
        /// The entry's own normalised DN.
        account: String,
        /// Who it is.
        subject: Subject,
    },
    /// The entry was found, and whoever asked did not want its password tried.
    #[error("the password was not tried")]
    Withheld,
    /// The directory did not answer; nobody's password was judged.
    #[error("the directory is unavailable")]
    Unavailable(#[source] DirectoryError),
}

/// Why a login was rejected. The public is told none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No entry has the name.
    NoSuchUser,
    /// Several entries have the name.
    Ambiguous,
    /// The password is wrong.
    WrongPassword,
    /// The account is locked.
    Locked,
    /// The account is disabled.
    Disabled,
    /// The entry went away, has no password, is an alias or may not bind.
    Unbindable,
}

impl Rejection {
    /// The label of metrics and audit records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoSuchUser => "no_such_user",
            Self::Ambiguous => "ambiguous",
            Self::WrongPassword => "wrong_password",
            Self::Locked => "locked",
            Self::Disabled => "disabled",
            Self::Unbindable => "unbindable",
        }
    }
}

/// Why the directory cannot be used or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The configuration cannot work.
    #[error("{0}")]
    Configuration(String),
    /// There was no answer within `directory.timeout`.
    #[error("no answer in time")]
    Timeout,
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The server does not start TLS, or not in the words of the protocol.
    #[error("StartTLS failed: {0}")]
    StartTls(&'static str),
    /// No TLS, or not with the server that was meant.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The connection ended, was ended by us because of what came over it, or broke the library.
    #[error("the connection was lost")]
    Lost,
    /// The service account was refused.
    #[error("the service account may not log in (result code {code})")]
    ServiceBind {
        /// The LDAP result code; 0 when the password must be changed first.
        code: u32,
    },
    /// An operation was refused.
    #[error("{} was refused (result code {code})", .operation.label())]
    Refused {
        /// Which.
        operation: Operation,
        /// The LDAP result code.
        code: u32,
    },
    /// An answer makes no sense.
    #[error("cannot make sense of {0}")]
    Protocol(&'static str),
    /// An account is in more groups than are looked at; roles would be guesswork.
    #[error("an account is in too many groups")]
    TooManyGroups,
}

impl DirectoryError {
    /// The label of metrics and audit records.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "configuration",
            Self::Timeout => "timeout",
            Self::Connect(_) => "connect",
            Self::StartTls(_) => "start_tls",
            Self::Tls(_) => "tls",
            Self::Lost => "lost",
            Self::ServiceBind { .. } => "service_bind",
            Self::Refused { .. } => "refused",
            Self::Protocol(_) => "protocol",
            Self::TooManyGroups => "too_many_groups",
        }
    }
}
