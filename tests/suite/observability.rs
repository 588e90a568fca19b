//! What an operator sees: metrics that Prometheus's own tool accepts and that move
//! with what happens, health and readiness, and the policy question.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::eventually_async;
use crate::support::gateway::run;
use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, TRACER, World, log_in};

type Labels = &'static [(&'static str, &'static str)];

/// Every metric of the contract that has something to count after the requests below.
const MOVED: &[(&str, Labels, f64)] = &[
    ("bindgate_build_info", &[], 1.0),
    (
        "bindgate_http_requests_total",
        &[("route", "/app/**"), ("method", "GET"), ("status", "200")],
        3.0,
    ),
    ("bindgate_http_requests_total", &[("route", "/admin/**"), ("status", "403")], 1.0),
    ("bindgate_http_requests_total", &[("route", "one-case"), ("status", "200")], 1.0),
    ("bindgate_http_request_duration_seconds_count", &[("route", "/app/**")], 3.0),
    ("bindgate_http_malformed_total", &[], 1.0),
    ("bindgate_http_overhead_seconds_count", &[], 3.0),
    ("bindgate_tls_handshakes_total", &[("result", "ok")], 5.0),
    ("bindgate_logins_total", &[], 3.0),
    ("bindgate_login_duration_seconds_count", &[], 3.0),
    ("bindgate_token_checks_total", &[], 4.0),
    ("bindgate_sessions_active", &[], 1.0),
    ("bindgate_sessions_revoked_total", &[], 1.0),
    ("bindgate_directory_operations_total", &[], 3.0),
    ("bindgate_directory_operation_duration_seconds_count", &[], 3.0),
    ("bindgate_directory_up", &[], 1.0),
    ("bindgate_upstream_requests_total", &[("upstream", "backend")], 4.0),
    ("bindgate_upstream_duration_seconds_count", &[("upstream", "backend")], 4.0),
    ("bindgate_upstream_up", &[("upstream", "backend")], 1.0),
    ("bindgate_store_operations_total", &[], 2.0),
    ("bindgate_certificate_expiry_timestamp_seconds", &[], 1.0),
    ("bindgate_audit_records_total", &[], 4.0),
    ("process_resident_memory_bytes", &[], 1.0),
];

#[tokio::test]
async fn metrics_pass_promtool_and_have_moved() {
    let world = World::start().await;
    let (alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    log_in(&world.client(), TRACER, "wrong").await.expect(401, "InvalidCredentials");
    for _ in 0..3 {
        alice.get("/app/echo").send().await.expect_status(200);
    }
    alice.get("/cases/17").send().await.expect_status(200);
    carol.get("/admin/echo").send().await.expect(403, "Forbidden");
    carol.post("/auth/logout").own_page().send().await.expect_status(204);
    let malformed = b"GET / HTTP/1.1\r\nHost : gateway.test\r\n\r\n";
    drop(crate::support::raw::exchange(&world.client(), malformed).await);
    world.gateway.signal("HUP");
    world.gateway.counted("bindgate_config_reloads_total", &[], 1.0).await;
    for (name, labels, least) in MOVED {
        world.gateway.counted_at_least(name, labels, *least).await;
    }
    let metrics = world.gateway.metrics().await;
    assert!(metrics.has("bindgate_connections_open"));
    let routes = metrics.values("bindgate_http_requests_total", "route");
    assert!(
        routes.iter().all(|route| !route.contains("17")),
        "labels from closed sets: {routes:?}"
    );

    let text = world.gateway.telemetry("/metrics").await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (apt-get install prometheus)");
    promtool.stdin.take().expect("piped").write_all(&text.body).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let complaints = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");
}

#[tokio::test]
async fn telemetry_is_chosen_by_path_alone_and_never_on_the_public_port() {
    let world = World::start().await;
    eventually_async("the directory answered once", async || {
        (world.gateway.telemetry("/readyz").await.status == 200).then_some(())
    })
    .await;
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/ping", 200),
        ("/ready", 200),
        ("/metrics", 200),
        ("/", 404),
        ("/metrics/../healthz", 404),
        ("/Metrics", 404),
    ] {
        assert_eq!(world.gateway.telemetry(path).await.status, status, "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz", "/ping"] {
        world.client().get(path).send().await.expect(404, "NoRoute");
    }
}

#[tokio::test]
async fn a_policy_question_is_answered_without_a_running_gateway() {
    let world = World::start().await;
    let config = world.gateway.setup.config_file();
    let config = config.to_str().expect("UTF-8");
    for (role, method, path, code) in [
        ("admin", "GET", "/admin/users", 0),
        ("contact_tracer", "GET", "/admin/users", 3),
        ("contact_tracer", "PUT", "/organization/configuration", 3),
        ("contact_tracer", "GET", "/organization/configuration", 0),
        ("contact_tracer", "GET", "/nothing", 3),
        ("contact_tracer", "GET", "/app//x", 3),
    ] {
        let output = run(&["policy", "check", "--config", config, "--role", role, method, path]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{role} {method} {path}: {said}");
    }
}

#[tokio::test]
async fn logs_are_json_with_the_request_id_of_the_answer() {
    let world = World::start().await;
    let answer = log_in(&world.client(), TRACER, "wrong").await;
    let id = answer.header("x-request-id").expect("an id").to_owned();
    world.gateway.logged(&id).await;
    for line in world.gateway.log().lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "{line}");
    }
    let answer = world.sign_in(ADMIN).await.get("/app/echo").send().await;
    answer.expect_status(200);
    assert!(!PASSWORD.is_empty() && !world.gateway.log().contains(PASSWORD));
}

#[tokio::test]
async fn the_environment_overrides_the_file() {
    let world = World::with(|setup| {
        setup.environment("BINDGATE_LOGIN_PAGE__TITLE", "From the environment");
        setup.environment("BINDGATE_SERVER__AUTH_PREFIX", "/door");
    })
    .await;
    let answer = world.client().get("/door/").navigation().send().await;
    answer.expect_status(200);
    assert!(answer.text().contains("From the environment"));
    world.client().get("/auth/session").send().await.expect(404, "NoRoute");
}
