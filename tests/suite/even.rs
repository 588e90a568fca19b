//! What the public must not tell apart is answered alike and on one schedule, against
//! a real directory. The distributions are measured in `benches/even.py`.

use std::time::Duration;

use std::net::SocketAddr;

use bindgate::config::LdapTransport;

use crate::support::client::{Answer, Client};
use crate::support::eventually_async;
use crate::support::relay::{Mood, Relay};
use crate::support::setup::Setup;
use crate::support::slapd::PASSWORD;
use crate::support::world::{World, directory_through, log_in, shared_slapd};
use serde_json::json;
use tokio::time::Instant;

const STEP: Duration = Duration::from_millis(400);

async fn timed(client: &Client, name: &str, password: &str) -> (Answer, Duration) {
    let before = Instant::now();
    let answer = log_in(client, name, password).await;
    (answer, before.elapsed())
}

#[tokio::test]
async fn refusals_are_alike_whichever_way_they_took() {
    let world = World::with(|setup| {
        setup.set("throttle", "refusal_after", "\"400ms\"");
    })
    .await;
    let client = world.client();
    // The first login connects; what it takes is not what is looked at.
    log_in(&client.stranger(), "carol", PASSWORD).await.expect_status(200);
    let (known, _) = timed(&client, "carol", "wrong").await;
    for (what, name, password) in [
        ("an unknown user", "nobody", PASSWORD),
        ("a wrong password", "alice", "wrong"),
        ("two entries", "twin", PASSWORD),
        ("a locked account", "locked", PASSWORD),
        ("an empty password", "alice", ""),
        ("an empty name", "", PASSWORD),
        ("a NUL in the password", "alice", "a\0b"),
        ("a name that is too long", &"x".repeat(3000), PASSWORD),
    ] {
        let (answer, took) = timed(&client, name, password).await;
        answer.expect(401, "InvalidCredentials");
        assert!(took >= STEP, "{what}: {took:?}");
        assert_eq!(answer.body, known.body, "{what}");
        let names = |answer: &Answer| answer.headers.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&answer), names(&known), "{what}");
    }
    for (what, name, old) in [
        ("a change for an unknown user", "nobody", PASSWORD),
        ("a change with a wrong password", "alice", "wrong"),
        ("a change for two entries", "twin", PASSWORD),
        ("a change for a locked account", "locked", PASSWORD),
        ("a change without a password", "alice", ""),
    ] {
        let change =
            json!({ "username": name, "old_password": old, "new_password": "a wholly new secret" });
        let before = Instant::now();
        let answer = client.post("/auth/password").own_page().json(&change).send().await;
        let took = before.elapsed();
        answer.expect(401, "InvalidCredentials");
        assert!(took >= STEP, "{what}: {took:?}");
        assert_eq!(answer.body, known.body, "{what}");
    }
    let (right, took) = timed(&client, "carol", PASSWORD).await;
    right.expect_status(200);
    assert!(took < STEP, "a login that succeeds does not wait: {took:?}");
    let outcomes =
        [("no_such_user", 1.0), ("ambiguous", 1.0), ("locked", 1.0), ("impossible", 4.0)];
    for (outcome, times) in outcomes {
        world.gateway.counted("bindgate_logins_total", &[("result", outcome)], times).await;
    }
}

#[tokio::test]
async fn a_name_that_nobody_has_is_throttled_like_one_that_somebody_has() {
    let world = World::with(|setup| {
        setup.set("throttle", "login_per_user", "\"3 per 15m\"");
    })
    .await;
    // Of alice's three failures each spelling has one more, though none reaches her any more.
    let mut answers = Vec::new();
    for spellings in [["alice", "\u{ff41}lice", "a\u{ff4c}ice"], ["nobody1", "nobody2", "nobody3"]]
    {
        let client = world.client();
        let mut told = Vec::new();
        for name in spellings {
            for _ in 0..4 {
                let answer = log_in(&client, name, "wrong").await;
                told.push((answer.status, answer.header("retry-after").is_some()));
            }
        }
        answers.push(told);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].iter().filter(|(status, _)| *status == 429).count(), 3);
}

fn one_place(setup: &mut Setup) {
    setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
    setup.set("throttle", "refusal_after", "\"20s\"");
    setup.set("throttle", "logins", "2");
}

#[tokio::test]
async fn refusals_that_wait_hold_a_bounded_number_of_places() {
    let world = World::with(one_place).await;
    let client = world.client();
    let post = |from: &str, password: &str| {
        let credentials = json!({ "username": "carol", "password": password });
        let call = client.post("/auth/login").own_page().header("x-forwarded-for", from);
        call.json(&credentials).build()
    };
    let mut connection = client.connect().await.expect("a connection");
    let held = post("192.0.2.1", "wrong");
    let held = tokio::spawn(async move { connection.send(held).await.map(drop) });
    world.gateway.counted("bindgate_logins_total", &[("result", "wrong_password")], 1.0).await;
    let mut connection = client.connect().await.expect("a connection");
    let same = connection.send(post("192.0.2.1", PASSWORD)).await.expect("an answer");
    same.expect(503, "Overloaded");
    let other = connection.send(post("192.0.2.2", PASSWORD)).await.expect("an answer");
    other.expect_status(200);
    world.gateway.counted("bindgate_limit_hits_total", &[("limit", "logins")], 1.0).await;
    // Who hangs up gives the place back.
    held.abort();
    eventually_async("the place is free", async || {
        let mut connection = client.connect().await.ok()?;
        let answer = connection.send(post("192.0.2.1", PASSWORD)).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_hangs_up_frees_no_place_while_the_directory_is_still_asked() {
    let slapd = shared_slapd();
    let server = SocketAddr::from(([127, 0, 0, 1], slapd.port(LdapTransport::Tls)));
    let relay = Relay::to(server).await;
    let directory = directory_through(&slapd, LdapTransport::Tls, relay.address);
    let directory = directory.replace("timeout = \"5s\"", "timeout = \"60s\"");
    let world = World::with(|setup| {
        one_place(setup);
        setup.directory(&directory);
    })
    .await;
    world.gateway.readiness(200).await;
    let client = world.client();
    let post = |path: &str| {
        let body = json!({ "username": "carol", "password": "wrong", "old_password": "wrong",
                           "new_password": "a wholly new secret" });
        let call = client.post(path).own_page().header("x-forwarded-for", "192.0.2.1");
        call.json(&body).build()
    };
    for path in ["/auth/login", "/auth/password"] {
        relay.becomes(Mood::Stall);
        let began = format!("{path} is under way");
        let mut connection = client.connect().await.expect("a connection");
        let held = post(path);
        let held = tokio::spawn(async move { connection.send(held).await.map(drop) });
        let full = async || {
            let mut connection = client.connect().await.ok()?;
            let asking = connection.send(post("/auth/login"));
            let answer = tokio::time::timeout(Duration::from_secs(2), asking).await.ok()?.ok()?;
            (answer.status == 503 && answer.code() == "Overloaded").then_some(())
        };
        eventually_async(&began, full).await;
        held.abort();
        eventually_async("the client is seen to have gone", async || {
            let open = world.gateway.metrics().await.sum("bindgate_connections_open", &[]);
            (open < 0.5).then_some(())
        })
        .await;
        assert!(full().await.is_some(), "{path}: its place is still held");
        relay.becomes(Mood::Well);
        eventually_async("the work ends, and the place is free", async || {
            full().await.is_none().then_some(())
        })
        .await;
    }
}
