//! What no two parsers read alike never reaches the upstream in two readings: on its
//! raw socket there is one framing and one request (security rules 23 and 24).

use crate::support::client::Client;
use crate::support::raw::{Raw, frame};
use crate::support::upstream::Seen;
use crate::support::within;
use crate::support::world::World;
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(20);

/// Sends this and an honest request behind it, and returns the statuses until the end.
async fn statuses(client: &Client, request: &[u8]) -> Vec<u16> {
    let mut raw = Raw::connect(client).await;
    raw.write(request).await.expect("written");
    let mut statuses = Vec::new();
    let after =
        b"GET /public/echo?after HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n";
    // The first answer may already have closed the connection.
    drop(raw.write(after).await);
    while let Some(answer) = within(SHORT, "an answer or the end", raw.answer()).await {
        statuses.push(answer.status);
    }
    statuses
}

/// Every request arrived with one framing, and none that the test did not send.
fn one_framing_each(seen: &[Seen], what: &str) {
    for seen in seen {
        let framings = seen.all("content-length").len() + seen.all("transfer-encoding").len();
        assert!(framings <= 1, "{what}: {seen:?}");
        assert!(!seen.target.contains("smuggled"), "{what}: {seen:?}");
        let head = String::from_utf8_lossy(&seen.head).into_owned();
        for line in head.split("\r\n") {
            assert!(
                !line.contains('\n') && !line.contains('\r'),
                "{what}: a bare line end: {head:?}"
            );
            assert!(!line.starts_with([' ', '\t']), "{what}: a folded line: {head:?}");
        }
    }
}

