//! Promises to gateways that share a store.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{MINUTE, guest, login, name, start, token_config};
use crate::ambient::{Clock, ManualTime};
use crate::config;
use crate::metrics::Metrics;
use crate::session::{
    Carrier, CheckedPair, KeyChange, Opened, Presence, Reason, RenewError, Renewed, Sessions,
};
use crate::store::tests::redis::single;

const HOUR: Duration = Duration::from_hours(1);
/// How long a gateway may take to hear of the store.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all of them share.
struct Shared {
    store: config::Store,
    token: config::Token,
    following: JoinSet<()>,
}

impl Shared {
    fn new() -> Self {
        Self { store: single(), token: token_config(None), following: JoinSet::new() }
    }

    /// One more gateway, which follows what the others do.
    async fn join(&mut self, clock: &Clock) -> Arc<Sessions> {
        let metrics = Metrics::new().unwrap();
        let sessions = start(&self.store, &self.token, clock, &metrics).await;
        let them = Arc::clone(&sessions);
        self.following.spawn(async move {
            let mut follower = them.follower().unwrap();
            loop {
                follower.step().await;
            }
        });
        until(|| !sessions.is_stale()).await;
        sessions
    }

    /// Some of them under one clock, and the hand that moves it.
    async fn join_under_one_clock<const N: usize>(&mut self) -> ([Arc<Sessions>; N], ManualTime) {
        let (clock, time) = Clock::manual();
        let mut all = Vec::new();
        for _ in 0..N {
            all.push(self.join(&clock).await);
        }
        (all.try_into().ok().unwrap(), time)
    }
}

async fn check(sessions: &Sessions, opened: &Opened, token: &str) -> CheckedPair {
    sessions.check(token, Some(opened.context.as_str().as_bytes())).await.unwrap()
}

fn cookie(sessions: &Sessions, pair: &CheckedPair) -> &'static str {
    name(&sessions.admit(pair, Carrier::Cookie, Presence::Active))
}

async fn renew(sessions: &Sessions, pair: &CheckedPair) -> Result<Renewed, RenewError> {
    sessions.renew(pair, Carrier::Cookie, Presence::Active).await
}

async fn until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it does not come about");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_gateway_that_knows_its_clock_to_be_off_leaves_the_keys_to_the_others() {
    let mut shared = Shared::new();
    shared.token.rotate_every = Some(HOUR);
    let ([off, other], time) = shared.join_under_one_clock().await;
    let tend = async |sessions: &Sessions| {
        let mut events = Vec::new();
        sessions.tend_keys(&mut events).await.unwrap();
        events.into_iter().map(|event| event.change).collect::<Vec<_>>()
    };
    for due in [KeyChange::Made, KeyChange::Retired] {
        time.advance(HOUR + MINUTE);
        until(|| off.store().clock_ahead().is_some_and(|ahead| ahead < -1_000_000)).await;
        off.compare_clocks();
        assert_eq!(tend(&off).await, []);
        // Nobody told this one, which takes what it sees for the time.
        assert!(tend(&other).await.contains(&due));
    }
}

#[tokio::test]
async fn what_a_clock_that_is_ahead_sweeps_brings_nobody_back() {
    let mut shared = Shared::new();
    let (clock, _) = Clock::manual();
    let right = shared.join(&clock).await;
    let ended = guest(&right, 10 * MINUTE).await;
    right.end(ended.session, Reason::Logout).await.unwrap();
    let (other, time) = Clock::manual();
    time.advance(40 * MINUTE);
    // Redis goes by this one here; it may be its own clock that is ahead.
    shared.join(&other).await.sweep().await;
    let fresh = shared.join(&clock).await;
    let pair = check(&fresh, &ended, ended.token.expose()).await;
    assert_eq!(cookie(&fresh, &pair), "ended");
    time.advance(40 * MINUTE);
    let late = shared.join(&other).await;
    late.sweep().await;
    assert_eq!(late.store().revocations(None).await, Ok(Vec::new()), "in the end it is forgotten");
}

#[tokio::test]
async fn whoever_changes_gateways_is_as_idle_as_the_store_says() {
    let mut shared = Shared::new();
    let ([here, there], time) = shared.join_under_one_clock().await;
    let opened = login(&here).await;
    // Seen here, and remembered for as long as the pair is.
    let pair = check(&here, &opened, opened.token.expose()).await;
    assert_eq!(cookie(&here, &pair), "live");
    let mut token = opened.token.expose().to_owned();
    for _ in 0..2 {
        time.advance(40 * MINUTE);
        let pair = check(&there, &opened, &token).await;
        assert_eq!(cookie(&there, &pair), "renew first");
        token = renew(&there, &pair).await.unwrap().token.expose().to_owned();
        let next = check(&there, &opened, &token).await;
        assert_eq!(cookie(&there, &next), "live");
    }
    time.advance(20 * MINUTE);
    let pair = check(&here, &opened, &token).await;
    assert_eq!(cookie(&here, &pair), "renew first", "idle for twenty minutes, not for a hundred");
    let renewed = renew(&here, &pair).await.unwrap();
    // Idle for too long at both.
    time.advance(HOUR + MINUTE);
    for sessions in [&here, &there] {
        let pair = check(sessions, &opened, renewed.token.expose()).await;
        assert_eq!(renew(sessions, &pair).await.err(), Some(RenewError::Ended));
    }
}

#[tokio::test]
async fn a_token_replaced_at_one_gateway_is_a_stolen_one_at_all() {
    let mut shared = Shared::new();
    let ([here, there], time) = shared.join_under_one_clock().await;
    let opened = login(&here).await;
    let first = opened.token.expose();
    let (old, moving) = (check(&here, &opened, first).await, check(&there, &opened, first).await);
    assert_eq!((cookie(&here, &old), cookie(&there, &moving)), ("live", "live"));
    time.advance(MINUTE);
    let renewed = renew(&there, &moving).await.unwrap();
    let next = check(&there, &opened, renewed.token.expose()).await;
    assert_eq!(cookie(&there, &next), "live");
    there.flush().await;
    // Long before half of its life is over, at which the store would be asked.
    time.advance(MINUTE);
    assert_eq!(cookie(&here, &old), "live");
    here.flush().await;
    assert_eq!(cookie(&here, &old), "live", "within the grace");
    time.advance(MINUTE);
    assert_eq!(cookie(&here, &old), "stolen");
    assert_eq!(cookie(&here, &check(&here, &opened, renewed.token.expose()).await), "ended");
}
