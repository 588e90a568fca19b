//! Promises of the rules of routes.

use std::net::IpAddr;
use std::time::Duration;

use super::{Exceeded, RouteThrottles};
use crate::ambient::{Clock, ManualTime};
use crate::config::{Access, Rate, Route, ThrottleRule, ThrottleScope};
use crate::identity::Subject;
use crate::metrics::Metrics;

const MINUTE: Duration = Duration::from_mins(1);

struct Fixture {
    throttles: RouteThrottles,
    routes: [Route; 2],
    clock: Clock,
    time: ManualTime,
    metrics: Metrics,
}

fn rule(count: u32, window: Duration, scope: ThrottleScope) -> ThrottleRule {
    ThrottleRule { rate: Rate { count, window }, scope }
}

/// One route with these rules, and one without any.
fn fixture(rules: Vec<ThrottleRule>) -> Fixture {
    let free = Route {
        label: "free".to_owned(),
        host: None,
        path: "/free".to_owned(),
        methods: None,
        access: Access::Public,
        upstream: 0,
        passive: false,
        guess_guard: None,
        throttle: Vec::new(),
        body_bytes: None,
        response_timeout: None,
    };
    let (label, path) = ("codes".to_owned(), "/codes".to_owned());
    let routes = [Route { label, path, throttle: rules, ..free.clone() }, free];
    let (clock, time) = Clock::manual();
    let metrics = Metrics::new().unwrap();
    let throttles = RouteThrottles::new((&routes, 100), &clock, &metrics, None);
    Fixture { throttles, routes, clock, time, metrics }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn after(seconds: u64) -> Result<(), Exceeded> {
    Err(Exceeded { retry_after: Duration::from_secs(seconds) })
}

#[test]
fn guesses_of_one_address_leave_the_common_budget_to_others() {
    let Fixture { throttles, metrics, .. } = fixture(vec![
        rule(5, MINUTE, ThrottleScope::Address),
        rule(8, 60 * MINUTE, ThrottleScope::All),
    ]);
    let guesses = (0..500).filter(|_| throttles.admit(0, ip("192.0.2.1"), None).is_ok()).count();
    assert_eq!(guesses, 5);
    let honest = (0..4).filter(|_| throttles.admit(0, ip("192.0.2.2"), None).is_ok()).count();
    assert_eq!(honest, 3, "8 in all");
    assert_eq!(throttles.admit(0, ip("192.0.2.3"), None), after(3600));
    assert_eq!(metrics.throttled("codes: 5 per 1m per address").get(), 495);
    assert_eq!(metrics.throttled("codes: 8 per 1h in all").get(), 2);
    for _ in 0..100 {
        assert_eq!(throttles.admit(1, ip("192.0.2.1"), None), Ok(()), "no rules");
        assert_eq!(throttles.admit(7, ip("192.0.2.1"), None), Ok(()), "no such route");
    }
}

#[test]
fn who_waits_as_told_is_let_through() {
    let Fixture { throttles, time, .. } = fixture(vec![rule(2, MINUTE, ThrottleScope::Address)]);
    let address = ip("192.0.2.1");
    assert_eq!(throttles.admit(0, address, None), Ok(()));
    time.advance(Duration::from_millis(10_500));
    assert_eq!(throttles.admit(0, address, None), Ok(()));
    assert_eq!(throttles.admit(0, address, None), after(50));
    time.advance(Duration::from_secs(50));
    assert_eq!(throttles.admit(0, address, None), Ok(()));
    assert_eq!(throttles.admit(0, address, None), after(10));
}

#[test]
fn an_ipv6_network_counts_as_one_address() {
    let Fixture { throttles, .. } = fixture(vec![rule(1, MINUTE, ThrottleScope::Address)]);
    assert_eq!(throttles.admit(0, ip("2001:db8::1"), None), Ok(()));
    assert_eq!(throttles.admit(0, ip("2001:db8::2:0:0:1"), None), after(60));
    assert_eq!(throttles.admit(0, ip("2001:db8:0:1::1"), None), Ok(()));
    assert_eq!(throttles.admit(0, ip("192.0.2.1"), None), Ok(()));
    assert_eq!(throttles.admit(0, ip("::ffff:192.0.2.1"), None), after(60));
}

#[test]
fn a_user_counts_from_every_address_and_nobody_does_not_count() {
    let Fixture { throttles, .. } = fixture(vec![rule(1, MINUTE, ThrottleScope::User)]);
    let (alice, carol) = (Subject::new("alice"), Subject::new("carol"));
    assert_eq!(throttles.admit(0, ip("192.0.2.1"), Some(&alice)), Ok(()));
    assert_eq!(throttles.admit(0, ip("192.0.2.2"), Some(&alice)), after(60));
    assert_eq!(throttles.admit(0, ip("192.0.2.1"), Some(&carol)), Ok(()));
    for _ in 0..10 {
        assert_eq!(throttles.admit(0, ip("192.0.2.1"), None), Ok(()));
    }
}

#[test]
fn a_reload_forgets_only_what_it_changes() {
    let Fixture { throttles, mut routes, clock, metrics, .. } =
        fixture(vec![rule(1, MINUTE, ThrottleScope::Address)]);
    let address = ip("192.0.2.1");
    assert_eq!(throttles.admit(0, address, None), Ok(()));
    routes.swap(0, 1);
    let moved = RouteThrottles::new((&routes, 100), &clock, &metrics, Some(&throttles));
    assert_eq!(moved.admit(1, address, None), after(60));
    assert_eq!(moved.admit(0, address, None), Ok(()));
    routes[1].throttle = vec![rule(2, MINUTE, ThrottleScope::Address)];
    let changed = RouteThrottles::new((&routes, 100), &clock, &metrics, Some(&moved));
    assert_eq!(changed.admit(1, address, None), Ok(()));
}
