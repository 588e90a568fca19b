//! What Active Directory does in its own way: the names people log in with, and the
//! groups, which it counts itself. Knows no connection but through the pool.

use std::sync::Arc;
use std::time::Duration;

use ldap3::Scope;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::RoleMapping;
use crate::directory::account;
use crate::directory::ahead::Searches;
use crate::directory::connection::Search;
use crate::directory::entry::Entry;
use crate::directory::filter::{Attribute, Filter};
use crate::directory::group::Roles;
use crate::directory::nested::Nested;
use crate::directory::outcome::Rejection;
use crate::directory::pool::Pool;
use crate::directory::{DirectoryError, Operation, VerifyError};
use crate::dn::Dn;
use crate::identity::Role;

/// How long what was read of the domain holds: a role's group that was made anew
/// counts after this time.
const DOMAIN_HOLDS: Duration = Duration::from_mins(5);
/// Most naming contexts that a forest may have.
const CONTEXTS_MAX: usize = 1000;
/// `sAMAccountType` of people, and not of machines and trusts.
const NORMAL_USER: &str = "805306368";
const TICKS_PER_MICROSECOND: u128 = 10;

/// Matching rules: through any number of groups; with all these bits.
const WITHIN_CHAIN: &str = "1.2.840.113556.1.4.1941";
const ALL_BITS: &str = "1.2.840.113556.1.4.803";
/// The bit of `groupType`.
const SECURITY_GROUP: &str = "2147483648";
/// As many entries as one answer of a domain controller holds.
const GROUPS_MAX: usize = 1000;

const TOKEN_GROUPS: &str = "tokenGroups";
const OBJECT_SID: &str = "objectSid";
const MEMBER_OF: &str = "memberOf";
const NETBIOS_NAME: &str = "nETBIOSName";
const DNS_ROOT: &str = "dnsRoot";
const CONTEXT_NAME: &str = "nCName";
const DEFAULT_CONTEXT: &str = "defaultNamingContext";
const CONFIGURATION_CONTEXT: &str = "configurationNamingContext";
const CURRENT_TIME: &str = "currentTime";

/// What is particular to Active Directory.
pub(super) struct ActiveDirectory {
    role_groups: Vec<String>,
    attributes: Attributes,
    domain: Mutex<Option<Arc<Domain>>>,
}

struct Attributes {
    account_name: Attribute,
    principal_name: Attribute,
    account_type: Attribute,
    object_class: Attribute,
    netbios_name: Attribute,
    member_of: Attribute,
    group_type: Attribute,
}

/// What a domain says of itself.
pub(super) struct Domain {
    /// Below which its groups are.
    base: String,
    netbios_name: String,
    dns_name: String,
    /// For each role, in order; `None` when its group is not there.
    role_sids: Vec<Option<Vec<u8>>>,
    time: Option<i64>,
    read_at: Instant,
}

impl ActiveDirectory {
    pub(super) fn new(roles: &[RoleMapping]) -> Option<Self> {
        Some(Self {
            role_groups: roles.iter().map(|role| role.group.clone()).collect(),
            attributes: Attributes {
                account_name: Attribute::parse("sAMAccountName")?,
                principal_name: Attribute::parse("userPrincipalName")?,
                account_type: Attribute::parse("sAMAccountType")?,
                object_class: Attribute::parse("objectClass")?,
                netbios_name: Attribute::parse(NETBIOS_NAME)?,
                member_of: Attribute::parse(MEMBER_OF)?,
                group_type: Attribute::parse("groupType")?,
            },
            domain: Mutex::new(None),
        })
    }

    /// What the domain says of itself, as read now or a while ago.
    ///
    /// # Errors
    /// When the directory does not answer or does not say it.
    pub(super) async fn domain(&self, pool: &Pool) -> Result<Arc<Domain>, DirectoryError> {
        let mut known = self.domain.lock().await;
        if let Some(domain) = known.as_ref().filter(|it| it.read_at.elapsed() < DOMAIN_HOLDS) {
            return Ok(Arc::clone(domain));
        }
        let domain = Arc::new(self.read_domain(pool).await?);
        *known = Some(Arc::clone(&domain));
        Ok(domain)
    }

