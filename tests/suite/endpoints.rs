//! The endpoints that the gateway owns: session, refresh, verify, logout, JWKS, and
//! what is near them but not theirs.

use serde_json::json;

use crate::support::client::Call;
use crate::support::slapd::PASSWORD;
use crate::support::world::{
    ADMIN, CONTEXT_COOKIE, DEVICE_COOKIE, TOKEN_COOKIE, TRACER, World, context_of, log_in,
    token_of, token_text,
};

#[tokio::test]
async fn a_live_session_can_be_asked_about_and_another_cannot() {
    let world = World::start().await;
    world.client().get("/auth/session").send().await.expect(401, "Unauthenticated");
    let alice = world.sign_in(ADMIN).await;
    let answer = alice.get("/auth/session").send().await;
    answer.expect_status(200);
    let (session, token) = (answer.json(), token_of(&alice));
    assert_eq!((&session["sub"], &session["role"]), (&json!(ADMIN), &json!("admin")));
    assert_eq!(session["iat"], token.claims["iat"]);
    assert_eq!(session["exp"], token.claims["exp"]);
    let ends = session["session_expires"].as_i64().expect("seconds");
    assert_eq!(ends - token.seconds("iat"), 12 * 3600);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let before = alice.copy();
    alice.post("/auth/logout").own_page().send().await.expect_status(204);
    before.get("/auth/session").send().await.expect(401, "SessionRevoked");
}

