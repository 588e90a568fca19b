//! The folder of key files: one JSON Web Key a file, readable by us alone, and
//! the start counter that ties the keys to the store. Knows no tokens.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::ambient::Timestamp;
use crate::store::StoreError;
use crate::token::jwk::Jwk;

/// Largest key file, in bytes; an RSA key of 8192 bits takes 7 KiB.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Key files are named after their key.
const EXTENSION: &str = "jwk";
/// Holds how often the gateway started, in decimal.
const STARTS_FILE: &str = "starts";
/// Permission bits of group and everybody else.
const OTHERS: u32 = 0o077;
/// Permission bits that let group or everybody else change a folder.
const OTHERS_WRITE: u32 = 0o022;

/// The keys could not be read, made or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read a key, or put one there.
    #[error("{path}: is open to other users; `chmod go= {path}` closes it")]
    Permissions {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file that is no key, or not the one that its name says.
    #[error("{path}: {reason}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// A phrase that goes on from the path; nothing of the key.
        reason: &'static str,
    },
    /// One secret must not serve twice.
    #[error("{path} and {other} hold the same secret")]
    Shared {
        /// The one file.
        path: PathBuf,
        /// The other file.
        other: PathBuf,
    },
    /// What the store holds is no list of keys.
    #[error("what the store holds is no list of session keys")]
    NoList,
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system or the library refused.
    #[error("a new key could not be made")]
    Generation,
}

/// `token.keys_dir`.
#[derive(Clone, Debug)]
pub struct KeysDir(PathBuf);

impl KeysDir {
    /// Opens the folder; makes it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or others may write to it.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))?;
        let folder = fs::metadata(path).map_err(io_error(path))?;
        if folder.mode() & OTHERS_WRITE != 0 {
            return Err(KeyError::Permissions { path: path.to_owned() });
        }
        Ok(Self(path.to_owned()))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads every key and keeps none: what `check` does. Changes nothing; a
    /// folder that is not there yet is fine.
    ///
    /// # Errors
    /// Whatever would stop a start.
    pub fn check(path: &Path) -> Result<(), KeyError> {
        if path.try_exists().map_err(io_error(path))? {
            Self::open(path)?.read().map(drop)
        } else {
            Ok(())
        }
    }

    /// All keys, of every purpose.
    pub(super) fn read(&self) -> Result<Vec<Jwk>, KeyError> {
        let mut keys = Vec::new();
        let mut seen = HashMap::new();
        for entry in fs::read_dir(&self.0).map_err(io_error(&self.0))? {
            let path = entry.map_err(io_error(&self.0))?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let broken = |reason| KeyError::Broken { path: path.clone(), reason };
            let key = Jwk::parse(&read_private(&path)?).map_err(broken)?;
            if path.file_stem().is_none_or(|stem| stem != key.kid.as_str()) {
                return Err(broken("is not named after the kid in it"));
            }
            if let Some(other) = seen.insert(key.material.fingerprint(), path.clone()) {
                return Err(KeyError::Shared { path, other });
            }
            keys.push(key);
        }
        keys.sort_by(|one, two| (one.created, &one.kid).cmp(&(two.created, &two.kid)));
        Ok(keys)
    }

    /// Writes one key, durably and whole or not at all.
    pub(super) fn write(&self, key: &Jwk) -> Result<(), KeyError> {
        self.write_replaced(key, key.replaced)
    }

    /// Writes down since when another key signs in its place.
    pub(super) fn write_replaced(
        &self,
        key: &Jwk,
        replaced: Option<Timestamp>,
    ) -> Result<(), KeyError> {
        let json = key.to_json(replaced).map_err(|_| KeyError::Generation)?;
        self.replace_file(&format!("{}.{EXTENSION}", key.kid), json.expose())
    }

    /// Deletes one key.
    pub(super) fn remove(&self, kid: &str) -> Result<(), KeyError> {
        let path = self.0.join(format!("{kid}.{EXTENSION}"));
        fs::remove_file(&path).map_err(io_error(&path))?;
        self.sync()
    }

