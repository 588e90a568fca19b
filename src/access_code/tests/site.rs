//! Three gateways on one store of each kind, with a clock that the test moves.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::access_code::{AccessCodes, Code, CodeKeys, Issued, Ledger, RedeemError, Redeemed};
use crate::ambient::{Clock, Entropy, ManualTime};
use crate::config::{self, GuessBudget, Rate, SuccessBound};
use crate::identity::{Role, Subject};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::tests::{hear, redis};

pub(super) const HOUR: Duration = Duration::from_hours(1);

/// Every kind of store; the last three are Redis.
pub(super) const KINDS: [&str; 5] = ["memory", "embedded", "single", "sentinel", "cluster"];

/// Three gateways. Those on Redis have connections of their own; in memory and in a
/// file there is one store for all, as no two processes can have it.
pub(super) struct Site {
    pub(super) gateways: [AccessCodes; 3],
    pub(super) metrics: Metrics,
    pub(super) time: ManualTime,
    _folder: TempDir,
}

pub(super) fn settings(digits: u8, alive_max: u32, one_in: u32) -> config::AccessCodes {
    config::AccessCodes {
        lifetime: HOUR,
        session_lifetime: Duration::from_mins(15),
        alive_max,
        issuer_roles: vec![Role::new("tracer")],
        per_issuer: Rate { count: 1_000_000, window: HOUR },
        budgets: GuessBudget::of_lengths(digits, alive_max, SuccessBound { one_in }),
    }
}

pub(super) async fn site(kind: &str, settings: &config::AccessCodes) -> Site {
    let folder = TempDir::new().unwrap();
    let (clock, time) = Clock::manual();
    let metrics = Metrics::new().unwrap();
    let config = match kind {
        "memory" => config::Store::Memory,
        "embedded" => config::Store::Embedded { path: folder.path().join("state.redb") },
        "single" => redis::single(),
        "sentinel" => redis::sentinel(),
        _ => redis::cluster(),
    };
    let open = async || {
        let ambient = (&clock, &Entropy::system());
        let store = Store::open(&config, Duration::ZERO, ambient, &metrics).await.unwrap();
        store.open_windows(100_000, clock.now()).unwrap();
        hear(&store).await;
        Arc::new(store)
    };
    let first = open().await;
    let stores = if first.is_shared() {
        [first, open().await, open().await]
    } else {
        [Arc::clone(&first), Arc::clone(&first), first]
    };
    let mut gateways = Vec::new();
    for (seed, store) in (1..).zip(stores) {
        let entropy = Entropy::seeded(seed);
        let keys = CodeKeys::open(&store, &entropy).await.unwrap();
        let ledger = Ledger { store, keys, clock: clock.clone(), entropy };
        gateways.push(AccessCodes::new(settings, &ledger, &metrics));
    }
    let gateways = gateways.try_into().unwrap_or_else(|_| unreachable!());
    Site { gateways, metrics, time, _folder: folder }
}

pub(super) fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
}

pub(super) fn zoe() -> Subject {
    Subject::new("zoë")
}

impl Site {
    /// The gateway of that number.
    pub(super) fn gateway(&self, number: u32) -> &AccessCodes {
        &self.gateways[usize::try_from(number % 3).unwrap()]
    }

    pub(super) async fn issue(&self) -> Issued {
        self.gateways[0].issue(&zoe(), None).await.unwrap()
    }

    /// On the gateway of that number, from the address of that number.
    pub(super) async fn redeem(&self, code: &Code, number: u32) -> Result<Redeemed, RedeemError> {
        self.gateway(number).redeem(code, address(number)).await
    }

    pub(super) fn events(&self, event: &str) -> u64 {
        self.metrics.access_codes(event).get()
    }
}
