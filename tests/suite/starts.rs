//! What stops a start says which key, file or address it was, and `check` says it before.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use crate::support::gateway::run;
use crate::support::world::World;

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// The configuration of a gateway that has run and is gone.
async fn stopped() -> World {
    let mut world = World::start().await;
    world.gateway.signal("TERM");
    assert_eq!(world.gateway.ended().await.code(), Some(0));
    world
}

#[tokio::test]
async fn broken_keys_are_named_by_check_and_stop_a_start() {
    let world = stopped().await;
    let config = world.gateway.setup.config_file();
    let config = config.to_str().expect("UTF-8");
    assert_eq!(run(&["check", "--config", config]).status.code(), Some(0));
    world.gateway.setup.write("keys/broken.jwk", "{\"kid\":\"broken\"}");
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", config]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let text = said(&output);
        assert!(text.contains("token.keys_dir") && text.contains("broken.jwk"), "{text}");
        assert!(!text.contains("bindgate ready"), "{text}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let mut world = stopped().await;
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("its address").to_string();
    let setup = &mut world.gateway.setup;
    let config = setup.config_file();
    let config = config.to_str().expect("UTF-8");
    for (section, key, value) in [
        ("server", "listen", format!("[{taken:?}]")),
        ("telemetry", "listen", format!("{taken:?}")),
    ] {
        setup.set("server", "listen", "[\"127.0.0.1:0\"]").set(section, key, &value).save();
        let output = run(&["serve", "--config", config]);
        assert_eq!(output.status.code(), Some(1));
        let text = said(&output);
        assert!(text.contains(&format!("{section}.{key}")) && text.contains(&taken), "{text}");
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_store_waits_and_then_says_so() {
    let mut world = World::with(|setup| {
        setup.set("server.limits", "drain_timeout", "\"1s\"");
    })
    .await;
    let setup = &mut world.gateway.setup;
    let second = setup.path("second.toml");
    let text = setup.toml().replace("audit.jsonl", "audit-of-the-second.jsonl");
    setup.write("second.toml", &text);
    let output = run(&["serve", "--config", second.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("state.redb"), "{}", said(&output));
    assert!(!said(&output).contains("bindgate ready"));
    world.sign_in("alice").await.get("/app/echo").send().await.expect_status(200);
    assert!(fs::metadata(world.gateway.setup.path("state.redb")).is_ok());
}

#[tokio::test]
async fn while_no_record_can_be_written_nothing_is_served_and_readyz_says_why() {
    let world = World::with(|setup| {
        setup.set("telemetry", "audit_file", "\"/dev/full\"");
    })
    .await;
    let reasons = world.gateway.readiness(503).await;
    crate::support::eventually_async("the audit log is the reason", async || {
        let text = world.gateway.telemetry("/readyz").await.text().to_owned();
        text.contains("audit").then_some(())
    })
    .await;
    assert!(!reasons.is_empty());
    let client = world.client();
    client.get("/public/x").send().await.expect(503, "AuditUnavailable");
    crate::support::world::log_in(&client, "alice", crate::support::slapd::PASSWORD)
        .await
        .expect(503, "AuditUnavailable");
    client.get("/auth/logout").send().await.expect_status(204);
    assert!(world.upstream.seen().is_empty());
}
