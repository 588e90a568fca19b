//! `[directory.break_glass]`: accounts for the time while the directory is down.

use std::time::Duration;

use super::kind;
use super::reader::Reader;
use super::users::UsersFile;
use crate::identity::Role;

/// `[directory.break_glass]`.
#[derive(Clone, Debug)]
pub struct BreakGlass {
    /// The accounts, each with a role.
    pub users: UsersFile,
    /// The longest that a session of theirs lives.
    pub session_lifetime: Duration,
}

impl BreakGlass {
    /// Reads `[directory.break_glass]`.
    pub(super) fn read(r: &mut Reader<'_>, roles: &[Role]) -> Option<Self> {
        let doc = "The emergency accounts, in a file like directory.users_file; each with a role.";
        let users = r.users_file("users_file", (roles, true), doc);
        let session_lifetime = r.or(
            "session_lifetime",
            kind::seconds(),
            Duration::from_mins(30),
            "From their login to the end of their session, if it does not end before: when the \
             directory is back.",
        );
        if session_lifetime > Duration::from_hours(12) {
            r.note("session_lifetime", "emergencies of more than 12 hours");
        }
        Some(Self { users: users?, session_lifetime })
    }
}
