//! How records come from the workers: bounded queues without locks and without
//! wake-ups, in which a place is taken before the request is forwarded. Knows
//! neither the file nor the chain.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;

use crate::ambient::Clock;
use crate::audit::record::{Event, Record, Stamped};
use crate::metrics::IntCounter;

/// Places for requests in flight or waiting to be written, per worker. A place
/// is a pointer and a stamp, so this is a megabyte; it is far above what is in flight.
const PLACES: usize = 65_536;
/// Refusals without an identity that wait to be looked at; more are only counted.
const REFUSALS_MAX: usize = 4096;

/// No record can be written now, and none may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit record cannot be written")]
pub struct AuditUnavailable;

/// Counters of `bindgate_audit_records_total`.
#[derive(Clone)]
pub(super) struct Counters {
    /// Lines written.
    pub(super) written: IntCounter,
    /// Refusals that stand in a counted line only.
    pub(super) counted: IntCounter,
    /// Records lost while `audit_required` is false, or after the file stayed away for long.
    pub(super) lost: IntCounter,
    /// Times that a write failed.
    pub(super) failed: IntCounter,
}

/// What workers and writer share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    /// A file is configured.
    pub(super) kept: AtomicBool,
    /// `audit_requests`.
    pub(super) requests: AtomicBool,
    /// `audit_required`.
    pub(super) required: AtomicBool,
    /// The last write failed.
    pub(super) failing: AtomicBool,
    /// Durable records on their way to the writer.
    pub(super) durable: AtomicUsize,
    pub(super) refusals: ArrayQueue<Box<Stamped>>,
    pub(super) refusals_overflowed: AtomicU64,
    lanes: Mutex<Vec<Arc<Lane>>>,
}

/// One worker's queue.
pub(super) struct Lane {
    records: ArrayQueue<Box<Stamped>>,
    /// Places taken: by slots, and by records not yet written.
    taken: AtomicUsize,
}

impl Shared {
    pub(super) fn new(clock: Clock, counters: Counters) -> Self {
        Self {
            clock,
            counters,
            kept: AtomicBool::new(false),
            requests: AtomicBool::new(false),
            required: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            durable: AtomicUsize::new(0),
            refusals: ArrayQueue::new(REFUSALS_MAX),
            refusals_overflowed: AtomicU64::new(0),
            lanes: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn is_available(&self) -> bool {
        !self.failing.load(Ordering::Relaxed) || !self.required.load(Ordering::Relaxed)
    }

    /// The queues of all workers; those of workers that are gone are dropped.
    pub(super) fn lanes(&self) -> Vec<Arc<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| Arc::strong_count(lane) > 1 || !lane.records.is_empty());
        lanes.clone()
    }

