//! A backend's own codes: wrong tries are seen in its answers, and spend one budget
//! whichever of its paths tells them.

use std::time::Duration;

use crate::support::client::{Answer, Client};
use crate::support::eventually_async;
use crate::support::setup::Setup;
use crate::support::world::World;

/// 10 wrong tries a day, one of them from one address.
const NUMBERS: &str = "digits = 4, alive_max = 100, success_probability = \"1 in 10 per day\"";
const BUDGET: u32 = 10;

fn guarded(setup: &mut Setup) {
    setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
    for (path, how) in [
        ("/valid", "failure_json = \"/valid = false\""),
        ("/consent", "failure_status = [403]"),
        ("/both", "failure_status = [403, 404], failure_json = \"/valid = false\""),
    ] {
        setup.more_routes(&format!(
            "\n[[route]]\npath = \"{path}\"\naccess = \"public\"\nupstream = \"backend\"\n\
             guess_guard = {{ name = \"codes\", {how}, {NUMBERS} }}\n"
        ));
    }
}

async fn guess(client: &Client, path: &str, from: u32) -> Answer {
    let address = std::net::Ipv4Addr::from(0xc633_6400 + from).to_string();
    let call = client.post(path).header("x-forwarded-for", address);
    call.header("accept-encoding", "gzip, br").bytes("{\"accessCode\":\"1234\"}").send().await
}

fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn chunked(head: &str, body: &str) -> String {
    let size = body.len();
    format!("HTTP/1.1 {head}\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n")
}

/// Waits until so much of the budget is left.
async fn left(world: &World, expected: u32) {
    let name = "bindgate_guess_guard_budget_left";
    eventually_async(&format!("{expected} left"), async || {
        let left = world.gateway.metrics().await.sum(name, &[("guard", "codes")]);
        ((left - f64::from(expected)).abs() < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn wrong_tries_of_all_paths_spend_one_budget_and_right_ones_cost_nothing() {
    let (world, time) = World::with_time(guarded).await;
    let client = world.client();
    world.upstream.answer("/valid", json("200 OK", "{\"valid\":true}"));
    world.upstream.answer("/consent", json("200 OK", "OK"));
    for _ in 0..3 {
        guess(&client, "/valid", 1).await.expect_status(200);
        guess(&client, "/consent", 1).await.expect_status(200);
        // Given back once its answer has passed.
        left(&world, BUDGET).await;
    }
    world.upstream.answer("/valid", json("200 OK", "{\"valid\":false}"));
    world.upstream.answer("/consent", json("403 Forbidden", "{}"));
    for number in 0..BUDGET {
        let path = if number % 2 == 0 { "/valid" } else { "/consent" };
        let answer = guess(&client, path, number).await;
        let passed = (answer.status, answer.text());
        let expected = if number % 2 == 0 { (200, "{\"valid\":false}") } else { (403, "{}") };
        assert_eq!(passed, expected, "unchanged");
    }
    left(&world, 0).await;
    world.upstream.forget();
    for path in ["/valid", "/consent", "/both"] {
        let answer = guess(&client, path, 200).await;
        answer.expect(429, "TooManyAttempts");
        assert_eq!(answer.header("retry-after"), Some("86400"));
    }
    assert!(world.upstream.seen().is_empty(), "before the upstream is asked");
    time.advance(Duration::from_hours(24));
    guess(&client, "/valid", 200).await.expect_status(200);
    let spent = guess(&client, "/valid", 200).await;
    spent.expect(429, "TooManyAttempts");
    guess(&client, "/valid", 201).await.expect_status(200);
}

#[tokio::test]
async fn what_cannot_be_read_counts_as_wrong_and_other_failures_do_not() {
    let world = World::with(guarded).await;
    let client = world.client();
    let long = format!("{{\"valid\":true,\"more\":\"{}\"}}", "x".repeat(20_000));
    let mut spent = 0;
    for (number, (answer, is_wrong)) in [
        (json("200 OK", "{\"valid\":true}"), false),
        (chunked("200 OK", "{\"valid\":true}"), false),
        (chunked("200 OK", "{\"valid\":false}"), true),
        (json("201 Created", "{\"valid\":false}"), true),
        (json("404 Not Found", "{\"valid\":true}"), true),
        (json("403 Forbidden", "{\"valid\":true}"), true),
        (json("400 Bad Request", "no"), false),
        (json("500 Internal Server Error", "no"), false),
        (json("200 OK", "no JSON"), true),
        (json("200 OK", &long), true),
        (json("206 Partial Content", "{\"valid\":true}"), true),
        (json("200 OK\r\nContent-Encoding: gzip", "{\"valid\":true}"), true),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), true),
    ]
    .into_iter()
    .enumerate()
    {
        world.upstream.answer("/both", answer);
        let from = u32::try_from(number).expect("few");
        guess(&client, "/both", from).await;
        assert_eq!(world.upstream.last().all("accept-encoding"), ["identity"]);
        spent += u32::from(is_wrong);
        left(&world, BUDGET - spent).await;
    }
}

#[tokio::test]
async fn whoever_hangs_up_before_the_answer_has_guessed_all_the_same() {
    let world = World::with(guarded).await;
    let chunks = world.upstream.steps("/valid", "application/json");
    let client = world.client();
    let open = client.post("/valid").bytes("{}").open().await;
    chunks.send(b"{\"valid\":".to_vec()).expect("it is sent");
    left(&world, BUDGET - 1).await;
    drop(open);
    drop(chunks);
    left(&world, BUDGET - 1).await;
    // No answer at all tells nothing of a code.
    world.upstream.answer("/valid", "no HTTP\r\n\r\n");
    guess(&client, "/valid", 1).await.expect(502, "UpstreamUnavailable");
    left(&world, BUDGET - 1).await;
}
