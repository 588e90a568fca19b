//! The groups an account is in, walked upwards from it as the service account,
//! and the first configured role among them.

use std::collections::HashSet;

use ldap3::Scope;

use crate::config::RoleMapping;
use crate::directory::ahead::Searches;
use crate::directory::connection::Search;
use crate::directory::filter::{Attribute, Filter};
use crate::directory::others::Others;
use crate::directory::{DirectoryError, Operation};
use crate::dn::Dn;
use crate::identity::Role;

/// Most steps upwards; groups farther away do not count.
pub(super) const DEPTH_MAX: usize = 16;
/// Most groups an account may be in; with more its roles would be guesswork.
const GROUPS_MAX: usize = 1000;
/// Most members asked about in one search.
const MEMBERS_PER_SEARCH: usize = 16;
/// Asks for no attribute at all (RFC 4511 section 4.5.1.8).
pub(super) const NO_ATTRIBUTES: &[&str] = &["1.1"];

/// Roles by group, first match from the top. Groups are whole DNs: a group of the
/// same name elsewhere is another group.
pub(super) struct Roles {
    mappings: Vec<Mapping>,
}

struct Mapping {
    group: Dn,
    /// The group's name as it was configured.
    spelled: String,
    role: Role,
}

impl Roles {
    pub(super) fn new(mappings: &[RoleMapping]) -> Result<Self, DirectoryError> {
        let read = |mapping: &RoleMapping| {
            let group = Dn::parse(&mapping.group).ok_or_else(|| {
                DirectoryError::Configuration(format!(
                    "the group of role {} is not a distinguished name",
                    mapping.name
                ))
            })?;
            let (spelled, role) = (mapping.group.clone(), mapping.name.clone());
            Ok(Mapping { group, spelled, role })
        };
        Ok(Self { mappings: mappings.iter().map(read).collect::<Result<_, DirectoryError>>()? })
    }

    /// The first role, in the configured order, one of whose group is among `groups`.
    pub(super) fn first(&self, groups: &HashSet<Dn>) -> Option<&Role> {
        let mut mappings = self.mappings.iter();
        mappings.find(|mapping| groups.contains(&mapping.group)).map(|mapping| &mapping.role)
    }

    /// The first role for whose place in the order `holds` says yes.
    pub(super) fn first_where(&self, holds: impl Fn(usize) -> bool) -> Option<&Role> {
        let mut places = self.mappings.iter().enumerate();
        places.find(|(place, _)| holds(*place)).map(|(_, mapping)| &mapping.role)
    }

    /// The groups in the configured order, with their names as configured.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&Dn, &str)> {
        self.mappings.iter().map(|mapping| (&mapping.group, mapping.spelled.as_str()))
    }

    /// The role at a place of the order.
    pub(super) fn at(&self, place: usize) -> Option<&Role> {
        self.mappings.get(place).map(|mapping| &mapping.role)
    }

    /// Whether no further group could change the answer.
    fn is_decided(&self, groups: &HashSet<Dn>) -> bool {
        self.mappings.first().is_none_or(|mapping| groups.contains(&mapping.group))
    }
}

/// Where and how groups are looked for.
pub(super) struct GroupWalk {
    pub(super) base: String,
    pub(super) nested: bool,
    pub(super) member_attributes: [Attribute; 2],
    pub(super) entry_name: Attribute,
    /// Members that are no groups, as far as it is known.
    pub(super) others: Others,
}

impl GroupWalk {
    pub(super) fn new(base: String, nested: bool) -> Option<Self> {
        let member_attributes = [Attribute::parse("member")?, Attribute::parse("uniqueMember")?];
        let entry_name = Attribute::parse("entryDN")?;
        Some(Self { base, nested, member_attributes, entry_name, others: Others::default() })
    }

