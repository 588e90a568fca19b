//! The guards of the published Safe Places backends, run by Node behind the configuration
//! that we publish for them: each role may do what the table says, and nothing that a
//! client makes up reaches them.

mod era;
mod forged;
mod site;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::node::{Service, values};
use crate::support::world::{ADMIN, DEVICE_COOKIE, SUPER_ADMIN, TRACER};

use site::{Mode, Site};

const PEOPLE: [(&str, &str); 3] =
    [(TRACER, "contact_tracer"), (ADMIN, "admin"), (SUPER_ADMIN, "super_admin")];

/// Who may do something.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Everybody,
    AnyRole,
    Admins,
    SuperAdmins,
}

impl Who {
    fn has(self, role: &str) -> bool {
        match self {
            Self::Everybody | Self::AnyRole => true,
            Self::Admins => role != "contact_tracer",
            Self::SuperAdmins => role == "super_admin",
        }
    }
}

/// The policy of the backend v2.1.0.
const BACKEND: [(&str, &str, Who); 12] = [
    ("GET", "/health", Who::Everybody),
    ("GET", "/organization", Who::AnyRole),
    ("GET", "/organization/configuration", Who::AnyRole),
    ("PUT", "/organization/configuration", Who::Admins),
    ("POST", "/organization/case", Who::AnyRole),
    ("GET", "/organization/cases", Who::AnyRole),
    ("POST", "/access-code", Who::AnyRole),
    ("PUT", "/case", Who::AnyRole),
    ("POST", "/case/consent-to-publishing", Who::AnyRole),
    ("POST", "/case/stage", Who::AnyRole),
    ("POST", "/case/delete", Who::AnyRole),
    ("POST", "/cases/publish", Who::Admins),
];

/// Its management of users, which v1.0.0 has not.
const USERS: [(&str, &str, Who); 8] = [
    ("GET", "/auth/users/reflect", Who::SuperAdmins),
    ("POST", "/auth/users/list", Who::SuperAdmins),
    ("POST", "/auth/users/get", Who::SuperAdmins),
    ("POST", "/auth/users/create", Who::SuperAdmins),
    ("POST", "/auth/users/delete", Who::SuperAdmins),
    ("POST", "/auth/users/assign-role", Who::SuperAdmins),
    ("POST", "/auth/users/reset-mfa", Who::SuperAdmins),
    ("POST", "/auth/users/reset-password", Who::SuperAdmins),
];

/// The translation service.
const POINTS: [(&str, &str, Who); 7] = [
    ("POST", "/case/points", Who::AnyRole),
    ("POST", "/cases/points", Who::AnyRole),
    ("POST", "/case/points/ingest", Who::AnyRole),
    ("POST", "/case/points/delete", Who::AnyRole),
    ("POST", "/case/point", Who::AnyRole),
    ("PUT", "/case/point", Who::AnyRole),
    ("PUT", "/case/points", Who::AnyRole),
];

/// As the web app calls.
async fn call(client: &Client, method: &str, path: &str) -> crate::support::client::Answer {
    let call = client.call(method, path).header("x-requested-with", "XMLHttpRequest");
    if method == "GET" { call.send().await } else { call.json(&json!({ "id": 1 })).send().await }
}

/// Every row, as every role, in both of its services.
async fn each_role_does_what_it_may(era: &str, mode: Mode) {
    let mut site = Site::start(era, mode).await;
    let users: &[_] = if era == "v1" { &[] } else { &USERS };
    for (person, role) in PEOPLE {
        let client = site.sign_in(person).await;
        for (method, path, who) in BACKEND.iter().chain(users) {
            let expected = json!({ "user": person, "role": role });
            let row = (*method, *path, *who);
            check_row(&client, row, (role, &expected), &site.backend).await;
        }
        for row in POINTS {
            let expected = json!({ "user": person, "role": null });
            check_row(&client, row, (role, &expected), &site.translation).await;
        }
    }
    assert!(site.backend.is_alive() && site.translation.is_alive());
}

