//! The roles of many accounts at once, read from the roles' groups downwards instead
//! of from each account upwards. A shortcut: what it says against an account is asked
//! for again, as a login does.

use std::collections::{HashMap, HashSet};

use ldap3::Scope;

use crate::directory::connection::Search;
use crate::directory::entry::Entry;
use crate::directory::filter::Filter;
use crate::directory::group::{DEPTH_MAX, GroupWalk, Roles};
use crate::directory::ldap::LdapDirectory;
use crate::directory::pool::Pool;
use crate::directory::{DirectoryError, Operation};
use crate::dn::Dn;
use crate::identity::Role;

/// Groups asked for in one search.
const GROUPS_PER_SEARCH: usize = 200;

const MEMBER_OF: &str = "memberOf";
const PRIMARY_GROUP: &str = "primaryGroupID";
const OBJECT_SID: &str = "objectSid";

/// What a role is found by.
pub(super) struct Member {
    name: Dn,
    /// The name as the server spells it.
    dn: String,
    /// In Active Directory: the groups that the entry names, and its primary one's SID.
    groups: Vec<Dn>,
    primary_group: Option<Vec<u8>>,
}

/// The roles of many.
pub(super) struct ManyRoles {
    /// One for each account asked about.
    pub(super) roles: Vec<Option<Role>>,
    /// Somebody was seen in a group.
    pub(super) sees_members: bool,
}

impl Member {
    /// What is read of an account's groups in Active Directory.
    pub(super) const ATTRIBUTES: [&str; 3] = [MEMBER_OF, PRIMARY_GROUP, OBJECT_SID];

    pub(super) fn read(entry: &Entry, name: Dn) -> Self {
        let groups = entry.texts(MEMBER_OF);
        Self {
            name,
            dn: entry.dn.clone(),
            groups: groups.iter().filter_map(|group| Dn::parse(group)).collect(),
            primary_group: primary_group(entry),
        }
    }

    /// The name as the server spells it.
    pub(super) fn dn(&self) -> &str {
        &self.dn
    }
}

/// The SID of the primary group: that of the account with another last part.
fn primary_group(entry: &Entry) -> Option<Vec<u8>> {
    let number = u32::try_from(entry.number(PRIMARY_GROUP)?).ok()?;
    let mut sid = entry.values(OBJECT_SID).first()?.clone();
    let at = sid.len().checked_sub(4)?;
    sid.truncate(at);
    sid.extend_from_slice(&number.to_le_bytes());
    Some(sid)
}

impl LdapDirectory {
    /// The roles of these accounts, as far as the groups tell them.
    pub(super) async fn roles_of_many(
        &self,
        members: &[&Member],
    ) -> Result<ManyRoles, DirectoryError> {
        if let Some(active_directory) = &self.active_directory {
            let nested = active_directory.nested_groups(&self.pool).await?;
            let role = |member: &&Member| {
                let place = nested.first_place(&member.groups, member.primary_group.as_deref());
                place.and_then(|place| self.roles.at(place)).cloned()
            };
            // That none is seen is an error of its own there.
            return Ok(ManyRoles {
                roles: members.iter().map(role).collect(),
                sees_members: false,
            });
        }
        let asked = members.iter().map(|member| member.name.clone()).collect();
        let found = self.walk.members_of(&asked, &self.roles, &self.pool).await?;
        let role = |member: &&Member| {
            let holds = |place: usize| {
                found.by_role.get(place).is_some_and(|members| members.contains(&member.name))
            };
            self.roles.first_where(holds).cloned()
        };
        Ok(ManyRoles {
            roles: members.iter().map(role).collect(),
            sees_members: found.sees_members,
        })
    }

    /// Whether the service account sees a member of any group.
    pub(super) async fn sees_members(&self) -> Result<bool, DirectoryError> {
        if self.active_directory.is_some() {
            // Hidden ones are an error where they are read.
            return Ok(true);
        }
        let names = self.walk.member_attributes.iter().cloned().map(Filter::Present);
        let search = Search {
            operation: Operation::Recheck,
            base: &self.walk.base,
            scope: Scope::Subtree,
            filter: &Filter::Or(names.collect()),
            attributes: &MEMBERS,
            entries_max: 1,
        };
        let found = self.pool.search(search).await?;
        let shows = |entry: &Entry| MEMBERS.iter().any(|name| !entry.values(name).is_empty());
        Ok(found.entries.iter().any(shows))
    }
}

const MEMBERS: [&str; 2] = ["member", "uniqueMember"];

/// Who of those asked about is in which role's group.
struct Found {
    by_role: Vec<HashSet<Dn>>,
    sees_members: bool,
}

/// One group, with those of its members that matter.
#[derive(Default)]
struct Group {
    accounts: Vec<Dn>,
    /// Perhaps groups, as the server spells them.
    others: Vec<(Dn, String)>,
}

