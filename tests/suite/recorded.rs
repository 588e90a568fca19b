//! What the audit log tells of whom, beyond the one walk through everything.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use bindgate::config::LdapTransport;
use serde_json::{Value, json};

use crate::support::client::Protocol;
use crate::support::eventually;
use crate::support::redis::RedisServer;
use crate::support::relay::{Mood, Relay};
use crate::support::several::{Several, keep_no_more};
use crate::support::slapd::PASSWORD;
use crate::support::world::{
    ADMIN, TRACER, World, directory_through, log_in, shared_slapd, token_of,
};

/// Waits until the log holds a record like this.
async fn record(log: &Path, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let mut records = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        records.find(|record: &Value| fits(record))
    })
    .await
}

#[tokio::test]
async fn who_was_refused_for_their_role_or_for_lack_of_proof_is_named() {
    let world = World::start().await;
    let carol = world.sign_in(TRACER).await;
    let session = token_of(&carol).claim("sid").to_owned();
    carol.get("/super/echo").send().await.expect(403, "Forbidden");
    carol.post("/app/echo").send().await.expect(403, "CsrfRejected");
    let log = world.gateway.setup.audit_file();
    for code in ["Forbidden", "CsrfRejected"] {
        let found = record(&log, code, |record| record["outcome"] == code).await;
        assert_eq!(found["event"], "refusal");
        assert_eq!(found["subject"], TRACER, "{found}");
        assert_eq!(found["role"], "contact_tracer", "{found}");
        assert_eq!(found["session"], session, "{found}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_recorded_for_its_account_and_an_invented_name_is_not_written() {
    let world = World::start().await;
    let client = world.client();
    log_in(&client, TRACER, "wrong").await.expect(401, "InvalidCredentials");
    log_in(&client, "nobody-of-that-name", "wrong").await.expect(401, "InvalidCredentials");
    let log = world.gateway.setup.audit_file();
    let wrong = record(&log, "the login", |it| it["outcome"] == "wrong_password").await;
    let account = wrong["subject"].as_str().expect("the account");
    assert!(account.contains(&format!("uid={TRACER},")), "{wrong}");
    assert!(wrong.get("name_hash").is_none(), "{wrong}");
    let invented = record(&log, "the login", |it| it["outcome"] == "no_such_user").await;
    assert!(invented.get("subject").is_none() && invented["name_hash"].is_string(), "{invented}");
}

#[tokio::test]
async fn a_login_whose_session_the_store_does_not_keep_is_recorded_as_none() {
    let redis = RedisServer::start(&[]);
    let all = Several::on(&redis, 1).await;
    all.sign_in(TRACER).await;
    keep_no_more(&redis);
    let client = all.gateways[0].client();
    log_in(&client, TRACER, PASSWORD).await.expect(503, "StoreUnavailable");
    let cookies = client.jar.header();
    assert!(cookies.is_none(), "nothing for the client: {cookies:?}");
    let log = all.gateways[0].setup.audit_file();
    let failed = record(&log, "the failure", |it| it["outcome"] == "store_unavailable").await;
    let text = fs::read_to_string(&log).expect("the audit log");
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let same = records.iter().filter(|it| it["session"] == failed["session"]);
    let same: Vec<_> = same.map(|it| json!([it["event"], it["outcome"], it["status"]])).collect();
    assert_eq!(
        same,
        [json!(["login", "ok", 200]), json!(["login", "store_unavailable", 503])],
        "the last one counts"
    );
    let metrics = all.gateways[0].metrics().await;
    let count = |outcome| metrics.sum("bindgate_logins_total", &[("result", outcome)]).to_string();
    assert_eq!([count("ok"), count("store_unavailable")], ["1", "1"]);
}

#[tokio::test]
async fn what_another_proxy_was_told_is_recorded_as_the_request_it_asked_about() {
    let world = World::with(|setup| {
        setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    for (path, status) in [("/admin/x?y=secret", 204), ("/super/x", 403)] {
        let call = alice.get("/auth/verify").header("x-forwarded-method", "GET");
        let call = call.header("x-forwarded-host", "gateway.test").header("x-forwarded-uri", path);
        call.send().await.expect_status(status);
    }
    let log = world.gateway.setup.audit_file();
    let allowed = record(&log, "the question", |record| record["path"] == "/admin/x").await;
    assert_eq!((&allowed["event"], &allowed["outcome"]), (&"request".into(), &"verified".into()));
    assert_eq!((&allowed["subject"], &allowed["route"]), (&ADMIN.into(), &"/admin/**".into()));
    let refused = record(&log, "the refusal", |record| record["path"] == "/super/x").await;
    assert_eq!((&refused["outcome"], &refused["subject"]), (&"Forbidden".into(), &ADMIN.into()));
}

#[tokio::test]
async fn keys_made_and_replaced_at_the_start_are_recorded() {
    let mut world = World::start().await;
    world.sign_in(ADMIN).await;
    let log = world.gateway.setup.audit_file();
    record(&log, "the first keys", |it| it["event"] == "keys" && it["outcome"] == "made").await;
    world.gateway.kill();
    fs::remove_file(world.gateway.setup.path("state.redb")).expect("the store");
    world.gateway.restart().await;
    record(&log, "new keys", |it| it["event"] == "keys" && it["outcome"] == "replaced").await;
    assert!(!fs::read_to_string(&log).expect("the log").contains(PASSWORD));
}

#[tokio::test]
async fn a_reload_is_recorded_whether_it_was_applied_or_not() {
    let world = World::start().await;
    let log = world.gateway.setup.audit_file();
    world.gateway.signal("HUP");
    record(&log, "a reload", |it| it["event"] == "reload" && it["outcome"] == "success").await;
    world.gateway.setup.write("bindgate.toml", "[server]\nlisten = 7\n");
    world.gateway.signal("HUP");
    record(&log, "a bad one", |it| it["event"] == "reload" && it["outcome"] == "refused").await;
}

/// Directories read many spellings as one name.
#[tokio::test]
async fn no_spelling_of_a_name_gets_around_the_limit_of_its_account() {
    let world = World::start().await;
    let client = world.client();
    // Full-width letters are the plain ones to caseIgnoreMatch (RFC 4518 section 2.3).
    for name in ["nina", "\u{ff4e}ina", "n\u{ff49}na", "ni\u{ff4e}a", "nin\u{ff41}"] {
        log_in(&client, name, "wrong").await.expect(401, "InvalidCredentials");
    }
    // A name that nobody has is answered so too: nothing tells that this one has an account.
    for name in ["ni\u{ff4e}\u{ff41}", "\u{ff4e}\u{ff49}na"] {
        log_in(&client, name, PASSWORD).await.expect(401, "InvalidCredentials");
    }
    let rule = [("rule", "login_per_user")];
    world.gateway.counted("bindgate_throttled_total", &rule, 2.0).await;
    log_in(&client, TRACER, PASSWORD).await.expect_status(200);
}

#[tokio::test]
async fn a_signal_right_after_the_ready_line_drains() {
    for _ in 0..3 {
        let mut world = World::start().await;
        world.gateway.signal("TERM");
        assert_eq!(world.gateway.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_forwarded_request_is_recorded_also_when_its_client_does_not_wait() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::start().await;
        let alice = world.sign_in(ADMIN).await.over(protocol);
        let request = alice.get("/app/hold?who=left").build();
        let mut connection = alice.connect().await.expect("a connection");
        let sending = tokio::spawn(async move { connection.send(request).await.map(drop) });
        world.upstream.held(1).await;
        sending.abort();
        let log = world.gateway.setup.audit_file();
        let left = record(&log, "the client left", |it| it["outcome"] == "client_gone").await;
        assert_eq!(left["path"], "/app/hold");
        assert_eq!(left["subject"], ADMIN);
        world.upstream.release();
    }
}

#[tokio::test]
async fn a_login_is_recorded_also_when_its_client_does_not_wait() {
    let slapd = shared_slapd();
    let server = SocketAddr::from(([127, 0, 0, 1], slapd.port(LdapTransport::Tls)));
    let relay = Relay::to(server).await;
    let directory = directory_through(&slapd, LdapTransport::Tls, relay.address);
    let world = World::with(|setup| {
        setup.directory(&directory);
    })
    .await;
    world.gateway.readiness(200).await;
    let before = relay.opened();
    let client = world.client();
    let login = json!({ "username": TRACER, "password": PASSWORD });
    let request = client.post("/auth/login").json(&login).build();
    let mut connection = client.connect().await.expect("a connection");
    let sending = tokio::spawn(async move { connection.send(request).await.map(drop) });
    // The bind's connection: the login is under way, and now waits for the directory.
    eventually("the bind's connection", || (relay.opened() > before).then_some(())).await;
    relay.becomes(Mood::Stall);
    sending.abort();
    relay.becomes(Mood::Well);
    let log = world.gateway.setup.audit_file();
    let login = record(&log, "the login", |it| it["event"] == "login").await;
    assert_eq!(login["subject"], TRACER, "{login}");
}
