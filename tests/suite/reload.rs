//! Reload and drain while requests flow: nobody notices, or everybody whose request
//! was read gets a whole answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::raw::{Raw, frame};
use crate::support::websocket;
use crate::support::within;
use crate::support::world::{ADMIN, World};
use crate::support::{eventually, eventually_async};

/// What goes on while the operator does something.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    /// Old and new connections over both protocols, without a pause.
    fn start(client: &Client) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..6 {
            let client = if number % 2 == 0 { client.clone() } else { client.over_http2() };
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            clients.spawn(async move {
                let mut failures = Vec::new();
                let mut kept = client.connect().await.expect("a connection");
                while !stop.load(Ordering::SeqCst) {
                    let answer = if number < 2 {
                        client.get("/app/echo").try_send().await
                    } else {
                        kept.send(client.get("/app/echo").build()).await
                    };
                    match answer {
                        Ok(answer) if answer.status == 200 => {}
                        other => failures.push(format!("client {number}: {other:?}")),
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
                failures
            });
        }
        Self { stop, done, clients }
    }

    /// Waits until this many more requests were answered.
    async fn goes_on(&self, more: usize) {
        let enough = self.done.load(Ordering::SeqCst) + more;
        eventually("more requests", || (self.done.load(Ordering::SeqCst) >= enough).then_some(()))
            .await;
    }

    async fn failures(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            failures.extend(client.expect("no panic"));
        }
        failures
    }
}

