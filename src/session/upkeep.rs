//! What happens to sessions by themselves: activity is told to the store, the
//! forgotten is forgotten, and revocations that the store missed are told again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::session::Sessions;
use crate::store::SessionRecord;

/// How often what was seen is told to the store.
const NOTE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the store is swept.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// In how many of these intervals memory is rid of revocations that are over; till
/// then they harm nobody, as no token of theirs is valid any more.
const REVOCATION_TURNS: usize = 60;
/// Sessions in one write, so that logins need not wait long.
const NOTE_CHUNK: usize = 256;
/// How far the store's idea of the last activity may lag behind.
pub(super) const IDLE_MARGIN: Duration = Duration::from_mins(2);

impl Sessions {
    /// Keeps the sessions until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let note = async {
            let mut ticks = ticks(NOTE_INTERVAL);
            loop {
                ticks.tick().await;
                self.tell(false).await;
                self.compare_clocks();
                self.live.sweep(self.clock.now(), REVOCATION_TURNS);
            }
        };
        // Beside it: a large store is swept for a while.
        let sweep = async {
            let mut ticks = ticks(SWEEP_INTERVAL);
            loop {
                ticks.tick().await;
                self.sweep().await;
            }
        };
        tokio::join!(note, sweep);
    }

    /// Tells the store all that was seen; at the end of a drain.
    pub async fn flush(&self) {
        self.tell(true).await;
    }

    /// Says when the clocks of the store and of this machine are apart.
    pub fn compare_clocks(&self) {
        if let Some(ahead) = self.store.clock_ahead() {
            self.clocks.note(ahead, &self.metrics);
        }
    }

    async fn tell(&self, all: bool) {
        let unwritten: Vec<_> = {
            let unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
            unwritten.iter().map(|(session, entry)| (*session, *entry)).collect()
        };
        for (session, (until, reason)) in unwritten {
            if self.write_revocation(session, until, reason).await.is_err() {
                // The store is down; the next tick tries again.
                return;
            }
        }
        for chunk in self.live.unnoted(all).chunks(NOTE_CHUNK) {
            let seen: Vec<_> = chunk.iter().map(|live| live.seen()).collect();
            let Ok(records) = self.store.note(seen.clone()).await else { return };
            for (live, seen) in chunk.iter().zip(&seen) {
                live.noted(seen);
            }
            self.learn(&records);
        }
    }

    /// Takes over what other gateways saw of sessions that are in use here: above all,
    /// which tokens have been replaced.
    fn learn(&self, records: &[SessionRecord]) {
        // By a clock that is off, grace would be over too soon, or too late.
        if self.clocks.are_apart() {
            return;
        }
        for record in records {
            if let Some(live) = self.live.in_use(record.session) {
                live.learn(record);
            }
        }
    }

    pub(super) async fn sweep(&self) {
        let now = self.clock.now();
        if let Ok(active) = self.store.sweep(now, self.idle_before(now)).await {
            self.metrics.sessions_active().set(i64::try_from(active).unwrap_or(i64::MAX));
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
