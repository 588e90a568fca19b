//! Tokens are renewed in passing, once each, and nobody is logged out by it; a token
//! that was replaced betrays whoever uses it later. Time is the test's.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::token::Token;
use crate::support::world::{ADMIN, TOKEN_COOKIE, TRACER, World, context_of, token_of, token_text};

const HALF: Duration = Duration::from_mins(8);
const GRACE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_requests_at_once_in_ten_browsers_get_one_successor_each() {
    let (world, time) = World::with_time(|_| {}).await;
    let mut browsers = Vec::new();
    for number in 0..10 {
        let client = world.sign_in([ADMIN, TRACER][number % 2]).await;
        browsers.push(if number % 3 == 0 { client.over_http2() } else { client });
    }
    let before: Vec<Client> = browsers.iter().map(Client::copy).collect();
    time.advance(HALF);

    let mut requests = tokio::task::JoinSet::new();
    for (number, browser) in browsers.iter().enumerate() {
        for _ in 0..16 {
            let browser = browser.clone();
            requests.spawn(async move { (number, browser.get("/app/echo").send().await) });
        }
    }
    let mut successors = vec![BTreeSet::new(); 10];
    while let Some(done) = requests.join_next().await {
        let (number, answer) = done.expect("no panic");
        answer.expect_status(200);
        if let Some(token) = answer.cookie(TOKEN_COOKIE) {
            assert_eq!(answer.header("cache-control"), Some("private, no-store"));
            let token = Token::parse(&token);
            assert_eq!(token.claim("sid"), token_of(&before[number]).claim("sid"));
            successors[number].insert(token.claim("jti").to_owned());
        }
    }
    for (number, browser) in browsers.iter().enumerate() {
        assert_eq!(successors[number].len(), 1, "browser {number}: {:?}", successors[number]);
        browser.get("/app/echo").send().await.expect_status(200);
        assert_ne!(token_text(browser), token_text(&before[number]));
        assert_eq!(context_of(browser), context_of(&before[number]));
    }
    assert_eq!(world.upstream.seen().len(), 170, "each request reached the upstream once");

    // Within the grace the replaced token still works; after it, whoever has it is a thief.
    time.advance(GRACE / 2);
    before[0].copy().get("/app/echo").send().await.expect_status(200);
    time.advance(GRACE);
    let answer = before[0].copy().get("/app/echo").send().await;
    answer.expect(401, "SessionRevoked");
    browsers[0].get("/app/echo").send().await.expect(401, "SessionRevoked");
    for browser in &browsers[1..] {
        browser.get("/app/echo").send().await.expect_status(200);
    }
    world.gateway.counted("bindgate_sessions_revoked_total", &[], 1.0).await;
}

#[tokio::test]
async fn a_young_token_is_left_alone() {
    let (world, time) = World::with_time(|_| {}).await;
    let alice = world.sign_in(ADMIN).await;
    time.advance(Duration::from_mins(7));
    let answer = alice.get("/app/echo").send().await;
    assert!(answer.set_cookies().is_empty());
}

#[tokio::test]
async fn a_successor_that_was_never_seen_replaces_nothing() {
    let (world, time) = World::with_time(|_| {}).await;
    let alice = world.sign_in(ADMIN).await;
    time.advance(HALF);
    let lost = alice.copy().get("/app/echo").send().await.cookie(TOKEN_COOKIE).expect("renewed");
    // The answer never reached the browser; long after the grace it still has the old token.
    time.advance(3 * GRACE);
    let again = alice.copy().get("/app/echo").send().await;
    again.expect_status(200);
    let again = again.cookie(TOKEN_COOKIE).expect("given again");
    assert_eq!(Token::parse(&again).claim("jti"), Token::parse(&lost).claim("jti"));
    alice.get("/app/echo").send().await.expect_status(200);
    alice.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn an_expired_token_in_the_cookie_is_renewed_and_the_request_served() {
    let (world, time) = World::with_time(|_| {}).await;
    let alice = world.sign_in(ADMIN).await;
    let old = alice.copy();
    time.advance(Duration::from_mins(40));
    let answer = alice.post("/app/echo").own_page().bytes("x").send().await;
    answer.expect_status(200);
    assert!(answer.cookie(TOKEN_COOKIE).is_some());
    assert_eq!(world.upstream.seen().len(), 1);

    let bare = old.copy();
    bare.jar.remove(TOKEN_COOKIE);
    let bearer = bare.get("/app/echo").bearer(&token_text(&old));
    bearer.send().await.expect(401, "TokenExpired");
}

#[tokio::test]
async fn idle_sessions_and_old_sessions_end() {
    let (world, time) = World::with_time(|_| {}).await;
    let idle = world.sign_in(ADMIN).await;
    let busy = world.sign_in(TRACER).await;
    for _ in 0..3 {
        time.advance(Duration::from_mins(25));
        busy.get("/app/echo").send().await.expect_status(200);
    }
    let answer = idle.get("/app/echo").send().await;
    assert_eq!(answer.status, 401, "an hour without activity: {answer:?}");
    for _ in 0..22 {
        time.advance(Duration::from_mins(25));
        busy.get("/app/echo").send().await.expect_status(200);
    }
    time.advance(Duration::from_hours(2));
    let answer = busy.get("/app/echo").send().await;
    assert_eq!(answer.status, 401, "twelve hours after the login: {answer:?}");
}

#[tokio::test]
async fn no_token_outlives_its_session() {
    let (world, time) = World::with_time(|setup| {
        setup.set("token", "session_lifetime", "\"1h\"");
        setup.set("token", "idle_timeout", "\"1h\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    for _ in 0..5 {
        time.advance(Duration::from_mins(11));
        alice.get("/app/echo").send().await.expect_status(200);
    }
    let session = alice.get("/auth/session").send().await.json();
    let ends = session["session_expires"].as_i64().expect("seconds");
    assert!(token_of(&alice).seconds("exp") <= ends, "{session}");
    time.advance(Duration::from_mins(6));
    assert_eq!(alice.get("/app/echo").send().await.status, 401);
}

#[tokio::test]
async fn a_replaced_token_in_authorization_works_until_it_expires_and_is_never_renewed() {
    let (world, time) = World::with_time(|_| {}).await;
    let alice = world.sign_in(ADMIN).await;
    let bare = alice.copy();
    bare.jar.remove(TOKEN_COOKIE);
    let old = token_text(&alice);
    time.advance(HALF);
    alice.post("/auth/refresh").own_page().send().await.expect_status(200);
    alice.get("/app/echo").send().await.expect_status(200);
    time.advance(3 * GRACE);
    let answer = bare.get("/app/echo").bearer(&old).send().await;
    answer.expect_status(200);
    assert!(answer.set_cookies().is_empty());
    time.advance(HALF);
    bare.get("/app/echo").bearer(&old).send().await.expect(401, "TokenExpired");
    alice.get("/app/echo").send().await.expect_status(200);
}
