//! The people of a users file: found by name, their passwords compared, and the file
//! read again when it changes. Knows no LDAP and nothing of roles but what the file
//! says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::{digest, hmac};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::config;
use crate::config::User;
use crate::directory::meter::Meter;
use crate::directory::stamp::Stamp;
use crate::directory::{Bar, DirectoryError, Operation, Person, Rejection, VerifyError};
use crate::identity::{Attributes, Credentials, PasswordHash, Subject, fold_name};
use crate::metrics::Metrics;
use crate::secret::Secret;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// As much of a hash as nobody meets twice.
const STAMP_BYTES: usize = 16;

/// A users file, its people as of now.
pub(super) struct UsersFile {
    /// What the file is for, in metrics and log.
    label: &'static str,
    table: ArcSwap<Table>,
    checks: Arc<Semaphore>,
    /// How long a login waits for its turn.
    patience: Duration,
    /// Whether it was read since somebody last asked.
    changed: AtomicBool,
    metrics: Metrics,
    meter: Meter,
}

/// One state of the file.
struct Table {
    file: config::UsersFile,
    /// Where in the file, by folded name.
    places: HashMap<String, usize>,
    /// Made of all hashes, so that nobody outside can tell what it decides.
    secret: hmac::Key,
}

/// Somebody whose password has not been compared yet; whether there is such a user
/// shows in nothing that can be measured.
pub(super) struct Candidate {
    user: Option<User>,
    hash: PasswordHash,
}

impl UsersFile {
    pub(super) fn new(
        file: config::UsersFile,
        label: &'static str,
        (checks, patience): (usize, Duration),
        metrics: &Metrics,
    ) -> Self {
        let meter = Meter::new(metrics.clone(), label.to_owned());
        for result in ["ok", "error"] {
            // Stands at zero from the start, so that its first increase is seen.
            let _ = metrics.users_file_reloads(label, result);
        }
        Self {
            label,
            table: ArcSwap::from_pointee(Table::new(file)),
            checks: Arc::new(Semaphore::new(checks)),
            patience,
            changed: AtomicBool::new(true),
            metrics: metrics.clone(),
            meter,
        }
    }

    /// Whom a login is about.
    pub(super) fn find(&self, credentials: &Credentials) -> Candidate {
        self.table.load().find(&credentials.folded_name())
    }

    /// The user of a folded name.
    pub(super) fn get(&self, name: &str) -> Option<User> {
        self.table.load().get(name).cloned()
    }

    /// Compares the password.
    ///
    /// # Errors
    /// When it does not fit, or too many others are being compared.
    pub(super) async fn prove(
        &self,
        candidate: Candidate,
        password: &Secret<String>,
    ) -> Result<User, VerifyError> {
        let Candidate { user, hash } = candidate;
        let comparing = self.compare(hash, password.clone());
        let fits = self.meter.observe(Operation::PasswordCheck, comparing).await?;
        match user {
            Some(user) if fits => Ok(user),
            Some(_) => Err(VerifyError::Rejected(Rejection::WrongPassword)),
            None => Err(VerifyError::Rejected(Rejection::NoSuchUser)),
        }
    }

