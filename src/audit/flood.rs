//! Refusals without an identity: the first of an address are written one by one,
//! the rest become one counted line. Knows neither queue nor file.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::ambient::Timestamp;
use crate::audit::chain::Counted;

/// So many refusals of one address are written one by one ...
const WRITTEN_MAX: u64 = 20;
/// ... in this time.
const WINDOW: Duration = Duration::from_secs(10);
/// So many addresses are told apart at a time; the others are counted together.
const ADDRESSES_MAX: usize = 4096;

struct Window {
    since: Timestamp,
    seen: u64,
}

/// Who is refused how often, bounded.
pub(super) struct Flood {
    windows: HashMap<Option<IpAddr>, Window>,
}

impl Flood {
    pub(super) fn new() -> Self {
        Self { windows: HashMap::new() }
    }

    /// Whether a refusal of this address is to be written; if not, it is counted.
    pub(super) fn admit(&mut self, address: Option<IpAddr>, now: Timestamp) -> bool {
        let mut key = address.map(network);
        if !self.windows.contains_key(&key) && self.windows.len() >= ADDRESSES_MAX {
            key = None;
        }
        let window = self.windows.entry(key).or_insert(Window { since: now, seen: 0 });
        window.seen += 1;
        window.seen <= WRITTEN_MAX
    }

    /// Counts refusals that were never seen one by one.
    pub(super) fn overflow(&mut self, count: u64, now: Timestamp) {
        if count > 0 {
            let window =
                self.windows.entry(None).or_insert(Window { since: now, seen: WRITTEN_MAX });
            window.seen = window.seen.max(WRITTEN_MAX) + count;
        }
    }

    /// The counts whose time is over; all of them when `all`.
    pub(super) fn expire(&mut self, now: Timestamp, all: bool) -> Vec<Counted> {
        let mut counts = Vec::new();
        self.windows.retain(|client, window| {
            // A clock that was set back must not keep a window open.
            let over = all || now < window.since || now.since(window.since) >= WINDOW;
            if over && window.seen > WRITTEN_MAX {
                let client = client.map(written);
                counts.push(Counted { time: now, client, count: window.seen - WRITTEN_MAX });
            }
            !over
        });
        counts
    }
}

/// The network that counts as one client: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn written(network: IpAddr) -> String {
    match network {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("{v6}/64"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::Flood;
    use crate::ambient::Timestamp;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_twenty_first_refusal_in_ten_seconds_is_counted_and_not_written() {
        let mut flood = Flood::new();
        let at = Timestamp::from_millis;
        let written = (0..57).filter(|_| flood.admit(Some(address("192.0.2.1")), at(0))).count();
        assert_eq!(written, 20);
        assert!(flood.admit(Some(address("192.0.2.2")), at(0)));
        assert!(flood.expire(at(9_999), false).is_empty());
        let counts = flood.expire(at(10_000), false);
        assert_eq!(counts.len(), 1);
        assert_eq!((counts[0].client.as_deref(), counts[0].count), (Some("192.0.2.1"), 37));
        assert!(flood.admit(Some(address("192.0.2.1")), at(10_001)), "a new window begins");
    }

    #[test]
    fn one_ipv6_network_counts_as_one_client() {
        let mut flood = Flood::new();
        let now = Timestamp::from_millis(0);
        for host in 0..25 {
            flood.admit(Some(address(&format!("2001:db8::{host}"))), now);
        }
        let counts = flood.expire(now, true);
        assert_eq!((counts[0].client.as_deref(), counts[0].count), (Some("2001:db8::/64"), 5));
        flood.admit(Some(address("::ffff:192.0.2.1")), now);
        assert!(flood.windows.contains_key(&Some(address("192.0.2.1"))));
    }

    #[test]
    fn the_table_is_bounded_and_nothing_goes_uncounted() {
        let mut flood = Flood::new();
        let now = Timestamp::from_millis(0);
        let written =
            (0..10_000).filter(|n| flood.admit(Some(Ipv4Addr::from_bits(*n).into()), now)).count();
        assert!(flood.windows.len() <= 4097);
        flood.overflow(100, now);
        let counted: u64 = flood.expire(now, true).iter().map(|counted| counted.count).sum();
        assert_eq!(written as u64 + counted, 10_100);
    }
}
