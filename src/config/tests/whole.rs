//! A whole file: defaults, all problems at once, the environment, unbuilt keys.

use std::path::Path;
use std::time::Duration;

use super::{Folder, SMALL, only, problems, replaced, with};
use crate::ambient::Clock;
use crate::config::{
    Access, Config, KeyDefault, LdapTransport, Limits, Loaded, LogLevel, SameSite, Store,
};

#[test]
fn a_small_file_loads_with_the_contracts_defaults() {
    let folder = Folder::new();
    let config = folder.load(SMALL, &[]).unwrap().config;
    assert_eq!(config.server.auth_prefix, "/auth");
    assert_eq!(config.server.limits, Limits::default());
    assert_eq!(config.telemetry.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.token.lifetime, Duration::from_mins(15));
    assert_eq!(config.token.keys_dir, Some(folder.path("keys")));
    assert_eq!(config.cookie.token_name, "__Host-bindgate-token");
    assert_eq!(config.cookie.same_site, SameSite::Strict);
    assert_eq!(config.throttle.per_user.count, 5);
    assert_eq!(config.store, Store::Embedded { path: folder.path("state.redb") });
    assert_eq!(config.headers.user, "x-auth-user");
    let hsts = config.headers.hsts.unwrap().0;
    assert_eq!(hsts, "max-age=63072000; includeSubDomains; preload");
    assert_eq!(config.login_page.title, "Sign in");
    let directory = config.directory.unwrap();
    assert_eq!(directory.bind_password.expose(), "hunter2", "without its line end");
    assert_eq!(directory.servers[0].transport, LdapTransport::Tls);
    assert_eq!(directory.servers[0].port, 636);
    assert_eq!(config.upstreams[0].idle_timeout, Duration::from_secs(4));
    assert_eq!(config.routes[0].access, Access::Authenticated);
    assert!(config.server.tls.expires_at().unwrap() > Clock::system().now());
}

#[test]
fn all_problems_are_told_at_once_each_with_file_key_found_and_allowed() {
    let text = SMALL
        .replace("\"127.0.0.1:0\"", "\"here\"")
        .replace("https://safe", "http://safe")
        .replace("tls.key", "other.key")
        .replace("ldaps://", "ldap://")
        .replace("cn=admins,ou", "admins,ou")
        .replace("[token]", "[token]\nidle_timeout = \"5m\"\n[cookie]\nsame_site = 3")
        .replace("keys_dir = \"keys\"", "")
        .replace("http://127", "https://127")
        .replace("access = \"authenticated\"", "roles = [\"boss\"]")
        .replace("upstream = \"backend\"", "upstream = \"backened\"\nmethod = [\"GET\"]");
    let lines = Folder::new().lines(&text);
    let expected: [&[&str]; 11] = [
        &["bindgate.toml: server.listen: found \"here\"; allowed: a list", "127.0.0.1:8443"],
        &["server.public_origin: found \"http://safeplaces", "https://app.example.org"],
        &["server.tls.private_key_file", "another certificate"],
        &["directory.urls", "without TLS"],
        &["directory.role.group in [[directory.role]] no. 1", "\"admins,ou=", "distinguished"],
        &["token.keys_dir", "nothing"],
        &["cookie.same_site: found 3", "\"strict\", \"lax\", \"none\""],
        &["upstream.urls in [[upstream]] no. 1", "not built yet", "https"],
        &["route.roles in [[route]] no. 1", "\"boss\"", "admin"],
        &["route.upstream in [[route]] no. 1", "\"backened\"", "backend"],
        &["route.method", "an unknown key", "route.methods, perhaps?"],
    ];
    for words in expected {
        let hit = |line: &&String| words.iter().all(|word| line.contains(word));
        assert!(lines.iter().any(|line| hit(&line)), "{words:?} in {lines:#?}");
    }
    assert_eq!(lines.len(), 11, "{lines:#?}");
}

