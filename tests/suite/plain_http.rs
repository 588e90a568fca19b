//! Without TLS nothing is served: who reads is sent on, and what was secret is
//! treated as read by others.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::setup::{HOST, OTHER_HOST, Setup};
use crate::support::world::{
    ADMIN, CONTEXT_COOKIE, TOKEN_COOKIE, TRACER, World, context_of, token_of, token_text,
};
use crate::support::{eventually_async, within};

fn plain(setup: &mut Setup) {
    setup.set("server", "plain_http_listen", "\"127.0.0.1:0\"");
    setup.more_routes(&format!(
        "[[route]]\nhost = \"{OTHER_HOST}\"\npath = \"/**\"\naccess = \"public\"\n\
         upstream = \"backend\"\n"
    ));
}

/// The whole answer to exactly these lines.
async fn ask(at: SocketAddr, lines: &[&str]) -> String {
    within(Duration::from_secs(30), "an answer", async {
        let mut stream = TcpStream::connect(at).await.expect("a connection");
        let request = lines.join("\r\n") + "\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        // A refusal with unread body may end in a reset, after the answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
}

fn is(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(&format!("\"error\":\"{code}\"")), "{answer}");
    let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_lowercase();
    assert!(!head.contains("strict-transport-security"), "{answer}");
    assert!(head.contains("x-request-id"), "{answer}");
}

fn listener(world: &World) -> SocketAddr {
    world.gateway.http.expect("http=ADDR in the ready line")
}

#[tokio::test]
async fn who_only_reads_is_sent_on_to_the_host_asked_for() {
    let world = World::with(|setup| {
        plain(setup);
        setup.set("server", "public_origin", &format!("\"https://{HOST}:8443\""));
    })
    .await;
    let at = listener(&world);
    for (method, host, to) in
        [("GET", HOST, HOST), ("HEAD", "Gateway.Test:80", HOST), ("GET", OTHER_HOST, OTHER_HOST)]
    {
        let line = format!("{method} /app/a%20b?x=1&y=%2f HTTP/1.1");
        let answer = ask(
            at,
            &[&line, &format!("Host: {host}"), "Cookie: theirs=1; __Host-bindgate-device=2"],
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        let location = format!("Location: https://{to}:8443/app/a%20b?x=1&y=%2f\r\n");
        assert!(answer.contains(&location), "{answer}");
        assert!(!answer.to_lowercase().contains("strict-transport-security"), "{answer}");
    }
    is(&ask(at, &["GET / HTTP/1.1", "Host: other.example"]).await, 421, "Misdirected");
    is(&ask(at, &["GET / HTTP/1.1"]).await, 400, "BadRequest");
    is(&ask(at, &["GET //evil.example/ HTTP/1.1", "Host: gateway.test"]).await, 400, "BadRequest");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "ODD"] {
        let line = format!("{method} /public/echo HTTP/1.1");
        is(&ask(at, &[&line, "Host: gateway.test"]).await, 403, "HttpsRequired");
    }
    // HTTP/2 in clear is not spoken.
    let answer = ask(at, &["PRI * HTTP/2.0", "", "SM", ""]).await;
    assert!(!answer.contains("308"), "{answer}");
    assert!(world.upstream.seen().is_empty(), "nothing is ever forwarded");
}

#[tokio::test]
async fn a_login_is_refused_by_its_path_with_its_body_unread() {
    let world = World::with(|setup| {
        plain(setup);
        setup.set("server", "login_aliases", "[\"/sign-in\"]");
    })
    .await;
    for path in ["/auth/login", "/Auth/Login/", "/sign-in"] {
        // The body that is announced never comes.
        let line = format!("POST {path} HTTP/1.1");
        let answer = ask(
            listener(&world),
            &[&line, "Host: gateway.test", "Content-Type: application/json", "Content-Length: 100"],
        )
        .await;
        is(&answer, 403, "CredentialExposed");
    }
    let metrics = world.gateway.metrics().await;
    let logins = metrics.sum("bindgate_credentials_exposed_total", &[("result", "login")]);
    assert!((logins - 3.0).abs() < 0.1, "{logins}");
    assert!(metrics.sum("bindgate_logins_total", &[]).abs() < 0.1);
}

/// A request that carries this in clear.
async fn expose(world: &World, line: &str, header: &str) {
    let answer = ask(listener(world), &[line, "Host: gateway.test", header]).await;
    is(&answer, 403, "CredentialExposed");
}

async fn is_dead(client: &Client) {
    client.get("/app/echo").send().await.expect(401, "SessionRevoked");
}

#[tokio::test]
async fn a_token_that_came_in_clear_is_dead_over_tls_wherever_it_stood() {
    let world = World::with(plain).await;
    let get = "GET /app/echo HTTP/1.1";
    let bearer = world.sign_in(ADMIN).await;
    expose(&world, get, &format!("Authorization: Bearer {}", token_text(&bearer))).await;
    is_dead(&bearer).await;
    let cookie = world.sign_in(ADMIN).await;
    expose(&world, get, &format!("Cookie: a=1; {TOKEN_COOKIE}={}", token_text(&cookie))).await;
    is_dead(&cookie).await;
    let query = world.sign_in(ADMIN).await;
    let line = format!("POST /x?a=b&access_token={} HTTP/1.1", token_text(&query));
    expose(&world, &line, "X-Odd: 1").await;
    is_dead(&query).await;
    let nowhere = world.sign_in(ADMIN).await;
    let line = format!("GET //?access_token={} HTTP/1.1", token_text(&nowhere));
    let answer = ask(listener(&world), &[&line, "Host: other.example"]).await;
    is(&answer, 403, "CredentialExposed");
    is_dead(&nowhere).await;

    // The context cookie alone proves nothing, but is one of ours.
    let half = world.sign_in(TRACER).await;
    expose(&world, get, &format!("Cookie: {CONTEXT_COOKIE}={}", context_of(&half))).await;
    expose(&world, get, "Authorization: Basic YTpi").await;
    half.get("/app/echo").send().await.expect_status(200);

    let text = std::fs::read_to_string(world.gateway.setup.audit_file()).expect("the audit log");
    let of = token_of(&bearer).claim("sid").to_owned();
    let record = text.lines().find(|line| line.contains("\"revocation\"") && line.contains(&of));
    let record: serde_json::Value = serde_json::from_str(record.expect("a record")).expect("JSON");
    assert_eq!(record["outcome"], "exposed");
    assert_eq!(record["subject"], ADMIN);
    for secret in [token_text(&bearer), token_text(&query), context_of(&half)] {
        assert!(!text.contains(&secret) && !world.gateway.log().contains(&secret));
    }
    let metrics = world.gateway.metrics().await;
    let revoked = metrics.sum("bindgate_sessions_revoked_total", &[("reason", "exposed")]);
    assert!((revoked - 4.0).abs() < 0.1, "{revoked}");
    let unverified = metrics.sum("bindgate_credentials_exposed_total", &[("result", "unverified")]);
    assert!((unverified - 2.0).abs() < 0.1, "{unverified}");
}

#[tokio::test]
async fn a_forged_token_with_a_live_sid_ends_nobody() {
    let world = World::with(plain).await;
    let alice = world.sign_in(ADMIN).await;
    let token = token_of(&alice);
    let forged = [
        token.clone().signed(&[7; 32]),
        token.clone().with_claim("role", "super_admin".into()).text(),
        token.clone().with_header("typ", "JWT".into()).text(),
        token.clone().with_header("alg", "none".into()).text(),
    ];
    for forged in &forged {
        let line = format!("GET /?access_token={forged} HTTP/1.1");
        expose(&world, &line, &format!("Authorization: Bearer {forged}")).await;
        expose(&world, "GET / HTTP/1.1", &format!("Cookie: {TOKEN_COOKIE}={forged}")).await;
        alice.get("/app/echo").send().await.expect_status(200);
    }
    // Over TLS what claims to be ours is refused too, and ends nobody either.
    let target = format!("/app/echo?access_token={}", forged[0]);
    alice.get(&target).send().await.expect(400, "BadRequest");
    alice.get("/app/echo?access_token=theirs").send().await.expect_status(200);
    alice.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn an_expired_token_in_clear_ends_its_session_too() {
    let (world, time) = World::with_time(plain).await;
    let alice = world.sign_in(ADMIN).await;
    let old = token_text(&alice);
    time.advance(Duration::from_mins(30));
    alice.get("/app/echo").send().await.expect_status(200);
    assert_ne!(token_text(&alice), old);
    expose(&world, "GET / HTTP/1.1", &format!("Authorization: Bearer {old}")).await;
    is_dead(&alice).await;
}

#[tokio::test]
async fn a_token_in_the_query_over_tls_is_refused_and_ends_its_session() {
    let world = World::start().await;
    for path in ["/public/echo", "/app/echo", "/auth/session", "/nowhere"] {
        let alice = world.sign_in(ADMIN).await;
        let target = format!("{path}?x=1&access%5Ftoken={}", token_text(&alice));
        world.client().get(&target).send().await.expect(400, "BadRequest");
        is_dead(&alice).await;
    }
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plain_listener_has_limits_and_drains_with_the_rest() {
    let mut world = World::with(|setup| {
        plain(setup);
        setup.set("server.limits", "header_timeout", "\"1s\"");
        setup.set("server.limits", "connections_per_address", "3");
    })
    .await;
    let at = listener(&world);
    let mut slow = TcpStream::connect(at).await.expect("a connection");
    slow.write_all(b"GET / HT").await.expect("written");
    let mut rest = Vec::new();
    let closed = slow.read_to_end(&mut rest);
    drop(within(Duration::from_secs(10), "a slow head is closed", closed).await);
    assert!(rest.is_empty(), "without an answer");

    eventually_async("its place is free", async || {
        let metrics = world.gateway.metrics().await;
        (metrics.sum("bindgate_connections_open", &[]) < 0.5).then_some(())
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(TcpStream::connect(at).await.expect("a connection"));
    }
    world.gateway.counted("bindgate_limit_hits_total", &[], 3.0).await;
    drop(open);
    world.gateway.signal("TERM");
    assert_eq!(world.gateway.ended().await.code(), Some(0));
    assert!(TcpStream::connect(at).await.is_err(), "closed");
}
