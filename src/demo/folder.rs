//! A folder for the time of the demonstration: only its owner reads it, and it
//! goes when the value is dropped.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::ambient::{Entropy, EntropyFailed};

/// The folder could not be made or filled.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// No random name.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
    /// The file system refused.
    #[error("{path}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The folder; dropping it removes it with all that is in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes a new folder, mode 0700, with a name that nobody can foresee.
    ///
    /// # Errors
    /// When there is no randomness or the file system refuses.
    pub(super) fn create(entropy: &Entropy) -> Result<Self, FolderError> {
        let name = u64::from_be_bytes(entropy.bytes()?);
        let path = std::env::temp_dir().join(format!("bindgate-demo-{name:016x}"));
        // Not recursive: what exists already is somebody else's and fails.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(FolderError::File { path, source }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a new file, mode 0600, and says where it lies.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<PathBuf, FolderError> {
        let path = self.0.join(name);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()));
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(FolderError::File { path, source }),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of its temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::Folder;
    use crate::ambient::Entropy;

    #[test]
    fn the_folder_is_its_owners_alone_and_goes_at_the_end() {
        let folder = Folder::create(&Entropy::system()).unwrap();
        let file = folder.write("secret", "hunter2").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.path()), mode(file.as_path())), (0o700, 0o600));
        assert!(folder.write("secret", "again").is_err());
        drop(folder);
        assert!(!file.exists());
    }
}