    /// How often the gateway started with these keys and the store of this name; `None` when
    /// nothing says so that can be understood. A count without a name is of any store.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn starts(&self, store: &str) -> Result<Option<u64>, KeyError> {
        let path = self.0.join(STARTS_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let text = text.trim();
                let (starts, of) = text.split_once(' ').unwrap_or((text, store));
                Ok(starts.parse().ok().filter(|_| of == store))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                Ok(None)
            }
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// Records a start with the store of this name, durably.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_starts(&self, starts: u64, store: &str) -> Result<(), KeyError> {
        self.replace_file(STARTS_FILE, format!("{starts} {store}\n").as_bytes())
    }

    fn replace_file(&self, name: &str, content: &[u8]) -> Result<(), KeyError> {
        let path = self.0.join(name);
        // Not `*.jwk`, so a torn one is never read as a key.
        let torn = self.0.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&torn)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&torn, &path)
        };
        write().map_err(io_error(&path))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), KeyError> {
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(io_error(&self.0))
    }
}

/// Reads a file that nobody else may read. Judges the opened file, not its name.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let file = File::open(path).map_err(io_error(path))?;
    let facts = file.metadata().map_err(io_error(path))?;
    let broken = |reason| Err(KeyError::Broken { path: path.to_owned(), reason });
    if !facts.is_file() {
        return broken("is not a file");
    }
    if facts.mode() & OTHERS != 0 {
        return Err(KeyError::Permissions { path: path.to_owned() });
    }
    if facts.len() > FILE_BYTES_MAX {
        return broken("is too large for a key");
    }
    let mut content = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(io_error(path))?;
    Ok(content)
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyError {
    move |source| KeyError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{KeyError, KeysDir};
    use crate::ambient::{Entropy, Timestamp};
    use crate::config::TokenAlgorithm;
    use crate::token::jwk::{Jwk, Purpose};

    fn key(seconds: i64) -> Jwk {
        let created = Timestamp::from_seconds(seconds);
        Jwk::generate(TokenAlgorithm::Hs256, Purpose::Session, created, &Entropy::system()).unwrap()
    }

    #[test]
    fn a_key_file_is_for_us_alone_and_read_again_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/keys");
        let keys = KeysDir::open(&path).unwrap();
        let (young, old) = (key(9), key(3));
        keys.write(&young).unwrap();
        keys.write(&old).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let file = path.join(format!("{}.jwk", young.kid));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let kids: Vec<_> = keys.read().unwrap().into_iter().map(|key| key.kid).collect();
        assert_eq!(kids, [old.kid, young.kid.clone()]);
        keys.remove(&young.kid).unwrap();
        assert_eq!(keys.read().unwrap().len(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_or_put_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let keys = KeysDir::open(&path).unwrap();
        let one = key(1);
        keys.write(&one).unwrap();
        let file = path.join(format!("{}.jwk", one.kid));
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(keys.read(), Err(KeyError::Permissions { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(KeysDir::open(&path), Err(KeyError::Permissions { .. })));
    }

    #[test]
    fn a_broken_misnamed_or_doubled_key_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        assert!(KeysDir::check(&path).is_ok());
        assert!(!path.exists(), "a check makes nothing");
        let keys = KeysDir::open(&path).unwrap();
        let mut one = key(1);
        keys.write(&one).unwrap();
        let file = path.join(format!("{}.jwk", one.kid));
        assert!(KeysDir::check(&path).is_ok());

        let misnamed = path.join("other.jwk");
        fs::copy(&file, &misnamed).unwrap();
        assert!(matches!(keys.read(), Err(KeyError::Broken { .. })));
        fs::remove_file(&misnamed).unwrap();

        one.kid = "twin".to_owned();
        keys.write(&one).unwrap();
        assert!(matches!(keys.read(), Err(KeyError::Shared { .. })));
        keys.remove("twin").unwrap();

        fs::write(&file, "{").unwrap();
        assert!(matches!(KeysDir::check(&path), Err(KeyError::Broken { .. })));
    }

    #[test]
    fn the_start_counter_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeysDir::open(&folder.path().join("keys")).unwrap();
        assert_eq!(keys.starts("one").unwrap(), None);
        keys.set_starts(41, "one").unwrap();
        keys.set_starts(42, "one").unwrap();
        assert_eq!(keys.starts("one").unwrap(), Some(42));
        assert_eq!(keys.starts("other").unwrap(), None);
        fs::write(folder.path().join("keys/starts"), "43\n").unwrap();
        assert_eq!(keys.starts("other").unwrap(), Some(43), "as it was written once");
        fs::write(folder.path().join("keys/starts"), "x").unwrap();
        assert_eq!(keys.starts("one").unwrap(), None);
    }
}
