//! Requests that are odd and yet allowed get a whole answer of the gateway's own, in
//! every protocol.

use std::process::Command;

use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, TRACER, World, context_of, token_text};

#[tokio::test]
async fn head_is_answered_whole_and_without_a_body_over_both_protocols() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for client in [alice.copy(), alice.over_http2()] {
        for (path, status) in
            [("/auth/", 200), ("/auth/session", 200), ("/.well-known/jwks.json", 200)]
        {
            let client = if path == "/auth/" { client.stranger() } else { client.copy() };
            let answer = client.call("HEAD", path).send().await;
            assert_eq!(answer.status, status, "{path}");
            assert!(answer.text().is_empty(), "{path}");
            let get = client.get(path).send().await;
            assert_eq!(answer.header("content-length"), get.header("content-length"), "{path}");
            assert_eq!(answer.header("content-type"), get.header("content-type"), "{path}");
        }
        for (path, status) in [("/app/echo", 401), ("/nothing", 404), ("/auth/login", 405)] {
            let answer = client.stranger().call("HEAD", path).send().await;
            assert_eq!(answer.status, status, "{path}");
            assert!(answer.text().is_empty(), "{path}");
        }
    }
    let answer = alice.call("HEAD", "/auth/logout").send().await;
    answer.expect_status(405);
    alice.get("/app/echo").send().await.expect_status(200);
}

/// curl loses the answer when its stream is reset while it still sends.
#[tokio::test]
async fn a_refused_upload_over_http2_gets_its_refusal() {
    let world = World::start().await;
    let ca = world.gateway.setup.path("ca.pem");
    std::fs::write(&ca, world.gateway.setup.authority.pem()).expect("a file");
    let port = world.gateway.https.port();
    for bytes in [1, 20_000, 60_000] {
        for path in ["/app/echo", "/auth/login", "/nothing"] {
            for _ in 0..5 {
                let output = Command::new("curl")
                    .args(["-sS", "--http2", "--noproxy", "*", "--max-time", "20", "--cacert"])
                    .arg(&ca)
                    .args(["--resolve", &format!("gateway.test:{port}:127.0.0.1")])
                    .args(["-H", "Origin: https://elsewhere.example", "-H", "Expect:"])
                    .args(["--data-binary", &"x".repeat(bytes)])
                    .arg(format!("https://gateway.test:{port}{path}"))
                    .output()
                    .expect("curl is installed");
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(
                    output.status.success() && said.contains("\"error\":"),
                    "{path} {bytes}: {} {said} {}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }
}

#[tokio::test]
async fn every_refusal_below_the_prefix_says_error_description_and_names_its_request() {
    let world = World::start().await;
    let client = world.client();
    for (method, path, status) in [
        ("PUT", "/auth/login", 405),
        ("POST", "/auth/password", 400),
        ("GET", "/auth/nothing", 404),
        ("GET", "/auth/session", 401),
        ("POST", "/auth/refresh", 401),
        ("GET", "/auth//session", 400),
        ("GET", "/auth/verify", 403),
    ] {
        let answer = client.call(method, path).own_page().send().await;
        answer.expect_status(status);
        let body = answer.json();
        assert!(body["error"].is_string() && body["message"].is_string(), "{path}: {body}");
        assert_eq!(body["error_description"], body["message"], "{method} {path}");
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(answer.header("strict-transport-security").is_some(), "{path}");
    }
    let elsewhere = client.get("/nothing").send().await;
    assert!(elsewhere.json().get("error_description").is_none());
}

#[tokio::test]
async fn a_login_never_leads_to_an_endpoint_of_ours() {
    let world = World::start().await;
    let client = world.client();
    for path in ["%2Fauth%2Flogout", "%2Fauth%2F", "%2Fauth%2Flogin", "%2Fauth%2Flogout%3Fx"] {
        let form = format!("username={TRACER}&password=correct+horse+battery&rd={path}");
        let answer = client.post("/auth/login").own_page().form(&form).send().await;
        answer.expect_status(303);
        assert_eq!(answer.header("location"), Some("/"), "{path}");
        let page = client.get(&format!("/auth/?rd={path}")).navigation().send().await;
        assert_eq!(page.header("location"), Some("/"), "{path}");
    }
}

#[tokio::test]
async fn a_token_in_the_header_needs_no_other_proof_to_log_out() {
    let world = World::with(|setup| {
        setup.set("token", "delivery", "\"both\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    let (token, context) = (token_text(&alice), context_of(&alice));
    let bare = alice.stranger();
    let cookie = format!("__Host-bindgate-context={context}");
    let from_elsewhere = bare.post("/auth/logout").header("cookie", cookie.clone());
    let from_elsewhere = from_elsewhere.bearer(&token).header("origin", "https://evil.example");
    from_elsewhere.send().await.expect(403, "CsrfRejected");
    alice.get("/app/echo").send().await.expect_status(200);
    let call = bare.post("/auth/logout").header("cookie", cookie).bearer(&token);
    call.send().await.expect_status(204);
    alice.get("/app/echo").send().await.expect(401, "SessionRevoked");
}

#[tokio::test]
async fn without_a_login_page_a_form_is_answered_like_json() {
    let world = World::with(|setup| {
        setup.set("token", "delivery", "\"bearer\"");
    })
    .await;
    let client = world.client();
    let form = format!("username={TRACER}&password=correct+horse+battery&rd=%2Fapp");
    let answer = client.post("/auth/login").own_page().form(&form).send().await;
    answer.expect_status(200);
    assert!(answer.json()["token"].is_string(), "else the token would be lost");
    let form = format!("username={TRACER}&password=wrong");
    let answer = client.stranger().post("/auth/login").own_page().form(&form).send().await;
    answer.expect(401, "InvalidCredentials");
    assert_eq!(PASSWORD, "correct horse battery");
}

#[tokio::test]
async fn a_forged_request_renews_nothing() {
    let (world, time) = World::with_time(|setup| {
        setup.set("cookie", "same_site", "\"none\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    time.advance(std::time::Duration::from_mins(8));
    let forged = alice.post("/app/echo").header("origin", "https://evil.example");
    let answer = forged.send().await;
    answer.expect(403, "CsrfRejected");
    assert!(answer.set_cookies().is_empty(), "{answer:?}");
    let answer = alice.get("/app/echo").send().await;
    assert_eq!(answer.set_cookies().len(), 1, "an ordinary answer does");
}

#[tokio::test]
async fn a_websocket_handshake_with_a_body_is_refused() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let cookies = alice.jar.header().expect("cookies");
    for framing in ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    {
        let request = format!(
            "GET /app/ws HTTP/1.1\r\nHost: gateway.test\r\nCookie: {cookies}\r\n\
             Origin: https://gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{framing}"
        );
        let answer = crate::support::raw::exchange(&alice, request.as_bytes()).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (400, "BadRequest"), "{framing}");
    }
    assert!(world.upstream.seen_at("/app/ws").is_empty());
}

#[tokio::test]
async fn a_name_beyond_ascii_arrives_as_utf_8() {
    let world = World::start().await;
    let zoe = world.sign_in("zo\u{eb}").await;
    for client in [zoe.clone(), zoe.over_http2()] {
        client.get("/app/echo").send().await.expect_status(200);
        assert_eq!(world.upstream.last().header("x-auth-user"), Some("zo\u{eb}"));
    }
}
