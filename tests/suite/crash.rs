//! What outlives a crash: revocations and the audit chain; and what must not outlive
//! a lost store: tokens.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Output;

use serde_json::Value;

use crate::support::gateway::run;
use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, TRACER, World, context_of, log_in, token_of, token_text};
use crate::support::{eventually, setup::Setup};

fn verify(setup: &Setup) -> Output {
    let (config, log) = (setup.config_file(), setup.audit_file());
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    run(&["audit", "verify", "--config", &text(&config), &text(&log)])
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn records(setup: &Setup) -> Vec<Value> {
    let text = fs::read_to_string(setup.audit_file()).expect("the audit log");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

#[tokio::test]
async fn what_was_logged_out_stays_logged_out_after_kill_9() {
    let mut world = World::start().await;
    let (alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    let ended = alice.copy();
    alice.post("/auth/logout").own_page().send().await.expect_status(204);
    world.gateway.kill();
    world.gateway.restart().await;
    let at = world.gateway.https;
    let moved = |client: &crate::support::client::Client| {
        let mut client = client.clone();
        client.address = at;
        client
    };
    moved(&ended).get("/app/echo").send().await.expect(401, "SessionRevoked");
    moved(&carol).get("/app/echo").send().await.expect_status(200);
    assert_eq!(world.upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_lost_store_kills_every_old_token() {
    let mut world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    world.gateway.kill();
    fs::remove_file(world.gateway.setup.path("state.redb")).expect("the store's file");
    world.gateway.restart().await;
    let mut alice = alice.clone();
    alice.address = world.gateway.https;
    alice.get("/app/echo").send().await.expect(401, "InvalidToken");
    assert!(world.upstream.seen().is_empty());
    let replaced = world.gateway.metrics().await.sum("bindgate_keys_replaced_total", &[]);
    assert!((replaced - 1.0).abs() < 0.1, "{replaced}");
    world.sign_in(ADMIN).await.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn an_old_copy_of_the_store_brings_no_session_back() {
    let mut world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    world.gateway.kill();
    let store = world.gateway.setup.path("state.redb");
    let saved = fs::read(&store).expect("the store");
    world.gateway.restart().await;
    let mut ended = alice.copy();
    ended.address = world.gateway.https;
    ended.copy().post("/auth/logout").own_page().send().await.expect_status(204);
    world.gateway.kill();
    fs::write(&store, saved).expect("the old store");
    world.gateway.restart().await;
    ended.address = world.gateway.https;
    let answer = ended.get("/app/echo").send().await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[tokio::test]
async fn the_memory_store_forgets_its_keys_too() {
    let mut world = World::with(|setup| {
        setup.without("store").set("store", "kind", "\"memory\"");
        setup.without("token");
    })
    .await;
    let mut alice = world.sign_in(ADMIN).await;
    alice.get("/app/echo").send().await.expect_status(200);
    world.gateway.restart().await;
    alice.address = world.gateway.https;
    alice.get("/app/echo").send().await.expect(401, "InvalidToken");
}

#[tokio::test]
async fn the_chain_verifies_up_to_the_torn_last_line_which_is_said_to_be_torn() {
    let mut world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for _ in 0..20 {
        alice.get("/app/echo").send().await.expect_status(200);
    }
    alice.post("/auth/logout").own_page().send().await.expect_status(204);
    world.gateway.kill();
    // The kill may have torn a line; this certainly does.
    let mut log = OpenOptions::new().append(true).open(world.gateway.setup.audit_file());
    log.as_mut().expect("the log").write_all(b"{\"seq\":4711,\"event\":\"for").expect("written");
    let output = verify(&world.gateway.setup);
    assert!(said(&output).contains("torn"), "{}", said(&output));
    assert!(!said(&output).contains("bad:"), "{}", said(&output));

    world.gateway.restart().await;
    world.sign_in(ADMIN).await.get("/app/echo").send().await.expect_status(200);
    world.gateway.signal("TERM");
    assert_eq!(world.gateway.ended().await.code(), Some(0));
    let output = verify(&world.gateway.setup);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[tokio::test]
async fn a_changed_record_is_named() {
    let mut world = World::start().await;
    world.sign_in(ADMIN).await;
    world.sign_in(TRACER).await;
    world.gateway.signal("TERM");
    assert_eq!(world.gateway.ended().await.code(), Some(0));
    assert_eq!(verify(&world.gateway.setup).status.code(), Some(0));
    let file = world.gateway.setup.audit_file();
    let text = fs::read_to_string(&file).expect("the log");
    assert!(text.contains(ADMIN));
    fs::write(&file, text.replacen(ADMIN, "mallo", 1)).expect("changed");
    let output = verify(&world.gateway.setup);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("bad:"), "{}", said(&output));
}

#[tokio::test]
async fn everything_is_recorded_and_no_secret_is() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    alice.get("/app/echo?password=in-the-query").send().await.expect_status(200);
    alice.get("/super/echo").send().await.expect(403, "Forbidden");
    let typed = "hunter2-typed-as-a-name";
    log_in(&world.client(), typed, "hunter2-as-password").await.expect(401, "InvalidCredentials");
    let (token, context, sid) =
        (token_text(&alice), context_of(&alice), token_of(&alice).claim("sid").to_owned());
    alice.post("/auth/logout").own_page().send().await.expect_status(204);

    let setup = &world.gateway.setup;
    let all = eventually("login, request, refusal and logout are recorded", || {
        let all = records(setup);
        let of_alice = all.iter().filter(|record| record["subject"] == ADMIN).count();
        (of_alice == 4).then_some(all)
    })
    .await;
    let request = all.iter().find(|record| record["path"] == "/app/echo").expect("the request");
    assert_eq!(request["role"], "admin");
    assert_eq!(request["session"], sid);
    assert_eq!(request["method"], "GET");
    assert_eq!(request["route"], "/app/**");
    assert_eq!(request["status"], 200);
    let mut sequence = all.iter().filter_map(|record| record["seq"].as_u64());
    let first = sequence.next().expect("a sequence");
    for (next, seq) in (first + 1..).zip(sequence) {
        assert_eq!(next, seq, "a running number");
    }

    let audit = fs::read_to_string(setup.audit_file()).expect("the log");
    let metrics = world.gateway.telemetry("/metrics").await;
    let signature = token.rsplit('.').next().expect("a signature");
    for (place, text) in
        [("audit", audit.as_str()), ("log", &world.gateway.log()), ("metrics", metrics.text())]
    {
        for secret in [
            token.as_str(),
            signature,
            &context,
            PASSWORD,
            typed,
            "hunter2-as-password",
            "in-the-query",
        ] {
            assert!(!text.contains(secret), "{secret} stands in {place}");
        }
    }
}

#[tokio::test]
async fn rotation_by_rename_and_sighup_keeps_the_chain() {
    let mut world = World::start().await;
    world.sign_in(ADMIN).await;
    let log = world.gateway.setup.audit_file();
    let old = log.with_extension("jsonl.1");
    fs::rename(&log, &old).expect("renamed");
    world.gateway.signal("HUP");
    eventually("a new file", || log.exists().then_some(())).await;
    world.sign_in(TRACER).await;
    world.gateway.signal("TERM");
    assert_eq!(world.gateway.ended().await.code(), Some(0));
    let config = world.gateway.setup.config_file();
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let output = run(&["audit", "verify", "--config", &text(&config), &text(&old), &text(&log)]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}
