//! The embedded store's file: opened for us alone, waited for while another
//! process holds it, and moved aside when it is no store. Knows no rows.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};
use tokio::time::{Instant, sleep};

use crate::ambient::Timestamp;
use crate::store::OpenError;

/// Memory for pages of the file; a session takes about half a kilobyte.
const CACHE_BYTES: usize = 32 * 1024 * 1024;
/// How often a lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// What stands in the way of opening.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// Another process has it open.
    Locked,
    /// It is damaged, or no store at all.
    Unreadable(String),
    /// Anything else: permissions, a full disk, a newer version's file.
    Other(String),
}

/// Opens the file, or makes it when `create` is set. Checks every page of it: a
/// damaged store must not be trusted, and must not bring the process down later.
pub(super) fn open(path: &Path, create: bool) -> Result<Database, Obstacle> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(create).mode(0o600).open(path);
    let file = file.map_err(|error| Obstacle::Other(error.to_string()))?;
    // The library may panic on a damaged file.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        builder.create_with_backend(FileBackend::new(file)?)
    }));
    match opened {
        Ok(opened) => opened.map_err(|error: DatabaseError| obstacle_of(error.into())),
        Err(_) => Err(Obstacle::Unreadable("the library panicked on it".to_owned())),
    }
}

/// Tells damage, which moves a file aside, from an outage, which must not.
pub(super) fn obstacle_of(error: redb::Error) -> Obstacle {
    let text = error.to_string();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Obstacle::Locked,
        redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => Obstacle::Unreadable(text),
        redb::Error::Io(error)
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            Obstacle::Unreadable(text)
        }
        _ => Obstacle::Other(text),
    }
}

/// Opens the file at start: waits for its lock, makes it when it is not there,
/// moves it aside when it is unreadable. `initialise` makes sure of its tables.
pub(super) async fn open_at_start(
    path: &Path,
    lock_wait: Duration,
    now: Timestamp,
    initialise: impl Fn(&Database) -> Result<(), Obstacle>,
) -> Result<Database, OpenError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed(folder, error.to_string()))?;
    }
    let deadline = Instant::now() + lock_wait;
    let mut moved = false;
    loop {
        let opened = open(path, true).and_then(|database| {
            initialise(&database)?;
            Ok(database)
        });
        match opened {
            Ok(database) => return Ok(database),
            Err(Obstacle::Locked) if Instant::now() < deadline => sleep(LOCK_RETRY).await,
            Err(Obstacle::Locked) => return Err(OpenError::Locked { path: path.to_owned() }),
            Err(Obstacle::Unreadable(reason)) if !moved => {
                move_aside(path, now, &reason)?;
                moved = true;
            }
            Err(Obstacle::Unreadable(reason) | Obstacle::Other(reason)) => {
                return Err(failed(path, reason));
            }
        }
    }
}

fn move_aside(path: &Path, now: Timestamp, reason: &str) -> Result<(), OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".unreadable-{}", now.millis()));
    let aside = PathBuf::from(name);
    fs::rename(path, &aside).map_err(|error| failed(path, error.to_string()))?;
    tracing::error!(
        store.path = %path.display(), store.moved_to = %aside.display(), reason,
        "the store could not be read; it was moved aside and a new one begun"
    );
    Ok(())
}

fn failed(path: &Path, reason: String) -> OpenError {
    OpenError::File { path: path.to_owned(), reason }
}
