//! Addresses, networks, host names, origins and URLs.

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use ipnet::IpNet;
use rustls_pki_types::ServerName;

use super::{Fault, Text};
use crate::config::{Origin, UpstreamServer};

/// An address and a port to listen at.
pub(in crate::config) const fn socket_address() -> Text<SocketAddr> {
    Text {
        allowed: "ADDRESS:PORT such as \"127.0.0.1:8443\" or \"[::]:443\"",
        pattern: None,
        parse: |text| text.parse().map_err(|_| Fault::default()),
        show: SocketAddr::to_string,
    }
}

/// A network, or one address.
pub(in crate::config) const fn network() -> Text<IpNet> {
    Text {
        allowed: "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address",
        pattern: None,
        parse: |text| {
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let network: IpNet = network.map_err(|_| Fault::default())?;
            // 10.1.2.3/8 is as often a slip for one address as for the network.
            if network.trunc() == network {
                Ok(network)
            } else {
                Err(Fault::allowed(format!("the network's own address, {}", network.trunc())))
            }
        },
        show: IpNet::to_string,
    }
}

/// A host name or address, lower case, without port.
pub(in crate::config) const fn host_name() -> Text<String> {
    Text {
        allowed: "a host name or address, without scheme and port",
        pattern: None,
        parse: |text| parse_host(text).ok_or_else(Fault::default),
        show: String::clone,
    }
}

/// Where the gateway is reached.
pub(in crate::config) const fn origin() -> Text<Origin> {
    Text {
        allowed: "an origin such as \"https://app.example.org\", with a port if it is not 443",
        pattern: Some("^https://[^/?#@]+$"),
        parse: |text| {
            let url = Url::parse(text)?;
            if url.scheme != "https" || text.ends_with('/') || url.port == Some(0) {
                return Err(Fault::default());
            }
            Ok(Origin { host: url.host, port: url.port.filter(|port| *port != 443) })
        },
        show: |origin| format!("https://{}", origin.host),
    }
}

/// An origin whose pages may call, as browsers write it into `Origin`.
pub(in crate::config) const fn calling_origin() -> Text<String> {
    Text {
        allowed: "an origin such as \"https://app.example.org\", with a port if it is not the usual \
                  one; never \"*\" or \"null\"",
        pattern: Some("^https?://[^/?#@]+$"),
        parse: |text| {
            let url = Url::parse(text)?;
            let usual = match url.scheme.as_str() {
                "https" => 443,
                "http" => 80,
                _ => return Err(Fault::default()),
            };
            if text.ends_with('/') || url.port == Some(0) {
                return Err(Fault::default());
            }
            let Url { scheme, host, port } = url;
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            let port = port.filter(|port| *port != usual);
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            Ok(format!("{scheme}://{host}{port}"))
        },
        show: String::clone,
    }
}

/// The host of an origin; `None` when it is none.
pub(in crate::config) fn origin_host(text: &str) -> Option<String> {
    (origin().parse)(text).ok().map(|origin| origin.host)
}

/// One of `directory.urls`.
pub(in crate::config) enum DirectoryUrl {
    Server {
        tls: bool,
        host: String,
        port: u16,
    },
    /// An Active Directory domain whose servers DNS names.
    Domain(String),
}

/// A directory server, or a domain of them.
pub(in crate::config) const fn directory_url() -> Text<DirectoryUrl> {
    Text {
        allowed: "\"ldaps://HOST\" or \"ldap://HOST\", with a port if it is not 636 or 389, or \
                  \"ad://DOMAIN\"",
        pattern: Some("^(ldaps?|ad)://[^/?#@]+/?$"),
        parse: |text| {
            let url = Url::parse(text)?;
            let (tls, usual) = match url.scheme.as_str() {
                "ldaps" => (true, 636),
                "ldap" => (false, 389),
                "ad" if url.port.is_none() && url.host.parse::<IpAddr>().is_err() => {
                    return Ok(DirectoryUrl::Domain(url.host));
                }
                _ => return Err(Fault::default()),
            };
            let port = url.port.unwrap_or(usual);
            if port == 0 {
                return Err(Fault::default());
            }
            Ok(DirectoryUrl::Server { tls, host: url.host, port })
        },
        show: |url| match url {
            DirectoryUrl::Server { tls, host, port } => {
                format!("{}://{host}:{port}", if *tls { "ldaps" } else { "ldap" })
            }
            DirectoryUrl::Domain(domain) => format!("ad://{domain}"),
        },
    }
}

