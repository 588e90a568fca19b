//! What `bindgate doctor` says of a store in Redis.

use bindgate::config::LdapTransport;

use super::doctor;
use crate::support::redis::RedisServer;
use crate::support::setup::Setup;
use crate::support::several::{Several, share, url};
use crate::support::slapd::Slapd;
use crate::support::upstream::Upstream;
use crate::support::world::shared_slapd;

/// May do what docs/operations.md lists, but for two commands.
const POOR: &str = "user poor on >a-password resetchannels ~{bindgate}:* ~{bindgate:* +@all \
                    -xadd -getdel";

fn in_redis(slapd: &Slapd, upstream: &Upstream, redis: &RedisServer) -> Setup {
    let mut setup = Setup::new(&slapd.toml(LdapTransport::Tls), &upstream.url());
    share(&mut setup);
    setup.set("store", "urls", &url(redis.port));
    setup
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_asked_for_its_version_our_rights_its_clock_and_the_keys() {
    let mut redis = RedisServer::start(&[POOR]);
    let (slapd, upstream) = (shared_slapd(), Upstream::start().await);
    let setup = in_redis(&slapd, &upstream, &redis);
    let said = doctor(&setup, &[]).await;
    said.ends_with(0).has(&["ok", "store", "keys", "none yet"]);
    said.has(&["ok", "store", "reach", "Redis 7", "replicas: 0"]);
    said.has(&["ok", "store", "rights"]).has(&["ok", "store", "clock", "ms ahead"]);
    assert!(redis.asked("DBSIZE").expect("a number").starts_with(":0"), "nothing was changed");

    drop(Several::on(&redis, 1).await);
    let said = doctor(&setup, &[]).await;
    said.ends_with(0).has(&["ok", "keys", "can be opened"]);
    setup.write("store.key", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n");
    doctor(&setup, &[]).await.ends_with(1).has(&["FAILED", "keys", "encryption_key_file"]);

    let mut setup = in_redis(&slapd, &upstream, &redis);
    setup.write("redis-password", "a-password\n");
    let file = format!("{:?}", setup.path("redis-password").display().to_string());
    setup.set("store", "username", "\"poor\"").set("store", "password_file", &file);
    let said = doctor(&setup, &[]).await;
    said.ends_with(1).has(&["FAILED", "store", "rights", "may not run getdel, xadd on keys"]);
    setup.set("store", "key_prefix", "\"other\"");
    let said = doctor(&setup, &[]).await;
    said.ends_with(1).has(&["FAILED", "store", "reach", "docs/operations.md"]);
    setup.write("redis-password", "another\n");
    let said = doctor(&setup, &[]).await;
    said.ends_with(1).has(&["FAILED", "store", "reach", "store.username and its password"]);

    redis.kill();
    let said = doctor(&setup, &[]).await;
    said.ends_with(1).has(&["FAILED", "store", "reach", "refused", "store.urls"]);
}
