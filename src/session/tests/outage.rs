//! Promises for when the store lost a record, or cannot answer.

use std::time::Duration;

use super::{Fixture, MINUTE, fixture, login, token_config};
use crate::ambient::{Clock, Entropy};
use crate::config;
use crate::metrics::Metrics;
use crate::session::{Admission, Carrier, Presence, Reason, RenewError, Sessions};
use crate::store::{FullDisk, Store};

#[tokio::test]
async fn a_lost_record_shortens_its_session_and_nothing_else() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let now = fixture.sessions.clock.now();
    // As a store does that failed over before the record reached the other side.
    fixture.sessions.store().sweep(now, now.plus(MINUTE)).await.unwrap();
    let pair = fixture.check(&opened, opened.token.expose());
    fixture.time.advance(10 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "live", "never renewed in passing");
    let Admission::Live(identity) =
        fixture.sessions.admit(&pair, Carrier::Cookie, Presence::Active)
    else {
        panic!("not live");
    };
    assert_eq!(identity.session_expires_at(), opened.expires_at);
    fixture.time.advance(6 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "renew first");
    assert_eq!(fixture.refused(&pair, Carrier::Cookie).await, RenewError::Ended);
}

/// Sessions whose store lies on a disk that can be filled.
async fn on_disk() -> (Fixture, FullDisk) {
    let (clock, time) = Clock::manual();
    let metrics = Metrics::new().unwrap();
    let disk = FullDisk::new();
    let store = Store::on_disk(&disk, &metrics);
    let ambient = (clock, Entropy::system(), &metrics);
    let kind = config::Store::Memory;
    let sessions = Sessions::start(&token_config(None), &kind, store, ambient).await.unwrap();
    (Fixture { sessions, time, metrics }, disk)
}

#[tokio::test]
async fn without_the_store_requests_go_on_and_renewals_do_not() {
    let (fixture, disk) = on_disk().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    disk.fill(true);
    fixture.time.advance(10 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "renew in passing");
    assert_eq!(fixture.refused(&pair, Carrier::Cookie).await, RenewError::StoreUnavailable);
    assert!(!fixture.sessions.is_up());
    assert_eq!(fixture.cookie(&fixture.check(&opened, opened.token.expose())), "renew in passing");
    disk.fill(false);
    until(async || fixture.sessions.renew(&pair, Carrier::Cookie, Presence::Active).await.is_ok())
        .await;
    assert!(fixture.sessions.is_up());
}

#[tokio::test]
async fn a_logout_holds_without_the_store_and_reaches_it_later() {
    let (fixture, disk) = on_disk().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    disk.fill(true);
    assert!(fixture.sessions.end(opened.session, Reason::Logout).await.is_err());
    assert_eq!(fixture.cookie(&pair), "ended");
    disk.fill(false);
    let store = fixture.sessions.store();
    until(async || {
        fixture.sessions.flush().await;
        store.revocations(None).await.is_ok_and(|revoked| revoked.len() == 1)
    })
    .await;
    assert!(store.read(opened.session).await.unwrap().is_none());
    assert_eq!(fixture.metrics.sessions_revoked("logout").get(), 1);
}

async fn until(done: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "it does not come to pass");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
