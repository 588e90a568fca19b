//! `[store]` with `kind = "redis"`: where the servers are, and what they and we
//! prove to each other.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::document::read_bounded;
use super::kind::{self, Choice, List, RedisUrl};
use super::pem;
use super::reader::Reader;
use crate::secret::Secret;

/// The shortest `max_staleness`: revocations are read twice a second.
const STALENESS_MIN: Duration = Duration::from_secs(2);

/// A store in Redis.
#[derive(Clone, Debug)]
pub struct RedisStore {
    /// How the servers stand to each other.
    pub topology: Topology,
    /// The server, the sentinels, or some nodes of the cluster.
    pub servers: Vec<RedisServer>,
    /// Whether they speak TLS.
    pub tls: bool,
    /// The number of the database; 0 in a cluster.
    pub database: i64,
    /// The ACL user; `None` for the default one.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret<String>>,
    /// The authorities (PEM) that certificates must come from; `None` for the operating system's.
    pub authorities: Option<Vec<u8>>,
    /// What all our keys begin with.
    pub key_prefix: String,
    /// What signing keys are sealed with, and from which the secrets that gateways
    /// share are derived.
    pub encryption_key: Secret<[u8; 32]>,
    /// How old the revocations read last may be.
    pub max_staleness: Duration,
}

/// `store.topology`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// A primary and replicas, found by asking sentinels.
    Sentinel {
        /// What the sentinels call the primary.
        master: String,
    },
    /// A cluster.
    Cluster,
}

/// One of `store.urls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisServer {
    /// Name or address.
    pub host: String,
    /// The port; 6379 when the URL names none.
    pub port: u16,
}

impl PartialEq for RedisStore {
    fn eq(&self, other: &Self) -> bool {
        let password =
            |store: &Self| store.password.as_ref().map(|password| password.expose().clone());
        (&self.topology, &self.servers, self.tls, self.database)
            == (&other.topology, &other.servers, other.tls, other.database)
            && (&self.username, &self.authorities, &self.key_prefix, self.max_staleness)
                == (&other.username, &other.authorities, &other.key_prefix, other.max_staleness)
            && password(self) == password(other)
            && self.encryption_key.expose() == other.encryption_key.expose()
    }
}

impl Eq for RedisStore {}

#[derive(Clone, Copy, PartialEq)]
enum TopologyKind {
    Single,
    Sentinel,
    Cluster,
}

impl RedisStore {
    /// The keys that only this kind of store has.
    pub(super) const KEYS: [&'static str; 9] = [
        "topology",
        "sentinel_master",
        "urls",
        "username",
        "password",
        "password_file",
        "ca_file",
        "key_prefix",
        "encryption_key_file",
    ];

    /// Reads what `[store]` says of Redis; `used` says whether that is its kind.
    pub(super) fn read(r: &mut Reader<'_>, used: bool) -> Option<Self> {
        let topology = read_topology(r, used);
        let urls = r.optional(
            "urls",
            List { of: kind::redis_url(), min: 1 },
            "The server, the sentinels, or some nodes of the cluster; required with kind = \
             \"redis\". redis:// without TLS is for loopback only.",
        );
        let username = r.optional(
            "username",
            kind::line(),
            "The ACL user; the default one if \
             there is none.",
        );
        let password = r.optional_secret("password", "password_file", "The ACL user's password.");
        let authorities = read_authorities(r);
        let key_prefix = r.or(
            "key_prefix",
            kind::label(),
            "bindgate".to_owned(),
            "What the names of all our keys in Redis begin with.",
        );
        let encryption_key = r.secret_in_file(
            "encryption_key_file",
            "The file with 32 random bytes in base64 (openssl rand -base64 32), the same for all \
             gateways: signing keys are kept in Redis under this key; required with kind = \
             \"redis\".",
        );
        let max_staleness = r.or(
            "max_staleness",
            kind::duration(false),
            Duration::from_mins(1),
            "How old the revocations read last from Redis may be; then requests are refused. Not \
             below 2s.",
        );
        if !used {
            return None;
        }
        if max_staleness < STALENESS_MIN {
            r.problem("max_staleness", format!("{max_staleness:?}"), "2s or more".to_owned());
        }
        for key in ["urls", "encryption_key_file"] {
            if r.is_missing(key) {
                r.problem(key, "nothing", "a value, with kind = \"redis\"".to_owned());
            }
        }
        if username.is_some() && password.is_none() && r.is_clean() {
            r.problem("password_file", "nothing", "the password of store.username".to_owned());
        }
        let servers = read_servers(r, urls?, topology.as_ref());
        let encryption_key = read_key(r, &encryption_key?);
        let (servers, tls, database) = servers?;
        Some(Self {
            topology: topology?,
            servers,
            tls,
            database,
            username,
            password,
            authorities: authorities?,
            key_prefix,
            encryption_key: encryption_key?,
            max_staleness,
        })
    }
}

