//! Promises to those who come while others' tries are under way.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep, timeout};

use super::{Fixture, MINUTE, address, fixture};
use crate::config::{Lockout, Rate};
use crate::throttle::{Attempt, Denied, Throttled};

const SECOND: Duration = Duration::from_secs(1);
/// What a login takes at the directory.
const TOOK: Duration = Duration::from_millis(20);
const STEP: Duration = Duration::from_millis(500);
const FROM: &str = "192.0.2.1";

impl Fixture {
    fn lines(&self) -> usize {
        self.throttle.0.under_way.len()
    }

    pub(super) async fn three(&self, name: &str) -> Vec<Attempt> {
        let mut others = Vec::new();
        for number in 0..3 {
            others.push(self.begin(name, &format!("10.0.0.{number}")).await.unwrap());
        }
        others
    }

    /// Logs in with the right password, as somebody whose entry has this name.
    async fn log_in(&self, name: &str, from: &str, lockout: Option<Lockout>) -> Result<(), Denied> {
        let mut attempt = self.begin(name, from).await?;
        sleep(TOOK).await;
        let found = attempt.of_account("uid=alice,dc=example,dc=org", lockout).await;
        if let Err(denied) = found {
            attempt.withdraw().await;
            return Err(denied);
        }
        sleep(TOOK).await;
        attempt.succeeded().await;
        Ok(())
    }
}

