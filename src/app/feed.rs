//! What other gateways did, as the store tells: followed for as long as the process
//! runs, and recorded where it concerns keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::app::keys;
use crate::gateway::Services;

/// How often it is told how old the news are.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a start waits for the store; then it starts without, and refuses requests.
const PATIENCE: Duration = Duration::from_secs(5);

/// Follows the news until it is dropped.
pub(super) async fn follow(services: Arc<Services>) {
    let Some(mut follower) = services.sessions.follower() else { return };
    loop {
        let events = follower.step().await;
        if !events.is_empty() {
            keys::record(&services, "session", events, "store").await;
        }
    }
}

/// Tells how old the news are that were read last, and notes how far the store has come.
pub(super) async fn tell(services: Arc<Services>) {
    let store = services.sessions.store();
    let began = Instant::now();
    let mut failing = false;
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if store.is_shared() {
            let age = store.news_age().unwrap_or_else(|| began.elapsed());
            services.metrics.revocation_lag().set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        }
        let failed = services.sessions.note_starts().await.err();
        if let (Some(error), false) = (&failed, failing) {
            tracing::error!(%error, "a store that is put back may not be seen to be");
        }
        failing = failed.is_some();
    }
}

/// Waits until everything was read once, but not for ever.
pub(super) async fn settle(services: &Services) {
    let deadline = Instant::now() + PATIENCE;
    while services.sessions.is_stale() {
        if Instant::now() > deadline {
            tracing::error!("the store does not answer: requests are refused until it does");
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}