#[tokio::test]
async fn a_refresh_gives_a_new_token_of_the_same_session() {
    let world = World::with(|setup| {
        setup.set("token", "delivery", "\"both\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    let before = token_of(&alice);
    let answer = alice.post("/auth/refresh").own_page().send().await;
    answer.expect_status(200);
    let body = answer.json();
    assert_eq!((&body["id"], &body["role"]), (&json!(ADMIN), &json!("admin")));
    assert!(body["expires_in"].as_i64().is_some_and(|seconds| (1..=900).contains(&seconds)));
    let after = token_of(&alice);
    assert_eq!(body["token"].as_str(), Some(token_text(&alice).as_str()));
    assert_eq!(after.claim("sid"), before.claim("sid"));
    assert_ne!(after.claim("jti"), before.claim("jti"));
    assert_eq!(after.claim("context"), before.claim("context"), "the context cookie stays");
    alice.get("/app/echo").send().await.expect_status(200);

    let bare = alice.copy();
    bare.jar.remove(TOKEN_COOKIE);
    let answer = bare.post("/auth/refresh").bearer(&token_text(&alice)).send().await;
    answer.expect_status(200);
    world.client().post("/auth/refresh").send().await.expect(401, "Unauthenticated");
}

#[tokio::test]
async fn logout_answers_the_same_with_and_without_a_session() {
    let world = World::start().await;
    for method in ["POST", "GET"] {
        let alice = world.sign_in(ADMIN).await;
        for _ in 0..2 {
            let answer = alice.call(method, "/auth/logout").own_page().send().await;
            answer.expect_status(204);
            assert_eq!(answer.header("clear-site-data"), Some("\"cache\", \"storage\""));
        }
    }
    let alice = world.sign_in(ADMIN).await;
    let answer = alice.get("/auth/logout").navigation().send().await;
    answer.expect_status(303);
    assert_eq!(answer.header("location"), Some("/auth/"));
    assert_eq!(alice.jar.names(), [DEVICE_COOKIE]);
}

#[tokio::test]
async fn a_link_from_another_site_logs_nobody_out() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let kept = alice.copy();
    let call = alice.get("/auth/logout").header("sec-fetch-site", "cross-site").navigation();
    let answer = call.send().await;
    assert!(answer.header("clear-site-data").is_none(), "{answer:?}");
    assert!(answer.set_cookies().is_empty(), "{answer:?}");
    kept.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn other_methods_of_own_endpoints_are_named_and_other_paths_are_not_ours() {
    let world = World::with(|setup| {
        setup.more_routes(
            "[[route]]\npath = \"/auth/users/**\"\nroles = [\"super_admin\"]\n\
             upstream = \"backend\"\n",
        );
    })
    .await;
    let client = world.client();
    for (method, path, allowed) in [
        ("GET", "/auth/login", "POST"),
        ("DELETE", "/auth/logout", "POST"),
        ("POST", "/auth/session", "GET"),
        ("GET", "/auth/refresh", "POST"),
        ("POST", "/.well-known/jwks.json", "GET"),
    ] {
        let answer = client.call(method, path).own_page().send().await;
        answer.expect(405, "MethodNotAllowed");
        let allow = answer.header("allow").expect("Allow");
        assert!(allow.contains(allowed), "{method} {path}: {allow}");
    }
    for unbuilt in ["/auth/access-codes", "/auth/mfa/enroll", "/auth/nothing"] {
        client.post(unbuilt).own_page().send().await.expect(404, "NoRoute");
    }
    let sam = world.sign_in("sam").await;
    sam.get("/auth/users/reflect").send().await.expect_status(200);
    assert_eq!(world.upstream.last().target, "/auth/users/reflect");
}

#[tokio::test]
async fn symmetric_keys_are_never_published() {
    let world = World::start().await;
    world.sign_in(ADMIN).await;
    let answer = world.client().get("/.well-known/jwks.json").send().await;
    answer.expect_status(200);
    assert_eq!(answer.json()["keys"], json!([]));
}

fn by_family<'c>(call: Call<'c>, method: &str, target: &str) -> Call<'c> {
    call.header("x-forwarded-method", method)
        .header("x-forwarded-host", "gateway.test")
        .header("x-forwarded-uri", target)
}

#[tokio::test]
async fn other_proxies_get_the_same_judgement() {
    let world = World::with(|setup| {
        setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
    })
    .await;
    let (alice, stranger) = (world.sign_in(ADMIN).await, world.client());
    let nobody = stranger.get("/auth/verify");
    let answer = by_family(nobody, "GET", "/app/echo").navigation().send().await;
    // Never a redirect: the other proxy decides what a person sees.
    answer.expect_status(401);

    let answer = by_family(alice.get("/auth/verify"), "GET", "/admin/x?y=1").send().await;
    answer.expect_status(204);
    assert_eq!(answer.header("x-auth-user"), Some(ADMIN));
    assert_eq!(answer.header("x-auth-role"), Some("admin"));

    let answer = by_family(stranger.get("/auth/verify"), "GET", "/public/x").send().await;
    answer.expect_status(204);
    assert_eq!(answer.header("x-auth-user"), Some(""), "empty, so that the client's is replaced");
    assert_eq!(answer.header("x-auth-role"), Some(""));

    for (method, target, status) in [
        ("GET", "/super/x", 403),
        ("GET", "/nothing", 403),
        ("POST", "/app/x", 403),
        ("GET", "/app/../admin/x", 400),
        ("GET", "/app//x", 400),
        ("GET", "/Organization/Configuration", 403),
    ] {
        let answer = by_family(alice.get("/auth/verify"), method, target).send().await;
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        assert!(answer.header("x-auth-user").is_none_or(str::is_empty), "{method} {target}");
    }
    let nginx = alice.get("/auth/verify").header("x-original-method", "GET");
    let nginx = nginx.header("x-original-url", "https://gateway.test/admin/x");
    nginx.send().await.expect_status(204);
    assert!(world.upstream.seen().is_empty(), "judged, not forwarded");
}

#[tokio::test]
async fn what_another_proxy_asks_must_be_complete_and_of_one_family() {
    let world = World::with(|setup| {
        setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    let ask = || alice.get("/auth/verify");
    for (what, call) in [
        ("nothing", ask()),
        (
            "no method",
            ask().header("x-forwarded-host", "gateway.test").header("x-forwarded-uri", "/app/x"),
        ),
        ("no host", ask().header("x-forwarded-method", "GET").header("x-forwarded-uri", "/app/x")),
        ("doubled", by_family(ask(), "GET", "/app/x").header("x-forwarded-uri", "/public/x")),
        (
            "both families",
            by_family(ask(), "GET", "/app/x")
                .header("x-original-method", "GET")
                .header("x-original-url", "https://gateway.test/app/x"),
        ),
        ("half a family", ask().header("x-original-url", "https://gateway.test/app/x")),
    ] {
        let answer = call.send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "BadRequest"), "{what}");
    }
}

#[tokio::test]
async fn only_trusted_proxies_may_ask() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let answer = by_family(alice.get("/auth/verify"), "GET", "/app/x").send().await;
    answer.expect_status(403);
    assert!(answer.header("x-auth-user").is_none());
}

