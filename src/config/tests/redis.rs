//! `[store]` with `kind = "redis"`: whatever is wrong is said at once, by file and key,
//! and no password is.

use super::{Folder, only, replaced};
use crate::config::{Loaded, RedisStore, Store, Topology};

/// 32 bytes.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
const GOOD: &str = "urls = [\"rediss://redis.example.org\"]";
const WITH_KEY: &str = "encryption_key_file = \"store.key\"";

fn store(lines: &str) -> String {
    let embedded = "kind = \"embedded\"\npath = \"state.redb\"";
    replaced(embedded, &format!("kind = \"redis\"\n{lines}"))
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("store.key", KEY);
    folder
}

fn loaded(lines: &str) -> RedisStore {
    let loaded = folder().load(&store(&format!("{lines}\n{WITH_KEY}")), &[]);
    let Loaded { config, .. } = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    let Store::Redis(redis) = config.store else { panic!("not in Redis") };
    *redis
}

#[test]
fn where_redis_is_and_how_it_is_reached_is_read() {
    for (url, host, port, tls, database) in [
        ("rediss://redis.example.org", "redis.example.org", 6379, true, 0),
        ("rediss://redis.example.org:6380/15", "redis.example.org", 6380, true, 15),
        ("redis://127.0.0.1", "127.0.0.1", 6379, false, 0),
        ("redis://localhost:7000/", "localhost", 7000, false, 0),
        ("redis://[::1]:6380/3", "::1", 6380, false, 3),
    ] {
        let read = loaded(&format!("urls = [\"{url}\"]"));
        let [server] = &read.servers[..] else { panic!("one server") };
        let host = (server.host.trim_matches(['[', ']']), host);
        assert_eq!((host.0, server.port, read.tls, read.database), (host.1, port, tls, database));
        assert_eq!(read.topology, Topology::Single);
    }
    let urls = "urls = [\"rediss://a.example\", \"rediss://b.example\"]";
    let read = loaded(&format!("topology = \"sentinel\"\nsentinel_master = \"main\"\n{urls}"));
    assert_eq!(read.topology, Topology::Sentinel { master: "main".to_owned() });
    assert_eq!(read.servers.len(), 2);
    assert_eq!(loaded(&format!("topology = \"cluster\"\n{urls}")).topology, Topology::Cluster);
}

#[test]
fn a_url_that_is_none_of_redis_is_refused_and_its_password_not_told() {
    let folder = folder();
    for url in [
        "",
        "redis.example.org:6379",
        "http://redis.example.org",
        "rediss+insecure://redis.example.org",
        "rediss://",
        "rediss:///0",
        "rediss://:6379",
        "rediss://redis.example.org:0",
        "rediss://redis.example.org:65536",
        "rediss://redis.example.org/x",
        "rediss://redis.example.org/-1",
        "rediss://redis.example.org/70000",
        "rediss://redis.example.org/0/1",
        "rediss://redis.example.org?db=1",
        "rediss://redis.example.org#0",
        "rediss://redis example.org",
        "unix:///run/redis.sock",
    ] {
        let lines = folder.lines(&store(&format!("urls = [\"{url}\"]\n{WITH_KEY}")));
        only(&lines, &["bindgate.toml", "store.urls", "rediss://HOST"]);
    }
    for url in ["redis://redis.example.org", "redis://10.0.0.1:6379", "redis://127.0.0.1.example"] {
        let lines = folder.lines(&store(&format!("urls = [\"{url}\"]\n{WITH_KEY}")));
        only(&lines, &["bindgate.toml", "store.urls", "without TLS", "loopback"]);
    }
    for user in [":hunter2@", "bindgate:hunter2@", "hunter2@"] {
        let url = format!("rediss://{user}redis.example.org");
        let lines = folder.lines(&store(&format!("urls = [\"{url}\"]\n{WITH_KEY}")));
        only(&lines, &["bindgate.toml", "store.urls"]);
        assert!(!lines[0].contains("hunter2"), "{}", lines[0]);
    }
}

#[test]
fn settings_of_redis_that_do_not_go_together_are_refused() {
    let folder = folder();
    folder.write("short.key", "BwcH\n");
    let two = "urls = [\"rediss://a.example\", \"rediss://b.example\"]";
    let cases: &[(&str, &[&str])] = &[
        ("urls = []", &["store.urls"]),
        (two, &["store.urls", "2 URLs", "single"]),
        ("urls = [\"rediss://a.example/1\"]\ntopology = \"cluster\"", &["store.urls", "database"]),
        (
            "urls = [\"rediss://a.example\", \"redis://127.0.0.1\"]\ntopology = \"cluster\"",
            &["store.urls", "differing"],
        ),
        (
            "urls = [\"rediss://a.example/1\", \"rediss://b.example\"]\ntopology = \"sentinel\"\n\
             sentinel_master = \"main\"",
            &["store.urls", "differing"],
        ),
    ];
    for (lines, words) in cases {
        only(&folder.lines(&store(&format!("{lines}\n{WITH_KEY}"))), words);
    }
    let cases: &[(&str, &[&str])] = &[
        ("topology = \"ring\"", &["store.topology", "\"cluster\""]),
        ("topology = \"sentinel\"", &["store.sentinel_master", "nothing"]),
        ("sentinel_master = \"main\"", &["store.sentinel_master", "sentinel"]),
        ("username = \"bindgate\"", &["store.password_file", "store.username"]),
        ("password_file = \"none\"", &["store.password_file", "none"]),
        ("max_staleness = \"1s\"", &["store.max_staleness", "2s"]),
        ("max_staleness = \"0s\"", &["store.max_staleness"]),
        ("key_prefix = \"a{b}\"", &["store.key_prefix"]),
        ("key_prefix = \"\"", &["store.key_prefix"]),
        ("ca_file = \"none.pem\"", &["store.ca_file", "none.pem"]),
        ("ca_file = \"store.key\"", &["store.ca_file"]),
        ("database = 1", &["store.database"]),
    ];
    for (line, words) in cases {
        only(&folder.lines(&store(&format!("{GOOD}\n{WITH_KEY}\n{line}"))), words);
    }
    for (line, words) in [
        ("", ["store.encryption_key_file", "nothing"]),
        ("encryption_key_file = \"none.key\"", ["store.encryption_key_file", "none.key"]),
        ("encryption_key_file = \"short.key\"", ["store.encryption_key_file", "32 random bytes"]),
    ] {
        only(&folder.lines(&store(&format!("{GOOD}\n{line}"))), &words);
    }
    only(&folder.lines(&store(WITH_KEY)), &["store.urls", "nothing"]);
}

#[test]
fn all_that_is_wrong_with_redis_is_said_at_once() {
    let folder = folder();
    let lines = folder.lines(&store(
        "topology = \"ring\"\nurls = [\"http://a.example\"]\nmax_staleness = \"1s\"\n\
         key_prefix = \"{\"\nca_file = \"none.pem\"\nusername = \"\"\n\
         password_file = \"none\"\nencryption_key_file = \"none.key\"\nnodes = 3",
    ));
    for key in [
        "topology",
        "urls",
        "max_staleness",
        "key_prefix",
        "ca_file",
        "username",
        "password_file",
        "encryption_key_file",
        "nodes",
    ] {
        let of_key = |line: &&String| line.contains(&format!("store.{key}"));
        let line = lines.iter().find(of_key).unwrap_or_else(|| panic!("{key}: {lines:#?}"));
        assert!(line.contains("bindgate.toml"), "{line}");
    }
    assert_eq!(lines.len(), 9, "{lines:#?}");
}
