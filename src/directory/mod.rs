//! Who may log in, as whom and in which role: asked of a directory server, or looked
//! up in a file. Knows no HTTP, no tokens and no sessions; `ldap3` is named nowhere
//! else.
//!
//! Unknown names are rejected after the search alone, without a bind; making that
//! answer as slow as a wrong password is not built yet. With users in a file, it is.

mod account;
mod active_directory;
mod ber;
mod bind;
mod breaker;
mod chain;
mod connection;
mod diagnostic;
mod dn;
mod endpoint;
mod entry;
mod error;
mod examine;
mod expect;
mod file;
mod filter;
mod group;
mod guard;
mod ldap;
mod lockout;
mod meter;
mod outcome;
mod pool;
mod server;
mod stamp;
mod users_file;

use std::time::Duration;

use tokio::time::sleep;

use crate::ambient::Entropy;
use crate::config::{self, DirectoryKind, Lockout};
use crate::directory::file::FileDirectory;
use crate::directory::ldap::LdapDirectory;
use crate::identity::{Attributes, Credentials, Role, Subject};
use crate::metrics::Metrics;

pub use error::{DirectoryError, VerifyError};
pub use examine::{Finding, Step, examine};
pub use meter::Operation;
pub use outcome::{Bar, Change, Notice, Rejection};

/// The directory of the configuration.
pub struct Directory(Kind);

enum Kind {
    Ldap(Box<LdapDirectory>),
    File(Box<FileDirectory>),
}

/// Somebody whose password was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Who it is to the upstream, from the entry.
    pub subject: Subject,
    /// The first configured role whose group the entry is in.
    pub role: Role,
    /// The entry's own normalised DN: one account, however its name was typed.
    pub account: String,
    /// What the directory warned of at this login.
    pub notice: Option<Notice>,
    /// What `directory.attributes` asks for, as far as the entry has it.
    pub attributes: Attributes,
    /// What tells this account and its password from later ones; compared as text, never
    /// understood elsewhere. `None` where the directory says nothing of the kind.
    pub stamp: Option<String>,
}

/// An account whose password has not been tried yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The entry's own normalised DN.
    pub name: String,
    /// When the directory locks accounts, as far as that can be read.
    pub general_lockout: Option<Lockout>,
    /// When it locks this one, if a policy of its own says so.
    pub own_lockout: Option<Lockout>,
}

/// How often the directory's lock-out is asked for; it is read again when that was
/// long ago, or could not be done.
const LOCKOUT_INTERVAL: Duration = Duration::from_secs(15);

impl Directory {
    /// Prepares a directory; opens no connection.
    ///
    /// # Errors
    /// When the configuration cannot work: a group that is no DN, a malformed filter
    /// or attribute, no usable certificate authority.
    pub fn new(
        config: &config::Directory,
        metrics: &Metrics,
        entropy: &Entropy,
    ) -> Result<Self, DirectoryError> {
        Ok(Self(match config.kind {
            DirectoryKind::Ldap | DirectoryKind::ActiveDirectory => {
                Kind::Ldap(Box::new(LdapDirectory::new(config, metrics, entropy)?))
            }
            DirectoryKind::File => Kind::File(Box::new(FileDirectory::new(config, metrics)?)),
        }))
    }

    /// Checks a name and a password, within `directory.timeout`. At most one bind is
    /// sent with the password.
    ///
    /// # Errors
    /// When they do not fit, the account cannot be used, or the directory is unavailable.
    pub async fn verify(&self, credentials: &Credentials) -> Result<Person, VerifyError> {
        self.verify_if(credentials, async |_| true).await
    }

    /// The same; `found` is told whose account it is and says whether the password
    /// may be tried. However a name is spelled, the account is one.
    ///
    /// # Errors
    /// As above, and `Withheld` when `found` says no.
    pub async fn verify_if(
        &self,
        credentials: &Credentials,
        found: impl AsyncFnOnce(Account) -> bool,
    ) -> Result<Person, VerifyError> {
        match &self.0 {
            Kind::Ldap(ldap) => ldap.verify(credentials, found).await,
            Kind::File(file) => file.verify(credentials, found).await,
        }
    }

    /// Whether any server answered when it was last asked; false until one was.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match &self.0 {
            Kind::Ldap(ldap) => ldap.is_up(),
            Kind::File(_) => true,
        }
    }

    /// Tells when the directory locks accounts, as far as it lets that be read; never
    /// returns, ends when dropped.
    pub async fn watch_lockout(&self, tell: impl Fn(Option<Lockout>)) {
        loop {
            match &self.0 {
                Kind::Ldap(ldap) => tell(ldap.lockout().await),
                Kind::File(_) => tell(Some(Lockout::NEVER)),
            }
            sleep(LOCKOUT_INTERVAL).await;
        }
    }

    /// Asks every server regularly whether it answers, connects again before that is
    /// needed, and closes unused connections; never returns, ends when dropped.
    pub async fn keep_up(&self) {
        match &self.0 {
            Kind::Ldap(ldap) => ldap.keep_up().await,
            Kind::File(file) => file.keep_up().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Directory;
    use crate::identity::Credentials;

    /// Logins run on the control runtime, whatever worker asked for them.
    #[test]
    fn a_login_may_move_between_threads() {
        const fn sends<T: Send>(_: &T) {}
        let _ = |directory: &Directory, credentials: &Credentials| {
            sends(&directory.verify(credentials));
            sends(&directory.keep_up());
        };
    }
}
