//! What only a store in a file can promise: restarts, crashes, damage, full disks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Embedded, FullDisk, NUMBERS};
use crate::ambient::Timestamp;
use crate::identity::SessionId;
use crate::store::file;
use crate::store::tests::{record, session};
use crate::store::{OpenError, StoreError};

const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);
const LATER: Timestamp = Timestamp::from_seconds(1_790_009_000);

async fn open(path: &Path) -> Embedded {
    Embedded::open(path, Duration::from_secs(5), NOW).await.unwrap()
}

fn moved_aside(folder: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.to_string_lossy().contains(".unreadable-"))
        .map(|path| fs::read(path).unwrap())
        .collect()
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/state.redb");
    let store = open(&path).await;
    store.create(record(1)).await.unwrap();
    store.create(record(2)).await.unwrap();
    store.revoke(session(2), LATER).await.unwrap();
    store.set_starts(3).await.unwrap();
    drop(store);
    let store = open(&path).await;
    assert_eq!(store.read(session(1)).unwrap(), Some(record(1)));
    assert_eq!(store.read(session(2)).unwrap(), None);
    assert_eq!(store.revocations(None).unwrap(), [(session(2), LATER)]);
    assert_eq!(store.starts(), Ok(Some(3)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Reading waits for nothing, so whatever lock a write takes would be an outage to it.
#[tokio::test]
async fn no_write_keeps_anybody_from_reading() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("state.redb")).await);
    store.create(record(1)).await.unwrap();
    let readers = [(); 2].map(|()| {
        let store = Arc::clone(&store);
        tokio::task::spawn_blocking(move || {
            (0..20_000).filter(|_| store.read(session(1)) == Ok(Some(record(1)))).count()
        })
    });
    let mut writes = 0;
    while !readers.iter().all(tokio::task::JoinHandle::is_finished) {
        writes += 1;
        store.set_starts(writes).await.unwrap();
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 20_000, "beside {writes} writes");
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = open(&path).await;
    store.create(record(1)).await.unwrap();
    store.revoke(session(1), LATER).await.unwrap();
    // The file as it lies on disk while the store is open: what a kill leaves behind.
    let image = folder.path().join("image.redb");
    fs::copy(&path, &image).unwrap();
    let after = open(&image).await;
    assert_eq!(after.revocations(None).unwrap(), [(session(1), LATER)]);
    assert_eq!(after.read(session(1)).unwrap(), None);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_moved_aside_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    for content in [&b"not a store at all"[..], &[0; 9000]] {
        let path = folder.path().join("state.redb");
        fs::write(&path, content).unwrap();
        let store = open(&path).await;
        assert_eq!(store.starts(), Ok(None));
        store.create(record(1)).await.unwrap();
        drop(store);
        fs::remove_file(&path).unwrap();
        let aside = moved_aside(folder.path());
        assert!(aside.iter().any(|kept| kept == content), "{} bytes", content.len());
        for entry in fs::read_dir(folder.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_store_is_never_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.redb");
    let store = open(&good).await;
    for number in 0..50 {
        store.create(record(number)).await.unwrap();
    }
    drop(store);
    let good = fs::read(&good).unwrap();
    for damage in 0..24 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let mut bytes = good.clone();
        if damage % 3 == 0 {
            bytes.truncate(good.len() * damage / 24);
        } else {
            let start = good.len() * damage / 24;
            bytes[start..start + 512].fill(0xa5);
        }
        fs::write(&path, &bytes).unwrap();
        let store = open(&path).await;
        // Either the damage hit nothing in use, or all is new and the old file kept.
        if moved_aside(folder.path()).is_empty() {
            let known = (0..50).filter(|number| store.read(session(*number)).unwrap().is_some());
            let known = known.count();
            assert!(known == 50 || bytes.is_empty(), "damage {damage}: {known}");
        } else {
            assert_eq!(store.read(session(1)).unwrap(), None, "damage {damage}");
            store.create(record(1)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_start_waits_for_the_lock_and_then_gives_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = open(&path).await;
    let refused = Embedded::open(&path, Duration::from_millis(120), NOW).await;
    assert!(matches!(refused, Err(OpenError::Locked { .. })));
    let waiting = open(&path);
    let letting_go = async {
        tokio::task::yield_now().await;
        store.create(record(1)).await.unwrap();
        drop(store);
    };
    let (waited, ()) = tokio::join!(waiting, letting_go);
    assert!(waited.read(session(1)).unwrap().is_some());
    assert!(moved_aside(folder.path()).is_empty());
}

#[tokio::test]
async fn a_file_of_another_format_stops_the_start_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    drop(open(&path).await);
    let database = file::open(&path, false).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(NUMBERS).unwrap().insert("format", super::FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refused = Embedded::open(&path, Duration::ZERO, NOW).await;
    assert!(matches!(refused, Err(OpenError::File { .. })));
    assert!(moved_aside(folder.path()).is_empty());
}

#[tokio::test]
async fn a_full_disk_is_an_outage_that_ends_with_room() {
    let disk = FullDisk::new();
    let store = Embedded::on_disk(&disk);
    store.create(record(1)).await.unwrap();

    disk.fill(true);
    for number in 2..5 {
        assert_eq!(store.create(record(number)).await, Err(StoreError::Unavailable));
        assert!(!store.is_up());
    }
    disk.fill(false);
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while store.create(record(5)).await.is_err() {
        assert!(tokio::time::Instant::now() < until, "the store does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(store.is_up());
    assert_eq!(store.read(session(1)).unwrap(), Some(record(1)));
    assert_eq!(store.read(session(3)).unwrap(), None);
}

#[tokio::test]
async fn a_store_of_the_format_before_learns_whose_its_sessions_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = open(&path).await;
    store.create(record(1)).await.unwrap();
    drop(store);
    let database = file::open(&path, false).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(super::OWNERS).unwrap();
    transaction.open_table(NUMBERS).unwrap().insert("format", super::WITHOUT_OWNERS).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let store = open(&path).await;
        assert_eq!(store.of_subject(&record(1).subject).unwrap(), [record(1)]);
        assert_eq!(store.read(session(1)).unwrap(), Some(record(1)));
    }
}

#[tokio::test]
async fn a_large_store_is_swept_whole_and_others_write_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("state.redb")).await;
    let revoked = |number: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
        (SessionId::from_bytes(id), if number.is_multiple_of(2) { NOW } else { LATER })
    };
    store.revoke_all((0..50_000).map(revoked).collect()).await.unwrap();
    for number in 0..4 {
        store.create(record(number * 60)).await.unwrap();
    }
    let (swept, created) = tokio::join!(store.sweep(NOW, NOW), store.create(record(9)));
    created.unwrap();
    assert!(swept.unwrap() >= 4);
    let left = store.revocations(None).unwrap();
    assert_eq!(left.len(), 25_000);
    assert!(left.iter().all(|(_, until)| *until == LATER));
    assert_eq!(store.sweep(LATER, NOW).await, Ok(0));
    assert_eq!(store.revocations(None).unwrap(), []);
    assert_eq!(store.of_subject(&record(9).subject).unwrap(), []);
}
