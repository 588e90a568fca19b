//! The stores in Redis that the conformance suite runs over: one server, a primary
//! that sentinels name, and a cluster. Each is started once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config::{self, RedisServer as Server, RedisStore, Topology};
use crate::secret::Secret;

#[path = "../../../tests/suite/support/redis.rs"]
#[expect(dead_code, unreachable_pub, reason = "some of it is for the tests of the whole")]
pub(crate) mod servers;

/// A store in Redis with names that nobody else uses.
pub(crate) fn settings(topology: Topology, ports: &[u16]) -> config::Store {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = |port: &u16| Server { host: "127.0.0.1".to_owned(), port: *port };
    config::Store::Redis(Box::new(RedisStore {
        topology,
        servers: ports.iter().map(server).collect(),
        tls: false,
        database: 0,
        username: None,
        password: None,
        authorities: None,
        key_prefix: format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        encryption_key: Secret::new([7; 32]),
        max_staleness: Duration::from_secs(5),
    }))
}

/// One store of each topology.
pub(super) fn all() -> [config::Store; 3] {
    [single(), sentinel(), cluster()]
}

/// A store on one server.
pub(crate) fn single() -> config::Store {
    static SERVER: OnceLock<servers::RedisServer> = OnceLock::new();
    let server = SERVER.get_or_init(|| servers::RedisServer::start(&[]));
    settings(Topology::Single, &[server.port])
}

/// A store on a primary that sentinels name.
pub(crate) fn sentinel() -> config::Store {
    static SERVERS: OnceLock<servers::Sentinels> = OnceLock::new();
    let servers = SERVERS.get_or_init(servers::Sentinels::start);
    settings(Topology::Sentinel { master: servers::MASTER.to_owned() }, &ports(&servers.sentinels))
}

/// A store on a cluster.
pub(crate) fn cluster() -> config::Store {
    static CLUSTER: OnceLock<servers::Cluster> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(servers::Cluster::start);
    settings(Topology::Cluster, &ports(&cluster.nodes))
}

fn ports(servers: &[servers::RedisServer]) -> Vec<u16> {
    servers.iter().map(|server| server.port).collect()
}
