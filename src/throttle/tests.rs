//! Promises of the login throttle.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Attempt, LoginThrottle, Throttled};
use crate::ambient::{Clock, Entropy, ManualTime};
use crate::config::{self, Rate};
use crate::metrics::Metrics;
use crate::store::Store;

const MINUTE: Duration = Duration::from_mins(1);

struct Fixture {
    throttle: LoginThrottle,
    time: ManualTime,
    clock: Clock,
    metrics: Metrics,
    store: Arc<Store>,
}

fn limits(entries: usize) -> config::LoginThrottle {
    config::LoginThrottle {
        per_user: Rate { count: 3, window: 15 * MINUTE },
        per_address: Rate { count: 5, window: 5 * MINUTE },
        entries,
    }
}

async fn fixture(entries: usize) -> Fixture {
    let (clock, time) = Clock::manual();
    let metrics = Metrics::new().unwrap();
    let kind = config::Store::Memory;
    let store = Store::open(&kind, Duration::ZERO, clock.now(), &metrics).await.unwrap();
    let store = Arc::new(store);
    let throttle = open(entries, &store, &clock, &metrics).await;
    Fixture { throttle, time, clock, metrics, store }
}

async fn open(
    entries: usize,
    store: &Arc<Store>,
    clock: &Clock,
    metrics: &Metrics,
) -> LoginThrottle {
    let (store, clock) = (Arc::clone(store), clock.clone());
    LoginThrottle::open(&limits(entries), store, clock, &Entropy::system(), metrics).await.unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Fixture {
    fn begin(&self, account: &str, from: &str) -> Result<Attempt, Throttled> {
        self.throttle.begin(account, address(from))
    }

    fn fail(&self, account: &str, from: &str) {
        drop(self.begin(account, from).map_err(|refused| format!("{account}: {refused}")).unwrap());
    }

    fn refused(&self, account: &str, from: &str) -> Throttled {
        self.begin(account, from).err().unwrap()
    }
}

#[tokio::test]
async fn an_account_is_refused_after_its_failures_until_the_oldest_is_over() {
    let fixture = fixture(100).await;
    for number in 1..=3 {
        fixture.fail("alice", &format!("10.0.0.{number}"));
        fixture.time.advance(MINUTE);
    }
    let refused = fixture.refused("alice", "10.0.0.9");
    assert_eq!(refused, Throttled { retry_after: 12 * MINUTE, rule: "login_per_user" });
    fixture.fail("bob", "10.0.0.9");
    fixture.time.advance(Duration::from_millis(12 * 60 * 1000 - 1));
    assert_eq!(fixture.refused("alice", "10.0.0.9").retry_after, Duration::from_secs(1));
    fixture.time.advance(Duration::from_millis(1));
    fixture.fail("alice", "10.0.0.9");
    assert_eq!(fixture.refused("alice", "10.0.0.9").retry_after, MINUTE);
    assert_eq!(fixture.metrics.throttled("login_per_user").get(), 3);
}

#[tokio::test]
async fn an_address_is_refused_whatever_names_it_tries() {
    let fixture = fixture(100).await;
    for number in 0..5 {
        fixture.fail(&format!("user{number}"), "192.0.2.1");
    }
    assert_eq!(fixture.refused("another", "192.0.2.1").rule, "login_per_address");
    assert_eq!(fixture.refused("another", "::ffff:192.0.2.1").rule, "login_per_address");
    fixture.fail("another", "192.0.2.2");
}

#[tokio::test]
async fn one_ipv6_network_counts_as_one_address() {
    let fixture = fixture(100).await;
    for number in 0..5 {
        fixture.fail(&format!("user{number}"), &format!("2001:db8:1:2:{number}::1"));
    }
    assert_eq!(fixture.refused("another", "2001:db8:1:2:ffff::").rule, "login_per_address");
    fixture.fail("another", "2001:db8:1:3::1");
}

#[tokio::test]
async fn an_attempt_counts_while_it_is_made_and_only_a_failure_stays() {
    let fixture = fixture(100).await;
    let attempts: Vec<_> = (0..3).map(|_| fixture.begin("alice", "10.0.0.1").unwrap()).collect();
    assert!(fixture.begin("alice", "10.0.0.1").is_err(), "counted before anybody is asked");
    let mut attempts = attempts.into_iter();
    attempts.next().unwrap().succeeded();
    attempts.next().unwrap().withdraw();
    drop(attempts);
    for _ in 0..10 {
        fixture.begin("alice", "10.0.0.1").unwrap().succeeded();
    }
    fixture.fail("alice", "10.0.0.1");
    fixture.fail("alice", "10.0.0.1");
    assert!(fixture.begin("alice", "10.0.0.1").is_err(), "one dropped and two failed");
}

#[tokio::test]
async fn a_refused_attempt_counts_for_neither() {
    let fixture = fixture(100).await;
    for _ in 0..3 {
        fixture.fail("alice", "10.0.0.1");
    }
    for _ in 0..50 {
        fixture.refused("alice", "10.0.0.2");
    }
    fixture.fail("bob", "10.0.0.2");
    fixture.time.advance(15 * MINUTE);
    fixture.fail("alice", "10.0.0.2");
}

#[tokio::test]
async fn invented_names_neither_lock_out_others_nor_free_the_one_under_attack() {
    let fixture = fixture(200).await;
    for number in 0..3 {
        fixture.fail("victim", &format!("10.1.0.{number}"));
    }
    for number in 0_u32..20_000 {
        let from = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number);
        fixture.fail(&format!("invented{number}"), &from.to_string());
    }
    let tables = fixture.throttle.0.tables();
    assert_eq!((tables.accounts.len(), tables.addresses.len()), (200, 200));
    drop(tables);
    assert_eq!(fixture.refused("victim", "10.2.0.1").rule, "login_per_user");
    fixture.begin("somebody else", "10.2.0.1").unwrap().succeeded();
}

#[tokio::test]
async fn counters_survive_a_restart_and_names_do_not_stand_in_the_store() {
    let fixture = fixture(100).await;
    for _ in 0..3 {
        fixture.fail("alice", "10.0.0.1");
    }
    fixture.begin("bob", "10.0.0.1").unwrap().succeeded();
    fixture.throttle.flush().await;
    assert_eq!(fixture.store.failures().unwrap().len(), 2, "alice and her address");

    let again = open(100, &fixture.store, &fixture.clock, &fixture.metrics).await;
    assert!(again.begin("alice", address("10.0.0.7")).is_err());
    drop(again.begin("bob", address("10.0.0.1")).map_err(|_| "bob is locked out").unwrap());
    fixture.time.advance(15 * MINUTE);
    let again = open(100, &fixture.store, &fixture.clock, &fixture.metrics).await;
    again.begin("alice", address("10.0.0.7")).map_err(|_| "still").unwrap().succeeded();
    again.flush().await;
    assert_eq!(fixture.store.failures().unwrap(), [], "what is over is forgotten");
}

#[tokio::test]
async fn new_limits_apply_to_what_was_counted() {
    let fixture = fixture(100).await;
    fixture.fail("alice", "10.0.0.1");
    fixture.time.advance(MINUTE);
    fixture.fail("alice", "10.0.0.1");
    let mut limits = limits(100);
    limits.per_user.count = 1;
    fixture.throttle.reload(&limits);
    assert_eq!(fixture.refused("alice", "10.0.0.1").retry_after, 15 * MINUTE);
}
