//! What is refused is refused with the status and code of the contract, and the
//! upstream never sees it.

use serde_json::json;

use crate::support::client::{Call, Client};
use crate::support::token::{Token, encode, secret, session_key, sign};
use crate::support::websocket;
use crate::support::world::{
    ADMIN, CONTEXT_COOKIE, DEVICE_COOKIE, TOKEN_COOKIE, TRACER, World, context_of, token_of,
    token_text,
};

/// Sends it; the answer must be this, as JSON, and the upstream must not have seen it.
async fn refused(world: &World, what: &str, call: Call<'_>, status: u16, code: &str) {
    let answer = call.send().await;
    let found = (answer.status, answer.code());
    assert_eq!((found.0, found.1.as_str()), (status, code), "{what}: {:?}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    assert!(answer.header("x-request-id").is_some(), "{what}");
    assert!(answer.json()["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
    if code == "Unauthenticated" {
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
    }
    let seen = world.upstream.seen();
    assert!(seen.is_empty(), "{what}: the upstream saw {seen:?}");
}

/// A browser with this context cookie and no token cookie.
fn context_only(client: &Client) -> Client {
    let other = client.copy();
    other.jar.remove(TOKEN_COOKIE);
    other
}

#[tokio::test]
async fn without_the_right_pair_nothing_passes() {
    let world = World::start().await;
    let (alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    let (token, context) = (token_text(&alice), context_of(&alice));
    let stranger = world.client();
    let cookies = |text: String| stranger.get("/app/echo").header("cookie", text);
    let both = format!("{TOKEN_COOKIE}={token}; {CONTEXT_COOKIE}={context}");

    refused(&world, "nothing", stranger.get("/app/echo"), 401, "Unauthenticated").await;
    let alone = cookies(format!("{CONTEXT_COOKIE}={context}"));
    refused(&world, "context alone", alone, 401, "Unauthenticated").await;
    let alone = cookies(format!("{TOKEN_COOKIE}={token}"));
    refused(&world, "token cookie alone", alone, 401, "ContextMismatch").await;
    let alone = stranger.get("/app/echo").bearer(&token);
    refused(&world, "Authorization alone", alone, 401, "ContextMismatch").await;
    let other = format!("{TOKEN_COOKIE}={token}; {CONTEXT_COOKIE}={}", context_of(&carol));
    refused(&world, "another session's cookie", cookies(other), 401, "ContextMismatch").await;

    let twice = cookies(format!("{both}; {CONTEXT_COOKIE}={context}"));
    refused(&world, "the context cookie twice", twice, 401, "ContextMismatch").await;
    let twice = cookies(both.clone()).header("cookie", format!("{CONTEXT_COOKIE}={context}"));
    refused(&world, "context in two headers", twice, 401, "ContextMismatch").await;
    let twice = cookies(format!("{both}; {TOKEN_COOKIE}={token}"));
    refused(&world, "the token cookie twice", twice, 401, "InvalidToken").await;
    let twice = context_only(&alice);
    let twice = twice.get("/app/echo").bearer(&token).bearer(&token);
    refused(&world, "Authorization twice", twice, 401, "InvalidToken").await;
    let mixed = alice.get("/app/echo").bearer(&token_text(&carol));
    refused(&world, "tokens of two sessions", mixed, 401, "InvalidToken").await;

    let http2 = alice.over_http2();
    let h2_twice = http2
        .get("/app/echo")
        .without_cookies()
        .header("cookie", format!("{TOKEN_COOKIE}={token}"))
        .header("cookie", format!("{CONTEXT_COOKIE}={context}"))
        .header("cookie", format!("{CONTEXT_COOKIE}={context}"));
    refused(&world, "twice over HTTP/2", h2_twice, 401, "ContextMismatch").await;
    alice.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn a_token_that_was_touched_is_no_token() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let token = token_of(&alice);
    let key = secret(&world.gateway.setup.path("keys"));
    let mut flipped = token.clone();
    flipped.signature[0] ^= 1;
    let mut short = token.clone();
    short.signature.truncate(16);
    let mut unsigned = token.clone();
    unsigned.signature.clear();
    let header = |name: &str, value| token.clone().with_header(name, value);
    let without = |name: &str| {
        let mut token = token.clone();
        token.claims.as_object_mut().expect("claims").remove(name);
        token
    };
    let doubled = {
        let claims = token.claims.to_string().replacen('{', "{\"role\":\"super_admin\",", 1);
        sign(&format!("{}.{}", encode(token.header.to_string()), encode(claims)), &key)
    };
    let far = json!(token.seconds("iat") + 3600);
    let mut cases = vec![
        ("changed payload", token.clone().with_claim("role", json!("super_admin")).text()),
        ("changed signature", flipped.text()),
        ("shortened signature", short.text()),
        ("no signature", unsigned.text()),
        ("changed header", header("kid", json!("other")).text()),
        ("unknown kid", header("kid", json!("other")).signed(&key)),
        ("kid as a path", header("kid", json!("../../../dev/null")).signed(b"")),
        ("another typ", header("typ", json!("JWT")).signed(&key)),
        ("typ in capitals", header("typ", json!("BINDGATE-SESSION+JWT")).signed(&key)),
        ("crit", header("crit", json!(["exp"])).signed(&key)),
        ("an embedded key", header("jwk", json!({"kty": "oct", "k": "AA"})).signed(&[0])),
        ("x5u", header("x5u", json!("https://evil.example/key")).signed(&key)),
        ("issued in the future", token.clone().with_claim("iat", far).signed(&key)),
        ("a doubled claim", doubled),
        ("the wrong secret", token.signed(b"secret")),
        ("not a token", "abc".to_owned()),
        ("no parts", "..".to_owned()),
        ("four parts", format!("{}.x", token.text())),
        ("empty", String::new()),
    ];
    for name in ["sub", "role", "context", "iat", "exp", "sid", "jti"] {
        cases.push(("a missing claim", without(name).signed(&key)));
    }
    for algorithm in ["none", "None", "NONE", "HS384", "HS512", "RS256"] {
        let mut token = header("alg", json!(algorithm));
        cases.push(("another alg, signed", token.signed(&key)));
        token.signature.clear();
        cases.push(("another alg, unsigned", token.text()));
    }
    let bare = context_only(&alice);
    for (what, text) in cases {
        let call = bare.get("/app/echo").bearer(&text);
        refused(&world, what, call, 401, "InvalidToken").await;
        if !text.is_empty() {
            let cookie = format!("{TOKEN_COOKIE}={text}; {CONTEXT_COOKIE}={}", context_of(&alice));
            let call = bare.get("/app/echo").without_cookies().header("cookie", cookie);
            refused(&world, what, call, 401, "InvalidToken").await;
        }
    }
}

#[tokio::test]
async fn an_expired_token_in_authorization_is_refused_as_expired() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let key = secret(&world.gateway.setup.path("keys"));
    let token = token_of(&alice);
    let issued = token.seconds("iat");
    let old = token.with_claim("iat", json!(issued - 1000)).with_claim("exp", json!(issued - 100));
    let bare = context_only(&alice);
    let call = bare.get("/app/echo").bearer(&old.signed(&key));
    refused(&world, "expired", call, 401, "TokenExpired").await;
}

#[tokio::test]
async fn a_public_key_is_no_hmac_secret() {
    let world = World::with(|setup| {
        setup.set("token", "algorithm", "\"RS256\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    let answer = world.client().get("/.well-known/jwks.json").send().await;
    answer.expect_status(200);
    let published = answer.json();
    let published = &published["keys"][0];
    assert!(published.get("d").is_none(), "only the public half is published");
    let (_, key) = session_key(&world.gateway.setup.path("keys"));
    assert_eq!(published["n"], key["n"]);
    let token = token_of(&alice).with_header("alg", json!("HS256"));
    let modulus = published["n"].as_str().expect("n").as_bytes();
    let bare = context_only(&alice);
    for secret in [modulus, published.to_string().as_bytes(), answer.text().as_bytes()] {
        let call = bare.get("/app/echo").bearer(&token.signed(secret));
        refused(&world, "RS256 to HS256", call, 401, "InvalidToken").await;
    }
}

#[tokio::test]
async fn a_role_reaches_only_its_own_routes() {
    let world = World::start().await;
    let (alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    refused(&world, "tracer", carol.get("/admin/echo"), 403, "Forbidden").await;
    refused(&world, "admin", alice.get("/super/echo"), 403, "Forbidden").await;
    let put = carol.call("PUT", "/organization/configuration").own_page();
    refused(&world, "PUT", put, 403, "Forbidden").await;
    let delete = alice.call("DELETE", "/organization/configuration").own_page();
    refused(&world, "no row names DELETE", delete, 404, "NoRoute").await;
    refused(&world, "no route", alice.get("/nothing"), 404, "NoRoute").await;
    refused(&world, "no route for strangers", world.client().get("/x"), 404, "NoRoute").await;
    alice.get("/admin/echo").send().await.expect_status(200);
    let put = alice.call("PUT", "/organization/configuration").own_page().bytes("{}");
    put.send().await.expect_status(200);
}

#[tokio::test]
async fn a_session_that_was_logged_out_is_revoked_everywhere() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let before = alice.copy();
    alice.post("/auth/logout").own_page().send().await.expect_status(204);
    assert_eq!(alice.jar.names(), [DEVICE_COOKIE], "cookies cleared");
    refused(&world, "cookies", before.get("/app/echo"), 401, "SessionRevoked").await;
    let bare = context_only(&before);
    let bearer = bare.get("/app/echo").bearer(&token_text(&before));
    refused(&world, "Authorization", bearer, 401, "SessionRevoked").await;
    let http2 = before.over_http2();
    refused(&world, "over HTTP/2", http2.get("/app/echo"), 401, "SessionRevoked").await;
}

#[tokio::test]
async fn a_forged_session_id_ends_nobodys_session() {
    let world = World::start().await;
    let (alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    let sid = token_of(&alice).claims["sid"].clone();
    let forged = token_of(&carol).with_claim("sid", sid).text();
    let thief = carol.copy();
    thief.jar.set(TOKEN_COOKIE, &forged);
    thief.post("/auth/logout").own_page().send().await.expect_status(204);
    alice.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn a_cookie_borne_change_needs_the_proof() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let post = alice.post("/app/echo").bytes("x");
    refused(&world, "POST without proof", post, 403, "CsrfRejected").await;
    let foreign = alice.post("/app/echo").header("origin", "https://evil.example").bytes("x");
    refused(&world, "POST from elsewhere", foreign, 403, "CsrfRejected").await;
    for headers in [&[][..], &[("origin", "https://evil.example")][..]] {
        let (status, body) =
            websocket::open(&alice, "/app/ws", headers).await.expect_err("no WebSocket");
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("CsrfRejected"), "{body}");
    }
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_bearer_that_is_not_ours_is_refused_where_a_session_is_needed() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let foreign = Token {
        header: json!({"alg": "HS256", "typ": "JWT"}),
        claims: json!({"sub": "alice", "role": "super_admin"}),
        signature: vec![1, 2, 3],
    };
    for text in ["opaque", &foreign.text()] {
        let call = alice.get("/app/echo").bearer(text);
        refused(&world, text, call, 401, "InvalidToken").await;
    }
    let basic = alice.get("/app/echo").header("authorization", "Basic YTpi");
    basic.send().await.expect_status(200);
    assert_eq!(world.upstream.last().header("authorization"), Some("Basic YTpi"));
}

#[tokio::test]
async fn on_a_public_route_what_is_not_ours_passes_and_what_is_ours_does_not() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let stranger = world.client();
    stranger.get("/public/echo").bearer("opaque").send().await.expect_status(200);
    assert_eq!(world.upstream.last().header("authorization"), Some("Bearer opaque"));

    let mut broken = token_of(&alice);
    broken.signature[0] ^= 1;
    stranger.get("/public/echo").bearer(&broken.text()).send().await.expect_status(200);
    let seen = world.upstream.last();
    assert!(seen.all("authorization").is_empty(), "ours, valid or not, is never forwarded");
    assert!(seen.readable_as("x-auth-user").is_empty(), "and it is no identity");

    alice.get("/public/echo").send().await.expect_status(200);
    assert_eq!(world.upstream.last().header("x-auth-user"), Some(ADMIN));
}

#[tokio::test]
async fn a_gateway_without_its_own_key_knows_nobody_elses_tokens() {
    let (one, two) = (World::start().await, World::start().await);
    let alice = one.sign_in(ADMIN).await;
    let elsewhere = two.client();
    elsewhere.jar.set(TOKEN_COOKIE, &token_text(&alice));
    elsewhere.jar.set(CONTEXT_COOKIE, &context_of(&alice));
    refused(&two, "another gateway's token", elsewhere.get("/app/echo"), 401, "InvalidToken").await;
}
