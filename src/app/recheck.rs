//! The accounts of live sessions in the course of time: read again when it is due, and
//! the end of each session recorded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::ambient::Timestamp;
use crate::audit::{Event, Record};
use crate::gateway::Services;
use crate::session::{Reason, Swept};
use crate::store::SessionRecord;

/// How often is looked whether a recheck is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When accounts were left unread, they are tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(15);
/// Records that are written at the same time.
const RECORDS: usize = 256;

/// Rechecks until it is dropped.
pub(super) async fn run(services: Arc<Services>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: (Timestamp, bool) = (services.clock.now(), true);
    let mut failing = false;
    loop {
        looks.tick().await;
        let snapshot = services.snapshot.load_full();
        let (directory, config) = (&snapshot.directory, &snapshot.config.directory);
        let Some((directory, config)) = directory.as_ref().zip(config.as_ref()) else { continue };
        let (began, whole) = last;
        let every = config.recheck_interval;
        let wait = if whole { every } else { every.min(RETRY_AFTER) };
        let now = services.clock.now();
        // A file says by itself that it changed.
        if !directory.take_change() && now.since(began) < wait {
            continue;
        }
        let swept = services.sessions.recheck_all(directory, config.overdue_after()).await;
        let Ok(swept) = swept else {
            tracing::error!("the sessions could not be rechecked: the store cannot answer");
            last = (now, false);
            continue;
        };
        report(&swept, &mut failing);
        last = (now, swept.unknown == 0);
        record(&services, swept.ended).await;
    }
}

fn report(swept: &Swept, failing: &mut bool) {
    if let Some(error) = &swept.error {
        // Once loudly, then only in the metrics.
        let (sessions, unknown) = (swept.sessions, swept.unknown);
        if *failing {
            tracing::debug!(%error, sessions, unknown, "accounts are still unread");
        } else {
            tracing::error!(
                %error, sessions, unknown,
                "the directory does not say how accounts stand; their sessions go on for \
                 directory.recheck_grace"
            );
        }
    } else if *failing {
        tracing::info!(sessions = swept.sessions, "the directory says again how accounts stand");
    }
    *failing = swept.error.is_some();
    for (reason, record) in &swept.ended {
        tracing::info!(session = %record.session, reason = reason.label(), "a session ended");
    }
}

async fn record(services: &Services, ended: Vec<(Reason, SessionRecord)>) {
    let mut unwritten = 0_usize;
    for some in ended.chunks(RECORDS) {
        let mut writing: JoinSet<bool> = JoinSet::new();
        for (reason, record) in some {
            let (audit, entry) = (services.audit.clone(), revocation(*reason, record));
            writing.spawn(async move { audit.durable(entry).await.is_ok() });
        }
        unwritten += writing.join_all().await.into_iter().filter(|written| !written).count();
    }
    if unwritten > 0 {
        tracing::error!(sessions = unwritten, "ends of sessions are not in the audit log");
    }
}

fn revocation(reason: Reason, record: &SessionRecord) -> Record {
    let mut entry = Record::new(Event::Revocation, reason.label());
    entry.subject = Some(record.subject.shared());
    entry.role = Some(record.role.shared());
    entry.session = Some(*record.session.as_bytes());
    entry.detail = Some(Cow::Borrowed("recheck"));
    entry
}
