//! A walk along the way of a login, one step at a time, for an operator who wants
//! to know where it breaks off. Uses the parts that logins use, asks for no password
//! and changes nothing. Knows no screen.

mod server;

use std::sync::Arc;
use std::time::Duration;

use ldap3::Scope;
use tokio::time::{Instant, timeout};

use crate::ambient::{Entropy, Timestamp};
use crate::config;
use crate::config::Lockout;
use crate::directory::ahead::Searches;
use crate::directory::connection::Search;
use crate::directory::discovery::Discovery;
use crate::directory::entry::Entry;
use crate::directory::examine::server::reach;
use crate::directory::expect::{self, Suspicion};
use crate::directory::filter::{Attribute, Filter};
use crate::directory::ldap::LdapDirectory;
use crate::directory::outcome::Rejection;
use crate::directory::{DirectoryError, Operation, VerifyError};
use crate::identity::{Credentials, Role, fold_name};
use crate::metrics::Metrics;
use crate::secret::Secret;

/// One step that was tried.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where: a server, or a key of the configuration.
    pub place: String,
    /// What was tried.
    pub tried: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub finding: Finding,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be; what was found.
    Fine(String),
    /// It works, but probably not as it was meant; what to look at.
    Suspect(String),
    /// It does not work; what to try next.
    Failed(String),
}

/// Takes steps as they are made.
pub(super) struct Examination<'r> {
    report: &'r mut dyn FnMut(Step),
    began: Instant,
    timeout: Duration,
    now: Timestamp,
}

impl Examination<'_> {
    fn note(&mut self, place: &str, tried: &'static str, finding: Finding) {
        let took = self.began.elapsed();
        (self.report)(Step { place: place.to_owned(), tried, took, finding });
        self.began = Instant::now();
    }

    /// Runs one step; `None` when it did not come to a good end, which is told.
    async fn step<T>(
        &mut self,
        (place, tried): (&str, &'static str),
        work: impl Future<Output = Result<(T, Finding), Finding>>,
    ) -> Option<T> {
        self.began = Instant::now();
        let slow = || {
            Err(Finding::Failed(format!(
                "no answer within {:?}: is it overloaded, does a firewall drop what is said, or is \
                 directory.timeout too short?",
                self.timeout
            )))
        };
        let done = timeout(self.timeout, work).await.unwrap_or_else(|_| slow());
        let (value, finding) = match done {
            Ok((value, finding)) => (Some(value), finding),
            Err(finding) => (None, finding),
        };
        self.note(place, tried, finding);
        value
    }
}

/// What to think of a lock-out, as far as it could be read: that of all accounts, or
/// that of an account whose own policy has this name.
pub type JudgeLockout<'j> = &'j dyn Fn(Option<Lockout>, Option<&str>) -> Finding;

/// Walks from the servers' names to the roles, and with a name on to that person's
/// role, which is the answer. `report` is told of each step as it is made.
pub async fn examine(
    config: &config::Directory,
    user: Option<&str>,
    (metrics, entropy, now): (&Metrics, &Entropy, Timestamp),
    judge: JudgeLockout<'_>,
    report: &mut dyn FnMut(Step),
) -> Option<Role> {
    let (began, timeout) = (Instant::now(), config.timeout);
    let mut examination = Examination { report, began, timeout, now };
    if let Some(file) = &config.users {
        return in_file(&mut examination, file, user);
    }
    let mut first = None;
    let found = config.discovery.as_ref().map(|it| Arc::new(Discovery::new(it, entropy)));
    let servers = match &found {
        None => config.servers.clone(),
        Some(found) => examination.step(("directory.urls", "ask DNS"), look_up(found)).await?,
    };
    for server in &servers {
        let place = (server, found.as_ref());
        let connection = Box::pin(reach(&mut examination, config, place)).await;
        first = first.or(connection);
    }
    let connection = first?;
    expect::content(&mut examination, config, &connection).await;
    drop(connection);
    let directory = match LdapDirectory::new(config, metrics, entropy) {
        Ok(directory) => directory,
        Err(error) => {
            examination.note("directory", "prepare", Finding::Failed(error.to_string()));
            return None;
        }
    };
    let lockout = async { Ok(((), judge(directory.lockout().await.lockout(), None))) };
    examination.step(("lock-out", "read"), lockout).await;
    person(&mut examination, &directory, user?, judge).await
}

/// The whole way where there is no server: the file was read with the configuration.
fn in_file(
    examination: &mut Examination<'_>,
    file: &config::UsersFile,
    user: Option<&str>,
) -> Option<Role> {
    let place = file.path.display().to_string();
    let found = Finding::Fine(format!("{} users", file.users.len()));
    examination.note(&place, "read", found);
    let name = fold_name(user?);
    let user = file.users.iter().find(|user| fold_name(&user.name) == name);
    let (role, finding) = match user {
        None => (None, Finding::Failed("no [[user]] has this name".to_owned())),
        Some(user) if user.is_disabled => {
            (None, Finding::Failed("this user has disabled = true".to_owned()))
        }
        Some(user) => match &user.role {
            None => (None, Finding::Failed("this user has no roles".to_owned())),
            Some(role) => (Some(role.clone()), Finding::Fine(role.to_string())),
        },
    };
    examination.note(&place, "role", finding);
    role
}

