//! Assertions: signed statements for one upstream of who is calling. A session's
//! serves for half of its life before a new one is signed, as a signature costs a
//! thousand times what a request does. Knows no HTTP and no session's state.

mod keys;
mod memory;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::ambient::Timestamp;
use crate::config::{self, AssertionSignature, TokenAlgorithm};
use crate::identity::{Attributes, ClaimTemplates, Facts, Role, SessionId, Subject};
use crate::metrics::IntCounter;
use crate::secret::Secret;
use crate::token::TokenError;
use crate::token::material::algorithm_name;
use crate::token::signer::Signer;

pub use keys::{AssertionKeyFacts, AssertionKeys, KeyStage, NewAssertionKey};
pub use memory::{AssertionMemory, Remembered};

use keys::AssertionKey;

/// Tells issuers apart by all that their assertions depend on besides the session.
type IssuerId = [u8; 32];

/// Signs the assertions of one upstream.
pub struct AssertionIssuer {
    id: IssuerId,
    issuer: String,
    audience: String,
    typ: String,
    lifetime: Duration,
    claims: ClaimTemplates,
    needs_attributes: bool,
    key: IssuerKey,
    signed: IntCounter,
}

enum IssuerKey {
    Shared(Signer),
    Pair { kind: keys::Kind, publish_ahead: Duration, keys: Arc<AssertionKeys> },
}

/// What an assertion states of its session, as far as that can change.
#[derive(Clone)]
pub struct Stated {
    /// `sub`
    pub subject: Subject,
    /// `{role}`
    pub role: Role,
    /// `{attr:NAME}`; compared by identity, as a session learns them once.
    pub attributes: Option<Arc<Attributes>>,
}

impl Stated {
    /// Whether it is exactly this.
    #[must_use]
    pub fn is(&self, subject: &Subject, role: &Role, attributes: Option<&Arc<Attributes>>) -> bool {
        let same = match (&self.attributes, attributes) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same && self.role == *role && self.subject == *subject
    }
}

impl PartialEq for Stated {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.subject, &other.role, other.attributes.as_ref())
    }
}

/// A signed assertion.
pub struct Assertion {
    text: Secret<String>,
    stated: Stated,
    /// When a new one should be signed.
    renew_at: Timestamp,
    /// Until when it is sent: what arrives should not end on its way.
    useful_until: Timestamp,
    /// What signed it; `None` for a shared secret.
    key: Option<Arc<AssertionKey>>,
}

/// There is no assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// Claims ask for attributes, and the session's record is not known.
    #[error("the session's attributes are not known")]
    AttributesUnknown,
    /// It could not be signed.
    #[error(transparent)]
    Signing(#[from] TokenError),
}

#[derive(Serialize)]
struct Header<'h> {
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'h str>,
    typ: &'h str,
}

impl AssertionIssuer {
    /// The issuer of an upstream; its signatures are counted.
    #[must_use]
    pub fn new(
        upstream: &str,
        config: &config::Assertion,
        keys: &Arc<AssertionKeys>,
        signed: IntCounter,
    ) -> Self {
        let key = match &config.signature {
            AssertionSignature::Shared(secret) => {
                IssuerKey::Shared(Signer::hmac(secret.expose().as_bytes()))
            }
            AssertionSignature::KeyPair { algorithm, publication } => IssuerKey::Pair {
                kind: keys::Kind { algorithm: *algorithm, publication: *publication },
                publish_ahead: config.publish_ahead,
                keys: Arc::clone(keys),
            },
        };
        Self {
            id: id_of(upstream, config),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            typ: config.typ.clone(),
            lifetime: config.lifetime,
            needs_attributes: !config.claims.attributes().is_empty(),
            claims: config.claims.clone(),
            key,
            signed,
        }
    }

    /// What a session remembers of this issuer's.
    #[must_use]
    pub fn look(&self, memory: &AssertionMemory, stated: &Stated, now: Timestamp) -> Remembered {
        memory.look(self.id, stated, now)
    }

