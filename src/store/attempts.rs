//! Counted windows: how often something was tried in a time, under keyed hashes.
//! One primitive for the throttle of logins, the guard against lock-outs, and
//! whatever else is guessed at. Knows neither who tries nor what.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ambient::Timestamp;
use crate::store::table::Table;
use crate::store::{Kind, Store, StoreError};

/// Windows in one write.
const WINDOWS_CHUNK: usize = 256;

/// What tells one attempt from all others; random.
pub type AttemptId = [u8; 16];

/// One window that an attempt counts in. An attempt's windows have different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What is counted; each family has keys, and room, of its own.
    pub family: WindowFamily,
    /// A keyed hash of what is counted: uniformly spread, and not to be foreseen.
    pub key: [u8; 32],
    /// How many attempts it holds.
    pub count: u32,
    /// For how long.
    pub length: Duration,
    /// When attempts leave it.
    pub counting: Counting,
}

/// What a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowFamily {
    /// Tries of a name as typed, whether or not there is anybody of it.
    Account,
    /// Tries from an address.
    Address,
    /// Access codes issued and guessed.
    Code,
    /// Tries of an entry that the directory found. Apart from names, so that those
    /// which somebody invents push out no account that is there.
    Entry,
}

/// When attempts leave a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Each when the window's length has passed.
    Sliding,
    /// All together, when the length has passed without another one. Directories
    /// count so: a slow series never ends.
    Renewed,
    /// Each when the length has passed; those of one member count as one, which
    /// needs no room once it is in.
    Distinct(AttemptId),
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It counts in every window.
    Counted {
        /// The windows, by their place as bits, that held its member already: of an
        /// earlier attempt, and not this one's to give back.
        before: u32,
    },
    /// It counts in none.
    Full {
        /// The window with the longest wait.
        index: usize,
        /// Until it has room.
        wait: Duration,
    },
}

impl Store {
    /// Counts an attempt in every window, or in none: one step that no other comes
    /// between.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn count_attempt(
        &self,
        attempt: AttemptId,
        windows: &[Window],
        now: Timestamp,
    ) -> Result<Taken, StoreError> {
        self.counted(
            "count_attempt",
            match &self.kind {
                Kind::Memory(_) | Kind::Embedded(_) => {
                    Ok(self.counters.count(attempt, windows, now))
                }
                Kind::Redis(redis) => redis.count_attempt(attempt, windows, now).await,
            },
        )
    }

    /// The attempt was no failure: it no longer counts in these windows.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn give_back(
        &self,
        attempt: AttemptId,
        windows: &[Window],
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        self.counted(
            "give_back",
            match &self.kind {
                Kind::Memory(_) | Kind::Embedded(_) => {
                    self.counters.give_back(attempt, windows);
                    Ok(())
                }
                Kind::Redis(redis) => redis.give_back(attempt, windows).await,
            },
        )
    }

    /// How many attempts a window holds now.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn attempts(&self, window: &Window, now: Timestamp) -> Result<u32, StoreError> {
        self.counted(
            "attempts",
            match &self.kind {
                Kind::Memory(_) | Kind::Embedded(_) => Ok(self.counters.attempts(window, now)),
                Kind::Redis(redis) => redis.attempts(window, now).await,
            },
        )
    }

    /// Takes up the windows that were kept. At most `entries` of a family are
    /// remembered from here on, in a store that is this process's alone.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub fn open_windows(&self, entries: usize, now: Timestamp) -> Result<(), StoreError> {
        self.bound_windows(entries);
        self.counted(
            "open_windows",
            match &self.kind {
                Kind::Memory(_) | Kind::Redis(_) => Ok(()),
                Kind::Embedded(embedded) => {
                    embedded.windows().map(|rows| self.counters.restore(rows, now))
                }
            },
        )
    }

    /// Remembers at most `entries` windows of a family.
    pub fn bound_windows(&self, entries: usize) {
        self.counters.bound(entries);
    }

    /// Keeps the windows that changed, where they would not outlive the process, and
    /// forgets some that are over.
    pub async fn keep_windows(&self, now: Timestamp) {
        let rows = self.counters.take_changes(now);
        let Kind::Embedded(embedded) = &self.kind else { return };
        for chunk in rows.chunks(WINDOWS_CHUNK) {
            let kept = embedded.keep_windows(chunk.to_vec()).await;
            if self.counted("keep_windows", kept).is_err() {
                self.counters.not_kept(chunk);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn windows(&self, family: WindowFamily) -> usize {
        self.counters.len(family)
    }

    #[cfg(test)]
    pub(crate) fn windows_on_disk(&self) -> Option<usize> {
        match &self.kind {
            Kind::Memory(_) | Kind::Redis(_) => None,
            Kind::Embedded(embedded) => embedded.windows().ok().map(|rows| rows.len()),
        }
    }
}

/// A window's attempts, as a store on disk keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WindowRow {
    pub(super) family: WindowFamily,
    pub(super) key: [u8; 32],
    pub(super) length: Duration,
    pub(super) renewed: bool,
    /// Oldest first; empty forgets the window.
    pub(super) attempts: Vec<Counted>,
}

/// One attempt of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) at: Timestamp,
    pub(super) member: AttemptId,
}

