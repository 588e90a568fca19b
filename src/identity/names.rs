//! Subject, role and session id.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ambient::{Entropy, EntropyFailed};

/// Who somebody is to the upstream: the claim `sub`, from the directory's own
/// spelling of the entry, never from what was typed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

/// The one role somebody acts in: the claim `role`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Role(Arc<str>);

/// The role that redeemed access codes act in; no directory gives it.
pub const ACCESS_CODE_ROLE: &str = "access_code";

macro_rules! name {
    ($type:ident) => {
        impl $type {
            /// Takes the name as it is.
            #[must_use]
            pub fn new(name: &str) -> Self {
                Self(Arc::from(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name shared, not copied, for records that outlive the request.
            #[must_use]
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(Subject);
name!(Role);

impl Role {
    /// Whether it is that of redeemed access codes.
    #[must_use]
    pub fn is_of_access_code(&self) -> bool {
        self.as_str() == ACCESS_CODE_ROLE
    }
}

/// What an access code was given out with, for the upstream that it opens: text that
/// nobody here reads, of bounded length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(Arc<str>);

impl Reference {
    /// The longest one, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// From text of printable ASCII without outer spaces, as it stands in a header;
    /// `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let good = (1..=Self::BYTES_MAX).contains(&text.len())
            && text.trim() == text
            && text.bytes().all(fits);
        good.then(|| Self(Arc::from(text)))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One login, from login to logout: the claim `sid`. 128 random bits; it names a
/// session in records and proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// A new random id.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn fresh(entropy: &Entropy) -> Result<Self, EntropyFailed> {
        entropy.bytes().map(Self)
    }

    /// From its raw bytes, as stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its raw bytes, as stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From its text form (base64url, 22 characters); `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::{Reference, SessionId};
    use crate::ambient::Entropy;

    #[test]
    fn a_reference_is_a_bounded_line_of_printable_ascii() {
        for text in ["a", "case 17/4", &"x".repeat(128)] {
            assert_eq!(Reference::parse(text).unwrap().as_str(), text);
        }
        for text in ["", " a", "a ", "a\nb", "a\u{7f}", "ä", &"x".repeat(129)] {
            assert_eq!(Reference::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_session_id_reads_back_as_itself() {
        let id = SessionId::fresh(&Entropy::seeded(1)).unwrap();
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        assert_eq!(SessionId::parse("short"), None);
    }
}
