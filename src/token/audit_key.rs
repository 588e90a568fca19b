//! The key that signs the audit log's checkpoints, kept beside the session keys
//! and used for nothing else. Knows no audit log.

use std::path::Path;

use crate::ambient::{Entropy, Timestamp};
use crate::config::TokenAlgorithm;
use crate::secret::Secret;
use crate::token::jwk::{Jwk, Purpose};
use crate::token::keys_dir::{KeyError, KeysDir};
use crate::token::material::Material;

/// An Ed25519 key.
#[derive(Debug)]
pub struct AuditKey {
    /// Its name: the thumbprint of its public part (RFC 7638).
    pub kid: String,
    /// The private key (RFC 8032 section 5.1.5).
    pub seed: Secret<[u8; 32]>,
}

/// The newest audit key in the folder; made when there is none, and kept there.
/// Without a folder it is in memory only.
///
/// # Errors
/// When a key is broken, open to others, or cannot be made or written.
pub fn audit_key(
    keys_dir: Option<&KeysDir>,
    now: Timestamp,
    entropy: &Entropy,
) -> Result<AuditKey, KeyError> {
    if let Some(dir) = keys_dir {
        let newest = dir.read()?.into_iter().rfind(|jwk| jwk.purpose == Purpose::Audit);
        if let Some(jwk) = newest {
            return parts(jwk);
        }
    }
    let jwk = Jwk::generate(TokenAlgorithm::EdDsa, Purpose::Audit, now, entropy)
        .map_err(|_| KeyError::Generation)?;
    if let Some(dir) = keys_dir {
        dir.write(&jwk)?;
    }
    parts(jwk)
}

/// Name and public part (RFC 8032 section 5.1.5) of every audit key in the folder:
/// what `audit verify` may trust.
///
/// # Errors
/// When the folder or a key in it cannot be read.
pub fn audit_public_keys(keys_dir: &Path) -> Result<Vec<(String, [u8; 32])>, KeyError> {
    let keys = KeysDir::open(keys_dir)?.read()?.into_iter();
    Ok(keys
        .filter(|jwk| jwk.purpose == Purpose::Audit)
        .filter_map(|jwk| match jwk.material {
            Material::Ed25519 { public, .. } => Some((jwk.kid, public)),
            _ => None,
        })
        .collect())
}

fn parts(jwk: Jwk) -> Result<AuditKey, KeyError> {
    match jwk.material {
        Material::Ed25519 { seed, .. } => Ok(AuditKey { kid: jwk.kid, seed }),
        // `Jwk::parse` refuses an audit key of another algorithm.
        _ => Err(KeyError::Generation),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::{audit_key, audit_public_keys};
    use crate::ambient::{Entropy, Timestamp};
    use crate::config::TokenAlgorithm;
    use crate::token::{KeyRing, KeySource, KeysDir};

    #[test]
    fn the_audit_key_is_kept_and_never_a_session_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let dir = KeysDir::open(&path).unwrap();
        let (now, entropy) = (Timestamp::from_seconds(1), Entropy::system());
        let key = audit_key(Some(&dir), now, &entropy).unwrap();
        let again = audit_key(Some(&dir), now, &entropy).unwrap();
        assert_eq!((&key.kid, key.seed.expose()), (&again.kid, again.seed.expose()));

        let pair = Ed25519KeyPair::from_seed_unchecked(key.seed.expose()).unwrap();
        let public = audit_public_keys(&path).unwrap();
        assert_eq!(public.len(), 1);
        assert_eq!(
            (public[0].0.as_str(), &public[0].1[..]),
            (key.kid.as_str(), pair.public_key().as_ref())
        );

        let source = KeySource::Dir(dir);
        let ring = KeyRing::open(&source, TokenAlgorithm::EdDsa, now, &entropy).unwrap();
        assert!(!ring.public_jwks().to_string().contains(&key.kid));
        KeyRing::replace(&source, TokenAlgorithm::EdDsa, now, &entropy).unwrap();
        assert_eq!(audit_public_keys(&path).unwrap(), public, "replacing spares the audit key");
    }
}
