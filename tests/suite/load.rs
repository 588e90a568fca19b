//! Many at once: streams, connections, and nobody the worse for it.

use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinSet;

use crate::support::raw::Raw;
use crate::support::within;
use crate::support::world::{ADMIN, World};

const STREAMS: usize = 1_000;
const CONNECTIONS: usize = 10;
const IDLE: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_over_ten_connections_are_open_at_once() {
    let world = World::with(|setup| {
        setup.upstream("connections", "2000");
    })
    .await;
    allow_many_files().await;
    let alice = world.sign_in(ADMIN).await.over_http2();
    let mut requests = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = alice.connect().await.expect("a connection");
        for _ in 0..STREAMS / CONNECTIONS {
            let mut shared = connection.share().expect("HTTP/2");
            let request = alice.get("/app/hold").build();
            requests.spawn(async move { shared.send(request).await });
        }
        connections.push(connection);
    }
    // Every one of them is at the upstream before the first is answered.
    within(Duration::from_mins(2), "all streams at once", world.upstream.held(STREAMS)).await;
    world.upstream.release();
    let mut answered = 0;
    while let Some(done) = requests.join_next().await {
        done.expect("no panic").expect("an answer").expect_status(200);
        answered += 1;
    }
    assert_eq!(answered, STREAMS);
    let ok = [("route", "/app/**"), ("status", "200")];
    world.gateway.counted("bindgate_http_requests_total", &ok, 1_000.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_idle_connections_stand_in_nobodys_way() {
    let world = World::with(|setup| {
        setup.set("server.limits", "connections_per_address", "10000");
        setup.set("server.limits", "idle_timeout", "\"10m\"");
        setup.set("server.limits", "header_timeout", "\"10m\"");
        setup.set("server.limits", "handshake_timeout", "\"1m\"");
    })
    .await;
    allow_many_files().await;
    let alice = world.sign_in(ADMIN).await;
    let mut opening = JoinSet::new();
    let mut idle = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        if opening.len() >= 64 {
            idle.push(opening.join_next().await.expect("one").expect("no panic"));
        }
        let client = alice.clone();
        opening.spawn(async move {
            let mut raw = Raw::connect(&client).await;
            // Half of them have been used before they idle.
            if number % 2 == 0 {
                let request = b"GET /public/echo HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
                raw.write(request).await.expect("written");
                assert_eq!(raw.answer().await.expect("an answer").status, 200);
            }
            raw
        });
    }
    while let Some(opened) = opening.join_next().await {
        idle.push(opened.expect("no panic"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let expected = IDLE as f64;
    world.gateway.counted_at_least("bindgate_connections_open", &[], expected).await;
    for client in [alice.clone(), alice.over_http2()] {
        let limit = Duration::from_secs(5);
        within(limit, "a request beside them", client.get("/app/echo").send())
            .await
            .expect_status(200);
    }
    for raw in idle.iter_mut().take(2) {
        let request = b"GET /public/echo HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
        raw.write(request).await.expect("written");
        assert_eq!(raw.answer().await.expect("an answer").status, 200);
    }
    let resident = world.gateway.memory_kib("VmRSS");
    assert!(resident < 600 * 1024, "{resident} KiB for {IDLE} idle connections");
}

/// This process holds the other end of every connection.
async fn allow_many_files() {
    let pid = std::process::id().to_string();
    let raised = Command::new("sh")
        .args([
            "-c",
            "hard=$(ulimit -Hn); exec prlimit --pid \"$1\" --nofile=\"$hard:$hard\"",
            "sh",
            &pid,
        ])
        .status()
        .await;
    assert!(raised.expect("prlimit (package util-linux)").success(), "the limit can be raised");
}
