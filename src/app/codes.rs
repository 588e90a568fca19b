//! What the metrics are told of access codes and guesses, which only the store knows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::Services;

/// How old that knowledge may be.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Tells the metrics until it is dropped.
pub(super) async fn tell(services: Arc<Services>) {
    let mut ticks = interval(TELL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let snapshot = services.snapshot.load_full();
        // A store that cannot answer has its own metric.
        if let Some(codes) = &snapshot.codes {
            let _ = codes.tell().await;
        }
        let _ = snapshot.guards.tell().await;
    }
}
