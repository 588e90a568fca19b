//! Everything has a limit: each one of `[server.limits]` is hit here, does what the
//! contract says, and moves a metric.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::support::client::Connection;
use crate::support::raw::{Raw, exchange, frame};
use crate::support::setup::Setup;
use crate::support::websocket;
use crate::support::world::{ADMIN, World};
use crate::support::{eventually_async, within};

const SHORT: Duration = Duration::from_secs(10);
const OWN: &[(&str, &str)] = &[("origin", "https://gateway.test")];

fn limit(key: &'static str, value: &'static str) -> impl FnOnce(&mut Setup) {
    move |setup| {
        setup.set("server.limits", key, value);
    }
}

/// Whether the server ends this bare TCP connection within a short time.
async fn is_ended(stream: &mut TcpStream, within: Duration) -> bool {
    let mut bytes = [0_u8; 64];
    tokio::time::timeout(within, async {
        while matches!(stream.read(&mut bytes).await, Ok(count) if count > 0) {}
    })
    .await
    .is_ok()
}

#[tokio::test]
async fn a_handshake_that_is_not_made_is_given_up() {
    let world = World::with(limit("handshake_timeout", "\"1s\"")).await;
    let mut silent = TcpStream::connect(world.gateway.https).await.expect("connected");
    assert!(is_ended(&mut silent, SHORT).await);
    let timeout = [("result", "timeout")];
    world.gateway.counted("bindgate_tls_handshakes_total", &timeout, 1.0).await;
}

