//! The assertions that a session remembers, one for each issuer, seen by all workers:
//! looked at without a lock, renewed by one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Mutex;

use crate::ambient::Timestamp;
use crate::token::assertion::{Assertion, IssuerId, Stated};

/// The assertions of one session.
#[derive(Default)]
pub struct AssertionMemory(ArcSwap<Vec<Arc<Slot>>>);

/// What is remembered for one issuer.
pub(super) struct Slot {
    issuer: IssuerId,
    current: ArcSwapOption<Assertion>,
    /// Held by whoever signs.
    pub(super) signing: Mutex<()>,
    /// Whether somebody has set out to renew it.
    is_asked: AtomicBool,
}

/// What a look at the memory finds.
pub enum Remembered {
    /// One with more than half of its life left.
    Fresh(Arc<Assertion>),
    /// One that still serves; `renew` tells one caller alone to see to its successor.
    Ageing {
        /// It.
        assertion: Arc<Assertion>,
        /// Whether the caller is the one.
        renew: bool,
    },
    /// None that would serve.
    None,
}

impl AssertionMemory {
    /// Looks for an assertion that states exactly this.
    pub(super) fn look(&self, issuer: IssuerId, stated: &Stated, now: Timestamp) -> Remembered {
        let slots = self.0.load();
        let slot = slots.iter().find(|slot| slot.issuer == issuer);
        slot.map_or(Remembered::None, |slot| slot.look(stated, now))
    }

    /// The place of an issuer; those of issuers that are no more are forgotten.
    pub(super) fn slot(&self, issuer: IssuerId, now: Timestamp) -> Arc<Slot> {
        let fresh = Arc::new(Slot {
            issuer,
            current: ArcSwapOption::empty(),
            signing: Mutex::default(),
            is_asked: AtomicBool::new(false),
        });
        let find = |slots: &[Arc<Slot>]| slots.iter().find(|it| it.issuer == issuer).cloned();
        if let Some(known) = find(&self.0.load()) {
            return known;
        }
        self.0.rcu(|slots| {
            if find(slots).is_some() {
                return Vec::clone(slots);
            }
            let kept = slots.iter().filter(|slot| slot.is_in_use(now)).cloned();
            kept.chain([Arc::clone(&fresh)]).collect::<Vec<_>>()
        });
        find(&self.0.load()).unwrap_or(fresh)
    }
}

impl Slot {
    pub(super) fn look(&self, stated: &Stated, now: Timestamp) -> Remembered {
        let Some(assertion) = self.current.load_full() else { return Remembered::None };
        let is_over = now >= assertion.useful_until || assertion.is_dropped();
        if is_over || assertion.stated != *stated {
            return Remembered::None;
        }
        if now < assertion.renew_at {
            return Remembered::Fresh(assertion);
        }
        let renew = !self.is_asked.swap(true, Ordering::AcqRel);
        Remembered::Ageing { assertion, renew }
    }

    /// Remembers a new one, or that there was none to be had.
    pub(super) fn settle(&self, new: Option<Arc<Assertion>>) {
        if new.is_some() {
            self.current.store(new);
        }
        self.is_asked.store(false, Ordering::Release);
    }

    /// One without an assertion is about to get its first.
    fn is_in_use(&self, now: Timestamp) -> bool {
        self.current.load().as_ref().is_none_or(|assertion| now < assertion.useful_until)
    }
}
