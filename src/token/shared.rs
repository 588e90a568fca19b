//! The session keys that several gateways share, as one list that their store keeps
//! for them. A key's age says what it does: the newest that has begun signs, and one
//! that is made for later is held by all before it begins. Knows no store.

use std::sync::Arc;
use std::time::Duration;

use crate::ambient::{Entropy, Timestamp};
use crate::config::TokenAlgorithm;
use crate::secret::Secret;
use crate::token::jwk::{Jwk, Purpose};
use crate::token::keys_dir::KeyError;
use crate::token::ring::{Held, Key, KeyRing};

/// What makes whole seconds of a moment, rounded up.
const WITHIN_A_SECOND: Duration = Duration::from_millis(999);

impl KeyRing {
    /// The ring of a list that [`KeyRing::to_shared`] made.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_shared(
        list: &Secret<Vec<u8>>,
        algorithm: TokenAlgorithm,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for row in list.expose().split(|byte| *byte == b'\n').filter(|row| !row.is_empty()) {
            let jwk = Jwk::parse(row).map_err(|_| KeyError::NoList)?;
            if jwk.purpose != Purpose::Session {
                return Err(KeyError::NoList);
            }
            keys.push(Held { key: Arc::new(Key::new(jwk)?), replaced: None });
        }
        Self::settled(keys, algorithm, now)
    }

    /// All keys as one list: a JSON Web Key a line.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn to_shared(&self) -> Result<Secret<Vec<u8>>, KeyError> {
        let mut list = Vec::new();
        for held in &self.keys {
            let json = held.key.jwk.to_json(None).map_err(|_| KeyError::Generation)?;
            list.extend_from_slice(json.expose());
            list.push(b'\n');
        }
        Ok(Secret::new(list))
    }

    /// A ring of one new key, which signs at once.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn fresh(
        algorithm: TokenAlgorithm,
        now: Timestamp,
        entropy: &Entropy,
    ) -> Result<Self, KeyError> {
        let signing = made(algorithm, now, entropy)?;
        Ok(Self { keys: vec![Held { key: Arc::clone(&signing), replaced: None }], signing })
    }

    /// The ring with one more key, which begins to sign at a moment to come.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn followed(
        &self,
        algorithm: TokenAlgorithm,
        (now, begins): (Timestamp, Timestamp),
        entropy: &Entropy,
    ) -> Result<Self, KeyError> {
        // Lists tell seconds: no two keys may seem to be of one age, or begin too soon.
        let begins = Timestamp::from_seconds(begins.plus(WITHIN_A_SECOND).seconds());
        let after_all = self.newest().seconds().saturating_add(1);
        let begins = begins.max(Timestamp::from_seconds(after_all));
        let mut keys = self.keys.clone();
        keys.push(Held { key: made(algorithm, begins, entropy)?, replaced: None });
        Self::settled(keys, algorithm, now)
    }

    /// The same keys as they stand at a moment: which one signs, and since when the
    /// older ones do not.
    ///
    /// # Errors
    /// When there is none.
    pub fn at(&self, algorithm: TokenAlgorithm, now: Timestamp) -> Result<Self, KeyError> {
        Self::settled(self.keys.clone(), algorithm, now)
    }

    /// Whether some key is of this algorithm.
    #[must_use]
    pub fn has(&self, algorithm: TokenAlgorithm) -> bool {
        self.keys.iter().any(|held| held.key.jwk.material.algorithm() == algorithm)
    }

    /// Whether the same key signs.
    #[must_use]
    pub fn signs_as(&self, other: &Self) -> bool {
        self.signing.jwk.kid == other.signing.jwk.kid
    }

    /// When the newest key begins to sign.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        let begins = self.keys.iter().map(|held| held.key.jwk.created).max();
        begins.unwrap_or(Timestamp::from_millis(0))
    }

    fn settled(
        mut keys: Vec<Held>,
        algorithm: TokenAlgorithm,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        keys.sort_by(|one, two| {
            let age = |held: &Held| (held.key.jwk.created, held.key.jwk.kid.clone());
            age(one).cmp(&age(two))
        });
        let begun = keys.iter().filter(|held| held.key.jwk.created <= now).count();
        let ours = |held: &Held| held.key.jwk.material.algorithm() == algorithm;
        let signs = keys[..begun].iter().rposition(ours).or(begun.checked_sub(1)).unwrap_or(0);
        let next: Vec<_> = keys.iter().skip(1).map(|held| held.key.jwk.created).collect();
        for (index, held) in keys.iter_mut().enumerate() {
            held.replaced = next.get(index).copied().filter(|_| index < signs);
        }
        let signing = keys.get(signs).map(|held| Arc::clone(&held.key));
        Ok(Self { keys, signing: signing.ok_or(KeyError::NoList)? })
    }
}

fn made(
    algorithm: TokenAlgorithm,
    begins: Timestamp,
    entropy: &Entropy,
) -> Result<Arc<Key>, KeyError> {
    let jwk = Jwk::generate(algorithm, Purpose::Session, begins, entropy)
        .map_err(|_| KeyError::Generation)?;
    Key::new(jwk).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::KeyRing;
    use crate::ambient::{Entropy, Timestamp};
    use crate::config::TokenAlgorithm;
    use crate::secret::Secret;

    const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);
    const DELAY: Duration = Duration::from_mins(1);

    #[test]
    fn a_key_is_held_by_all_before_it_signs() {
        let entropy = Entropy::system();
        for algorithm in [TokenAlgorithm::Hs256, TokenAlgorithm::Es256] {
            let one = KeyRing::fresh(algorithm, NOW, &entropy).unwrap();
            let begins = NOW.plus(DELAY);
            let two = one.followed(algorithm, (NOW, begins), &entropy).unwrap();
            assert!(two.signs_as(&one) && !two.same_keys(&one));
            let again = KeyRing::from_shared(&two.to_shared().unwrap(), algorithm, NOW).unwrap();
            assert!(again.same_keys(&two) && again.signs_as(&one));
            let before = again.at(algorithm, NOW.plus(Duration::from_secs(59))).unwrap();
            assert!(before.signs_as(&one));
            let after = again.at(algorithm, begins).unwrap();
            assert!(!after.signs_as(&one) && after.same_keys(&again));
            let facts = after.facts();
            assert_eq!((facts[0].replaced, facts[1].replaced), (Some(begins), None));
        }
    }

    #[test]
    fn another_algorithm_signs_where_it_is_asked_for() {
        let entropy = Entropy::system();
        let (old, new) = (TokenAlgorithm::Hs256, TokenAlgorithm::EdDsa);
        let one = KeyRing::fresh(old, NOW, &entropy).unwrap();
        assert!(one.has(old) && !one.has(new));
        let two = one.followed(new, (NOW, NOW), &entropy).unwrap();
        let later = NOW.plus(DELAY);
        assert!(two.at(old, later).unwrap().signs_as(&one));
        assert!(!two.at(new, later).unwrap().signs_as(&one));
    }

    #[test]
    fn what_is_no_list_of_session_keys_is_refused() {
        for list in ["", "\n", "{}", "[]", "x\n"] {
            let list = Secret::new(list.as_bytes().to_vec());
            assert!(KeyRing::from_shared(&list, TokenAlgorithm::Hs256, NOW).is_err());
        }
    }
}
