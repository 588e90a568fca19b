//! The LDAP era: `POST /login`, and a bearer token that passport verifies.

use serde_json::{Value, json};

use super::site::{SECRET, adapted, replaced};
use super::{BACKEND, POINTS, Who};
use crate::support::client::{Answer, Client};
use crate::support::gateway::Gateway;
use crate::support::node::{Service, values};
use crate::support::setup::Setup;
use crate::support::slapd::PASSWORD;
use crate::support::token::{Token, encode, sign};
use crate::support::world::{ADMIN, TRACER, shared_slapd};

const CONFIG: &str = include_str!("../../../config/safeplaces-ldap-era.toml");

async fn log_in(client: &Client, name: &str, password: &str) -> Answer {
    let credentials = json!({ "username": name, "password": password });
    let call = client.post("/login").header("x-requested-with", "XMLHttpRequest");
    call.json(&credentials).send().await
}

async fn call(client: &Client, method: &str, path: &str, bearer: Option<&str>) -> Answer {
    let mut call = client.call(method, path);
    if let Some(bearer) = bearer {
        call = call.bearer(bearer);
    }
    if method == "GET" { call.send().await } else { call.json(&json!({})).send().await }
}

#[tokio::test]
async fn the_ldap_eras_backend_and_clients_work_as_they_did() {
    let slapd = shared_slapd();
    let mut service = Service::start("ldap").await;
    let mut setup = Setup::new("", "http://127.0.0.1:1");
    let text = replaced(
        &adapted(CONFIG, &setup, &slapd),
        "/run/secrets/safeplaces-jwt",
        &setup.path("jwt").display().to_string(),
    );
    setup.whole(replaced(&text, "http://127.0.0.1:3000", &service.url()));
    let gateway = Gateway::start(setup).await;
    service.configure(&json!({ "NODE_ENV": "production", "JWT_SECRET": SECRET })).await;

    let answer = log_in(&gateway.client(), ADMIN, "wrong").await;
    answer.expect_status(401);
    assert_eq!(answer.json(), json!({ "message": "Invalid credentials." }));

    for (person, role) in [(ADMIN, "admin"), (TRACER, "contact_tracer")] {
        let client = gateway.client();
        let answer = log_in(&client, person, PASSWORD).await;
        answer.expect_status(200);
        let token = answer.json()["token"].as_str().expect("a token").to_owned();
        assert_eq!(answer.json()["maps_api_key"], "the key of the maps service");
        for (method, path, who) in BACKEND.iter().chain(&POINTS) {
            let before = service.seen().await.len();
            let answer = call(&client, method, path, Some(&token)).await;
            if !who.has(role) {
                answer.expect(403, "Forbidden");
                assert_eq!(service.seen().await.len(), before, "{method} {path}");
            } else if (*method, *path) == ("PUT", "/case/points") {
                // The backend of this era had no such route.
                answer.expect(404, "NoRoute");
            } else {
                answer.expect_status(200);
                if *who != Who::Everybody {
                    check_bearer(&service.last().await, &token, person);
                }
            }
        }
        nothing_else_is_a_session(&client, &service, &token).await;
    }
    assert!(service.is_alive());
}

/// The service got one bearer, ours for it, and not the client's.
fn check_bearer(seen: &Value, token: &str, person: &str) {
    let sent = values(seen, "authorization");
    let [bearer] = sent.as_slice() else { panic!("{seen}") };
    let bearer = bearer.strip_prefix("Bearer ").expect("a bearer");
    assert_ne!(bearer, token, "ours is for us alone");
    assert_eq!(Token::parse(bearer).claim("sub"), person);
    assert_eq!(seen["handled"], json!({ "user": person }));
}

async fn nothing_else_is_a_session(client: &Client, service: &Service, token: &str) {
    let before = service.seen().await.len();
    let claims = json!({ "sub": ADMIN, "iat": 1_700_000_000, "exp": 4_000_000_000_u32 });
    let header = encode(json!({ "alg": "HS256", "typ": "JWT" }).to_string());
    let payload = encode(claims.to_string());
    let forged = sign(&format!("{header}.{payload}"), SECRET.as_bytes());
    let (method, path) = ("GET", "/organization");
    for bearer in [None, Some("garbage"), Some(forged.as_str())] {
        for client in [client, &client.stranger()] {
            assert_eq!(call(client, method, path, bearer).await.status, 401, "{bearer:?}");
        }
    }
    // Its own token, without the cookie that it is bound to.
    let answer = call(&client.stranger(), method, path, Some(token)).await;
    answer.expect(401, "ContextMismatch");
    assert_eq!(service.seen().await.len(), before);
}
