//! The keys of assertions as operators and the clock change them. A reload changes
//! them too: who does either holds `Services::changing`.

use std::sync::{Arc, PoisonError};

use crate::gateway::Services;
use crate::session::{DroppedKeys, KeyChange, KeyEvent};
use crate::token::KeyError;

/// Makes a new key of each kind that is asked for. It is published at once, and signs
/// when that was long enough ago; or, with `now`, signs at once while the old ones go.
///
/// # Errors
/// When one cannot be made or written; all goes on as before.
pub(super) fn rotate(services: &Services, now: bool) -> Result<DroppedKeys, KeyError> {
    let _changing = services.changing.lock().unwrap_or_else(PoisonError::into_inner);
    let keys = &services.snapshot.load().assertion_keys;
    let dir = services.sessions.keys_dir();
    let new = keys.make_next(dir, services.clock.now(), &services.entropy)?;
    keys.adopt(&new);
    let event = |kid: &str, change| event(services, kid, change);
    let mut events: Vec<_> = new.iter().map(|key| event(key.kid(), KeyChange::Made)).collect();
    let mut left = None;
    if now {
        let dropped = keys.drop_all_but(&new);
        left = dir.and_then(|dir| dir.delete_dropped(&dropped));
        events.extend(dropped.iter().map(|kid| event(kid, KeyChange::Dropped)));
    }
    tell_held(services);
    Ok(DroppedKeys { events, left })
}

/// Deletes keys that nobody needs any more.
///
/// # Errors
/// When a file cannot be deleted; it is tried again next time.
pub(super) fn retire(services: &Services) -> Result<Vec<KeyEvent>, KeyError> {
    let _changing = services.changing.lock().unwrap_or_else(PoisonError::into_inner);
    let keys = Arc::clone(&services.snapshot.load().assertion_keys);
    let retired = keys.retire(services.sessions.keys_dir(), services.clock.now())?;
    if !retired.is_empty() {
        tell_held(services);
    }
    Ok(retired.iter().map(|kid| event(services, kid, KeyChange::Retired)).collect())
}

/// Tells the metric how many there are.
pub(super) fn tell_held(services: &Services) {
    let count = services.snapshot.load().assertion_keys.facts(services.clock.now()).len();
    services.metrics.keys_held("assertion").set(i64::try_from(count).unwrap_or(i64::MAX));
}

fn event(services: &Services, kid: &str, change: KeyChange) -> KeyEvent {
    services.metrics.key_changes("assertion", change.label()).inc();
    tracing::info!(key.kid = kid, change = change.label(), "an assertion key changed");
    KeyEvent { kid: kid.to_owned(), change }
}
