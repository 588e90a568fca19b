//! Devices that an account logged in from before. A device is a random value in a
//! cookie; kept is a keyed hash of it, with keyed hashes of whose it is, and of each
//! account which devices it has: so many and no more, so that nobody's logins push out
//! the devices of others. Knows no cookie header.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{join, try_join_all};

use crate::ambient::Timestamp;
use crate::secret::Secret;
use crate::store::{Expiring, Family, Put, StoreError};
use crate::throttle::{Inner, Key, hashed};

/// How long a device is known after it was given its value.
pub const DEVICE_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// How old a value has to be for a login to give the device another one. Before that a
/// login whose account knows the device writes nothing.
pub(super) const VALUE_KEPT: Duration = Duration::from_hours(24);
/// How long a value is known that another has replaced: the answer with the new one may
/// be lost, and of two logins at once on one device each brings the old one.
const REPLACED_LIFETIME: Duration = Duration::from_mins(1);
/// Accounts, or names of one, that one device is known for; the oldest goes.
const BONDS_MAX: usize = 8;
/// Devices of one account; the one whose value is oldest goes.
const DEVICES_MAX: usize = 16;
/// When a value was given that is to be replaced by the next login.
const LONG_AGO: Timestamp = Timestamp::from_millis(0);
/// How often an entry is read again because somebody else was quicker to change it.
const ROUNDS: usize = 8;

/// A device as the store knows it; one that it does not is nobody's.
pub(super) struct Device {
    pub(super) entry: Option<Entry>,
    bonds: Vec<Bond>,
    /// When it was given its value; long ago, if another has replaced that.
    given: Timestamp,
}

/// What the store holds of a device.
pub(super) struct Entry {
    pub(super) key: Key,
    value: Vec<u8>,
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
    /// One that nobody knows.
    pub(super) const fn unknown() -> Self {
        Self { entry: None, bonds: Vec::new(), given: LONG_AGO }
    }

    pub(super) fn knows_name(&self, name: &Key) -> bool {
        self.bonds.iter().any(|bond| bond.name == *name)
    }

    pub(super) fn knows_account(&self, account: &Key) -> bool {
        self.bonds.iter().any(|bond| bond.account == *account)
    }
}

impl Remembering {
    /// Remembers the device under a new value, to be set as its cookie; the value it
    /// came with is known for another moment. `None` when the device may keep the value
    /// that it has, when there is no room for more devices, or when the store cannot
    /// answer: the login is one all the same.
    pub async fn remember(self) -> Option<Secret<String>> {
        let Self { inner, device, name, account } = self;
        let bond = Bond { account: account?, name };
        if inner.config.load().devices == 0 || inner.may_keep_its_value(&device, bond).await {
            return None;
        }
        let value = Secret::new(URL_SAFE_NO_PAD.encode(inner.entropy.bytes::<32>().ok()?));
        let key = hashed(&inner.device_key, value.expose().as_bytes());
        match inner.remember(device, bond, key).await {
            Ok(Put::Kept) => Some(value),
            Ok(Put::Exists | Put::Full) => {
                inner.metrics.limit_hits("devices").inc();
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a device could not be remembered");
                None
            }
        }
    }
}

impl Inner {
    /// The device of a cookie's value.
    pub(super) async fn device(
        &self,
        value: Option<&Secret<String>>,
    ) -> Result<Device, StoreError> {
        let Some(value) = value else { return Ok(Device::unknown()) };
        let key = hashed(&self.device_key, value.expose().as_bytes());
        let kept = self.store.get(Family::Device, key, self.clock.now()).await?;
        Ok(kept.map_or_else(Device::unknown, |value| {
            let (bonds, given) = read(&value);
            Device { bonds, given, entry: Some(Entry { key, value }) }
        }))
    }

    /// Whether a login changes nothing: the value is not old, the account knows it, and not
    /// so many have newer ones that they might push it out.
    async fn may_keep_its_value(&self, device: &Device, bond: Bond) -> bool {
        let now = self.clock.now();
        if now.since(device.given) >= VALUE_KEPT || !device.bonds.contains(&bond) {
            return false;
        }
        let key = device.entry.as_ref().map(|entry| entry.key);
        let list = self.list(bond.account, now).await.map(|(_, list)| list).unwrap_or_default();
        list.iter().rev().take(DEVICES_MAX / 2).any(|newer| Some(*newer) == key)
    }

    /// Keeps the device under its new key. All that need not wait for each other goes to
    /// the store together, which may write it at once.
    async fn remember(&self, device: Device, bond: Bond, key: Key) -> Result<Put, StoreError> {
        let (now, Device { entry: replaced, bonds, .. }) = (self.clock.now(), device);
        // One that takes another's place needs no room of its own.
        let takes_place =
            replaced.is_some() || self.list(bond.account, now).await?.1.len() >= DEVICES_MAX;
        let at_most = (!takes_place).then(|| self.config.load().devices);
        let old = replaced.as_ref().map(|entry| entry.key);
        let others = bonds.iter().filter(|other| other.account != bond.account);
        let mut others: Vec<_> = others.map(|other| other.account).collect();
        others.dedup();
        let entry = Expiring {
            family: Family::Device,
            key,
            value: bytes(&with_newest(bonds, bond), now),
            until: now.plus(DEVICE_LIFETIME),
        };
        let listed = async {
            self.renamed(others, old, key).await?;
            self.listed(bond.account, old, key).await
        };
        let kept = join(self.store.put(entry, now, at_most), join(listed, self.retire(replaced)));
        let (put, (pushed_out, retired)) = kept.await;
        retired?;
        for device in pushed_out? {
            self.unbind(device, bond.account).await?;
        }
        put
    }

