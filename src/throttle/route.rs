//! The throttle rules of routes: how many requests of one address, of one user or
//! of all together are let through in a time. Counted in this process only,
//! over all workers. Knows neither paths nor why a request is made.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::ambient::Clock;
use crate::config::{self, ThrottleRule, ThrottleScope};
use crate::identity::Subject;
use crate::metrics::{IntCounter, Metrics};
use crate::throttle::window::Windows;
use crate::throttle::{network, whole_seconds};

/// The counts of all routes that have rules. Those of a route outlive a reload
/// that leaves the route and its rules as they are.
#[derive(Default)]
pub struct RouteThrottles(Vec<Option<Budget>>);

/// More requests than a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests")]
pub struct Exceeded {
    /// Until a request would be let through again, in whole seconds.
    pub retry_after: Duration,
}

/// What one route may still take.
struct Budget {
    route: config::Route,
    entries: usize,
    clock: Clock,
    refused: Vec<IntCounter>,
    /// One a rule, all under one lock that is held for a few look-ups: a request
    /// counts for every rule or for none.
    counts: Arc<Mutex<Vec<Windows<Key>>>>,
}

/// Who a request counts for.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Everybody,
    Address(Ipv6Addr),
    User(Subject),
}

impl RouteThrottles {
    /// The rules of these routes, with the counts that `previous` has of them; each
    /// rule remembers `entries` addresses or users.
    #[must_use]
    pub fn new(
        (routes, entries): (&[config::Route], usize),
        clock: &Clock,
        metrics: &Metrics,
        previous: Option<&Self>,
    ) -> Self {
        let budget = |route: &config::Route| {
            if route.throttle.is_empty() {
                return None;
            }
            let known = previous.into_iter().flat_map(|previous| previous.0.iter().flatten());
            let known = known.into_iter().find(|budget| budget.is_for(route, entries));
            let counts = known.map(|budget| Arc::clone(&budget.counts));
            let fresh = || {
                let windows = route.throttle.iter().map(|rule| Windows::new(rule.rate, entries));
                Arc::new(Mutex::new(windows.collect()))
            };
            let refused = route.throttle.iter();
            Some(Budget {
                entries,
                clock: clock.clone(),
                refused: refused
                    .map(|rule| metrics.throttled(&format!("{}: {rule}", route.label)))
                    .collect(),
                counts: counts.unwrap_or_else(fresh),
                route: route.clone(),
            })
        };
        Self(routes.iter().map(budget).collect())
    }

    /// Counts a request on the route of this index. A route without rules takes no lock.
    ///
    /// # Errors
    /// When a rule allows no more; the request is then counted by none, so that what
    /// one address is refused leaves the common budget to the others.
    pub fn admit(
        &self,
        route: usize,
        address: IpAddr,
        user: Option<&Subject>,
    ) -> Result<(), Exceeded> {
        match self.0.get(route) {
            Some(Some(budget)) => budget.admit(address, user),
            _ => Ok(()),
        }
    }
}

impl Budget {
    fn is_for(&self, route: &config::Route, entries: usize) -> bool {
        let told = |route: &config::Route| {
            (route.host.clone(), route.path.clone(), route.methods.clone(), route.throttle.clone())
        };
        self.entries == entries && told(&self.route) == told(route)
    }

    fn admit(&self, address: IpAddr, user: Option<&Subject>) -> Result<(), Exceeded> {
        let now = self.clock.now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Option<Key>> =
            self.route.throttle.iter().map(|rule| key(*rule, address, user)).collect();
        let waits = counts.iter_mut().zip(&keys).zip(&self.refused);
        let waits = waits.filter_map(|((windows, key), refused)| {
            windows.wait(key.as_ref()?, now).map(|wait| (wait, refused))
        });
        // The longest wait is the true one.
        if let Some((wait, refused)) = waits.max_by_key(|(wait, _)| *wait) {
            refused.inc();
            return Err(Exceeded { retry_after: whole_seconds(wait) });
        }
        for (windows, key) in counts.iter_mut().zip(&keys) {
            if let Some(key) = key {
                windows.count(key, now);
            }
        }
        Ok(())
    }
}

/// `None` when the rule does not count this request: nobody is named.
fn key(rule: ThrottleRule, address: IpAddr, user: Option<&Subject>) -> Option<Key> {
    match rule.scope {
        ThrottleScope::All => Some(Key::Everybody),
        ThrottleScope::Address => Some(Key::Address(network(address))),
        ThrottleScope::User => user.cloned().map(Key::User),
    }
}

#[cfg(test)]
mod tests;
