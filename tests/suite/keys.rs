//! Keys follow each other without anybody noticing; and when they must go at once,
//! every token dies with them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::setup::Setup;
use crate::support::world::{ADMIN, TRACER, World, token_of};

/// The names of the session keys on disk.
fn files(setup: &Setup) -> Vec<String> {
    let folder = fs::read_dir(setup.path("keys")).expect("the keys");
    let paths = folder.map(|entry| entry.expect("an entry").path());
    let keys = paths.filter(|path| path.extension().is_some_and(|extension| extension == "jwk"));
    let session = keys.filter_map(|path| {
        let mode = fs::metadata(&path).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        let key: Value = serde_json::from_str(&fs::read_to_string(&path).ok()?).ok()?;
        (key["purpose"] == "session").then(|| key["kid"].as_str().unwrap_or_default().to_owned())
    });
    session.collect()
}

fn kid(client: &Client) -> String {
    token_of(client).header["kid"].as_str().expect("a kid").to_owned()
}

fn records(setup: &Setup, event: &str) -> Vec<Value> {
    let text = fs::read_to_string(setup.audit_file()).expect("the audit log");
    let records = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    // The keys made at the first start have no detail.
    let told = |record: &Value| record["event"] != "keys" || record["detail"].is_string();
    records.filter(|record: &Value| record["event"] == event && told(record)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_signs_at_once_and_nobody_notices_not_even_after_a_restart() {
    let mut world = World::with(|setup| {
        setup.control_socket();
    })
    .await;
    let mut alice = world.sign_in(ADMIN).await;
    let old = kid(&alice);
    let said = world.gateway.command("keys rotate").await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert_eq!(files(&world.gateway.setup).len(), 2);
    let carol = world.sign_in(TRACER).await;
    assert_ne!(kid(&carol), old);
    alice.get("/app/echo").send().await.expect_status(200);
    let listed = world.gateway.command("keys list --purpose session").await;
    let rows: Vec<&str> = listed.text.lines().collect();
    assert!(rows[1].starts_with(&old) && rows[1].contains("verifies only"), "{}", listed.text);
    assert!(rows[2].starts_with(&kid(&carol)) && rows[2].ends_with("signs"), "{}", listed.text);

    world.gateway.kill();
    world.gateway.restart().await;
    alice.address = world.gateway.https;
    alice.get("/app/echo").send().await.expect_status(200);
    alice.post("/auth/refresh").own_page().send().await.expect_status(200);
    assert_eq!(kid(&alice), kid(&carol));
    let keys = records(&world.gateway.setup, "keys");
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["outcome"], "made");
    assert!(keys[0]["detail"].as_str().is_some_and(|text| text.contains(&kid(&carol))));
    let said = world.gateway.command("keys rotate --purpose assertion").await;
    assert_eq!(said.code, Some(1), "{}", said.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_keys_kills_every_token_and_stream_at_once() {
    let mut world = World::with(|setup| {
        setup.control_socket();
    })
    .await;
    let (mut alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    let events = world.upstream.steps("/app/events", "text/event-stream");
    let mut stream = carol.get("/app/events").open().await.into_body();
    events.send(b"data: 1\n\n".to_vec()).expect("the stream lives");
    {
        use http_body_util::BodyExt as _;
        stream.frame().await.expect("a frame").expect("a body");
        alice.get("/app/echo").send().await.expect_status(200);
        let said = world.gateway.command("keys rotate --now").await;
        assert_eq!(said.code, Some(0), "{}", said.text);
        alice.get("/app/echo").send().await.expect(401, "InvalidToken");
        let ended = crate::support::within(Duration::from_secs(2), "the stream ends", async {
            loop {
                match stream.frame().await {
                    Some(Ok(_)) => {}
                    ended => return ended,
                }
            }
        });
        drop(ended.await);
    }
    assert_eq!(files(&world.gateway.setup).len(), 1);
    let listed = world.gateway.command("sessions list").await;
    assert_eq!(listed.text, "0 sessions\n");
    let ended = records(&world.gateway.setup, "revocation");
    assert!(ended.iter().all(|record| record["outcome"] == "keys_dropped"));
    assert_eq!(ended.len(), 2);
    world.gateway.kill();
    world.gateway.restart().await;
    alice.address = world.gateway.https;
    alice.get("/app/echo").send().await.expect(401, "InvalidToken");
    world.sign_in(ADMIN).await.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn keys_are_rotated_by_the_clock_and_go_when_nobody_can_use_them() {
    let (world, time) = World::with_time(|setup| {
        setup.set("token", "rotate_every", "\"24h\"");
    })
    .await;
    let setup = &world.gateway.setup;
    let alice = world.sign_in(ADMIN).await;
    let first = kid(&alice);
    time.advance(Duration::from_hours(24));
    eventually("a second key", || (files(setup).len() == 2).then_some(())).await;
    // It is recorded once it signs.
    eventually("its record", || (records(setup, "keys").len() == 1).then_some(())).await;
    // Who came within the leeway of the change might hold a token of either.
    time.advance(Duration::from_secs(10));
    let carol = world.sign_in(TRACER).await;
    assert_ne!(kid(&carol), first);
    time.advance(Duration::from_mins(30));
    eventually("the first key is gone", || (!files(setup).contains(&first)).then_some(())).await;
    carol.get("/app/echo").send().await.expect_status(200);
    let outcome = |record: &Value| record["outcome"].as_str().map(str::to_owned);
    let changes = eventually("both records", || {
        let changes: Vec<_> = records(setup, "keys").iter().filter_map(outcome).collect();
        (changes.len() == 2).then_some(changes)
    })
    .await;
    assert_eq!(changes, ["made", "retired"]);
}