    /// The groups that an account is in, as far as `roles` needs them.
    ///
    /// # Errors
    /// When the directory does not answer, or there are more than can be looked at.
    pub(super) async fn groups_of(
        &self,
        account: &str,
        roles: &Roles,
        searches: &Searches<'_>,
    ) -> Result<HashSet<Dn>, DirectoryError> {
        let mut groups = HashSet::new();
        let mut new = vec![account.to_owned()];
        for step in 0..DEPTH_MAX {
            let is_deep = step > 0;
            if new.is_empty() || is_deep && (!self.nested || roles.is_decided(&groups)) {
                return Ok(groups);
            }
            let mut above = Vec::new();
            for some in new.chunks(MEMBERS_PER_SEARCH) {
                let found = self.groups_above(some, searches).await?;
                above.extend(add_to(&mut groups, found)?);
            }
            new = above;
        }
        tracing::warn!(steps = DEPTH_MAX, "groups may be nested deeper than is looked at");
        Ok(groups)
    }

    /// The names of the groups that have one of `members` as a member.
    async fn groups_above(
        &self,
        members: &[String],
        searches: &Searches<'_>,
    ) -> Result<Vec<String>, DirectoryError> {
        let conditions = members.iter().flat_map(|member| {
            self.member_attributes
                .iter()
                .map(|attribute| Filter::Equal(attribute.clone(), member.clone()))
        });
        let search = Search {
            operation: Operation::GroupSearch,
            base: &self.base,
            scope: Scope::Subtree,
            filter: &Filter::Or(conditions.collect()),
            attributes: NO_ATTRIBUTES,
            entries_max: GROUPS_MAX,
        };
        let found = searches.search(search).await?;
        if found.more {
            return Err(DirectoryError::TooManyGroups);
        }
        Ok(found.entries.into_iter().map(|entry| entry.dn).collect())
    }
}

/// Adds what was found to the groups known so far. Says which are new: one seen before is
/// not walked again, so that loops end.
fn add_to(groups: &mut HashSet<Dn>, found: Vec<String>) -> Result<Vec<String>, DirectoryError> {
    let mut new = Vec::new();
    for group in found {
        let name = Dn::parse(&group).ok_or(DirectoryError::Protocol("a group's name"))?;
        if groups.insert(name) {
            new.push(group);
        }
    }
    if groups.len() > GROUPS_MAX { Err(DirectoryError::TooManyGroups) } else { Ok(new) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Roles;
    use crate::config::RoleMapping;
    use crate::dn::Dn;
    use crate::identity::Role;

    fn roles(mappings: &[(&str, &str)]) -> Roles {
        let mapping = |(name, group): &(&str, &str)| RoleMapping {
            name: Role::new(name),
            group: (*group).to_owned(),
        };
        Roles::new(&mappings.iter().map(mapping).collect::<Vec<_>>()).unwrap()
    }

    fn first<'r>(roles: &'r Roles, groups: &[&str]) -> Option<&'r str> {
        let groups: HashSet<Dn> = groups.iter().map(|group| Dn::parse(group).unwrap()).collect();
        roles.first(&groups).map(Role::as_str)
    }

    #[test]
    fn the_first_role_from_the_top_wins() {
        let roles =
            roles(&[("super", "cn=s,ou=g"), ("tracer", "CN=T, OU=G"), ("all", "cn=s,ou=g")]);
        assert_eq!(first(&roles, &["cn=t,ou=g", "cn=s,ou=g"]), Some("super"));
        assert_eq!(first(&roles, &["cn=t,ou=g", "cn=x,ou=g"]), Some("tracer"));
        assert_eq!(first(&roles, &["cn=s,ou=contractors", "cn=s"]), None);
        assert_eq!(first(&roles, &[]), None);
    }

    #[test]
    fn a_bare_name_is_no_group() {
        let mapping = RoleMapping { name: Role::new("admin"), group: "admins".to_owned() };
        assert!(Roles::new(&[mapping]).is_err());
    }
}
