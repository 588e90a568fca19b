//! The audit log as a whole: real files, the real thread, and a disk that is full.

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;

use crate::ambient::{Clock, ManualTime, Timestamp};
use crate::audit::chain::Chain;
use crate::audit::queue::{Counters, Shared};
use crate::audit::sink::Sink;
use crate::audit::writer::Writer;
use crate::audit::{
    Audit, AuditError, AuditKeys, AuditUnavailable, CheckpointKey, Event, Outcome, Record,
    WorkerQueue, verify,
};
use crate::config::{LogFormat, LogLevel, Telemetry};
use crate::metrics::Metrics;
use crate::secret::Secret;

fn key() -> CheckpointKey {
    CheckpointKey::from_seed("audit-1", &Secret::new([7; 32])).unwrap()
}

fn telemetry(file: Option<PathBuf>) -> Telemetry {
    Telemetry {
        listen: "127.0.0.1:0".parse().unwrap(),
        log_format: LogFormat::Json,
        log_level: LogLevel::Info,
        audit_file: file,
        audit_requests: true,
        audit_required: true,
        control_socket: None,
    }
}

/// An audit log in a folder of its own, with a clock that moves when told.
struct Log {
    folder: TempDir,
    audit: Audit,
    metrics: Metrics,
    time: ManualTime,
}

impl Log {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (audit, metrics, time) = start(&folder.path().join("audit.jsonl")).unwrap();
        Self { folder, audit, metrics, time }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    fn count(&self, result: &str) -> u64 {
        self.metrics.audit_records(result).get()
    }
}

fn start(file: &Path) -> Result<(Audit, Metrics, ManualTime), AuditError> {
    let keys = AuditKeys { checkpoint: key(), login_names: Secret::new([9; 32]) };
    let metrics = Metrics::new().unwrap();
    let (clock, time) = Clock::manual();
    let telemetry = telemetry(Some(file.to_owned()));
    Ok((Audit::open(&telemetry, keys, clock, &metrics)?, metrics, time))
}

fn verified(files: &[PathBuf]) -> Outcome {
    let texts: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let outcome = verify(&[key().public()], None, &texts);
    assert_eq!(outcome.bad, None);
    outcome
}

fn login() -> Record {
    Record::new(Event::Login, "success")
}

fn request() -> Record {
    Record::new(Event::Request, "allow")
}

/// Waits for what another thread does; fails after ten seconds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}

#[tokio::test]
async fn a_durable_record_stands_in_the_file_before_the_answer() {
    let log = Log::open();
    for _ in 0..3 {
        log.audit.durable(login()).await.unwrap();
    }
    assert_eq!(verified(&[log.file()]).last, Some(3));
    assert_eq!(log.count("written"), 3);
}

#[tokio::test]
async fn a_queued_record_is_written_without_being_asked_for() {
    let log = Log::open();
    let queue = log.audit.worker_queue();
    queue.reserve().unwrap().record(request());
    until("it is written", || fs::metadata(log.file()).unwrap().len() > 0).await;
    assert_eq!(verified(&[log.file()]).last, Some(1));
}

#[tokio::test]
async fn a_restart_continues_the_chain() {
    let log = Log::open();
    log.audit.durable(login()).await.unwrap();
    log.audit.close().await;
    assert_eq!(log.audit.durable(login()).await, Err(AuditUnavailable), "it is closed");
    let (audit, ..) = start(&log.file()).unwrap();
    audit.durable(login()).await.unwrap();
    audit.close().await;
    let outcome = verified(&[log.file()]);
    assert_eq!((outcome.last, outcome.proved.unwrap().seq), (Some(4), 4));
}

#[tokio::test]
async fn a_restart_after_a_torn_line_continues_the_chain_and_reports_it() {
    let log = Log::open();
    for _ in 0..3 {
        log.audit.durable(login()).await.unwrap();
    }
    log.audit.close().await;
    let mut text = fs::read(log.file()).unwrap();
    text.truncate(text.len() - 300);
    fs::write(log.file(), &text).unwrap();
    assert!(verified(&[log.file()]).torn[0].last);
    let (audit, ..) = start(&log.file()).unwrap();
    audit.durable(login()).await.unwrap();
    audit.close().await;
    let outcome = verified(&[log.file()]);
    assert_eq!((outcome.torn.len(), outcome.torn[0].last), (1, false));
    assert_eq!(outcome.proved.map(|proved| proved.seq), outcome.last);
}

