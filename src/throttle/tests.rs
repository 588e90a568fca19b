//! Promises of the login throttle.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Attempt, Denied, LoginThrottle, Throttled};
use crate::ambient::{Clock, Entropy, ManualTime};
use crate::config::{self, Lockout, Rate};
use crate::metrics::Metrics;
use crate::store::{Store, WindowFamily};

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
        accounts_per_address: Rate { count: 1000, window: 5 * MINUTE },
        directory_lockout: None,
        lockout_margin: 2,
        device_reserve: 2,
        devices: 10,
        refusal_after: Duration::from_millis(500),
        logins: 100,
        entries,
    }
}

async fn fixture(entries: usize) -> Fixture {
    over(&config::Store::Memory, entries).await
}

async fn over(kind: &config::Store, entries: usize) -> Fixture {
    let (clock, time) = Clock::manual();
    let metrics = Metrics::new().unwrap();
    let store =
        Store::open(kind, Duration::ZERO, (&clock, &Entropy::system()), &metrics).await.unwrap();
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
    /// The same after a restart.
    async fn again(self, kind: &config::Store) -> Self {
        let Self { throttle, time, clock, metrics, store } = self;
        drop((throttle, store));
        let store = Store::open(kind, Duration::ZERO, (&clock, &Entropy::system()), &metrics)
            .await
            .unwrap();
        let store = Arc::new(store);
        let throttle = open(100, &store, &clock, &metrics).await;
        Self { throttle, time, clock, metrics, store }
    }

    /// Takes over limits of which some are others.
    fn limit(&self, change: impl FnOnce(&mut config::LoginThrottle)) {
        let mut limits = limits(100);
        change(&mut limits);
        self.throttle.reload(&limits);
    }

    async fn begin(&self, account: &str, from: &str) -> Result<Attempt, Denied> {
        self.throttle.begin(account, address(from), None).await
    }

    async fn fail(&self, account: &str, from: &str) {
        let begun = self.begin(account, from).await;
        drop(begun.map_err(|refused| format!("{account}: {refused}")).unwrap());
    }

    async fn succeed(&self, account: &str, from: &str) {
        self.begin(account, from).await.unwrap().succeeded().await;
    }

    async fn refused(&self, account: &str, from: &str) -> Throttled {
        match self.begin(account, from).await {
            Err(Denied::Throttled(throttled)) => throttled,
            other => panic!("{:?}", other.map(|_| "not refused")),
        }
    }
}

#[tokio::test]
async fn an_account_is_refused_after_its_failures_until_the_oldest_is_over() {
    let fixture = fixture(100).await;
    for number in 1..=3 {
        fixture.fail("alice", &format!("10.0.0.{number}")).await;
        fixture.time.advance(MINUTE);
    }
    let refused = fixture.refused("alice", "10.0.0.9").await;
    assert_eq!(refused, Throttled { retry_after: 12 * MINUTE, rule: "login_per_user" });
    fixture.fail("bob", "10.0.0.9").await;
    fixture.time.advance(Duration::from_millis(12 * 60 * 1000 - 1));
    assert_eq!(fixture.refused("alice", "10.0.0.9").await.retry_after, Duration::from_secs(1));
    fixture.time.advance(Duration::from_millis(1));
    fixture.fail("alice", "10.0.0.9").await;
    assert_eq!(fixture.refused("alice", "10.0.0.9").await.retry_after, MINUTE);
}

#[tokio::test]
async fn an_address_is_refused_whatever_names_it_tries() {
    let fixture = fixture(100).await;
    for number in 0..5 {
        fixture.fail(&format!("user{number}"), "192.0.2.1").await;
    }
    assert_eq!(fixture.refused("another", "192.0.2.1").await.rule, "login_per_address");
    assert_eq!(fixture.refused("another", "::ffff:192.0.2.1").await.rule, "login_per_address");
    fixture.fail("another", "192.0.2.2").await;
}

#[tokio::test]
async fn one_ipv6_network_counts_as_one_address() {
    let fixture = fixture(100).await;
    for number in 0..5 {
        fixture.fail(&format!("user{number}"), &format!("2001:db8:1:2:{number}::1")).await;
    }
    assert_eq!(fixture.refused("another", "2001:db8:1:2:ffff::").await.rule, "login_per_address");
    fixture.fail("another", "2001:db8:1:3::1").await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_counts_while_it_is_made_and_only_a_failure_stays() {
    let fixture = fixture(100).await;
    let mut attempts = Vec::new();
    for _ in 0..3 {
        attempts.push(fixture.begin("alice", "10.0.0.1").await.unwrap());
    }
    assert!(fixture.begin("alice", "10.0.0.1").await.is_err(), "counted before anybody is asked");
    let mut attempts = attempts.into_iter();
    attempts.next().unwrap().succeeded().await;
    attempts.next().unwrap().withdraw().await;
    drop(attempts);
    for _ in 0..10 {
        fixture.succeed("alice", "10.0.0.1").await;
    }
    fixture.fail("alice", "10.0.0.1").await;
    fixture.fail("alice", "10.0.0.1").await;
    assert!(fixture.begin("alice", "10.0.0.1").await.is_err(), "one dropped and two failed");
}

#[tokio::test]
async fn a_refused_attempt_counts_for_neither() {
    let fixture = fixture(100).await;
    for _ in 0..3 {
        fixture.fail("alice", "10.0.0.1").await;
    }
    for _ in 0..50 {
        fixture.refused("alice", "10.0.0.2").await;
    }
    fixture.fail("bob", "10.0.0.2").await;
    fixture.time.advance(15 * MINUTE);
    fixture.fail("alice", "10.0.0.2").await;
}

#[tokio::test]
async fn invented_names_neither_lock_out_others_nor_free_the_one_under_attack() {
    let fixture = fixture(200).await;
    for number in 0..3 {
        fixture.fail("victim", &format!("10.1.0.{number}")).await;
    }
    for number in 0_u32..20_000 {
        let from = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number);
        fixture.fail(&format!("invented{number}"), &from.to_string()).await;
    }
    let rows = |family| fixture.store.windows(family);
    assert_eq!((rows(WindowFamily::Account), rows(WindowFamily::Address)), (200, 200));
    assert_eq!(fixture.refused("victim", "10.2.0.1").await.rule, "login_per_user");
    fixture.succeed("somebody else", "10.2.0.1").await;
}

