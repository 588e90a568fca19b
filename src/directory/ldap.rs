//! An LDAP directory: finds the entry, asks it whether the password is right, and
//! only then who it is and in which role.

use std::time::Duration;

use futures_util::future::join;
use ldap3::Scope;

use crate::ambient::Entropy;
use crate::config;
use crate::directory::account::{self, Account};
use crate::directory::active_directory::ActiveDirectory;
use crate::directory::ahead::{LastSearches, Searches};
use crate::directory::binding::Binding;
use crate::directory::connection::Search;
use crate::directory::entry::Entry;
use crate::directory::filter::{Attribute, ConfiguredFilter, Filter};
use crate::directory::group::{GroupWalk, Roles};
use crate::directory::lockout::{Held, LockoutReading, Lockouts, OwnPolicy};
use crate::directory::outcome::{Bar, Outcome};
use crate::directory::password_rules::PasswordRules;
use crate::directory::pool::Pool;
use crate::directory::stamp::{self, Stamp};
use crate::directory::{self, DirectoryError, Operation, Person, Rejection, VerifyError};
use crate::dn::Dn;
use crate::identity::{Attributes, Credentials, Role};
use crate::metrics::Metrics;

/// A login spends this part of its time, at most, on when the directory locks accounts.
const PART_FOR_LOCKOUT: u32 = 4;
/// Enough to see that a name is not unique.
const USERS_MAX: usize = 2;

/// An LDAP directory.
pub(super) struct LdapDirectory {
    pub(super) base: String,
    pub(super) user_attribute: Attribute,
    pub(super) user_filter: Option<ConfiguredFilter>,
    pub(super) subject_attribute: Attribute,
    /// What claims ask for.
    attributes: Vec<Attribute>,
    pub(super) walk: GroupWalk,
    pub(super) roles: Roles,
    pub(super) active_directory: Option<ActiveDirectory>,
    pub(super) password_rules: PasswordRules,
    lockouts: Lockouts,
    pub(super) timeout: Duration,
    last_searches: LastSearches,
    pub(super) pool: Pool,
}

impl LdapDirectory {
    pub(super) fn new(
        config: &config::Directory,
        metrics: &Metrics,
        entropy: &Entropy,
    ) -> Result<Self, DirectoryError> {
        let problem = |text: &str| DirectoryError::Configuration(text.to_owned());
        let attribute = |name: &str| {
            Attribute::parse(name).ok_or_else(|| problem("an attribute name is malformed"))
        };
        let user_filter = match &config.user_filter {
            None => None,
            Some(text) => Some(
                ConfiguredFilter::parse(text)
                    .ok_or_else(|| problem("user_filter is not a filter in parentheses"))?,
            ),
        };
        let walk = GroupWalk::new(config.group_base_dn.clone(), config.nested_groups);
        let is_active = config.kind == config::DirectoryKind::ActiveDirectory;
        let active_directory = is_active.then(|| ActiveDirectory::new(&config.roles)).flatten();
        Ok(Self {
            base: config.base_dn.clone(),
            user_attribute: attribute(&config.user_attribute)?,
            user_filter,
            subject_attribute: attribute(&config.subject_attribute)?,
            attributes: config
                .attributes
                .iter()
                .map(|name| attribute(name))
                .collect::<Result<_, _>>()?,
            walk: walk.ok_or_else(|| problem("an attribute name is malformed"))?,
            roles: Roles::new(&config.roles)?,
            active_directory,
            password_rules: PasswordRules::new(
                config.password_rules,
                (config.password_checks, config.timeout),
                metrics,
            ),
            lockouts: Lockouts::new(
                &config.base_dn,
                attribute("objectClass")?,
                is_active,
                config.timeout / PART_FOR_LOCKOUT,
            ),
            timeout: config.timeout,
            last_searches: LastSearches::new(config.searches_ahead, metrics),
            pool: Pool::new(config, metrics, entropy)?,
        })
    }

