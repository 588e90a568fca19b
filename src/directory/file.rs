//! A directory that is a file: for places that have no server. Knows nobody but whom
//! the file names.

use crate::config;
use crate::config::Lockout;
use crate::directory::users_file::{UsersFile, person, stamp};
use crate::directory::{Account, Bar, DirectoryError, Known, Person, Standing, VerifyError};
use crate::identity::Credentials;
use crate::metrics::{DirectoryUp, Metrics};

/// How the file is called in metrics.
const LABEL: &str = "users_file";

/// A directory of one users file.
pub(super) struct FileDirectory {
    users: UsersFile,
    /// What claims ask for.
    attributes: Vec<String>,
    _up: DirectoryUp,
}

impl FileDirectory {
    pub(super) fn new(
        config: &config::Directory,
        metrics: &Metrics,
    ) -> Result<Self, DirectoryError> {
        let users = config.users.clone();
        let users = users.ok_or_else(|| DirectoryError::Configuration("no users file".into()))?;
        let bounds = (config.password_checks, config.timeout);
        // Once read it can always be asked.
        let up = metrics.directory_server(LABEL);
        up.set(true);
        Ok(Self {
            _up: up,
            users: UsersFile::new(users, LABEL, bounds, metrics),
            attributes: config.attributes.clone(),
        })
    }

    pub(super) async fn verify(
        &self,
        credentials: &Credentials,
        found: impl AsyncFnOnce(Account) -> bool,
    ) -> Result<Person, VerifyError> {
        let account = credentials.folded_name();
        let candidate = self.users.find(credentials);
        let unlocked = Account {
            name: account.clone(),
            general_lockout: Some(Lockout::NEVER),
            own_lockout: None,
            own_is_assumed: false,
        };
        if candidate.is_known() && !found(unlocked).await {
            return Err(VerifyError::Withheld);
        }
        let user = self.users.prove(candidate, credentials.password()).await?;
        person(&user, account, (&self.attributes, Bar::Disabled))
    }

    /// How somebody stands in the file now.
    pub(super) fn standing(&self, known: &Known) -> Standing {
        let Some(user) = self.users.get(&known.account) else { return Standing::Gone };
        if user.name != known.subject.as_str() {
            Standing::Gone
        } else if user.is_disabled {
            Standing::Disabled
        } else if known.stamp.as_ref().is_some_and(|before| *before != stamp(&user)) {
            Standing::PasswordChanged
        } else {
            match user.role {
                None => Standing::RoleLost,
                Some(role) if role != known.role => Standing::RoleChanged,
                Some(_) => Standing::Unchanged,
            }
        }
    }

    /// Whether anything may be other than when this was last asked.
    pub(super) fn take_change(&self) -> bool {
        self.users.take_change()
    }

    /// Looks after the file; never returns.
    pub(super) async fn keep_up(&self) {
        self.users.keep().await;
    }
}