/// One of `store.urls`.
pub(in crate::config) struct RedisUrl {
    pub(in crate::config) tls: bool,
    pub(in crate::config) host: String,
    pub(in crate::config) port: u16,
    pub(in crate::config) database: i64,
}

/// A Redis server. User and password are never part of the URL.
pub(in crate::config) const fn redis_url() -> Text<RedisUrl> {
    Text {
        allowed: "\"rediss://HOST\", with a port if it is not 6379 and a database if it is not \
                  /0; redis:// on loopback only",
        pattern: Some("^rediss?://[^/?#@]+(/[0-9]{0,3})?$"),
        parse: |text| {
            let (server, database) = match text.rsplit_once('/') {
                Some((server, database)) if !server.ends_with('/') => (server, database),
                _ => (text, ""),
            };
            let database = if database.is_empty() { Ok(0) } else { database.parse::<u16>() };
            let database = database.map_err(|_| Fault::default())?;
            let url = Url::parse(server)?;
            let tls = match url.scheme.as_str() {
                "rediss" => true,
                "redis" => false,
                _ => return Err(Fault::default()),
            };
            let port = url.port.filter(|port| *port != 0);
            if url.port == Some(0) {
                return Err(Fault::default());
            }
            let (host, database) = (url.host, i64::from(database));
            Ok(RedisUrl { tls, host, port: port.unwrap_or(6379), database })
        },
        show: |url| {
            let scheme = if url.tls { "rediss" } else { "redis" };
            format!("{scheme}://{}:{}/{}", url.host, url.port, url.database)
        },
    }
}

/// A DNS server.
pub(in crate::config) const fn dns_server() -> Text<SocketAddr> {
    Text {
        allowed: "an address such as \"10.0.0.53\", as ADDRESS:PORT if the port is not 53",
        pattern: None,
        parse: |text| {
            let address = text.parse::<IpAddr>().map(|ip| SocketAddr::from((ip, 53)));
            address.or_else(|_| text.parse()).map_err(|_| Fault::default())
        },
        show: SocketAddr::to_string,
    }
}

/// An upstream server.
pub(in crate::config) const fn upstream_url() -> Text<UpstreamServer> {
    Text {
        allowed: "\"http://HOST\", with a port if it is not 80, without a path",
        pattern: Some("^http://[^/?#@]+/?$"),
        parse: |text| {
            let url = Url::parse(text)?;
            match url.scheme.as_str() {
                "http" => {}
                "https" => return Err(Fault::unbuilt("upstream servers over https")),
                _ => return Err(Fault::default()),
            }
            let port = url.port.unwrap_or(80);
            if port == 0 {
                return Err(Fault::default());
            }
            Ok(UpstreamServer { host: url.host, port })
        },
        show: |server| format!("http://{}:{}", server.host, server.port),
    }
}

/// Scheme, host and port, and nothing else.
struct Url {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Url {
    fn parse(text: &str) -> Result<Self, Fault> {
        // A password in a URL must not come back in the message about it.
        if text.contains('@') {
            return Err(Fault::default().found("a URL with a user or a password in it"));
        }
        let url: Uri = text.parse().map_err(|_| Fault::default())?;
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(Fault::default());
        };
        // `Uri` takes a port that is no number, or too large, for none.
        let port_is_whole = authority.port_u16().is_some() || authority.port().is_none();
        let bare = authority.host().len() == authority.as_str().len() || authority.port().is_some();
        let nothing_else = url.path().len() <= 1 && url.query().is_none() && !text.contains('#');
        if !(port_is_whole && bare && nothing_else) {
            return Err(Fault::default());
        }
        let host = parse_host(authority.host()).ok_or_else(Fault::default)?;
        Ok(Self { scheme: scheme.to_owned(), host, port: authority.port_u16() })
    }
}

