//! The login as clients of other eras and makes expect it: other paths, other words
//! on failure, other cookie names.

use bindgate::config::LdapTransport;
use serde_json::json;

use crate::support::client::Client;
use crate::support::slapd::{PASSWORD, PEOPLE_WITHOUT_ROLE};
use crate::support::token::Token;
use crate::support::world::{
    ADMIN, CONTEXT_COOKIE, DEVICE_COOKIE, TOKEN_COOKIE, TRACER, World, shared_slapd,
};

/// `POST` as the client of the LDAP era sends it.
async fn log_in_at(
    client: &Client,
    path: &str,
    name: &str,
    password: &str,
) -> crate::support::client::Answer {
    let credentials = json!({ "username": name, "password": password });
    let call = client.post(path).header("x-requested-with", "XMLHttpRequest");
    call.json(&credentials).send().await
}

async fn world_with_alias() -> World {
    World::with(|setup| {
        setup
            .set("server", "login_aliases", "[\"/login\"]")
            .set("token", "delivery", "\"both\"")
            .set("throttle", "login_per_user", "\"3 per 15m\"")
            .more_routes(
                "[[route]]\npath = \"/**\"\naccess = \"public\"\nupstream = \"backend\"\n",
            );
    })
    .await
}

#[tokio::test]
async fn an_alias_logs_in_as_the_login_path_does_and_never_reaches_the_upstream() {
    let world = world_with_alias().await;
    let client = world.client();
    let answer = log_in_at(&client, "/login", TRACER, PASSWORD).await;
    answer.expect_status(200);
    let body = answer.json();
    assert_eq!((&body["id"], &body["role"]), (&json!(TRACER), &json!("contact_tracer")));
    let token = body["token"].as_str().expect("a token");
    assert_eq!(client.jar.get(TOKEN_COOKIE).as_deref(), Some(token));
    client.get("/app/echo").send().await.expect_status(200);
    let bearer = client.copy();
    bearer.jar.remove(TOKEN_COOKIE);
    bearer.get("/app/echo").bearer(token).send().await.expect_status(200);
    world.client().get("/login").send().await.expect(405, "MethodNotAllowed");
    assert!(world.upstream.seen_at("/login").is_empty());
}

