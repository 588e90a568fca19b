//! The store in a file of our own: rows in redb tables. Reads are answered where
//! they are asked, from the last committed state; writes go through one thread.

mod expiring;
mod sweep;

use std::ops::Bound;
use std::path::Path;
use std::sync::TryLockError;
use std::time::Duration;

use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    WriteTransaction,
};

use crate::ambient::Timestamp;
use crate::identity::{SessionId, Subject};
use crate::secret::Secret;
use crate::store::attempts::WindowRow;
use crate::store::embedded::sweep::NextSlice;
use crate::store::file::{self, Obstacle};
use crate::store::writer::{Reopen, Writer};
use crate::store::{
    OpenError, PAGE, REVOCATIONS_PAGE, SecretName, Seen, SessionRecord, StoreError,
};

const SESSIONS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("sessions");
/// Whose a session is, so that those of one subject are found without a search.
const OWNERS: TableDefinition<'_, (&str, &[u8; 16]), ()> = TableDefinition::new("owners");
/// Until when a revocation is remembered, milliseconds since 1970.
const REVOCATIONS: TableDefinition<'_, &[u8; 16], i64> = TableDefinition::new("revocations");
/// Attempts that are counted: by family and key.
const WINDOWS: TableDefinition<'_, (u8, &[u8; 32]), &[u8]> = TableDefinition::new("windows");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const SECRETS: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("secrets");

/// What the tables mean; a file of another format is not ours to change.
const FORMAT: u64 = 2;
/// The format before there were owners.
const WITHOUT_OWNERS: u64 = 1;
const FORMAT_ROW: &str = "format";
/// Counts the starts and all that must not be undone, so that a copy of the file that is
/// put back is behind what stands beside the keys.
const STARTS_ROW: &str = "starts";

pub(super) struct Embedded(Writer, NextSlice);

impl Embedded {
    pub(super) async fn open(
        path: &Path,
        lock_wait: Duration,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let database = file::open_at_start(path, lock_wait, now, initialise).await?;
        let again = path.to_owned();
        // Never made anew while we run: an emptied store would forget revocations.
        let reopen: Reopen = Box::new(move || file::open(&again, false));
        Self::over(database, path, reopen)
    }

    fn over(database: Database, path: &Path, reopen: Reopen) -> Result<Self, OpenError> {
        let writer = Writer::start(database, path.to_owned(), reopen);
        writer
            .map(|writer| Self(writer, NextSlice::default()))
            .map_err(|error| OpenError::File { path: path.to_owned(), reason: error.to_string() })
    }

    pub(super) async fn create(&self, record: SessionRecord) -> Result<(), StoreError> {
        let create = move |transaction: &WriteTransaction| {
            own(transaction, &record)?;
            insert(transaction, &record)
        };
        self.0.write(create).await
    }

    pub(super) fn page(&self, after: Option<SessionId>) -> Result<Vec<SessionRecord>, StoreError> {
        self.reading(|transaction| {
            let after = after.map(|session| *session.as_bytes());
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut records = Vec::new();
            for row in
                transaction.open_table(SESSIONS)?.range::<&[u8; 16]>((from, Bound::Unbounded))?
            {
                let (session, bytes) = row?;
                let session = SessionId::from_bytes(*session.value());
                records.extend(SessionRecord::from_bytes(session, bytes.value()));
                if records.len() == PAGE {
                    break;
                }
            }
            Ok(records)
        })
    }

    pub(super) fn of_subject(&self, subject: &Subject) -> Result<Vec<SessionRecord>, StoreError> {
        self.reading(|transaction| {
            let (first, last) = ([0; 16], [u8::MAX; 16]);
            let subject = subject.as_str();
            let sessions = transaction.open_table(SESSIONS)?;
            let mut records = Vec::new();
            for row in
                transaction.open_table(OWNERS)?.range((subject, &first)..=(subject, &last))?
            {
                let owner = row?.0;
                let session = *owner.value().1;
                if let Some(row) = sessions.get(&session)? {
                    let session = SessionId::from_bytes(session);
                    records.extend(SessionRecord::from_bytes(session, row.value()));
                }
            }
            Ok(records)
        })
    }

