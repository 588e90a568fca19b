//! The servers of an Active Directory domain, as DNS names them (RFC 2782). Knows no
//! LDAP. What DNS says is only where to go: who is there is proved by TLS.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::ambient::Entropy;
use crate::config;
use crate::config::{LdapServer, LdapTransport};
use crate::directory::DirectoryError;

/// Most servers that are connected to; a world-wide forest has hundreds.
const SERVERS_MAX: usize = 8;
/// How long one question to one DNS server may take; each is asked twice.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer is used, whatever time to live it has.
const HOLDS_MIN: Duration = Duration::from_secs(1);
const HOLDS_MAX: Duration = Duration::from_mins(5);
/// The ports that Active Directory's records name, and those beside them that speak TLS.
const TLS_PORTS: [(u16, u16); 2] = [(389, 636), (3268, 3269)];

/// Asks DNS for the servers of one domain.
pub(super) struct Discovery {
    domain: String,
    transport: LdapTransport,
    dns_servers: Vec<SocketAddr>,
    entropy: Entropy,
    resolver: Mutex<Option<TokioResolver>>,
    /// The order that was drawn, as long as the records stay the same.
    drawn: Mutex<(Vec<Record>, Vec<LdapServer>)>,
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    priority: u16,
    weight: u16,
    port: u16,
    target: String,
}

/// The servers in the order in which they should be asked, and how long that holds.
pub(super) struct Listed {
    pub(super) servers: Vec<LdapServer>,
    pub(super) holds: Duration,
}

impl Discovery {
    /// Asks nobody yet.
    pub(super) fn new(config: &config::Discovery, entropy: &Entropy) -> Self {
        Self {
            domain: config.domain.clone(),
            transport: config.transport,
            dns_servers: config.dns_servers.clone(),
            entropy: entropy.clone(),
            resolver: Mutex::new(None),
            drawn: Mutex::default(),
        }
    }

