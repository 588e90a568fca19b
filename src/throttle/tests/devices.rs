//! Promises of the shares of strangers and of known devices.

use std::time::Duration;

use super::{Fixture, MINUTE, address, fixture};
use crate::config::{Lockout, Rate};
use crate::secret::Secret;
use crate::store::Family;
use crate::throttle::{Attempt, DEVICE_LIFETIME, Denied, Throttled};

type Cookie = Secret<String>;

/// The name that the directory has for a typed one.
fn entry(name: &str) -> String {
    format!("uid={},dc=example,dc=org", name.trim_start_matches("also-"))
}

impl Fixture {
    /// A try that came as far as the entry.
    async fn found(
        &self,
        name: &str,
        from: &str,
        device: Option<&Cookie>,
    ) -> Result<Attempt, Denied> {
        let mut attempt = self.throttle.begin(name, address(from), device).await?;
        attempt.of_account(&entry(name), None).await.map(|()| attempt)
    }

    async fn logged_in(&self, name: &str, device: Option<&Cookie>) -> Option<Cookie> {
        let attempt = self.found(name, "192.0.2.250", device).await.unwrap();
        attempt.succeeded().await.remember().await
    }

    /// When the value it has will be replaced by the next login.
    fn a_day_later(&self) {
        self.time.advance(crate::throttle::device::VALUE_KEPT);
    }

    /// How many failures it takes until there is no more, each from another address.
    async fn failures(&self, name: &str, device: Option<&Cookie>) -> usize {
        let mut count = 0;
        while self.found(name, &format!("10.9.0.{count}"), device).await.is_ok() {
            count += 1;
            assert!(count < 50, "there is no end");
        }
        count
    }
}

#[tokio::test]
async fn strangers_cannot_take_what_is_kept_for_a_known_device() {
    let fixture = fixture(100).await;
    let device = fixture.logged_in("alice", None).await.unwrap();
    assert_eq!(fixture.failures("alice", None).await, 3);
    let guessed = Secret::new("x".repeat(43));
    assert_eq!(fixture.failures("alice", Some(&guessed)).await, 0);
    drop(fixture.found("alice", "10.0.0.1", Some(&device)).await.unwrap());
    assert!(fixture.logged_in("alice", Some(&device)).await.is_none(), "it keeps its value");
    assert_eq!(fixture.failures("alice", Some(&device)).await, 1, "two in all were kept");
}

#[tokio::test]
async fn a_device_is_known_for_the_accounts_that_logged_in_on_it() {
    let fixture = fixture(100).await;
    let device = fixture.logged_in("alice", None).await.unwrap();
    assert_eq!(fixture.failures("bob", Some(&device)).await, 3);
    assert_eq!(fixture.failures("bob", None).await, 0);
    // Another name of the account is not known yet, but the account is.
    assert_eq!(fixture.failures("also-alice", Some(&device)).await, 3);
    assert_eq!(fixture.failures("alice", Some(&device)).await, 2, "of the account's five");

    fixture.time.advance(15 * MINUTE);
    let second = fixture.logged_in("bob", Some(&device)).await.unwrap();
    assert_eq!(fixture.failures("bob", Some(&second)).await, 5);
    assert_eq!(fixture.failures("alice", Some(&second)).await, 5, "both use the device");
    assert_eq!(fixture.failures("carol", Some(&second)).await, 3);
    fixture.time.advance(15 * MINUTE);
    assert_eq!(fixture.failures("alice", Some(&device)).await, 3, "the old value is nobody's");
}

#[tokio::test]
async fn a_device_keeps_its_value_for_a_day() {
    let fixture = fixture(100).await;
    let first = fixture.logged_in("alice", None).await.unwrap();
    fixture.time.advance(MINUTE);
    assert!(fixture.logged_in("alice", Some(&first)).await.is_none());
    let of_both = fixture.logged_in("bob", Some(&first)).await.unwrap();
    // A value that was replaced lives on for a moment, in which it is replaced again.
    let again = fixture.logged_in("alice", Some(&first)).await.unwrap();
    for name in ["alice", "bob"] {
        assert!(fixture.logged_in(name, Some(&of_both)).await.is_none());
    }
    assert_ne!(again.expose(), of_both.expose());
    fixture.a_day_later();
    let next = fixture.logged_in("bob", Some(&of_both)).await.unwrap();
    fixture.time.advance(15 * MINUTE);
    for name in ["alice", "bob"] {
        assert_eq!(fixture.failures(name, Some(&next)).await, 5, "{name} is known by it");
    }
    fixture.time.advance(DEVICE_LIFETIME.saturating_sub(16 * MINUTE));
    assert_eq!(fixture.failures("bob", Some(&next)).await, 5, "for its whole time");
    let found = fixture.throttle.0.device(Some(&of_both)).await.unwrap();
    assert!(found.entry.is_none(), "the one before is nobody's");
}

