//! A directory that is a file: the whole life of a login without any server, the file
//! changed while the gateway runs, and the command that makes its hashes.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use bindgate::identity::PasswordHash;
use bindgate::secret::Secret;
use serde_json::json;

use crate::support::eventually_async;
use crate::support::gateway::{BINARY, Gateway, run};
use crate::support::setup::Setup;
use crate::support::upstream::Upstream;
use crate::support::users::{Person, file_directory, users_toml};
use crate::support::world::{log_in, token_of};

const PEOPLE: [Person<'static>; 5] = [
    Person {
        name: "Sam",
        password: "sam's password",
        roles: "\"super_admin\", \"admin\"",
        more: "",
    },
    Person {
        name: "alice",
        password: "alice's password",
        roles: "\"contact_tracer\", \"admin\"",
        more: "attributes = { mail = \"alice@example.org\", team = [\"red\", \"blue\"] }",
    },
    Person {
        name: "Zoë Berg", password: "zoë's password", roles: "\"contact_tracer\"", more: ""
    },
    Person { name: "gone", password: "a password", roles: "\"admin\"", more: "disabled = true" },
    Person { name: "nora", password: "a password", roles: "", more: "" },
];

/// A gateway whose people are in a file.
async fn with_file(change: impl FnOnce(&mut Setup)) -> (Gateway, Upstream) {
    let upstream = Upstream::start().await;
    let mut setup = Setup::new("", &upstream.url());
    let directory = file_directory(&setup);
    setup.directory(&directory);
    setup.write("users.toml", &users_toml(&PEOPLE));
    change(&mut setup);
    (Gateway::start(setup).await, upstream)
}

#[tokio::test]
async fn people_of_a_file_log_in_as_those_of_a_directory_do() {
    let (gateway, upstream) = with_file(|setup| {
        setup.set("throttle", "login_per_address", "\"1000 per 5m\"");
        setup.set("token", "claims", "{ mail = \"{attr:mail}\", team = [\"{attr:team}\"] }");
    })
    .await;
    gateway.readiness(200).await;
    for (name, password, status, code) in [
        ("alice", "wrong", 401, "InvalidCredentials"),
        ("nobody", "alice's password", 401, "InvalidCredentials"),
        ("gone", "wrong", 401, "InvalidCredentials"),
        ("gone", "a password", 403, "AccountUnavailable"),
        ("nora", "wrong", 401, "InvalidCredentials"),
        ("nora", "a password", 403, "NoRole"),
        ("alice ", "Alice's password", 401, "InvalidCredentials"),
    ] {
        let client = gateway.client();
        log_in(&client, name, password).await.expect(status, code);
        assert!(client.jar.header().is_none(), "{name}: no cookie for a failure");
    }
    for (typed, password, subject, role) in [
        ("sam", "sam's password", "Sam", "super_admin"),
        ("ALICE", "alice's password", "alice", "admin"),
        (" zoë  BERG", "zoë's password", "Zoë Berg", "contact_tracer"),
    ] {
        let client = gateway.client();
        log_in(&client, typed, password).await.expect_status(200);
        client.get("/app/echo").send().await.expect_status(200);
        assert_eq!(upstream.last().header("x-auth-user"), Some(subject));
        assert_eq!(upstream.last().header("x-auth-role"), Some(role), "the first from the top");
        if role == "admin" {
            let claims = token_of(&client).claims;
            assert_eq!(claims["mail"], "alice@example.org");
            assert_eq!(claims["team"], json!(["red", "blue"]));
            client.get("/super/echo").send().await.expect(403, "Forbidden");
        }
    }
    let metrics = gateway.metrics().await;
    for (result, count) in
        [("ok", 3.0), ("wrong_password", 4.0), ("no_such_user", 1.0), ("disabled", 1.0)]
    {
        let counted = metrics.sum("bindgate_logins_total", &[("result", result)]);
        assert!((counted - count).abs() < 0.1, "{result}: {counted}");
    }
    let compared = [("server", "users_file"), ("operation", "password_check")];
    let compared = metrics.sum("bindgate_directory_operations_total", &compared);
    assert!((compared - 10.0).abs() < 0.1, "each is compared once, the unknown too: {compared}");
}

#[tokio::test]
async fn nobody_changes_a_password_of_a_file_through_us() {
    let (gateway, _upstream) = with_file(|_| {}).await;
    let client = gateway.client();
    for (name, old, status, code) in [
        ("alice", "alice's password", 422, "PasswordRefused"),
        ("nora", "a password", 422, "PasswordRefused"),
        ("alice", "wrong", 401, "InvalidCredentials"),
        ("nobody", "alice's password", 401, "InvalidCredentials"),
        ("gone", "a password", 403, "AccountUnavailable"),
    ] {
        let change =
            json!({ "username": name, "old_password": old, "new_password": "a wholly new secret" });
        let answer = client.post("/auth/password").own_page().json(&change).send().await;
        answer.expect(status, code);
        if status == 422 {
            assert_eq!(answer.json()["reason"], "not_allowed", "{name}");
        }
    }
    let refused = [("result", "not_allowed")];
    gateway.counted("bindgate_password_changes_total", &refused, 2.0).await;
    log_in(&client, "alice", "alice's password").await.expect_status(200);
}

