//! The servers of `[directory]`: where they are, or where DNS says so, and how many
//! connections to them are kept for how long.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::kind::{self, Boolean, DirectoryUrl, List, Whole};
use super::reader::Reader;

/// One server of `directory.urls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapServer {
    /// Host name or address, as in the URL, without brackets.
    pub host: String,
    /// The port; 636 or 389 when the URL names none.
    pub port: u16,
    /// How the connection is protected.
    pub transport: LdapTransport,
}

impl LdapServer {
    fn is_in_clear(&self) -> bool {
        self.transport == LdapTransport::Plaintext
    }
}

/// An Active Directory domain whose servers DNS names: `ad://DOMAIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The domain's DNS name.
    pub domain: String,
    /// How connections to its servers are protected; never in clear.
    pub transport: LdapTransport,
    /// The DNS servers that are asked; the operating system's when there are none.
    pub dns_servers: Vec<SocketAddr>,
}

/// How the connection to a directory is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LdapTransport {
    /// `ldaps://`: TLS from the first byte.
    Tls,
    /// `ldap://` with `start_tls`.
    StartTls,
    /// `ldap://` on loopback with `allow_plaintext`.
    Plaintext,
}

/// The servers by name, or the domain that DNS is asked of.
pub(super) fn read(
    r: &mut Reader<'_>,
    is_active: bool,
) -> Option<(Vec<LdapServer>, Option<Discovery>)> {
    let urls = r.required_here(
        "urls",
        List { of: kind::directory_url(), min: 1 },
        "The servers, in order: the first that answers is asked; or one domain whose servers DNS \
         names, for Active Directory alone. Not for a file.",
    );
    let dns_servers = r.or(
        "dns_servers",
        List { of: kind::dns_server(), min: 0 },
        Vec::new(),
        "The DNS servers that are asked for the servers of a domain; the operating system's if \
         there are none.",
    );
    let start_tls =
        r.or("start_tls", Boolean, false, "Whether ldap:// connections are upgraded to TLS.");
    let allow_plaintext = r.or(
        "allow_plaintext",
        Boolean,
        false,
        "Whether passwords may cross ldap:// without TLS; on loopback only.",
    );
    let urls = urls?;
    if let [DirectoryUrl::Domain(domain)] = urls.as_slice() {
        if !is_active {
            let allowed = "ad:// with kind = \"active_directory\" alone".to_owned();
            r.problem("urls", format!("\"ad://{domain}\""), allowed);
            return None;
        }
        let transport = if start_tls { LdapTransport::StartTls } else { LdapTransport::Tls };
        return Some((
            Vec::new(),
            Some(Discovery { domain: domain.clone(), transport, dns_servers }),
        ));
    }
    if !dns_servers.is_empty() {
        let allowed = "nothing: only servers of ad:// are looked for there".to_owned();
        r.problem("dns_servers", "a value", allowed);
    }
    read_named(r, urls, (start_tls, allow_plaintext)).map(|servers| (servers, None))
}

fn read_named(
    r: &mut Reader<'_>,
    urls: Vec<DirectoryUrl>,
    (start_tls, allow_plaintext): (bool, bool),
) -> Option<Vec<LdapServer>> {
    let mut servers = Vec::new();
    for url in urls {
        let (tls, host, port) = match url {
            DirectoryUrl::Server { tls, host, port } => (tls, host, port),
            DirectoryUrl::Domain(domain) => {
                let allowed = "one domain alone, or servers by name".to_owned();
                r.problem("urls", format!("\"ad://{domain}\" beside others"), allowed);
                return None;
            }
        };
        let transport = match (tls, start_tls) {
            (true, true) => {
                r.problem("start_tls", "true", "false with ldaps://, which is TLS".to_owned());
                return None;
            }
            (true, false) => LdapTransport::Tls,
            (false, true) => LdapTransport::StartTls,
            (false, false) if allow_plaintext && is_loopback(&host) => {
                if !servers.iter().any(LdapServer::is_in_clear) {
                    r.note("allow_plaintext", "passwords cross this machine's loopback in clear");
                }
                LdapTransport::Plaintext
            }
            (false, false) => {
                let allowed = "ldaps://, start_tls = true, or a loopback address with \
                               allow_plaintext = true";
                r.problem("urls", "ldap:// without TLS", allowed.to_owned());
                return None;
            }
        };
        let server = LdapServer { host, port, transport };
        if servers.contains(&server) {
            let found = format!("{}:{} twice", server.host, server.port);
            r.problem("urls", found, "each server once".to_owned());
            return None;
        }
        servers.push(server);
    }
    Some(servers)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Of how many names the searches of the last login are remembered.
pub(super) fn read_searches_ahead(r: &mut Reader<'_>) -> usize {
    r.or(
        "searches_ahead",
        Whole { min: 0, max: 100_000 },
        5000,
        "Of how many login names the searches of the last login are remembered, so that those of \
         the next are sent all at once; 0 for none.",
    )
}

/// Most connections that bind, and how long unused ones are kept.
pub(super) fn read_connections(r: &mut Reader<'_>) -> (usize, Duration) {
    let bind_connections = r.or(
        "bind_connections",
        Whole { min: 1, max: 1000 },
        32,
        "The most passwords that one server checks for us at a time, each on a connection of \
         its own; further logins wait.",
    );
    let idle_timeout = r.or(
        "idle_timeout",
        // The server is looked at twice as often as this, so that it does not hang up.
        kind::seconds(),
        Duration::from_secs(30),
        "How long an unused connection is kept; stay below the server's own limit.",
    );
    (bind_connections, idle_timeout)
}