    pub(super) fn refusal(&self, address: IpAddr, mut record: Record) {
        if !self.kept.load(Ordering::Relaxed) {
            return;
        }
        record.client = Some(address);
        let stamped = Box::new(Stamped { time: self.clock.now(), record });
        if self.refusals.push(stamped).is_err() {
            self.refusals_overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Lane {
    /// The oldest record; its place is free again.
    pub(super) fn pop(&self) -> Option<Box<Stamped>> {
        let record = self.records.pop()?;
        self.taken.fetch_sub(1, Ordering::Release);
        Some(record)
    }
}

/// One worker's way to the audit log.
pub struct WorkerQueue {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
}

impl WorkerQueue {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let lane = Arc::new(Lane { records: ArrayQueue::new(PLACES), taken: AtomicUsize::new(0) });
        let mut lanes = shared.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push(Arc::clone(&lane));
        Self { shared: Arc::clone(shared), lane }
    }

    /// Takes a place for the record of a request, before it is forwarded. Takes
    /// no lock and makes no system call.
    ///
    /// # Errors
    /// While the last write failed or the queue is full, and `audit_required` holds.
    pub fn reserve(&self) -> Result<Slot, AuditUnavailable> {
        let (shared, lane) = (&self.shared, &self.lane);
        if !shared.kept.load(Ordering::Relaxed) {
            return Ok(Slot { shared: Arc::clone(shared), place: None });
        }
        if !shared.is_available() {
            return Err(AuditUnavailable);
        }
        if lane.taken.fetch_add(1, Ordering::Acquire) < PLACES {
            return Ok(Slot { shared: Arc::clone(shared), place: Some(Arc::clone(lane)) });
        }
        lane.taken.fetch_sub(1, Ordering::Release);
        if shared.required.load(Ordering::Relaxed) {
            return Err(AuditUnavailable);
        }
        Ok(Slot { shared: Arc::clone(shared), place: None })
    }

    /// Records a refusal of somebody unknown. Needs no slot, takes no slot's
    /// place, and beyond 20 per address in 10 s is only counted.
    pub fn refusal(&self, address: IpAddr, record: Record) {
        self.shared.refusal(address, record);
    }
}

/// A place for one record, free again when dropped unused. A stream that lives
/// long should record when its answer begins, not hold its place.
pub struct Slot {
    shared: Arc<Shared>,
    place: Option<Arc<Lane>>,
}

impl Slot {
    /// Queues the record; it is written within 100 ms. A forwarded request is
    /// left out unless `audit_requests` holds.
    pub fn record(mut self, record: Record) {
        let unwanted =
            record.event == Event::Request && !self.shared.requests.load(Ordering::Relaxed);
        if unwanted || !self.shared.kept.load(Ordering::Relaxed) {
            return;
        }
        let stamped = Box::new(Stamped { time: self.shared.clock.now(), record });
        // Taken only now: where it ends up in the queue, the writer frees the place.
        let lost = match self.place.take() {
            Some(lane) => lane.records.push(stamped).is_err(),
            None => true,
        };
        if lost {
            self.shared.counters.lost.inc();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(lane) = &self.place {
            lane.taken.fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::{AuditUnavailable, Counters, PLACES, REFUSALS_MAX, Shared, WorkerQueue};
    use crate::ambient::Clock;
    use crate::audit::record::{Event, Record};
    use crate::metrics::Metrics;

    fn shared() -> Arc<Shared> {
        let metrics = Metrics::new().unwrap();
        let result = |label| metrics.audit_records(label);
        let counters = Counters {
            written: result("written"),
            counted: result("counted"),
            lost: result("lost"),
            failed: result("failed"),
        };
        let shared = Shared::new(Clock::system(), counters);
        for flag in [&shared.kept, &shared.requests, &shared.required] {
            flag.store(true, Ordering::Relaxed);
        }
        Arc::new(shared)
    }

    fn request() -> Record {
        Record::new(Event::Request, "allow")
    }

    #[test]
    fn a_place_is_taken_by_a_slot_until_its_record_is_written() {
        let shared = shared();
        let queue = WorkerQueue::new(&shared);
        let mut slots: Vec<_> = (0..PLACES).map(|_| queue.reserve().unwrap()).collect();
        assert_eq!(queue.reserve().err(), Some(AuditUnavailable));
        drop(slots.pop());
        queue.reserve().unwrap().record(request());
        assert!(queue.reserve().is_err(), "the record still takes the place");
        assert!(queue.lane.pop().is_some());
        assert!(queue.reserve().is_ok());
        for slot in slots {
            slot.record(request());
        }
        assert_eq!(shared.counters.lost.get(), 0, "who holds a slot is never turned away");
    }

    #[test]
    fn a_full_queue_loses_and_counts_when_audit_is_not_required() {
        let shared = shared();
        shared.required.store(false, Ordering::Relaxed);
        let queue = WorkerQueue::new(&shared);
        let slots: Vec<_> = (0..PLACES).map(|_| queue.reserve().unwrap()).collect();
        queue.reserve().unwrap().record(request());
        assert_eq!(shared.counters.lost.get(), 1);
        drop(slots);
    }

    #[test]
    fn refusals_of_the_unknown_never_take_a_place() {
        let shared = shared();
        let queue = WorkerQueue::new(&shared);
        for _ in 0..REFUSALS_MAX + 1000 {
            queue.refusal([192, 0, 2, 1].into(), Record::new(Event::Refusal, "InvalidToken"));
        }
        assert_eq!(shared.refusals_overflowed.load(Ordering::Relaxed), 1000);
        assert_eq!(queue.lane.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn forwarded_requests_are_left_out_unless_asked_for() {
        let shared = shared();
        shared.requests.store(false, Ordering::Relaxed);
        let queue = WorkerQueue::new(&shared);
        queue.reserve().unwrap().record(request());
        queue.reserve().unwrap().record(Record::new(Event::Refusal, "Forbidden"));
        assert_eq!(queue.lane.pop().unwrap().record.event, Event::Refusal);
        assert!(queue.lane.pop().is_none());
        assert_eq!(queue.lane.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_queue_of_a_worker_that_is_gone_is_emptied_and_forgotten() {
        let shared = shared();
        let queue = WorkerQueue::new(&shared);
        queue.reserve().unwrap().record(request());
        drop(queue);
        let lanes = shared.lanes();
        assert_eq!(lanes.len(), 1);
        assert!(lanes[0].pop().is_some());
        drop(lanes);
        assert!(shared.lanes().is_empty());
    }
}