#[tokio::test]
async fn no_number_of_invented_names_frees_an_account_that_has_had_its_only_failure() {
    let fixture = fixture(200).await;
    let lockout = Some(Lockout { threshold: 3, window: 30 * MINUTE });
    fixture.throttle.follow(lockout);
    let entry = "uid=victim,dc=example,dc=org";
    let mut attempt = fixture.begin("victim", "10.1.0.1").await.unwrap();
    attempt.of_account(entry, lockout).await.unwrap();
    drop(attempt);
    fixture.time.advance(MINUTE);
    for number in 0_u32..20_000 {
        let from = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number);
        fixture.fail(&format!("invented{number}"), &from.to_string()).await;
    }
    let mut again = fixture.begin("VICTIM by another spelling", "10.1.0.2").await.unwrap();
    assert!(again.of_account(entry, lockout).await.is_err());
}

#[tokio::test]
async fn what_somebody_failed_on_is_not_forgotten_by_a_try_that_is_withdrawn() {
    let fixture = fixture(100).await;
    fixture.limit(|limits| limits.accounts_per_address = Rate { count: 2, window: 10 * MINUTE });
    for name in ["alice", "bob"] {
        fixture.fail(name, "192.0.2.1").await;
    }
    fixture.begin("alice", "192.0.2.1").await.unwrap().withdraw().await;
    fixture.succeed("bob", "192.0.2.1").await;
    assert_eq!(fixture.refused("carol", "192.0.2.1").await.rule, "accounts_per_address");
}

#[tokio::test]
async fn in_an_outage_a_name_is_refused_to_one_address_long_before_it_is_to_all() {
    let fixture = fixture(1000).await;
    let begin = async |from: &str| fixture.throttle.begin_outage("ops", address(from)).await;
    for _ in 0..3 {
        drop(begin("192.0.2.1").await.unwrap());
    }
    assert!(begin("192.0.2.1").await.is_err());
    begin("192.0.2.2").await.unwrap().succeeded().await;
    let mut failures = 3;
    while begin(&format!("10.0.{failures}.1")).await.is_ok() {
        failures += 1;
    }
    assert_eq!(failures, 100, "and no more from all addresses together");
    // Nothing of that counts for the name or an address when the directory is back; nor
    // does what counted before keep anybody out in an outage.
    assert_eq!(fixture.three("ops").await.len(), 3);
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        drop(fixture.throttle.begin_outage(name, address("192.0.2.3")).await.unwrap());
        fixture.fail(name, "192.0.2.3").await;
    }
    fixture.refused("frank", "192.0.2.3").await;
    assert!(fixture.throttle.begin_outage("frank", address("192.0.2.3")).await.is_ok());
    fixture.time.advance(15 * MINUTE);
    assert!(begin("192.0.2.1").await.is_ok());
}

#[tokio::test]
async fn counters_survive_a_restart_and_names_do_not_stand_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let kind = config::Store::Embedded { path: folder.path().join("state.redb") };
    let fixture = over(&kind, 100).await;
    for _ in 0..3 {
        fixture.fail("alice", "10.0.0.1").await;
    }
    fixture.succeed("bob", "10.0.0.1").await;
    fixture.throttle.flush().await;
    assert_eq!(fixture.store.windows_on_disk(), Some(3), "alice, and her address twice");

    let fixture = fixture.again(&kind).await;
    assert!(fixture.begin("alice", "10.0.0.7").await.is_err());
    fixture.fail("bob", "10.0.0.1").await;
    fixture.time.advance(15 * MINUTE);
    let fixture = fixture.again(&kind).await;
    fixture.succeed("alice", "10.0.0.7").await;
    fixture.throttle.flush().await;
    assert_eq!(fixture.store.windows_on_disk(), Some(0), "what is over is forgotten");
}

#[tokio::test]
async fn new_limits_apply_to_what_was_counted() {
    let fixture = fixture(100).await;
    fixture.fail("alice", "10.0.0.1").await;
    fixture.time.advance(MINUTE);
    fixture.fail("alice", "10.0.0.1").await;
    fixture.limit(|limits| limits.per_user.count = 1);
    assert_eq!(fixture.refused("alice", "10.0.0.1").await.retry_after, 15 * MINUTE);
}

mod devices;
mod unproved;
mod waiting;