#[tokio::test]
async fn a_slow_head_is_closed_without_an_answer() {
    let world = World::with(limit("header_timeout", "\"1s\"")).await;
    let client = world.client();
    for bytes in [&b""[..], b"GET /public/echo HTTP/1.1\r\nHost: gate", b"PRI * HT"] {
        let mut raw = Raw::connect(&client).await;
        raw.write(bytes).await.expect("written");
        assert!(raw.closes_within(SHORT).await, "{bytes:?}");
    }
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn an_http2_connection_that_says_nothing_is_closed() {
    let world = World::with(|setup| {
        setup.set("server.limits", "header_timeout", "\"1s\"");
        setup.set("server.limits", "idle_timeout", "\"1s\"");
    })
    .await;
    let client = world.client().over_http2();
    for bytes in
        [Vec::new(), frame::PREFACE.to_vec(), [frame::PREFACE, &frame::settings()].concat()]
    {
        let mut raw = Raw::connect(&client).await;
        raw.write(&bytes).await.expect("written");
        within(SHORT, "the end", raw.rest()).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let world = World::with(limit("idle_timeout", "\"1s\"")).await;
    let mut raw = Raw::connect(&world.client()).await;
    raw.write(b"GET /public/echo HTTP/1.1\r\nHost: gateway.test\r\n\r\n").await.expect("written");
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    assert!(raw.closes_within(SHORT).await);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_timeout() {
    let world = World::with(limit("body_idle_timeout", "\"1s\"")).await;
    let mut raw = Raw::connect(&world.client()).await;
    let head =
        "POST /public/echo HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 100\r\n\r\nhalf";
    raw.write(head.as_bytes()).await.expect("written");
    let answer = within(SHORT, "an answer", raw.answer()).await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (408, "RequestTimeout"));
    let status = [("status", "408")];
    world.gateway.counted("bindgate_http_requests_total", &status, 1.0).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large_with_and_without_a_length() {
    let world = World::with(limit("body_bytes", "\"64KiB\"")).await;
    let client = world.client();
    let fits = client.post("/public/echo").bytes(vec![b'x'; 64 * 1024]);
    fits.send().await.expect_status(200);
    world.upstream.forget();
    for client in [client.clone(), client.over_http2()] {
        let declared = client.post("/public/echo").bytes(vec![b'x'; 64 * 1024 + 1]);
        declared.send().await.expect(413, "TooLarge");
    }
    assert!(world.upstream.seen().is_empty(), "a declared length is refused at once");
    let mut raw = Raw::connect(&client).await;
    let mut request = b"POST /public/echo HTTP/1.1\r\nHost: gateway.test\r\n\
        Transfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for _ in 0..3 {
        request.extend_from_slice(b"8000\r\n");
        request.extend_from_slice(&vec![b'x'; 0x8000]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    // The gateway may close before it has read everything.
    drop(raw.write(&request).await);
    let answer = raw.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (413, "TooLarge"));
    let status = [("status", "413")];
    world.gateway.counted("bindgate_http_requests_total", &status, 3.0).await;
    for seen in world.upstream.seen() {
        assert!(seen.body_sha256.is_empty(), "never a whole request: {seen:?}");
    }
}

#[tokio::test]
async fn heads_over_the_limit_are_too_large() {
    let world = World::with(|setup| {
        setup.set("server.limits", "header_bytes", "\"8KiB\"");
        setup.set("server.limits", "header_count", "20");
    })
    .await;
    let client = world.client();
    let start = "GET /public/echo HTTP/1.1\r\nHost: gateway.test\r\n";
    let big = format!("{start}X-Big: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("{start}{}\r\n", "X-Many: 1\r\n".repeat(30));
    for request in [big, many] {
        let answer = exchange(&client, request.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 431, "{}", answer.head);
    }
    let http2 = client.over_http2();
    let mut call = http2.get("/public/echo");
    for number in 0..30 {
        call = call.header(&format!("x-many-{number}"), "1");
    }
    call.send().await.expect_status(431);
    assert!(world.upstream.seen().is_empty());
    world.gateway.counted("bindgate_http_malformed_total", &[], 2.0).await;
    world.gateway.counted("bindgate_http_requests_total", &[("status", "431")], 1.0).await;
}

#[tokio::test]
async fn connections_of_one_address_are_counted_and_given_back() {
    let world = World::with(limit("connections_per_address", "4")).await;
    let client = world.client();
    let mut held: Vec<Connection> = Vec::new();
    for _ in 0..4 {
        let mut connection = client.connect().await.expect("a connection");
        let answer = connection.send(client.get("/public/echo").build()).await.expect("an answer");
        answer.expect_status(200);
        held.push(connection);
    }
    let fifth = client.get("/public/echo").try_send().await;
    assert!(fifth.is_err(), "it has no place: {fifth:?}");
    let limit = [("limit", "connections_per_address")];
    world.gateway.counted("bindgate_limit_hits_total", &limit, 1.0).await;
    held.pop();
    eventually_async("a place is free again", async || {
        client.get("/public/echo").try_send().await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn connections_of_all_are_counted() {
    let world = World::with(limit("connections", "4")).await;
    let client = world.client();
    let mut held: Vec<Connection> = Vec::new();
    for _ in 0..4 {
        let mut connection = client.connect().await.expect("a connection");
        let answer = connection.send(client.get("/public/echo").build()).await.expect("an answer");
        answer.expect_status(200);
        held.push(connection);
    }
    let fifth = client.get("/public/echo").try_send().await;
    assert!(fifth.is_err(), "it has no place: {fifth:?}");
    let limit = [("limit", "connections")];
    world.gateway.counted("bindgate_limit_hits_total", &limit, 1.0).await;
    drop(held);
    eventually_async("places are free again", async || {
        client.get("/public/echo").try_send().await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn websockets_over_the_limit_are_overload() {
    let world = World::with(limit("websockets", "2")).await;
    let alice = world.sign_in(ADMIN).await;
    let first = websocket::open(&alice, "/app/ws", OWN).await.expect("a WebSocket");
    let _second = websocket::open(&alice, "/app/ws", OWN).await.expect("a WebSocket");
    let (status, body) = websocket::open(&alice, "/app/ws", OWN).await.expect_err("a third");
    assert_eq!(status, 503);
    assert!(String::from_utf8_lossy(&body).contains("Overloaded"));
    world.gateway.counted("bindgate_limit_hits_total", &[("limit", "websockets")], 1.0).await;
    drop(first);
    eventually_async("a place is free again", async || {
        websocket::open(&alice, "/app/ws", OWN).await.ok()
    })
    .await;
}

#[tokio::test]
async fn streams_over_the_limit_wait_or_are_refused() {
    let world = World::with(|setup| {
        setup.set("server.limits", "http2_streams", "8");
        setup.set("server.limits", "idle_timeout", "\"1s\"");
    })
    .await;
    let client = world.client().over_http2();
    let mut raw = Raw::connect(&client).await;
    let mut bytes = [frame::PREFACE, &frame::settings()].concat();
    let block = frame::block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", "/public/hold"),
    ]);
    for number in 0..20 {
        let flags = frame::END_HEADERS | frame::END_STREAM;
        bytes.extend(frame::headers(flags, 1 + 2 * number, &block));
    }
    raw.write(&bytes).await.expect("written");
    world.upstream.held(8).await;
    client.get("/public/echo").send().await.expect_status(200);
    world.upstream.release();
    let frames = frame::parse(&within(SHORT, "the end", raw.rest()).await);
    let of_kind = |wanted: u8| frames.iter().filter(|(kind, ..)| *kind == wanted).count();
    assert_eq!((of_kind(1), of_kind(3)), (8, 12), "answered, and refused: {frames:?}");
    // The others were refused, not queued behind.
    assert_eq!(world.upstream.seen_at("/public/hold").len(), 8);
}

#[tokio::test]
async fn a_login_body_has_a_limit_of_its_own_below_the_general_one() {
    let world = World::start().await;
    let client = world.client();
    let call = client.post("/auth/login").own_page().form(&"x".repeat(4 << 20));
    let answer = call.send().await;
    assert_eq!(answer.status, 413, "{answer:?}");
}
