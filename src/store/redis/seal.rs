//! What gateways share through Redis and Redis must not read: signing keys sealed
//! with AES-256-GCM, and secrets derived from the same file. Knows no Redis.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use crate::ambient::Entropy;
use crate::secret::Secret;
use crate::store::SecretName;

/// The key of `store.encryption_key_file`, for its two purposes.
pub(super) struct Seal {
    sealing: LessSafeKey,
    derived: Prk,
    /// What is sealed under one prefix is not opened under another.
    context: Vec<u8>,
    entropy: Entropy,
}

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

impl Seal {
    pub(super) fn new(key: &Secret<[u8; 32]>, prefix: &str, entropy: Entropy) -> Option<Self> {
        let derived = Salt::new(HKDF_SHA256, b"bindgate store").extract(key.expose());
        let sealing = expand(&derived, b"signing keys")?;
        let sealing = UnboundKey::new(&AES_256_GCM, sealing.expose()).ok()?;
        let context = format!("bindgate session keys of {prefix}").into_bytes();
        Some(Self { sealing: LessSafeKey::new(sealing), derived, context, entropy })
    }

    /// Nonce, cipher text and tag of some bytes.
    pub(super) fn seal(&self, plain: &Secret<Vec<u8>>) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = self.entropy.bytes().ok()?;
        let mut sealed = plain.expose().clone();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(&self.context);
        self.sealing.seal_in_place_append_tag(nonce_used, aad, &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    /// What was sealed; `None` when it was not by us, or under another key.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut opened = Secret::new(sealed.to_vec()).expose().clone();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.sealing.open_in_place(nonce, Aad::from(&self.context), &mut opened);
        let length = plain.ok()?.len();
        opened.truncate(length);
        Some(Secret::new(opened))
    }

    /// The secret of a name: the same for all gateways with one file.
    pub(super) fn secret(&self, name: SecretName) -> Option<Secret<[u8; 32]>> {
        expand(&self.derived, name.row().as_bytes())
    }
}

fn expand(derived: &Prk, purpose: &[u8]) -> Option<Secret<[u8; 32]>> {
    let mut key = [0; 32];
    derived.expand(&[purpose], Bytes32).ok()?.fill(&mut key).ok()?;
    Some(Secret::new(key))
}

#[cfg(test)]
mod tests {
    use super::Seal;
    use crate::ambient::Entropy;
    use crate::secret::Secret;
    use crate::store::SecretName;

    fn seal(key: u8, prefix: &str) -> Seal {
        Seal::new(&Secret::new([key; 32]), prefix, Entropy::system()).unwrap()
    }

    #[test]
    fn only_the_same_file_under_the_same_prefix_opens_what_was_sealed() {
        let plain = Secret::new(b"a key".to_vec());
        let sealed = seal(1, "a").seal(&plain).unwrap();
        assert_eq!(seal(1, "a").open(&sealed).unwrap().expose(), plain.expose());
        assert!(!sealed.windows(5).any(|window| window == b"a key"));
        assert_ne!(seal(1, "a").seal(&plain).unwrap(), sealed, "never the same twice");
        assert!(seal(2, "a").open(&sealed).is_none());
        assert!(seal(1, "b").open(&sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(seal(1, "a").open(&changed).is_none(), "{at}");
        }
        assert!(seal(1, "a").open(b"").is_none());
    }

    #[test]
    fn each_name_has_a_secret_that_gateways_share() {
        let secret = |key, name| *seal(key, "a").secret(name).unwrap().expose();
        assert_eq!(secret(1, SecretName::Device), secret(1, SecretName::Device));
        assert_ne!(secret(1, SecretName::Device), secret(1, SecretName::Names));
        assert_ne!(secret(1, SecretName::Device), secret(2, SecretName::Device));
    }
}
