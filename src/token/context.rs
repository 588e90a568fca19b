//! The context cookie that a token is bound to, and the hash of it that the
//! token carries. Knows nothing of cookie headers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::ambient::{Entropy, EntropyFailed};
use crate::secret::Secret;

/// The value of a context cookie: 256 random bits as base64url without padding.
#[derive(Clone, Debug)]
pub struct ContextCookie(Secret<String>);

impl ContextCookie {
    /// A new value, for a login or a change of privilege.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn fresh(entropy: &Entropy) -> Result<Self, EntropyFailed> {
        let bytes = Secret::new(entropy.bytes::<32>()?);
        Ok(Self(Secret::new(URL_SAFE_NO_PAD.encode(bytes.expose()))))
    }

    /// The value as the cookie carries it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.expose()
    }

    /// What a token bound to it carries.
    #[must_use]
    pub fn hash(&self) -> ContextHash {
        ContextHash::of(self.as_str().as_bytes())
    }
}

/// SHA-256 of a context cookie's value as sent: the claim `context`. Compared in
/// constant time only.
#[derive(Clone, Copy, Debug)]
pub struct ContextHash([u8; 32]);

impl ContextHash {
    /// The hash of a cookie's value.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self(Sha256::digest(value).into())
    }

    /// Lower-case hexadecimal, as the claim holds it.
    #[must_use]
    pub fn to_hex(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// From the claim; `None` unless it is 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Some(Self(bytes))
    }
}

impl PartialEq for ContextHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ContextHash {}

/// The key under which a verified pair is remembered: it covers token and
/// cookie, and where the one ends and the other begins.
#[must_use]
pub fn pair_key(token: &[u8], context: &[u8]) -> [u8; 32] {
    let length = u64::try_from(token.len()).unwrap_or(u64::MAX);
    let hash = Sha256::new().chain_update(length.to_le_bytes());
    hash.chain_update(token).chain_update(context).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::{ContextCookie, ContextHash, pair_key};
    use crate::ambient::Entropy;

    #[test]
    fn a_cookie_is_256_random_bits_and_does_not_print() {
        let entropy = Entropy::system();
        let (one, two) =
            (ContextCookie::fresh(&entropy).unwrap(), ContextCookie::fresh(&entropy).unwrap());
        assert_eq!(one.as_str().len(), 43);
        assert_ne!(one.as_str(), two.as_str());
        assert!(!format!("{one:?}").contains(one.as_str()));
        assert!(one.hash() == ContextHash::of(one.as_str().as_bytes()));
        assert!(one.hash() != two.hash());
    }

    #[test]
    fn the_hash_is_lower_case_hexadecimal_sha_256() {
        let hash = ContextHash::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_hex(), hex);
        assert!(ContextHash::parse(hex) == Some(hash));
        for other in [&hex[1..], &hex.to_uppercase(), &format!("{hex}0"), ""] {
            assert!(ContextHash::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn moving_the_border_between_token_and_cookie_changes_the_key() {
        assert_ne!(pair_key(b"ab", b"c"), pair_key(b"a", b"bc"));
        assert_ne!(pair_key(b"ab", b"c"), pair_key(b"ab", b"d"));
        assert_eq!(pair_key(b"ab", b"c"), pair_key(b"ab", b"c"));
    }
}
