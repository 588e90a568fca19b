//! A change of password, asked for by whoever knows the old one and made in that
//! person's name, never by right of the service account. Knows no HTTP and no tokens.

use std::sync::OnceLock;

use ldap3::Scope;

use crate::directory::binding::Binding;
use crate::directory::connection::Search;
use crate::directory::entry::Entry;
use crate::directory::filter::{Attribute, Filter};
use crate::directory::ldap::LdapDirectory;
use crate::directory::outcome::Outcome;
use crate::directory::password_modify::{Changed, PasswordChange};
use crate::directory::{Account, DirectoryError, Operation, Rejection, VerifyError};
use crate::identity::{Credentials, Subject};
use crate::secret::Secret;

/// What is read of an entry so that its owner's names are known.
const NAME_ATTRIBUTES: [&str; 9] = [
    "uid",
    "cn",
    "sn",
    "givenName",
    "displayName",
    "mail",
    "sAMAccountName",
    "userPrincipalName",
    "mailNickname",
];

/// Why a password that was to be new is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It has too few characters.
    TooShort,
    /// It has too many.
    TooLong,
    /// It holds what no password may hold.
    Unusable,
    /// Everybody tries it first.
    Common,
    /// It is hardly more than its owner's names.
    Name,
    /// It is the old one.
    Unchanged,
    /// The directory finds it too simple.
    TooSimple,
    /// The directory remembers it.
    UsedBefore,
    /// The last change was too recent.
    TooYoung,
    /// A rule of the directory that it does not name.
    Policy,
    /// Its owner may not change it, or cannot any more.
    NotAllowed,
}

impl Objection {
    /// The label of metrics, audit records and answers.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::Unusable => "unusable",
            Self::Common => "common",
            Self::Name => "name",
            Self::Unchanged => "unchanged",
            Self::TooSimple => "too_simple",
            Self::UsedBefore => "used_before",
            Self::TooYoung => "too_young",
            Self::Policy => "policy",
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A login with the old password would not have come this far either.
    #[error(transparent)]
    Login(#[from] VerifyError),
    /// The old password is right, and the new one is not taken.
    #[error("the new password is refused: {}", .0.label())]
    Objected(Objection),
    /// The old password is right, and the directory did not say whether it took the new
    /// one. Whose it is, if the entry says so.
    #[error("nobody knows whether the password was changed")]
    Unknown(Option<Subject>),
}

/// Whose password a server may have changed without an answer, from when it is asked.
type Asked = OnceLock<Option<Subject>>;

impl From<DirectoryError> for ChangeError {
    fn from(error: DirectoryError) -> Self {
        Self::Login(error.into())
    }
}

impl LdapDirectory {
    /// What can be said of a new password before anybody is asked.
    pub(super) async fn judge_new(
        &self,
        credentials: &Credentials,
        new: &Secret<String>,
    ) -> Result<(), ChangeError> {
        if new.expose() == credentials.password().expose() {
            return Err(ChangeError::Objected(Objection::Unchanged));
        }
        self.password_rules.judge(new, [credentials.name()]).await
    }

    /// Changes a password within `directory.timeout`. One bind is sent, with the old
    /// one; who does not know it learns nothing. Says who it was, if the entry does.
    pub(super) async fn change(
        &self,
        credentials: &Credentials,
        new: &Secret<String>,
        found: impl AsyncFnOnce(Account) -> bool,
    ) -> Result<Option<Subject>, ChangeError> {
        let (binding, asked) = (Binding::within(self.timeout), Asked::new());
        let work = self.change_at_leisure((credentials, new), found, (&binding, &asked));
        let changed = binding.limits(work).await.unwrap_or_else(|| {
            Err(match asked.into_inner() {
                Some(subject) => ChangeError::Unknown(subject),
                None => DirectoryError::Timeout.into(),
            })
        });
        changed.map_err(|error| match error {
            ChangeError::Login(error) => ChangeError::Login(binding.weighed(error)),
            error => error,
        })
    }