#[tokio::test]
async fn ambiguous_framings_are_refused_and_the_connection_is_not_used_again() {
    let world = World::start().await;
    let client = world.client();
    let post = "POST /public/echo HTTP/1.1\r\nHost: gateway.test\r\n";
    let smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    let length = smuggled.len();
    for (what, request) in [
        ("two lengths", format!("{post}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde")),
        ("a list of lengths", format!("{post}Content-Length: 4, 5\r\n\r\nabcde")),
        ("a signed length", format!("{post}Content-Length: +4\r\n\r\nabcd")),
        ("a negative length", format!("{post}Content-Length: -1\r\n\r\n")),
        ("a hexadecimal length", format!("{post}Content-Length: 0x4\r\n\r\nabcd")),
        ("a huge length", format!("{post}Content-Length: 99999999999999999999\r\n\r\n")),
        ("an empty length", format!("{post}Content-Length: \r\n\r\n")),
        (
            "not quite chunked",
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("gzip, chunked", format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("capitals", format!("{post}TRANSFER-ENCODING: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")),
        ("chunked twice", format!("{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n")),
        ("identity", format!("{post}Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n")),
        (
            "two encodings",
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
            ),
        ),
        ("space before the colon", format!("{post}Content-Length : {length}\r\n\r\n{smuggled}")),
        ("obs-fold", format!("{post}X-A: 1\r\n b: 2\r\nContent-Length: 0\r\n\r\n")),
        ("a bare CR", format!("{post}X-A: 1\rX-B: 2\r\nContent-Length: 0\r\n\r\n")),
        ("a NUL", format!("{post}X-A: a\0b\r\nContent-Length: 0\r\n\r\n")),
        (
            "a bad chunk size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n"),
        ),
        (
            "chunked on HTTP/1.0",
            format!(
                "POST /public/echo HTTP/1.0\r\nHost: gateway.test\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "a method of two words",
            "GET POST /public/echo HTTP/1.1\r\nHost: gateway.test\r\n\r\n".into(),
        ),
        ("an unknown version", "GET /public/echo HTTP/3.0\r\nHost: gateway.test\r\n\r\n".into()),
    ] {
        let statuses = statuses(&client, request.as_bytes()).await;
        assert_eq!(statuses, [400], "{what}: refused, and the connection is over");
        let seen = world.upstream.seen();
        one_framing_each(&seen, what);
        assert!(
            seen.iter().all(|seen| !seen.target.contains("after")),
            "{what}: something behind it was forwarded"
        );
        world.upstream.forget();
    }
    // Three of them are whole as HTTP, and one is found out in its body.
    world.gateway.counted("bindgate_http_malformed_total", &[], 17.0).await;
}

#[tokio::test]
async fn what_is_normalised_arrives_in_one_framing() {
    let world = World::start().await;
    let client = world.client();
    let post = "POST /public/echo HTTP/1.1\r\nHost: gateway.test\r\n";
    for (what, request) in [
        (
            "chunked beside a length",
            format!(
                "{post}Content-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
        ),
        (
            "equal repeated lengths",
            format!("{post}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        ),
        ("bare LF", format!("{}Content-Length: 3\n\nabc", post.replace("\r\n", "\n"))),
        (
            "chunk extensions",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n"),
        ),
        ("no body", "GET /public/echo#fragment HTTP/1.1\r\nHost: gateway.test\r\n\r\n".to_owned()),
    ] {
        let statuses = statuses(&client, request.as_bytes()).await;
        let seen = world.upstream.seen();
        one_framing_each(&seen, what);
        // Nothing behind a doubtful length is read.
        let after = usize::from(what != "chunked beside a length");
        assert_eq!(statuses, vec![200; 1 + after], "{what}");
        let body = if what == "no body" { &b""[..] } else { b"abc" };
        assert_eq!(seen[0].body, body, "{what}");
        assert_eq!(seen[0].target, "/public/echo", "{what}");
        world.upstream.forget();
    }
}

#[tokio::test]
async fn an_upgrade_that_is_none_smuggles_nothing() {
    let world = World::start().await;
    let client = world.client();
    let request = b"GET /public/echo HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    let statuses = statuses(&client, request).await;
    assert_eq!(statuses, [200, 200], "none is 101");
    for seen in world.upstream.seen() {
        assert!(
            seen.all("upgrade").is_empty() && seen.all("http2-settings").is_empty(),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn over_http2_no_header_holds_a_line_end_and_lengths_must_be_true() {
    let world = World::start().await;
    let client = world.client().over_http2();
    let pseudo = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", "/public/echo"),
    ];
    for (what, extra) in [
        ("a line end in a value", ("x-a", "1\r\nx-auth-user: mallory")),
        ("a line end in a name", ("x-a: 1\r\nx-b", "2")),
        ("a capital in a name", ("X-A", "1")),
        ("a connection header", ("connection", "close")),
        ("a transfer encoding", ("transfer-encoding", "chunked")),
        ("a false length", ("content-length", "7")),
        ("a second path", (":path", "/public/smuggled")),
        ("an authority that is not the Host", ("host", "evil.example")),
    ] {
        let mut fields = pseudo.to_vec();
        fields.push(extra);
        let mut raw = Raw::connect(&client).await;
        let mut bytes = [frame::PREFACE, &frame::settings()].concat();
        bytes.extend(frame::headers(frame::END_HEADERS, 1, &frame::block(&fields)));
        bytes.extend(frame::frame(0, frame::END_STREAM, 1, b"abc"));
        bytes.extend(frame::frame(7, 0, 0, &[0; 8]));
        raw.write(&bytes).await.expect("written");
        let answer = within(SHORT, what, raw.rest()).await;
        let refused = frame::parse(&answer).iter().any(|(kind, _, _, payload)| {
            // RST_STREAM, GOAWAY with an error, or a head that is not 200.
            *kind == 3
                || (*kind == 7 && payload[4..8] != [0; 4])
                || (*kind == 1 && payload[0] != 0x88)
        });
        assert!(refused, "{what}: {:?}", frame::parse(&answer));
        for seen in world.upstream.seen() {
            one_framing_each(std::slice::from_ref(&seen), what);
            assert!(seen.readable_as("x-auth-user").is_empty(), "{what}");
            assert!(seen.body_sha256.is_empty(), "{what}: a whole request arrived");
        }
        world.upstream.forget();
    }
}

fn get_block() -> Vec<u8> {
    frame::block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", "/public/echo"),
    ])
}

/// What a hostile HTTP/2 client does, and that it is thrown out while others are served.
async fn thrown_out(what: &str, attack: Vec<u8>) {
    let world = World::start().await;
    let client = world.client().over_http2();
    let mut raw = Raw::connect(&client).await;
    raw.write(&[frame::PREFACE, &frame::settings()].concat()).await.expect("written");
    // The gateway may close in the middle of it.
    drop(raw.write(&attack).await);
    let answer = within(Duration::from_mins(1), what, raw.rest()).await;
    let goaway = frame::parse(&answer).iter().any(|(kind, ..)| *kind == 7);
    assert!(goaway || answer.len() < 1000, "{what}: closed, with or without a GOAWAY");
    client.get("/public/echo").send().await.expect_status(200);
    assert_eq!(world.gateway.telemetry("/healthz").await.status, 200, "{what}");
    let resident = world.gateway.memory_kib("VmHWM");
    assert!(resident < 200 * 1024, "{what}: {resident} KiB");
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let mut attack = Vec::new();
    for number in 0..5_000 {
        let stream = 1 + 2 * number;
        let flags = frame::END_HEADERS | frame::END_STREAM;
        attack.extend(frame::headers(flags, stream, &get_block()));
        attack.extend(frame::reset(stream));
    }
    thrown_out("rapid reset", attack).await;
}

#[tokio::test]
async fn endless_continuations_end_the_connection() {
    let mut attack = frame::headers(0, 1, &get_block());
    for number in 0..20_000 {
        let name = format!("x-{number}");
        attack.extend(frame::continuation(0, 1, &frame::block(&[(name.as_str(), "y")])));
    }
    thrown_out("continuation flood", attack).await;
}

#[tokio::test]
async fn an_endless_head_ends_the_connection() {
    let big = "x".repeat(8_000);
    let mut attack = frame::headers(0, 1, &get_block());
    for number in 0..500 {
        let name = format!("x-{number}");
        attack.extend(frame::continuation(0, 1, &frame::block(&[(name.as_str(), &big)])));
    }
    thrown_out("header flood", attack).await;
}