/// Which servers a domain has.
async fn look_up(found: &Discovery) -> Result<(Vec<config::LdapServer>, Finding), Finding> {
    let servers = found.look_up().await.map_err(|error| {
        Finding::Failed(format!(
            "{error}: is the domain in directory.urls spelled right, and does that DNS server \
             know it (directory.dns_servers)?"
        ))
    })?;
    let servers = servers.servers;
    let shown: Vec<_> = servers.iter().map(|it| format!("{}:{}", it.host, it.port)).collect();
    Ok((servers, Finding::Fine(shown.join(", "))))
}

/// The person's entry, groups and role, by the very parts that a login uses.
async fn person(
    examination: &mut Examination<'_>,
    directory: &LdapDirectory,
    user: &str,
    judge: JudgeLockout<'_>,
) -> Option<Role> {
    let place = "user";
    let entry = examination.step((place, "search"), find(directory, user)).await?;
    let lockout = async {
        let own = directory.own_policy(&entry).await;
        let none = || Finding::Fine("no policy of its own counts".to_owned());
        Ok(((), own.map_or_else(none, |policy| judge(policy.lockout, Some(&policy.dn)))))
    };
    examination.step((place, "lock-out"), lockout).await;
    let account = entry.dn.clone();
    let work = async {
        let role = directory.role_of(&entry.dn, &Searches::plain(&directory.pool)).await;
        match directory.person(&entry, account, role.map_err(hidden)?) {
            Ok(person) => {
                let text =
                    format!("sub {:?}, role {:?}", person.subject.as_str(), person.role.as_str());
                Ok((person.role, Finding::Fine(text)))
            }
            Err(VerifyError::NoRole { .. }) => Err(Finding::Failed(
                "in no group of a [[directory.role]]: a login ends with NoRole".to_owned(),
            )),
            Err(VerifyError::AccountUnavailable(bar)) => Err(Finding::Failed(format!(
                "a login ends with AccountUnavailable: {} (directory.subject_attribute?)",
                bar.label()
            ))),
            Err(error) => Err(Finding::Failed(error.to_string())),
        }
    };
    examination.step((place, "groups and role"), work).await
}

/// Groups that cannot be read.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn hidden(error: DirectoryError) -> Finding {
    Finding::Failed(match error {
        DirectoryError::HiddenGroups => {
            format!("{error}: make it a member of \"Windows Authorization Access Group\"")
        }
        DirectoryError::Refused { .. } => {
            format!("{error}: may the service account search the groups?")
        }
        _ => error.to_string(),
    })
}

async fn find(directory: &LdapDirectory, user: &str) -> Result<(Entry, Finding), Finding> {
    let credentials = Credentials::parse(user.to_owned(), Secret::new("unused".to_owned()))
        .map_err(|_| Finding::Failed("no directory is asked about such a name".to_owned()))?;
    match directory.find(credentials.name()).await {
        Ok(entry) => {
            let dn = entry.dn.clone();
            Ok((entry, Finding::Fine(dn)))
        }
        Err(VerifyError::Rejected(Rejection::NoSuchUser)) => Err(Finding::Failed(
            "no entry: look at directory.base_dn, user_filter and user_attribute".to_owned(),
        )),
        Err(VerifyError::Rejected(Rejection::Ambiguous)) => Err(Finding::Failed(
            "several entries have this name: nobody can log in with it".to_owned(),
        )),
        Err(VerifyError::Rejected(Rejection::OtherDomain)) => Err(Finding::Failed(
            "the name is of another domain than the one that answers".to_owned(),
        )),
        // What it says of itself is not why.
        Err(VerifyError::Unavailable(error)) => {
            Err(Finding::Failed(format!("{error}: is what the steps above found what was meant?")))
        }
        Err(error) => Err(Finding::Failed(error.to_string())),
    }
}

/// A search of one entry by its name.
pub(super) fn base_search<'s>(
    base: &'s str,
    filter: &'s Filter,
    attributes: &'s [&'s str],
) -> Search<'s> {
    let operation = Operation::Probe;
    Search { operation, base, scope: Scope::Base, filter, attributes, entries_max: 1 }
}

pub(super) fn object_class() -> Result<Attribute, Finding> {
    Attribute::parse("objectClass").ok_or_else(|| Finding::Failed("objectClass".to_owned()))
}

impl Examination<'_> {
    /// Looks at one thing of the directory's content.
    pub(super) async fn look(
        &mut self,
        (key, tried): (&str, &'static str),
        work: impl Future<Output = Result<(), Suspicion>>,
    ) {
        let judged = async {
            match work.await {
                Ok(()) => Ok(((), Finding::Fine("found".to_owned()))),
                Err(Suspicion::Doubt(text)) => Ok(((), Finding::Suspect(text))),
                Err(Suspicion::Error(text)) => Err(Finding::Failed(text)),
            }
        };
        self.step((key, tried), judged).await;
    }
}