    pub(super) fn read(&self, session: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.reading(|transaction| {
            let row = transaction.open_table(SESSIONS)?.get(session.as_bytes())?;
            Ok(row.and_then(|row| SessionRecord::from_bytes(session, row.value())))
        })
    }

    pub(super) async fn update<A: Send + 'static>(
        &self,
        session: SessionId,
        decide: impl Fn(&mut SessionRecord) -> A + Send + 'static,
    ) -> Result<Option<A>, StoreError> {
        self.0.write(move |transaction| change(transaction, session, &decide)).await
    }

    pub(super) async fn note(&self, seen: Vec<Seen>) -> Result<(), StoreError> {
        let note = move |transaction: &WriteTransaction| {
            for seen in &seen {
                change(transaction, seen.session, &|record: &mut SessionRecord| {
                    record.absorb(seen);
                })?;
            }
            Ok(())
        };
        self.0.write(note).await
    }

    pub(super) async fn revoke(
        &self,
        session: SessionId,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.revoke_all(vec![(session, until)]).await.map(|had_record| !had_record.is_empty())
    }

    pub(super) async fn revoke_all(
        &self,
        ended: Vec<(SessionId, Timestamp)>,
    ) -> Result<Vec<SessionId>, StoreError> {
        let revoke = move |transaction: &WriteTransaction| {
            let mut revocations = transaction.open_table(REVOCATIONS)?;
            let mut sessions = transaction.open_table(SESSIONS)?;
            let mut owners = transaction.open_table(OWNERS)?;
            let mut had_record = Vec::new();
            for (session, until) in &ended {
                revocations.insert(session.as_bytes(), until.millis())?;
                if let Some(row) = sessions.remove(session.as_bytes())? {
                    had_record.push(*session);
                    if let Some(record) = SessionRecord::from_bytes(*session, row.value()) {
                        owners.remove((record.subject.as_str(), session.as_bytes()))?;
                    }
                }
            }
            advance(transaction, ended.len())?;
            Ok(had_record)
        };
        self.0.write(revoke).await
    }

    pub(super) fn revocations(
        &self,
        after: Option<SessionId>,
    ) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
        self.reading(|transaction| {
            let after = after.map(|session| *session.as_bytes());
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let table = transaction.open_table(REVOCATIONS)?;
            let rows = table.range::<&[u8; 16]>((from, Bound::Unbounded))?;
            rows.take(REVOCATIONS_PAGE)
                .map(|row| {
                    let (session, until) = row?;
                    let session = SessionId::from_bytes(*session.value());
                    Ok((session, Timestamp::from_millis(until.value())))
                })
                .collect()
        })
    }

    pub(super) fn starts(&self) -> Result<Option<u64>, StoreError> {
        self.reading(|transaction| {
            let starts = transaction.open_table(NUMBERS)?.get(STARTS_ROW)?;
            Ok(starts.map(|starts| starts.value()))
        })
    }

    pub(super) async fn set_starts(&self, starts: u64) -> Result<(), StoreError> {
        let set = move |transaction: &WriteTransaction| {
            transaction.open_table(NUMBERS)?.insert(STARTS_ROW, starts)?;
            Ok(())
        };
        self.0.write(set).await
    }

    pub(super) async fn secret(
        &self,
        name: SecretName,
        fresh: Secret<[u8; 32]>,
    ) -> Result<Secret<[u8; 32]>, StoreError> {
        let get_or_insert = move |transaction: &WriteTransaction| {
            let mut secrets = transaction.open_table(SECRETS)?;
            if let Some(key) = secrets.get(name.row())? {
                return Ok(Secret::new(*key.value()));
            }
            secrets.insert(name.row(), fresh.expose())?;
            Ok(fresh)
        };
        self.0.write(get_or_insert).await
    }

    pub(super) async fn keep_windows(&self, rows: Vec<WindowRow>) -> Result<(), StoreError> {
        let keep = move |transaction: &WriteTransaction| {
            let mut windows = transaction.open_table(WINDOWS)?;
            for row in &rows {
                let key = (row.number(), &row.key);
                if row.attempts.is_empty() {
                    windows.remove(key)?;
                } else {
                    windows.insert(key, row.to_bytes().as_slice())?;
                }
            }
            Ok(())
        };
        self.0.write(keep).await
    }

    pub(super) fn windows(&self) -> Result<Vec<WindowRow>, StoreError> {
        self.reading(|transaction| {
            let mut rows = Vec::new();
            for row in transaction.open_table(WINDOWS)?.iter()? {
                let (key, bytes) = row?;
                let (family, key) = key.value();
                rows.extend(WindowRow::from_bytes(family, *key, bytes.value()));
            }
            Ok(rows)
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.0.is_up()
    }

    fn reading<A>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<A, redb::Error>,
    ) -> Result<A, StoreError> {
        // Not waited for: while the writer opens the database again, it is down.
        let database = match self.0.shared().database.try_read() {
            Ok(database) => database,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Unavailable),
        };
        let database = database.as_ref().ok_or(StoreError::Unavailable)?;
        database
            .begin_read()
            .map_err(Into::into)
            .and_then(|transaction| read(&transaction))
            .map_err(|error: redb::Error| {
                tracing::error!(%error, "the store could not be read");
                StoreError::Unavailable
            })
    }
}