/// The certificate that a new connection is shown.
async fn shown_certificate(client: &Client) -> Vec<u8> {
    let stream = client.tls().await.expect("a TLS connection");
    let (_, session) = stream.get_ref();
    session.peer_certificates().expect("a chain")[0].as_ref().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_under_load_costs_no_request() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let load = Load::start(&alice);
    load.goes_on(50).await;
    for _ in 0..3 {
        let renewed = world.gateway.setup.certificate().der();
        world.gateway.signal("HUP");
        eventually_async("the new certificate", async || {
            (shown_certificate(&alice).await == renewed).then_some(())
        })
        .await;
        load.goes_on(50).await;
    }
    let failures = load.failures().await;
    assert!(failures.is_empty(), "{failures:?}");
    world.gateway.counted("bindgate_config_reloads_total", &[("result", "ok")], 3.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_files_keep_the_old_state_and_are_said_to_be_broken() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let old = shown_certificate(&alice).await;
    let load = Load::start(&alice);
    let good = world.gateway.setup.toml();
    let (name, mut broken) = ("bindgate_config_reloads_total", 0.0);
    for (file, text) in [
        ("tls.crt", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n".to_owned()),
        ("bindgate.toml", "[server\n".to_owned()),
        ("bindgate.toml", good.replace("[[upstream]]", "[[upstream]]\nunknown_key = 1")),
    ] {
        let before = std::fs::read_to_string(world.gateway.setup.path(file)).expect("the file");
        world.gateway.setup.write(file, &text);
        world.gateway.signal("HUP");
        broken += 1.0;
        world.gateway.counted(name, &[("result", "error")], broken).await;
        assert_eq!(shown_certificate(&alice).await, old, "{file}");
        load.goes_on(20).await;
        world.gateway.setup.write(file, &before);
    }
    world.gateway.signal("HUP");
    world.gateway.counted(name, &[("result", "ok")], 1.0).await;
    let log = world.gateway.log();
    assert!(log.contains("ERROR"), "an error in the log: {log}");
    assert!(log.contains("unknown_key"), "it names the key: {log}");
    let failures = load.failures().await;
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test]
async fn a_reload_that_changes_what_cannot_be_changed_applies_nothing_and_names_it() {
    let mut world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    world.gateway.setup.set("server", "workers", "1");
    world.gateway.setup.more_routes(
        "[[route]]\npath = \"/new/**\"\naccess = \"public\"\nupstream = \"backend\"\n",
    );
    world.gateway.setup.save();
    world.gateway.signal("HUP");
    world.gateway.counted("bindgate_config_reloads_total", &[], 1.0).await;
    world.gateway.logged("workers").await;
    world.client().get("/new/echo").send().await.expect(404, "NoRoute");
    alice.get("/app/echo").send().await.expect_status(200);

    world.gateway.setup.set("server", "workers", "2").set("token", "lifetime", "\"10m\"");
    world.gateway.setup.save();
    world.gateway.signal("HUP");
    eventually_async("the new route", async || {
        let answer = world.client().get("/new/echo").send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    alice.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_answers_every_request_whose_head_was_read() {
    let mut world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    world.upstream.forget();
    let counter = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..8 {
        let client = if number % 2 == 0 { alice.clone() } else { alice.over_http2() };
        let counter = Arc::clone(&counter);
        clients.spawn(async move {
            let mut whole = Vec::new();
            'connections: while let Ok(mut connection) = client.connect().await {
                loop {
                    let id = counter.fetch_add(1, Ordering::SeqCst);
                    let path = if id.is_multiple_of(3) { "/app/slow" } else { "/app/echo" };
                    let target = format!("{path}?id={id}");
                    match connection.send(client.get(&target).build()).await {
                        Ok(answer) if answer.status == 200 => whole.push(target),
                        Ok(answer) => panic!("{target}: {answer:?}"),
                        Err(_) => continue 'connections,
                    }
                }
            }
            whole
        });
    }
    eventually("some load", || (world.upstream.seen().len() > 100).then_some(())).await;
    world.gateway.signal("TERM");
    world.gateway.readiness(503).await;
    let status = world.gateway.ended().await;
    assert_eq!(status.code(), Some(0), "a clean drain");
    let mut whole = BTreeSet::new();
    while let Some(client) = clients.join_next().await {
        whole.extend(client.expect("no panic"));
    }
    for seen in world.upstream.seen() {
        assert!(whole.contains(&seen.target), "{} got no whole answer", seen.target);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_goodbye_in_each_protocol_and_finishes_what_is_open() {
    let mut world = World::with(|setup| {
        setup.set("server.limits", "drain_delay", "\"500ms\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    let events = world.upstream.steps("/app/events", "text/event-stream");
    let mut stream = alice.get("/app/events").open().await.into_body();
    let own = &[("origin", "https://gateway.test")];
    let socket = websocket::open(&alice, "/app/ws", own).await.expect("a WebSocket");
    let mut idle = Raw::connect(&alice.over_http2()).await;
    idle.write(&[frame::PREFACE, &frame::settings()].concat()).await.expect("written");
    let mut kept = alice.connect().await.expect("a connection");
    kept.send(alice.get("/app/echo").build()).await.expect("an answer").expect_status(200);

    world.gateway.signal("INT");
    let reasons = world.gateway.readiness(503).await;
    assert!(reasons.contains("drain"), "{reasons}");
    // During the delay everything is served as before; HTTP/1 answers then say goodbye.
    let mut last = None;
    while let Ok(answer) = kept.send(alice.get("/app/echo").build()).await {
        answer.expect_status(200);
        let goodbye = answer.header("connection").is_some_and(|value| value == "close");
        last = Some(goodbye);
        if goodbye {
            break;
        }
    }
    assert!(last.is_some());
    let answer = within(Duration::from_secs(10), "a GOAWAY", idle.rest()).await;
    assert!(frame::parse(&answer).iter().any(|(kind, ..)| *kind == 7), "GOAWAY");
    events.send(b"data: still\n\n".to_vec()).expect("the stream lives");
    stream.frame().await.expect("a frame").expect("a body");
    drop(events);
    assert!(stream.frame().await.is_none(), "its end is whole");
    drop(socket);
    assert_eq!(world.gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_start_that_cannot_work_names_every_problem_and_exits_with_1() {
    let world = World::start().await;
    let mut text = world.gateway.setup.toml();
    text = text.replace(
        "workers = 2",
        "workers = \"many\"\nunknown = 1\ncors_origins = [\"https://x.example\"]",
    );
    world.gateway.setup.write("wrong.toml", &text);
    let file = world.gateway.setup.path("wrong.toml");
    let file = file.to_str().expect("UTF-8");
    for command in ["serve", "check"] {
        let output = crate::support::gateway::run(&[command, "--config", file]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        for key in ["workers", "unknown", "cors_origins"] {
            assert!(said.contains(key), "{command} names {key}: {said}");
        }
        assert!(!said.contains("bindgate ready"));
    }
    let good = world.gateway.setup.config_file();
    let output =
        crate::support::gateway::run(&["check", "--config", good.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