async fn check_row(
    client: &Client,
    (method, path, who): (&str, &str, Who),
    (role, expected): (&str, &Value),
    service: &Service,
) {
    let before = service.seen().await.len();
    let answer = call(client, method, path).await;
    let after = service.seen().await.len();
    let what = format!("{method} {path} as {role}");
    if !who.has(role) {
        answer.expect(403, "Forbidden");
        assert_eq!(after, before, "{what} does not even arrive");
        return;
    }
    assert_eq!(answer.status, 200, "{what}: {:?}", answer.body);
    assert_eq!(after, before + 1, "{what}");
    if who != Who::Everybody {
        assert_eq!(answer.json(), *expected, "{what}");
        let seen = service.last().await;
        assert_eq!(values(&seen, "x-requested-with"), ["XMLHttpRequest"], "{what}");
        assert_eq!(token_cookies(&seen).len(), 1, "{what}: {seen}");
    }
}

/// The values of all cookies that some parser could take for the guard's, by name.
fn token_cookies(seen: &Value) -> Vec<(String, String)> {
    let headers = values(seen, "cookie");
    let pairs = headers.iter().flat_map(|header| header.split([';', ',']));
    pairs
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| ["access_token", "auth_token"].contains(&name.as_str()))
        .collect()
}

#[tokio::test]
async fn each_role_does_what_it_may_at_v2_with_a_shared_secret() {
    each_role_does_what_it_may("v2", Mode::Secret).await;
}

#[tokio::test]
async fn each_role_does_what_it_may_at_v2_with_our_key_set() {
    each_role_does_what_it_may("v2", Mode::KeySet).await;
}

#[tokio::test]
async fn each_role_does_what_it_may_at_v1_with_a_shared_secret() {
    each_role_does_what_it_may("v1", Mode::Secret).await;
}

#[tokio::test]
async fn each_role_does_what_it_may_at_v1_with_our_key_set() {
    each_role_does_what_it_may("v1", Mode::KeySet).await;
}

#[tokio::test]
async fn the_guard_itself_reads_the_role_that_we_state() {
    // A gateway that would let every role do everything: then the guard says no.
    for era in ["v2", "v1"] {
        let site = Site::with(era, Mode::KeySet, |text| site::wide_open(&text)).await;
        for (person, role) in PEOPLE {
            let client = site.sign_in(person).await;
            for (method, path, who) in BACKEND {
                let answer = call(&client, method, path).await;
                let expected = if who.has(role) { 200 } else { 403 };
                assert_eq!(answer.status, expected, "{era}: {method} {path} as {role}");
                if expected == 403 {
                    assert_eq!(answer.text(), "Forbidden", "in the guard's words");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_web_app_logs_in_and_out_as_it_did() {
    let site = Site::start("v2", Mode::KeySet).await;
    let client = site.client();
    let wrong = site::log_in(&client, ADMIN, "wrong").await;
    wrong.expect(401, "InvalidCredentials");
    assert!(wrong.json()["error_description"].is_string());
    let answer = site::log_in(&client, ADMIN, crate::support::slapd::PASSWORD).await;
    answer.expect_status(200);
    assert_eq!((&answer.json()["id"], &answer.json()["role"]), (&json!(ADMIN), &json!("admin")));
    call(&client, "GET", "/organization").await.expect_status(200);
    let stale = client.copy();
    let answer = call(&client, "GET", "/auth/logout").await;
    answer.expect_status(204);
    assert_eq!(answer.header("clear-site-data"), Some("\"cache\", \"storage\""));
    assert_eq!(client.jar.names(), [DEVICE_COOKIE]);
    let before = site.backend.seen().await.len();
    call(&stale, "GET", "/organization").await.expect(401, "SessionRevoked");
    assert_eq!(site.backend.seen().await.len(), before);
}

#[tokio::test]
async fn phones_reach_ingest_and_guesses_end_at_the_budget() {
    let site = Site::start("v2", Mode::KeySet).await;
    let phone = site.client().for_host(crate::support::setup::OTHER_HOST);
    phone.get("/health").send().await.expect_status(200);
    phone.get("/organization/configuration").send().await.expect_status(200);
    phone.post("/auth/login").send().await.expect(404, "NoRoute");
    call(&phone, "POST", "/access-code").await.expect(404, "NoRoute");
    phone.jar.set("access_token", "mine");
    for _ in 0..5 {
        call(&phone, "POST", "/access-code/valid").await.expect_status(200);
        assert!(token_cookies(&site.ingest.last().await).is_empty());
    }
    let before = site.ingest.seen().await.len();
    let answer = call(&phone, "POST", "/access-code/valid").await;
    answer.expect_status(429);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(site.ingest.seen().await.len(), before);
}