    async fn change_at_leisure(
        &self,
        (credentials, new): (&Credentials, &Secret<String>),
        found: impl AsyncFnOnce(Account) -> bool,
        (binding, asked): (&Binding, &Asked),
    ) -> Result<Option<Subject>, ChangeError> {
        let entry = self.find(credentials.name()).await?;
        let account = self.may_be_tried(&entry, found, binding).await?;
        let old = credentials.password();
        let alone = self.pool.bind_alone(&entry.dn, old, binding).await?;
        match self.in_the_light_of(&entry, alone.answer.outcome).await? {
            Outcome::Accepted(_) | Outcome::ChangeRequired(_) => {}
            Outcome::Barred(bar) => return Err(VerifyError::AccountUnavailable(bar).into()),
            Outcome::Rejected(rejection) => return Err(VerifyError::Rejected(rejection).into()),
        }
        // Only now, as the answer tells something of the entry.
        let names = self.names_of(&entry, &account).await?;
        let names = names.iter().map(String::as_str).chain([credentials.name()]);
        self.password_rules.judge(new, names).await?;
        let unicode_of = self.active_directory.is_some().then_some(entry.dn.as_str());
        if unicode_of.is_some() && !alone.is_encrypted() {
            return Err(ChangeError::Objected(Objection::NotAllowed));
        }
        // Active Directory lets nobody log in whose password must be changed. It takes the
        // change from whoever is logged in, because the old password in it is the proof: the
        // right to it ("Change Password") is everybody's, and is none to reset. Elsewhere even
        // a bind that was refused because the password has expired may leave the connection
        // fit for the change, and for nothing else.
        let by_proof = unicode_of.is_some() && alone.answer.code != 0;
        let service = if by_proof { Some(alone.service().await?) } else { None };
        let change = PasswordChange { old, new, unicode_of };
        let subject = entry.subject(self.subject_attribute.as_str()).ok();
        let _ = asked.set(subject.clone());
        match alone.change_password(&change, service.as_deref()).await {
            Ok(Changed::Done) => Ok(subject),
            Ok(Changed::Objected(objection)) => Err(ChangeError::Objected(objection)),
            Ok(Changed::WrongPassword) => {
                Err(VerifyError::Rejected(Rejection::WrongPassword).into())
            }
            Ok(Changed::Locked) => Err(VerifyError::Rejected(Rejection::Locked).into()),
            // It said no.
            Err(error @ DirectoryError::Refused { .. }) => Err(error.into()),
            Err(error) => {
                tracing::error!(%error, "a change of password was not answered");
                Err(ChangeError::Unknown(subject))
            }
        }
    }

    /// The names of the entry's owner, as far as the service account may read them.
    async fn names_of(&self, entry: &Entry, account: &str) -> Result<Vec<String>, DirectoryError> {
        let object_class =
            Attribute::parse("objectClass").ok_or(DirectoryError::Protocol("our own filter"))?;
        let own = [self.user_attribute.as_str(), self.subject_attribute.as_str()];
        let attributes: Vec<_> = own.into_iter().chain(NAME_ATTRIBUTES).collect();
        let search = Search {
            operation: Operation::UserSearch,
            base: &entry.dn,
            scope: Scope::Base,
            filter: &Filter::Present(object_class),
            attributes: &attributes,
            entries_max: 1,
        };
        let found = self.pool.search(search).await?.entries;
        let texts = |entry: &Entry| -> Vec<String> {
            attributes.iter().flat_map(|attribute| entry.texts(attribute)).collect()
        };
        // In normal form no comma or plus sign of a value is left as it was.
        let first = account.split(',').next().unwrap_or_default();
        let values = first.split('+').filter_map(|part| Some(part.split_once('=')?.1.to_owned()));
        Ok(found.iter().flat_map(texts).chain(values).collect())
    }
}
