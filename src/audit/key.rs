//! The key that signs checkpoints, used for nothing else, and its public half.
//! Knows nothing of records.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// What a signature covers begins with this, so that it can never be taken for
/// a signature over anything else.
const DOMAIN: &[u8] = b"bindgate audit checkpoint v1\0";

/// The purpose that a private key file states.
const PURPOSE: &str = "audit";

/// The key cannot be used for audit checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a JSON Web Key or a set of them.
    #[error("not a JSON Web Key (RFC 7517)")]
    NotAKey,
    /// A key for something else.
    #[error("not an Ed25519 key (kty OKP, crv Ed25519, member x) of the audit log")]
    OtherKey,
}

/// Signs checkpoints.
pub struct CheckpointKey {
    kid: String,
    pair: Ed25519KeyPair,
}

impl CheckpointKey {
    /// From an Ed25519 seed (RFC 8032) and the name of the key.
    ///
    /// # Errors
    /// When the library refuses the seed.
    pub fn from_seed(kid: &str, seed: &Secret<[u8; 32]>) -> Result<Self, KeyError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| KeyError::OtherKey)?;
        Ok(Self { kid: kid.to_owned(), pair })
    }

    /// The name of the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> VerifyKey {
        let mut x = [0; 32];
        x.copy_from_slice(self.pair.public_key().as_ref());
        VerifyKey { kid: self.kid.clone(), x }
    }

    /// The signature over the line's bytes before its member `signature`, base64url.
    pub(super) fn sign(&self, signed: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(&message(signed)).as_ref())
    }
}

/// The public half of a checkpoint key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyKey {
    kid: String,
    x: [u8; 32],
}

/// The members of a JSON Web Key that matter here (RFC 8037).
#[derive(Deserialize)]
struct Jwk {
    kty: Option<String>,
    crv: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    d: Option<String>,
    purpose: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

impl VerifyKey {
    /// From its name and the 32 bytes of RFC 8032.
    #[must_use]
    pub const fn new(kid: String, x: [u8; 32]) -> Self {
        Self { kid, x }
    }

    /// The keys in a file: a public JSON Web Key, a set of them, or the private
    /// key file of `keys_dir` whose purpose is `audit`.
    ///
    /// # Errors
    /// When there is no such key in it.
    pub fn parse(file: &[u8]) -> Result<Vec<Self>, KeyError> {
        let keys = match serde_json::from_slice::<JwkSet>(file) {
            Ok(set) => set.keys,
            Err(_) => vec![serde_json::from_slice(file).map_err(|_| KeyError::NotAKey)?],
        };
        let keys: Vec<Self> = keys.into_iter().filter_map(Self::of).collect();
        if keys.is_empty() { Err(KeyError::OtherKey) } else { Ok(keys) }
    }

    fn of(jwk: Jwk) -> Option<Self> {
        let other_purpose = jwk.purpose.is_some_and(|purpose| purpose != PURPOSE);
        if jwk.kty? != "OKP" || jwk.crv? != "Ed25519" || other_purpose {
            return None;
        }
        let kid = jwk.kid?;
        if let Some(x) = jwk.x {
            return Some(Self { kid, x: URL_SAFE_NO_PAD.decode(x).ok()?.try_into().ok()? });
        }
        let text = Secret::new(jwk.d?);
        let seed = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.expose()).ok()?);
        let seed = Secret::new(<[u8; 32]>::try_from(seed.as_slice()).ok()?);
        CheckpointKey::from_seed(&kid, &seed).ok().map(|key| key.public())
    }

    /// The name of the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key as a public JSON Web Key, to be kept away from the gateway.
    #[must_use]
    pub fn to_jwk(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.x);
        serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x}).to_string()
    }

    /// Whether this key made the signature.
    pub(super) fn holds(&self, signed: &[u8], signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, &self.x).verify(&message(signed), &signature).is_ok()
    }
}

fn message(signed: &[u8]) -> Vec<u8> {
    [DOMAIN, signed].concat()
}

#[cfg(test)]
mod tests {
    use super::{CheckpointKey, KeyError, VerifyKey};
    use crate::secret::Secret;

    fn key() -> CheckpointKey {
        CheckpointKey::from_seed("a1", &Secret::new([7; 32])).unwrap()
    }

    #[test]
    fn a_public_key_reads_back_from_its_file_and_from_the_private_one() {
        let public = key().public();
        assert_eq!(VerifyKey::parse(public.to_jwk().as_bytes()).unwrap()[0], public);
        let seed = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
        let private =
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a1","purpose":"audit","d":"{seed}"}}"#);
        assert_eq!(VerifyKey::parse(private.as_bytes()).unwrap()[0], public);
        let set = format!(r#"{{"keys":[{{"kty":"oct","kid":"b"}},{}]}}"#, public.to_jwk());
        assert_eq!(VerifyKey::parse(set.as_bytes()).unwrap(), [public]);
    }

    #[test]
    fn a_key_for_something_else_is_refused() {
        let other = key().public().to_jwk().replace('{', r#"{"purpose":"session","#);
        assert_eq!(VerifyKey::parse(other.as_bytes()), Err(KeyError::OtherKey));
        assert_eq!(VerifyKey::parse(b"{}"), Err(KeyError::OtherKey));
        assert_eq!(VerifyKey::parse(b"-----BEGIN"), Err(KeyError::NotAKey));
    }

    #[test]
    fn a_signature_holds_for_its_own_bytes_and_key_only() {
        let signature = key().sign(b"line");
        assert!(key().public().holds(b"line", &signature));
        assert!(!key().public().holds(b"lime", &signature));
        let other = CheckpointKey::from_seed("a1", &Secret::new([8; 32])).unwrap();
        assert!(!other.public().holds(b"line", &signature));
    }
}
