//! No spelling of a path gets around a narrower route, judged by an upstream that is
//! as forgiving as any: it decodes, folds case, drops slashes and resolves dots.

use proptest::prelude::Strategy;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::support::raw::exchange;
use crate::support::world::{ADMIN, TRACER, World};

/// A wide route for everybody beside narrow ones for few.
const ROUTES: &str = r#"
[[route]]
path = "/**"
access = "authenticated"
upstream = "backend"

[[route]]
path = "/organization/configuration"
roles = ["super_admin"]
upstream = "backend"

[[route]]
path = "/admin/**"
roles = ["admin", "super_admin"]
upstream = "backend"

[[route]]
path = "/methods"
methods = ["GET"]
roles = ["super_admin"]
upstream = "backend"
"#;

const NARROW: &[&str] = &["/organization/configuration", "/admin/users", "/methods"];

/// The path as the most forgiving framework would route it.
fn forgiving(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let mut decoded = path.to_owned();
    for _ in 0..3 {
        let bytes = percent_encoding::percent_decode_str(&decoded).collect::<Vec<u8>>();
        decoded = String::from_utf8_lossy(&bytes).into_owned();
    }
    let folded = decoded.replace('\\', "/").replace('\0', "").to_lowercase();
    let mut segments: Vec<&str> = Vec::new();
    for segment in folded.split('/') {
        let segment = segment.split(';').next().unwrap_or_default();
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn is_narrow(target: &str) -> bool {
    let path = forgiving(target);
    NARROW.contains(&path.as_str()) || path == "/admin" || path.starts_with("/admin/")
}

/// One way to write a narrow path otherwise.
fn misspelled() -> impl Strategy<Value = String> {
    let edits = select(vec![
        "/",
        "//",
        "/.",
        "/./",
        "/../",
        "/x/..",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        ";x",
        ";",
        "%3b",
        "%00",
        "%2e",
        "%2e%2e",
        "%252f",
        "%25%32%66",
        "%c0%af",
        "%",
        "%2",
        "%zz",
        "%20",
        "%09",
        "?",
        "%3f",
        "#",
        "%23",
        "..;",
        ".json",
        "%41",
        "\u{212a}",
    ]);
    let edit = (0..40_usize, edits);
    let case = proptest::collection::vec(0..40_usize, 0..3);
    let encoded = proptest::collection::vec(0..40_usize, 0..2);
    let edits = proptest::collection::vec(edit, 0..3);
    (select(NARROW.to_vec()), case, encoded, edits).prop_map(|(path, case, encoded, edits)| {
        let mut pieces: Vec<String> = path.chars().map(String::from).collect();
        let count = pieces.len();
        for at in case {
            pieces[at % count] = pieces[at % count].to_uppercase();
        }
        for at in encoded {
            let piece = &mut pieces[at % count];
            let bytes = std::mem::take(piece);
            piece.extend(bytes.bytes().map(|byte| format!("%{byte:02X}")));
        }
        for (at, edit) in edits {
            pieces[at % count].push_str(edit);
        }
        pieces.concat()
    })
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_a_narrower_route() {
    let world = World::with(|setup| {
        setup.routes(ROUTES);
    })
    .await;
    let carol = world.sign_in(TRACER).await;
    let cookies = carol.jar.header().expect("cookies");
    let mut runner = TestRunner::deterministic();
    let http2 = carol.over_http2();
    let mut passed = 0;
    for round in 0..600 {
        let target = misspelled().new_tree(&mut runner).expect("a case").current();
        if !target.starts_with('/') {
            continue;
        }
        let method = if round % 3 == 0 { "POST" } else { "GET" };
        let as_uri = format!("https://{}{target}", carol.host).parse::<http::Uri>();
        if round % 2 == 0 && as_uri.is_ok() {
            drop(http2.call(method, &target).own_page().try_send().await);
        } else {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: {}\r\nCookie: {cookies}\r\n\
                 Origin: https://{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                carol.host, carol.host
            );
            drop(exchange(&carol, request.as_bytes()).await);
        }
        for seen in world.upstream.seen() {
            let sent = target.split('#').next().unwrap_or_default();
            assert!(!is_narrow(&seen.target), "{method} {target:?} arrived as {:?}", seen.target);
            assert_eq!(seen.target, sent, "what is judged is what is forwarded");
            passed += 1;
        }
        world.upstream.forget();
    }
    assert!(passed > 5, "some spellings name other things and pass: {passed}");
}

/// Targets that are refused before any route is asked.
const AMBIGUOUS: &[&str] = &[
    "/app/%",
    "/app/%2",
    "/app/%zz",
    "/app/%61",
    "/app/%41",
    "/app/%2D",
    "/app/%7e",
    "/app/%2f",
    "/app/%2Fx",
    "/app/%5c",
    "/app/%23",
    "/app/%3f",
    "/app/%3B",
    "/app/%00",
    "/app/%0a",
    "/app/%7f",
    "/app/%252e",
    "/app/a;b",
    "/app/;",
    "/app/.",
    "/app/..",
    "/app/../admin/echo",
    "/app/./echo",
    "/app/%2e%2e/x",
    "/app//echo",
    "//app/echo",
    "/app/a\\b",
];

#[tokio::test]
async fn ambiguous_targets_are_refused_over_both_protocols() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let http2 = alice.over_http2();
    for target in AMBIGUOUS {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n",
            alice.host,
            alice.jar.header().expect("cookies")
        );
        let answer = exchange(&alice, request.as_bytes()).await.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (400, "BadRequest"), "{target}");
        if target.parse::<http::uri::PathAndQuery>().is_ok() && !target.starts_with("//") {
            http2.get(target).send().await.expect(400, "BadRequest");
        }
    }
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn what_is_not_ambiguous_passes_as_it_was_sent() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for target in [
        "/app/caf%C3%A9",
        "/app/a%20b",
        "/app/a%2Bb",
        "/app/%E4%BD%A0?x=%2F..%2F;a#".trim_end_matches('#'),
        "/app/a+b,c=d@e:f!$&'()*",
        "/app/...",
        "/app/.hidden",
        "/app/UPPER",
        "/app/",
        "/app",
        "/app?x=//../%00%zz",
    ] {
        for client in [&alice, &alice.over_http2()] {
            client.get(target).send().await.expect_status(200);
            assert_eq!(world.upstream.last().target, target);
        }
    }
}