    pub(super) async fn verify(
        &self,
        credentials: &Credentials,
        found: impl AsyncFnOnce(directory::Account) -> bool,
    ) -> Result<Person, VerifyError> {
        let binding = Binding::within(self.timeout);
        let name = credentials.folded_name();
        let searches = self.last_searches.begin(&name, &self.pool);
        let work = self.verify_at_leisure(credentials, found, (&binding, &searches));
        let ahead = binding.beside(async {
            searches.send_ahead().await;
            Ok(())
        });
        let work = join(work, ahead);
        let verified = binding.limits(work).await.map(|(verified, _)| verified);
        let verified = verified.unwrap_or_else(|| Err(DirectoryError::Timeout.into()));
        match &verified {
            Ok(_) => self.last_searches.remember(name, searches),
            Err(
                VerifyError::Rejected(Rejection::NoSuchUser | Rejection::Ambiguous)
                | VerifyError::NoRole { .. },
            ) => self.last_searches.forget(&name),
            Err(_) => {}
        }
        verified.map_err(|error| binding.weighed(error))
    }

    pub(super) async fn lockout(&self) -> LockoutReading {
        self.lockouts.general(&self.pool, self.timeout).await
    }

    /// The policy that an entry has of its own.
    pub(super) async fn own_policy(&self, entry: &Entry) -> Option<OwnPolicy> {
        self.lockouts.of(entry, &self.pool).await.1
    }

    pub(super) fn is_up(&self) -> bool {
        self.pool.is_up()
    }

    pub(super) fn is_down(&self) -> bool {
        self.pool.is_down()
    }

    pub(super) async fn keep_up(&self) {
        self.pool.keep_up().await;
    }

