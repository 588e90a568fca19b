//! The keys that sign and verify session tokens. One algorithm a key, fixed by the
//! key and never read from the token; a key is found only in our own set.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{DecodingKey, EncodingKey, Validation};
use serde_json::{Map, Value};

use crate::ambient::{Entropy, Timestamp};
use crate::config::TokenAlgorithm;
use crate::secret::Secret;
use crate::token::claims::{Claims, Wire};
use crate::token::header::{self, Header, TOKEN_BYTES_MAX, TYP};
use crate::token::jwk::{Jwk, Purpose};
use crate::token::keys_dir::{KeyError, KeysDir};
use crate::token::material::{algorithm_name, jwt_algorithm};
use crate::token::rotation;

/// How far `iat` may lie ahead, and `exp` behind.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// Where keys come from and go to.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Files that outlive the process.
    Dir(KeysDir),
    /// Nothing: the keys die with the process, as the memory store does.
    Memory,
}

/// Why a token is not valid; for logs, the client is told no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts, or a header with other members than ours.
    #[error("the token's form or header is not ours")]
    Malformed,
    /// Another kind of token.
    #[error("the token is of another type")]
    WrongType,
    /// No key of ours has this name.
    #[error("the token's key is not known")]
    UnknownKey,
    /// Not the algorithm of the key.
    #[error("the token's algorithm is not its key's")]
    WrongAlgorithm,
    /// Signature or claims do not hold.
    #[error("the token's signature or claims do not hold")]
    Forged,
    /// `iat` lies in the future.
    #[error("the token was issued in the future")]
    NotYetIssued,
    /// The library refused to sign.
    #[error("a token could not be signed")]
    Signing,
    /// Its further claims are too much.
    #[error("a token would be too long with what token.claims adds")]
    TooLong,
}

/// The session keys: one signs, all verify. How they follow each other is in `rotation`.
pub struct KeyRing {
    /// Oldest first.
    pub(super) keys: Vec<Held>,
    pub(super) signing: Arc<Key>,
}

/// A key of the ring.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) key: Arc<Key>,
    /// Since when another one signs; `None` for the one that does.
    pub(super) replaced: Option<Timestamp>,
}

pub(super) struct Key {
    pub(super) jwk: Jwk,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl KeyRing {
    /// Reads the session keys; makes one when none is of the algorithm.
    ///
    /// # Errors
    /// When a key is broken, open to others, or cannot be made or written.
    pub fn open(
        source: &KeySource,
        algorithm: TokenAlgorithm,
        now: Timestamp,
        entropy: &Entropy,
    ) -> Result<Self, KeyError> {
        Self::build(source, stored(source)?, algorithm, (now, entropy))
    }

    /// Reads the keys again. Keys that live in memory only stay.
    ///
    /// # Errors
    /// As for [`KeyRing::open`]; this ring is then as good as before.
    pub fn reopen(
        &self,
        source: &KeySource,
        algorithm: TokenAlgorithm,
        now: Timestamp,
        entropy: &Entropy,
    ) -> Result<Self, KeyError> {
        let keys = match source {
            KeySource::Dir(_) => stored(source)?,
            KeySource::Memory => self.keys.clone(),
        };
        Self::build(source, keys, algorithm, (now, entropy))
    }

    /// Makes a new key and deletes all others, so that every token issued so far
    /// is dead. Says how many were deleted.
    ///
    /// # Errors
    /// As for [`KeyRing::open`]; old keys may then still be there.
    pub fn replace(
        source: &KeySource,
        algorithm: TokenAlgorithm,
        now: Timestamp,
        entropy: &Entropy,
    ) -> Result<(Self, usize), KeyError> {
        let old = stored(source)?;
        let ring = Self::build(source, Vec::new(), algorithm, (now, entropy))?;
        if let KeySource::Dir(dir) = source {
            for held in &old {
                dir.remove(&held.key.jwk.kid)?;
            }
        }
        Ok((ring, old.len()))
    }

    fn build(
        source: &KeySource,
        mut keys: Vec<Held>,
        algorithm: TokenAlgorithm,
        (now, entropy): (Timestamp, &Entropy),
    ) -> Result<Self, KeyError> {
        let newest = |held: &&Held| held.key.jwk.material.algorithm() == algorithm;
        let signing = if let Some(held) = keys.iter().rfind(newest) {
            Arc::clone(&held.key)
        } else {
            let key = make(source, algorithm, now, entropy)?;
            keys.push(Held { key: Arc::clone(&key), replaced: None });
            key
        };
        rotation::mark(source, &mut keys, &signing, now)?;
        Ok(Self { keys, signing })
    }

    /// Signs a token, with further claims for others to read.
    ///
    /// # Errors
    /// When the library refuses, or the token would be too long.
    pub fn sign(
        &self,
        claims: &Claims,
        further: Map<String, Value>,
    ) -> Result<Secret<String>, TokenError> {
        let key = &self.signing;
        let mut header = jsonwebtoken::Header::new(jwt_algorithm(key.jwk.material.algorithm()));
        header.typ = Some(TYP.to_owned());
        header.kid = Some(key.jwk.kid.clone());
        let token = jsonwebtoken::encode(&header, &Wire::new(claims, further), &key.encoding)
            .map(Secret::new)
            .map_err(|_| TokenError::Signing)?;
        // It would not even be looked at when it comes back.
        if token.expose().len() > TOKEN_BYTES_MAX { Err(TokenError::TooLong) } else { Ok(token) }
    }

    /// Checks everything of a token but `exp` and the context cookie: form, type,
    /// key, algorithm, signature, claims and `iat`, in this order.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let claims = self.verify(token)?;
        if claims.issued_at > now.plus(LEEWAY) {
            return Err(TokenError::NotYetIssued);
        }
        Ok(claims)
    }

