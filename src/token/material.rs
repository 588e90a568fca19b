//! The secret numbers of a key, for each algorithm: made, checked, and handed to
//! the library that signs. Knows no files and no JSON.

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _};
use aws_lc_rs::rsa::{KeyPairComponents, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use sha2::{Digest as _, Sha256};

use crate::ambient::Entropy;
use crate::config::TokenAlgorithm;
use crate::secret::Secret;
use crate::token::der::{RsaNumbers, pkcs1_of_rsa_numbers, rsa_numbers_of_pkcs8};
use crate::token::signer::Signer;

/// Bytes of an HMAC key made here, and the fewest that one read may have (RFC 7518 section 3.2).
pub(super) const HMAC_BYTES: usize = 32;

/// The secret part of one key, consistent with its public part.
pub(super) enum Material {
    Hmac(Secret<Vec<u8>>),
    Ed25519 { seed: Secret<[u8; 32]>, public: [u8; 32] },
    P256 { d: Secret<[u8; 32]>, x: [u8; 32], y: [u8; 32] },
    Rsa(Box<RsaNumbers>),
}

/// A key whose parts do not fit each other, or that could not be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadMaterial;

impl<T: std::error::Error> From<T> for BadMaterial {
    fn from(_: T) -> Self {
        Self
    }
}

impl Material {
    /// A new key.
    pub(super) fn generate(
        algorithm: TokenAlgorithm,
        entropy: &Entropy,
    ) -> Result<Self, BadMaterial> {
        match algorithm {
            TokenAlgorithm::Hs256 => {
                Ok(Self::Hmac(Secret::new(entropy.bytes::<HMAC_BYTES>()?.to_vec())))
            }
            TokenAlgorithm::EdDsa => Self::ed25519(Secret::new(entropy.bytes()?)),
            TokenAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
                let d = Secret::new(pair.private_key().as_be_bytes()?.as_ref().try_into()?);
                let point = pair.public_key().as_ref();
                let (x, y) =
                    point.get(1..).and_then(|xy| xy.split_at_checked(32)).ok_or(BadMaterial)?;
                Ok(Self::P256 { d, x: x.try_into()?, y: y.try_into()? })
            }
            TokenAlgorithm::Rs256 => {
                let pkcs8 = RsaKeyPair::generate(KeySize::Rsa2048)?.as_der()?;
                let numbers = rsa_numbers_of_pkcs8(pkcs8.as_ref()).ok_or(BadMaterial)?;
                Ok(Self::Rsa(Box::new(numbers)))
            }
        }
    }

    /// The Ed25519 key of a seed.
    pub(super) fn ed25519(seed: Secret<[u8; 32]>) -> Result<Self, BadMaterial> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())?;
        let public = pair.public_key().as_ref().try_into()?;
        Ok(Self::Ed25519 { seed, public })
    }

    /// The one algorithm that such a key is for.
    pub(super) const fn algorithm(&self) -> TokenAlgorithm {
        match self {
            Self::Hmac(_) => TokenAlgorithm::Hs256,
            Self::Ed25519 { .. } => TokenAlgorithm::EdDsa,
            Self::P256 { .. } => TokenAlgorithm::Es256,
            Self::Rsa(_) => TokenAlgorithm::Rs256,
        }
    }

    /// The key that signs; an error when its parts do not fit each other.
    pub(super) fn encoding_key(&self) -> Result<EncodingKey, BadMaterial> {
        match self {
            Self::Hmac(key) if key.expose().len() < HMAC_BYTES => Err(BadMaterial),
            Self::Hmac(key) => Ok(EncodingKey::from_secret(key.expose())),
            Self::Ed25519 { seed, public } => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(seed.expose(), public)?;
                Ok(EncodingKey::from_ed_der(pair.to_pkcs8()?.as_ref()))
            }
            Self::P256 { d, x, y } => {
                let point = [&[4][..], x, y].concat();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    d.expose(),
                    &point,
                )?;
                Ok(EncodingKey::from_ec_der(pair.to_pkcs8v1()?.as_ref()))
            }
            Self::Rsa(numbers) => {
                rsa_pair(numbers)?;
                Ok(EncodingKey::from_rsa_der(pkcs1_of_rsa_numbers(numbers).expose()))
            }
        }
    }

    /// The same, parsed once for many signatures.
    pub(super) fn signer(&self) -> Result<Signer, BadMaterial> {
        match self {
            Self::Hmac(key) => Ok(Signer::hmac(key.expose())),
            Self::Ed25519 { seed, public } => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(seed.expose(), public)?;
                Ok(Signer::Ed25519(pair))
            }
            Self::P256 { d, x, y } => {
                let point = [&[4][..], x, y].concat();
                let scheme = &ECDSA_P256_SHA256_FIXED_SIGNING;
                EcdsaKeyPair::from_private_key_and_public_key(scheme, d.expose(), &point)
                    .map(Signer::P256)
                    .map_err(Into::into)
            }
            Self::Rsa(numbers) => rsa_pair(numbers).map(Box::new).map(Signer::Rsa),
        }
    }

    /// The key that verifies.
    pub(super) fn decoding_key(&self) -> DecodingKey {
        match self {
            Self::Hmac(key) => DecodingKey::from_secret(key.expose()),
            Self::Ed25519 { public, .. } => DecodingKey::from_ed_der(public),
            Self::P256 { x, y, .. } => DecodingKey::from_ec_der(&[&[4][..], x, y].concat()),
            Self::Rsa(numbers) => {
                DecodingKey::from_rsa_raw_components(numbers[0].expose(), numbers[1].expose())
            }
        }
    }

    /// Tells apart secrets without holding them: one secret must not serve two purposes.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        match self {
            Self::Hmac(key) => Sha256::digest(key.expose()).into(),
            Self::Ed25519 { seed, .. } => Sha256::digest(seed.expose()).into(),
            Self::P256 { d, .. } => Sha256::digest(d.expose()).into(),
            Self::Rsa(numbers) => Sha256::digest(numbers[2].expose()).into(),
        }
    }
}

#[expect(clippy::many_single_char_names, reason = "the names of RFC 7518 section 6")]
fn rsa_pair(numbers: &RsaNumbers) -> Result<RsaKeyPair, BadMaterial> {
    let [n, e, d, p, q, d_p, d_q, q_inv] =
        numbers.each_ref().map(|number| number.expose().as_slice());
    Ok(RsaKeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: d_p,
        dQ: d_q,
        qInv: q_inv,
    })?)
}

/// The library's name of an algorithm.
pub(super) const fn jwt_algorithm(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::Hs256 => Algorithm::HS256,
        TokenAlgorithm::EdDsa => Algorithm::EdDSA,
        TokenAlgorithm::Es256 => Algorithm::ES256,
        TokenAlgorithm::Rs256 => Algorithm::RS256,
    }
}

/// The name of an algorithm in headers and keys (RFC 7518 section 3.1, RFC 8037).
pub(super) const fn algorithm_name(algorithm: TokenAlgorithm) -> &'static str {
    match algorithm {
        TokenAlgorithm::Hs256 => "HS256",
        TokenAlgorithm::EdDsa => "EdDSA",
        TokenAlgorithm::Es256 => "ES256",
        TokenAlgorithm::Rs256 => "RS256",
    }
}