fn read_topology(r: &mut Reader<'_>, used: bool) -> Option<Topology> {
    let kind = r.or(
        "topology",
        Choice {
            built: &[
                ("single", TopologyKind::Single),
                ("sentinel", TopologyKind::Sentinel),
                ("cluster", TopologyKind::Cluster),
            ],
            unbuilt: &[],
        },
        TopologyKind::Single,
        "How the Redis servers stand to each other.",
    );
    let master = r.optional(
        "sentinel_master",
        kind::line(),
        "What the sentinels call the primary; required with topology = \"sentinel\".",
    );
    match (kind, master) {
        (TopologyKind::Sentinel, None) => {
            if used && r.is_missing("sentinel_master") {
                let allowed = "the primary's name among the sentinels".to_owned();
                r.problem("sentinel_master", "nothing", allowed);
            }
            None
        }
        (TopologyKind::Sentinel, Some(master)) => Some(Topology::Sentinel { master }),
        (_, Some(_)) if used => {
            let allowed = "nothing without topology = \"sentinel\"".to_owned();
            r.problem("sentinel_master", "a value", allowed);
            None
        }
        (TopologyKind::Single, _) => Some(Topology::Single),
        (TopologyKind::Cluster, _) => Some(Topology::Cluster),
    }
}

/// The servers, whether they speak TLS, and the database.
fn read_servers(
    r: &mut Reader<'_>,
    urls: Vec<RedisUrl>,
    topology: Option<&Topology>,
) -> Option<(Vec<RedisServer>, bool, i64)> {
    let (tls, database) = urls.first().map(|url| (url.tls, url.database))?;
    if urls.iter().any(|url| (url.tls, url.database) != (tls, database)) {
        r.problem("urls", "differing schemes or databases", "one of each for all".to_owned());
        return None;
    }
    if topology == Some(&Topology::Single) && urls.len() > 1 {
        let allowed = "one URL with topology = \"single\"".to_owned();
        r.problem("urls", format!("{} URLs", urls.len()), allowed);
        return None;
    }
    if topology == Some(&Topology::Cluster) && database != 0 {
        r.problem("urls", "a database", "none: a cluster has only database 0".to_owned());
        return None;
    }
    if !tls {
        if let Some(url) = urls.iter().find(|url| !is_loopback(&url.host)) {
            let found = format!("redis:// to {}, without TLS", url.host);
            r.problem("urls", found, "rediss://, or a loopback address".to_owned());
            return None;
        }
        r.note("urls", "redis:// crosses this machine's loopback in clear");
    }
    let server = |url: RedisUrl| RedisServer { host: url.host, port: url.port };
    Some((urls.into_iter().map(server).collect(), tls, database))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The authorities as PEM; `None` inside when those of the operating system count.
#[expect(clippy::option_option, reason = "wrong is not the same as left out")]
fn read_authorities(r: &mut Reader<'_>) -> Option<Option<Vec<u8>>> {
    let file = r.optional(
        "ca_file",
        kind::file(),
        "Authorities (PEM) that Redis's certificates must come from; the operating system's if \
         there is none.",
    );
    match (r.given("ca_file"), file) {
        (false, _) => Some(None),
        (true, file) => {
            let file = file?;
            pem::authorities(r, "ca_file", &file)?;
            Some(read_bounded(&r.resolve(&file)).ok())
        }
    }
}

fn read_key(r: &mut Reader<'_>, text: &Secret<String>) -> Option<Secret<[u8; 32]>> {
    let bytes = STANDARD.decode(text.expose().trim()).ok().map(Secret::new);
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.expose().as_slice()).ok());
    if key.is_none() {
        let allowed = "one line: 32 random bytes in base64 (openssl rand -base64 32)".to_owned();
        r.problem("encryption_key_file", "something else in that file", allowed);
    }
    key.map(Secret::new)
}
