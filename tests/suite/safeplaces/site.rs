//! A whole installation: the published configuration with this machine's paths and
//! ports, its three services, and the directory that all tests share.

use std::sync::Arc;

use bindgate::config::LdapTransport;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::gateway::Gateway;
use crate::support::node::Service;
use crate::support::setup::{HOST, OTHER_HOST, Setup};
use crate::support::slapd::{PASSWORD, SERVICE_PASSWORD, Slapd};
use crate::support::world::shared_slapd;

const CONFIG: &str = include_str!("../../../config/safeplaces.toml");
/// The backend's `JWT_SECRET`.
pub(super) const SECRET: &str = "TVCH846KJdIyuB0s+vhXmoJa1YcVcDSsLjv+jTUDKJKzySdMvmIzelTjshPylKlc";

/// How the guard verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// `NODE_ENV=test`: HS256 with `JWT_SECRET`.
    Secret,
    /// RS256 with the key set at `AUTH0_BASE_URL`.
    KeySet,
}

pub(super) struct Site {
    pub(super) gateway: Gateway,
    pub(super) backend: Service,
    pub(super) translation: Service,
    pub(super) ingest: Service,
    /// Held so that it runs.
    _slapd: Arc<Slapd>,
}

impl Site {
    /// With a backend of this era.
    pub(super) async fn start(era: &str, mode: Mode) -> Self {
        Self::with(era, mode, |text| text).await
    }

    /// With a last change to the configuration's text.
    pub(super) async fn with(era: &str, mode: Mode, change: impl FnOnce(String) -> String) -> Self {
        let slapd = shared_slapd();
        let mut backend = Service::start(era).await;
        let mut translation = Service::start("translation").await;
        let mut ingest = Service::start("ingest").await;
        let mut setup = Setup::new("", "http://127.0.0.1:1");
        let mut text = adapted(CONFIG, &setup, &slapd);
        for (port, service) in [("3000", &backend), ("3001", &translation), ("3002", &ingest)] {
            text = replaced(&text, &format!("http://127.0.0.1:{port}"), &service.url());
        }
        if mode == Mode::Secret {
            let shared = format!("algorithm = \"HS256\"\nsecret_file = {:?}", path(&setup, "jwt"));
            text = replaced(&text, "publish = \"internal\"\nalgorithm = \"RS256\"", &shared);
        }
        setup.whole(change(text));
        let gateway = Gateway::start(setup).await;
        let environment = environment(mode, &gateway);
        for service in [&mut backend, &mut translation, &mut ingest] {
            service.configure(&environment).await;
        }
        Self { gateway, backend, translation, ingest, _slapd: slapd }
    }

    pub(super) fn client(&self) -> Client {
        self.gateway.client()
    }

    /// A browser in which this person has just signed in.
    pub(super) async fn sign_in(&self, name: &str) -> Client {
        let client = self.client();
        log_in(&client, name, PASSWORD).await.expect_status(200);
        client
    }
}

/// `POST /auth/login` as the web app does it.
pub(super) async fn log_in(client: &Client, name: &str, password: &str) -> Answer {
    let call = client.post("/auth/login").header("x-requested-with", "XMLHttpRequest");
    call.json(&json!({ "username": name, "password": password })).send().await
}

/// The variables that `docs/safeplaces.md` has set.
fn environment(mode: Mode, gateway: &Gateway) -> Value {
    let keys = gateway.jwks.map(|address| format!("http://{address}"));
    json!({
        "NODE_ENV": if mode == Mode::Secret { "test" } else { "production" },
        "JWT_SECRET": SECRET,
        "AUTH0_BASE_URL": keys.unwrap_or_else(|| "http://127.0.0.1:1".to_owned()),
        "AUTH0_API_AUDIENCE": format!("https://api.{HOST}"),
        "AUTH0_CLAIM_NAMESPACE": format!("https://{HOST}"),
    })
}

/// A published file with the paths, names and ports of this machine.
pub(super) fn adapted(text: &str, setup: &Setup, slapd: &Slapd) -> String {
    setup.write("ldap-password", SERVICE_PASSWORD);
    setup.write("jwt", SECRET);
    let directory = format!("ldaps://127.0.0.1:{}", slapd.port(LdapTransport::Tls));
    let authority = slapd.authority_file().display().to_string();
    let changes = [
        ("[\"0.0.0.0:443\"]", "[\"127.0.0.1:0\"]\nworkers = 2".to_owned()),
        ("[telemetry]\n", "[telemetry]\nlisten = \"127.0.0.1:0\"\n".to_owned()),
        ("[server.limits]\n", "[server.limits]\ndrain_delay = \"50ms\"\n".to_owned()),
        ("/etc/bindgate/tls.crt", path(setup, "tls.crt")),
        ("/etc/bindgate/tls.key", path(setup, "tls.key")),
        ("/etc/bindgate/ldap-ca.pem", authority),
        ("/run/secrets/ldap", path(setup, "ldap-password")),
        ("/var/log/bindgate/audit.jsonl", path(setup, "audit.jsonl")),
        ("/var/lib/bindgate/keys", path(setup, "keys")),
        ("/var/lib/bindgate/state.redb", path(setup, "state.redb")),
        ("ldaps://ldap.example.org", directory),
        ("safeplaces.example.org", HOST.to_owned()),
    ];
    let mut text = text.to_owned();
    for (from, to) in changes {
        text = replaced(&text, from, &to);
    }
    // Not in the file of the LDAP era.
    text.replace("ingest.example.org", OTHER_HOST).replace("127.0.0.1:9465", "127.0.0.1:0")
}

pub(super) fn path(setup: &Setup, name: &str) -> String {
    setup.path(name).display().to_string()
}

/// All occurrences; there must be one.
pub(super) fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} stands in the published file");
    text.replace(from, to)
}

/// The same upstreams, and one route that lets every role do everything.
pub(super) fn wide_open(text: &str) -> String {
    let (before, _) = text.split_once("\n[[route]]\n").expect("routes");
    format!(
        "{before}\n[[route]]\npath = \"/**\"\naccess = \"authenticated\"\nupstream = \"backend\"\n"
    )
}
