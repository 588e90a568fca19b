//! A password as a users file keeps it: Argon2id (RFC 9106) in PHC form, no weaker
//! than OWASP advises and no costlier than a login may be. Knows no file.

use std::fmt;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq as _;

use crate::ambient::{Entropy, EntropyFailed};
use crate::secret::Secret;

/// Memory of new hashes, in KiB: OWASP's first choice with two passes and one lane.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes of new hashes.
const PASSES: u32 = 2;
/// The least memory that OWASP's equivalents name, in KiB.
const MEMORY_KIB_MIN: u32 = 7 * 1024;
/// The most memory of one hash, in KiB.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// The least work, KiB times passes: that of 7 MiB and five passes.
const WORK_MIN: u64 = 35 * 1024;
/// The most work, KiB times passes: some seconds at worst.
const WORK_MAX: u64 = 1024 * 1024;
/// Most lanes.
const LANES_MAX: u32 = 16;
/// Shortest hash, in bytes (RFC 9106 section 4).
const HASH_BYTES_MIN: usize = 16;
/// Longest text that is looked at, in bytes.
const TEXT_BYTES_MAX: usize = 512;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// The hash of one password.
#[derive(Clone)]
pub struct PasswordHash {
    params: Params,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// Why a text is no hash that a password is compared with; a phrase for whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    /// It is not of this form at all.
    #[error("what is no PHC string")]
    Malformed,
    /// It is the hash of another function.
    #[error("a hash that is not Argon2id of version 19")]
    Function,
    /// It can be guessed too cheaply, or is too short.
    #[error("a hash that is too weak")]
    Weak,
    /// Comparing a password with it costs too much.
    #[error("a hash that costs too much")]
    Costly,
}

/// A password could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    /// No randomness for a salt.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
    /// The function failed.
    #[error("the password could not be hashed: {0}")]
    Function(argon2::Error),
}

impl PasswordHash {
    /// What hashes are taken, for people.
    pub const ALLOWED: &str = "an Argon2id hash in PHC form, as `bindgate users hash` prints it: v=19, m from 7168 to \
         262144, m times t from 35840 to 1048576, p up to 16";

    /// Reads a PHC string: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    ///
    /// # Errors
    /// When it is none of Argon2id, too weak or too costly.
    pub fn parse(text: &str) -> Result<Self, PasswordHashError> {
        use PasswordHashError::{Costly, Function, Malformed, Weak};
        if text.len() > TEXT_BYTES_MAX {
            return Err(Malformed);
        }
        // Takes no salt shorter than 8 bytes (RFC 9106 section 3.1).
        let parsed = phc::PasswordHash::new(text).map_err(|_| Malformed)?;
        if parsed.algorithm.as_str() != "argon2id" || parsed.version != Some(0x13) {
            return Err(Function);
        }
        let number = |name: &str| parsed.params.get_decimal(name).ok_or(Malformed);
        let (memory, passes, lanes) = (number("m")?, number("t")?, number("p")?);
        // Further ones (keyid, data) would be left out of the calculation.
        if parsed.params.iter().count() != 3 {
            return Err(Malformed);
        }
        let (salt, hash) = (parsed.salt.ok_or(Malformed)?, parsed.hash.ok_or(Malformed)?);
        let work = u64::from(memory) * u64::from(passes);
        if memory > MEMORY_KIB_MAX || work > WORK_MAX || lanes > LANES_MAX {
            return Err(Costly);
        }
        let (salt, hash) = (salt.as_ref().to_vec(), hash.as_bytes().to_vec());
        if memory < MEMORY_KIB_MIN || work < WORK_MIN || hash.len() < HASH_BYTES_MIN {
            return Err(Weak);
        }
        let params = Params::new(memory, passes, lanes, Some(hash.len())).map_err(|_| Malformed)?;
        Ok(Self { params, salt, hash })
    }

    /// Hashes a password anew, with a fresh salt.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn fresh(password: &Secret<String>, entropy: &Entropy) -> Result<Self, HashingError> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(HASH_BYTES));
        let params = params.map_err(HashingError::Function)?;
        let salt = entropy.bytes::<SALT_BYTES>()?.to_vec();
        let mut fresh = Self { params, salt, hash: vec![0; HASH_BYTES] };
        fresh.hash = fresh.compute(password).map_err(HashingError::Function)?;
        Ok(fresh)
    }

    /// One that no password fits, as costly as a fresh one.
    #[must_use]
    pub fn decoy() -> Self {
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(HASH_BYTES)).unwrap_or_default();
        Self { params, salt: vec![0; SALT_BYTES], hash: Vec::new() }
    }

    /// Whether a password is the one that was hashed. Takes as long as the hash costs.
    #[must_use]
    pub fn fits(&self, password: &Secret<String>) -> bool {
        // An empty hash, which no text reads as, fits nothing: its length differs.
        self.compute(password).is_ok_and(|computed| computed.ct_eq(&self.hash).into())
    }

    fn compute(&self, password: &Secret<String>) -> Result<Vec<u8>, argon2::Error> {
        let function = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let mut hash = vec![0; self.params.output_len().unwrap_or(HASH_BYTES)];
        function.hash_password_into(password.expose().as_bytes(), &self.salt, &mut hash)?;
        Ok(hash)
    }

    /// The PHC string. Whoever has it can try passwords as fast as he likes.
    #[must_use]
    pub fn to_phc(&self) -> Secret<String> {
        let (memory, passes) = (self.params.m_cost(), self.params.t_cost());
        let lanes = self.params.p_cost();
        let (salt, hash) = (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.hash));
        let text = format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}");
        Secret::new(text)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash([secret])")
    }
}

