//! Several gateways on one Redis: what one of them ends is ended on all, whatever
//! happens to the network, to Redis and to the gateways meanwhile.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::support::certs::Authority;
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;
use crate::support::relay::{Mood, Relay};
use crate::support::several::{Several, be_that_user, url, user_without};
use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, CONTEXT_COOKIE, TRACER, log_in, token_of, token_text};
use crate::support::{eventually_async, setup::HOST, websocket, within};

const SECOND: Duration = Duration::from_secs(1);
const REVOKED: (u16, &str) = (401, "SessionRevoked");
const UNAVAILABLE: (u16, &str) = (503, "StoreUnavailable");
const SERVED: (u16, &str) = (200, "");
/// From the page itself, as a browser says it.
const OWN: &[(&str, &str)] = &[("origin", "https://gateway.test")];

async fn log_out(client: &crate::support::client::Client) {
    client.copy().post("/auth/logout").own_page().send().await.expect_status(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_gateway_ends_the_others_refuse_within_a_second_each_of_fifty_times() {
    let redis = RedisServer::start(&[]);
    let all = Several::on(&redis, 3).await;
    let mut took = Vec::new();
    for _ in 0..50 {
        let alice = all.sign_in(ADMIN).await;
        for gateway in 0..3 {
            all.at(gateway, &alice).get("/app/echo").send().await.expect_status(200);
        }
        let kept = alice.copy();
        log_out(&alice).await;
        let others = [all.answers(1, &kept, REVOKED), all.answers(2, &kept, REVOKED)];
        took.extend(futures_util::future::join_all(others).await);
    }
    took.sort();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    eprintln!("refused elsewhere after: half {:?}, p99 {:?}, all {:?}", at(50), at(99), at(100));
    assert!(at(100) < SECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_end_on_all_gateways_within_a_second() {
    let redis = RedisServer::start(&[]);
    let all = Several::on(&redis, 3).await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    let mut endings = Vec::new();
    let mut held = Vec::new();
    for gateway in 0..3 {
        let browser = all.at(gateway, &alice);
        let mut socket = websocket::open(&browser, "/app/ws", OWN).await.expect("a WebSocket");
        socket.send(Message::text("here")).await.expect("sent");
        socket.next().await.expect("an echo").expect("text");
        endings.push(tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} }));
        for (path, kind, client) in [
            (format!("/app/events{gateway}"), "text/event-stream", browser.clone()),
            (format!("/app/file{gateway}"), "application/octet-stream", browser.over_http2()),
        ] {
            let steps = all.upstream.steps(&path, kind);
            let mut body = client.get(&path).open().await.into_body();
            steps.send(b"data: 1\n\n".to_vec()).expect("open");
            body.frame().await.expect("a frame").expect("a body");
            held.push(steps);
            endings
                .push(tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} }));
        }
    }
    let others = all.upstream.steps("/app/others", "text/event-stream");
    let mut other = all.at(1, &carol).get("/app/others").open().await.into_body();
    others.send(b"data: 1\n\n".to_vec()).expect("open");
    other.frame().await.expect("a frame").expect("a body");

    let began = Instant::now();
    log_out(&alice).await;
    for ending in endings {
        within(Duration::from_secs(10), "a stream ends", ending).await.expect("no panic");
    }
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    others.send(b"data: 2\n\n".to_vec()).expect("others go on");
    other.frame().await.expect("a frame").expect("a body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_cut_off_from_redis_refuses_all_and_comes_back_complete() {
    let redis = RedisServer::start(&[]);
    let relay = Relay::to(([127, 0, 0, 1], redis.port).into()).await;
    let urls = [url(redis.port), url(relay.address.port())];
    let all = Several::start(2, |number, setup| {
        setup.set("store", "urls", &urls[number]).set("store", "max_staleness", "\"3s\"");
    })
    .await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    for client in [&alice, &carol] {
        all.answers(1, client, SERVED).await;
    }
    relay.becomes(Mood::Stall);
    relay.end_all();
    // Verified sessions go on for a while; what needs the store gets its answer at once.
    all.at(1, &carol).get("/app/echo").send().await.expect_status(200);
    let kept = alice.copy();
    log_out(&alice).await;
    let refused = all.answers(1, &carol, UNAVAILABLE).await;
    assert!(refused < Duration::from_secs(8), "{refused:?}");
    all.at(1, &kept).get("/app/echo").send().await.expect(503, "StoreUnavailable");
    let answer = log_in(&all.gateways[1].client(), TRACER, PASSWORD).await;
    answer.expect(503, "StoreUnavailable");
    all.gateways[1].readiness(503).await;
    let lag = async |gateway: usize| {
        let metrics = all.gateways[gateway].metrics().await;
        metrics.sum("bindgate_revocation_lag_seconds", &[])
    };
    assert!(lag(1).await > 1.5 && lag(0).await < 1.5);
    all.at(0, &carol).get("/app/echo").send().await.expect_status(200);

    relay.becomes(Mood::Well);
    relay.end_all();
    all.answers(1, &carol, SERVED).await;
    all.at(1, &kept).get("/app/echo").send().await.expect(401, "SessionRevoked");
    all.gateways[1].readiness(200).await;
    eventually_async("the news are new", async || (lag(1).await < 1.5).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_answered_to_be_ended_stays_so_after_kill_9() {
    let redis = RedisServer::start(&[]);
    let mut all = Several::on(&redis, 2).await;
    for _ in 0..5 {
        let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
        let kept = alice.copy();
        log_out(&alice).await;
        all.gateways[0].kill();
        all.answers(1, &kept, REVOKED).await;
        all.gateways[0].restart().await;
        all.at(0, &kept).get("/app/echo").send().await.expect(401, "SessionRevoked");
        all.at(0, &carol).get("/app/echo").send().await.expect_status(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_without_redis_refuses_until_it_has_read_the_revocations() {
    let redis = RedisServer::start(&[]);
    let relay = Relay::to(([127, 0, 0, 1], redis.port).into()).await;
    let urls = url(relay.address.port());
    let mut all = Several::start(1, |_, setup| {
        setup.set("store", "urls", &urls);
    })
    .await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    let kept = alice.copy();
    log_out(&alice).await;
    all.gateways[0].kill();
    relay.becomes(Mood::Cut);
    all.gateways[0].restart().await;
    let reasons = all.gateways[0].readiness(503).await;
    assert!(reasons.contains("store"), "{reasons}");
    for client in [&kept, &carol] {
        all.at(0, client).get("/app/echo").send().await.expect(503, "StoreUnavailable");
    }
    log_in(&all.gateways[0].client(), ADMIN, PASSWORD).await.expect(503, "StoreUnavailable");
    relay.becomes(Mood::Well);
    all.gateways[0].readiness(200).await;
    all.at(0, &kept).get("/app/echo").send().await.expect(401, "SessionRevoked");
    all.at(0, &carol).get("/app/echo").send().await.expect_status(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_came_in_clear_is_dead_on_all_gateways_and_a_forged_one_ends_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let redis = RedisServer::start(&[]);
    let urls = url(redis.port);
    let all = Several::start(2, |_, setup| {
        setup
            .set("store", "urls", &urls)
            .set("server", "plain_http_listen", "\"127.0.0.1:0\"")
            .set("token", "delivery", "\"both\"");
    })
    .await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    for client in [&alice, &carol] {
        all.answers(1, client, SERVED).await;
    }
    let forged = {
        let text = token_text(&carol);
        let (head, signature) = text.rsplit_once('.').expect("three parts");
        let other: String = signature.chars().rev().collect();
        format!("{head}.{other}")
    };
    for (token, client, then) in [(forged, &carol, SERVED), (token_text(&alice), &alice, REVOKED)] {
        let http = all.gateways[0].http.expect("a plain listener");
        let mut stream = tokio::net::TcpStream::connect(http).await.expect("a connection");
        let request = format!(
            "GET /app/echo HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("CredentialExposed"));
        for gateway in 0..2 {
            assert!(all.answers(gateway, client, then).await < SECOND);
        }
    }
    assert!(alice.jar.get(CONTEXT_COOKIE).is_some());
}

async fn command(gateway: &Gateway, text: &str) -> String {
    let said = gateway.command(text).await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_follow_each_other_on_all_gateways_and_go_on_all_at_once() {
    let redis = RedisServer::start(&[]);
    let urls = url(redis.port);
    let all = Several::start(3, |_, setup| {
        setup.control_socket().set("store", "urls", &urls).set("store", "max_staleness", "\"2s\"");
    })
    .await;
    let alice = all.sign_in(ADMIN).await;
    let old = token_of(&alice).header["kid"].clone();
    command(&all.gateways[0], "keys rotate").await;
    let began = Instant::now();
    for gateway in &all.gateways {
        eventually_async("all hold the next key", async || {
            let listed = command(gateway, "keys list").await;
            let next = listed.lines().filter(|line| line.contains("signs from"));
            (next.count() == 1).then_some(())
        })
        .await;
    }
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    // It begins to sign only when nobody can be without it.
    assert_eq!(token_of(&all.sign_in(TRACER).await).header["kid"], old);
    let carol = eventually_async("the next key signs", async || {
        let carol = all.sign_in(TRACER).await;
        (token_of(&carol).header["kid"] != old).then_some(carol)
    })
    .await;
    for gateway in 0..3 {
        for client in [&alice, &carol] {
            all.at(gateway, client).get("/app/echo").send().await.expect_status(200);
        }
    }
    let kept = redis.asked("GET {bindgate}:keys").expect("the keys");
    assert!(!kept.contains("kty") && !kept.contains("HS256") && kept.len() > 100, "sealed");

    command(&all.gateways[1], "keys rotate --now").await;
    for gateway in 0..3 {
        for client in [&alice, &carol] {
            assert!(all.answers(gateway, client, (401, "InvalidToken")).await < SECOND);
        }
    }
    let again = all.sign_in(ADMIN).await;
    for gateway in 0..3 {
        all.at(gateway, &again).get("/app/echo").send().await.expect_status(200);
    }
}

/// It may not read everybody's, so that what comes before that is all it can do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_sessions_are_ended_before_those_of_all_others_are_read() {
    let redis = RedisServer::start(&[&user_without("zrangebylex")]);
    let urls = url(redis.port);
    let all = Several::start(1, |_, setup| {
        setup.control_socket().set("store", "urls", &urls);
        be_that_user(setup);
    })
    .await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    let said = all.gateways[0].command(&format!("sessions revoke --user {ADMIN}")).await;
    assert_eq!(said.code, Some(1), "by the account's name there may be more: {}", said.text);
    alice.get("/app/echo").send().await.expect(401, "SessionRevoked");
    carol.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_lost_everything_all_log_in_again_and_nobody_comes_back() {
    let redis = RedisServer::start(&[]);
    let mut all = Several::on(&redis, 2).await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    let kept = alice.copy();
    log_out(&alice).await;
    redis.asked("FLUSHALL").expect("an answer");
    for gateway in 0..2 {
        for client in [&kept, &carol] {
            all.answers(gateway, client, (401, "InvalidToken")).await;
        }
    }
    all.gateways[1].kill();
    all.gateways[1].restart().await;
    all.at(1, &kept).get("/app/echo").send().await.expect(401, "InvalidToken");
    let again = all.sign_in(TRACER).await;
    for gateway in 0..2 {
        all.answers(gateway, &again, SERVED).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_count_on_all_gateways_together() {
    let redis = RedisServer::start(&[]);
    let urls = url(redis.port);
    let all = Several::start(2, |_, setup| {
        setup.set("store", "urls", &urls).set("throttle", "login_per_user", "\"4 per 15m\"");
    })
    .await;
    for number in 0..4 {
        let client = all.gateways[number % 2].client();
        log_in(&client, ADMIN, "not it").await.expect(401, "InvalidCredentials");
    }
    for gateway in &all.gateways {
        log_in(&gateway.client(), ADMIN, PASSWORD).await.expect(429, "TooManyAttempts");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_user_that_the_documentation_describes_is_enough() {
    let authority = Authority::new("redis test authority");
    let folder = tempfile::tempdir().expect("a folder");
    let issued = authority.issue(&["localhost", "127.0.0.1"]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in [("crt", &issued.certificate_pem), ("key", &issued.key_pem)] {
        std::fs::write(path(name), text).expect("a file");
    }
    let page = include_str!("../../docs/operations.md");
    let user = page.lines().find(|line| line.starts_with("user bindgate on ")).expect("a user");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    drop(listener);
    let redis = RedisServer::start(&[
        &format!("tls-port {port}"),
        &format!("tls-cert-file {}", path("crt")),
        &format!("tls-key-file {}", path("key")),
        "tls-auth-clients no",
        "user default off",
        &user.replace(">PASSWORD", ">a-password"),
    ]);
    let all = Several::start(2, |_, setup| {
        setup.write("redis-ca.pem", authority.pem());
        setup.write("redis-password", "a-password\n");
        for (key, value) in [
            ("urls", format!("[\"rediss://127.0.0.1:{port}\"]")),
            ("ca_file", format!("{:?}", setup.path("redis-ca.pem").display().to_string())),
            ("username", "\"bindgate\"".to_owned()),
            ("password_file", format!("{:?}", setup.path("redis-password").display().to_string())),
        ] {
            setup.set("store", key, &value);
        }
        setup.control_socket();
    })
    .await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    let kept = alice.copy();
    log_out(&alice).await;
    all.answers(1, &kept, REVOKED).await;
    all.answers(1, &carol, SERVED).await;
    command(&all.gateways[1], "keys rotate").await;
    let listed = command(&all.gateways[1], "sessions list").await;
    assert!(listed.ends_with("\n1 session\n"), "{listed}");
    let denied = redis.asked("ACL LOG").unwrap_or_default();
    assert!(denied.starts_with("-NOAUTH"), "nobody gets in without the password: {denied}");
    for gateway in &all.gateways {
        gateway.readiness(200).await;
        let failed = gateway.metrics().await;
        let failed = failed.sum("bindgate_store_operations_total", &[("result", "unavailable")]);
        assert!(failed < 0.1, "{failed} operations failed: {}", gateway.log());
    }
}
