//! Expiring entries in the file: of each family a table by key, and one by end.

use redb::{ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction};

use crate::ambient::Timestamp;
use crate::store::embedded::{Embedded, advance};
use crate::store::expiring::FAMILIES;
use crate::store::{Expiring, Family, Put, StoreError};

/// When an entry ends, milliseconds since 1970, and its value.
type ByKey = TableDefinition<'static, &'static [u8; 32], (i64, &'static [u8])>;
type ByEnd = TableDefinition<'static, (i64, &'static [u8; 32]), ()>;

const FIRST: [u8; 32] = [0; 32];
const LAST: [u8; 32] = [u8::MAX; 32];

impl Embedded {
    pub(in crate::store) async fn put(
        &self,
        entry: Expiring,
        now: Timestamp,
        at_most: Option<u64>,
    ) -> Result<Put, StoreError> {
        let put = move |transaction: &WriteTransaction| {
            forget(transaction, entry.family, now)?;
            let (by_key, by_end) = tables(entry.family);
            let mut entries = transaction.open_table(by_key)?;
            if entries.get(&entry.key)?.is_some() {
                return Ok(Put::Exists);
            }
            let live = entries.len()?;
            if at_most.is_some_and(|at_most| live >= at_most) {
                return Ok(Put::Full);
            }
            let until = entry.until.millis();
            entries.insert(&entry.key, (until, entry.value.as_slice()))?;
            transaction.open_table(by_end)?.insert((until, &entry.key), ())?;
            Ok(Put::Kept)
        };
        self.0.write(put).await
    }

    pub(in crate::store) async fn replace(
        &self,
        before: Option<Vec<u8>>,
        entry: Expiring,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let replace = move |transaction: &WriteTransaction| {
            forget(transaction, entry.family, now)?;
            let (by_key, by_end) = tables(entry.family);
            let mut entries = transaction.open_table(by_key)?;
            let held = entries.get(&entry.key)?.map(|row| (row.value().0, row.value().1.to_vec()));
            if held.as_ref().map(|(_, value)| value) != before.as_ref() {
                return Ok(false);
            }
            let mut ends = transaction.open_table(by_end)?;
            if let Some((until, _)) = held {
                ends.remove((until, &entry.key))?;
                entries.remove(&entry.key)?;
            }
            if entry.until > now {
                let until = entry.until.millis();
                entries.insert(&entry.key, (until, entry.value.as_slice()))?;
                ends.insert((until, &entry.key), ())?;
            }
            Ok(true)
        };
        self.0.write(replace).await
    }

    pub(in crate::store) async fn take(
        &self,
        family: Family,
        key: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let take = move |transaction: &WriteTransaction| {
            let (by_key, by_end) = tables(family);
            let mut entries = transaction.open_table(by_key)?;
            let Some(row) = entries.remove(&key)? else {
                return Ok(None);
            };
            let (until, value) = row.value();
            transaction.open_table(by_end)?.remove((until, &key))?;
            if family == Family::AccessCode {
                advance(transaction, 1)?;
            }
            Ok((until > now.millis()).then(|| value.to_vec()))
        };
        self.0.write(take).await
    }

    /// All entries of the family are gone.
    pub(in crate::store) async fn void(&self, family: Family) -> Result<(), StoreError> {
        let void = move |transaction: &WriteTransaction| {
            let (by_key, by_end) = tables(family);
            transaction.open_table(by_key)?.retain(|_, _| false)?;
            transaction.open_table(by_end)?.retain(|_, ()| false)?;
            Ok(())
        };
        self.0.write(void).await
    }

    pub(in crate::store) fn get(
        &self,
        family: Family,
        key: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading(|transaction| {
            let row = transaction.open_table(tables(family).0)?.get(key)?;
            Ok(row.and_then(|row| {
                let (until, value) = row.value();
                (until > now.millis()).then(|| value.to_vec())
            }))
        })
    }

    pub(in crate::store) fn count(
        &self,
        family: Family,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.reading(|transaction| {
            let by_end = transaction.open_table(tables(family).1)?;
            // Few: those that ended since the last sweep.
            let over = by_end.range(..=(now.millis(), &LAST))?.count();
            Ok(by_end.len()?.saturating_sub(u64::try_from(over).unwrap_or(u64::MAX)))
        })
    }
}

/// Makes sure of the tables.
pub(super) fn initialise(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    for family in FAMILIES {
        let (by_key, by_end) = tables(family);
        transaction.open_table(by_key)?;
        transaction.open_table(by_end)?;
    }
    Ok(())
}

/// Drops what ended, in every family.
pub(super) fn sweep(transaction: &WriteTransaction, now: Timestamp) -> Result<(), redb::Error> {
    FAMILIES.into_iter().try_for_each(|family| forget(transaction, family, now))
}

fn forget(
    transaction: &WriteTransaction,
    family: Family,
    now: Timestamp,
) -> Result<(), redb::Error> {
    let (by_key, by_end) = tables(family);
    let mut entries = transaction.open_table(by_key)?;
    let mut ends = transaction.open_table(by_end)?;
    for row in ends.extract_from_if((i64::MIN, &FIRST)..=(now.millis(), &LAST), |_, ()| true)? {
        entries.remove(row?.0.value().1)?;
    }
    Ok(())
}

const fn tables(family: Family) -> (ByKey, ByEnd) {
    let (by_key, by_end) = match family {
        Family::SpentToken => ("spent_tokens", "spent_tokens_by_end"),
        Family::Device => ("devices", "devices_by_end"),
        Family::DeviceList => ("device_lists", "device_lists_by_end"),
        Family::AccessCode => ("access_codes", "access_codes_by_end"),
        Family::FormerCode => ("former_codes", "former_codes_by_end"),
    };
    (TableDefinition::new(by_key), TableDefinition::new(by_end))
}
