//! Promises about what is there, and what is dead, after a restart.

use std::path::Path;

use super::{Fixture, MINUTE, fixture, guest, login, login_as, start, token_config};
use crate::ambient::{Clock, ManualTime};
use crate::config;
use crate::identity::SessionId;
use crate::metrics::Metrics;
use crate::session::{CheckError, Reason};
use crate::store::{Expiring, Family, SessionRecord};

/// A folder with store and keys, to start from again and again.
struct Disk {
    folder: tempfile::TempDir,
    clock: Clock,
    time: ManualTime,
    metrics: Metrics,
}

impl Disk {
    fn new() -> Self {
        let (clock, time) = Clock::manual();
        let (folder, metrics) = (tempfile::tempdir().unwrap(), Metrics::new().unwrap());
        Self { folder, clock, time, metrics }
    }

    async fn start(&self) -> Fixture {
        let path = self.folder.path().join("state.redb");
        let token = token_config(Some(&self.folder.path().join("keys")));
        let kind = config::Store::Embedded { path };
        let sessions = start(&kind, &token, &self.clock, &self.metrics).await;
        Fixture { sessions, time: self.time.clone(), metrics: self.metrics.clone() }
    }
}

#[tokio::test]
async fn sessions_and_their_ends_survive_a_restart() {
    let disk = Disk::new();
    let fixture = disk.start().await;
    let (kept, ended) = (login(&fixture.sessions).await, login(&fixture.sessions).await);
    fixture.sessions.end(ended.session, Reason::Logout).await.unwrap();
    drop(fixture);
    disk.time.advance(20 * MINUTE);
    let fixture = disk.start().await;
    fixture.sessions.sweep().await;
    assert_eq!(fixture.metrics.sessions_active().get(), 1);
    let pair = fixture.check(&kept, kept.token.expose());
    assert_eq!(fixture.cookie(&pair), "renew first");
    fixture.renew(&pair).await;
    assert_eq!(fixture.cookie(&fixture.check(&ended, ended.token.expose())), "ended");
    assert_eq!(fixture.metrics.keys_replaced().get(), 0);
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_and_back_brings_nobody_back() {
    let disk = Disk::new();
    for on_disk in [false, true] {
        let fixture = if on_disk { disk.start().await } else { fixture().await };
        let ended = guest(&fixture.sessions, 10 * MINUTE).await;
        fixture.sessions.end(ended.session, Reason::Logout).await.unwrap();
        // Half an hour ahead, by which the session would have been over for long.
        let ahead = fixture.sessions.clock.now().plus(40 * MINUTE);
        fixture.sessions.store().sweep(ahead, ahead).await.unwrap();
        fixture.sessions.live.sweep(ahead, 1);
        assert_eq!(fixture.cookie(&fixture.check(&ended, ended.token.expose())), "ended");
        let kept = fixture.sessions.store().revocations(None).await.unwrap();
        assert_eq!(kept.len(), 1);
        drop(fixture);
        if on_disk {
            let fixture = disk.start().await;
            assert_eq!(fixture.cookie(&fixture.check(&ended, ended.token.expose())), "ended");
        }
    }
}

#[tokio::test]
async fn a_replaced_token_is_known_as_such_after_a_restart() {
    let disk = Disk::new();
    let fixture = disk.start().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let next = fixture.renew(&pair).await;
    assert_eq!(fixture.cookie(&fixture.check(&opened, next.token.expose())), "live");
    fixture.sessions.flush().await;
    drop((pair, next, fixture));
    let fixture = disk.start().await;
    let pair = fixture.check(&opened, opened.token.expose());
    assert_eq!(fixture.cookie(&pair), "live", "within the grace");
    fixture.time.advance(2 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "stolen");
}

async fn is_dead_after(change: impl FnOnce(&Path)) {
    let disk = Disk::new();
    let fixture = disk.start().await;
    let opened = login(&fixture.sessions).await;
    drop(fixture);
    drop(disk.start().await);
    change(disk.folder.path());
    let fixture = disk.start().await;
    let context = Some(opened.context.as_str().as_bytes());
    let checked = fixture.sessions.check(opened.token.expose(), context).await;
    assert!(matches!(checked, Err(CheckError::InvalidToken(_))));
    assert_eq!(fixture.metrics.keys_replaced().get(), 1);
    drop((checked, fixture));
    drop(disk.start().await);
    assert_eq!(disk.metrics.keys_replaced().get(), 1, "and only once");
}

#[tokio::test]
async fn with_the_store_file_deleted_old_tokens_are_dead() {
    is_dead_after(|folder| std::fs::remove_file(folder.join("state.redb")).unwrap()).await;
}

#[tokio::test]
async fn with_the_store_file_damaged_old_tokens_are_dead() {
    is_dead_after(|folder| std::fs::write(folder.join("state.redb"), "damaged").unwrap()).await;
}

#[tokio::test]
async fn with_the_start_counter_beside_the_keys_deleted_old_tokens_are_dead() {
    is_dead_after(|folder| std::fs::remove_file(folder.join("keys/starts")).unwrap()).await;
}

#[tokio::test]
async fn with_an_older_store_put_back_old_tokens_are_dead() {
    let disk = Disk::new();
    drop(disk.start().await);
    let path = disk.folder.path().join("state.redb");
    let backup = std::fs::read(&path).unwrap();
    let fixture = disk.start().await;
    let opened = login(&fixture.sessions).await;
    fixture.sessions.end(opened.session, Reason::Logout).await.unwrap();
    drop(fixture);
    std::fs::write(&path, backup).unwrap();
    let fixture = disk.start().await;
    let context = Some(opened.context.as_str().as_bytes());
    assert!(fixture.sessions.check(opened.token.expose(), context).await.is_err());
    assert_eq!(fixture.metrics.keys_replaced().get(), 1);
}

#[tokio::test]
async fn with_a_copy_of_the_running_store_put_back_nobody_comes_back_and_no_code_does() {
    let disk = Disk::new();
    let path = disk.folder.path().join("state.redb");
    let fixture = disk.start().await;
    let opened = login(&fixture.sessions).await;
    let store = fixture.sessions.store();
    let code = |number: u8| Expiring {
        family: Family::AccessCode,
        key: [number; 32],
        value: vec![number],
        until: disk.clock.now().plus(60 * MINUTE),
    };
    store.put(code(1), disk.clock.now(), None).await.unwrap();
    let copy = std::fs::read(&path).unwrap();
    fixture.sessions.end(opened.session, Reason::Logout).await.unwrap();
    store.take(Family::AccessCode, [1; 32], disk.clock.now()).await.unwrap().unwrap();
    fixture.sessions.note_starts().await.unwrap();
    drop((store, fixture));
    std::fs::write(&path, copy).unwrap();
    let fixture = disk.start().await;
    let context = Some(opened.context.as_str().as_bytes());
    assert!(fixture.sessions.check(opened.token.expose(), context).await.is_err());
    assert_eq!(fixture.metrics.keys_replaced().get(), 1);
    let store = fixture.sessions.store();
    let taken = store.take(Family::AccessCode, [1; 32], disk.clock.now()).await;
    assert_eq!(taken, Ok(None), "it was redeemed");
}

#[tokio::test]
async fn sessions_of_emergency_accounts_are_short_and_found_again() {
    let disk = Disk::new();
    let fixture = disk.start().await;
    login(&fixture.sessions).await;
    let lifetime = Some(5 * MINUTE);
    let opened = login_as(&fixture.sessions, (true, lifetime)).await;
    assert_eq!(opened.session_expires_at, disk.clock.now().plus(5 * MINUTE));
    let found = |records: Vec<SessionRecord>| -> Vec<SessionId> {
        records.iter().map(|record| record.session).collect()
    };
    assert_eq!(found(fixture.sessions.emergencies().await.unwrap()), [opened.session]);
    drop(fixture);
    let fixture = disk.start().await;
    assert!(fixture.sessions.emergencies().await.unwrap().is_empty(), "none opened here");
    fixture.sessions.find_emergencies().await.unwrap();
    assert_eq!(found(fixture.sessions.emergencies().await.unwrap()), [opened.session]);
    disk.time.advance(5 * MINUTE);
    assert!(fixture.sessions.emergencies().await.unwrap().is_empty(), "its time is over");
    let longer = login_as(&fixture.sessions, (true, Some(10_000 * MINUTE))).await;
    let usual = login(&fixture.sessions).await;
    assert_eq!(longer.session_expires_at, usual.session_expires_at, "never longer than others");
}