#[tokio::test]
async fn too_many_failures_of_somebody_in_a_file_lock_nobody_else_out() {
    let (gateway, _upstream) = with_file(|_| {}).await;
    let client = gateway.client();
    for _ in 0..5 {
        log_in(&client, "alice", "wrong").await.expect(401, "InvalidCredentials");
    }
    log_in(&client, " Alice", "alice's password").await.expect(429, "TooManyAttempts");
    log_in(&client, "sam", "sam's password").await.expect_status(200);
}

#[tokio::test]
async fn a_changed_file_is_taken_over_by_itself_and_a_bad_one_changes_nothing() {
    let (gateway, _upstream) = with_file(|_| {}).await;
    let new = Person { name: "ned", password: "ned's password", ..PEOPLE[0] };
    gateway.setup.write("users.toml", &users_toml(&[new]));
    gateway.counted("bindgate_users_file_reloads_total", &[("result", "ok")], 1.0).await;
    log_in(&gateway.client(), "ned", "ned's password").await.expect_status(200);
    log_in(&gateway.client(), "alice", "alice's password").await.expect(401, "InvalidCredentials");

    let bad = "[[user]]\nname = \"ned\"\npassword_hash = \"hunter2\"\n[[user]]\nname = \"Ned\"\nrole = 1\n";
    gateway.setup.write("users.toml", bad);
    gateway.counted("bindgate_users_file_reloads_total", &[("result", "error")], 1.0).await;
    log_in(&gateway.client(), "ned", "ned's password").await.expect_status(200);
    let log = gateway.log();
    for words in [
        "users.toml: user.password_hash in [[user]] no. 1: found what is no PHC string",
        "user.password_hash in [[user]] no. 2: found nothing",
        "user.role in [[user]] no. 2: found an unknown key",
    ] {
        assert!(log.contains(words), "all at once: {words} in {log}");
    }
    assert!(!log.contains("hunter2"), "no hash in the log");

    // SIGHUP reads it too: the same file stops the whole reload.
    gateway.signal("HUP");
    gateway.counted("bindgate_config_reloads_total", &[("result", "error")], 1.0).await;
    log_in(&gateway.client(), "ned", "ned's password").await.expect_status(200);
    gateway.setup.write("users.toml", &users_toml(&PEOPLE));
    gateway.signal("HUP");
    eventually_async("the new file", async || {
        let answer = log_in(&gateway.client(), "sam", "sam's password").await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_is_changed_in_the_file_is_logged_out_and_nobody_else() {
    let people = users_toml(&PEOPLE);
    let (gateway, _upstream) = with_file(|setup| setup.write("users.toml", &people)).await;
    let stays = gateway.client();
    log_in(&stays, "zoë berg", "zoë's password").await.expect_status(200);
    let other = users_toml(&[Person { name: "Sam", ..PEOPLE[0] }]);
    let hash = |toml: &str| {
        let line = toml.lines().find(|line| line.starts_with("password_hash")).expect("a hash");
        line.to_owned()
    };
    let renamed = people.replacen("\"Sam\"", "\"Samuel\"", 1);
    let other_role = people.replacen("\"super_admin\", ", "", 1);
    let no_role = people.replacen("\"super_admin\", \"admin\"", "", 1);
    let disabled = people.replacen("\"admin\"]", "\"admin\"]\ndisabled = true", 1);
    let rehashed = people.replacen(&hash(&people), &hash(&other), 1);
    let mut reloads = 0.0;
    for (changed, reason) in [
        (renamed, "account_gone"),
        (other_role, "role_changed"),
        (no_role, "role_lost"),
        (disabled, "account_disabled"),
        (rehashed, "password_changed"),
    ] {
        assert_ne!(changed, people, "{reason}");
        gateway.setup.write("users.toml", &people);
        reloads += 1.0;
        gateway.counted("bindgate_users_file_reloads_total", &[], reloads).await;
        let sam = gateway.client();
        log_in(&sam, "sam", "sam's password").await.expect_status(200);
        gateway.setup.write("users.toml", &changed);
        reloads += 1.0;
        gateway.counted("bindgate_sessions_revoked_total", &[("reason", reason)], 1.0).await;
        sam.get("/app/echo").send().await.expect(401, "SessionRevoked");
    }
    stays.get("/app/echo").send().await.expect_status(200);
}

#[tokio::test]
async fn check_says_all_that_is_wrong_with_a_users_file() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::new("", &upstream.url());
    let directory = file_directory(&setup);
    setup.directory(&directory);
    setup.save();
    let check = |people: &str, mode: u32| {
        setup.write("users.toml", people);
        fs::set_permissions(setup.path("users.toml"), fs::Permissions::from_mode(mode))
            .expect("its mode");
        let output = run(&["check", "--config", setup.config_file().to_str().expect("UTF-8")]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let good = users_toml(&PEOPLE);
    let (code, said) = check(&good, 0o600);
    assert_eq!(code, Some(0), "{said}");
    let weak =
        "$argon2id$v=19$m=4096,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    let costly =
        "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    let bad = format!(
        "{good}\n[[user]]\nname = \"ZOË berg\"\npassword_hash = \"{weak}\"\nroles = [\"boss\"]\n\
         [[user]]\nname = \" x\"\npassword_hash = \"{costly}\"\n"
    );
    let (code, said) = check(&bad, 0o644);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "users.toml: found a file that everybody on the machine may read",
        "user.name in [[user]] no. 6: found \"ZOË berg\", which is no. 3 already",
        "user.password_hash in [[user]] no. 6: found a hash that is too weak",
        "user.roles in [[user]] no. 6: found \"boss\"",
        "user.name in [[user]] no. 7: found \" x\"",
        "user.password_hash in [[user]] no. 7: found a hash that costs too much",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    assert!(!said.contains("c29tZXNhbHQ"), "no hash in what is printed");
    for text in ["", "[[user]\nname"] {
        assert_eq!(check(text, 0o600).0, Some(1), "{text:?}");
    }
}

/// `bindgate users hash` with this on its standard input.
fn hash(input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["users", "hash"]).stdin(Stdio::piped());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    // Whoever has heard enough may hang up.
    drop(child.stdin.take().expect("piped").write_all(input.as_bytes()));
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_password_from_a_pipe_becomes_its_hash() {
    let output = hash("correct horse battery\n");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
    let read = PasswordHash::parse(text.trim_end()).expect("a hash that a users file takes");
    assert!(read.fits(&Secret::new("correct horse battery".to_owned())));
    assert!(output.stderr.is_empty(), "nothing to say");
    let short = hash("hunter2");
    assert_eq!(short.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&short.stderr).contains("shorter than"));
    for input in ["", "\n", "a\nb\n"] {
        let output = hash(input);
        assert_eq!(output.status.code(), Some(1), "{input:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{input:?}");
    }
    assert_eq!(run(&["users", "hash", "hunter2"]).status.code(), Some(1), "never an argument");
}

/// Types at a terminal of its own, each line when it is asked for, and prints what the
/// terminal showed.
const TYPIST: &str = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], "users", "hash"])
shown = b""
for prompt, line in ((b"Password: ", sys.argv[2]), (b"Again: ", sys.argv[3])):
    while prompt not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, line.encode() + (b"" if line == "\x03" else b"\n"))
    if line == "\x03":
        break
