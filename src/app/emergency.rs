//! Sessions of emergency accounts in the course of time: over as soon as the directory
//! is back, or their account is no more what it was; each end is recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::audit::{Event, Record};
use crate::config::Store;
use crate::directory::Directory;
use crate::gateway::Services;
use crate::session::Reason;
use crate::store::{SessionRecord, StoreError};

/// How often is looked whether the directory is back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often all sessions are looked through for those of gateways that are gone.
const SEARCH_EVERY: Duration = Duration::from_mins(5);

/// Ends such sessions until it is dropped.
pub(super) async fn tend(services: Arc<Services>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut searched: Option<Instant> = None;
    let mut failing = false;
    loop {
        looks.tick().await;
        let snapshot = services.snapshot.load_full();
        let is_due = match searched {
            // Those of the process before this one, also when there are no such accounts now.
            None => true,
            Some(searched) => {
                let directory = snapshot.config.directory.as_ref();
                let configured = directory.is_some_and(|it| it.break_glass.is_some());
                let shared = matches!(snapshot.config.store, Store::Redis(_));
                configured && shared && searched.elapsed() >= SEARCH_EVERY
            }
        };
        let looked = async {
            if is_due {
                services.sessions.find_emergencies().await?;
                searched = Some(Instant::now());
            }
            look(&services, snapshot.directory.as_deref()).await
        };
        let failed = looked.await.is_err();
        if failed && !failing {
            tracing::error!("sessions of emergency accounts could not be looked after");
        }
        failing = failed;
    }
}

/// Ends what is over.
async fn look(services: &Services, directory: Option<&Directory>) -> Result<(), StoreError> {
    let live = services.sessions.emergencies().await?;
    let mut left = live.len();
    for reason in [Reason::DirectoryBack, Reason::EmergencyOver] {
        let is_over = |record: &&SessionRecord| over_because(directory, record) == Some(reason);
        let over: Vec<SessionRecord> = live.iter().filter(is_over).cloned().collect();
        if over.is_empty() {
            continue;
        }
        left = left.saturating_sub(over.len());
        for record in services.sessions.end_all(over, reason).await? {
            record_end(services, &record, reason).await;
        }
    }
    let left = i64::try_from(left).unwrap_or(i64::MAX);
    services.metrics.break_glass_sessions_active().set(left);
    Ok(())
}

/// Why a session is over, if it is.
fn over_because(directory: Option<&Directory>, record: &SessionRecord) -> Option<Reason> {
    let stamp = record.stamp.as_deref();
    match directory {
        Some(directory) if directory.is_back() => Some(Reason::DirectoryBack),
        Some(it) if it.emergency_stands(&record.account, &record.role, stamp) => None,
        _ => Some(Reason::EmergencyOver),
    }
}

/// The end holds, whether it can be recorded or not.
async fn record_end(services: &Services, record: &SessionRecord, reason: Reason) {
    tracing::warn!(
        account = record.account,
        session = %record.session,
        reason = reason.label(),
        "the session of an emergency account was ended"
    );
    let mut entry = Record::new(Event::Revocation, reason.label());
    entry.subject = Some(record.subject.shared());
    entry.role = Some(record.role.shared());
    entry.session = Some(*record.session.as_bytes());
    entry.detail = Some("break_glass".into());
    if services.audit.durable(entry).await.is_err() {
        tracing::error!(session = %record.session, "its end is not in the audit log");
    }
}
