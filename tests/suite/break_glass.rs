//! Emergency accounts: nobody while the directory answers, short and loud while it does
//! not, and over when it is back.

mod alike;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use bindgate::config::LdapTransport;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;
use crate::support::saboteur::{Fault, Point, Saboteur};
use crate::support::setup::Setup;
use crate::support::several::{keep_no_more, share, url};
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::upstream::Upstream;
use crate::support::users::{Person, users_toml};
use crate::support::world::{ADMIN, DEVICE_COOKIE, TRACER, directory_through, log_in};
use crate::support::{eventually, eventually_async, within};

/// The emergency account's password.
const SECRET: &str = "sealed in an envelope";
const OPS: Person<'static> =
    Person { name: "Ops", password: SECRET, roles: "\"super_admin\"", more: "" };

/// A gateway before a directory of its own, with one emergency account.
struct Scene {
    gateway: Gateway,
    upstream: Upstream,
    slapd: Slapd,
}

/// What such a gateway is started from.
async fn setup(slapd: &Slapd) -> (Setup, Upstream) {
    setup_through(slapd, ([127, 0, 0, 1], slapd.port(LdapTransport::Tls)).into()).await
}

/// The same, with the directory at this address.
async fn setup_through(slapd: &Slapd, address: SocketAddr) -> (Setup, Upstream) {
    let upstream = Upstream::start().await;
    let mut setup = Setup::new("", &upstream.url());
    setup.write("emergency.toml", &users_toml(&[OPS]));
    let file = setup.path("emergency.toml").display().to_string();
    let directory = directory_through(slapd, LdapTransport::Tls, address);
    let directory = directory.replace("timeout = \"5s\"", "timeout = \"1s\"");
    setup.directory(&format!("{directory}\n[directory.break_glass]\nusers_file = {file:?}\n"));
    setup.set("throttle", "login_per_address", "\"1000 per 5m\"");
    setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
    (setup, upstream)
}

impl Scene {
    async fn start() -> Self {
        let slapd = Slapd::start();
        let (setup, upstream) = setup(&slapd).await;
        let gateway = Gateway::start(setup).await;
        gateway.readiness(200).await;
        Self { gateway, upstream, slapd }
    }

    /// The directory goes, and the gateway has noticed.
    async fn directory_goes(&mut self) {
        self.slapd.stop();
        goes_unanswered(&self.gateway).await;
    }

    fn client(&self) -> Client {
        self.gateway.client()
    }

    /// A browser in which the emergency account has just signed in.
    async fn sign_in(&self) -> Client {
        let client = self.client();
        with_reason(&client, SECRET, json!("the directory burns")).await.expect_status(200);
        client
    }

    /// The audit records so far.
    fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.gateway.setup.audit_file()).expect("the audit log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    async fn logins(&self, result: &str) -> f64 {
        let metrics = self.gateway.metrics().await;
        metrics.sum("bindgate_break_glass_logins_total", &[("result", result)])
    }
}

/// Waits until the login page says that the directory does not answer.
async fn goes_unanswered(gateway: &Gateway) {
    gateway.readiness(503).await;
    eventually_async("the page asks for a reason", async || {
        page(&gateway.client()).await.contains("name=\"reason\"").then_some(())
    })
    .await;
}

async fn page(client: &Client) -> String {
    client.get("/auth/").navigation().send().await.text().to_owned()
}

async fn with_reason(client: &Client, password: &str, reason: Value) -> Answer {
    let body = json!({ "username": "ops", "password": password, "reason": reason });
    client.post("/auth/login").own_page().json(&body).send().await
}