try:
    while True:
        more = os.read(terminal, 1024)
        if not more:
            break
        shown += more
except OSError:
    pass
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(status) % 256)
"#;

fn type_at_terminal(first: &str, again: &str) -> (Option<i32>, String) {
    let output = Command::new("/usr/bin/python3")
        .args(["-c", TYPIST, BINARY, first, again])
        .output()
        .expect("Python is installed (apt-get install python3)");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.is_empty(), "{errors}");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_terminal_asks_twice_and_shows_nothing() {
    let (code, shown) = type_at_terminal("correct horse battery", "correct horse battery");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Password: ") && shown.contains("Again: "), "{shown}");
    assert!(!shown.contains("correct horse"), "no echo: {shown}");
    let line = shown.lines().find(|line| line.starts_with("$argon2id$")).expect("a hash");
    let read = PasswordHash::parse(line.trim_end()).expect("a hash that a users file takes");
    assert!(read.fits(&Secret::new("correct horse battery".to_owned())));
    let (code, shown) = type_at_terminal("correct horse battery", "another");
    assert_eq!(code, Some(1));
    assert!(shown.contains("differ") && !shown.contains("$argon2id$"), "{shown}");
    let (code, shown) = type_at_terminal("\u{3}", "");
    assert_eq!(code, Some(1), "interrupted: {shown}");
}

#[tokio::test]
async fn the_doctor_walks_through_a_users_file() {
    let (gateway, _upstream) = with_file(|_| {}).await;
    for (name, code, words) in [
        ("ALICE", 0, "admin"),
        ("gone", 1, "disabled = true"),
        ("nora", 1, "no roles"),
        ("nobody", 1, "no [[user]] has this name"),
    ] {
        let said = gateway.command(&format!("doctor --user {name}")).await;
        assert_eq!(said.code, Some(code), "{name}: {}", said.text);
        assert!(said.text.contains("5 users") && said.text.contains(words), "{}", said.text);
    }
}
