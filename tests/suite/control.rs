//! Operators see sessions and end them, at once and for good; and nobody else does.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::time::Duration;

use serde_json::Value;

use crate::support::setup::Setup;
use crate::support::world::{ADMIN, TRACER, World, token_of};
use crate::support::{eventually, websocket, within};

fn with_socket(setup: &mut Setup) {
    setup.control_socket();
}

fn sid(client: &crate::support::client::Client) -> String {
    token_of(client).claim("sid").to_owned()
}

fn revocations(setup: &Setup) -> Vec<Value> {
    let text = fs::read_to_string(setup.audit_file()).expect("the audit log");
    let records = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    records.filter(|record: &Value| record["event"] == "revocation").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_who_is_logged_in_and_ends_one_a_user_or_all() {
    let world = World::with(with_socket).await;
    let gateway = &world.gateway;
    let mut alice = Vec::new();
    for _ in 0..3 {
        alice.push(world.sign_in(ADMIN).await);
    }
    let carol = world.client();
    let login = carol.post("/auth/login").own_page().header("user-agent", "odd\tagent \\ 1");
    let credentials = serde_json::json!({
        "username": TRACER, "password": crate::support::slapd::PASSWORD,
    });
    login.json(&credentials).send().await.expect_status(200);

    let listed = gateway.command("sessions list").await;
    assert_eq!(listed.code, Some(0), "{}", listed.text);
    assert!(listed.text.ends_with("\n4 sessions\n"), "{}", listed.text);
    let row = listed.text.lines().find(|line| line.contains(&sid(&carol))).expect("a row");
    for cell in [TRACER, "contact_tracer", "127.0.0.1", "odd\\tagent \\\\ 1"] {
        assert!(row.contains(cell), "{cell}: {row}");
    }
    let listed = gateway.command(&format!("sessions list --user {TRACER}")).await;
    assert!(listed.text.ends_with("\n1 session\n"), "{}", listed.text);
    let listed = gateway.command("sessions list --user nobody").await;
    assert_eq!((listed.code, listed.text.as_str()), (Some(0), "0 sessions\n"));

    let own = &[("origin", "https://gateway.test")];
    let mut socket = websocket::open(&alice[0], "/app/ws", own).await.expect("a WebSocket");
    let one = gateway.command(&format!("sessions revoke --session {}", sid(&alice[0]))).await;
    assert_eq!((one.code, one.text.as_str()), (Some(0), "1 session ended\n"));
    alice[0].get("/app/echo").send().await.expect(401, "SessionRevoked");
    within(Duration::from_secs(2), "the WebSocket ends", async {
        use futures_util::StreamExt as _;
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    alice[1].get("/app/echo").send().await.expect_status(200);
    let again = gateway.command(&format!("sessions revoke --session {}", sid(&alice[0]))).await;
    assert_eq!(again.code, Some(1), "an unknown session: {}", again.text);
    assert!(again.text.contains("no such session"), "{}", again.text);

    let user = gateway.command(&format!("sessions revoke --user {ADMIN}")).await;
    assert_eq!((user.code, user.text.as_str()), (Some(0), "2 sessions ended\n"));
    alice[2].get("/app/echo").send().await.expect(401, "SessionRevoked");
    carol.get("/app/echo").send().await.expect_status(200);
    let none = gateway.command(&format!("sessions revoke --user {ADMIN}")).await;
    assert_eq!((none.code, none.text.as_str()), (Some(0), "0 sessions ended\n"));
    let all = gateway.command("sessions revoke --all").await;
    assert_eq!((all.code, all.text.as_str()), (Some(0), "1 session ended\n"));
    carol.get("/app/echo").send().await.expect(401, "SessionRevoked");

    // On disk before the answer.
    let records = revocations(&gateway.setup);
    assert_eq!(records.len(), 4);
    assert!(records.iter().all(|record| record["outcome"] == "operator"), "{records:?}");
    assert_eq!(records[3]["subject"], TRACER);
    assert_eq!(records[3]["session"], sid(&carol));
    let metrics = gateway.metrics().await;
    let revoked = metrics.sum("bindgate_sessions_revoked_total", &[("reason", "operator")]);
    assert!((revoked - 4.0).abs() < 0.1, "{revoked}");
    assert!(metrics.sum("bindgate_sessions_active", &[]).abs() < 0.1);
}

#[tokio::test]
async fn what_an_operator_ended_stays_ended_after_kill_9() {
    let mut world = World::with(with_socket).await;
    let (mut alice, mut carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    let said = world.gateway.command(&format!("sessions revoke --user {ADMIN}")).await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    world.gateway.kill();
    // The dead process left its socket behind.
    assert!(world.gateway.setup.path("control.sock").exists());
    world.gateway.restart().await;
    (alice.address, carol.address) = (world.gateway.https, world.gateway.https);
    alice.get("/app/echo").send().await.expect(401, "SessionRevoked");
    carol.get("/app/echo").send().await.expect_status(200);
    let listed = world.gateway.command("sessions list").await;
    assert!(listed.text.ends_with("\n1 session\n"), "{}", listed.text);
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_commands_say_when_nobody_answers() {
    let mut world = World::with(with_socket).await;
    let path = world.gateway.setup.path("control.sock");
    let facts = fs::symlink_metadata(&path).expect("the socket");
    assert!(facts.file_type().is_socket());
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);

    // Another process of the same configuration does not take the place of a live one.
    let store = world.gateway.setup.path("other.redb");
    let store = format!("{:?}", store.display().to_string());
    let text = world.gateway.setup.toml();
    let own = format!("{:?}", world.gateway.setup.path("state.redb").display().to_string());
    let audit = format!("{:?}", world.gateway.setup.audit_file().display().to_string());
    let other = text.replace(&own, &store).replace(&audit, "\"other.jsonl\"");
    world.gateway.setup.write("other.toml", &other);
    let file = world.gateway.setup.path("other.toml");
    let file = file.to_str().expect("UTF-8").to_owned();
    let run = tokio::task::spawn_blocking(move || {
        crate::support::gateway::run(&["serve", "--config", &file])
    });
    let output = run.await.expect("no panic");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another process listens there"), "{said}");
    assert_eq!(world.gateway.command("sessions list").await.code, Some(0));

    // Its place needs a restart.
    world.gateway.setup.set("telemetry", "control_socket", "\"elsewhere.sock\"");
    world.gateway.setup.save();
    world.gateway.signal("HUP");
    world.gateway.logged("telemetry.control_socket").await;
    world.gateway.setup.control_socket();
    world.gateway.setup.save();

    world.gateway.signal("TERM");
    assert_eq!(world.gateway.ended().await.code(), Some(0));
    eventually("the socket goes with the gateway", || (!path.exists()).then_some(())).await;
    let said = world.gateway.command("sessions list").await;
    assert_eq!(said.code, Some(1));
    assert!(said.text.contains("is the gateway running?"), "{}", said.text);
}

#[tokio::test]
async fn without_a_socket_the_commands_say_which_key_is_missing() {
    let world = World::start().await;
    for command in ["sessions list", "sessions revoke --all", "keys list", "keys rotate"] {
        let said = world.gateway.command(command).await;
        assert_eq!(said.code, Some(1), "{command}");
        assert!(said.text.contains("telemetry.control_socket"), "{}", said.text);
    }
}

#[tokio::test]
async fn one_login_more_than_allowed_ends_the_oldest_session_of_that_user_only() {
    let world = World::with(|setup| {
        setup.set("token", "sessions_per_user", "2");
    })
    .await;
    let carol = world.sign_in(TRACER).await;
    let first = world.sign_in(ADMIN).await;
    let second = world.sign_in(ADMIN).await;
    first.get("/app/echo").send().await.expect_status(200);
    let third = world.sign_in(ADMIN).await;
    first.get("/app/echo").send().await.expect(401, "SessionRevoked");
    for client in [&second, &third, &carol] {
        client.get("/app/echo").send().await.expect_status(200);
    }
    let records = revocations(&world.gateway.setup);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["outcome"], "session_limit");
    assert_eq!(records[0]["session"], sid(&first));
}

#[tokio::test]
async fn what_a_page_asks_for_by_itself_does_not_keep_a_session_alive() {
    let (world, time) = World::with_time(|setup| {
        setup.more_routes(
            "[[route]]\npath = \"/poll/**\"\naccess = \"authenticated\"\nupstream = \"backend\"\n\
             passive = true\n",
        );
    })
    .await;
    let by_route = world.sign_in(ADMIN).await;
    let by_header = world.sign_in(ADMIN).await;
    let busy = world.sign_in(TRACER).await;
    for _ in 0..7 {
        by_route.get("/poll/echo").send().await.expect_status(200);
        let passive = by_header.get("/app/echo").header("x-bindgate-passive", "1");
        passive.send().await.expect_status(200);
        busy.get("/app/echo").header("x-bindgate-passive", "0").send().await.expect_status(200);
        time.advance(Duration::from_mins(8));
    }
    for seen in world.upstream.seen() {
        assert!(
            !seen.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-bindgate-passive")),
            "{seen:?}"
        );
    }
    time.advance(Duration::from_mins(5));
    assert_eq!(by_route.get("/poll/echo").send().await.status, 401);
    assert_eq!(by_header.get("/app/echo").send().await.status, 401);
    busy.get("/app/echo").send().await.expect_status(200);
}