#[cfg(test)]
mod tests {
    use super::{PasswordHash, PasswordHashError};
    use crate::ambient::Entropy;
    use crate::secret::Secret;

    /// The hash of "password" by the reference implementation, in its test.c.
    const KNOWN: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    const SALT: &str = "c29tZXNhbHQ";
    const HASH: &str = "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    fn parse(head: &str) -> Option<PasswordHashError> {
        PasswordHash::parse(&format!("{head}${SALT}${HASH}")).err()
    }

    #[test]
    fn a_fresh_hash_fits_its_password_alone_and_reads_back() {
        let password = Secret::new("correct horse".to_owned());
        let fresh = PasswordHash::fresh(&password, &Entropy::seeded(1)).unwrap();
        let text = fresh.to_phc();
        assert!(text.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        let read = PasswordHash::parse(text.expose()).unwrap();
        assert_eq!(read.to_phc().expose(), text.expose());
        assert!(read.fits(&password));
        assert!(!read.fits(&Secret::new("Correct horse".to_owned())));
        assert!(!PasswordHash::decoy().fits(&password));
        assert!(!format!("{read:?}").contains('$'));
        let other = PasswordHash::fresh(&password, &Entropy::seeded(2)).unwrap();
        assert_ne!(other.to_phc().expose(), text.expose(), "a salt of its own");
    }

    #[test]
    fn the_function_is_that_of_the_reference_implementation() {
        let known = PasswordHash::parse(KNOWN).unwrap();
        assert!(known.fits(&Secret::new("password".to_owned())));
        assert!(!known.fits(&Secret::new("sassword".to_owned())));
    }

    #[test]
    fn only_argon2id_is_taken() {
        assert_eq!(parse("$argon2id$v=19$m=19456,t=2,p=1"), None);
        for (head, why) in [
            ("$argon2i$v=19$m=19456,t=2,p=1", PasswordHashError::Function),
            ("$argon2d$v=19$m=19456,t=2,p=1", PasswordHashError::Function),
            ("$argon2id$v=16$m=19456,t=2,p=1", PasswordHashError::Function),
            ("$argon2id$m=19456,t=2,p=1", PasswordHashError::Function),
            ("$scrypt$ln=16,r=8,p=1", PasswordHashError::Function),
            ("$argon2id$v=19$m=19456,t=2", PasswordHashError::Malformed),
            ("$argon2id$v=19$m=19456,t=2,p=1,data=AAAA", PasswordHashError::Malformed),
            ("$argon2id$v=19$m=x,t=2,p=1", PasswordHashError::Malformed),
        ] {
            assert_eq!(parse(head), Some(why), "{head}");
        }
        for text in ["", "hunter2", "$2b$12$abc", "{SSHA}x", "$argon2id$v=19$m=19456,t=2,p=1"] {
            assert!(PasswordHash::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn neither_too_weak_nor_too_costly() {
        for (costs, why) in [
            ("m=47104,t=1,p=1", None),
            ("m=7168,t=5,p=1", None),
            ("m=65536,t=3,p=4", None),
            ("m=262144,t=4,p=1", None),
            ("m=7168,t=4,p=1", Some(PasswordHashError::Weak)),
            ("m=4096,t=64,p=1", Some(PasswordHashError::Weak)),
            ("m=19456,t=1,p=1", Some(PasswordHashError::Weak)),
            ("m=262145,t=1,p=1", Some(PasswordHashError::Costly)),
            ("m=4194304,t=1,p=1", Some(PasswordHashError::Costly)),
            ("m=8192,t=4294967295,p=1", Some(PasswordHashError::Costly)),
            ("m=65536,t=3,p=17", Some(PasswordHashError::Costly)),
        ] {
            assert_eq!(parse(&format!("$argon2id$v=19${costs}")), why, "{costs}");
        }
        let short = |salt: &str, hash: &str| {
            let text = format!("$argon2id$v=19$m=19456,t=2,p=1${salt}${hash}");
            PasswordHash::parse(&text).err()
        };
        assert!(short("c2hvcnQ", HASH).is_some(), "a salt of 5 bytes");
        let hash = "c2hvcnRoYXNoMTIz";
        assert_eq!(short(SALT, hash), Some(PasswordHashError::Weak), "a hash of 12 bytes");
    }
}