impl GroupWalk {
    async fn members_of(
        &self,
        accounts: &HashSet<Dn>,
        roles: &Roles,
        pool: &Pool,
    ) -> Result<Found, DirectoryError> {
        let mut groups: HashMap<Dn, Group> = HashMap::new();
        let mut control = None;
        for (name, spelled) in roles.groups() {
            if let Some(entry) = self.read_group(spelled, pool).await? {
                groups.insert(name.clone(), self.parse(&entry, accounts));
                control = control.or(Some((name.clone(), entry.dn)));
            }
        }
        let sees_members = !groups.is_empty();
        for _ in 0..DEPTH_MAX {
            let Some(control) = control.as_ref().filter(|_| self.nested) else { break };
            let unread = self.unread(&groups);
            if unread.is_empty() {
                break;
            }
            for some in unread.chunks(GROUPS_PER_SEARCH) {
                let found = self.read_groups(some, control, pool).await?;
                for entry in &found {
                    let name =
                        Dn::parse(&entry.dn).ok_or(DirectoryError::Protocol("a group's name"))?;
                    groups.insert(name, self.parse(entry, accounts));
                }
                self.remember_others(some, &groups);
            }
        }
        let of_role = |(name, _): (&Dn, &str)| self.below(name, &groups);
        Ok(Found { by_role: roles.groups().map(of_role).collect(), sees_members })
    }

    /// What may be groups and has not been read.
    fn unread(&self, groups: &HashMap<Dn, Group>) -> Vec<(Dn, String)> {
        let mut unread: HashMap<&Dn, &String> = HashMap::new();
        for (name, spelled) in groups.values().flat_map(|group| &group.others) {
            if !groups.contains_key(name) && !self.others.contains(name) {
                unread.insert(name, spelled);
            }
        }
        unread.into_iter().map(|(name, spelled)| (name.clone(), spelled.clone())).collect()
    }

    /// People who are members, but have no session, are asked about once.
    fn remember_others(&self, asked: &[(Dn, String)], groups: &HashMap<Dn, Group>) {
        let others = asked.iter().filter(|(name, _)| !groups.contains_key(name));
        self.others.extend(others.map(|(name, _)| name));
    }

    /// The accounts in a group and the groups below it.
    fn below(&self, name: &Dn, groups: &HashMap<Dn, Group>) -> HashSet<Dn> {
        let (mut accounts, mut seen) = (HashSet::new(), HashSet::from([name]));
        let mut level = vec![name];
        for _ in 0..DEPTH_MAX {
            let mut next = Vec::new();
            for group in level.iter().filter_map(|name| groups.get(*name)) {
                accounts.extend(group.accounts.iter().cloned());
                // A group seen before is not walked again, so loops end.
                let fresh = group.others.iter().map(|(name, _)| name);
                next.extend(fresh.filter(|name| seen.insert(*name)));
            }
            if next.is_empty() || !self.nested {
                break;
            }
            level = next;
        }
        accounts
    }

    /// A role's group; `None` when a login would not find it either.
    async fn read_group(&self, dn: &str, pool: &Pool) -> Result<Option<Entry>, DirectoryError> {
        let (base, name) = (Dn::parse(&self.base), Dn::parse(dn));
        if !name.zip(base).is_some_and(|(name, base)| name.is_within(&base)) {
            return Ok(None);
        }
        let found = self.search_groups((dn, Scope::Base), None, 1, pool).await;
        match found {
            Ok(entries) => Ok(entries.into_iter().next()),
            // No such object, a referral, or not a name that fits here.
            Err(DirectoryError::Refused { code: 10 | 32 | 34, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Those of `some` that are groups.
    async fn read_groups(
        &self,
        some: &[(Dn, String)],
        (control, spelled): &(Dn, String),
        pool: &Pool,
    ) -> Result<Vec<Entry>, DirectoryError> {
        let is = |dn: &String| Filter::Equal(self.entry_name.clone(), dn.clone());
        let candidates = some.iter().map(|(_, spelled)| spelled).chain([spelled]);
        let filter = Filter::Or(candidates.map(is).collect());
        let base = (self.base.as_str(), Scope::Subtree);
        let mut found = self.search_groups(base, Some(filter), some.len() + 1, pool).await?;
        let count = found.len();
        found.retain(|entry| Dn::parse(&entry.dn).as_ref() != Some(control));
        // A group that is there must be found: otherwise the server does not know entryDN.
        if found.len() < count { Ok(found) } else { Err(DirectoryError::NoEntryNames) }
    }

    async fn search_groups(
        &self,
        (base, scope): (&str, Scope),
        condition: Option<Filter>,
        entries_max: usize,
        pool: &Pool,
    ) -> Result<Vec<Entry>, DirectoryError> {
        let present = self.member_attributes.iter().cloned().map(Filter::Present).collect();
        let search = Search {
            operation: Operation::Recheck,
            base,
            scope,
            filter: &Filter::And([Filter::Or(present)].into_iter().chain(condition).collect()),
            attributes: &MEMBERS,
            entries_max,
        };
        let found = pool.search(search).await?;
        if found.more { Err(DirectoryError::TooManyGroups) } else { Ok(found.entries) }
    }

    fn parse(&self, entry: &Entry, accounts: &HashSet<Dn>) -> Group {
        let base = Dn::parse(&self.base);
        let mut group = Group::default();
        for member in MEMBERS.iter().flat_map(|name| entry.texts(name)) {
            let Some(name) = Dn::parse(&member) else { continue };
            if accounts.contains(&name) {
                group.accounts.push(name);
            } else if base.as_ref().is_some_and(|base| name.is_within(base))
                && !self.others.contains(&name)
            {
                group.others.push((name, member));
            }
        }
        group
    }
}