#[test]
fn the_environment_wins_and_is_named() {
    let folder = Folder::new();
    let loaded = folder.load(
        SMALL,
        &[
            ("BINDGATE_TELEMETRY__LOG_LEVEL", "debug"),
            ("BINDGATE_SERVER__WORKERS", "3"),
            ("BINDGATE_SERVER__LISTEN", "127.0.0.1:1, 127.0.0.1:2"),
            ("BINDGATE_SERVER__LIMITS__BODY_BYTES", "1KiB"),
            ("BINDGATE_DIRECTORY__NESTED_GROUPS", "false"),
            ("BINDGATE_DIRECTORY__BIND_PASSWORD", "123456"),
            ("BINDGATE_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/"),
        ],
    );
    let Loaded { config, notes } = loaded.unwrap();
    assert_eq!(config.telemetry.log_level, LogLevel::Debug);
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.limits.body_bytes, 1024);
    let directory = config.directory.unwrap();
    assert!(!directory.nested_groups);
    assert_eq!(directory.bind_password.expose(), "123456", "over the file's bind_password_file");
    assert!(notes.iter().any(|note| note.contains("BINDGATE_SERVICE_HOST: not read")));

    let lines = problems(folder.load(SMALL, &[("BINDGATE_SERVER__WORKERS", "many")]));
    only(
        &lines,
        &["environment variable BINDGATE_SERVER__WORKERS: server.workers: found \"many\""],
    );
    let lines = problems(folder.load(SMALL, &[("BINDGATE_SERVR__WORKERS", "1")]));
    only(&lines, &["environment variable BINDGATE_SERVR__WORKERS: servr", "server, perhaps?"]);
    let lines = problems(folder.load(SMALL, &[("BINDGATE_UPSTREAM__0__URLS", "x")]));
    assert!(lines[0].contains("BINDGATE_UPSTREAM__0__URLS: upstream: found a table"), "{lines:?}");
}

#[test]
fn what_is_no_toml_is_said_without_repeating_the_line() {
    let lines = Folder::new().lines("[directory]\nbind_password = \"hunter2\" x");
    only(&lines, &["bindgate.toml: found what is not TOML", "line 2"]);
    assert!(!lines[0].contains("hunter2"));
    let lines = problems(Config::load(Path::new("/nowhere/bindgate.toml")));
    only(&lines, &["/nowhere/bindgate.toml: found a file that cannot be read"]);
}

#[test]
fn every_unbuilt_key_is_refused_by_name() {
    let folder = Folder::new();
    let unbuilt = Config::keys();
    let unbuilt = unbuilt.iter().filter(|key| key.default == KeyDefault::Unbuilt);
    let mut count = 0;
    for key in unbuilt {
        count += 1;
        let text = match key.path.rsplit_once('.') {
            None => format!("{SMALL}\n[{}]\nenabled = true\n", key.path),
            Some((table @ ("route" | "upstream"), name)) => {
                with(&format!("[[{table}]]"), &format!("{name} = 1"))
            }
            Some((table, name)) if SMALL.contains(&format!("[{table}]")) => {
                with(&format!("[{table}]"), &format!("{name} = 1"))
            }
            Some((table, name)) => format!("{SMALL}\n[{table}]\n{name} = 1\n"),
        };
        only(&folder.lines(&text), &[&key.path, "not built yet", key.doc]);
    }
    assert!(count > 0, "when all is built, this test has had its day");
}

#[test]
fn every_unbuilt_value_is_refused_by_name() {
    let folder = Folder::new();
    for (old, new, word) in [
        ("\"http://127.0.0.1:3000\"", "\"http://a\", \"http://b\"", "balancing"),
        ("\"http://127.0.0.1:3000\"", "\"https://a\"", "https"),
    ] {
        only(&folder.lines(&replaced(old, new)), &["not built yet", word]);
    }
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let lines = Folder::new().lines("");
    for key in ["server", "store", "upstream", "route"] {
        let start = format!(": {key}: found nothing");
        assert!(lines.iter().any(|line| line.contains(&start)), "{key} in {lines:#?}");
    }
}
