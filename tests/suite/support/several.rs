//! Several gateways that share one Redis, one directory and one upstream.

use std::sync::Arc;
use std::time::Duration;

use bindgate::ambient::ManualTime;
use bindgate::config::LdapTransport;

use super::client::Client;
use super::gateway::Gateway;
use super::redis::RedisServer;
use super::setup::Setup;
use super::slapd::{PASSWORD, Slapd};
use super::upstream::Upstream;
use super::world::{log_in, shared_slapd};

/// What `store.urls` says of a server on loopback.
pub(crate) fn url(port: u16) -> String {
    format!("[\"redis://127.0.0.1:{port}\"]")
}

/// Has a Redis that holds sessions of one subject keep no more of that one.
pub(crate) fn keep_no_more(redis: &RedisServer) {
    // Whose the sessions are stands there; as a text, it takes none.
    let keys = redis.asked("KEYS *:owned").expect("an answer");
    let owned: Vec<&str> = keys.lines().filter(|line| line.ends_with(":owned")).collect();
    let [owned] = owned.as_slice() else { panic!("one subject: {keys}") };
    assert_eq!(redis.asked(&format!("SET {owned} x")).expect("an answer").trim(), "+OK");
}

/// A whole installation.
pub(crate) struct Several {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) upstream: Upstream,
    /// Runs as long as it is held.
    slapd: Arc<Slapd>,
}

impl Several {
    /// So many gateways, each with what is said of it.
    pub(crate) async fn start(count: usize, change: impl Fn(usize, &mut Setup)) -> Self {
        let (slapd, upstream) = (shared_slapd(), Upstream::start().await);
        let mut gateways = Vec::new();
        for number in 0..count {
            let mut setup = Setup::new(&slapd.toml(LdapTransport::Tls), &upstream.url());
            share(&mut setup);
            change(number, &mut setup);
            gateways.push(Gateway::start(setup).await);
        }
        Self { gateways, upstream, slapd }
    }

    /// On one server.
    pub(crate) async fn on(redis: &RedisServer, count: usize) -> Self {
        let urls = url(redis.port);
        Self::start(count, |_, setup| {
            setup.set("store", "urls", &urls);
        })
        .await
    }

    /// One more, in this process, whose clock the caller governs.
    pub(crate) async fn join_inside(&mut self, urls: &str) -> ManualTime {
        let mut setup = Setup::new(&self.slapd.toml(LdapTransport::Tls), &self.upstream.url());
        share(&mut setup);
        setup.set("store", "urls", urls);
        let (gateway, time) = Gateway::start_inside(setup).await;
        self.gateways.push(gateway);
        time
    }

    /// A browser that signed in at the first gateway.
    pub(crate) async fn sign_in(&self, name: &str) -> Client {
        let client = self.gateways[0].client();
        log_in(&client, name, PASSWORD).await.expect_status(200);
        client
    }

    /// The same browser at another gateway.
    pub(crate) fn at(&self, gateway: usize, client: &Client) -> Client {
        let other = &self.gateways[gateway];
        let mut moved = client.copy();
        moved.address = other.https;
        let pem = other.setup.authority.pem();
        moved.http1 = super::certs::client_config(pem, &["http/1.1"]);
        moved.http2 = super::certs::client_config(pem, &["h2"]);
        moved
    }

    /// Waits until a gateway answers this browser so, and says how long it took.
    pub(crate) async fn answers(
        &self,
        gateway: usize,
        client: &Client,
        (status, code): (u16, &str),
    ) -> Duration {
        let client = self.at(gateway, client);
        let began = tokio::time::Instant::now();
        super::eventually_async(&format!("{status} {code} at gateway {gateway}"), async || {
            let answer = client.get("/app/echo").try_send().await.ok()?;
            (answer.status == status && (code.is_empty() || answer.code() == code)).then_some(())
        })
        .await;
        began.elapsed()
    }
}

/// The setting of a Redis that has a user who may do all but this.
pub(crate) fn user_without(command: &str) -> String {
    format!("user half on >a-password ~* &* +@all -{command}")
}

/// As that user.
pub(crate) fn be_that_user(setup: &mut Setup) {
    setup.write("redis-password", "a-password\n");
    let file = format!("{:?}", setup.path("redis-password").display().to_string());
    setup.set("store", "username", "\"half\"").set("store", "password_file", &file);
}

/// Kept in Redis, under a key that all gateways have.
pub(crate) fn share(setup: &mut Setup) {
    setup.write("store.key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n");
    let key = format!("{:?}", setup.path("store.key").display().to_string());
    setup.unset("store", "path").set("store", "kind", "\"redis\"").set(
        "store",
        "encryption_key_file",
        &key,
    );
}
