//! Entries that end by themselves: spent tokens, devices, access codes. Each is
//! kept once, and taken once, or replaced as long as nobody else did. Knows no meaning
//! of any.

use std::collections::{BTreeSet, HashMap};

use crate::ambient::Timestamp;
use crate::store::{Kind, Store, StoreError};

/// What an expiring entry is for; each family has keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Tokens that may be used once, and were.
    SpentToken,
    /// Devices that logged in before.
    Device,
    /// Which devices an account has.
    DeviceList,
    /// Access codes that were issued.
    AccessCode,
    /// Access codes that were issued and perhaps are over.
    FormerCode,
}

/// Every family.
pub(super) const FAMILIES: [Family; 5] = [
    Family::SpentToken,
    Family::Device,
    Family::DeviceList,
    Family::AccessCode,
    Family::FormerCode,
];

/// An entry that is gone by itself at `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// What it is for.
    pub family: Family,
    /// A keyed hash of what it is found by.
    pub key: [u8; 32],
    /// What is kept.
    pub value: Vec<u8>,
    /// When it is gone.
    pub until: Timestamp,
}

/// What became of an entry that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept.
    Kept,
    /// There is a live one of this key, which stays as it is.
    Exists,
    /// There are as many live ones of the family as there may be.
    Full,
}

impl Store {
    /// Keeps an entry until its end, unless there is a live one of its key, or
    /// `at_most` live ones of the family already.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn put(
        &self,
        entry: Expiring,
        now: Timestamp,
        at_most: Option<u64>,
    ) -> Result<Put, StoreError> {
        self.counted(
            "put",
            match &self.kind {
                Kind::Memory(memory) => memory.put(entry, now, at_most),
                Kind::Embedded(embedded) => embedded.put(entry, now, at_most).await,
                Kind::Redis(redis) => redis.put(entry, now, at_most).await,
            },
        )
    }

    /// The value of a live entry, which is gone afterwards: of several who ask at
    /// once exactly one gets it.
    ///
    /// # Errors
    /// When the store cannot answer. The entry may be gone then.
    pub async fn take(
        &self,
        family: Family,
        key: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.counted(
            "take",
            match &self.kind {
                Kind::Memory(memory) => memory.take(family, &key, now),
                Kind::Embedded(embedded) => embedded.take(family, key, now).await,
                Kind::Redis(redis) => redis.take(family, &key, now).await,
            },
        )
    }

    /// Replaces an entry whose value still is `before`; without one, keeps it unless there
    /// is a live one. One that is to end at once is gone. Says whether it was so.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn replace(
        &self,
        before: Option<Vec<u8>>,
        entry: Expiring,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.counted(
            "replace",
            match &self.kind {
                Kind::Memory(memory) => memory.replace(before.as_deref(), entry, now),
                Kind::Embedded(embedded) => embedded.replace(before, entry, now).await,
                Kind::Redis(redis) => redis.replace(before, entry, now).await,
            },
        )
    }

    /// The value of a live entry, which stays.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn get(
        &self,
        family: Family,
        key: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.counted(
            "get",
            match &self.kind {
                Kind::Memory(memory) => memory.get(family, &key, now),
                Kind::Embedded(embedded) => embedded.get(family, &key, now),
                Kind::Redis(redis) => redis.get(family, &key, now).await,
            },
        )
    }

    /// How many entries of a family are live.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn count(&self, family: Family, now: Timestamp) -> Result<u64, StoreError> {
        self.counted(
            "count",
            match &self.kind {
                Kind::Memory(memory) => memory.count(family, now),
                Kind::Embedded(embedded) => embedded.count(family, now),
                Kind::Redis(redis) => redis.count(family, now).await,
            },
        )
    }
}

/// The entries of one family in memory.
#[derive(Default)]
pub(super) struct Entries {
    by_key: HashMap<[u8; 32], (Timestamp, Vec<u8>)>,
    by_end: BTreeSet<(Timestamp, [u8; 32])>,
}

impl Entries {
    pub(super) fn put(&mut self, entry: Expiring, now: Timestamp, at_most: Option<u64>) -> Put {
        self.forget(now);
        if self.by_key.contains_key(&entry.key) {
            return Put::Exists;
        }
        if at_most.is_some_and(|at_most| self.len() >= at_most) {
            return Put::Full;
        }
        if entry.until > now {
            self.by_end.insert((entry.until, entry.key));
            self.by_key.insert(entry.key, (entry.until, entry.value));
        }
        Put::Kept
    }

    pub(super) fn take(&mut self, key: &[u8; 32], now: Timestamp) -> Option<Vec<u8>> {
        let (until, value) = self.by_key.remove(key)?;
        self.by_end.remove(&(until, *key));
        (until > now).then_some(value)
    }

    pub(super) fn replace(
        &mut self,
        before: Option<&[u8]>,
        entry: Expiring,
        now: Timestamp,
    ) -> bool {
        if self.get(&entry.key, now).as_deref() != before {
            return false;
        }
        self.take(&entry.key, now);
        self.put(entry, now, None);
        true
    }

    pub(super) fn get(&self, key: &[u8; 32], now: Timestamp) -> Option<Vec<u8>> {
        let (until, value) = self.by_key.get(key)?;
        (*until > now).then(|| value.clone())
    }

    pub(super) fn count(&mut self, now: Timestamp) -> u64 {
        self.forget(now);
        self.len()
    }

    /// Drops what ended.
    pub(super) fn forget(&mut self, now: Timestamp) {
        while let Some((until, key)) = self.by_end.first().copied()
            && until <= now
        {
            self.by_end.remove(&(until, key));
            self.by_key.remove(&key);
        }
    }

    fn len(&self) -> u64 {
        u64::try_from(self.by_key.len()).unwrap_or(u64::MAX)
    }
}