    async fn verify_at_leisure(
        &self,
        credentials: &Credentials,
        found: impl AsyncFnOnce(directory::Account) -> bool,
        (binding, searches): (&Binding, &Searches<'_>),
    ) -> Result<Person, VerifyError> {
        let entry = self.find(credentials.name()).await?;
        let account = self.may_be_tried(&entry, found, binding).await?;
        // Beside each other, which saves round trips. Who proves nothing costs a search or
        // two more for it, and how they end is of no account then.
        let bind = async {
            let answer = self.pool.bind(&entry.dn, credentials.password(), binding).await;
            if !answer.as_ref().is_ok_and(|answer| answer.outcome.proves_the_password()) {
                searches.end();
            }
            answer
        };
        let role = binding.beside(self.role_of(&entry.dn, searches));
        // Boxed, because it is large and wrapped several times.
        let (answer, role) = Box::pin(join(bind, role)).await;
        match self.in_the_light_of(&entry, answer?.outcome).await? {
            Outcome::Accepted(notice) => {
                if let Some(notice) = notice {
                    tracing::warn!(account, notice = notice.detail(), "a password's end is near");
                }
                Ok(Person { notice, ..self.person(&entry, account, role?)? })
            }
            Outcome::ChangeRequired(change) => Err(VerifyError::MustChange(change)),
            Outcome::Barred(bar) => Err(VerifyError::AccountUnavailable(bar)),
            Outcome::Rejected(rejection) => Err(VerifyError::Rejected(rejection)),
        }
    }

    /// The entry's normalised DN, unless `found` says that its password must not be tried.
    pub(super) async fn may_be_tried(
        &self,
        entry: &Entry,
        found: impl AsyncFnOnce(directory::Account) -> bool,
        binding: &Binding,
    ) -> Result<String, VerifyError> {
        // Read before the bind: an empty name would be an anonymous one.
        let account = Dn::parse(&entry.dn).ok_or(DirectoryError::Protocol("an entry's name"))?;
        let Held { general, own, own_is_assumed } = self.lockouts.held(entry, &self.pool).await;
        let account = account.to_string();
        let found = found(directory::Account {
            name: account.clone(),
            general_lockout: general,
            own_lockout: own,
            own_is_assumed,
        });
        let may = binding.pauses(found).await;
        if may { Ok(account) } else { Err(VerifyError::Withheld) }
    }

    /// The outcome of a bind and what the entry says, together.
    pub(super) async fn in_the_light_of(
        &self,
        entry: &Entry,
        outcome: Outcome,
    ) -> Result<Outcome, DirectoryError> {
        let Some(active_directory) = &self.active_directory else { return Ok(outcome) };
        // Not for a password that was refused: the directory has counted it, whatever
        // becomes of a further question.
        let now = match outcome {
            Outcome::Accepted(_) => active_directory.domain(&self.pool).await?.now(),
            _ => None,
        };
        let state = Account::read(entry);
        if state.needs_no_password() {
            tracing::warn!(account = entry.dn, "the directory asks no password of an account");
        }
        Ok(state.judge(outcome, now))
    }

    /// The one entry with the login name. A name without entry is rejected without a
    /// bind: an invented DN might exist.
    pub(super) async fn find(&self, name: &str) -> Result<Entry, VerifyError> {
        let comparison = match &self.active_directory {
            None => Filter::Equal(self.user_attribute.clone(), name.to_owned()),
            Some(it) => it.named(name, &*it.domain(&self.pool).await?)?,
        };
        let wanted = [&self.subject_attribute].into_iter().chain(&self.attributes);
        let mut attributes: Vec<_> =
            wanted.map(Attribute::as_str).chain(stamp::ATTRIBUTES).collect();
        attributes.push(self.lockouts.attribute());
        if self.active_directory.is_some() {
            attributes.extend(account::ATTRIBUTES);
        }
        let configured = self.user_filter.clone().map(Filter::Configured);
        let search = Search {
            operation: Operation::UserSearch,
            base: &self.base,
            scope: Scope::Subtree,
            filter: &Filter::And(configured.into_iter().chain([comparison]).collect()),
            attributes: &attributes,
            entries_max: USERS_MAX,
        };
        let found = self.pool.search(search).await?;
        let rejected = |rejection| Err(VerifyError::Rejected(rejection));
        match <[Entry; 1]>::try_from(found.entries) {
            Ok([entry]) if !found.more => Ok(entry),
            Err(none) if none.is_empty() && !found.more => rejected(Rejection::NoSuchUser),
            _ => rejected(Rejection::Ambiguous),
        }
    }

    /// Who an entry is whose password was right.
    pub(super) fn person(
        &self,
        entry: &Entry,
        account: String,
        role: Option<&Role>,
    ) -> Result<Person, VerifyError> {
        let subject = entry.subject(self.subject_attribute.as_str()).map_err(|cause| {
            let attribute = self.subject_attribute.as_str();
            tracing::error!(account, attribute, %cause, "an account names no subject");
            VerifyError::AccountUnavailable(Bar::NoSubject)
        })?;
        match role {
            Some(role) => Ok(Person {
                subject,
                role: role.clone(),
                attributes: self.attributes_of(entry, &account),
                account,
                stamp: Some(Stamp::read(entry).text()),
                notice: None,
                emergency: false,
                lifetime_max: None,
            }),
            None => Err(VerifyError::NoRole { account, subject }),
        }
    }

    /// The first role that fits an entry now.
    pub(super) async fn role_of(
        &self,
        dn: &str,
        searches: &Searches<'_>,
    ) -> Result<Option<&Role>, DirectoryError> {
        if let Some(it) = &self.active_directory {
            return it.role_of(dn, &self.roles, (searches, &self.pool)).await;
        }
        let groups = self.walk.groups_of(dn, &self.roles, searches).await?;
        Ok(self.roles.first(&groups))
    }

    /// What claims ask for, as far as the entry has it and it fits.
    fn attributes_of(&self, entry: &Entry, account: &str) -> Attributes {
        let mut kept = Attributes::default();
        for attribute in self.attributes.iter().map(Attribute::as_str) {
            if let Err(cause) = kept.add(attribute, entry.texts(attribute)) {
                tracing::error!(account, attribute, %cause, "claims go without an attribute");
            }
        }
        kept
    }
}

impl From<DirectoryError> for VerifyError {
    fn from(error: DirectoryError) -> Self {
        Self::Unavailable(error)
    }
}

#[cfg(test)]
mod tests;
