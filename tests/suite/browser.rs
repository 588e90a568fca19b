//! People, as Debian's Chromium shows the pages to them.

use std::path::Path;

use bindgate::config::LdapTransport;
use tokio::process::Command;

use crate::password::form::ODD_NAME;
use crate::password::newcomer;
use crate::support::slapd::PASSWORD;
use crate::support::within;
use crate::support::world::{TRACER, World, shared_slapd};
use std::time::Duration;

/// What the upstream shows to whoever comes through.
fn welcome(world: &World) {
    let page = "<!doctype html><title>Sample</title><h1 id=sample>Welcome</h1>";
    world.upstream.answer(
        "/app/page",
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
            page.len()
        ),
    );
}

/// Runs a script of `tests/browser` with a login name and password.
async fn browse(world: &World, script: &str, name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/npm/node_modules");
    assert!(
        modules.join("playwright-core").exists(),
        "playwright-core is installed (npm install --prefix target/npm playwright-core)"
    );
    let running = Command::new("node")
        .arg(root.join("tests/browser").join(script))
        .env("PLAYWRIGHT", modules.join("playwright-core/index.mjs"))
        .env("GATEWAY_PORT", world.gateway.https.port().to_string())
        .env("LOGIN_NAME", name)
        .env("LOGIN_PASSWORD", PASSWORD)
        .kill_on_drop(true)
        .output();
    let output = within(Duration::from_mins(3), "the browser", running).await;
    let output = output.expect("node is installed (apt-get install nodejs)");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_in_a_browser_chooses_a_new_password_where_the_old_one_must_go() {
    let world = World::start().await;
    // The name's every symbol goes from the page into the form and back.
    let name = format!("Brunhilde {ODD_NAME}");
    newcomer(&shared_slapd(), &name, "pwdReset: TRUE");
    welcome(&world);
    browse(&world, "password.mjs", &format!(" {}  ", name.to_lowercase())).await;
    let seen = world.upstream.seen_at("/app/page");
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|seen| seen.header("x-auth-user") == Some(&name)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_in_a_browser_logs_in_lands_there_and_logs_out() {
    let world = World::with(|setup| {
        setup.directory(&shared_slapd().toml(LdapTransport::Tls));
    })
    .await;
    welcome(&world);
    browse(&world, "login.mjs", TRACER).await;
    let seen = world.upstream.seen_at("/app/page");
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(seen.iter().all(|seen| seen.header("x-auth-user") == Some(TRACER)), "{seen:?}");
}
