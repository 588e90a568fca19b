//! Directory, upstream and gateway together, and people who sign in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bindgate::ambient::ManualTime;
use bindgate::config::LdapTransport;
use serde_json::json;

use super::client::{Answer, Client};
use super::gateway::Gateway;
use super::setup::Setup;
use super::slapd::{PASSWORD, Slapd};
use super::token::Token;
use super::upstream::Upstream;

pub(crate) const TOKEN_COOKIE: &str = "__Host-bindgate-token";
pub(crate) const CONTEXT_COOKIE: &str = "__Host-bindgate-context";
/// Kept at logout.
pub(crate) const DEVICE_COOKIE: &str = "__Host-bindgate-device";

/// One person for each role.
pub(crate) const SUPER_ADMIN: &str = "sam";
pub(crate) const ADMIN: &str = "alice";
pub(crate) const TRACER: &str = "carol";

/// A whole installation.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
    /// Held so that it runs.
    _slapd: Arc<Slapd>,
}

impl World {
    /// As an operator would set it up.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With the settings that the test is about.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let (setup, upstream, slapd) = prepare(change).await;
        Self { gateway: Gateway::start(setup).await, upstream, _slapd: slapd }
    }

    /// In this process, with a clock that only the test moves.
    pub(crate) async fn with_time(change: impl FnOnce(&mut Setup)) -> (Self, ManualTime) {
        let (setup, upstream, slapd) = prepare(change).await;
        let (gateway, time) = Gateway::start_inside(setup).await;
        (Self { gateway, upstream, _slapd: slapd }, time)
    }

    /// A browser without cookies.
    pub(crate) fn client(&self) -> Client {
        self.gateway.client()
    }

    /// A browser in which this person has just signed in.
    pub(crate) async fn sign_in(&self, name: &str) -> Client {
        let client = self.client();
        log_in(&client, name, PASSWORD).await.expect_status(200);
        client
    }
}

async fn prepare(change: impl FnOnce(&mut Setup)) -> (Setup, Upstream, Arc<Slapd>) {
    let slapd = shared_slapd();
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(&slapd.toml(LdapTransport::Tls), &upstream.url());
    change(&mut setup);
    (setup, upstream, slapd)
}

/// `POST /auth/login` as the sample clients do it.
pub(crate) async fn log_in(client: &Client, name: &str, password: &str) -> Answer {
    let credentials = json!({ "username": name, "password": password });
    client.post("/auth/login").own_page().json(&credentials).send().await
}

/// The token that this browser holds, taken apart.
pub(crate) fn token_of(client: &Client) -> Token {
    Token::parse(&token_text(client))
}

pub(crate) fn token_text(client: &Client) -> String {
    client.jar.get(TOKEN_COOKIE).expect("a token cookie")
}

pub(crate) fn context_of(client: &Client) -> String {
    client.jar.get(CONTEXT_COOKIE).expect("a context cookie")
}

/// The directory that all tests share which do not break it. It lives as long as any
/// test holds it, so that no server outlives the test program.
pub(crate) fn shared_slapd() -> Arc<Slapd> {
    static SHARED: Mutex<Weak<Slapd>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let slapd = Arc::new(Slapd::start());
        *shared = Arc::downgrade(&slapd);
        slapd
    })
}

/// A `[directory]` section that asks this address instead of the server itself.
pub(crate) fn directory_through(slapd: &Slapd, transport: LdapTransport, at: SocketAddr) -> String {
    let own = format!("127.0.0.1:{}", slapd.port(transport));
    let toml = slapd.toml(transport);
    assert!(toml.contains(&own), "the section names its server: {toml}");
    toml.replace(&own, &at.to_string())
}