/// A host name or address, lower case, an IPv6 address without its brackets.
fn parse_host(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().ok().map(|address| address.to_string());
    }
    let host = text.to_ascii_lowercase();
    // A last dot would be another spelling of the same name.
    if host.ends_with('.') {
        return None;
    }
    ServerName::try_from(host.as_str()).ok()?;
    Some(host)
}

#[cfg(test)]
mod tests {
    use super::{
        calling_origin, directory_url, dns_server, host_name, network, origin, upstream_url,
    };
    use crate::config::kind::read;

    #[test]
    fn an_origin_is_https_a_host_and_perhaps_a_port() {
        let parsed = read(&origin(), "https://App.Example.org:8443").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port), ("app.example.org", Some(8443)));
        assert_eq!(read(&origin(), "https://a.example:443").unwrap().port, None);
        assert_eq!(read(&origin(), "https://[::1]:8443").unwrap().host, "::1");
        for text in [
            "http://a.example",
            "a.example",
            "https://a.example/",
            "https://a.example/x",
            "https://a.example?x",
            "https://u:p@a.example",
            "https://a.example:",
            "https://",
            "https://a.example:99999",
            "https://a b",
            "https://*.example",
            "https://a.example#x",
        ] {
            assert!(read(&origin(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn calling_origins_become_what_browsers_write() {
        for (text, written) in [
            ("https://App.Example.org", "https://app.example.org"),
            ("https://a.example:443", "https://a.example"),
            ("https://a.example:80", "https://a.example:80"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(read(&calling_origin(), text).unwrap(), written);
        }
        for text in ["*", "null", "https://*.a.example", "a.example", "https://a/", "ftp://a", ""] {
            assert!(read(&calling_origin(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let fault = read(&upstream_url(), "http://user:hunter2@host").unwrap_err();
        assert!(!fault.found.unwrap().contains("hunter2"));
    }

    #[test]
    fn directory_urls_have_their_usual_ports() {
        for (text, shown) in [
            ("ldaps://DC1.example.org", "ldaps://dc1.example.org:636"),
            ("ldap://[::1]/", "ldap://::1:389"),
            ("ldap://dc1:1389", "ldap://dc1:1389"),
            ("ad://Example.org", "ad://example.org"),
        ] {
            let url = read(&directory_url(), text).unwrap();
            assert_eq!((directory_url().show)(&url), shown);
        }
        for text in [
            "dc1",
            "http://dc1",
            "ldap://dc1/dc=example",
            "ldap://",
            "ldap://dc1:0",
            "ad://example.org:636",
            "ad://10.0.0.1",
            "ad://",
        ] {
            assert!(read(&directory_url(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_dns_server_is_an_address_with_its_usual_port() {
        for (text, address) in [
            ("10.0.0.53", "10.0.0.53:53"),
            ("10.0.0.53:5353", "10.0.0.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            assert_eq!(read(&dns_server(), text).unwrap().to_string(), address);
        }
        for text in ["", "dns.example.org", "10.0.0.53:x", "10.0.0"] {
            assert!(read(&dns_server(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_built_yet_is_said_so() {
        let fault = read(&upstream_url(), "https://backend").unwrap_err();
        assert!(matches!(fault.expected, Some(crate::config::problem::Expected::Unbuilt(_))));
    }

    #[test]
    fn a_network_with_host_bits_is_refused() {
        assert_eq!(read(&network(), "10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert!(read(&network(), "10.0.0.0/8").is_ok());
        for text in ["10.1.2.3/8", "10.0.0.0/33", "everybody", ""] {
            assert!(read(&network(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn host_names_are_compared_in_lower_case() {
        assert_eq!(read(&host_name(), "Ingest.Example.Org").unwrap(), "ingest.example.org");
        for text in ["", "a:443", "https://a", "a/b", "a b", "*.a", "a.example."] {
            assert!(read(&host_name(), text).is_err(), "{text}");
        }
    }
}
