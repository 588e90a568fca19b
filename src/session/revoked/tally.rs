//! Which of the revocations that were known at a moment have been told since: one bit
//! each, as there may be tens of millions. Knows no store.

use std::sync::Arc;

use crate::ambient::Timestamp;
use crate::identity::SessionId;
use crate::session::revoked::{Entry, Held, Revoked, place, settled_at};

const BITS: usize = u64::BITS as usize;

/// What was known at a moment, and what of it has been told.
pub struct Tally {
    shards: Vec<Counted>,
    /// Shards before this one have been told whole.
    first: usize,
}

/// A state of a shard, which stays as it was.
struct Counted {
    held: Arc<Held>,
    /// A bit for each entry, in the order of the state.
    told: Vec<u64>,
}

impl Revoked {
    /// What is known now, as if nothing of it had been told.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let counted = |held: Arc<Held>| {
            let told = vec![0; held.len().div_ceil(BITS)];
            Counted { held, told }
        };
        let shards = self.shards.iter().map(|shard| counted(shard.held.load_full())).collect();
        Tally { shards, first: 0 }
    }
}

impl Tally {
    /// A session was told to be revoked until then. Whether that much was known.
    pub fn tell(&mut self, session: SessionId, until: Timestamp) -> bool {
        let Counted { held, told } = &mut self.shards[place(session)];
        let asked = Entry::new(session, until);
        let mut known = false;
        let recent = held.recent.binary_search_by_key(&session, |entry| entry.session);
        let recent = recent.ok().map(|at| held.settled.len() + at);
        for at in recent.into_iter().chain(settled_at(&held.settled, session)) {
            told[at / BITS] |= 1 << (at % BITS);
            known |= held.at(at).is_some_and(|entry| entry.until >= asked.until);
        }
        known
    }

    /// Some that have not been told, no more than so many; none when all have been.
    pub fn untold(&mut self, most: usize) -> Vec<(SessionId, Timestamp)> {
        let is_told = |counted: &Counted| counted.untold().next().is_none();
        while self.shards.get(self.first).is_some_and(is_told) {
            self.first += 1;
        }
        let left = self.shards.iter().skip(self.first);
        left.flat_map(Counted::untold).take(most).collect()
    }

    /// How many have not been told.
    #[must_use]
    pub fn left(&self) -> usize {
        let told = |counted: &Counted| -> usize {
            counted.told.iter().map(|bits| bits.count_ones() as usize).sum()
        };
        self.shards.iter().map(|counted| counted.held.len() - told(counted)).sum()
    }

    /// What the bits take, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shards.iter().map(|counted| counted.told.len() * size_of::<u64>()).sum()
    }
}

impl Counted {
    fn untold(&self) -> impl Iterator<Item = (SessionId, Timestamp)> {
        let words = self.told.iter().enumerate().filter(|(_, bits)| **bits != u64::MAX);
        let places = words.flat_map(|(word, bits)| {
            (0..BITS).filter(move |bit| bits & (1 << bit) == 0).map(move |bit| word * BITS + bit)
        });
        places
            .map_while(|at| self.held.at(at))
            .map(|entry| (entry.session, Timestamp::from_seconds(i64::from(entry.until))))
    }
}
