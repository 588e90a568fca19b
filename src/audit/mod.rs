//! The audit log: hash-chained, signed JSON lines of who did what, written by one
//! thread that all workers feed. Knows no session, no route and no HTTP exchange:
//! who calls says what happened.

mod chain;
mod flood;
mod kept;
mod key;
mod queue;
mod record;
mod sink;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use aws_lc_rs::hmac;
use tokio::sync::oneshot;

pub use self::kept::{Kept, KeptError};
pub use self::key::{CheckpointKey, KeyError, VerifyKey};
pub use self::queue::{AuditUnavailable, Slot, WorkerQueue};
pub use self::record::{Event, Record};
pub use self::sink::AuditError;
pub use self::verify::{Bad, LINE_BYTES_MAX, Outcome, Place, Proved, TornPart, Verifier, verify};
use crate::ambient::Clock;
use crate::audit::chain::Chain;
use crate::audit::queue::{Counters, Shared};
use crate::audit::record::Stamped;
use crate::audit::writer::{Command, Writer};
use crate::config;
use crate::metrics::Metrics;
use crate::secret::Secret;

/// Durable records on their way at a time; a login beyond that is refused.
const DURABLE_MAX: usize = 4096;

/// The keys of the audit log.
pub struct AuditKeys {
    /// Signs checkpoints.
    pub checkpoint: CheckpointKey,
    /// Hashes login names that matched no entry.
    pub login_names: Secret<[u8; 32]>,
}

/// The audit log, to be cloned freely. Without a file everything succeeds and
/// nothing is kept.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    login_names: hmac::Key,
}

impl Audit {
    /// Opens the file, takes up its chain and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened, is written by another process
    /// (`InUse`: a draining one, say) or is no audit log.
    pub fn open(
        telemetry: &config::Telemetry,
        keys: AuditKeys,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, AuditError> {
        let result = |label| metrics.audit_records(label);
        let counters = Counters {
            written: result("written"),
            counted: result("counted"),
            lost: result("lost"),
            failed: result("failed"),
        };
        let chain = Chain::new(keys.checkpoint, clock.now());
        let shared = Arc::new(Shared::new(clock, counters));
        let mut writer = Writer::new(Arc::clone(&shared), chain);
        writer.reopen(telemetry.audit_file.as_deref())?;
        let (commands, receiver) = channel();
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(AuditError::Thread)?;
        let login_names = hmac::Key::new(hmac::HMAC_SHA256, keys.login_names.expose());
        let audit = Self { shared, commands, login_names };
        audit.apply(telemetry);
        Ok(audit)
    }

    fn apply(&self, telemetry: &config::Telemetry) {
        self.shared.requests.store(telemetry.audit_requests, Ordering::Relaxed);
        self.shared.required.store(telemetry.audit_required, Ordering::Relaxed);
    }

    /// A queue for one worker.
    #[must_use]
    pub fn worker_queue(&self) -> WorkerQueue {
        WorkerQueue::new(&self.shared)
    }

    /// Whether a record could be written now; always, when none may be missing does not hold.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.shared.is_available()
    }

    /// Writes the record and waits until it is on disk, together with all others
    /// that wait. After an error it is written as soon as the file takes it, so
    /// that a logout that took effect is recorded all the same.
    ///
    /// # Errors
    /// When the record is not on disk and `audit_required` holds.
    pub async fn durable(&self, record: Record) -> Result<(), AuditUnavailable> {
        if !self.shared.kept.load(Ordering::Relaxed) || self.on_disk(record).await {
            return Ok(());
        }
        if self.shared.required.load(Ordering::Relaxed) { Err(AuditUnavailable) } else { Ok(()) }
    }

    async fn on_disk(&self, record: Record) -> bool {
        if self.shared.durable.fetch_add(1, Ordering::Relaxed) >= DURABLE_MAX {
            self.shared.durable.fetch_sub(1, Ordering::Relaxed);
            self.shared.counters.lost.inc();
            return false;
        }
        let stamped = Box::new(Stamped { time: self.shared.clock.now(), record });
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Durable(stamped, answer)).is_err() {
            return false;
        }
        answered.await.unwrap_or(false)
    }

    /// Records a refusal of somebody unknown; see `WorkerQueue::refusal`.
    pub fn refusal(&self, address: IpAddr, record: Record) {
        self.shared.refusal(address, record);
    }

    /// The keyed hash of a login name that matched no entry: people type
    /// passwords into the name field, so the name itself is never recorded.
    #[must_use]
    pub fn hash_name(&self, name: &str) -> String {
        let tag = hmac::sign(&self.login_names, name.as_bytes());
        chain::hex(&tag.as_ref()[..16])
    }

    /// Applies a changed configuration, and goes on in a new file when the old
    /// one was renamed (SIGHUP). The old one ends with a checkpoint.
    ///
    /// # Errors
    /// When the new file cannot be used; then everything stays as it was.
    pub async fn reload(&self, telemetry: &config::Telemetry) -> Result<(), AuditError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Reopen(telemetry.audit_file.clone(), answer);
        self.commands.send(command).map_err(|_| AuditError::Closed)?;
        answered.await.map_err(|_| AuditError::Closed)??;
        self.apply(telemetry);
        Ok(())
    }

    /// Writes what is queued and a last checkpoint. Afterwards nothing can be recorded.
    pub async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Stop(answer)).is_ok() {
            let _ = answered.await;
        }
    }
}
