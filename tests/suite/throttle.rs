//! Rules of throttled routes: what a rule refuses is never forwarded, and costs nobody
//! else anything (issue of the ingest service, whose codes are guessed).

use std::time::Duration;

use crate::support::client::{Answer, Client};
use crate::support::setup::{OTHER_HOST, Setup};
use crate::support::world::{ADMIN, TRACER, World};

const MINUTE: Duration = Duration::from_mins(1);

/// The ingest service's host, guessed at from addresses that a proxy tells of.
fn ingest(rules: &str) -> impl FnOnce(&mut Setup) {
    let routes = format!(
        "\n[[route]]\nname = \"ingest\"\nhost = \"{OTHER_HOST}\"\npath = \"/**\"\naccess = \"public\"\n\
         upstream = \"backend\"\nthrottle = [{rules}]\n"
    );
    move |setup| {
        setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]").more_routes(&routes);
    }
}

async fn guess(client: &Client, from: &str) -> Answer {
    let call = client.post("/access-code/valid").header("x-forwarded-for", from);
    call.bytes("{\"accessCode\":\"123456\"}").send().await
}

fn retry_after(answer: &Answer) -> u64 {
    answer.expect(429, "TooManyAttempts");
    answer.header("retry-after").expect("Retry-After").parse().expect("seconds")
}

#[tokio::test]
async fn guesses_stop_at_the_budget_and_an_honest_client_gets_through_until_all_is_spent() {
    let change = ingest("\"5 per 1m per address\", \"12 per 1h in all\"");
    let (world, time) = World::with_time(change).await;
    let client = world.client().for_host(OTHER_HOST);
    let mut refused = 0;
    for number in 0..500 {
        let answer = guess(&client, "192.0.2.66").await;
        if number < 5 {
            answer.expect_status(200);
        } else {
            assert_eq!(retry_after(&answer), 60);
            refused += 1;
        }
    }
    assert_eq!((world.upstream.seen().len(), refused), (5, 495));

    for number in 0..5 {
        let answer = guess(&client, "198.51.100.7").await;
        assert_eq!(answer.status, 200, "honest guess {number}");
    }
    retry_after(&guess(&client, "198.51.100.7").await);
    time.advance(MINUTE);
    // Two are left of the twelve; then nobody gets through before the hour is over.
    guess(&client, "192.0.2.66").await.expect_status(200);
    guess(&client, "198.51.100.8").await.expect_status(200);
    assert_eq!(world.upstream.seen().len(), 12);
    assert_eq!(retry_after(&guess(&client, "203.0.113.9").await), 59 * 60);
    time.advance(59 * MINUTE);
    guess(&client, "203.0.113.9").await.expect_status(200);
    assert_eq!(world.upstream.seen().len(), 13);

    let metrics = world.gateway.metrics().await;
    let told = |labels: &[(&str, &str)], name: &str| format!("{}", metrics.sum(name, labels));
    let name = "bindgate_throttled_total";
    assert_eq!(told(&[("rule", "ingest: 5 per 1m per address")], name), "496");
    assert_eq!(told(&[("rule", "ingest: 12 per 1h in all")], name), "1");
    let labels = [("route", "ingest"), ("status", "429"), ("decision", "deny")];
    assert_eq!(told(&labels, "bindgate_http_requests_total"), "497");
}

#[tokio::test]
async fn a_network_of_ipv6_is_one_address_and_other_routes_are_not_counted() {
    let world = World::with(ingest("\"2 per 1h per address\"")).await;
    let client = world.client().for_host(OTHER_HOST);
    guess(&client, "2001:db8:1:2::1").await.expect_status(200);
    guess(&client, "2001:db8:1:2:ffff::1").await.expect_status(200);
    retry_after(&guess(&client, "2001:db8:1:2:1:2:3:4").await);
    guess(&client, "2001:db8:1:3::1").await.expect_status(200);
    for _ in 0..5 {
        let other = world.client();
        let call = other.get("/public/echo").header("x-forwarded-for", "2001:db8:1:2::1");
        call.send().await.expect_status(200);
    }
}

#[tokio::test]
async fn the_budget_is_one_for_all_workers_and_connections() {
    let world = World::with(ingest("\"10 per 1h in all\"")).await;
    let client = world.client().for_host(OTHER_HOST);
    let guesses = (0..60).map(|number| {
        let client = if number % 2 == 0 { client.clone() } else { client.over_http2() };
        async move { guess(&client, &format!("192.0.2.{number}")).await.status }
    });
    let statuses = futures_util::future::join_all(guesses).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 50);
    assert_eq!(world.upstream.seen().len(), 10);
}

/// A route for people who signed in.
fn by_user(setup: &mut Setup) {
    let route = "\n[[route]]\npath = \"/search\"\naccess = \"authenticated\"\nupstream = \"backend\"\n\
                 throttle = [\"3 per 1h per user\"]\n";
    setup.more_routes(route).set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
}

#[tokio::test]
async fn a_user_is_counted_whatever_the_session_and_only_for_what_would_be_forwarded() {
    let world = World::with(by_user).await;
    let stranger = world.client();
    for _ in 0..10 {
        stranger.get("/search").send().await.expect(401, "Unauthenticated");
    }
    let (one, other) = (world.sign_in(ADMIN).await, world.sign_in(ADMIN).await);
    for _ in 0..5 {
        one.post("/search").bytes("x").send().await.expect(403, "CsrfRejected");
    }
    one.get("/search").send().await.expect_status(200);
    one.get("/search").send().await.expect_status(200);
    other.get("/search").send().await.expect_status(200);
    retry_after(&other.get("/search").send().await);
    retry_after(&one.post("/search").own_page().bytes("x").send().await);
    world.sign_in(TRACER).await.get("/search").send().await.expect_status(200);
    assert_eq!(world.upstream.seen_at("/search").len(), 4);
}

#[tokio::test]
async fn what_another_proxy_asks_about_counts_as_forwarded() {
    let world = World::with(by_user).await;
    let alice = world.sign_in(ADMIN).await;
    let ask = || {
        let call = alice.get("/auth/verify").header("x-forwarded-method", "GET");
        call.header("x-forwarded-host", "gateway.test").header("x-forwarded-uri", "/search")
    };
    for _ in 0..3 {
        ask().send().await.expect_status(204);
    }
    retry_after(&ask().send().await);
    retry_after(&alice.get("/search").send().await);
}

#[tokio::test]
async fn a_reload_gives_no_fresh_budget() {
    let mut world = World::with(ingest("\"1 per 1h per address\"")).await;
    let client = world.client().for_host(OTHER_HOST);
    guess(&client, "192.0.2.1").await.expect_status(200);
    world.gateway.setup.set("server.limits", "websockets", "7");
    world.gateway.setup.save();
    world.gateway.signal("HUP");
    world.gateway.counted("bindgate_config_reloads_total", &[("result", "ok")], 1.0).await;
    retry_after(&guess(&client, "192.0.2.1").await);
}
