//! The keys in the course of time: what is due is done, and every change recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::app::assertion_keys;
use crate::audit::{Event, Record};
use crate::gateway::Services;
use crate::session::KeyEvent;

/// How often is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Rotates and retires keys until it is dropped.
pub(super) async fn tend(services: Arc<Services>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        looks.tick().await;
        let mut events = Vec::new();
        // First, as what is due goes by the clock.
        services.sessions.compare_clocks();
        let result = services.sessions.tend_keys(&mut events).await;
        record(&services, "session", events, "schedule").await;
        let retiring = Arc::clone(&services);
        let retired = spawn_blocking(move || assertion_keys::retire(&retiring)).await;
        let retired = retired.unwrap_or_else(|_| {
            tracing::error!("looking after the keys of assertions ended by a panic");
            Ok(Vec::new())
        });
        let result = match retired {
            Ok(events) => {
                record(&services, "assertion", events, "schedule").await;
                result
            }
            Err(error) => result.and(Err(error)),
        };
        let failed = result.is_err();
        if let (Err(error), false) = (result, failing) {
            tracing::error!(%error, "the keys could not be looked after");
        }
        failing = failed;
    }
}

/// Writes a record of each change; says whether all are on disk.
pub(super) async fn record(
    services: &Services,
    purpose: &'static str,
    events: Vec<KeyEvent>,
    cause: &'static str,
) -> bool {
    let mut recorded = true;
    for KeyEvent { kid, change } in events {
        let mut entry = Record::new(Event::Keys, change.label());
        entry.detail = Some(format!("{purpose} key {kid}: {cause}").into());
        recorded &= services.audit.durable(entry).await.is_ok();
    }
    recorded
}
