//! A login becomes a session: a new id, a new cookie, the first token.

use std::net::IpAddr;
use std::time::Duration;

use crate::ambient::{EntropyFailed, Timestamp};
use crate::identity::{ACCESS_CODE_ROLE, Attributes, Facts, Reference, Role, SessionId, Subject};
use crate::secret::Secret;
use crate::session::Sessions;
use crate::store::{Issued, SessionRecord, StoreError, USER_AGENT_BYTES_MAX};
use crate::token::{Claims, ContextCookie, TokenError, TokenId};

/// Somebody whom the directory verified.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who it is to the upstream.
    pub subject: Subject,
    /// In which role.
    pub role: Role,
    /// The directory's own name of the account.
    pub account: String,
    /// What claims ask of the entry.
    pub attributes: Attributes,
    /// What the directory tells the account and its password by.
    pub stamp: Option<String>,
    /// Whether it is an emergency account.
    pub emergency: bool,
    /// The longest that its session may live, if less than others'.
    pub lifetime_max: Option<Duration>,
}

/// Somebody who redeemed an access code: nobody whom a directory knows.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Who it is to the upstream: drawn for the code.
    pub subject: Subject,
    /// What the code was given out with.
    pub reference: Option<Reference>,
    /// How long its session and its one token live.
    pub lifetime: Duration,
}

/// How long a session and its first token live, and what the token says besides.
struct Terms {
    session: Duration,
    token: Duration,
    reference: Option<Reference>,
}

/// Where a login came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// What it calls itself; cut to a bounded length.
    pub user_agent: Option<String>,
}

/// A new session, and all that its client gets.
#[derive(Debug)]
pub struct Opened {
    /// The first token.
    pub token: Secret<String>,
    /// The cookie it is bound to.
    pub context: ContextCookie,
    /// The session's id.
    pub session: SessionId,
    /// Who logged in.
    pub subject: Subject,
    /// In which role.
    pub role: Role,
    /// The token's `iat`.
    pub issued_at: Timestamp,
    /// The token's `exp`.
    pub expires_at: Timestamp,
    /// When the session ends, whatever happens.
    pub session_expires_at: Timestamp,
}

/// A new session that the store does not hold yet, and that nobody has heard of.
#[must_use = "it is no session until it is kept"]
pub struct Prepared {
    record: SessionRecord,
    opened: Opened,
}

impl Prepared {
    /// Its id.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.opened.session
    }

    /// Whose it will be.
    #[must_use]
    pub const fn subject(&self) -> &Subject {
        &self.opened.subject
    }

    /// In which role.
    #[must_use]
    pub const fn role(&self) -> &Role {
        &self.opened.role
    }
}

/// No session was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
    /// The first token could not be signed.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Sessions {
    /// Prepares a session for somebody whom the directory verified.
    ///
    /// # Errors
    /// When a token cannot be made, or revocations are not known.
    pub fn prepare(&self, person: Person, origin: Origin) -> Result<Prepared, OpenError> {
        let times = **self.lifetimes.load();
        let session = person.lifetime_max.unwrap_or(times.session).min(times.session);
        let terms = Terms { session, token: times.token, reference: None };
        self.prepare_on(terms, person, origin)
    }

    /// Opens a session that was prepared.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn open(&self, Prepared { record, opened }: Prepared) -> Result<Opened, OpenError> {
        let emergency = record.emergency;
        self.store.create(record).await?;
        self.metrics.sessions_active().inc();
        if emergency {
            self.emergencies.add(opened.session);
        }
        Ok(opened)
    }

    /// Opens a session for somebody who redeemed an access code. It is never renewed, and
    /// no directory is asked about it again.
    ///
    /// # Errors
    /// When the store cannot answer, or a token cannot be made.
    pub async fn open_for_guest(&self, guest: Guest, origin: Origin) -> Result<Opened, OpenError> {
        let Guest { subject, reference, lifetime } = guest;
        let person = Person {
            account: subject.as_str().to_owned(),
            subject,
            role: Role::new(ACCESS_CODE_ROLE),
            attributes: Attributes::default(),
            stamp: None,
            emergency: false,
            lifetime_max: None,
        };
        let terms = Terms { session: lifetime, token: lifetime, reference };
        self.open(self.prepare_on(terms, person, origin)?).await
    }

    fn prepare_on(
        &self,
        terms: Terms,
        person: Person,
        origin: Origin,
    ) -> Result<Prepared, OpenError> {
        let Person { subject, role, account, attributes, stamp, emergency, .. } = person;
        if self.is_stale() {
            return Err(StoreError::Unavailable.into());
        }
        let now = self.clock.now();
        let session = SessionId::fresh(&self.entropy)?;
        let context = ContextCookie::fresh(&self.entropy)?;
        let end = now.plus(terms.session);
        let nonce = self.entropy.bytes()?;
        // A session shorter than a second has no token; configuration allows none such.
        let issued = Issued::new(1, nonce, (now, terms.token), end).ok_or(TokenError::Signing)?;
        let claims = Claims {
            subject: subject.clone(),
            role: role.clone(),
            context: context.hash(),
            issued_at: Timestamp::from_seconds(issued.issued_at),
            expires_at: Timestamp::from_seconds(issued.expires_at),
            session,
            id: TokenId { generation: 1, nonce },
            reference: terms.reference,
        };
        let token = self.sign(&claims, &attributes)?;
        let record = SessionRecord {
            session,
            subject: subject.clone(),
            role: role.clone(),
            account,
            attributes,
            stamp,
            emergency,
            created: now,
            end,
            last_activity: now,
            address: origin.address,
            user_agent: origin.user_agent.map(bounded),
            issued,
            newest_seen: 0,
            replaced: Vec::new(),
        };
        let Claims { issued_at, expires_at, .. } = claims;
        let session_expires_at = end;
        let opened = Opened {
            token,
            context,
            session,
            subject,
            role,
            issued_at,
            expires_at,
            session_expires_at,
        };
        Ok(Prepared { record, opened })
    }
}

impl Sessions {
    /// A token with these claims, and those that the configuration adds.
    pub(super) fn sign(
        &self,
        claims: &Claims,
        attributes: &Attributes,
    ) -> Result<Secret<String>, TokenError> {
        let facts = Facts {
            subject: &claims.subject,
            role: &claims.role,
            session: claims.session,
            attributes,
        };
        let keys = self.signing_keys().map_err(|_| TokenError::Signing)?;
        keys.sign(claims, self.claims.load().fill(&facts))
    }
}

fn bounded(mut user_agent: String) -> String {
    user_agent.truncate(user_agent.floor_char_boundary(USER_AGENT_BYTES_MAX));
    user_agent
}
