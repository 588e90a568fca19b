//! The one thread that writes to the embedded store. It gathers what waits into
//! one transaction, and answers when that is on disk. After an error it drops the
//! database and opens it again with the next write. Knows no rows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Database, WriteTransaction};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::store::StoreError;
use crate::store::file::Obstacle;

/// Writes that may wait; one more is refused.
const QUEUE: usize = 4096;
/// Writes in one transaction.
const BATCH: usize = 256;
/// How long a write may take before the store counts as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest pause between two tries to open the database again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

type Job = Box<dyn FnOnce(&WriteTransaction) -> (Result<(), redb::Error>, Reply) + Send>;
/// Called once the transaction is on disk; dropped, which answers too, when it failed.
type Reply = Box<dyn FnOnce() + Send>;
/// Opens the database again after an error.
pub(super) type Reopen = Box<dyn Fn() -> Result<Database, Obstacle> + Send>;

/// The database as readers and the writer share it.
pub(super) struct Shared {
    /// `None` while it could not be opened again.
    pub(super) database: RwLock<Option<Database>>,
    up: AtomicBool,
}

impl Shared {
    /// Only the writer opens and closes it.
    fn is_open(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        database: Database,
        path: PathBuf,
        reopen: Reopen,
    ) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { database: RwLock::new(Some(database)), up: AtomicBool::new(true) });
        let (jobs, queue) = mpsc::channel(QUEUE);
        let work = Work { shared: Arc::clone(&shared), path, reopen, tried: None };
        let thread =
            std::thread::Builder::new().name("store".to_owned()).spawn(move || work.run(queue))?;
        Ok(Self { shared, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does `work` within a transaction; answers when that is on disk.
    pub(super) async fn write<A: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<A, redb::Error> + Send + 'static,
    ) -> Result<A, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |transaction| match work(transaction) {
            // Whoever asked may be gone.
            Ok(result) => (Ok(()), Box::new(move || drop(answer.send(result)))),
            Err(error) => (Err(error), Box::new(move || drop(answer))),
        });
        let jobs = self.jobs.as_ref().ok_or(StoreError::Unavailable)?;
        jobs.try_send(job).map_err(|_| StoreError::Unavailable)?;
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) | Err(_) => Err(StoreError::Unavailable),
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Acquire)
    }
}

impl Drop for Writer {
    /// Lets what waits be written, and the file be closed.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    path: PathBuf,
    reopen: Reopen,
    tried: Option<Instant>,
}

impl Work {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut first = Some(first);
            // Whoever comes while those before him are written down comes along.
            let mut jobs = std::iter::from_fn(|| first.take().or_else(|| queue.try_recv().ok()));
            let mut replies = Vec::new();
            // The library may panic on a damaged file; that must not end this thread.
            let written = catch_unwind(AssertUnwindSafe(|| self.commit(&mut jobs, &mut replies)))
                .unwrap_or_else(|_| Err("the library panicked".to_owned()));
            // Known before anybody is answered: jobs and replies are dropped after it.
            self.shared.up.store(written.is_ok(), Ordering::Release);
            match written {
                Ok(()) => replies.into_iter().for_each(|reply| reply()),
                Err(reason) => drop(catch_unwind(AssertUnwindSafe(|| self.close(&reason)))),
            }
        }
        *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn commit(
        &mut self,
        jobs: &mut impl Iterator<Item = Job>,
        replies: &mut Vec<Reply>,
    ) -> Result<(), String> {
        self.reopen_if_closed()?;
        let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or("it is closed")?;
        let mut write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            for job in jobs.take(BATCH) {
                let (done, reply) = job(&transaction);
                replies.push(reply);
                done?;
            }
            Ok(transaction.commit()?)
        };
        write().map_err(|error| error.to_string())
    }

    fn reopen_if_closed(&mut self) -> Result<(), String> {
        // Readers wait for no lock: it is taken, or waited for, only when they cannot read.
        if self.shared.is_open() {
            return Ok(());
        }
        if self.tried.is_some_and(|tried| tried.elapsed() < REOPEN_PAUSE) {
            return Err("it could not be opened again a moment ago".to_owned());
        }
        self.tried = Some(Instant::now());
        let database = (self.reopen)().map_err(|obstacle| format!("{obstacle:?}"))?;
        *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        tracing::info!(store.path = %self.path.display(), "the store is open again");
        Ok(())
    }

    fn close(&mut self, reason: &str) {
        let mut database = self.shared.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.take().is_some() {
            tracing::error!(store.path = %self.path.display(), reason, "the store failed");
        }
    }
}