    /// Whether the file was read anew since this was last asked.
    pub(super) fn take_change(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// Looks after the file until it is dropped. One that is being written is left
    /// alone until two looks in a row find it the same.
    pub(super) async fn keep(&self) {
        let mut judged = self.table.load().file.state;
        let mut before = judged;
        loop {
            sleep(LOOK_INTERVAL).await;
            let file = self.table.load().file.clone();
            let Ok(now) = spawn_blocking(move || file.current_state()).await else { continue };
            if now != judged && now == before {
                judged = now;
                self.read_again().await;
            }
            before = now;
        }
    }

    /// Takes over the file as it is now; a bad one changes nothing.
    async fn read_again(&self) {
        let file = self.table.load().file.clone();
        let path = file.path.display().to_string();
        let Ok(read) = spawn_blocking(move || file.read_again()).await else { return };
        let result = match read {
            Ok(file) => {
                tracing::info!(
                    file = path,
                    users = file.users.len(),
                    "a users file was read again"
                );
                self.table.store(Arc::new(Table::new(file)));
                self.changed.store(true, Ordering::Release);
                "ok"
            }
            Err(problems) => {
                for problem in problems.iter() {
                    tracing::error!("{problem}");
                }
                tracing::error!(
                    file = path,
                    "a users file was not taken over; its old state stays"
                );
                "error"
            }
        };
        self.metrics.users_file_reloads(self.label, result).inc();
    }

    /// Waits for a turn, then compares where nothing else waits.
    async fn compare(
        &self,
        hash: PasswordHash,
        password: Secret<String>,
    ) -> Result<bool, DirectoryError> {
        let waiting = Arc::clone(&self.checks).acquire_owned();
        let Ok(Ok(permit)) = timeout(self.patience, waiting).await else {
            self.metrics.limit_hits("password_checks").inc();
            return Err(DirectoryError::Timeout);
        };
        let comparing = spawn_blocking(move || {
            let fits = hash.fits(&password);
            drop(permit);
            fits
        });
        comparing.await.map_err(|_| DirectoryError::Protocol("a password's hash"))
    }
}

impl Table {
    fn new(file: config::UsersFile) -> Self {
        let users = file.users.iter().enumerate();
        let places = users.map(|(place, user)| (fold_name(&user.name), place)).collect();
        let hashes: String =
            file.users.iter().map(|user| user.password.to_phc().expose().clone()).collect();
        let secret = hmac::Key::new(hmac::HMAC_SHA256, Secret::new(hashes).expose().as_bytes());
        Self { file, places, secret }
    }

    fn get(&self, name: &str) -> Option<&User> {
        self.places.get(name).and_then(|place| self.file.users.get(*place))
    }

    fn find(&self, name: &str) -> Candidate {
        let user = self.get(name);
        let hash = user.map_or_else(|| self.hash_for_nobody(name), |user| user.password.clone());
        Candidate { user: user.cloned(), hash }
    }

    /// What an unknown name's password is compared with: one name always with the same
    /// user's hash, so that it costs what those of the file cost, in their proportion.
    fn hash_for_nobody(&self, name: &str) -> PasswordHash {
        let tag = hmac::sign(&self.secret, name.as_bytes());
        let number = tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let count = u64::try_from(self.file.users.len()).unwrap_or(1).max(1);
        let place = usize::try_from(number % count).unwrap_or(0);
        let user = self.file.users.get(place);
        user.map_or_else(PasswordHash::decoy, |user| user.password.clone())
    }
}

impl Candidate {
    /// Whether there is such a user.
    pub(super) const fn is_known(&self) -> bool {
        self.user.is_some()
    }
}

/// What tells a password from a later one: a hash of its hash, which says nothing.
pub(super) fn stamp(user: &User) -> String {
    let phc = user.password.to_phc();
    let digest = digest::digest(&digest::SHA256, phc.expose().as_bytes());
    let text = digest.as_ref().iter().take(STAMP_BYTES).map(|byte| format!("{byte:02x}"));
    let password = Some(format!("password_hash={}", text.collect::<String>()));
    Stamp { password, entry: None }.text()
}

/// Who a user is whose password was right; `disabled` is what keeps out one who is not
/// to log in.
///
/// # Errors
/// When the user is disabled or has no role.
pub(super) fn person(
    user: &User,
    account: String,
    (asked, disabled): (&[String], Bar),
) -> Result<Person, VerifyError> {
    let subject = Subject::new(&user.name);
    if user.is_disabled {
        return Err(VerifyError::AccountUnavailable(disabled));
    }
    let Some(role) = user.role.clone() else {
        return Err(VerifyError::NoRole { account, subject });
    };
    Ok(Person {
        subject,
        role,
        account,
        notice: None,
        attributes: asked_for(asked, &user.attributes),
        stamp: Some(stamp(user)),
        emergency: false,
        lifetime_max: None,
    })
}

/// Of what the file says, that which claims ask for.
fn asked_for(names: &[String], said: &Attributes) -> Attributes {
    let mut kept = Attributes::default();
    for name in names {
        if let Err(cause) = kept.add(name, said.values(name).to_vec()) {
            tracing::error!(attribute = name, %cause, "claims go without an attribute");
        }
    }
    kept
}

#[cfg(test)]
mod tests;
