//! What a configuration expects the directory to hold, looked up for an operator:
//! a base, a filter, an attribute or a group that can match nothing is named. Asks
//! as the service account does. Knows no login.

use ldap3::Scope;

use crate::config;
use crate::directory::connection::{Connection, Found, Search};
use crate::directory::examine::{Examination, base_search, object_class};
use crate::directory::filter::{Attribute, ConfiguredFilter, Filter};
use crate::directory::group::NO_ATTRIBUTES;
use crate::directory::{DirectoryError, Operation};
use crate::dn::Dn;

const CODE_NO_SUCH_OBJECT: u32 = 32;

/// What is odd about the directory's content.
pub(super) enum Suspicion {
    /// It can be, but is hardly meant.
    Doubt(String),
    /// Nobody can log in like that.
    Error(String),
}

impl From<DirectoryError> for Suspicion {
    fn from(error: DirectoryError) -> Self {
        Self::Error(error.to_string())
    }
}

/// Looks at bases, filter, attributes and groups, in the order in which a login meets them.
pub(super) async fn content(
    examination: &mut Examination<'_>,
    config: &config::Directory,
    connection: &Connection,
) {
    let is_active = config.kind == config::DirectoryKind::ActiveDirectory;
    examination.look(("base_dn", "look"), base(connection, &config.base_dn)).await;
    examination.look(("user_filter", "search"), users(connection, config, None)).await;
    if !is_active {
        let attribute = config.user_attribute.as_str();
        examination
            .look(("user_attribute", "search"), users(connection, config, Some(attribute)))
            .await;
    }
    let subject = config.subject_attribute.as_str();
    examination
        .look(("subject_attribute", "search"), users(connection, config, Some(subject)))
        .await;
    for attribute in &config.attributes {
        examination.look(("claims", "search"), users(connection, config, Some(attribute))).await;
    }
    if !is_active {
        examination.look(("group_base_dn", "look"), base(connection, &config.group_base_dn)).await;
    }
    for role in &config.roles {
        examination.look(("role.group", "look"), group(connection, config, role)).await;
    }
}

/// Whether an entry is there for the service account.
async fn base(connection: &Connection, dn: &str) -> Result<(), Suspicion> {
    if exists(connection, dn).await? {
        return Ok(());
    }
    Err(Suspicion::Error(format!("{dn} does not exist, or the service account may not see it")))
}

/// Whether any user could be found, or has an attribute.
async fn users(
    connection: &Connection,
    config: &config::Directory,
    attribute: Option<&str>,
) -> Result<(), Suspicion> {
    let mut parts = Vec::new();
    if let Some(text) = &config.user_filter {
        let filter = ConfiguredFilter::parse(text);
        parts.push(Filter::Configured(
            filter.ok_or_else(|| Suspicion::Error("is not a filter".to_owned()))?,
        ));
    }
    let name = attribute.unwrap_or("objectClass");
    let known = Attribute::parse(name);
    parts.push(Filter::Present(
        known.ok_or_else(|| Suspicion::Error(format!("{name} is no attribute")))?,
    ));
    let search = Search {
        operation: Operation::Probe,
        base: &config.base_dn,
        scope: Scope::Subtree,
        filter: &Filter::And(parts),
        attributes: NO_ATTRIBUTES,
        entries_max: 1,
    };
    let found = connection.search(&search).await.or_else(|error| match error {
        // Told of its own step already.
        DirectoryError::Refused { code: CODE_NO_SUCH_OBJECT, .. } => Ok(Found::default()),
        error => Err(error),
    })?;
    if found.more || !found.entries.is_empty() {
        return Ok(());
    }
    let filter = config.user_filter.as_deref().unwrap_or("(no user_filter)");
    Err(Suspicion::Doubt(match attribute {
        None => format!("matches no entry below {}: {filter}", config.base_dn),
        Some(attribute) => {
            format!(
                "no entry that matches {filter} has the attribute {attribute}: is it misspelled?"
            )
        }
    }))
}

/// Whether a role's group is there, is where groups are looked for, and has members.
async fn group(
    connection: &Connection,
    config: &config::Directory,
    role: &config::RoleMapping,
) -> Result<(), Suspicion> {
    let config::RoleMapping { name, group } = role;
    let nobody = format!("nobody gets the role {:?}", name.as_str());
    if !exists(connection, group).await? {
        return Err(Suspicion::Doubt(format!("{group} does not exist: {nobody}")));
    }
    if config.kind == config::DirectoryKind::ActiveDirectory {
        return Ok(());
    }
    let below = Dn::parse(group).zip(Dn::parse(&config.group_base_dn));
    if below.is_some_and(|(group, base)| !group.is_within(&base)) {
        return Err(Suspicion::Doubt(format!("{group} is not below group_base_dn: {nobody}")));
    }
    let members = ["member", "uniqueMember"].iter().filter_map(|name| Attribute::parse(name));
    let filter = Filter::Or(members.map(Filter::Present).collect());
    let found = connection.search(&base_search(group, &filter, NO_ATTRIBUTES)).await?;
    if found.entries.is_empty() {
        return Err(Suspicion::Doubt(format!("{group} has no members: {nobody}")));
    }
    Ok(())
}

async fn exists(connection: &Connection, dn: &str) -> Result<bool, Suspicion> {
    let attribute = object_class().map_err(|_| Suspicion::Error("objectClass".to_owned()))?;
    let filter = Filter::Present(attribute);
    match connection.search(&base_search(dn, &filter, NO_ATTRIBUTES)).await {
        Ok(found) => Ok(!found.entries.is_empty()),
        Err(DirectoryError::Refused { code: CODE_NO_SUCH_OBJECT, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
