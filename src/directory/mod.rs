//! Who may log in, as whom and in which role: asked of a directory server, or looked
//! up in a file. Knows no HTTP, no tokens and no sessions; `ldap3` is named nowhere
//! else.
//!
//! Unknown names are rejected after the search alone, without a bind. That this takes
//! less time than a wrong password is hidden where answers are given, not here.

mod account;
mod active_directory;
mod ahead;
mod ber;
mod bind;
mod binding;
mod breaker;
mod chain;
mod change;
mod connection;
mod diagnostic;
mod discovery;
mod emergency;
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
mod membership;
mod meter;
mod nested;
mod others;
mod outcome;
mod password_modify;
mod password_rules;
mod pool;
mod recheck;
mod server;
mod stamp;
mod state;
mod users_file;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::ambient::{Entropy, Timestamp};
use crate::config::{self, DirectoryKind, Lockout};
use crate::directory::emergency::Emergency;
use crate::directory::file::FileDirectory;
use crate::directory::ldap::LdapDirectory;
use crate::identity::{Attributes, Credentials, Role, Subject};
use crate::metrics::Metrics;
use crate::secret::Secret;

pub use change::{ChangeError, Objection};
pub use error::{DirectoryError, VerifyError};
pub use examine::{Finding, JudgeLockout, Step, examine};
pub use lockout::LockoutReading;
pub use meter::Operation;
pub use outcome::{Bar, Change, Notice, Rejection};
pub use recheck::{Known, Rechecked, Standing};

/// How long one login without an answer counts against a directory that seems up.
const DOUBT: Duration = Duration::from_mins(1);

