//! Emergency accounts: people of a file of ours who may log in while the directory
//! cannot say who anybody is. Knows not whether it can, nor what is asked of them
//! besides a password.

use std::time::Duration;

use crate::config;
use crate::directory::users_file::{UsersFile, person, stamp};
use crate::directory::{Bar, Person, Rejection, VerifyError};
use crate::identity::Credentials;
use crate::metrics::Metrics;

/// How the file is called in metrics.
const LABEL: &str = "break_glass";
/// What begins the account of every one of them; no distinguished name does.
const PREFIX: &str = "break_glass/";
/// What a login by one of them comes to.
const RESULTS: [&str; 6] =
    ["ok", "no_reason", "wrong_password", "disabled", "store_unavailable", "unrecorded"];

/// The emergency accounts of a directory.
pub(super) struct Emergency {
    users: UsersFile,
    session_lifetime: Duration,
    /// What claims ask for.
    attributes: Vec<String>,
}

impl Emergency {
    /// `None` when there are no such accounts.
    pub(super) fn new(config: &config::Directory, metrics: &Metrics) -> Option<Self> {
        let break_glass = config.break_glass.as_ref()?;
        let bounds = (config.password_checks, config.timeout);
        for result in RESULTS {
            // Stands at zero from the start, so that its first increase is seen.
            let _ = metrics.break_glass_logins(result);
        }
        Some(Self {
            users: UsersFile::new(break_glass.users.clone(), LABEL, bounds, metrics),
            session_lifetime: break_glass.session_lifetime,
            attributes: config.attributes.clone(),
        })
    }

    /// Checks a name and a password, in the same time whether or not the name is one of
    /// theirs.
    ///
    /// # Errors
    /// When they do not fit, the account is closed, or too many others are being compared.
    pub(super) async fn verify(&self, credentials: &Credentials) -> Result<Person, VerifyError> {
        let candidate = self.users.find(credentials);
        let proved = self.users.prove(candidate, credentials.password()).await;
        let user = proved.map_err(|error| match error {
            VerifyError::Rejected(Rejection::WrongPassword) => {
                VerifyError::Rejected(Rejection::Emergency)
            }
            error => error,
        })?;
        let account = account(&credentials.folded_name());
        let person = person(&user, account, (&self.attributes, Bar::EmergencyDisabled))?;
        Ok(Person { emergency: true, lifetime_max: Some(self.session_lifetime), ..person })
    }

    /// Whether somebody who logged in with this account and this password's stamp may
    /// go on.
    pub(super) fn stands(&self, account: &str, role: &str, known: Option<&str>) -> bool {
        let name = account.strip_prefix(PREFIX).unwrap_or_default();
        self.users.get(name).is_some_and(|user| {
            let same_role = user.role.as_ref().is_some_and(|it| it.as_str() == role);
            !user.is_disabled && same_role && known == Some(stamp(&user).as_str())
        })
    }

    /// Looks after the file; never returns.
    pub(super) async fn keep(&self) {
        self.users.keep().await;
    }
}

/// The account of a folded name, as sessions and records call it.
fn account(name: &str) -> String {
    format!("{PREFIX}{name}")
}
