//! The client's address: the peer's own, or what trusted proxies say of it, read
//! from the right. Nobody is trusted unless configured; what cannot be read
//! makes the socket's address count. Knows no throttle.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request counts for.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress;

impl ClientAddress {
    /// The address of whoever sent the request: `peer` unless it is a trusted
    /// proxy; then the rightmost address of `X-Forwarded-For` or `Forwarded` that
    /// is not a trusted proxy's. When both are there they must agree, as no proxy
    /// is known to keep both clean.
    #[must_use]
    pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
        let peer = peer.to_canonical();
        if !is_trusted(peer, trusted) {
            return peer;
        }
        let told = |name: HeaderName, read: fn(&str) -> Option<IpAddr>| {
            headers.contains_key(&name).then(|| walk(headers, &name, (trusted, read)))
        };
        let by_list = told(X_FORWARDED_FOR, address);
        let by_standard = told(FORWARDED, forwarded_for);
        let client = match (by_list, by_standard) {
            (Some(one), Some(other)) if one != other => None,
            (Some(one), _) => one,
            (None, other) => other.flatten(),
        };
        client.unwrap_or(peer)
    }
}

/// Whether the address lies in one of these networks.
#[must_use]
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// What a limit per client counts by: an IPv4 address, or the /64 that one IPv6
/// client commonly has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressKey(IpAddr);

impl AddressKey {
    /// The key of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
            }
            address @ IpAddr::V4(_) => address,
        })
    }

    /// The address, or the first one of the /64.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0
    }
}

/// Reads one hop of a list.
type ReadHop = fn(&str) -> Option<IpAddr>;

/// Walks the hops from the right while they are trusted. The outcome is the first
/// one that is not, or the leftmost; `None` when a hop on the way is unreadable.
fn walk(headers: &HeaderMap, name: &HeaderName, rules: (&[IpNet], ReadHop)) -> Option<IpAddr> {
    let (trusted, read) = rules;
    let fields: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    let mut last = None;
    for field in fields.into_iter().rev() {
        for hop in field.to_str().ok()?.rsplit(',') {
            let address = read(hop.trim())?;
            if !is_trusted(address, trusted) {
                return Some(address);
            }
            last = Some(address);
        }
    }
    last
}

/// An address with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let socket = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let address: Option<IpAddr> = bare.parse().ok().or_else(socket);
    address.map(|address| address.to_canonical())
}

/// The one `for` of a `Forwarded` element (RFC 7239 section 4).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in element.split(';') {
        let (name, value) = pair.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("for") {
            continue;
        }
        let value = value.trim();
        let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if found.replace(address(quoted.unwrap_or(value))?).is_some() {
            return None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, HeaderName, HeaderValue};
    use ipnet::IpNet;
    use proptest::prelude::{any, proptest};

    use super::{AddressKey, ClientAddress};

    fn client(peer: &str, fields: &[(&'static str, &str)], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        ClientAddress::of(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn nobody_is_believed_unless_configured() {
        assert_eq!(client("10.0.0.1", &[(XFF, "1.2.3.4")], &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[(XFF, "1.2.3.4")], &["10.0.0.2/32"]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &[], &[]), "10.0.0.1");
    }

    #[test]
    fn forwarded_headers_are_read_from_the_right() {
        let nets = ["10.0.0.0/8", "fd00::/8"];
        for (list, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("garbage, 1.2.3.4:5678, 10.1.1.1", "1.2.3.4"),
            ("2001:db8::1, fd00::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[(XFF, list)], &nets), expected, "{list}");
            assert_eq!(client("::ffff:10.0.0.1", &[(XFF, list)], &nets), expected, "{list}");
        }
        assert_eq!(client("10.0.0.1", &[(XFF, "6.6.6.6"), (XFF, "1.2.3.4")], &nets), "1.2.3.4");
        for (list, expected) in [
            ("for=6.6.6.6, for=1.2.3.4;proto=https", "1.2.3.4"),
            ("proto=https;For=\"[2001:db8::1]:443\";by=_x", "2001:db8::1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("forwarded", list)], &nets), expected, "{list}");
        }
    }

    #[test]
    fn what_cannot_be_read_makes_the_socket_count() {
        for list in
            ["", "unknown", "1.2.3.4,", "1.2.3.4, x", "6.6.6.6, 300.1.1.1", "1.2.3.4 5.6.7.8"]
        {
            assert_eq!(client("10.0.0.1", &[(XFF, list)], &["10.0.0.0/8"]), "10.0.0.1", "{list}");
        }
        for list in
            ["", "for=_hidden", "by=1.2.3.4", "for=1.2.3.4;for=6.6.6.6", "for", "for=\"1.2.3.4"]
        {
            let fields = [("forwarded", list)];
            assert_eq!(client("10.0.0.1", &fields, &["10.0.0.0/8"]), "10.0.0.1", "{list}");
        }
        let both = |standard| [(XFF, "1.2.3.4"), ("forwarded", standard)];
        assert_eq!(client("10.0.0.1", &both("for=6.6.6.6"), &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &both("for=1.2.3.4"), &["10.0.0.0/8"]), "1.2.3.4");
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let key = |text: &str| AddressKey::of(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:1.2.3.4"), key("1.2.3.4"));
        assert_ne!(key("1.2.3.4"), key("1.2.3.5"));
        assert_eq!(key("2001:db8::5").address().to_string(), "2001:db8::");
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(bytes in any::<Vec<u8>>(), text in "[for=;,\"\\[\\]:.0-9 ]{0,30}") {
            let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
            let peer: IpAddr = "10.0.0.1".parse().unwrap();
            for value in [HeaderValue::from_bytes(&bytes), HeaderValue::from_str(&text)].into_iter().flatten() {
                let mut headers = HeaderMap::new();
                headers.insert("x-forwarded-for", value.clone());
                let _ = ClientAddress::of(peer, &headers, &trusted);
                headers.insert("forwarded", value);
                let _ = ClientAddress::of(peer, &headers, &trusted);
                headers.remove("x-forwarded-for");
                let _ = ClientAddress::of(peer, &headers, &trusted);
            }
        }
    }
}
