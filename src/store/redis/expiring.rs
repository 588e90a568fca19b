//! Entries that end by themselves, in Redis: each has a key with a time to live,
//! and each family a list of ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;

use crate::ambient::Timestamp;
use crate::store::redis::{LASTING, Redis, number, parsed};
use crate::store::{Expiring, Family, Put, StoreError};

impl Redis {
    pub(in crate::store) async fn put(
        &self,
        entry: Expiring,
        now: Timestamp,
        at_most: Option<u64>,
    ) -> Result<Put, StoreError> {
        let args = [
            number(LASTING),
            self.time(now),
            entry.key.to_vec(),
            entry.value,
            number(entry.until.millis()),
            at_most.map(|at_most| at_most.to_string()).unwrap_or_default().into_bytes(),
        ];
        let keys = self.entry(entry.family, &entry.key);
        match parsed(self.durably(&self.scripts.put, &keys, &args).await?)? {
            1 => Ok(Put::Kept),
            0 => Ok(Put::Exists),
            _ => Ok(Put::Full),
        }
    }

    pub(in crate::store) async fn take(
        &self,
        family: Family,
        key: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut keys = self.entry(family, key).to_vec();
        // No other family is void when what was taken of it was lost.
        if family == Family::AccessCode {
            keys.extend(["starts", "taken"].map(|name| self.common(name)));
        }
        let known = self.taken.load(Ordering::Acquire).to_string().into_bytes();
        let args = [number(LASTING), self.time(now), key.to_vec(), known];
        let answer = self.durably(&self.scripts.take, &keys, &args).await?;
        let mut answer = parsed::<Vec<Value>>(answer)?.into_iter();
        let taken: i64 = parsed(answer.next().unwrap_or(Value::Nil))?;
        // Whoever follows the news sees to what was put back.
        let taken = u64::try_from(taken).map_err(|_| StoreError::Unavailable)?;
        self.taken.fetch_max(taken, Ordering::AcqRel);
        answer.next().map_or(Ok(None), parsed)
    }

    pub(in crate::store) async fn replace(
        &self,
        before: Option<Vec<u8>>,
        entry: Expiring,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let keys = self.entry(entry.family, &entry.key);
        let args = [
            number(LASTING),
            self.time(now),
            entry.key.to_vec(),
            before.unwrap_or_default(),
            entry.value,
            number(entry.until.millis()),
        ];
        parsed(self.durably(&self.scripts.replace_entry, &keys, &args).await?)
    }

    pub(in crate::store) async fn get(
        &self,
        family: Family,
        key: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let args = [self.time(now), key.to_vec()];
        parsed(self.link.script(&self.scripts.get, &self.entry(family, key), &args).await?)
    }

    pub(in crate::store) async fn count(
        &self,
        family: Family,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let [_, ends] = self.entry(family, &[0; 32]);
        parsed(self.link.script(&self.scripts.count, &[ends], &[self.time(now)]).await?)
    }

    /// Voids the access codes of a store in which fewer were taken than the caller knows
    /// of: it was put back, and some would be redeemed once more.
    pub(in crate::store) async fn void_codes(&self, known: u64) -> Result<(), StoreError> {
        let [_, ends] = self.entry(Family::AccessCode, &[0; 32]);
        let args = [number(LASTING), known.to_string().into_bytes()];
        let voided = self.durably(&self.scripts.void, &[self.common("taken"), ends], &args).await?;
        let voided: u64 = parsed(voided)?;
        if voided > 0 {
            tracing::warn!(codes = voided, "Redis lost what was redeemed: access codes are void");
        }
        Ok(())
    }

    /// Those of a store that is known to have been put back.
    pub(in crate::store) async fn void_all_codes(&self) -> Result<(), StoreError> {
        let taken = self.common("taken");
        let get = redis::cmd("GET").arg(&taken).take();
        let held: Option<u64> = parsed(self.link.command(&get, &taken, Duration::ZERO).await?)?;
        self.void_codes(held.unwrap_or(0).saturating_add(1)).await
    }

    /// The key of an entry, and its family's ends.
    fn entry(&self, family: Family, key: &[u8; 32]) -> [Vec<u8>; 2] {
        let name = match family {
            Family::SpentToken => "spent",
            Family::Device => "device",
            Family::DeviceList => "devices",
            Family::AccessCode => "code",
            Family::FormerCode => "former",
        };
        let mut entry = self.common(name);
        entry.push(b':');
        entry.extend_from_slice(key);
        [entry, self.common(&format!("{name}:ends"))]
    }
}