#[tokio::test]
async fn a_device_is_forgotten_after_its_time_and_beyond_the_limit() {
    let fixture = fixture(100).await;
    let device = fixture.logged_in("alice", None).await.unwrap();
    fixture.time.advance(DEVICE_LIFETIME.saturating_sub(Duration::from_secs(1)));
    assert_eq!(fixture.failures("alice", Some(&device)).await, 5);
    fixture.time.advance(15 * MINUTE);
    assert_eq!(fixture.failures("alice", Some(&device)).await, 3);
    for number in 0..10 {
        assert!(fixture.logged_in(&format!("user{number}"), None).await.is_some());
    }
    assert!(fixture.logged_in("one too many", None).await.is_none(), "and logs in all the same");
    assert_eq!(fixture.metrics.limit_hits("devices").get(), 1);
    let device = fixture.logged_in("user0", None).await;
    assert!(device.is_none(), "full is full");
}

#[tokio::test]
async fn an_account_has_so_many_devices_and_takes_the_room_of_no_other() {
    let fixture = fixture(100).await;
    fixture.limit(|limits| limits.devices = 20);
    let shared = fixture.logged_in("mallory", None).await.unwrap();
    let shared = fixture.logged_in("bob", Some(&shared)).await.unwrap();
    let mut devices = Vec::new();
    for _ in 0..100 {
        devices.push(fixture.logged_in("mallory", None).await.unwrap());
    }
    let alice = fixture.logged_in("alice", None).await.unwrap();
    fixture.time.advance(2 * MINUTE);
    assert_eq!(fixture.failures("alice", Some(&alice)).await, 5);
    assert_eq!(fixture.failures("bob", Some(&shared)).await, 5, "it stays the other account's");
    assert_eq!(fixture.failures("mallory", Some(&shared)).await, 3, "and no longer mallory's");
    assert_eq!(fixture.failures("mallory", Some(&devices[83])).await, 0, "pushed out");
    assert_eq!(fixture.failures("mallory", Some(&devices[84])).await, 2, "the oldest of sixteen");
    let kept = fixture.store.count(Family::Device, fixture.clock.now()).await;
    assert_eq!(kept, Ok(18), "sixteen, alice's and bob's");
}

#[tokio::test]
async fn who_logs_in_often_is_not_pushed_out_by_what_keeps_no_cookies() {
    let fixture = fixture(100).await;
    fixture.limit(|limits| limits.devices = 20);
    let mut device = fixture.logged_in("alice", None).await.unwrap();
    let mut values = 1;
    for _ in 0..6 {
        for _ in 0..6 {
            fixture.logged_in("alice", None).await.unwrap();
        }
        if let Some(value) = fixture.logged_in("alice", Some(&device)).await {
            device = value;
            values += 1;
        }
    }
    assert_eq!(values, 4, "a new one after twelve others each time");
    assert_eq!(fixture.failures("alice", Some(&device)).await, 5);
}

#[tokio::test]
async fn logins_at_once_on_one_device_are_all_known_and_leave_one_list() {
    let fixture = fixture(100).await;
    let device = fixture.logged_in("alice", None).await.unwrap();
    fixture.a_day_later();
    let tabs = (0..3).map(|_| fixture.logged_in("alice", Some(&device)));
    for value in futures_util::future::join_all(tabs).await {
        let value = value.unwrap();
        assert_eq!(fixture.failures("alice", Some(&value)).await, 5);
        fixture.time.advance(15 * MINUTE);
    }
}

