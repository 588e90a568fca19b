//! How session keys follow each other: a new one signs, the old one verifies for a
//! while, and then it is gone. Knows no sessions.

use std::sync::Arc;

use crate::ambient::{Entropy, Timestamp};
use crate::token::keys_dir::KeyError;
use crate::token::material::algorithm_name;
use crate::token::ring::{Held, Key, KeyRing, KeySource, make};

/// One key as operators see it; nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its name.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: &'static str,
    /// When it was made.
    pub created: Timestamp,
    /// Since when another one signs; `None` for the one that does.
    pub replaced: Option<Timestamp>,
}

impl KeyRing {
    /// Every key, oldest first.
    #[must_use]
    pub fn facts(&self) -> Vec<KeyFacts> {
        self.keys.iter().map(facts).collect()
    }

    /// When the key that signs was made.
    #[must_use]
    pub fn signing_since(&self) -> Timestamp {
        self.signing.jwk.created
    }

    /// The ring with a new key that signs from now on; all others go on verifying.
    ///
    /// # Errors
    /// When a key cannot be made or written; this ring is then as good as before.
    pub fn rotated(
        &self,
        source: &KeySource,
        now: Timestamp,
        entropy: &Entropy,
    ) -> Result<Self, KeyError> {
        let algorithm = self.signing.jwk.material.algorithm();
        // Files tell seconds: no two keys may seem to be of one age.
        let newest = self.keys.iter().map(|held| held.key.jwk.created.seconds()).max();
        let created = now.max(Timestamp::from_seconds(newest.map_or(0, |newest| newest + 1)));
        let signing = make(source, algorithm, created, entropy)?;
        let mut keys = self.keys.clone();
        keys.push(Held { key: Arc::clone(&signing), replaced: None });
        mark(source, &mut keys, &signing, now)?;
        Ok(Self { keys, signing })
    }

    /// The ring with the key that signs alone: all that others signed is dead.
    #[must_use]
    pub fn alone(&self) -> Self {
        let mut keys = self.keys.clone();
        keys.retain(|held| held.key.jwk.kid == self.signing.jwk.kid);
        Self { keys, signing: Arc::clone(&self.signing) }
    }

    /// The ring without one of its old keys. The key that signs stays.
    #[must_use]
    pub fn without(&self, kid: &str) -> Self {
        let mut keys = self.keys.clone();
        keys.retain(|held| held.key.jwk.kid != kid || held.key.jwk.kid == self.signing.jwk.kid);
        Self { keys, signing: Arc::clone(&self.signing) }
    }
}

impl KeySource {
    /// Deletes the file of a key that no ring holds any more.
    ///
    /// # Errors
    /// When it cannot be deleted; a start would then read it again.
    pub fn delete(&self, kid: &str) -> Result<(), KeyError> {
        match self {
            Self::Dir(dir) => dir.remove(kid),
            Self::Memory => Ok(()),
        }
    }
}

/// Notes since when each key but the one that signs was replaced, in its file too.
pub(super) fn mark(
    source: &KeySource,
    keys: &mut [Held],
    signing: &Arc<Key>,
    now: Timestamp,
) -> Result<(), KeyError> {
    for held in keys {
        let signs = held.key.jwk.kid == signing.jwk.kid;
        if signs == held.replaced.is_none() {
            continue;
        }
        held.replaced = (!signs).then_some(now);
        if let KeySource::Dir(dir) = source {
            dir.write_replaced(&held.key.jwk, held.replaced)?;
        }
    }
    Ok(())
}

