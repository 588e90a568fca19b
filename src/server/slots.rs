//! How many connections may be open, in all and from one address. Touched when
//! a connection opens or ends, never by a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::config::Limits;
use crate::wire::client::AddressKey;

/// Counts of open connections, shared by all workers.
#[derive(Debug, Default)]
pub struct Slots {
    open: AtomicUsize,
    by_address: DashMap<AddressKey, usize>,
}

/// Which limit was reached; `label` is its name in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Connections,
    ConnectionsPerAddress,
}

impl Full {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
        }
    }
}

impl Slots {
    /// Nothing open.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// One more connection of whatever address.
    pub(crate) fn take(self: &Arc<Self>, limits: &Limits) -> Result<Slot, Full> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { slots: Arc::clone(self), address: None };
        if before >= limits.connections { Err(Full::Connections) } else { Ok(slot) }
    }
}

/// One open connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    address: Option<AddressKey>,
}

impl Slot {
    /// Counts the connection for `address` too.
    pub(crate) fn claim(&mut self, address: IpAddr, limits: &Limits) -> Result<(), Full> {
        let key = AddressKey::of(address);
        let mut count = self.slots.by_address.entry(key).or_insert(0);
        if *count >= limits.connections_per_address {
            return Err(Full::ConnectionsPerAddress);
        }
        *count += 1;
        drop(count);
        self.address = Some(key);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.open.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = self.address else { return };
        if let Entry::Occupied(mut count) = self.slots.by_address.entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Full, Slot, Slots};
    use crate::config::Limits;

    fn limits(connections: usize, connections_per_address: usize) -> Limits {
        Limits { connections, connections_per_address, ..Limits::default() }
    }

    fn taken(slots: &std::sync::Arc<Slots>, address: &str, limits: &Limits) -> Result<Slot, Full> {
        let mut slot = slots.take(limits)?;
        slot.claim(address.parse::<IpAddr>().unwrap(), limits)?;
        Ok(slot)
    }

    #[test]
    fn one_address_never_holds_more_than_its_share() {
        let (slots, limits) = (Slots::new(), limits(10, 2));
        let first = taken(&slots, "192.0.2.1", &limits).unwrap();
        let _second = taken(&slots, "::ffff:192.0.2.1", &limits).unwrap();
        let third = taken(&slots, "192.0.2.1", &limits);
        assert_eq!(third.err(), Some(Full::ConnectionsPerAddress));
        assert!(taken(&slots, "192.0.2.2", &limits).is_ok());
        drop(first);
        assert!(taken(&slots, "192.0.2.1", &limits).is_ok());
    }

    #[test]
    fn a_whole_ipv6_64_is_one_address() {
        let (slots, limits) = (Slots::new(), limits(10, 1));
        let _first = taken(&slots, "2001:db8::1", &limits).unwrap();
        assert!(taken(&slots, "2001:db8::2:3:4:5", &limits).is_err());
        assert!(taken(&slots, "2001:db8:0:1::1", &limits).is_ok());
    }

    #[test]
    fn refused_connections_give_everything_back() {
        let (slots, limits) = (Slots::new(), limits(1, 1));
        let first = taken(&slots, "192.0.2.1", &limits).unwrap();
        for _ in 0..5 {
            assert_eq!(taken(&slots, "192.0.2.2", &limits).err(), Some(Full::Connections));
        }
        drop(first);
        assert!(taken(&slots, "192.0.2.2", &limits).is_ok());
        assert!(slots.by_address.is_empty());
    }
}
