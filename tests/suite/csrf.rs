//! The proof that our own page made a request: which of its signs decides, and where
//! it is asked for (contract section 4).

use serde_json::json;

use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, TOKEN_COOKIE, TRACER, World, token_text};

const OWN: &str = "https://gateway.test";
const ORIGIN: &str = "origin";
const SITE: &str = "sec-fetch-site";
const AJAX: &str = "x-requested-with";

/// Headers of a request, and whether they prove anything.
const TABLE: &[(&[(&str, &str)], bool)] = &[
    (&[], false),
    (&[(ORIGIN, OWN)], true),
    (&[(ORIGIN, "https://evil.example")], false),
    (&[(ORIGIN, "http://gateway.test")], false),
    (&[(ORIGIN, "https://gateway.test:444")], false),
    (&[(ORIGIN, "https://gateway.test.evil.example")], false),
    (&[(ORIGIN, "https://gateway.test/")], false),
    (&[(ORIGIN, "")], false),
    (&[(SITE, "same-origin")], true),
    (&[(SITE, "none")], true),
    (&[(SITE, "same-site")], false),
    (&[(SITE, "cross-site")], false),
    (&[(SITE, "anything")], false),
    (&[(AJAX, "XMLHttpRequest")], true),
    (&[(AJAX, "com.example.app")], false),
    (&[(ORIGIN, "https://evil.example"), (AJAX, "XMLHttpRequest")], false),
    (&[(ORIGIN, "https://evil.example"), (SITE, "same-origin")], false),
    (&[(SITE, "cross-site"), (AJAX, "XMLHttpRequest")], false),
    (&[(ORIGIN, OWN), (SITE, "cross-site")], true),
    (&[(ORIGIN, "null")], false),
    (&[(ORIGIN, "null"), (AJAX, "XMLHttpRequest")], false),
    (&[(ORIGIN, "null"), (SITE, "same-origin")], true),
    (&[(ORIGIN, "null"), (SITE, "cross-site")], false),
];

#[tokio::test]
async fn the_first_sign_present_decides_and_is_never_outvoted() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for (headers, proves) in TABLE {
            world.upstream.forget();
            let mut call = alice.call(method, "/app/echo");
            for (name, value) in *headers {
                call = call.header(name, value);
            }
            let answer = call.send().await;
            let seen = world.upstream.seen().len();
            if *proves {
                assert_eq!((answer.status, seen), (200, 1), "{method} {headers:?}");
            } else {
                answer.expect(403, "CsrfRejected");
                assert_eq!(seen, 0, "{method} {headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn reading_and_a_token_that_no_browser_sends_by_itself_need_no_proof() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        let call = alice.call(method, "/app/echo").header(ORIGIN, "https://evil.example");
        call.send().await.expect_status(200);
    }
    let token = token_text(&alice);
    alice.jar.remove(TOKEN_COOKIE);
    alice.post("/app/echo").bearer(&token).bytes("x").send().await.expect_status(200);
}

#[tokio::test]
async fn on_a_public_route_a_request_without_proof_goes_on_as_nobody() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    alice.post("/public/echo").bytes("x").send().await.expect_status(200);
    let seen = world.upstream.last();
    assert!(seen.readable_as("X-Auth-User").is_empty(), "{seen:?}");
    assert!(seen.readable_as("X-Auth-Role").is_empty(), "{seen:?}");
    alice.post("/public/echo").own_page().bytes("x").send().await.expect_status(200);
    assert_eq!(world.upstream.last().header("X-Auth-User"), Some(ADMIN));
}

#[tokio::test]
async fn a_login_from_elsewhere_is_refused_and_one_without_signs_needs_an_empty_jar() {
    let world = World::start().await;
    let credentials = json!({ "username": TRACER, "password": PASSWORD });
    let form = format!("username={TRACER}&password=correct+horse+battery");
    let stranger = world.client();
    let foreign = stranger.post("/auth/login").header(ORIGIN, "https://evil.example");
    foreign.json(&credentials).send().await.expect(403, "CsrfRejected");
    let foreign = stranger.post("/auth/login").header(SITE, "cross-site").form(&form);
    assert_eq!(foreign.send().await.status, 403);
    assert!(stranger.jar.header().is_none());

    let answer = stranger.post("/auth/login").json(&credentials).send().await;
    answer.expect_status(200);
    let again = stranger.post("/auth/login").json(&credentials).send().await;
    again.expect(403, "CsrfRejected");
    let refresh = stranger.post("/auth/refresh").send().await;
    refresh.expect(403, "CsrfRejected");
    stranger.post("/auth/refresh").own_page().send().await.expect_status(200);
}
