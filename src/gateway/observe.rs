//! What is counted and timed of a request, with every metric child resolved
//! once a worker and route. Knows no rules.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

use crate::metrics::{Histogram, IntCounter, Metrics};

/// What became of a request, for metrics and audit: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forwarded under a session.
    Allow,
    /// Forwarded without one, on a public route.
    Public,
    /// Answered by an endpoint of ours.
    Own,
    /// Refused, or failed.
    Deny,
}

impl Decision {
    /// The label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Public => "public",
            Self::Own => "own",
            Self::Deny => "deny",
        }
    }
}

/// The methods that have a label of their own.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// The label of a method; unknown ones share one.
pub(super) fn method_label(method: &Method) -> &'static str {
    METHODS.iter().find(|known| **known == method.as_str()).copied().unwrap_or("other")
}

/// The metrics of one route label.
pub struct RouteMeter {
    label: Arc<str>,
    metrics: Metrics,
    duration: Histogram,
    counters: RefCell<Vec<(Key, IntCounter)>>,
}

type Key = (&'static str, u16, Decision);

impl RouteMeter {
    /// Resolves a route's metrics.
    pub fn new(label: &str, metrics: &Metrics) -> Rc<Self> {
        Rc::new(Self {
            label: Arc::from(label),
            metrics: metrics.clone(),
            duration: metrics.http_request_duration(label),
            counters: RefCell::default(),
        })
    }

    /// The route's label.
    pub fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }

    /// Observes a request that began then and whose answer is whole.
    pub(crate) fn observe(&self, began: Instant) {
        self.duration.observe(began.elapsed().as_secs_f64());
    }

    /// Counts one answer.
    pub fn count(&self, method: &'static str, status: u16, decision: Decision) {
        let key = (method, status, decision);
        let mut counters = self.counters.borrow_mut();
        if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == key) {
            counter.inc();
            return;
        }
        let status = status.to_string();
        let counter = self.metrics.http_requests(&self.label, method, &status, decision.label());
        counter.inc();
        counters.push((key, counter));
    }
}

/// Observes a request's duration when its answer's last byte is gone, also when
/// the client hangs up.
pub struct Finish {
    meter: Rc<RouteMeter>,
    began: Instant,
}

impl Finish {
    /// A request that began then.
    pub const fn new(meter: Rc<RouteMeter>, began: Instant) -> Self {
        Self { meter, began }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.meter.observe(self.began);
    }
}
