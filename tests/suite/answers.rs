//! How our own answers look, and what happens to the upstream's (contract sections 5
//! and 7).

use std::collections::BTreeSet;
use std::time::Duration;

use bindgate::config::LdapTransport;

use crate::support::raw::Raw;
use crate::support::relay::{Mood, Relay};
use crate::support::upstream::Upstream;
use crate::support::world::{ADMIN, TOKEN_COOKIE, World, shared_slapd, token_text};
use crate::support::{eventually, within};

#[tokio::test]
async fn a_navigation_without_session_goes_to_the_login_page() {
    let world = World::start().await;
    let client = world.client();
    let answer = client.get("/app/echo?tab=2").navigation().send().await;
    answer.expect_status(303);
    let location = answer.header("location").expect("a location");
    assert!(location.starts_with("/auth/?rd="), "a path on this origin: {location}");
    assert!(location.contains("%2Fapp%2Fecho%3Ftab%3D2"), "{location}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let without_mode = client.get("/app/echo").header("accept", "text/html");
    assert_eq!(without_mode.send().await.status, 303, "an old browser");
    let fetch = client.get("/app/echo").header("accept", "text/html");
    fetch.header("sec-fetch-mode", "cors").send().await.expect(401, "Unauthenticated");
    let post = client.post("/app/echo").header("accept", "text/html").own_page();
    post.send().await.expect(401, "Unauthenticated");
    client.get("/app/echo").header("accept", "*/*").send().await.expect(401, "Unauthenticated");
    client.get("/nothing").navigation().send().await.expect_status(404);
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn with_bearer_delivery_there_is_no_login_page() {
    let world = World::with(|setup| {
        setup.set("token", "delivery", "\"bearer\"");
    })
    .await;
    let client = world.client();
    client.get("/app/echo").navigation().send().await.expect_status(401);
    client.get("/auth/").navigation().send().await.expect_status(404);
}

#[tokio::test]
async fn our_errors_say_it_twice_below_auth_and_once_elsewhere() {
    let world = World::start().await;
    let client = world.client();
    let below = client.get("/auth/session").send().await.json();
    assert_eq!(below["error_description"], below["message"]);
    let elsewhere = client.get("/app/echo").send().await;
    assert!(elsewhere.json().get("error_description").is_none());
    assert!(elsewhere.header("content-type").expect("type").starts_with("application/json"));
    assert!(elsewhere.header("strict-transport-security").is_some());
}

#[tokio::test]
async fn an_upstream_that_fails_is_said_to_fail() {
    let slapd = shared_slapd();
    let backend = Upstream::start().await;
    let relay = Relay::to(backend.address).await;
    let world = World::with(|setup| {
        setup.directory(&slapd.toml(LdapTransport::Tls));
        setup.upstream("urls", &format!("[\"http://{}\"]", relay.address));
        setup.upstream("response_timeout", "\"1s\"");
        setup.upstream("connect_timeout", "\"1s\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    alice.get("/app/echo").send().await.expect_status(200);
    let limit = Duration::from_secs(10);
    let answer = within(limit, "stall", alice.get("/app/stall").send()).await;
    answer.expect(504, "UpstreamTimeout");
    alice.get("/app/close").send().await.expect(502, "UpstreamUnavailable");
    relay.becomes(Mood::Cut);
    alice.get("/app/echo").send().await.expect(502, "UpstreamUnavailable");
    relay.becomes(Mood::Babble(b"220 mail ready\r\n".to_vec()));
    let answer = within(limit, "babble", alice.get("/app/echo").send()).await;
    answer.expect(502, "UpstreamUnavailable");
    relay.becomes(Mood::Well);
    alice.get("/app/echo").send().await.expect_status(200);
    let broken = alice.get("/app/break").try_send().await;
    assert!(broken.is_err(), "half an answer is never shown as a whole one: {broken:?}");
    world.gateway.counted("bindgate_upstream_requests_total", &[], 7.0).await;
}

#[tokio::test]
async fn a_request_is_retried_only_when_the_upstream_cannot_have_seen_it() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for method in ["GET", "POST"] {
        world.upstream.forget();
        let call = alice.call(method, "/app/close").own_page();
        call.send().await.expect(502, "UpstreamUnavailable");
        assert_eq!(world.upstream.seen().len(), 1, "{method} was sent once");
    }
    // A kept connection that the upstream has closed meanwhile costs no request.
    world
        .upstream
        .answer("/app/last", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    for _ in 0..10 {
        let call = alice.post("/app/last").own_page().bytes("x");
        call.send().await.expect_status(200);
        alice.post("/app/echo").own_page().bytes("x").send().await.expect_status(200);
    }
}

#[tokio::test]
async fn connections_to_the_upstream_are_kept_and_used_again() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for _ in 0..50 {
        alice.get("/app/echo").send().await.expect_status(200);
    }
    let used: BTreeSet<usize> = world.upstream.seen().iter().map(|seen| seen.connection).collect();
    assert!(used.len() <= 2, "one for each worker: {used:?}");
    assert_eq!(world.upstream.connections(), used.len());
    eventually("idle ones are given up", || (world.upstream.open_connections() == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn the_upstreams_answer_is_filtered() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let answer = format!(
        "HTTP/1.1 201 Created\r\nServer: Backend/1.0\r\nX-Powered-By: Express\r\n\
         Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
         Set-Cookie: {TOKEN_COOKIE}=forged; Path=/\r\nSet-Cookie: theme=dark; Path=/\r\n\
         Set-Cookie: {}=forged\r\nETag: \"7\"\r\nX-Own: kept\r\nContent-Length: 2\r\n\r\nok",
        TOKEN_COOKIE.to_uppercase(),
    );
    world.upstream.answer("/app/filtered", &answer);
    world.upstream.answer("/public/filtered", &answer);
    let token = token_text(&alice);
    for client in [alice.clone(), alice.over_http2()] {
        let answer = client.get("/app/filtered").send().await;
        answer.expect_status(201);
        assert_eq!(answer.text(), "ok");
        for gone in ["server", "x-powered-by", "x-hop", "keep-alive", "proxy-authenticate"] {
            assert!(answer.header(gone).is_none(), "{gone}");
        }
        assert_eq!(answer.set_cookies(), ["theme=dark; Path=/"]);
        assert_eq!((answer.header("etag"), answer.header("x-own")), (Some("\"7\""), Some("kept")));
        assert_eq!(answer.header("cache-control"), Some("private, no-store"));
        assert_eq!(
            answer.header("strict-transport-security"),
            Some("max-age=63072000; includeSubDomains; preload")
        );
        let public = client.stranger().get("/public/filtered").send().await;
        assert!(public.header("cache-control").is_none(), "public answers may be cached");
    }
    assert_eq!(token_text(&alice), token);
}

#[tokio::test]
async fn the_upstreams_own_cache_rules_stay() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    world.upstream.answer(
        "/app/cached",
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n",
    );
    let answer = alice.get("/app/cached").send().await;
    assert_eq!(answer.header("cache-control"), Some("max-age=60"));
}

#[tokio::test]
async fn statuses_without_a_body_have_none() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    world.upstream.answer("/app/empty", "HTTP/1.1 204 No Content\r\n\r\n");
    world.upstream.answer("/app/same", "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n");
    let mut raw = Raw::connect(&alice).await;
    for (path, status) in [("/app/empty", 204), ("/app/same", 304), ("/app/echo", 200)] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: gateway.test\r\nCookie: {}\r\n\r\n",
            alice.jar.header().expect("cookies")
        );
        raw.write(request.as_bytes()).await.expect("written");
        assert_eq!(raw.answer().await.expect("an answer").status, status);
    }
}

#[tokio::test]
async fn the_login_page_needs_nothing_from_outside() {
    let world = World::with(|setup| {
        setup.set("login_page", "title", "\"Safe <Places>\"");
        setup.set("login_page", "notice", "\"For staff & friends only\"");
    })
    .await;
    let client = world.client();
    let answer = client.get("/auth/?rd=/app/%22%3E%3Cscript%3E").navigation().send().await;
    answer.expect_status(200);
    let page = answer.text();
    assert!(
        page.contains("Safe &#60;Places&#62;") || page.contains("Safe &lt;Places&gt;"),
        "{page}"
    );
    assert!(page.contains("For staff &#38; friends") || page.contains("For staff &amp; friends"));
    assert!(!page.contains("<script"), "no script, ours or another's");
    assert!(!page.contains("\">&"), "nothing of the request ends an attribute");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from outside");
    for needed in ["<label", "name=\"username\"", "name=\"password\"", "viewport", "lang=\""] {
        assert!(page.contains(needed), "{needed}");
    }
    let policy = answer.header("content-security-policy").expect("a policy");
    for part in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let referrer = answer.header("referrer-policy").expect("a referrer policy");
    assert_ne!(referrer, "no-referrer", "our pages must send an Origin");
}

#[tokio::test]
async fn a_live_session_goes_straight_on_and_a_link_from_outside_looks_twice() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let answer = alice.get("/auth/?rd=/app/echo").navigation().send().await;
    answer.expect_status(303);
    assert_eq!(answer.header("location"), Some("/app/echo"));

    let stranger = world.client();
    let foreign = stranger.get("/auth/?rd=/app/echo").navigation();
    let answer = foreign.header("sec-fetch-site", "cross-site").send().await;
    answer.expect_status(200);
    assert!(answer.text().to_lowercase().contains("http-equiv=\"refresh\""), "{}", answer.text());
    assert!(!answer.text().contains("name=\"password\""));
}