/// Counts so many more things that must not be undone.
fn advance(transaction: &WriteTransaction, by: usize) -> Result<(), redb::Error> {
    let mut numbers = transaction.open_table(NUMBERS)?;
    let starts = numbers.get(STARTS_ROW)?.map_or(0, |row| row.value());
    numbers.insert(STARTS_ROW, starts.saturating_add(u64::try_from(by).unwrap_or(u64::MAX)))?;
    Ok(())
}

fn own(transaction: &WriteTransaction, record: &SessionRecord) -> Result<(), redb::Error> {
    let owner = (record.subject.as_str(), record.session.as_bytes());
    transaction.open_table(OWNERS)?.insert(owner, ())?;
    Ok(())
}

/// Writes down whose the sessions of an older format are.
fn own_all(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    for row in transaction.open_table(SESSIONS)?.iter()? {
        let (session, bytes) = row?;
        let session = SessionId::from_bytes(*session.value());
        if let Some(record) = SessionRecord::from_bytes(session, bytes.value()) {
            own(transaction, &record)?;
        }
    }
    transaction.open_table(NUMBERS)?.insert(FORMAT_ROW, FORMAT)?;
    Ok(())
}

fn insert(transaction: &WriteTransaction, record: &SessionRecord) -> Result<(), redb::Error> {
    let mut sessions = transaction.open_table(SESSIONS)?;
    sessions.insert(record.session.as_bytes(), record.to_bytes().as_slice())?;
    Ok(())
}

fn change<A>(
    transaction: &WriteTransaction,
    session: SessionId,
    decide: &impl Fn(&mut SessionRecord) -> A,
) -> Result<Option<A>, redb::Error> {
    let record = {
        let row = transaction.open_table(SESSIONS)?;
        let row = row.get(session.as_bytes())?;
        row.and_then(|row| SessionRecord::from_bytes(session, row.value()))
    };
    let Some(before) = record else {
        return Ok(None);
    };
    let mut after = before.clone();
    let answer = decide(&mut after);
    if after != before {
        insert(transaction, &after)?;
    }
    Ok(Some(answer))
}

/// Makes sure of the tables, and that they mean what we think.
fn initialise(database: &Database) -> Result<(), Obstacle> {
    let tables = || -> Result<Option<u64>, redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(SESSIONS)?;
        transaction.open_table(REVOCATIONS)?;
        transaction.open_table(WINDOWS)?;
        transaction.open_table(SECRETS)?;
        transaction.open_table(OWNERS)?;
        expiring::initialise(&transaction)?;
        let format = {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let format = numbers.get(FORMAT_ROW)?.map(|format| format.value());
            if format.is_none() {
                numbers.insert(FORMAT_ROW, FORMAT)?;
            }
            format
        };
        if format == Some(WITHOUT_OWNERS) {
            own_all(&transaction)?;
        }
        transaction.commit()?;
        Ok(format.filter(|format| *format != WITHOUT_OWNERS))
    };
    match tables().map_err(file::obstacle_of)? {
        None | Some(FORMAT) => Ok(()),
        Some(other) => {
            Err(Obstacle::Other(format!("is of format {other}, this program's is {FORMAT}")))
        }
    }
}

#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use full_disk::FullDisk;