#[tokio::test]
async fn what_the_directory_says_of_its_lockout_holds_at_once() {
    let fixture = fixture(100).await;
    let device = fixture.logged_in("alice", None).await.unwrap();
    let lockout = |threshold| Some(Lockout { threshold, window: 30 * MINUTE });
    fixture.throttle.follow(lockout(4));
    assert_eq!(fixture.failures("alice", None).await, 1);
    assert_eq!(fixture.failures("alice", Some(&device)).await, 1, "two in all, of four");
    let refused = fixture.refused("alice", "10.0.0.1").await;
    assert_eq!(refused, Throttled { retry_after: 30 * MINUTE, rule: "lockout_guard" });
    assert_eq!(fixture.metrics.lockout_threshold().get(), 4);
    assert_eq!(fixture.metrics.login_limit("strangers").get(), 1);
    assert_eq!(fixture.metrics.login_limit("known_devices").get(), 2);
    assert_eq!(fixture.metrics.login_limit_window().get(), 1800);
    fixture.throttle.follow(lockout(0));
    assert_eq!(fixture.failures("alice", None).await, 1, "three of the two counted");
}

#[tokio::test]
async fn an_accounts_own_lockout_counts_for_it_under_every_name() {
    let fixture = fixture(100).await;
    let strict = Some(Lockout { threshold: 3, window: MINUTE });
    for (name, expected) in [("alice", 1), ("also-alice", 0)] {
        let mut count = 0;
        for number in 0..3 {
            let from = address(&format!("10.9.0.{number}"));
            let mut attempt = fixture.throttle.begin(name, from, None).await.unwrap();
            count += usize::from(attempt.of_account(&entry(name), strict).await.is_ok());
        }
        assert_eq!(count, expected, "{name}");
    }
}

#[tokio::test]
async fn an_address_that_failed_on_many_accounts_waits_but_not_its_known_devices() {
    let fixture = fixture(100).await;
    let device = fixture.logged_in("alice", None).await.unwrap();
    fixture.limit(|limits| limits.accounts_per_address = Rate { count: 2, window: 10 * MINUTE });
    let from = "192.0.2.1";
    for name in ["carol", "bob", "carol", "bob"] {
        fixture.fail(name, from).await;
        fixture.time.advance(MINUTE);
    }
    let refused = fixture.refused("dave", from).await;
    assert_eq!(refused, Throttled { retry_after: 8 * MINUTE, rule: "accounts_per_address" });
    fixture.fail("carol", from).await;
    assert!(fixture.found("alice", from, Some(&device)).await.is_ok());
    // A login that succeeds was no failure on that account.
    fixture.time.advance(20 * MINUTE);
    for name in ["carol", "bob", "dave", "erin"] {
        fixture.succeed(name, from).await;
    }
}

#[tokio::test]
async fn who_logs_in_as_another_than_was_found_leaves_the_count_there_and_no_device() {
    let fixture = fixture(100).await;
    for _ in 0..3 {
        let mut attempt = fixture.found("alice", "10.0.0.1", None).await.unwrap();
        attempt.leave_account();
        assert!(attempt.succeeded().await.remember().await.is_none());
    }
    let name = fixture.throttle.begin("alice", address("10.0.0.2"), None).await;
    name.unwrap().withdraw().await;
    assert_eq!(fixture.failures("alice", None).await, 0, "the entry has had its share");
}

#[tokio::test]
async fn a_password_that_the_directory_may_have_counted_stays_counted() {
    let fixture = fixture(100).await;
    for number in 0..3 {
        let attempt = fixture.found("alice", "10.0.0.1", None).await.unwrap();
        if number == 0 { attempt.unanswered().await } else { drop(attempt) }
    }
    assert_eq!(fixture.failures("alice", None).await, 0);
    for _ in 0..3 {
        fixture.fail("bob", "10.0.0.1").await;
    }
    assert_eq!(fixture.refused("carol", "10.0.0.1").await.rule, "login_per_address");
    fixture.time.advance(15 * MINUTE);
    fixture.throttle.follow(Some(Lockout { threshold: 0, window: MINUTE }));
    for _ in 0..10 {
        fixture.found("alice", "10.0.0.2", None).await.unwrap().unanswered().await;
    }
}