#[tokio::test]
async fn a_process_killed_in_its_first_line_leaves_a_file_that_can_be_continued() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    fs::write(&file, b"{\"seq\":1,\"pre").unwrap();
    let (audit, ..) = start(&file).unwrap();
    audit.close().await;
    let outcome = verified(&[file]);
    assert_eq!((outcome.torn.len(), outcome.last), (1, Some(2)));
}

#[tokio::test]
async fn a_second_process_cannot_write_the_same_file() {
    let log = Log::open();
    assert!(matches!(start(&log.file()), Err(AuditError::InUse(_))));
    log.audit.close().await;
    assert!(start(&log.file()).is_ok());
}

#[tokio::test]
async fn rotation_by_rename_ends_the_old_file_with_a_checkpoint_and_keeps_the_chain() {
    let log = Log::open();
    log.audit.durable(login()).await.unwrap();
    let old = log.folder.path().join("audit.jsonl.1");
    fs::rename(log.file(), &old).unwrap();
    log.audit.durable(login()).await.unwrap();
    log.audit.reload(&telemetry(Some(log.file()))).await.unwrap();
    log.audit.reload(&telemetry(Some(log.file()))).await.unwrap();
    log.audit.durable(login()).await.unwrap();
    log.audit.close().await;
    let first = verified(std::slice::from_ref(&old));
    assert_eq!((first.last, first.proved.unwrap().seq), (Some(3), 3));
    assert_eq!(verified(&[log.file()]).first, Some(4));
    assert_eq!(verified(&[old, log.file()]).last, Some(6));
}

#[tokio::test]
async fn a_restart_after_a_rotation_without_further_records_continues_the_chain() {
    let log = Log::open();
    log.audit.durable(login()).await.unwrap();
    let old = log.folder.path().join("audit.jsonl.1");
    fs::rename(log.file(), &old).unwrap();
    log.audit.reload(&telemetry(Some(log.file()))).await.unwrap();
    log.audit.close().await;
    let (audit, ..) = start(&log.file()).unwrap();
    audit.durable(login()).await.unwrap();
    assert_eq!(verified(&[old, log.file()]).last, Some(4));
}

#[tokio::test]
async fn wherever_a_file_is_torn_a_restart_continues_it() {
    let log = Log::open();
    for _ in 0..2 {
        log.audit.durable(login()).await.unwrap();
    }
    log.audit.close().await;
    let whole = fs::read(log.file()).unwrap();
    for cut in 0..whole.len() {
        fs::write(log.file(), &whole[..cut]).unwrap();
        let (audit, ..) = start(&log.file()).unwrap();
        audit.durable(login()).await.unwrap();
        audit.close().await;
        let outcome = verified(&[log.file()]);
        assert_eq!(outcome.proved.map(|proved| proved.seq), outcome.last, "{cut}");
        assert!(outcome.torn.iter().all(|torn| !torn.last), "{cut}");
    }
}