/// Waits until this browser's session has ended.
async fn is_ended(client: &Client) {
    eventually_async("the end of the session", async || {
        let answer = client.get("/auth/session").send().await;
        (answer.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_emergency_account_is_nobody_while_the_directory_answers() {
    let scene = Scene::start().await;
    let client = scene.client();
    let ops = with_reason(&client, SECRET, json!("just so")).await;
    let nobody = log_in(&client, "nobody at all", SECRET).await;
    ops.expect(401, "InvalidCredentials");
    assert_eq!(ops.body, nobody.body, "the very answer of an unknown user");
    let names = |answer: &Answer| -> Vec<String> {
        answer.headers.keys().map(|name| name.as_str().to_owned()).collect()
    };
    assert_eq!(names(&ops), names(&nobody));
    assert!(!page(&client).await.contains("reason"));
    let asked = [("operation", "user_search")];
    let asked = scene.gateway.metrics().await.sum("bindgate_directory_operations_total", &asked);
    assert!((asked - 2.0).abs() < 0.1, "the directory is asked as for everybody: {asked}");
    let compared = [("operation", "password_check")];
    let metrics = scene.gateway.metrics().await;
    assert!(metrics.sum("bindgate_directory_operations_total", &compared) < 0.1);
    assert!(metrics.sum("bindgate_break_glass_logins_total", &[]) < 0.1);
    // A reason that nobody asked for is ignored, whatever it is.
    for reason in [json!("x"), json!(7), json!(null), json!("x".repeat(5000))] {
        let body = json!({ "username": ADMIN, "password": PASSWORD, "reason": reason });
        let answer = scene.client().post("/auth/login").own_page().json(&body).send().await;
        answer.expect_status(200);
    }
}

#[tokio::test]
async fn while_the_directory_is_down_a_reason_opens_a_short_and_loud_session() {
    let mut scene = Scene::start().await;
    scene.directory_goes().await;
    let client = scene.client();
    log_in(&client, ADMIN, PASSWORD).await.expect(503, "DirectoryUnavailable");
    let asked = async || {
        let metrics = scene.gateway.metrics().await;
        ["user_search", "user_bind"].map(|operation| {
            let label = [("operation", operation)];
            metrics.sum("bindgate_directory_operations_total", &label).to_string()
        })
    };
    let asked_before = asked().await;
    with_reason(&client, "wrong", json!("x")).await.expect(503, "DirectoryUnavailable");
    for reason in [json!(null), json!(""), json!("  "), json!(7), json!("x".repeat(257))] {
        with_reason(&client, SECRET, reason).await.expect(401, "ReasonRequired");
    }
    assert!(client.jar.header().is_none(), "no cookie for a refusal");
    let ops = scene.sign_in().await;
    assert_eq!(asked().await, asked_before, "the directory hears nothing of it");
    ops.get("/super/echo").send().await.expect_status(200);
    assert_eq!(scene.upstream.last().header("x-auth-user"), Some("Ops"));
    assert_eq!(scene.upstream.last().header("x-auth-role"), Some("super_admin"));
    let session = ops.get("/auth/session").send().await.json();
    let lifetime = session["session_expires"].as_i64().zip(session["iat"].as_i64());
    let lifetime = lifetime.map(|(end, begin)| end - begin).expect("numbers");
    assert!((1790..=1800).contains(&lifetime), "half an hour: {lifetime}");

    for (result, count) in [("ok", 1.0), ("no_reason", 5.0), ("wrong_password", 1.0)] {
        let counted = scene.logins(result).await;
        assert!((counted - count).abs() < 0.1, "{result}: {counted}");
    }
    scene.gateway.counted("bindgate_break_glass_sessions_active", &[], 1.0).await;
    let records = scene.records();
    let loud: Vec<_> = records.iter().filter(|it| it["event"] == "break_glass").collect();
    assert_eq!(loud.len(), 7, "{loud:#?}");
    let opened = loud.iter().find(|it| it["outcome"] == "ok").expect("the login");
    assert_eq!(opened["detail"], "the directory burns");
    assert_eq!((&opened["subject"], &opened["role"]), (&json!("Ops"), &json!("super_admin")));
    let wrong = loud.iter().find(|it| it["outcome"] == "break_glass_wrong_password");
    let wrong = wrong.expect("the wrong password");
    assert_eq!((&wrong["subject"], &wrong["status"]), (&json!("ops"), &json!(503)));
    let outcome = [("result", "break_glass_wrong_password")];
    scene.gateway.counted("bindgate_logins_total", &outcome, 1.0).await;
    let text = fs::read_to_string(scene.gateway.setup.audit_file()).expect("the audit log");
    assert!(!text.contains(SECRET) && !scene.gateway.log().contains(SECRET));
    scene.gateway.logged("a login by an emergency account").await;
    assert!(scene.gateway.log().contains("the directory burns"), "heard in the log");
}

#[tokio::test]
async fn a_login_whose_session_the_store_does_not_keep_is_announced_as_none() {
    let (slapd, redis) = (Slapd::start(), RedisServer::start(&[]));
    let (mut setup, upstream) = setup(&slapd).await;
    share(&mut setup);
    setup.set("store", "urls", &url(redis.port));
    let gateway = Gateway::start(setup).await;
    gateway.readiness(200).await;
    let mut scene = Scene { gateway, upstream, slapd };
    scene.directory_goes().await;
    scene.sign_in().await;
    keep_no_more(&redis);
    let client = scene.client();
    with_reason(&client, SECRET, json!("once more")).await.expect(503, "StoreUnavailable");
    for result in ["ok", "store_unavailable"] {
        let counted = scene.logins(result).await;
        assert!((counted - 1.0).abs() < 0.1, "{result}: {counted}");
    }
    let log = eventually("the announcement", || {
        let log = scene.gateway.log();
        log.contains("once more").then_some(log)
    })
    .await;
    let told = |line: &&str| line.contains("a login by an emergency account");
    let told: Vec<_> = log.lines().filter(told).collect();
    let [first, second] = told.as_slice() else { panic!("one each: {told:?}") };
    assert!(first.contains("the directory burns") && first.contains("\"ok\""), "{first}");
    assert!(second.contains("once more"), "{second}");
    assert!(second.contains("\"store_unavailable\""), "{second}");
    let records = scene.records();
    let last = records.iter().rfind(|it| it["detail"] == "once more").expect("its record");
    let last = json!([last["event"], last["outcome"], last["status"]]);
    assert_eq!(last, json!(["break_glass", "store_unavailable", 503]));
}

#[tokio::test]
async fn the_return_of_the_directory_ends_emergency_sessions_for_good() {
    let mut scene = Scene::start().await;
    let alice = scene.client();
    log_in(&alice, ADMIN, PASSWORD).await.expect_status(200);
    scene.directory_goes().await;
    let ops = scene.sign_in().await;
    let events = scene.upstream.steps("/app/events", "text/event-stream");
    let mut stream = ops.get("/app/events").open().await.into_body();
    events.send(b"data: one\n\n".to_vec()).expect("the stream lives");
    stream.frame().await.expect("a frame").expect("a body");
    scene.slapd.resume();
    is_ended(&ops).await;
    ops.get("/app/echo").send().await.expect(401, "SessionRevoked");
    let ending = async { while let Some(Ok(_)) = stream.frame().await {} };
    within(Duration::from_secs(10), "the end of its stream", ending).await;
    alice.get("/app/echo").send().await.expect_status(200);
    let back = [("reason", "directory_back")];
    scene.gateway.counted("bindgate_sessions_revoked_total", &back, 1.0).await;
    eventually_async("no session of emergency accounts", async || {
        let metrics = scene.gateway.metrics().await;
        (metrics.sum("bindgate_break_glass_sessions_active", &[]) < 0.5).then_some(())
    })
    .await;
    eventually_async("the record of its end", async || {
        let ends = |it: &&Value| it["event"] == "revocation" && it["outcome"] == "directory_back";
        scene.records().iter().find(ends).map(|record| assert_eq!(record["subject"], "Ops"))
    })
    .await;
    with_reason(&scene.client(), SECRET, json!("again")).await.expect(401, "InvalidCredentials");
    assert!(!page(&scene.client()).await.contains("reason"));
    log_in(&scene.client(), ADMIN, PASSWORD).await.expect_status(200);

    scene.gateway.restart().await;
    let ops = Client { address: scene.gateway.https, ..ops };
    ops.get("/app/echo").send().await.expect(401, "SessionRevoked");
}

#[tokio::test]
async fn an_emergency_session_survives_a_restart_and_ends_with_the_emergency() {
    let mut scene = Scene::start().await;
    scene.directory_goes().await;
    let ops = scene.sign_in().await;
    scene.gateway.restart().await;
    let ops = Client { address: scene.gateway.https, ..ops };
    ops.get("/app/echo").send().await.expect_status(200);
    scene.gateway.counted("bindgate_break_glass_sessions_active", &[], 1.0).await;
    ops.get("/app/echo").send().await.expect_status(200);
    scene.slapd.resume();
    is_ended(&ops).await;
}

#[tokio::test]
async fn the_first_login_that_gets_no_answer_may_be_an_emergencys() {
    let mut scene = Scene::start().await;
    // Before the gateway has looked again: the directory is asked, and does not answer.
    scene.slapd.stop();
    let ops = scene.sign_in().await;
    goes_unanswered(&scene.gateway).await;
    ops.get("/app/echo").send().await.expect_status(200);
    scene.slapd.resume();
    is_ended(&ops).await;
}

#[tokio::test]
async fn an_account_of_the_same_name_keeps_what_the_directory_may_have_counted() {
    let slapd = Slapd::start();
    let server = SocketAddr::from(([127, 0, 0, 1], slapd.port(LdapTransport::Tls)));
    let relay = Saboteur::before(server).await;
    let (mut setup, _upstream) = setup_through(&slapd, relay.address).await;
    setup.write("emergency.toml", &users_toml(&[Person { name: TRACER, ..OPS }]));
    // A stranger has one try.
    setup.set("throttle", "directory_lockout", "\"3 per 30m\"");
    let gateway = Gateway::start(setup).await;
    gateway.readiness(200).await;
    log_in(&gateway.client(), ADMIN, PASSWORD).await.expect_status(200);
    relay.strikes(Point::AfterBind, Fault::Stall);
    let ops = gateway.client();
    let body = json!({ "username": TRACER, "password": SECRET, "reason": "no answer" });
    ops.post("/auth/login").own_page().json(&body).send().await.expect_status(200);
    assert!(ops.jar.get(DEVICE_COOKIE).is_none(), "it is not a device of the other account");
    relay.stops();
    assert_eq!(slapd.failed_binds("uid=carol,ou=people,dc=example,dc=org"), 1);
    let answer = eventually_async("the directory answers", async || {
        let answer = log_in(&gateway.client(), TRACER, PASSWORD).await;
        (answer.status != 503).then_some(answer)
    })
    .await;
    answer.expect(401, "InvalidCredentials");
}

#[tokio::test]
async fn an_emergency_account_that_changes_takes_its_sessions_with_it() {
    let mut scene = Scene::start().await;
    scene.directory_goes().await;
    let mut reloads = 0.0;
    for change in [
        Person { roles: "\"admin\"", ..OPS },
        Person { more: "disabled = true", ..OPS },
        Person { name: "other", ..OPS },
        OPS, // the same password, hashed anew
    ] {
        let ops = scene.sign_in().await;
        scene.gateway.setup.write("emergency.toml", &users_toml(&[change]));
        is_ended(&ops).await;
        scene.gateway.setup.write("emergency.toml", &users_toml(&[OPS]));
        reloads += 2.0;
        scene.gateway.counted("bindgate_users_file_reloads_total", &[], reloads).await;
    }
    let over = [("reason", "break_glass_over")];
    scene.gateway.counted("bindgate_sessions_revoked_total", &over, 4.0).await;
    // An account without a role could do nothing in an emergency.
    scene.gateway.setup.write("emergency.toml", &users_toml(&[Person { roles: "", ..OPS }]));
    let error = [("file", "break_glass"), ("result", "error")];
    scene.gateway.counted("bindgate_users_file_reloads_total", &error, 1.0).await;
    scene.sign_in().await;
}

#[tokio::test]
async fn a_disabled_emergency_account_and_too_many_failures_are_refused() {
    let mut scene = Scene::start().await;
    scene.directory_goes().await;
    let ops = Person { more: "disabled = true", ..OPS };
    scene.gateway.setup.write("emergency.toml", &users_toml(&[ops]));
    scene.gateway.counted("bindgate_users_file_reloads_total", &[], 1.0).await;
    let client = scene.client();
    with_reason(&client, SECRET, json!("x")).await.expect(403, "AccountUnavailable");
    for _ in 0..5 {
        with_reason(&client, "wrong", json!("x")).await.expect(503, "DirectoryUnavailable");
    }
    with_reason(&client, SECRET, json!("x")).await.expect(429, "TooManyAttempts");
    // One address refuses itself alone: here it is the account that answers.
    let body = json!({ "username": "ops", "password": SECRET, "reason": "x" });
    let elsewhere = client.post("/auth/login").own_page().header("x-forwarded-for", "192.0.2.7");
    elsewhere.json(&body).send().await.expect(403, "AccountUnavailable");
    let wrong = scene.logins("wrong_password").await;
    assert!((wrong - 5.0).abs() < 0.1, "{wrong}");
}

#[tokio::test]
async fn a_form_asks_for_the_reason_and_says_when_it_is_missing() {
    let mut scene = Scene::start().await;
    scene.directory_goes().await;
    let client = scene.client();
    let post = async |form: &str| {
        client.post("/auth/login").own_page().navigation().form(form).send().await
    };
    let answer = post("username=OPS&password=sealed+in+an+envelope&reason=&rd=%2Fapp%2Fecho").await;
    answer.expect_status(401);
    let text = answer.text();
    assert!(
        text.contains("must give a short reason") && text.contains("name=\"reason\""),
        "{text}"
    );
    let form = "username=OPS&password=sealed+in+an+envelope&reason=no+directory&rd=%2Fapp%2Fecho";
    let answer = post(form).await;
    answer.expect_status(303);
    assert_eq!(answer.header("location"), Some("/app/echo"));
    client.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn no_emergency_session_outlives_its_own_time() {
    let mut slapd = Slapd::start();
    let (mut setup, _upstream) = setup(&slapd).await;
    let directory = setup.toml();
    let (start, end) = directory.split_once("[directory]").expect("the section");
    assert!(!start.is_empty());
    let section = end.split("[[upstream]]").next().expect("its end");
    setup.directory(&format!("[directory]{section}session_lifetime = \"10m\"\n"));
    let (gateway, time) = Gateway::start_inside(setup).await;
    gateway.readiness(200).await;
    slapd.stop();
    goes_unanswered(&gateway).await;
    let ops = gateway.client();
    with_reason(&ops, SECRET, json!("no directory")).await.expect_status(200);
    time.advance(Duration::from_mins(9));
    ops.get("/app/echo").send().await.expect_status(200);
    ops.post("/auth/refresh").own_page().send().await.expect_status(200);
    time.advance(Duration::from_secs(61));
    assert_eq!(ops.get("/app/echo").send().await.status, 401);
    assert_eq!(ops.post("/auth/refresh").own_page().send().await.status, 401);
    eventually_async("none is left", async || {
        let active = gateway.metrics().await.sum("bindgate_break_glass_sessions_active", &[]);
        (active < 0.5).then_some(())
    })
    .await;
}
