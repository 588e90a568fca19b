//! What the connections of one worker share: the list of them and the stage of
//! the drain. Nothing here is seen by another worker but the count of open ones.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::activity::Activity;
use super::slots::Slot;
use crate::metrics::IntGauge;

/// Idle HTTP/1 connections live at least this long into a drain: a request that is
/// already on its way is still answered, with `Connection: close`.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How often a drain looks whether requests are still under way.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// How far the drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not begun.
    Serving,
    /// Each answer is the last one of its HTTP/1 connection; HTTP/2 got GOAWAY.
    LastAnswers,
    /// Connections without a request end; so do WebSockets.
    ClosingIdle,
    /// Time is up.
    Dropping,
}

/// One worker's connections.
pub(crate) struct Worker {
    stage: Cell<Stage>,
    connections: RefCell<HashMap<u64, Entry>>,
    next: Cell<u64>,
    count: Arc<Count>,
    /// Wakes those who wait for [`Stage::ClosingIdle`].
    closing_idle: Notify,
}

struct Entry {
    activity: Arc<Activity>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Count {
    open: AtomicUsize,
    all_closed: Notify,
    gauge: IntGauge,
}

/// An open socket's place in the counts; given back when dropped.
#[derive(Debug)]
pub(crate) struct Open {
    count: Arc<Count>,
    slot: Slot,
}

impl Open {
    /// The place in the counts shared by all workers.
    pub(crate) fn slot(&mut self) -> &mut Slot {
        &mut self.slot
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.gauge.dec();
        if self.count.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.count.all_closed.notify_one();
        }
    }
}

/// A connection's entry in its worker's list; leaves it when dropped.
pub(crate) struct Registration {
    worker: Rc<Worker>,
    id: u64,
}

impl Worker {
    pub(crate) fn new(gauge: IntGauge) -> Rc<Self> {
        Rc::new(Self {
            stage: Cell::new(Stage::Serving),
            connections: RefCell::default(),
            next: Cell::new(0),
            count: Arc::new(Count { open: AtomicUsize::new(0), all_closed: Notify::new(), gauge }),
            closing_idle: Notify::new(),
        })
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    pub(crate) fn open(&self, slot: Slot) -> Open {
        self.count.gauge.inc();
        self.count.open.fetch_add(1, Ordering::Relaxed);
        Open { count: Arc::clone(&self.count), slot }
    }

    pub(crate) fn register(self: &Rc<Self>, activity: &Arc<Activity>) -> Registration {
        let id = self.next.get();
        self.next.set(id + 1);
        let entry = Entry { activity: Arc::clone(activity), waker: None };
        self.connections.borrow_mut().insert(id, entry);
        Registration { worker: Rc::clone(self), id }
    }

    /// Resolves when connections without a request are to end.
    pub(crate) async fn closing_idle(&self) {
        let notified = self.closing_idle.notified();
        if self.stage.get() < Stage::ClosingIdle {
            notified.await;
        }
    }

    /// Tells every connection how far the drain is.
    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        // Waking may run foreign code: not while the list is borrowed.
        let wakers: Vec<Waker> =
            self.connections.borrow().values().filter_map(|entry| entry.waker.clone()).collect();
        wakers.iter().for_each(Waker::wake_by_ref);
        if stage >= Stage::ClosingIdle {
            self.closing_idle.notify_waiters();
        }
    }

    /// Ends all connections, those without a request last; returns when none is left
    /// or when `timeout` is over, and then the rest is dropped.
    pub(crate) async fn drain(&self, timeout: Duration) {
        let begun = Instant::now();
        while self.is_any_open() && begun.elapsed() < timeout {
            if begun.elapsed() >= IDLE_GRACE.min(timeout / 2) && !self.is_any_busy() {
                break;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
        self.enter(Stage::ClosingIdle);
        let _ = tokio::time::timeout_at(begun + timeout, self.all_closed()).await;
        self.enter(Stage::Dropping);
    }

    async fn all_closed(&self) {
        while self.is_any_open() {
            self.count.all_closed.notified().await;
        }
    }

    fn is_any_open(&self) -> bool {
        self.count.open.load(Ordering::Acquire) > 0
    }

    fn is_any_busy(&self) -> bool {
        self.connections.borrow().values().any(|entry| !entry.activity.is_idle())
    }
}

impl Registration {
    /// Whom to wake when the drain goes on.
    pub(crate) fn wake(&self, waker: &Waker) {
        if let Some(entry) = self.worker.connections.borrow_mut().get_mut(&self.id) {
            entry.waker = Some(waker.clone());
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = self.worker.connections.borrow_mut().remove(&self.id);
        drop(entry);
    }
}
