//! What routes and upstreams set differently: limits of a route, headers and cookies of
//! an upstream, and what is seen of its failures.

use std::time::Duration;

use crate::support::setup::Setup;
use crate::support::upstream::Seen;
use crate::support::world::{ADMIN, World};

fn limits(setup: &mut Setup) {
    setup.set("server.limits", "body_bytes", "\"1KiB\"").more_routes(
        r#"
[[route]]
path = "/small"
access = "public"
upstream = "backend"
body_bytes = "10B"

[[route]]
path = "/large"
access = "public"
upstream = "backend"
body_bytes = "1MiB"

[[route]]
path = "/quick/**"
access = "authenticated"
upstream = "backend"
response_timeout = "200ms"

[[route]]
path = "/patient/**"
access = "public"
upstream = "backend"
response_timeout = "30s"
"#,
    );
    setup.upstream("response_timeout", "\"1s\"");
}

#[tokio::test]
async fn a_route_takes_smaller_or_larger_bodies_than_others() {
    let world = World::with(limits).await;
    for client in [world.client(), world.client().over_http2()] {
        for (path, fits, too_large) in
            [("/small", 10, 11), ("/large", 100_000, 1_048_577), ("/public/echo", 1024, 1025)]
        {
            world.upstream.forget();
            client.post(path).bytes("x".repeat(fits)).send().await.expect_status(200);
            assert_eq!(world.upstream.last().body_bytes, fits as u64);
            world.upstream.forget();
            let answer = client.post(path).bytes("x".repeat(too_large)).send().await;
            answer.expect(413, "TooLarge");
            assert!(world.upstream.seen().is_empty(), "{path}: refused by its length alone");
        }
    }
}

#[tokio::test]
async fn a_route_waits_shorter_or_longer_than_others() {
    let world = World::with(limits).await;
    let alice = world.sign_in(ADMIN).await;
    let began = tokio::time::Instant::now();
    alice.get("/quick/stall").send().await.expect(504, "UpstreamTimeout");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    alice.get("/public/stall").send().await.expect(504, "UpstreamTimeout");
    let client = world.client();
    let patient = tokio::spawn(async move { client.get("/patient/hold").send().await });
    world.upstream.held(1).await;
    // Longer than the upstream's own patience.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    world.upstream.release();
    patient.await.expect("a task").expect_status(200);
}

const TRACE: &str = "Error: boom\n    at handler (/srv/app/index.js:12:3)";

fn failing(status: &str, more: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\n{more}X-Debug: /srv/app\r\nSet-Cookie: debug=1\r\n\
         Content-Length: {}\r\n\r\n{TRACE}",
        TRACE.len()
    )
}

#[tokio::test]
async fn no_stack_trace_of_a_hidden_upstream_passes() {
    let world = World::with(|setup| {
        setup.upstream("hide_errors", "true");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    let retry = "Retry-After: 120\r\n";
    for (number, (status, more)) in [
        ("500 Internal Server Error", ""),
        ("501 Not Implemented", ""),
        ("502 Bad Gateway", ""),
        ("503 Service Unavailable", retry),
        ("599 Own Invention", ""),
    ]
    .into_iter()
    .enumerate()
    {
        for prefix in ["/app", "/public"] {
            let path = format!("{prefix}/fail{number}");
            world.upstream.answer(&path, failing(status, more));
            for client in [&alice, &alice.over_http2()] {
                let answer = client.get(&path).navigation().send().await;
                answer.expect(status[..3].parse().expect("a number"), "UpstreamUnavailable");
                assert_eq!(answer.header("content-type"), Some("application/json"));
                assert_eq!(answer.header("retry-after"), (!more.is_empty()).then_some("120"));
                let all = format!("{:?} {}", answer.headers, answer.text());
                assert!(!all.contains("/srv/app") && !all.contains("debug"), "{all}");
            }
        }
    }
    let head = alice.call("HEAD", "/app/fail0").send().await;
    assert_eq!((head.status, head.body.len()), (500, 0));
    world.upstream.answer("/app/refused", failing("404 Not Found", ""));
    assert_eq!(alice.get("/app/refused").send().await.text(), TRACE, "only 5xx");
    let labels = [("route", "/app/**"), ("status", "500"), ("decision", "allow")];
    world.gateway.counted("bindgate_http_requests_total", &labels, 3.0).await;
}

#[tokio::test]
async fn an_endless_error_is_hidden_at_once() {
    let world = World::with(|setup| {
        setup.upstream("hide_errors", "true");
    })
    .await;
    let endless = "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntrace\r\n";
    world.upstream.answer("/public/endless", endless);
    world.client().get("/public/endless").send().await.expect(500, "UpstreamUnavailable");
    world.client().get("/public/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn errors_pass_as_they_are_unless_hidden() {
    let world = World::start().await;
    world.upstream.answer("/public/fail", failing("500 Internal Server Error", ""));
    let answer = world.client().get("/public/fail").send().await;
    assert_eq!((answer.status, answer.text()), (500, TRACE));
    assert_eq!(answer.header("x-debug"), Some("/srv/app"));
}

fn shaped(setup: &mut Setup) {
    setup
        .upstream("strip_headers", "[\"X-Secret-Switch\", \"Accept-Language\"]")
        .upstream("set_headers", "{ X-Requested-With = \"XMLHttpRequest\", X-Tenant = \"health\" }")
        .upstream("strip_cookies", "[\"auth_token\"]")
        .upstream("allow_headers", "[\"X-HTTP-Method-Override\"]");
}

fn is_shaped(seen: &Seen) {
    for gone in ["X-Secret-Switch", "Accept-Language", "X-Original-URL"] {
        assert!(seen.readable_as(gone).is_empty(), "{gone}: {seen:?}");
    }
    assert_eq!(seen.all("x-requested-with"), ["XMLHttpRequest"]);
    assert_eq!(seen.all("x-tenant"), ["health"]);
    assert_eq!(seen.all("x-http-method-override"), ["PUT"]);
    assert_eq!(seen.all("cookie"), ["auth_tokens=2; theme=dark"]);
}

#[tokio::test]
async fn headers_and_cookies_are_shaped_for_the_upstream_on_every_route() {
    let world = World::with(shaped).await;
    let alice = world.sign_in(ADMIN).await;
    for (name, value) in [("theme", "dark"), ("auth_token", "stolen"), ("auth_tokens", "2")] {
        alice.jar.set(name, value);
    }
    for client in [&alice, &alice.over_http2()] {
        for path in ["/app/echo", "/public/echo"] {
            let call = client
                .get(path)
                .header("x_secret-switch", "on")
                .header("x-secret-switch", "on")
                .header("accept-language", "de")
                .header("x-requested-with", "forged")
                .header("x-tenant", "other")
                .header("x-http-method-override", "PUT")
                .header("x-original-url", "/admin");
            call.send().await.expect_status(200);
            is_shaped(&world.upstream.last());
        }
    }
}
