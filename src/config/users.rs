//! A users file: people with the hashes of their passwords, read as the configuration
//! is, with all problems at once. Knows neither who logs in nor when it is read again.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::Document;
use super::kind::{self, AttributeTable, Boolean, List};
use super::problem::{Expected, Problem, Problems};
use super::reader::{Findings, Reader};
use crate::ambient::Timestamp;
use crate::identity::{Attributes, PasswordHash, Role, fold_name};

/// A users file and what it said when it was last read.
#[derive(Clone, Debug)]
pub struct UsersFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its people, no two of one name.
    pub users: Arc<[User]>,
    /// Which state of the file that was.
    pub state: Option<FileState>,
    /// The names of `[[directory.role]]`, in order.
    roles: Arc<[Role]>,
    /// Whether each of its people must have one.
    needs_role: bool,
}

/// Somebody of a users file.
#[derive(Clone, Debug)]
pub struct User {
    /// The login name as the file spells it; also who he is to the upstream.
    pub name: String,
    /// The hash of his password.
    pub password: PasswordHash,
    /// The first of `[[directory.role]]` that he has, if any.
    pub role: Option<Role>,
    /// What claims may ask for.
    pub attributes: Attributes,
    /// Whether he may not log in.
    pub is_disabled: bool,
}

/// What tells one state of a file from another without reading it: place, size, and
/// the times of the last change of content, owner or mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState([i64; 7]);

impl UsersFile {
    /// Reads a file whose people have some of these roles, each at least one if so said.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(path: PathBuf, roles: &[Role], needs_role: bool) -> Result<Self, Problems> {
        let (users, roles) = (Arc::from([]), Arc::from(roles));
        Self { path, users, state: None, roles, needs_role }.read_again()
    }

    /// The same file as it is now.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read_again(&self) -> Result<Self, Problems> {
        // Taken before: what changes meanwhile is read again.
        let state = self.current_state();
        let problems = |problems| Problems { problems, notes: Vec::new() };
        let document = Document::read(&self.path, [], Timestamp::from_seconds(0))
            .map_err(|problem| problems(vec![problem]))?;
        let mut findings = Findings::default();
        let users = Reader::read_root(&document, &mut findings, |r| self.read_users(r));
        match users {
            Some(users) if findings.problems.is_empty() => {
                Ok(Self { users: users.into(), state, ..self.clone() })
            }
            _ => Err(problems(findings.problems)),
        }
    }

    /// The file's state now; `None` when there is no such file.
    #[must_use]
    pub fn current_state(&self) -> Option<FileState> {
        FileState::of(&self.path)
    }

    /// `None` only beside a problem.
    fn read_users(&self, r: &mut Reader<'_>) -> Option<Vec<User>> {
        if r.document().world_readable {
            r.push(Problem {
                source: r.document().name.clone(),
                key: String::new(),
                row: None,
                found: "a file that everybody on the machine may read".to_owned(),
                expected: Expected::Allowed("a file of mode 0640 or less".to_owned()),
            });
        }
        let users = r.tables("user", "Somebody who may log in.", |r| self.read_user(r));
        let mut known = HashMap::new();
        // Also those of users with which something else is wrong.
        for (index, name) in r.texts("user", "name").iter().enumerate() {
            let Some(name) = name else { continue };
            if let Some(earlier) = known.insert(fold_name(name), index + 1) {
                let found = format!("{name:?}, which is no. {earlier} already");
                let allowed = "each name once, whatever its case and spaces".to_owned();
                r.problem_in(("user", index, "name"), found, allowed);
            }
        }
        users.into_iter().collect()
    }

    fn read_user(&self, r: &mut Reader<'_>) -> Option<User> {
        let name = r.required("name", kind::user_name(), "What he types.");
        let hash = kind::password_hash();
        let password = r.required("password_hash", hash, "The hash of his password.");
        let roles = r.or("roles", List { of: kind::line(), min: 0 }, Vec::new(), "His roles.");
        for role in roles.iter().filter(|role| !self.has_role(role)) {
            let known: Vec<&str> = self.roles.iter().map(Role::as_str).collect();
            let allowed = format!("roles of [[directory.role]]: {}", known.join(", "));
            r.problem("roles", format!("{role:?}"), allowed);
        }
        if self.needs_role && roles.is_empty() && r.is_clean() {
            r.problem("roles", "none", "at least one role of [[directory.role]]".to_owned());
        }
        let attributes = r.optional("attributes", AttributeTable, "What claims may ask for.");
        let is_disabled = r.or("disabled", Boolean, false, "Whether he may not log in.");
        let has = |role: &&Role| roles.iter().any(|name| name == role.as_str());
        Some(User {
            name: name?,
            password: password?,
            role: self.roles.iter().find(has).cloned(),
            attributes: attributes.unwrap_or_default(),
            is_disabled,
        })
    }

    fn has_role(&self, name: &str) -> bool {
        self.roles.iter().any(|role| role.as_str() == name)
    }
}

impl FileState {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        let place = [file.dev(), file.ino(), file.size()].map(u64::cast_signed);
        let [device, inode, size] = place;
        let content = (file.mtime(), file.mtime_nsec());
        let anything = (file.ctime(), file.ctime_nsec());
        Some(Self([device, inode, size, content.0, content.1, anything.0, anything.1]))
    }
}

impl Reader<'_> {
    /// A users file that must be there, with all that is wrong with it among our own
    /// problems; that of people who must have a role always, others beside what was read
    /// before it.
    pub(super) fn users_file(
        &mut self,
        key: &'static str,
        (roles, needs_role): (&[Role], bool),
        doc: &'static str,
    ) -> Option<UsersFile> {
        let path = if needs_role {
            self.required(key, kind::file(), doc)
        } else {
            self.required_here(key, kind::file(), doc)
        };
        match UsersFile::read(self.resolve(&path?), roles, needs_role) {
            Ok(file) => Some(file),
            Err(problems) => {
                problems.problems.into_iter().for_each(|problem| self.push(problem));
                None
            }
        }
    }
}