    /// Puts the device at the end of the account's list, in the old one's stead; says
    /// which it pushed out.
    async fn listed(
        &self,
        account: Key,
        old: Option<Key>,
        new: Key,
    ) -> Result<Vec<Key>, StoreError> {
        let mut pushed_out = Vec::new();
        let amend = |list: &mut Vec<Key>| {
            list.retain(|device| Some(*device) != old);
            list.push(new);
            pushed_out = list.drain(..list.len().saturating_sub(DEVICES_MAX)).collect();
        };
        self.amend_list(account, amend).await?;
        Ok(pushed_out)
    }

    /// Tells the lists of the other accounts that use the device what it is called now.
    async fn renamed(
        &self,
        others: Vec<Key>,
        old: Option<Key>,
        new: Key,
    ) -> Result<(), StoreError> {
        let rename = async |account| {
            let rename = |list: &mut Vec<Key>| {
                for device in list.iter_mut().filter(|device| Some(**device) == old) {
                    *device = new;
                }
            };
            self.amend_list(account, rename).await
        };
        try_join_all(others.into_iter().map(rename)).await.map(drop)
    }

    /// What the store holds of an account's devices, and which they are, oldest first.
    async fn list(
        &self,
        account: Key,
        now: Timestamp,
    ) -> Result<(Option<Vec<u8>>, Vec<Key>), StoreError> {
        let held = self.store.get(Family::DeviceList, account, now).await?;
        let (list, _) = held.as_deref().unwrap_or_default().as_chunks::<32>();
        let list = list.to_vec();
        Ok((held, list))
    }

    async fn amend_list(
        &self,
        account: Key,
        mut amend: impl FnMut(&mut Vec<Key>),
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        for _ in 0..ROUNDS {
            let (before, mut list) = self.list(account, now).await?;
            amend(&mut list);
            let entry = Expiring {
                family: Family::DeviceList,
                key: account,
                value: list.concat(),
                until: now.plus(DEVICE_LIFETIME),
            };
            if self.store.replace(before, entry, now).await? {
                break;
            }
        }
        Ok(())
    }

    /// Lets the value that was replaced go soon.
    async fn retire(&self, replaced: Option<Entry>) -> Result<(), StoreError> {
        let Some(Entry { key, value }) = replaced else { return Ok(()) };
        let now = self.clock.now();
        let until = now.plus(REPLACED_LIFETIME);
        let retired = bytes(&read(&value).0, LONG_AGO);
        let entry = Expiring { family: Family::Device, key, value: retired, until };
        self.store.replace(Some(value), entry, now).await.map(drop)
    }

    /// The device is no longer known for the account; for nobody, it is gone.
    async fn unbind(&self, key: Key, account: Key) -> Result<(), StoreError> {
        let now = self.clock.now();
        for _ in 0..ROUNDS {
            let Some(before) = self.store.get(Family::Device, key, now).await? else { break };
            let (mut left, given) = read(&before);
            left.retain(|bond| bond.account != account);
            let until = if left.is_empty() { now } else { now.plus(DEVICE_LIFETIME) };
            let entry = Expiring { family: Family::Device, key, value: bytes(&left, given), until };
            if self.store.replace(Some(before), entry, now).await? {
                break;
            }
        }
        Ok(())
    }
}

fn with_newest(mut bonds: Vec<Bond>, newest: Bond) -> Vec<Bond> {
    bonds.retain(|bond| *bond != newest);
    bonds.push(newest);
    bonds.drain(..bonds.len().saturating_sub(BONDS_MAX));
    bonds
}

fn bytes(bonds: &[Bond], given: Timestamp) -> Vec<u8> {
    let pairs = bonds.iter().flat_map(|bond| [bond.account, bond.name]).flatten();
    pairs.chain(given.millis().to_be_bytes()).collect()
}

/// What `bytes` made. An older program did not say when the value was given.
fn read(bytes: &[u8]) -> (Vec<Bond>, Timestamp) {
    let (pairs, given) = bytes.as_chunks::<64>();
    let given = given
        .try_into()
        .map_or(LONG_AGO, |given| Timestamp::from_millis(i64::from_be_bytes(given)));
    let bond = |pair: &[u8; 64]| {
        let (account, name) = pair.split_first_chunk()?;
        Some(Bond { account: *account, name: name.try_into().ok()? })
    };
    (pairs.iter().filter_map(bond).collect(), given)
}