#[tokio::test]
async fn an_alias_says_wrong_credentials_in_the_words_of_its_era() {
    let world = world_with_alias().await;
    for (name, password) in [(ADMIN, "wrong"), ("nobody-here", PASSWORD), (ADMIN, ""), ("", "x")] {
        let client = world.client();
        let answer = log_in_at(&client, "/login", name, password).await;
        answer.expect_status(401);
        assert_eq!(answer.json(), json!({ "message": "Invalid credentials." }), "{name:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.set_cookies().is_empty(), "{answer:?}");
        let answer = log_in_at(&client, "/auth/login", "nobody-there", password).await;
        answer.expect(401, "InvalidCredentials");
        let body = answer.json();
        assert_eq!(body["error_description"], body["message"]);
    }
    assert!(world.upstream.seen_at("/login").is_empty());
}

#[tokio::test]
async fn an_alias_says_everything_else_as_the_login_path_does() {
    let world = world_with_alias().await;
    let client = world.client();
    let answer = log_in_at(&client, "/login", PEOPLE_WITHOUT_ROLE[0], PASSWORD).await;
    answer.expect(403, "NoRole");
    assert!(answer.json()["error_description"].is_string());
    client.post("/login").bytes("?").send().await.expect(400, "BadRequest");
    client
        .post("/login")
        .header("origin", "https://evil.example")
        .send()
        .await
        .expect(403, "CsrfRejected");
    for _ in 0..3 {
        log_in_at(&client, "/login", TRACER, "wrong").await.expect_status(401);
    }
    // The alias shares its counters with the login path.
    let answer = log_in_at(&client, "/login", TRACER, PASSWORD).await;
    answer.expect(429, "TooManyAttempts");
    assert!(answer.header("retry-after").is_some());
    log_in_at(&client, "/auth/login", TRACER, PASSWORD).await.expect(429, "TooManyAttempts");
}

#[tokio::test]
async fn the_answer_and_the_token_say_what_the_configuration_adds() {
    let world = World::with(|setup| {
        setup
            .set("server", "login_aliases", "[\"/login\"]")
            .set("token", "delivery", "\"both\"")
            .set("token", "login_response", "{ maps_api_key = \"k\", flags = [1, { on = true }] }")
            .set(
                "token",
                "claims",
                "{ \"https://safeplaces.test/roles\" = [\"{role}\"], who = \"{sub} {attr:cn}\", \
                 none = \"{attr:mobile}\" }",
            );
    })
    .await;
    let client = world.client();
    for path in ["/auth/login", "/login", "/auth/refresh"] {
        let answer = log_in_at(&client, path, ADMIN, PASSWORD).await;
        answer.expect_status(200);
        let body = answer.json();
        assert_eq!(body["maps_api_key"], "k", "{path}");
        assert_eq!(body["flags"], json!([1, { "on": true }]), "{path}");
        assert_eq!((&body["id"], &body["role"]), (&json!(ADMIN), &json!("admin")));
        let text = body["token"].as_str().expect("a token");
        let token = Token::parse(text);
        assert_eq!(token.claims["https://safeplaces.test/roles"], json!(["admin"]));
        assert_eq!(token.claim("who"), "alice person");
        assert!(token.claims.get("none").is_none(), "{token:?}");
        assert_eq!(client.jar.get(TOKEN_COOKIE).as_deref(), Some(text));
        client.get("/app/echo").send().await.expect_status(200);
    }
}

#[tokio::test]
async fn the_subject_may_be_another_attribute_than_the_login_name() {
    let world = World::with(|setup| {
        let directory = shared_slapd().toml(LdapTransport::Tls);
        let by_uuid =
            directory.replace("subject_attribute = \"uid\"", "subject_attribute = \"entryUUID\"");
        assert_ne!(by_uuid, directory);
        setup.directory(&by_uuid);
    })
    .await;
    let client = world.client();
    let answer = log_in_at(&client, "/auth/login", TRACER, PASSWORD).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4), "a UUID: {id}");
    client.get("/app/echo").send().await.expect_status(200);
    let seen = world.upstream.last();
    assert_eq!(seen.header("x-auth-user"), Some(id.as_str()));
    assert_eq!(client.get("/auth/session").send().await.json()["sub"], json!(id));
}

#[tokio::test]
async fn cookies_may_have_the_names_that_a_backend_knew() {
    let world = World::with(|setup| {
        setup.set("cookie", "token_name", "\"access_token\"");
    })
    .await;
    let client = world.client();
    let answer = log_in_at(&client, "/auth/login", TRACER, PASSWORD).await;
    let cookies = answer.set_cookies();
    let [token] = cookies
        .iter()
        .filter(|cookie| cookie.starts_with("access_token="))
        .collect::<Vec<_>>()
        .try_into()
        .expect("one token cookie");
    for attribute in ["; HttpOnly", "; Secure", "; Path=/", "; SameSite=Strict"] {
        assert!(token.contains(attribute), "{token}");
    }
    assert!(client.jar.get(CONTEXT_COOKIE).is_some());
    assert!(client.jar.get(TOKEN_COOKIE).is_none());
    client.get("/app/echo").send().await.expect_status(200);
    let seen = world.upstream.last();
    assert_eq!(seen.readable_as("X-Auth-User"), [("X-Auth-User", TRACER)]);
    assert!(seen.all("cookie").is_empty(), "our cookies stay here: {seen:?}");

    // A cookie of that name that somebody planted is a second token, not another session.
    let planted = client.copy();
    let mine = client.jar.get("access_token").expect("a token");
    let context = client.jar.get(CONTEXT_COOKIE).expect("a context");
    let both = format!("access_token=planted; access_token={mine}; {CONTEXT_COOKIE}={context}");
    let answer = planted.get("/app/echo").without_cookies().header("cookie", both).send().await;
    answer.expect(401, "InvalidToken");

    let answer =
        client.get("/auth/logout").header("x-requested-with", "XMLHttpRequest").send().await;
    answer.expect_status(204);
    assert_eq!(answer.header("clear-site-data"), Some("\"cache\", \"storage\""));
    assert!(answer.body.is_empty());
    assert_eq!(client.jar.names(), [DEVICE_COOKIE], "cleared: {:?}", answer.set_cookies());
    client.jar.set("access_token", &mine);
    client.jar.set(CONTEXT_COOKIE, &context);
    client.get("/app/echo").send().await.expect(401, "SessionRevoked");
}
