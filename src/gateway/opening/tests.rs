//! What the public must not tell apart comes as one answer, at one time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::turned_away;
use crate::ambient::{Clock, Entropy};
use crate::config;
use crate::directory::{DirectoryError, Rejection, VerifyError};
use crate::gateway::logins::level;
use crate::gateway::schedule::{Schedule, Timer};
use crate::metrics::Metrics;
use crate::policy::sample;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::throttle::{Denied, LoginThrottle, Throttled};

const STEP: Duration = Duration::from_millis(500);

async fn throttle() -> LoginThrottle {
    let ((clock, _), entropy) = (Clock::manual(), Entropy::system());
    let metrics = Metrics::new().unwrap();
    let store = Store::open(&config::Store::Memory, Duration::ZERO, (&clock, &entropy), &metrics);
    let mut config = sample::config(Vec::new()).throttle;
    config.per_address.count = 1000;
    let store = Arc::new(store.await.unwrap());
    LoginThrottle::open(&config, store, clock, &entropy, &metrics).await.unwrap()
}

/// Every way to a refusal that tells nothing, with how long it may take: a search
/// alone, a bind, a bind at a slow server.
fn ways() -> Vec<(VerifyError, Option<Denied>, u64)> {
    let rejected = |rejection, took| (VerifyError::Rejected(rejection), None, took);
    let throttled = Throttled { retry_after: Duration::from_mins(1), rule: "login_per_user" };
    vec![
        rejected(Rejection::NoSuchUser, 1),
        rejected(Rejection::OtherDomain, 0),
        rejected(Rejection::Ambiguous, 2),
        rejected(Rejection::WrongPassword, 20),
        rejected(Rejection::Locked, 7),
        rejected(Rejection::Disabled, 8),
        rejected(Rejection::SmartCardRequired, 490),
        rejected(Rejection::Unbindable, 30),
        (VerifyError::Withheld, Some(throttled.into()), 3),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_way_to_a_refusal_ends_in_one_answer_at_one_time() {
    let throttle = throttle().await;
    let address = IpAddr::from([192, 0, 2, 1]);
    for (number, (error, denied, took)) in ways().into_iter().enumerate() {
        let what = format!("{error:?}");
        let began = Instant::now();
        let attempt = throttle.begin(&format!("user{number}"), address, None).await.unwrap();
        sleep(Duration::from_millis(took)).await;
        let (refusal, _) = turned_away(&Metrics::new().unwrap(), error, attempt, denied).await;
        let result: Result<(), Refusal> =
            level((Schedule::every(STEP), &Timer::here()), began, Err(refusal)).await;
        assert_eq!(result, Err(Refusal::InvalidCredentials), "{what}");
        assert_eq!(began.elapsed(), STEP, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_try_does_not_see_which_way_it_took() {
    let throttle = throttle().await;
    let address = IpAddr::from([192, 0, 2, 1]);
    for (number, (error, denied, took)) in ways().into_iter().enumerate() {
        let (what, name) = (format!("{error:?}"), format!("user{number}"));
        for _ in 0..4 {
            drop(throttle.begin(&name, address, None).await.unwrap());
        }
        let began = Instant::now();
        let attempt = throttle.begin(&name, address, None).await.unwrap();
        sleep(Duration::from_millis(took)).await;
        let _ = turned_away(&Metrics::new().unwrap(), error, attempt, denied).await;
        assert!(throttle.begin(&name, address, None).await.is_err(), "{what}");
        assert_eq!(began.elapsed(), STEP, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_such_way_counts_as_a_failure_of_the_name() {
    let throttle = throttle().await;
    let address = IpAddr::from([192, 0, 2, 1]);
    for (number, (error, denied, _)) in ways().into_iter().enumerate() {
        let what = format!("{error:?}");
        let name = format!("user{number}");
        let attempt = throttle.begin(&name, address, None).await.unwrap();
        let _ = turned_away(&Metrics::new().unwrap(), error, attempt, denied).await;
        assert_eq!(left(&throttle, &name).await, 4, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_a_password_counts_that_was_told_and_not_proved() {
    let throttle = throttle().await;
    let address = IpAddr::from([192, 0, 2, 1]);
    for (name, error, expected) in [
        ("told", VerifyError::Unjudged(DirectoryError::Timeout), 4),
        ("not told, or right", VerifyError::Unavailable(DirectoryError::Timeout), 5),
    ] {
        let attempt = throttle.begin(name, address, None).await.unwrap();
        let (refusal, _) = turned_away(&Metrics::new().unwrap(), error, attempt, None).await;
        assert_eq!(refusal, Refusal::DirectoryUnavailable);
        assert_eq!(left(&throttle, name).await, expected, "{name}");
    }
}

/// How many more tries a name has.
async fn left(throttle: &LoginThrottle, name: &str) -> usize {
    let mut left = 0;
    while throttle.begin(name, IpAddr::from([192, 0, 2, 1]), None).await.is_ok() {
        left += 1;
    }
    left
}
