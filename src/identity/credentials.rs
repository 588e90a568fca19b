//! What was typed at a login, refused before any directory is asked when no
//! directory could accept it.

use crate::secret::Secret;

/// Longest login name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// A name and a password that may go to a directory: both non-empty, bounded and
/// without NUL. An empty password would *succeed* as an unauthenticated bind on
/// some servers (RFC 4513 section 5.1.2).
pub struct Credentials {
    name: String,
    password: Secret<String>,
}

/// The name or the password is empty, too long or holds a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name or the password is empty, too long, or holds a NUL")]
pub struct ImpossibleCredentials;

impl Credentials {
    /// Checks a name and a password.
    ///
    /// # Errors
    /// When no directory may be asked with them.
    pub fn parse(name: String, password: Secret<String>) -> Result<Self, ImpossibleCredentials> {
        let possible =
            |text: &str, max| !text.is_empty() && text.len() <= max && !text.contains('\0');
        if possible(&name, NAME_BYTES_MAX)
            && !name.trim().is_empty()
            && possible(password.expose(), PASSWORD_BYTES_MAX)
        {
            Ok(Self { name, password })
        } else {
            Err(ImpossibleCredentials)
        }
    }

    /// The name as typed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name folded as directories compare it (case, outer and repeated
    /// spaces), so that spellings of one account share one throttle counter.
    #[must_use]
    pub fn folded_name(&self) -> String {
        fold_name(&self.name)
    }

    /// The password.
    #[must_use]
    pub const fn password(&self) -> &Secret<String> {
        &self.password
    }
}

/// A name folded as directories compare names; see [`Credentials::folded_name`].
#[must_use]
pub fn fold_name(name: &str) -> String {
    let words: Vec<String> = name.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Credentials, ImpossibleCredentials};
    use crate::secret::Secret;

    fn parse(name: &str, password: &str) -> Result<Credentials, ImpossibleCredentials> {
        Credentials::parse(name.to_owned(), Secret::new(password.to_owned()))
    }

    #[test]
    fn what_no_directory_may_see_is_refused() {
        let long = "x".repeat(10_000);
        for (name, password) in [
            ("", "p"),
            ("  ", "p"),
            ("alice", ""),
            ("al\0ice", "p"),
            ("alice", "p\0"),
            (long.as_str(), "p"),
            ("alice", long.as_str()),
        ] {
            assert!(parse(name, password).is_err(), "{name:.10} {password:.10}");
        }
    }

    #[test]
    fn spellings_of_one_name_fold_to_one() {
        assert_eq!(parse("  ALICE  B ", "p").unwrap().folded_name(), "alice b");
        assert_eq!(parse("ZOË", "p").unwrap().folded_name(), "zoë");
    }
}