#[tokio::test]
async fn a_near_miss_of_a_narrower_route_is_no_route() {
    let world = World::with(|setup| {
        setup.routes(ROUTES);
    })
    .await;
    let carol = world.sign_in(TRACER).await;
    for target in [
        "/Organization/Configuration",
        "/organization/configuration/",
        "/ORGANIZATION/CONFIGURATION/",
        "/Admin/users",
        "/ADMIN",
        "/methods/",
        "/Methods",
        "/Auth/Login",
        "/auth/session/",
    ] {
        carol.get(target).send().await.expect(404, "NoRoute");
    }
    carol.post("/methods").own_page().send().await.expect(404, "NoRoute");
    carol.get("/organization/configuration").send().await.expect(403, "Forbidden");
    assert!(world.upstream.seen().is_empty());
    carol.get("/organization/other").send().await.expect_status(200);
}

#[tokio::test]
async fn a_row_with_get_also_takes_head_and_one_segment_is_one_segment() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    alice.call("HEAD", "/cases/7").send().await.expect_status(200);
    alice.get("/cases/7").send().await.expect_status(200);
    alice.get("/cases/7/notes").send().await.expect(404, "NoRoute");
    alice.get("/cases").send().await.expect(404, "NoRoute");
    alice.call("HEAD", "/cases/").send().await.expect_status(404);
}

#[tokio::test]
async fn hosts_choose_the_route_and_unknown_ones_are_misdirected() {
    let world = World::with(|setup| {
        setup.more_routes(
            "[[route]]\nhost = \"ingest.gateway.test\"\npath = \"/consent\"\naccess = \"public\"\n\
             upstream = \"backend\"\n",
        );
    })
    .await;
    let client = world.client();
    for protocol in [&client, &client.over_http2()] {
        let ingest = protocol.for_host("ingest.gateway.test");
        ingest.get("/consent").send().await.expect_status(200);
        assert_eq!(world.upstream.last().header("host"), Some("ingest.gateway.test"));
        ingest.get("/public/echo").send().await.expect(404, "NoRoute");
        protocol.get("/consent").send().await.expect(404, "NoRoute");
        ingest.get("/auth/").navigation().send().await.expect_status(404);
    }
    let with_port = client.for_host("GATEWAY.TEST:8443");
    with_port.get("/public/echo").send().await.expect_status(200);
    assert_eq!(world.upstream.last().header("host"), Some("GATEWAY.TEST:8443"));
    let unknown = client.get("/public/echo").header("host", "evil.example");
    unknown.send().await.expect(421, "Misdirected");
}

#[tokio::test]
async fn exactly_one_host_and_it_is_what_the_target_says() {
    let world = World::start().await;
    let client = world.client();
    for (what, request) in [
        ("no Host", "GET /public/echo HTTP/1.1\r\n\r\n"),
        ("two", "GET /public/echo HTTP/1.1\r\nHost: gateway.test\r\nHost: gateway.test\r\n\r\n"),
        ("empty", "GET /public/echo HTTP/1.1\r\nHost: \r\n\r\n"),
        ("absolute", "GET https://evil.example/public/echo HTTP/1.1\r\nHost: gateway.test\r\n\r\n"),
        ("asterisk", "GET * HTTP/1.1\r\nHost: gateway.test\r\n\r\n"),
        ("connect", "CONNECT gateway.test:443 HTTP/1.1\r\nHost: gateway.test:443\r\n\r\n"),
    ] {
        let answer = exchange(&client, request.as_bytes()).await.expect("an answer");
        assert!((400..500).contains(&answer.status), "{what}: {}", answer.head);
        assert_eq!(answer.status, 400, "{what}: {}", answer.head);
    }
    assert!(world.upstream.seen().is_empty());
}

#[test]
fn the_forgiving_reader_sees_through_what_the_test_sends() {
    for target in [
        "/Organization/Configuration/",
        "/organization//configuration",
        "/x/../organization/configuration",
        "/organization%2fconfiguration",
        "/organization/configuration;jsessionid=1?x",
    ] {
        assert!(is_narrow(target), "{target}");
    }
    assert!(!is_narrow("/organization"));
}