#[tokio::test]
async fn a_reload_that_cannot_open_its_file_changes_nothing() {
    let log = Log::open();
    let mut changed = telemetry(Some("/nonexistent/audit.jsonl".into()));
    changed.audit_required = false;
    assert!(matches!(log.audit.reload(&changed).await, Err(AuditError::File { .. })));
    log.audit.durable(login()).await.unwrap();
    assert_eq!(verified(&[log.file()]).last, Some(1));
    assert!(log.audit.shared.required.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_checkpoint_follows_a_minute_after_a_record() {
    let log = Log::open();
    log.audit.durable(login()).await.unwrap();
    log.time.advance(Duration::from_mins(1));
    until("a checkpoint stands there", || verified(&[log.file()]).proved.is_some()).await;
    assert_eq!(verified(&[log.file()]).last, Some(2));
}

#[tokio::test]
async fn on_a_full_disk_requests_are_refused_until_a_record_can_be_written_again() {
    let log = Log::open();
    let queue = log.audit.worker_queue();
    let mut settings = telemetry(Some("/dev/full".into()));
    log.audit.reload(&settings).await.unwrap();
    assert_eq!(log.audit.durable(login()).await, Err(AuditUnavailable));
    assert!(!log.audit.is_available());
    assert_eq!(queue.reserve().err(), Some(AuditUnavailable));
    assert!(log.count("failed") > 0);
    let new = log.folder.path().join("new.jsonl");
    settings.audit_file = Some(new.clone());
    log.audit.reload(&settings).await.unwrap();
    assert!(log.audit.is_available());
    queue.reserve().unwrap().record(request());
    log.audit.close().await;
    assert_eq!(verified(&[new]).last, Some(5), "what was refused is recorded too");
}

#[tokio::test]
async fn on_a_full_disk_all_goes_on_and_is_counted_when_audit_is_not_required() {
    let log = Log::open();
    let mut settings = telemetry(Some("/dev/full".into()));
    settings.audit_required = false;
    log.audit.reload(&settings).await.unwrap();
    assert_eq!(log.audit.durable(login()).await, Ok(()));
    assert!(log.audit.worker_queue().reserve().is_ok());
    assert!(log.audit.is_available());
    assert!(log.count("failed") > 0);
}

#[tokio::test]
async fn without_a_file_everything_succeeds_and_nothing_is_kept() {
    let log = Log::open();
    log.audit.reload(&telemetry(None)).await.unwrap();
    log.audit.durable(login()).await.unwrap();
    let queue = log.audit.worker_queue();
    queue.reserve().unwrap().record(request());
    log.audit.refusal([192, 0, 2, 1].into(), Record::new(Event::Refusal, "InvalidToken"));
    log.audit.close().await;
    assert_eq!(fs::metadata(log.file()).unwrap().len(), 0);
}

#[tokio::test]
async fn a_flood_of_refusals_becomes_twenty_records_and_a_count() {
    let log = Log::open();
    for _ in 0..3000 {
        log.audit.refusal([192, 0, 2, 1].into(), Record::new(Event::Refusal, "InvalidToken"));
    }
    assert!(log.audit.worker_queue().reserve().is_ok());
    log.audit.close().await;
    let text = fs::read_to_string(log.file()).unwrap();
    assert_eq!(text.matches(r#""event":"refusal""#).count(), 20);
    assert!(
        text.contains(
            r#""event":"refusals","outcome":"counted","client":"192.0.2.1","count":2980"#
        )
    );
    assert_eq!(log.count("counted"), 2980);
}

#[tokio::test]
async fn login_names_are_hashed_with_the_key() {
    let log = Log::open();
    assert_eq!(log.audit.hash_name("hunter2"), log.audit.hash_name("hunter2"));
    assert_ne!(log.audit.hash_name("hunter2"), log.audit.hash_name("hunter3"));
    assert_eq!(log.audit.hash_name("x").len(), 32);
}

/// A writer without its thread, and a file that takes only so much until it is read.
fn narrow_writer() -> (Writer, Arc<Shared>, UnixStream) {
    let metrics = Metrics::new().unwrap();
    let result = |label| metrics.audit_records(label);
    let counters = Counters {
        written: result("written"),
        counted: result("counted"),
        lost: result("lost"),
        failed: result("failed"),
    };
    let shared = Arc::new(Shared::new(Clock::system(), counters));
    for flag in [&shared.kept, &shared.requests, &shared.required] {
        flag.store(true, Ordering::Relaxed);
    }
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let chain = Chain::new(key(), Timestamp::from_millis(0));
    let mut writer = Writer::new(Arc::clone(&shared), chain);
    writer.sink = Some(Sink::of(fs::File::from(OwnedFd::from(near))));
    (writer, shared, far)
}

#[test]
fn a_file_that_takes_half_a_line_gets_the_other_half_later_and_the_chain_is_whole() {
    let (mut writer, shared, mut far) = narrow_writer();
    let queue = WorkerQueue::new(&shared);
    for _ in 0..20_000 {
        queue.reserve().unwrap().record(request());
    }
    let mut text = Vec::new();
    let mut failures = 0;
    loop {
        writer.pass();
        if shared.is_available() {
            break;
        }
        failures += 1;
        assert_eq!(queue.reserve().err(), Some(AuditUnavailable));
        let _ = far.read_to_end(&mut text);
    }
    let _ = far.read_to_end(&mut text);
    assert!(failures > 1, "the file was never full");
    let outcome = verify(&[key().public()], None, &[&text]);
    assert_eq!((outcome.bad, outcome.torn.len()), (None, 0));
    assert_eq!(outcome.last, Some(20_020));
    assert_eq!(shared.counters.written.get(), 20_000);
    assert!(queue.reserve().is_ok(), "it recovers by itself");
}

#[test]
fn one_look_at_the_queues_writes_all_that_waits_in_them() {
    let (mut writer, shared, mut far) = narrow_writer();
    let queues: Vec<_> = (0..4).map(|_| WorkerQueue::new(&shared)).collect();
    for queue in &queues {
        for _ in 0..25 {
            queue.reserve().unwrap().record(request());
        }
    }
    writer.pass();
    let mut text = Vec::new();
    let _ = far.read_to_end(&mut text);
    assert_eq!(verify(&[], None, &[&text]).last, Some(100));
}