    /// Which entries a login name means, by the directory's own rules.
    pub(super) fn named(&self, name: &str, domain: &Domain) -> Result<Filter, VerifyError> {
        let Attributes { account_name, principal_name, account_type, .. } = &self.attributes;
        let account = |name: &str| Filter::Equal(account_name.clone(), name.to_owned());
        let names = match (name.split_once('\\'), name.rsplit_once('@')) {
            (Some((of, name)), _) if domain.has_netbios_name(of) => account(name),
            (Some(_), _) => return Err(VerifyError::Rejected(Rejection::OtherDomain)),
            (None, Some((account_name, of))) => {
                let principal = Filter::Equal(principal_name.clone(), name.to_owned());
                if domain.has_name(of) {
                    // Everybody also has the name that the domain itself would give.
                    Filter::Or(vec![principal, account(account_name)])
                } else {
                    principal
                }
            }
            (None, None) => account(name),
        };
        let people = Filter::Equal(account_type.clone(), NORMAL_USER.to_owned());
        Ok(Filter::And(vec![people, names]))
    }

    /// The first role whose group the directory counts the entry into, through other
    /// groups or as its primary one.
    ///
    /// # Errors
    /// When the directory does not answer, or keeps the groups from the service account.
    pub(super) async fn role_of<'r>(
        &self,
        dn: &str,
        roles: &'r Roles,
        (searches, pool): (&Searches<'_>, &Pool),
    ) -> Result<Option<&'r Role>, DirectoryError> {
        let domain = self.domain(pool).await?;
        let entry = self.read(dn, (Operation::GroupSearch, &[TOKEN_GROUPS]), searches).await?;
        let groups = entry.values(TOKEN_GROUPS);
        if groups.is_empty() {
            // Everybody has a primary group: these are hidden, and roles would be guesswork.
            return Err(DirectoryError::HiddenGroups);
        }
        Ok(roles.first_where(|place| {
            let sid = domain.role_sids.get(place).and_then(Option::as_ref);
            sid.is_some_and(|sid| groups.contains(sid))
        }))
    }

    /// The groups within each role's: security groups, as only those count at a login.
    ///
    /// # Errors
    /// When the directory does not answer, or there are more than one answer can hold.
    pub(super) async fn nested_groups(&self, pool: &Pool) -> Result<Nested, DirectoryError> {
        let domain = self.domain(pool).await?;
        let Attributes { member_of, group_type, .. } = &self.attributes;
        let within =
            |group: &String| Filter::Matches(member_of.clone(), WITHIN_CHAIN, group.clone());
        let security = Filter::Matches(group_type.clone(), ALL_BITS, SECURITY_GROUP.to_owned());
        let within = Filter::Or(self.role_groups.iter().map(within).collect());
        let search = Search {
            operation: Operation::Recheck,
            base: &domain.base,
            scope: Scope::Subtree,
            filter: &Filter::And(vec![security, within]),
            attributes: &[MEMBER_OF, OBJECT_SID],
            entries_max: GROUPS_MAX,
        };
        let found = pool.search(search).await?;
        if found.more {
            return Err(DirectoryError::TooManyGroups);
        }
        let mut nested = Nested::default();
        for entry in &found.entries {
            let above = entry.texts(MEMBER_OF);
            nested.add(&entry.dn, &above, entry.values(OBJECT_SID).first().map(Vec::as_slice));
        }
        for (group, sid) in self.role_groups.iter().zip(&domain.role_sids) {
            nested.add_role(group, sid.as_deref());
        }
        Ok(nested)
    }

    async fn read_domain(&self, pool: &Pool) -> Result<Domain, DirectoryError> {
        let wanted = [DEFAULT_CONTEXT, CONFIGURATION_CONTEXT, CURRENT_TIME];
        let searches = &Searches::plain(pool);
        let root = self.read("", (Operation::DomainSearch, &wanted), searches).await?;
        let read_at = Instant::now();
        let own = root.text(DEFAULT_CONTEXT).and_then(Dn::parse);
        let configuration = root.text(CONFIGURATION_CONTEXT);
        let (own, configuration) =
            own.zip(configuration).ok_or(DirectoryError::Protocol("the root entry"))?;
        let search = Search {
            operation: Operation::DomainSearch,
            base: &format!("CN=Partitions,{configuration}"),
            scope: Scope::OneLevel,
            filter: &Filter::Present(self.attributes.netbios_name.clone()),
            attributes: &[NETBIOS_NAME, DNS_ROOT, CONTEXT_NAME],
            entries_max: CONTEXTS_MAX,
        };
        let contexts = pool.search(search).await?.entries;
        let is_own =
            |entry: &&Entry| entry.text(CONTEXT_NAME).and_then(Dn::parse).as_ref() == Some(&own);
        let names = contexts.iter().find(is_own).and_then(|entry| {
            Some((entry.text(NETBIOS_NAME)?.to_owned(), entry.text(DNS_ROOT)?.to_owned()))
        });
        let (netbios_name, dns_name) =
            names.ok_or(DirectoryError::Protocol("the domain's names"))?;
        let mut role_sids = Vec::new();
        for group in &self.role_groups {
            role_sids.push(self.sid_of(group, searches).await?);
        }
        let time = root.text(CURRENT_TIME).and_then(account::parse_time);
        let base = root.text(DEFAULT_CONTEXT).unwrap_or_default().to_owned();
        Ok(Domain { base, netbios_name, dns_name, role_sids, time, read_at })
    }

    /// A group's SID; `None` when there is no such group in this domain.
    async fn sid_of(
        &self,
        group: &str,
        searches: &Searches<'_>,
    ) -> Result<Option<Vec<u8>>, DirectoryError> {
        match self.read(group, (Operation::DomainSearch, &[OBJECT_SID]), searches).await {
            Ok(entry) => {
                let sid = entry.values(OBJECT_SID).first();
                if sid.is_none() {
                    tracing::error!(group, "a role's group has no readable objectSid");
                }
                Ok(sid.cloned())
            }
            // No such object, a referral to another domain, or not a name that fits here.
            Err(DirectoryError::Refused { code: 10 | 32 | 34, .. }) => {
                tracing::error!(group, "a role's group is not in the directory");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn read(
        &self,
        dn: &str,
        (operation, attributes): (Operation, &[&str]),
        searches: &Searches<'_>,
    ) -> Result<Entry, DirectoryError> {
        let search = Search {
            operation,
            base: dn,
            scope: Scope::Base,
            filter: &Filter::Present(self.attributes.object_class.clone()),
            attributes,
            entries_max: 1,
        };
        let found = searches.search(search).await?;
        found.entries.into_iter().next().ok_or(DirectoryError::Refused { operation, code: 32 })
    }
}

impl Domain {
    /// The directory's time now, in steps of 100 ns since 1601, as far as it told it.
    pub(super) fn now(&self) -> Option<i64> {
        let passed = self.read_at.elapsed().as_micros() * TICKS_PER_MICROSECOND;
        self.time?.checked_add(i64::try_from(passed).ok()?)
    }

    /// Whether any role's group is seen.
    pub(super) fn has_role_groups(&self) -> bool {
        self.role_sids.iter().any(Option::is_some)
    }

    fn has_netbios_name(&self, name: &str) -> bool {
        folded(&self.netbios_name) == folded(name)
    }

    /// Whether names `account@name` are of this domain.
    fn has_name(&self, name: &str) -> bool {
        folded(&self.dns_name) == folded(name) || self.has_netbios_name(name)
    }
}

fn folded(name: &str) -> String {
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{ActiveDirectory, Domain};
    use crate::directory::VerifyError;
    use crate::directory::outcome::Rejection;

    fn meaning(name: &str) -> Result<String, VerifyError> {
        let domain = Domain {
            base: String::new(),
            netbios_name: "ADTEST".to_owned(),
            dns_name: "ad.example.test".to_owned(),
            role_sids: Vec::new(),
            time: None,
            read_at: Instant::now(),
        };
        let active_directory = ActiveDirectory::new(&[]).unwrap();
        active_directory.named(name, &domain).map(|filter| filter.to_string())
    }

    #[test]
    fn a_name_means_what_the_directory_takes_it_for() {
        for (name, names) in [
            ("alice", "(sAMAccountName=alice)"),
            (r"adtest\alice", "(sAMAccountName=alice)"),
            (r"ADTEST\a@b", "(sAMAccountName=a@b)"),
            ("alice@other.example.org", "(userPrincipalName=alice@other.example.org)"),
            (
                "alice@AD.example.test",
                "(|(userPrincipalName=alice@AD.example.test)(sAMAccountName=alice))",
            ),
            ("alice@ADTEST", "(|(userPrincipalName=alice@ADTEST)(sAMAccountName=alice))"),
            ("a@b@adtest", "(|(userPrincipalName=a@b@adtest)(sAMAccountName=a@b))"),
            ("a*)(b", r"(sAMAccountName=a\2a\29\28b)"),
            (r"ADTEST\a\b", r"(sAMAccountName=a\5cb)"),
        ] {
            let expected = format!("(&(sAMAccountType=805306368){names})");
            assert_eq!(meaning(name).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn another_domains_name_is_refused_by_its_name() {
        for name in [r"OTHER\alice", r"ad.example.test\alice", r"\alice", r"a@b\alice", r".\alice"]
        {
            let meaning = meaning(name);
            assert!(
                matches!(meaning, Err(VerifyError::Rejected(Rejection::OtherDomain))),
                "{name}: {meaning:?}"
            );
        }
    }
}
