//! Devices that an account logged in from before. A device is a random value in a
//! cookie; kept is a keyed hash of it, with keyed hashes of whose it is. Knows no
//! cookie header.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;
use crate::store::{Expiring, Family, Put, StoreError};
use crate::throttle::{Inner, Key, hashed};

/// How long a device is known after its last login.
pub const DEVICE_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// Accounts, or names of one, that one device is known for; the oldest goes.
const BONDS_MAX: usize = 8;

/// A device as the store knows it; one that it does not is nobody's.
#[derive(Default)]
pub(super) struct Device {
    pub(super) entry: Option<Key>,
    bonds: Vec<Bond>,
}

/// One account, under one of its names.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Bond {
    account: Key,
    name: Key,
}

/// A login that succeeded, whose device can be remembered.
pub struct Remembering {
    pub(super) inner: Arc<Inner>,
    pub(super) device: Device,
    pub(super) name: Key,
    pub(super) account: Option<Key>,
}

impl Device {
    pub(super) fn knows_name(&self, name: &Key) -> bool {
        self.bonds.iter().any(|bond| bond.name == *name)
    }

    pub(super) fn knows_account(&self, account: &Key) -> bool {
        self.bonds.iter().any(|bond| bond.account == *account)
    }
}

impl Inner {
    /// The device of a cookie's value.
    pub(super) async fn device(
        &self,
        value: Option<&Secret<String>>,
    ) -> Result<Device, StoreError> {
        let Some(value) = value else { return Ok(Device::default()) };
        let key = hashed(&self.device_key, value.expose().as_bytes());
        let kept = self.store.get(Family::Device, key, self.clock.now()).await?;
        Ok(kept.map_or_else(Device::default, |bytes| Device {
            entry: Some(key),
            bonds: bonds(&bytes),
        }))
    }
}

impl Remembering {
    /// Remembers the device under a new value, to be set as its cookie; the value it
    /// came with is no longer known. `None` when there is no room for more devices, or
    /// the store cannot answer: the login is one all the same.
    pub async fn remember(self) -> Option<Secret<String>> {
        let Self { inner, device, name, account } = self;
        let at_most = inner.config.load().devices;
        let bond = Bond { account: account?, name };
        if at_most == 0 {
            return None;
        }
        let value = Secret::new(URL_SAFE_NO_PAD.encode(inner.entropy.bytes::<32>().ok()?));
        let now = inner.clock.now();
        let entry = Expiring {
            family: Family::Device,
            key: hashed(&inner.device_key, value.expose().as_bytes()),
            value: with_newest(device.bonds, bond),
            until: now.plus(DEVICE_LIFETIME),
        };
        let kept = async {
            if let Some(old) = device.entry {
                inner.store.take(Family::Device, old, now).await?;
            }
            inner.store.put(entry, now, Some(at_most)).await
        };
        match kept.await {
            Ok(Put::Kept) => Some(value),
            Ok(Put::Exists | Put::Full) => None,
            Err(error) => {
                tracing::warn!(%error, "a device could not be remembered");
                None
            }
        }
    }
}

fn with_newest(mut bonds: Vec<Bond>, newest: Bond) -> Vec<u8> {
    bonds.retain(|bond| *bond != newest);
    bonds.push(newest);
    let too_many = bonds.len().saturating_sub(BONDS_MAX);
    bonds.iter().skip(too_many).flat_map(|bond| [bond.account, bond.name]).flatten().collect()
}

fn bonds(bytes: &[u8]) -> Vec<Bond> {
    let (pairs, _) = bytes.as_chunks::<64>();
    let bond = |pair: &[u8; 64]| {
        let (account, name) = pair.split_first_chunk()?;
        Some(Bond { account: *account, name: name.try_into().ok()? })
    };
    pairs.iter().filter_map(bond).collect()
}