/// The directory of the configuration, and who may log in while it is down.
pub struct Directory {
    kind: Kind,
    emergency: Option<Emergency>,
    /// Since when a directory that seems up has answered no login.
    doubt: Mutex<Option<Instant>>,
}

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
    /// Whether it is an emergency account, which works only while the directory is down.
    pub emergency: bool,
    /// The longest that a session may live, if less than others'.
    pub lifetime_max: Option<Duration>,
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
    /// Whether that is only assumed, as the policy cannot be read.
    pub own_is_assumed: bool,
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
        let kind = match config.kind {
            DirectoryKind::Ldap | DirectoryKind::ActiveDirectory => {
                Kind::Ldap(Box::new(LdapDirectory::new(config, metrics, entropy)?))
            }
            DirectoryKind::File => Kind::File(Box::new(FileDirectory::new(config, metrics)?)),
        };
        let emergency = Emergency::new(config, metrics);
        Ok(Self { kind, emergency, doubt: Mutex::default() })
    }

    /// Checks a name and a password, within `directory.timeout`. At most one bind is
    /// sent with the password. The name of an emergency account is asked about as any other.
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
        let verified = match &self.kind {
            Kind::Ldap(ldap) => ldap.verify(credentials, found).await,
            Kind::File(file) => file.verify(credentials, found).await,
        };
        match &verified {
            // It was not asked whether the password is right.
            Err(VerifyError::Withheld | VerifyError::Unavailable(DirectoryError::Busy)) => {}
            Err(VerifyError::Unavailable(error) | VerifyError::Unjudged(error))
                if error.is_silence() =>
            {
                *self.doubt() = self.is_up().then(Instant::now);
            }
            _ => *self.doubt() = None,
        }
        verified
    }

    /// Whether there are emergency accounts, and after this answer one may log in.
    #[must_use]
    pub fn calls_for_emergency(&self, answer: &VerifyError) -> bool {
        self.emergency.is_some() && self.is_silence(answer)
    }

    /// Checks a name and a password of an emergency account. Nothing that can be measured
    /// tells whether there is one of the name.
    ///
    /// # Errors
    /// When there is none, the password is wrong, the account is closed, or too many others
    /// are being compared.
    pub async fn verify_emergency(&self, credentials: &Credentials) -> Result<Person, VerifyError> {
        match &self.emergency {
            Some(emergency) => emergency.verify(credentials).await,
            None => Err(VerifyError::Rejected(Rejection::NoSuchUser)),
        }
    }

    /// Whether an answer says that the directory gives none, so that an emergency account
    /// may be looked for.
    fn is_silence(&self, answer: &VerifyError) -> bool {
        match answer {
            // Others have found that out.
            VerifyError::Withheld | VerifyError::Unavailable(DirectoryError::Busy) => {
                self.is_doubted()
            }
            VerifyError::Unavailable(error) | VerifyError::Unjudged(error) => error.is_silence(),
            _ => false,
        }
    }

    fn doubt(&self) -> MutexGuard<'_, Option<Instant>> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_doubted(&self) -> bool {
        self.doubt().is_some_and(|since| since.elapsed() < DOUBT)
    }

    /// Whether every server failed when it was last asked.
    #[must_use]
    pub fn is_down(&self) -> bool {
        match &self.kind {
            Kind::Ldap(ldap) => ldap.is_down(),
            Kind::File(_) => false,
        }
    }

    /// What can be said against a new password before the directory is asked; its
    /// owner's names but for the login name are judged later, by `change`.
    ///
    /// # Errors
    /// What is wrong with it; `Unavailable` when too many others are being judged.
    pub async fn judge_new(
        &self,
        credentials: &Credentials,
        new: &Secret<String>,
    ) -> Result<(), ChangeError> {
        match &self.kind {
            Kind::Ldap(ldap) => ldap.judge_new(credentials, new).await,
            Kind::File(_) => Ok(()),
        }
    }

    /// Changes the password of whoever knows the old one, which `credentials` hold, in
    /// that person's name and within `directory.timeout`; `found` as for a login. Says
    /// who it was, if the entry does.
    ///
    /// # Errors
    /// When the old password is not right, the new one is refused, or the directory is
    /// unavailable; `Unknown` when it may have been changed all the same.
    pub async fn change(
        &self,
        credentials: &Credentials,
        new: &Secret<String>,
        found: impl AsyncFnOnce(Account) -> bool,
    ) -> Result<Option<Subject>, ChangeError> {
        match &self.kind {
            Kind::Ldap(ldap) => ldap.change(credentials, new, found).await,
            // The file is its keeper's; who has the password is told so.
            Kind::File(file) => match file.verify(credentials, found).await {
                Ok(_) | Err(VerifyError::NoRole { .. }) => {
                    Err(ChangeError::Objected(Objection::NotAllowed))
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Reads these accounts again and says how each stands, compared with what is known
    /// of it; some two hundred with one search. `now` is held against ends of accounts
    /// where the directory tells no time of its own.
    pub async fn recheck(&self, known: &[Known], now: Timestamp) -> Rechecked {
        match &self.kind {
            Kind::Ldap(ldap) => ldap.recheck(known, now).await,
            Kind::File(file) => {
                let standings = known.iter().map(|known| file.standing(known)).collect();
                Rechecked { standings, error: None }
            }
        }
    }

    /// Whether somebody could log in now by an emergency account.
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        self.emergency.is_some() && (self.is_down() || self.is_doubted())
    }

    /// Whether it answers, so that no emergency account is needed. One that seems up may
    /// still not answer logins.
    #[must_use]
    pub fn is_back(&self) -> bool {
        if !self.is_up() {
            // From here on it is its own looks that count.
            *self.doubt() = None;
            return false;
        }
        !self.is_doubted()
    }

    /// Whether an emergency account stands as it did at a login: there, open, with the same
    /// role and password.
    #[must_use]
    pub fn emergency_stands(&self, account: &str, role: &Role, stamp: Option<&str>) -> bool {
        let emergency = self.emergency.as_ref();
        emergency.is_some_and(|it| it.stands(account, role.as_str(), stamp))
    }

    /// Whether any server answered when it was last asked; false until one was.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match &self.kind {
            Kind::Ldap(ldap) => ldap.is_up(),
            Kind::File(_) => true,
        }
    }

    /// Tells when the directory locks accounts, as far as it lets that be read, and
    /// again when that is another; never returns, ends when dropped.
    pub async fn watch_lockout(&self, tell: impl Fn(LockoutReading)) {
        let mut told = None;
        loop {
            let reading = match &self.kind {
                Kind::Ldap(ldap) => ldap.lockout().await,
                Kind::File(_) => LockoutReading::Says(Lockout::NEVER),
            };
            if told.replace(reading) != Some(reading) {
                tell(reading);
            }
            sleep(LOCKOUT_INTERVAL).await;
        }
    }

    /// Whether the directory is known to have changed since this was last asked, as only a
    /// file is.
    #[must_use]
    pub fn take_change(&self) -> bool {
        match &self.kind {
            Kind::Ldap(_) => false,
            Kind::File(file) => file.take_change(),
        }
    }

    /// Asks every server regularly whether it answers, connects again before that is
    /// needed, closes unused connections, and looks after files; never returns, ends
    /// when dropped.
    pub async fn keep_up(&self) {
        let kind = async {
            match &self.kind {
                Kind::Ldap(ldap) => ldap.keep_up().await,
                Kind::File(file) => file.keep_up().await,
            }
        };
        let emergency = async {
            if let Some(emergency) = &self.emergency {
                emergency.keep().await;
            }
        };
        tokio::join!(kind, emergency);
    }
}

#[cfg(test)]
mod tests {
    use super::Directory;
    use crate::ambient::Timestamp;
    use crate::identity::Credentials;

    /// Logins run on a runtime of their own, whatever worker asked for them.
    #[test]
    fn a_login_may_move_between_threads() {
        const fn sends<T: Send>(_: &T) {}
        let _ = |directory: &Directory, credentials: &Credentials| {
            sends(&directory.verify(credentials));
            sends(&directory.keep_up());
            sends(&directory.recheck(&[], Timestamp::from_millis(0)));
        };
    }
}