    /// Signs a new one, unless somebody just did. `session` is its id and its end.
    /// Takes a millisecond of the thread it runs on.
    ///
    /// # Errors
    /// When attributes are needed and not known, or the library refuses.
    pub async fn renew(
        &self,
        memory: &AssertionMemory,
        stated: &Stated,
        session: (SessionId, Timestamp),
        now: Timestamp,
    ) -> Result<Arc<Assertion>, AssertionError> {
        let slot = memory.slot(self.id, now);
        let _alone = slot.signing.lock().await;
        if let Remembered::Fresh(assertion) = slot.look(stated, now) {
            return Ok(assertion);
        }
        let mut signed = self.sign(stated, session, now).map(Arc::new);
        if signed.as_ref().is_ok_and(|assertion| assertion.is_dropped()) {
            // Its key went while it signed.
            signed = self.sign(stated, session, now).map(Arc::new);
        }
        slot.settle(signed.as_ref().ok().cloned());
        signed
    }

    fn sign(
        &self,
        stated: &Stated,
        (session, end): (SessionId, Timestamp),
        now: Timestamp,
    ) -> Result<Assertion, AssertionError> {
        let nothing = Attributes::default();
        let attributes = match &stated.attributes {
            Some(known) => known,
            None if self.needs_attributes => return Err(AssertionError::AttributesUnknown),
            None => &nothing,
        };
        let expires_at = Timestamp::from_seconds(now.plus(self.lifetime).min(end).seconds());
        let Stated { subject, role, .. } = stated;
        let mut claims = self.claims.fill(&Facts { subject, role, session, attributes });
        let mut fixed = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        fixed("iss", self.issuer.as_str().into());
        fixed("aud", self.audience.as_str().into());
        fixed("sub", subject.as_str().into());
        fixed("iat", now.seconds().into());
        fixed("exp", expires_at.seconds().into());
        let (text, key) = self.signature(&claims, expires_at, now)?;
        self.signed.inc();
        let is_last = expires_at.seconds() == end.seconds();
        let life = expires_at.since(now);
        Ok(Assertion {
            text: Secret::new(text),
            stated: stated.clone(),
            // Nothing is won by one that expires no later.
            renew_at: if is_last { expires_at } else { now.plus(life / 2) },
            useful_until: if is_last { expires_at } else { now.plus(life / 4 * 3) },
            key,
        })
    }

    fn signature(
        &self,
        claims: &Map<String, Value>,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(String, Option<Arc<AssertionKey>>), TokenError> {
        let header =
            |algorithm, kid| Header { alg: algorithm_name(algorithm), kid, typ: &self.typ };
        match &self.key {
            IssuerKey::Shared(signer) => {
                // A name of the secret would tell nobody anything, or too much.
                Ok((signer.sign(&header(TokenAlgorithm::Hs256, None), claims)?, None))
            }
            IssuerKey::Pair { kind, publish_ahead, keys } => {
                let key = keys.signing(*kind, *publish_ahead, now).ok_or(TokenError::UnknownKey)?;
                key.signs_until(expires_at);
                let text = key.signer.sign(&header(kind.algorithm, Some(key.kid())), claims)?;
                Ok((text, Some(key)))
            }
        }
    }
}

impl Assertion {
    /// The compact form.
    #[must_use]
    pub const fn text(&self) -> &Secret<String> {
        &self.text
    }

    /// What it states.
    #[must_use]
    pub const fn stated(&self) -> &Stated {
        &self.stated
    }

    /// Whether it has more than half of its life left, and its key was not dropped.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.renew_at && !self.is_dropped()
    }

    /// Whether its key was dropped: nobody should accept it any more.
    fn is_dropped(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.is_dropped())
    }
}

/// The hash of all that the configuration decides.
fn id_of(upstream: &str, config: &config::Assertion) -> IssuerId {
    let signature = match &config.signature {
        AssertionSignature::Shared(secret) => {
            let hash: [u8; 32] = Sha256::digest(secret.expose().as_bytes()).into();
            format!("{hash:?}")
        }
        AssertionSignature::KeyPair { algorithm, publication } => {
            format!("{algorithm:?} {publication:?}")
        }
    };
    let config::Assertion { issuer, audience, typ, lifetime, claims, .. } = config;
    // Debug text of strings is quoted, so that no two configurations read alike.
    let all = format!("{:?}", (upstream, signature, issuer, audience, typ, lifetime, claims));
    Sha256::digest(all).into()
}
