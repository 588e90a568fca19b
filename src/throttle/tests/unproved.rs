//! Promises of what is counted before a password was tried.

use super::{address, fixture};
use crate::secret::Secret;
use crate::throttle::Denied;

#[tokio::test]
async fn what_was_not_tried_counts_for_the_address_and_not_for_the_account() {
    let fixture = fixture(100).await;
    for _ in 0..5 {
        let mut attempt = fixture.begin("alice", "10.0.0.1").await.unwrap();
        attempt.costs().await.unwrap();
        attempt.untried().await;
    }
    assert_eq!(fixture.refused("bob", "10.0.0.1").await.rule, "login_per_address");
    for _ in 0..3 {
        fixture.fail("alice", "10.0.0.2").await;
    }
}

#[tokio::test]
async fn a_known_device_has_a_limit_of_its_own_for_what_is_not_tried() {
    let fixture = fixture(100).await;
    let logged_in = async |device: Option<&Secret<String>>| {
        let from = address("10.0.0.9");
        let mut attempt = fixture.throttle.begin("alice", from, device).await.unwrap();
        attempt.of_account("uid=alice", None).await.unwrap();
        attempt.succeeded().await.remember().await
    };
    let device = logged_in(None).await.unwrap();
    // Whoever shares its address has no part in it.
    for number in 0..5 {
        fixture.fail(&format!("user{number}"), "10.0.0.1").await;
    }
    let begin = || fixture.throttle.begin("alice", address("10.0.0.1"), Some(&device));
    for _ in 0..5 {
        let mut attempt = begin().await.unwrap();
        attempt.costs().await.unwrap();
        attempt.untried().await;
    }
    let mut attempt = begin().await.unwrap();
    assert!(matches!(attempt.costs().await, Err(Denied::Throttled(_))));
    attempt.withdraw().await;
    // It may still log in.
    assert!(logged_in(Some(&device)).await.is_none(), "under the value that it has");
}