fn throttled(result: Result<Attempt, Denied>) -> Throttled {
    match result {
        Err(Denied::Throttled(throttled)) => throttled,
        other => panic!("{:?}", other.map(|_| "not refused")),
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_a_window_full_of_tries_under_way_waits_for_one_to_end() {
    let fixture = fixture(100).await;
    for end in ["succeeded", "withdrawn"] {
        let mut others = fixture.three("alice").await;
        let mut waiter = pin!(fixture.begin("alice", FROM));
        assert!(timeout(SECOND, &mut waiter).await.is_err(), "it waits");
        let one = others.pop().unwrap();
        if end == "succeeded" {
            drop(one.succeeded().await);
        } else {
            one.withdraw().await;
        }
        let fourth = timeout(TOOK, waiter).await.expect(end).unwrap();
        assert!(fourth.delay() >= SECOND);
        // A failure frees no place, and leaves somebody to wait for.
        let mut waiter = pin!(fixture.begin("alice", FROM));
        drop(others.pop());
        assert!(timeout(SECOND, &mut waiter).await.is_err(), "{end}: two are under way");
        drop(others);
        assert!(timeout(SECOND, &mut waiter).await.is_err(), "{end}: one is under way");
        drop(fourth);
        let refused = throttled(timeout(TOOK, waiter).await.expect(end));
        assert_eq!(refused, Throttled { retry_after: 15 * MINUTE, rule: "login_per_user" });
        assert_eq!(fixture.lines(), 0);
        fixture.time.advance(15 * MINUTE);
    }
}

#[tokio::test(start_paused = true)]
async fn right_logins_at_once_all_succeed_whatever_the_limits() {
    let fixture = Arc::new(fixture(100).await);
    fixture.limit(|limits| limits.accounts_per_address = Rate { count: 2, window: 5 * MINUTE });
    let strict = Some(Lockout { threshold: 3, window: MINUTE });
    // One address and many names, and one entry of which a stranger has one try at a time.
    let logins = (0..60).map(|number| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(
            async move { fixture.log_in(&format!("alice{}", number % 20), FROM, strict).await },
        )
    });
    for login in join_all(logins).await {
        login.unwrap().unwrap();
    }
    assert_eq!(fixture.lines(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_wrong_passwords_at_once_no_more_are_tried_than_the_limit_allows() {
    let fixture = Arc::new(fixture(100).await);
    let (began, tried) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let guesses = (0..1000).map(|number| {
        let (fixture, tried) = (Arc::clone(&fixture), Arc::clone(&tried));
        tokio::spawn(async move {
            let from = format!("10.0.{}.{}", number / 250, number % 250);
            match fixture.begin("alice", &from).await {
                Ok(attempt) => {
                    tried.fetch_add(1, Ordering::Relaxed);
                    sleep(TOOK).await;
                    attempt.failed();
                    None
                }
                refused => Some(throttled(refused).retry_after),
            }
        })
    });
    let refused: Vec<_> = join_all(guesses).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!((tried.load(Ordering::Relaxed), refused.len()), (3, 997));
    assert!(refused.iter().all(|wait| *wait == 15 * MINUTE), "{refused:?}");
    assert_eq!(began.elapsed(), STEP, "as soon as those before them have their answers");
    assert_eq!(fixture.lines(), 0);
    let began = Instant::now();
    fixture.refused("alice", FROM).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "nothing is under way any more");
}

#[tokio::test(start_paused = true)]
async fn how_long_a_wrong_password_took_shows_to_nobody_who_waits() {
    let fixture = fixture(100).await;
    for took in [1, 20, 499] {
        let others = fixture.three("alice").await;
        let began = Instant::now();
        advance(Duration::from_millis(took)).await;
        others.into_iter().for_each(Attempt::failed);
        let refused = fixture.refused("alice", FROM).await;
        assert_eq!(refused.retry_after, 15 * MINUTE);
        assert_eq!(began.elapsed(), STEP, "{took}");
        fixture.time.advance(15 * MINUTE);
    }
    // Nor to another spelling of the name, whose own answer comes at a step.
    let strict = Some(Lockout { threshold: 3, window: MINUTE });
    let entry = "uid=alice,dc=example,dc=org";
    let mut one = fixture.begin("alice", FROM).await.unwrap();
    one.of_account(entry, strict).await.unwrap();
    let mut other = fixture.begin("alice ", FROM).await.unwrap();
    let mut found = pin!(other.of_account(entry, strict));
    assert!(timeout(TOOK, &mut found).await.is_err());
    one.failed();
    assert!(timeout(TOOK, found).await.expect("at once").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end_and_says_to_come_again_soon() {
    let fixture = fixture(100).await;
    let others = fixture.three("alice").await;
    let began = Instant::now();
    let those = join_all((0..5).map(|_| fixture.begin("alice", FROM))).await;
    assert_eq!(began.elapsed(), 5 * SECOND);
    for refused in those {
        let refused = throttled(refused);
        assert_eq!(refused, Throttled { retry_after: SECOND, rule: "login_per_user" });
    }
    for one in others {
        one.withdraw().await;
    }
    assert_eq!(fixture.lines(), 0);
    // In all of a login, not at each step of it.
    let others = fixture.three("alice").await;
    let mut waiter = pin!(fixture.begin("alice", FROM));
    assert!(timeout(4 * SECOND, &mut waiter).await.is_err());
    for one in others {
        one.withdraw().await;
    }
    let mut later = waiter.await.unwrap();
    let strict = Some(Lockout { threshold: 3, window: MINUTE });
    let mut holder = fixture.begin("bob", FROM).await.unwrap();
    holder.of_account("uid=alice", strict).await.unwrap();
    let began = Instant::now();
    assert!(later.of_account("uid=alice", strict).await.is_err());
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_away_leaves_nothing_behind_and_holds_nobody_up() {
    let fixture = Arc::new(fixture(100).await);
    let mut others = fixture.three("alice").await;
    let wait = || {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move { fixture.begin("alice", FROM).await.unwrap().succeeded().await })
    };
    let (first, second) = (wait(), wait());
    sleep(TOOK).await;
    first.abort();
    // The first has just been woken, and goes without having asked.
    others.pop().unwrap().succeeded().await;
    drop(timeout(TOOK, second).await.expect("the place is the second's").unwrap());
    let third = wait();
    yield_now().await;
    for one in others {
        one.withdraw().await;
    }
    third.abort();
    assert!(first.await.is_err());
    drop(third.await);
    assert_eq!(fixture.lines(), 0);
    assert_eq!(fixture.three("alice").await.len(), 3, "nothing stays counted");
}

#[tokio::test(start_paused = true)]
async fn a_known_device_does_not_wait_behind_strangers() {
    let fixture = fixture(100).await;
    let logged_in = fixture.begin("alice", FROM).await;
    let mut logged_in = logged_in.unwrap();
    logged_in.of_account("uid=alice", None).await.unwrap();
    let device = logged_in.succeeded().await.remember().await.unwrap();
    let known = || fixture.throttle.begin("alice", address(FROM), Some(&device));
    let others = fixture.three("alice").await;
    let mut stranger = pin!(fixture.begin("alice", FROM));
    assert!(timeout(SECOND, &mut stranger).await.is_err());
    // Two places are theirs alone; then they wait for one of five.
    let (first, second) = (known().await.unwrap(), known().await.unwrap());
    assert!(first.delay().is_zero() && second.delay().is_zero());
    let mut third = pin!(known());
    assert!(timeout(TOOK, &mut third).await.is_err());
    drop(second);
    first.succeeded().await;
    let third = timeout(TOOK, third).await.expect("a place is free for it").unwrap();
    assert!(timeout(TOOK, stranger).await.is_err(), "and none for a stranger");
    drop((third, others));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_among_threads() {
    let fixture = Arc::new(fixture(1000).await);
    fixture.limit(|limits| limits.per_user.count = 1);
    for _ in 0..30_000 {
        // Of two, one waits if they meet, and if it missed the other's end nobody else's
        // would wake it.
        let log_in = || {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.succeed("alice", FROM).await })
        };
        let (one, other) = (log_in(), log_in());
        one.await.unwrap();
        other.await.unwrap();
    }
    assert_eq!(fixture.lines(), 0);
}
