//! Users files, and the section `[directory]` that reads one.

use std::fmt::Write as _;

use bindgate::ambient::Entropy;
use bindgate::identity::PasswordHash;
use bindgate::secret::Secret;

use super::setup::Setup;
use super::slapd::ROLES;

/// One `[[user]]`.
#[derive(Clone, Copy)]
pub(crate) struct Person<'p> {
    pub(crate) name: &'p str,
    pub(crate) password: &'p str,
    /// As in a TOML list.
    pub(crate) roles: &'p str,
    /// Further lines.
    pub(crate) more: &'p str,
}

/// A users file.
pub(crate) fn users_toml(people: &[Person<'_>]) -> String {
    let mut toml = String::new();
    for Person { name, password, roles, more } in people {
        let hash = PasswordHash::fresh(&Secret::new((*password).to_owned()), &Entropy::system());
        let hash = hash.expect("randomness").to_phc();
        let hash = hash.expose();
        write!(
            toml,
            "[[user]]\nname = {name:?}\npassword_hash = \"{hash}\"\nroles = [{roles}]\n{more}\n"
        )
        .expect("a string can be written");
    }
    toml
}

/// The section for people in `users.toml`, with the roles that all tests have.
pub(crate) fn file_directory(setup: &Setup) -> String {
    let file = setup.path("users.toml").display().to_string();
    let mut toml = format!("[directory]\nkind = \"file\"\nusers_file = {file:?}\n");
    for (name, _) in ROLES {
        write!(toml, "[[directory.role]]\nname = \"{name}\"\n").expect("a string can be written");
    }
    toml
}
