//! Which groups lead to which role in Active Directory, through any number of groups:
//! a pure table, made of what one search found.

use std::collections::{HashMap, HashSet};

use crate::dn::Dn;

/// The groups that lead to each role, in the configured order of roles.
#[derive(Default)]
pub(super) struct Nested {
    /// The groups directly in a group, and a group's SID.
    below: HashMap<Dn, Vec<Dn>>,
    sids: HashMap<Dn, Vec<u8>>,
    roles: Vec<Leading>,
}

/// The groups that lead to one role.
#[derive(Default)]
struct Leading {
    groups: HashSet<Dn>,
    sids: HashSet<Vec<u8>>,
}

impl Nested {
    /// Takes note of a group, of those that it is directly in, and of its SID.
    pub(super) fn add(&mut self, group: &str, above: &[String], sid: Option<&[u8]>) {
        let Some(name) = Dn::parse(group) else { return };
        for above in above.iter().filter_map(|above| Dn::parse(above)) {
            self.below.entry(above).or_default().push(name.clone());
        }
        self.sids.extend(sid.map(|sid| (name, sid.to_vec())));
    }

    /// Follows the next role's group downwards, once all groups are known. A group
    /// without SID is not there, and leads nowhere.
    pub(super) fn add_role(&mut self, group: &str, sid: Option<&[u8]>) {
        let mut leading = Leading::default();
        if let (Some(name), Some(sid)) = (Dn::parse(group), sid) {
            leading.sids.insert(sid.to_vec());
            let mut open = vec![name];
            while let Some(name) = open.pop() {
                leading.sids.extend(self.sids.get(&name).cloned());
                open.extend(self.below.get(&name).into_iter().flatten().cloned());
                // Groups may be members of each other: each is followed once.
                leading.groups.insert(name);
                open.retain(|name| !leading.groups.contains(name));
            }
        }
        self.roles.push(leading);
    }

    /// The place of the first role to which one of these groups leads, or the primary one.
    pub(super) fn first_place(&self, groups: &[Dn], primary: Option<&[u8]>) -> Option<usize> {
        self.roles.iter().position(|leading| {
            primary.is_some_and(|sid| leading.sids.contains(sid))
                || groups.iter().any(|group| leading.groups.contains(group))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Nested;
    use crate::dn::Dn;

    #[test]
    fn groups_lead_to_roles_through_groups_and_loops() {
        let mut nested = Nested::default();
        let above = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        nested.add("CN=North,DC=x", &above(&["cn=tracers,dc=x", "cn=mail,dc=x"]), Some(b"n"));
        nested.add("cn=a,dc=x", &above(&["cn=admins,dc=x", "cn=b,dc=x"]), Some(b"a"));
        nested.add("cn=b,dc=x", &above(&["cn=a,dc=x"]), None);
        // Reached through a group that does not count, such as one for mail.
        nested.add("cn=c,dc=x", &above(&["cn=mail,dc=x"]), Some(b"c"));
        nested.add_role("cn=admins,dc=x", Some(b"A"));
        nested.add_role("cn=gone,dc=x", None);
        nested.add_role("cn=tracers,dc=x", Some(b"T"));
        let place = |groups: &[&str], primary: Option<&[u8]>| {
            let groups: Vec<Dn> = groups.iter().filter_map(|group| Dn::parse(group)).collect();
            nested.first_place(&groups, primary)
        };
        assert_eq!(place(&["cn=b,dc=x"], None), Some(0));
        assert_eq!(place(&["cn=north,dc=x", "cn=admins,dc=x"], None), Some(0));
        assert_eq!(place(&["cn=north,dc=x"], Some(b"x")), Some(2));
        assert_eq!(place(&[], Some(b"n")), Some(2));
        assert_eq!(place(&[], Some(b"T")), Some(2));
        assert_eq!(place(&["cn=gone,dc=x", "cn=c,dc=x"], Some(b"c")), None);
    }
}