#[tokio::test]
async fn cookies_are_what_the_contract_says() {
    let world = World::start().await;
    let client = world.client();
    let answer = log_in(&client, TRACER, PASSWORD).await;
    let cookies = answer.set_cookies();
    for name in [TOKEN_COOKIE, CONTEXT_COOKIE] {
        let cookie = cookies.iter().find(|cookie| cookie.starts_with(name)).expect("the cookie");
        let mut attributes: Vec<String> =
            cookie.split(';').skip(1).map(|part| part.trim().to_ascii_lowercase()).collect();
        attributes.sort();
        assert_eq!(attributes, ["httponly", "path=/", "samesite=strict", "secure"], "{cookie}");
    }
    let context = context_of(&client);
    assert_eq!(context.len(), 43, "256 bits in base64url without padding");
    assert!(context.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    let other = world.sign_in(TRACER).await;
    assert_ne!(context, context_of(&other));

    let answer = client.post("/auth/logout").own_page().send().await;
    for name in [TOKEN_COOKIE, CONTEXT_COOKIE] {
        let cookies = answer.set_cookies();
        let cookie = cookies.iter().find(|cookie| cookie.starts_with(name)).expect("cleared");
        let lower = cookie.to_ascii_lowercase();
        for part in ["max-age=0", "path=/", "secure", "httponly"] {
            assert!(lower.contains(part), "{cookie}");
        }
    }
}

#[tokio::test]
async fn cookie_names_and_same_site_are_configurable() {
    let world = World::with(|setup| {
        setup.set("cookie", "token_name", "\"access_token\"");
        setup.set("cookie", "context_name", "\"access_context\"");
        setup.set("cookie", "same_site", "\"lax\"");
    })
    .await;
    let client = world.client();
    let answer = log_in(&client, TRACER, PASSWORD).await;
    assert!(answer.cookie("access_token").is_some() && answer.cookie("access_context").is_some());
    assert!(answer.set_cookies().iter().all(|cookie| cookie.contains("SameSite=Lax")));
    client.get("/app/echo").send().await.expect_status(200);
    assert!(world.upstream.last().all("cookie").is_empty());
}

#[tokio::test]
async fn cookies_of_others_pass_byte_for_byte_and_ours_in_no_spelling() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let ours = alice.jar.header().expect("cookies");
    for (extra, left) in [
        ("a=1; b=\"x y\"; c=; =d; e", "a=1; b=\"x y\"; c=; =d; e"),
        ("weird=\u{e9}=%3B", "weird=\u{e9}=%3B"),
    ] {
        let call = alice.get("/app/echo").without_cookies();
        call.header("cookie", format!("{extra}; {ours}")).send().await.expect_status(200);
        assert_eq!(world.upstream.last().header("cookie"), Some(left));
    }
    let http2 = alice.over_http2();
    let mut call = http2.get("/app/echo").without_cookies().header("cookie", "x=1");
    for pair in ours.split("; ") {
        call = call.header("cookie", pair);
    }
    call.header("cookie", "y=2").send().await.expect_status(200);
    assert_eq!(world.upstream.last().header("cookie"), Some("x=1; y=2"));
}
