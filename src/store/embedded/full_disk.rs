//! A disk that can be filled, for tests.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

use super::{Embedded, initialise};
use crate::store::file::{self, Obstacle};

/// What is written to it stays there; while it is full, every write fails.
#[derive(Debug, Clone)]
pub(crate) struct FullDisk {
    pages: Arc<InMemoryBackend>,
    full: Arc<AtomicBool>,
}

impl FullDisk {
    pub(crate) fn new() -> Self {
        Self { pages: Arc::new(InMemoryBackend::new()), full: Arc::new(AtomicBool::new(false)) }
    }

    pub(crate) fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn open(&self) -> Result<Database, Obstacle> {
        let database = Database::builder().create_with_backend(self.clone());
        database.map_err(|error| file::obstacle_of(error.into()))
    }
}

impl Embedded {
    pub(crate) fn on_disk(disk: &FullDisk) -> Self {
        let database = disk.open().unwrap();
        initialise(&database).unwrap();
        let again = disk.clone();
        Self::over(database, Path::new("a disk"), Box::new(move || again.open())).unwrap()
    }
}

impl StorageBackend for FullDisk {
    fn len(&self) -> io::Result<u64> {
        self.pages.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.pages.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check()?;
        self.pages.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.pages.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.pages.write(offset, data)
    }
}