    /// Checks that a token was signed by us as what it is, whenever that was.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let header = header::decode(token).ok_or(TokenError::Malformed)?;
        let header: Header<'_> =
            serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        if header.typ != TYP {
            return Err(TokenError::WrongType);
        }
        let held = self.keys.iter().find(|held| held.key.jwk.kid == *header.kid);
        let key = &*held.ok_or(TokenError::UnknownKey)?.key;
        if header.alg != algorithm_name(key.jwk.material.algorithm()) {
            return Err(TokenError::WrongAlgorithm);
        }
        let data = jsonwebtoken::decode::<Wire>(token, &key.decoding, &key.validation)
            .map_err(|_| TokenError::Forged)?;
        data.claims.claims().ok_or(TokenError::Forged)
    }

    /// The key set (RFC 7517 section 5) of the public keys; empty when all are symmetric.
    #[must_use]
    pub fn public_jwks(&self) -> serde_json::Value {
        let keys: Vec<_> = self.keys.iter().filter_map(|held| held.key.jwk.to_public()).collect();
        serde_json::json!({ "keys": keys })
    }

    /// Whether both hold the same keys, so that what one verified the other would.
    #[must_use]
    pub fn same_keys(&self, other: &Self) -> bool {
        let kid = |held: &Held| held.key.jwk.kid.clone();
        self.keys.iter().map(kid).eq(other.keys.iter().map(kid))
    }
}

fn stored(source: &KeySource) -> Result<Vec<Held>, KeyError> {
    let KeySource::Dir(dir) = source else {
        return Ok(Vec::new());
    };
    let session = dir.read()?.into_iter().filter(|jwk| jwk.purpose == Purpose::Session);
    session
        .map(|jwk| {
            let replaced = jwk.replaced;
            Ok(Held { key: Arc::new(Key::new(jwk)?), replaced })
        })
        .collect()
}

/// A new key, on disk before it is answered.
pub(super) fn make(
    source: &KeySource,
    algorithm: TokenAlgorithm,
    created: Timestamp,
    entropy: &Entropy,
) -> Result<Arc<Key>, KeyError> {
    let jwk = Jwk::generate(algorithm, Purpose::Session, created, entropy)
        .map_err(|_| KeyError::Generation)?;
    if let KeySource::Dir(dir) = source {
        dir.write(&jwk)?;
    }
    Key::new(jwk).map(Arc::new)
}

impl Key {
    pub(super) fn new(jwk: Jwk) -> Result<Self, KeyError> {
        let mut validation = Validation::new(jwt_algorithm(jwk.material.algorithm()));
        // Times are checked against our own clock; all claims are demanded by their type.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let encoding = jwk.material.encoding_key().map_err(|_| KeyError::Generation)?;
        Ok(Self { encoding, decoding: jwk.material.decoding_key(), validation, jwk })
    }
}

#[cfg(test)]
mod tests;
