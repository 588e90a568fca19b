//! Pages of other origins: those that are named may call with credentials, and the
//! gateway alone says so; everybody else gets nothing.

use crate::support::client::{Answer, Client};
use crate::support::setup::Setup;
use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, World};
use serde_json::json;

const APP: &str = "https://app.test";
const EVIL: &str = "https://evil.example";

fn cors(setup: &mut Setup) {
    setup
        .set("server", "cors_origins", "[\"https://App.test:443\", \"https://other.test:8443\"]")
        .set("cookie", "same_site", "\"none\"");
}

async fn preflight(client: &Client, target: &str, (origin, method): (&str, &str)) -> Answer {
    let call = client.call("OPTIONS", target).header("origin", origin);
    let call = call.header("access-control-request-method", method);
    call.header("access-control-request-headers", "content-type,x-requested-with").send().await
}

#[track_caller]
fn says_nothing(answer: &Answer) {
    let names = answer.headers.keys().map(http::HeaderName::as_str);
    let told: Vec<_> = names.filter(|name| name.starts_with("access-control-")).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[track_caller]
fn lets_read(answer: &Answer, origin: &str) {
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    let mut vary = answer.headers.get_all("vary").iter();
    assert!(vary.any(|value| value == "Origin"));
}

#[tokio::test]
async fn a_preflight_of_a_named_origin_is_answered_here() {
    let world = World::with(cors).await;
    for client in [world.client(), world.client().over_http2()] {
        for (target, method, granted) in [
            ("/app/echo", "GET", "GET"),
            ("/app/echo", "DELETE", "DELETE"),
            ("/public/echo", "POST", "POST"),
            ("/organization/configuration", "PUT", "PUT"),
            ("/auth/login", "POST", "POST"),
            ("/auth/login", "PUT", "POST"),
            ("/auth/session", "GET", "GET"),
        ] {
            for origin in [APP, "https://other.test:8443"] {
                let answer = preflight(&client, target, (origin, method)).await;
                answer.expect_status(204);
                lets_read(&answer, origin);
                assert_eq!(answer.header("access-control-allow-methods"), Some(granted));
                let headers = answer.header("access-control-allow-headers");
                assert_eq!(headers, Some("content-type,x-requested-with"));
                assert_eq!(answer.header("access-control-max-age"), Some("600"));
                assert!(answer.body.is_empty());
            }
        }
        let none = preflight(&client, "/organization/configuration", (APP, "DELETE")).await;
        none.expect(404, "NoRoute");
        preflight(&client, "/nowhere", (APP, "GET")).await.expect(404, "NoRoute");
    }
    assert!(world.upstream.seen().is_empty(), "no preflight is forwarded");
}

#[tokio::test]
async fn a_preflight_of_any_other_origin_gets_nothing_and_goes_nowhere() {
    let world = World::with(cors).await;
    let client = world.client();
    for origin in [
        EVIL,
        "null",
        "http://app.test",
        "https://app.test:8443",
        "https://app.test.evil.example",
        "https://APP.test",
        "https://app.test/",
        "*",
    ] {
        for target in ["/app/echo", "/public/echo", "/auth/login"] {
            let answer = preflight(&client, target, (origin, "POST")).await;
            answer.expect(403, "CsrfRejected");
            says_nothing(&answer);
        }
    }
    let odd = client.call("OPTIONS", "/app/echo").header("origin", APP);
    let odd = odd.header("access-control-request-method", "PUT");
    let odd = odd.header("access-control-request-headers", "a b, c\u{e9}").send().await;
    odd.expect_status(204);
    assert!(odd.header("access-control-allow-headers").is_none());
    let plain = client.call("OPTIONS", "/app/echo").header("origin", APP).send().await;
    plain.expect(401, "Unauthenticated");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_named_page_signs_in_calls_and_reads_its_refusals() {
    let world = World::with(cors).await;
    let page = world.client();
    let refused = page.get("/app/echo").header("origin", APP).send().await;
    refused.expect(401, "Unauthenticated");
    lets_read(&refused, APP);
    let credentials = json!({ "username": ADMIN, "password": PASSWORD });
    let login = page.post("/auth/login").header("origin", APP).json(&credentials).send().await;
    login.expect_status(200);
    lets_read(&login, APP);
    for method in ["GET", "POST", "DELETE"] {
        let call = page.call(method, "/app/echo").header("origin", APP);
        let answer = call.header("sec-fetch-site", "cross-site").send().await;
        answer.expect_status(200);
        lets_read(&answer, APP);
    }
    let refresh = page.post("/auth/refresh").header("origin", APP).send().await;
    refresh.expect_status(200);
    let forged = page.post("/app/echo").header("origin", EVIL).send().await;
    forged.expect(403, "CsrfRejected");
    says_nothing(&forged);
    let logout = page.post("/auth/logout").header("origin", APP).send().await;
    logout.expect_status(204);
    lets_read(&logout, APP);
}

const LAX: &str = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n\
                   Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Headers: x\r\n\
                   Vary: Accept-Encoding\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn an_upstream_lets_nobody_in() {
    let world = World::with(cors).await;
    world.upstream.answer("/public/lax", LAX);
    let client = world.client();
    let foreign = client.get("/public/lax").header("origin", EVIL).send().await;
    foreign.expect_status(200);
    says_nothing(&foreign);
    let vary: Vec<_> = foreign.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Accept-Encoding", "Origin"]);
    let named = client.get("/public/lax").header("origin", APP).send().await;
    lets_read(&named, APP);
    assert!(named.header("access-control-allow-headers").is_none());
}

#[tokio::test]
async fn without_named_origins_the_upstream_speaks_for_itself() {
    let world = World::start().await;
    world.upstream.answer("/public/lax", LAX);
    let client = world.client();
    let answer = client.get("/public/lax").header("origin", EVIL).send().await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    preflight(&client, "/public/echo", (EVIL, "PUT")).await.expect_status(200);
    assert_eq!(world.upstream.last().method, "OPTIONS");
    let answer = preflight(&client, "/app/echo", (EVIL, "PUT")).await;
    answer.expect(401, "Unauthenticated");
    says_nothing(&answer);
}