    /// The domain controllers; where there are no records of those, whatever server the
    /// domain names for LDAP.
    ///
    /// # Errors
    /// When DNS does not answer, or names none.
    pub(super) async fn look_up(&self) -> Result<Listed, DirectoryError> {
        let failed = |error: &NetError| DirectoryError::Discovery(error.to_string());
        let resolver = self.resolver()?;
        for service in ["_ldap._tcp.dc._msdcs", "_ldap._tcp"] {
            let name = format!("{service}.{}.", self.domain);
            // We keep the times ourselves.
            resolver.clear_lookup_cache(name.as_str(), RecordType::SRV);
            let answer = match resolver.srv_lookup(name.as_str()).await {
                Ok(answer) => answer,
                Err(error) if error.is_no_records_found() => continue,
                Err(error) => return Err(failed(&error)),
            };
            let ttl = answer.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
            let records = answer.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => self.record(srv),
                _ => None,
            });
            let servers = self.in_order(records.collect());
            if !servers.is_empty() {
                let holds = Duration::from_secs(u64::from(ttl)).clamp(HOLDS_MIN, HOLDS_MAX);
                return Ok(Listed { servers, holds });
            }
        }
        Err(DirectoryError::Discovery("DNS names no server of the domain".to_owned()))
    }

    /// The addresses of one of the servers.
    ///
    /// # Errors
    /// When DNS does not answer, or knows none.
    pub(super) async fn addresses(
        &self,
        server: &LdapServer,
    ) -> Result<Vec<SocketAddr>, DirectoryError> {
        let found = self.resolver()?.lookup_ip(format!("{}.", server.host)).await;
        let found = found.map_err(|error| DirectoryError::Discovery(error.to_string()))?;
        Ok(found.iter().map(|ip| SocketAddr::from((ip, server.port))).collect())
    }

    /// A record whose target is of the domain: whoever can forge an answer would
    /// otherwise name a host of their own, with a proper certificate.
    fn record(&self, srv: &SRV) -> Option<Record> {
        let target = srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let within = target.strip_suffix(&self.domain);
        if within.is_none_or(|host| !host.is_empty() && !host.ends_with('.')) {
            // The lone dot says that there is no such service.
            if !target.is_empty() {
                tracing::warn!(target, "DNS names a server outside the domain; it is not asked");
            }
            return None;
        }
        let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
        (port != 0).then_some(Record { priority, weight, port, target })
    }

    /// The servers in an order that is drawn anew only when the records change.
    fn in_order(&self, mut records: Vec<Record>) -> Vec<LdapServer> {
        records.sort();
        records.dedup();
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.0 != records {
            let mut servers = Vec::new();
            for Record { port, target, .. } in draw(records.clone(), &self.entropy) {
                let port = self.port(port);
                let server = LdapServer { host: target, port, transport: self.transport };
                if servers.len() < SERVERS_MAX && !servers.contains(&server) {
                    servers.push(server);
                }
            }
            *drawn = (records, servers);
        }
        drawn.1.clone()
    }

    /// Active Directory publishes the port that begins in clear, and speaks TLS beside it.
    fn port(&self, published: u16) -> u16 {
        let beside = TLS_PORTS.iter().find(|(clear, _)| *clear == published);
        match (self.transport, beside) {
            (LdapTransport::Tls, Some((_, tls))) => *tls,
            _ => published,
        }
    }

    /// Made at the first question, within the runtime that it will be asked from.
    fn resolver(&self) -> Result<TokioResolver, DirectoryError> {
        let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = &*resolver {
            return Ok(resolver.clone());
        }
        let failed = |error: NetError| DirectoryError::Discovery(error.to_string());
        let mut builder = if self.dns_servers.is_empty() {
            TokioResolver::builder_tokio().map_err(failed)?
        } else {
            let servers = self.dns_servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        builder.options_mut().timeout = QUESTION_TIMEOUT;
        builder.options_mut().attempts = 1;
        let made = builder.build().map_err(failed)?;
        *resolver = Some(made.clone());
        Ok(made)
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

/// Lower priorities first; among equal ones by chance, in proportion to their weights
/// (RFC 2782, "Weight").
fn draw(mut records: Vec<Record>, entropy: &Entropy) -> Vec<Record> {
    // The end of the list is drawn from: highest priority value first, no weight last.
    records.sort_by_key(|record| Reverse((record.priority, record.weight != 0)));
    let mut drawn = Vec::with_capacity(records.len());
    while let Some(last) = records.last() {
        let first_alike = records.partition_point(|record| record.priority > last.priority);
        let alike = records.get(first_alike..).unwrap_or_default();
        let sum: u64 = alike.iter().map(|record| u64::from(record.weight)).sum();
        let mut left = entropy.below(sum + 1).unwrap_or_default();
        let mut chosen = records.len() - 1;
        for (place, record) in records.iter().enumerate().skip(first_alike).rev() {
            chosen = place;
            if u64::from(record.weight) >= left {
                break;
            }
            left -= u64::from(record.weight);
        }
        drawn.push(records.remove(chosen));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;
    use hickory_resolver::proto::rr::rdata::SRV;

    use super::{Discovery, Record, draw};
    use crate::ambient::Entropy;
    use crate::config;
    use crate::config::LdapTransport;

    fn record(priority: u16, weight: u16, target: &str) -> Record {
        Record { priority, weight, port: 389, target: target.to_owned() }
    }

    fn discovery(transport: LdapTransport) -> Discovery {
        let domain = "example.org".to_owned();
        let config = config::Discovery { domain, transport, dns_servers: Vec::new() };
        Discovery::new(&config, &Entropy::seeded(3))
    }

    #[test]
    fn priorities_are_strict_and_weights_are_odds() {
        let entropy = Entropy::seeded(7);
        let records = vec![
            record(20, 100, "later"),
            record(10, 0, "seldom"),
            record(10, 10, "tenth"),
            record(10, 30, "third"),
            record(10, 60, "most"),
            record(0, 0, "always"),
        ];
        let mut seconds = std::collections::BTreeMap::new();
        for _ in 0..4000 {
            let drawn = draw(records.clone(), &entropy);
            assert_eq!(drawn.len(), records.len());
            assert_eq!((drawn[0].target.as_str(), drawn[5].target.as_str()), ("always", "later"));
            *seconds.entry(drawn[1].target.clone()).or_insert(0_u32) += 1;
        }
        let share = |target: &str| seconds.get(target).copied().unwrap_or_default();
        assert!((2200..2600).contains(&share("most")), "{seconds:?}");
        assert!((1050..1350).contains(&share("third")), "{seconds:?}");
        assert!((300..500).contains(&share("tenth")), "{seconds:?}");
        assert!((10..100).contains(&share("seldom")), "a very small chance: {seconds:?}");
        assert!(draw(Vec::new(), &entropy).is_empty());
    }

    #[test]
    fn only_hosts_of_the_domain_are_believed() {
        let discovery = discovery(LdapTransport::Tls);
        let target = |name: &str, port: u16| {
            let srv = SRV::new(0, 0, port, Name::from_ascii(name).unwrap());
            discovery.record(&srv).map(|record| record.target)
        };
        for (name, believed) in [
            ("DC1.Example.org.", Some("dc1.example.org")),
            ("a.b.example.org.", Some("a.b.example.org")),
            ("example.org.", Some("example.org")),
            ("dc1.example.org.evil.test.", None),
            ("dc1.notexample.org.", None),
            ("evil.test.", None),
            (".", None),
        ] {
            assert_eq!(target(name, 389).as_deref(), believed, "{name}");
        }
        assert_eq!(target("dc1.example.org.", 0), None);
    }

    #[test]
    fn the_port_beside_the_published_one_speaks_tls() {
        let ports = [389, 3268, 1636];
        assert_eq!(ports.map(|port| discovery(LdapTransport::Tls).port(port)), [636, 3269, 1636]);
        assert_eq!(ports.map(|port| discovery(LdapTransport::StartTls).port(port)), ports);
    }

    #[test]
    fn an_order_lasts_as_long_as_its_records() {
        let discovery = discovery(LdapTransport::Tls);
        let many = |count: u16| -> Vec<Record> {
            (0..count).map(|number| record(0, 10, &format!("dc{number}.example.org"))).collect()
        };
        let first = discovery.in_order(many(30));
        assert_eq!(first.len(), super::SERVERS_MAX);
        for _ in 0..10 {
            let mut again = many(30);
            again.reverse();
            assert_eq!(discovery.in_order(again), first);
        }
        assert_ne!(discovery.in_order(many(29)), first);
    }
}
