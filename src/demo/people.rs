//! Who lives in the demo directory: four people, their groups, and the account
//! with which the gateway searches.

use super::tree::{Entry, Tree};
use crate::secret::Secret;

/// Somebody who can log in to the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoUser {
    /// The login name.
    pub name: &'static str,
    /// The password; a demonstration keeps no secrets.
    pub password: &'static str,
    /// The role that the groups give, if any.
    pub role: Option<&'static str>,
}

/// Everybody who can log in, each with another role.
pub const USERS: [DemoUser; 4] = [
    DemoUser { name: "ada", password: "ada-lantern", role: Some("super_admin") },
    DemoUser { name: "ben", password: "ben-compass", role: Some("admin") },
    DemoUser { name: "cora", password: "cora-harbour", role: Some("contact_tracer") },
    DemoUser { name: "dan", password: "dan-pebble", role: None },
];

/// The roles in the order of `[[directory.role]]`, and the group of each.
pub(super) const ROLES: [(&str, &str); 3] = [
    ("super_admin", "cn=super_admins,ou=groups,dc=example,dc=org"),
    ("admin", "cn=admins,ou=groups,dc=example,dc=org"),
    ("contact_tracer", "cn=contact_tracers,ou=groups,dc=example,dc=org"),
];

/// The one naming context.
pub(super) const SUFFIX: &str = "dc=example,dc=org";
/// Below it the people live.
pub(super) const PEOPLE: &str = "ou=people,dc=example,dc=org";
/// Below it the groups live.
pub(super) const GROUPS: &str = "ou=groups,dc=example,dc=org";
/// The account with which the gateway searches.
pub(super) const SERVICE: &str = "cn=bindgate,ou=services,dc=example,dc=org";

/// The tree; `None` would mean that a name in this file is no distinguished name.
pub(super) fn tree(service_password: Secret<String>) -> Option<Tree> {
    let mut entries = vec![
        Entry::new(SUFFIX, &[("objectClass", "domain"), ("dc", "example")])?,
        Entry::new(PEOPLE, &[("objectClass", "organizationalUnit"), ("ou", "people")])?,
        Entry::new(GROUPS, &[("objectClass", "organizationalUnit"), ("ou", "groups")])?,
        Entry::new(
            "ou=services,dc=example,dc=org",
            &[("objectClass", "organizationalUnit"), ("ou", "services")],
        )?,
        Entry::new(SERVICE, &[("objectClass", "applicationProcess"), ("cn", "bindgate")])?
            .with_password(service_password),
    ];
    for user in &USERS {
        entries.push(person(user)?);
    }
    entries.push(group("super_admins", &[&person_dn("ada")])?);
    entries.push(group("admins", &[&person_dn("ben")])?);
    // A group in a group: cora is a contact tracer only through the field team.
    entries.push(group("contact_tracers", &[&group_dn("field_team")])?);
    entries.push(group("field_team", &[&person_dn("cora")])?);
    Some(Tree::new(entries))
}

fn person(user: &DemoUser) -> Option<Entry> {
    let mail = format!("{}@example.org", user.name);
    let values = [
        ("objectClass", "top"),
        ("objectClass", "person"),
        ("objectClass", "organizationalPerson"),
        ("objectClass", "inetOrgPerson"),
        ("uid", user.name),
        ("cn", user.name),
        ("sn", "Example"),
        ("mail", &mail),
    ];
    let password = Secret::new(user.password.to_owned());
    Some(Entry::new(&person_dn(user.name), &values)?.with_password(password))
}

fn group(name: &str, members: &[&str]) -> Option<Entry> {
    let mut values = vec![("objectClass", "top"), ("objectClass", "groupOfNames"), ("cn", name)];
    values.extend(members.iter().map(|&member| ("member", member)));
    Entry::new(&group_dn(name), &values)
}

fn person_dn(name: &str) -> String {
    format!("uid={name},{PEOPLE}")
}

fn group_dn(name: &str) -> String {
    format!("cn={name},{GROUPS}")
}

#[cfg(test)]
mod tests {
    use super::{ROLES, USERS, tree};
    use crate::demo::dn::Dn;
    use crate::secret::Secret;

    #[test]
    fn every_role_has_its_group_and_somebody_in_it() {
        let tree = tree(Secret::new("service".to_owned())).unwrap();
        for (role, group) in ROLES {
            assert!(tree.get(&Dn::parse(group).unwrap()).is_some(), "{group}");
            assert!(USERS.iter().any(|user| user.role == Some(role)), "{role}");
        }
        assert!(USERS.iter().any(|user| user.role.is_none()));
    }
}
