use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::{Table, UsersFile};
use crate::ambient::Entropy;
use crate::config;
use crate::directory::{DirectoryError, Rejection, VerifyError};
use crate::identity::{Credentials, PasswordHash, Role};
use crate::metrics::Metrics;
use crate::secret::Secret;

/// A folder with a users file.
struct Folder(TempDir);

impl Folder {
    fn new(users: &[(&str, &PasswordHash)]) -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.write(users);
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("users.toml")
    }

    fn write(&self, users: &[(&str, &PasswordHash)]) {
        let user = |(name, hash): &(&str, &PasswordHash)| {
            let hash = hash.to_phc();
            let hash = hash.expose();
            format!(
                "[[user]]\nname = \"{name}\"\npassword_hash = \"{hash}\"\nroles = [\"admin\"]\n"
            )
        };
        self.write_text(&users.iter().map(user).collect::<String>());
    }

    /// Puts a file of mode 0600 in its place.
    fn write_text(&self, text: &str) {
        let beside = self.0.path().join("new");
        fs::write(&beside, text).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(beside, self.path()).unwrap();
    }

    fn read(&self) -> config::UsersFile {
        config::UsersFile::read(self.path(), &[Role::new("admin")], false).unwrap()
    }

    fn users(&self, checks: usize, metrics: &Metrics) -> UsersFile {
        UsersFile::new(self.read(), "users_file", (checks, Duration::from_secs(1)), metrics)
    }
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn hash(password: &str) -> PasswordHash {
    PasswordHash::fresh(&secret(password), &Entropy::seeded(1)).unwrap()
}

/// As weak as is allowed, so that it can be told from a fresh one.
fn older_hash() -> PasswordHash {
    let text =
        "$argon2id$v=19$m=7168,t=5,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    PasswordHash::parse(text).unwrap()
}

fn credentials(name: &str, password: &str) -> Credentials {
    Credentials::parse(name.to_owned(), secret(password)).unwrap()
}

async fn prove(users: &UsersFile, name: &str, password: &str) -> Result<String, VerifyError> {
    let credentials = credentials(name, password);
    let candidate = users.find(&credentials);
    users.prove(candidate, credentials.password()).await.map(|user| user.name)
}

#[tokio::test]
async fn a_name_is_found_in_every_spelling_and_only_its_password_fits() {
    let folder = Folder::new(&[("Zoë Berg", &hash("right")), ("bob", &hash("bob's"))]);
    let users = folder.users(2, &Metrics::new().unwrap());
    for name in ["Zoë Berg", " ZOË  berg "] {
        assert_eq!(prove(&users, name, "right").await.unwrap(), "Zoë Berg");
    }
    let wrong = prove(&users, "zoë berg", "bob's").await;
    assert!(matches!(wrong, Err(VerifyError::Rejected(Rejection::WrongPassword))));
}

#[tokio::test]
async fn an_unknown_name_is_nobody_even_with_somebodys_password() {
    let folder = Folder::new(&[("alice", &hash("right"))]);
    let users = folder.users(2, &Metrics::new().unwrap());
    // The hash that it is compared with fits: still there is no such user.
    let nobody = prove(&users, "mallory", "right").await;
    assert!(matches!(nobody, Err(VerifyError::Rejected(Rejection::NoSuchUser))));
}

#[test]
fn an_unknown_name_costs_what_those_of_the_file_cost() {
    let (fresh, older) = (hash("x"), older_hash());
    let names: Vec<String> = (0..40).map(|number| format!("user{number}")).collect();
    let users = names.iter().enumerate();
    let users = users.map(|(at, name)| (name.as_str(), if at % 4 == 0 { &older } else { &fresh }));
    let folder = Folder::new(&users.collect::<Vec<_>>());
    let table = Table::new(folder.read());
    let phc = |hash: &PasswordHash| hash.to_phc().expose().clone();
    let mut of_older = 0;
    for number in 0..1000 {
        let name = format!("nobody{number}");
        let candidate = table.find(&name);
        assert!(!candidate.is_known());
        assert_eq!(phc(&candidate.hash), phc(&table.find(&name).hash), "always the same one");
        of_older += usize::from(phc(&candidate.hash) == phc(&older));
    }
    assert!((150..350).contains(&of_older), "about a quarter, as in the file: {of_older}");
}

#[tokio::test(start_paused = true)]
async fn whoever_gets_no_turn_in_time_is_told_so_and_counted() {
    let folder = Folder::new(&[("alice", &hash("right"))]);
    let metrics = Metrics::new().unwrap();
    let users = folder.users(1, &metrics);
    let turn = users.checks.acquire().await.unwrap();
    let late = prove(&users, "alice", "right").await;
    assert!(matches!(late, Err(VerifyError::Unavailable(DirectoryError::Timeout))));
    assert_eq!(metrics.limit_hits("password_checks").get(), 1);
    drop(turn);
}

#[tokio::test(start_paused = true)]
async fn the_file_is_read_again_once_it_has_come_to_rest() {
    let folder = Folder::new(&[("alice", &hash("right"))]);
    let metrics = Metrics::new().unwrap();
    let users = folder.users(1, &metrics);
    let ok = metrics.users_file_reloads("users_file", "ok");
    let error = metrics.users_file_reloads("users_file", "error");
    let looks = |looks: u32| tokio::time::sleep(super::LOOK_INTERVAL * looks);
    tokio::select! {
        () = users.keep() => {}
        () = async {
            looks(5).await;
            assert_eq!((ok.get(), error.get()), (0, 0), "nothing changed");
            folder.write(&[("bob", &hash("right"))]);
            while ok.get() == 0 {
                looks(1).await;
            }
            assert!(users.find(&credentials("bob", "x")).is_known());
            assert!(!users.find(&credentials("alice", "x")).is_known());

            folder.write_text("[[user]]\nname = \"carol\"\n");
            while error.get() == 0 {
                looks(1).await;
            }
            looks(5).await;
            assert_eq!((ok.get(), error.get()), (1, 1), "said once");
            assert!(users.find(&credentials("bob", "x")).is_known(), "the old state stays");

            fs::remove_file(folder.path()).unwrap();
            while error.get() == 1 {
                looks(1).await;
            }
            assert!(users.find(&credentials("bob", "x")).is_known());
            folder.write(&[("carol", &hash("right"))]);
            while ok.get() == 1 {
                looks(1).await;
            }
            assert!(users.find(&credentials("carol", "x")).is_known());
        } => {}
    }
}
