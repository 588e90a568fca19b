//! docs/security.md names, for each rule, tests that are there; here are those that
//! belong to no other promise.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::world::{ADMIN, SUPER_ADMIN, TRACER, World};
use crate::support::{eventually, eventually_async};

const RULES: usize = 31;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_rule_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    let code: String =
        files.iter().map(|file| fs::read_to_string(file).expect("a source")).collect();
    let table = fs::read_to_string(root.join("docs/security.md")).expect("the table");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), RULES);
    for (number, row) in (1..).zip(&rows) {
        assert!(row[0].starts_with(&format!("{number}. ")), "{row:?}");
        let [_, _, tests] = row[..] else { panic!("three columns: {row:?}") };
        if tests == "later" {
            assert!(row[1].contains("yet"), "what is later says that it is not built: {row:?}");
            continue;
        }
        for name in tests.split(", ") {
            let name = name.trim_matches('`');
            let is_test = code.match_indices(&format!("fn {name}(")).any(|(at, _)| {
                let own_line = usize::from(!code[..at].ends_with('\n'));
                let above = code[..at].lines().rev().skip(own_line).take(4);
                let mut attributes = above.take_while(|line| !line.trim().ends_with('}'));
                attributes.any(|line| line.contains("test"))
            });
            assert!(is_test, "rule {number}: no test {name}");
        }
    }
}

#[tokio::test]
async fn a_key_that_goes_takes_what_was_verified_with_it() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for _ in 0..8 {
        // Both workers have most likely verified and remembered the pair.
        alice.get("/app/echo").send().await.expect_status(200);
    }
    for entry in fs::read_dir(world.gateway.setup.path("keys")).expect("the keys") {
        let path = entry.expect("an entry").path();
        let is_session_key = fs::read_to_string(&path).is_ok_and(|key| key.contains("\"session\""));
        if is_session_key {
            fs::remove_file(path).expect("removed");
        }
    }
    world.gateway.signal("HUP");
    world.gateway.counted("bindgate_config_reloads_total", &[("result", "ok")], 1.0).await;
    for _ in 0..8 {
        alice.get("/app/echo").send().await.expect(401, "InvalidToken");
    }
    world.sign_in(ADMIN).await.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn requests_of_many_people_at_once_keep_their_own_names() {
    let world = World::start().await;
    let mut asking = Vec::new();
    for name in [ADMIN, TRACER, SUPER_ADMIN] {
        let client = world.sign_in(name).await;
        for number in 0..40 {
            let client = if number % 2 == 0 { client.clone() } else { client.over_http2() };
            asking.push(tokio::spawn(async move {
                let path = format!("/app/{name}/{number}");
                let answer = client.get(&path).header("x-mine", &path).send().await;
                answer.expect_status(200);
            }));
        }
    }
    for asked in asking {
        asked.await.expect("answered");
    }
    let seen = world.upstream.seen();
    assert_eq!(seen.len(), 120);
    for request in seen {
        let name = request.path().split('/').nth(2).expect("a name").to_owned();
        assert_eq!(request.header("x-auth-user"), Some(name.as_str()), "{}", request.target);
        assert_eq!(request.header("x-mine"), Some(request.path()));
    }
}

/// Nobody polls the body of an answer whose client does not read: its end must come all
/// the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_session_ends_answers_that_nobody_reads() {
    let world = World::with(|setup| {
        setup.set("server.limits", "body_idle_timeout", "\"10m\"");
    })
    .await;
    for http2 in [false, true] {
        let alice = world.sign_in(ADMIN).await;
        let reader = if http2 { alice.over_http2() } else { alice.clone() };
        let unread = reader.get("/app/big?bytes=1073741824").open().await;
        eventually("the upstream sends", || (world.upstream.open_connections() > 0).then_some(()))
            .await;
        alice.copy().post("/auth/logout").own_page().send().await.expect_status(204);
        eventually_async("the upstream is let go", async || {
            (world.upstream.open_connections() == 0).then_some(())
        })
        .await;
        drop(unread);
    }
}
