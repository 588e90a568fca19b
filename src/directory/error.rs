//! Why a directory did not answer, and why somebody is turned away. Neither holds
//! text that a user or a server sent.

use std::io;

use crate::directory::Operation;
use crate::directory::outcome::{Bar, Change, Rejection};
use crate::identity::Subject;

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The name and the password do not fit, or it must not be told whether they do.
    #[error("rejected: {}", .0.label())]
    Rejected(Rejection),
    /// The password is right, but expired or to be changed first.
    #[error("the password must be changed: {}", .0.label())]
    MustChange(Change),
    /// The password is right, but the account is closed.
    #[error("the account cannot be used: {}", .0.label())]
    AccountUnavailable(Bar),
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
    /// The directory did not answer, and the password is either right or was not sent.
    #[error("the directory is unavailable")]
    Unavailable(#[source] DirectoryError),
    /// The password was sent, and no answer says that it is right: the directory may have
    /// counted it as wrong.
    #[error("the directory did not judge the password")]
    Unjudged(#[source] DirectoryError),
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
    /// Every connection for binds was taken, until no time was left.
    #[error("no bind connection was free in time")]
    Busy,
    /// DNS did not say where the servers of the domain are.
    #[error("cannot find the domain's servers: {0}")]
    Discovery(String),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The server does not start TLS, or not in the words of the protocol.
    #[error("StartTLS failed: {0}")]
    StartTls(&'static str),
    /// No TLS, or not with the server that was meant.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// Every server is known to be down, and somebody else is just finding out whether
    /// that is still so.
    #[error("no server answers")]
    AllDown,
    /// The connection ended, was ended by us because of what came over it, or broke the library.
    #[error("the connection was lost")]
    Lost,
    /// It was not asked, as the answer is not needed any more.
    #[error("not asked")]
    Needless,
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
    /// A search found more than it can have asked for.
    #[error("a search found too many entries")]
    TooManyEntries,
    /// Nothing at all of a kind is seen, which the directory cannot be without: the
    /// service account has lost its rights, or the data are not there.
    #[error("the service account sees no {0} at all")]
    Blind(&'static str),
    /// Groups cannot be searched by their names.
    #[error("the server does not find entries by entryDN")]
    NoEntryNames,
    /// The service account may not read which groups an account is in.
    #[error("the service account may not read tokenGroups")]
    HiddenGroups,
}

/// The server is too busy, or unavailable; it says so of itself, not of what was asked.
const CODES_OF_THE_SERVER: [u32; 2] = [51, 52];

impl DirectoryError {
    /// Whether another search would fail too; others fail because of what they found.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        !matches!(
            self,
            // A server that is gone does not connect next time.
            Self::Lost
                | Self::Protocol(_)
                | Self::TooManyEntries
                | Self::TooManyGroups
                | Self::NoEntryNames
                // Limits of time, of size, and of the administrator.
                | Self::Refused { code: 3 | 4 | 11, .. }
        )
    }

    /// Whether the server failed, so that another one may do better; not when it
    /// answered, however little we like the answer.
    pub(super) fn is_of_the_server(&self) -> bool {
        match self {
            Self::Timeout
            | Self::Discovery(_)
            | Self::Connect(_)
            | Self::StartTls(_)
            | Self::Tls(_)
            | Self::Lost
            | Self::ServiceBind { .. }
            | Self::Protocol(_) => true,
            Self::Refused { code, .. } => CODES_OF_THE_SERVER.contains(code),
            Self::Configuration(_)
            | Self::Busy
            | Self::AllDown
            | Self::Needless
            | Self::TooManyGroups
            | Self::TooManyEntries
            | Self::Blind(_)
            | Self::NoEntryNames
            | Self::HiddenGroups => false,
        }
    }

    /// Whether nobody answered; not when somebody did, however little we like the answer,
    /// nor when only we were too busy to ask.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::AllDown) || self.is_of_the_server()
    }

    /// The label of metrics and audit records.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "configuration",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Discovery(_) => "discovery",
            Self::Connect(_) => "connect",
            Self::StartTls(_) => "start_tls",
            Self::Tls(_) => "tls",
            Self::AllDown => "all_down",
            Self::Lost => "lost",
            Self::Needless => "needless",
            Self::ServiceBind { .. } => "service_bind",
            Self::Refused { .. } => "refused",
            Self::Protocol(_) => "protocol",
            Self::TooManyGroups => "too_many_groups",
            Self::TooManyEntries => "too_many_entries",
            Self::Blind(_) => "blind",
            Self::NoEntryNames => "no_entry_names",
            Self::HiddenGroups => "hidden_groups",
        }
    }
}