fn facts(held: &Held) -> KeyFacts {
    let Key { jwk, .. } = &*held.key;
    KeyFacts {
        kid: jwk.kid.clone(),
        algorithm: algorithm_name(jwk.material.algorithm()),
        created: jwk.created,
        replaced: held.replaced,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{KeyRing, KeySource};
    use crate::ambient::{Entropy, Timestamp};
    use crate::config::TokenAlgorithm;
    use crate::identity::{Role, SessionId, Subject};
    use crate::token::{Claims, ContextHash, KeysDir, TokenError, TokenId};

    const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);

    fn token(ring: &KeyRing) -> String {
        let claims = Claims {
            subject: Subject::new("zoë"),
            role: Role::new("admin"),
            context: ContextHash::of(b"cookie"),
            issued_at: NOW,
            expires_at: NOW.plus(Duration::from_mins(15)),
            session: SessionId::from_bytes([7; 16]),
            id: TokenId { generation: 1, nonce: [9; 12] },
            reference: None,
        };
        ring.sign(&claims, serde_json::Map::new()).unwrap().expose().clone()
    }

    fn kids(ring: &KeyRing) -> Vec<String> {
        ring.facts().into_iter().map(|facts| facts.kid).collect()
    }

    fn sources(test: impl Fn(&KeySource)) {
        let folder = tempfile::tempdir().unwrap();
        test(&KeySource::Memory);
        test(&KeySource::Dir(KeysDir::open(&folder.path().join("keys")).unwrap()));
    }

    #[test]
    fn a_new_key_signs_and_the_old_one_verifies_until_it_is_dropped() {
        sources(|source| {
            let entropy = Entropy::system();
            let one = KeyRing::open(source, TokenAlgorithm::EdDsa, NOW, &entropy).unwrap();
            let old = token(&one);
            let two = one.rotated(source, NOW, &entropy).unwrap();
            let three = two.rotated(source, NOW.plus(Duration::from_hours(1)), &entropy).unwrap();
            assert!(three.check(&old, NOW).is_ok() && three.check(&token(&two), NOW).is_ok());
            assert_eq!(two.check(&token(&three), NOW), Err(TokenError::UnknownKey));
            let replaced: Vec<_> =
                three.facts().iter().map(|facts| facts.replaced.map(Timestamp::seconds)).collect();
            assert_eq!(replaced, [Some(NOW.seconds()), Some(NOW.seconds() + 3600), None]);

            let less = three.without(&kids(&one)[0]);
            assert_eq!(less.check(&old, NOW), Err(TokenError::UnknownKey));
            assert!(less.check(&token(&two), NOW).is_ok());
            let signing = kids(&three).pop().unwrap();
            let same = less.without(&signing);
            assert!(same.same_keys(&less), "the key that signs stays");
        });
    }

    #[test]
    fn a_key_alone_knows_no_token_of_another() {
        sources(|source| {
            let entropy = Entropy::system();
            let one = KeyRing::open(source, TokenAlgorithm::Hs256, NOW, &entropy).unwrap();
            let two = one.rotated(source, NOW, &entropy).unwrap();
            let alone = two.rotated(source, NOW, &entropy).unwrap().alone();
            assert_eq!(alone.facts().len(), 1);
            for old in [token(&one), token(&two)] {
                assert_eq!(alone.check(&old, NOW), Err(TokenError::UnknownKey));
            }
            assert!(alone.check(&token(&alone), NOW).is_ok());
        });
    }

    #[test]
    fn files_say_which_key_signs_and_since_when_the_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let source = KeySource::Dir(KeysDir::open(&folder.path().join("keys")).unwrap());
        let entropy = Entropy::system();
        let later = NOW.plus(Duration::from_hours(2));
        let one = KeyRing::open(&source, TokenAlgorithm::Hs256, NOW, &entropy).unwrap();
        // Many in one second: the order of their files must not be chance.
        let many = (0..8).fold(one, |ring, _| ring.rotated(&source, NOW, &entropy).unwrap());
        let again = KeyRing::open(&source, TokenAlgorithm::Hs256, later, &entropy).unwrap();
        assert!(again.same_keys(&many));
        let seconds = |ring: &KeyRing| -> Vec<_> {
            ring.facts().iter().map(|facts| facts.replaced.map(Timestamp::seconds)).collect()
        };
        assert_eq!(seconds(&again), seconds(&many));

        let other = again.reopen(&source, TokenAlgorithm::EdDsa, later, &entropy).unwrap();
        assert_eq!(seconds(&other)[8], Some(later.seconds()), "another algorithm replaces it");
        let back = other.reopen(&source, TokenAlgorithm::Hs256, later, &entropy).unwrap();
        assert_eq!(seconds(&back)[8], None, "it signs again");
        assert_eq!(seconds(&back)[9], Some(later.seconds()));
    }
}