/// The windows of one process: a table a family, all under one lock that is held
/// for a few look-ups.
pub(super) struct Counters(Mutex<[Table; FAMILIES.len()]>);

/// Every family, each in the place of its own number.
pub(super) const FAMILIES: [WindowFamily; 4] =
    [WindowFamily::Account, WindowFamily::Address, WindowFamily::Code, WindowFamily::Entry];

/// A window's place among those of one attempt, which are few.
fn bit(index: usize) -> u32 {
    u32::try_from(index).ok().and_then(|index| 1_u32.checked_shl(index)).unwrap_or(0)
}

impl Taken {
    /// The windows in which the attempt is the first of its member: those that it may
    /// give back. Of an attempt that does not count, none.
    #[must_use]
    pub fn own(self, windows: &[Window]) -> Vec<Window> {
        let Self::Counted { before } = self else { return Vec::new() };
        let places = windows.iter().enumerate();
        places.filter(|(index, _)| before & bit(*index) == 0).map(|(_, window)| *window).collect()
    }
}

impl Window {
    /// What this window knows an attempt by.
    #[must_use]
    pub const fn member(&self, attempt: AttemptId) -> AttemptId {
        match self.counting {
            Counting::Distinct(member) => member,
            Counting::Sliding | Counting::Renewed => attempt,
        }
    }
}

impl WindowFamily {
    /// The family's place in [`FAMILIES`], and its number on disk.
    pub(super) const fn place(self) -> usize {
        self as usize
    }
}

impl Counters {
    /// Without a bound until [`Counters::bound`] sets one.
    pub(super) fn new() -> Self {
        Self(Mutex::new(FAMILIES.map(|family| Table::new(family, usize::MAX))))
    }

    fn tables(&self) -> MutexGuard<'_, [Table; FAMILIES.len()]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At most `entries` windows a family; when there is no more room one makes room.
    pub(super) fn bound(&self, entries: usize) {
        self.tables().iter_mut().for_each(|table| table.bound(entries));
    }

    pub(super) fn count(&self, attempt: AttemptId, windows: &[Window], now: Timestamp) -> Taken {
        let mut tables = self.tables();
        let waits = windows.iter().enumerate().filter_map(|(index, window)| {
            let wait = tables[window.family.place()].wait(window, window.member(attempt), now)?;
            Some((index, wait))
        });
        // The longer wait is the true one.
        if let Some((index, wait)) = waits.max_by_key(|(_, wait)| *wait) {
            return Taken::Full { index, wait };
        }
        let mut before = 0;
        for (index, window) in windows.iter().enumerate() {
            let counted = Counted { at: now, member: window.member(attempt) };
            if tables[window.family.place()].count(window, counted) {
                before |= bit(index);
            }
        }
        Taken::Counted { before }
    }

    pub(super) fn give_back(&self, attempt: AttemptId, windows: &[Window]) {
        let mut tables = self.tables();
        for window in windows {
            tables[window.family.place()].give_back(&window.key, window.member(attempt));
        }
    }

    pub(super) fn attempts(&self, window: &Window, now: Timestamp) -> u32 {
        self.tables()[window.family.place()].attempts(window, now)
    }

    pub(super) fn restore(&self, rows: Vec<WindowRow>, now: Timestamp) {
        let mut tables = self.tables();
        for row in rows {
            tables[row.family.place()].restore(row, now);
        }
    }

    /// What was not told since the last call; forgets windows that are over on the way.
    pub(super) fn take_changes(&self, now: Timestamp) -> Vec<WindowRow> {
        self.tables().iter_mut().flat_map(|table| table.take_changes(now)).collect()
    }

    /// That these could not be kept: they are to be told again.
    pub(super) fn not_kept(&self, rows: &[WindowRow]) {
        let mut tables = self.tables();
        for row in rows {
            tables[row.family.place()].changed(row.key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self, family: WindowFamily) -> usize {
        self.tables()[family.place()].len()
    }
}

/// Length, 8 bytes; whether it is renewed, 1; then 24 for each attempt.
impl WindowRow {
    /// The family's number on disk.
    pub(super) fn number(&self) -> u8 {
        u8::try_from(self.family.place()).unwrap_or(u8::MAX)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + 24 * self.attempts.len());
        let length = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.push(u8::from(self.renewed));
        for Counted { at, member } in &self.attempts {
            bytes.extend_from_slice(&at.millis().to_le_bytes());
            bytes.extend_from_slice(member);
        }
        bytes
    }

    /// From the bytes kept; `None` if they are none of ours.
    pub(super) fn from_bytes(family: u8, key: [u8; 32], bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (renewed, attempts) = rest.split_first()?;
        let (attempts, _) = attempts.as_chunks::<24>();
        let counted = |bytes: &[u8; 24]| {
            let (at, member) = bytes.split_first_chunk()?;
            let at = Timestamp::from_millis(i64::from_le_bytes(*at));
            Some(Counted { at, member: member.try_into().ok()? })
        };
        Some(Self {
            family: *FAMILIES.get(usize::from(family))?,
            key,
            length: Duration::from_millis(u64::from_le_bytes(*length)),
            renewed: *renewed != 0,
            attempts: attempts.iter().filter_map(counted).collect(),
        })
    }
}
