//! The one thread that writes: takes the records of all workers, chains them,
//! appends them, and answers who waits for the disk. Knows no request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::audit::chain::Chain;
use crate::audit::flood::Flood;
use crate::audit::queue::Shared;
use crate::audit::record::Stamped;
use crate::audit::sink::{AuditError, End, Sink};

/// How often the queues are looked at: records are written within twice this.
const POLL: Duration = Duration::from_millis(50);
// The contract's bound for a queued record.
const _: () = assert!(POLL.as_millis() * 2 <= 100);
/// Bytes chained in one go; the rest waits for the next write.
const BATCH_BYTES: usize = 1 << 20;
/// Batches before those who wait for the disk get their turn.
const BATCHES_MAX: usize = 16;
/// Bytes kept while the file takes none; more stays in the queues.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Where the answer to `Reopen` goes.
type Reopened = oneshot::Sender<Result<(), AuditError>>;

/// What the writer is told.
pub(super) enum Command {
    /// Write this and answer once it is on disk.
    Durable(Box<Stamped>, oneshot::Sender<bool>),
    /// Go on in this file (anew, if it was renamed), or keep none.
    Reopen(Option<PathBuf>, Reopened),
    /// Write everything, a last checkpoint, and end.
    Stop(oneshot::Sender<()>),
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    chain: Chain,
    pub(super) sink: Option<Sink>,
    flood: Flood,
    waiting: Vec<oneshot::Sender<bool>>,
    /// Lines chained since the last whole write.
    lines: u64,
    unsynced: bool,
    reopen: Option<(Option<PathBuf>, Reopened)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, chain: Chain) -> Self {
        Self {
            shared,
            chain,
            sink: None,
            flood: Flood::new(),
            waiting: Vec::new(),
            lines: 0,
            unsynced: false,
            reopen: None,
        }
    }

    /// Works until told to stop, or until nobody is left who could tell.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let stopped = match commands.recv_timeout(POLL) {
                Ok(command) => self.take(command).or_else(|| {
                    // Who else waits shares the same trip to the disk.
                    commands.try_iter().find_map(|command| self.take(command))
                }),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(oneshot::channel().0),
            };
            self.pass();
            if let Some(answer) = stopped {
                self.stop();
                let _ = answer.send(());
                return;
            }
        }
    }

    fn take(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Durable(stamped, answer) => self.durable(&stamped, answer),
            Command::Reopen(path, answer) => self.reopen = Some((path, answer)),
            Command::Stop(answer) => return Some(answer),
        }
        None
    }

    fn durable(&mut self, stamped: &Stamped, answer: oneshot::Sender<bool>) {
        self.shared.durable.fetch_sub(1, Ordering::Relaxed);
        match &mut self.sink {
            Some(sink) if sink.backlog() < BACKLOG_BYTES_MAX => {
                self.chain.record(sink.pending(), stamped);
                self.lines += 1;
                self.waiting.push(answer);
            }
            Some(_) => {
                self.shared.counters.lost.inc();
                let _ = answer.send(false);
            }
            None => {
                let _ = answer.send(true);
            }
        }
    }

    /// One look at everything: queues, checkpoint, file, those who wait.
    pub(super) fn pass(&mut self) {
        self.keep_promises();
        let result = self.drain().and_then(|()| self.sync());
        self.settle(&result);
        if let Some((path, answer)) = self.reopen.take() {
            let _ = answer.send(self.reopen(path.as_deref()));
        }
    }

    /// Writes what is pending and what waits in the queues.
    fn drain(&mut self) -> io::Result<()> {
        // Bounded, so that who waits for the disk is not kept waiting by a flow that never ends.
        for _ in 0..BATCHES_MAX {
            let full = self.gather();
            self.write()?;
            if !full {
                break;
            }
        }
        Ok(())
    }

    /// Adds what is due by the clock.
    fn keep_promises(&mut self) {
        let now = self.shared.clock.now();
        let overflowed = self.shared.refusals_overflowed.swap(0, Ordering::Relaxed);
        self.shared.counters.counted.inc_by(overflowed);
        self.flood.overflow(overflowed, now);
        let Some(sink) = &mut self.sink else { return };
        if sink.backlog() >= BACKLOG_BYTES_MAX {
            return;
        }
        for counted in self.flood.expire(now, false) {
            self.chain.counted(sink.pending(), &counted);
            self.lines += 1;
        }
        self.chain.checkpoint_when_due(sink.pending(), now);
    }

    /// Chains what waits in the queues, up to a batch; whether the batch is full.
    fn gather(&mut self) -> bool {
        let Some(sink) = &mut self.sink else { return false };
        let (chain, lines) = (&mut self.chain, &mut self.lines);
        for lane in self.shared.lanes() {
            while sink.backlog() < BATCH_BYTES
                && let Some(stamped) = lane.pop()
            {
                chain.record(sink.pending(), &stamped);
                *lines += 1;
            }
        }
        while sink.backlog() < BATCH_BYTES
            && let Some(stamped) = self.shared.refusals.pop()
        {
            if self.flood.admit(stamped.record.client, stamped.time) {
                chain.record(sink.pending(), &stamped);
                *lines += 1;
            } else {
                self.shared.counters.counted.inc();
            }
        }
        sink.backlog() >= BATCH_BYTES
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        self.unsynced |= sink.backlog() > 0;
        sink.flush()?;
        self.shared.counters.written.inc_by(std::mem::take(&mut self.lines));
        for line in self.chain.checkpoints() {
            tracing::info!(checkpoint = line.as_str(), "audit checkpoint");
        }
        Ok(())
    }

    /// Only when somebody waits for it, or the last time failed: the rest may wait for the kernel.
    fn sync(&mut self) -> io::Result<()> {
        let asked = !self.waiting.is_empty() || self.shared.failing.load(Ordering::Relaxed);
        if let Some(sink) = &self.sink
            && asked
            && self.unsynced
        {
            sink.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn settle(&mut self, result: &io::Result<()>) {
        let failed_before = self.shared.failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) => {
                self.shared.counters.failed.inc();
                if !failed_before {
                    tracing::error!(error = %error, "the audit file cannot be written");
                }
            }
            Ok(()) if failed_before => tracing::warn!("the audit file is written again"),
            Ok(()) => {}
        }
        for answer in self.waiting.drain(..) {
            let _ = answer.send(result.is_ok());
        }
    }

    /// Ends the old file with a checkpoint and goes on in the new one. If that
    /// cannot be opened, the old one stays.
    pub(super) fn reopen(&mut self, path: Option<&Path>) -> Result<(), AuditError> {
        let same = match (&self.sink, path) {
            (Some(sink), Some(path)) => sink.is_at(path),
            (sink, path) => sink.is_none() && path.is_none(),
        };
        if same {
            return Ok(());
        }
        let opened = path.map(Sink::open).transpose()?;
        self.finish();
        if self.sink.as_ref().is_some_and(Sink::is_mid_line) {
            // Its other half can go nowhere else.
            return Err(AuditError::HalfWritten);
        }
        let rest = self.sink.take().map(Sink::into_pending).unwrap_or_default();
        if !matches!(opened, Some((_, End::Empty))) {
            // These lines continue a chain that is not the new file's.
            self.shared.counters.lost.inc_by(std::mem::take(&mut self.lines));
            drop(self.chain.checkpoints());
        }
        self.shared.kept.store(opened.is_some(), Ordering::Relaxed);
        self.sink = opened.map(|(sink, end)| self.begin(sink, end, &rest));
        self.pass();
        Ok(())
    }

    /// An empty file continues our chain; one that holds records, its own.
    fn begin(&mut self, mut sink: Sink, end: End, rest: &[u8]) -> Sink {
        let now = self.shared.clock.now();
        match end {
            End::Empty => {
                sink.pending().extend_from_slice(rest);
                self.chain.carry_over(sink.pending(), now);
            }
            End::Record { head, signed, torn } => {
                self.chain.continue_from(head, signed);
                if let Some(torn) = torn {
                    tracing::warn!(bytes = torn.bytes, "the audit file ended in a torn line");
                    self.chain.torn(sink.pending(), now, &torn);
                    self.lines += 1;
                }
                self.chain.checkpoint(sink.pending(), now);
            }
        }
        sink
    }

    /// Writes everything there is and a checkpoint, as far as the file takes it.
    fn finish(&mut self) {
        let now = self.shared.clock.now();
        let result = self.drain();
        if let Some(sink) = &mut self.sink {
            for counted in self.flood.expire(now, true) {
                self.chain.counted(sink.pending(), &counted);
                self.lines += 1;
            }
            self.chain.checkpoint(sink.pending(), now);
            self.unsynced = true;
        }
        let result = result
            .and_then(|()| self.write())
            .and_then(|()| self.sink.as_ref().map_or(Ok(()), Sink::sync));
        self.settle(&result);
    }

    fn stop(&mut self) {
        self.finish();
        self.sink = None;
        // From now on no record can be written.
        self.shared.failing.store(true, Ordering::Relaxed);
    }
}
