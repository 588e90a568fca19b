//! Members of groups that are known to be no groups themselves, so that nobody asks for
//! them twice. Only hints: who is taken for one by mistake is asked for again, as a
//! login does.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dn::Dn;

/// Most that are remembered, in some 20 MiB at most.
const OTHERS_MAX: usize = 1_000_000;

/// The members, as hashes: a name takes ten times the space of one.
#[derive(Default)]
pub(super) struct Others {
    hasher: RandomState,
    known: Mutex<HashSet<u64>>,
}

impl Others {
    pub(super) fn contains(&self, name: &Dn) -> bool {
        self.known().contains(&self.hasher.hash_one(name))
    }

    /// Remembers some more; all before are forgotten when there is no room for them.
    pub(super) fn extend<'n>(&self, names: impl Iterator<Item = &'n Dn>) {
        self.extend_up_to(OTHERS_MAX, names);
    }

    fn extend_up_to<'n>(&self, most: usize, names: impl Iterator<Item = &'n Dn>) {
        let mut known = self.known();
        for name in names {
            if known.len() >= most {
                known.clear();
            }
            known.insert(self.hasher.hash_one(name));
        }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Others;
    use crate::dn::Dn;

    #[test]
    fn never_more_are_remembered_than_may_be() {
        let others = Others::default();
        let names: Vec<_> =
            (0..25).map(|number| Dn::parse(&format!("cn={number},dc=x")).unwrap()).collect();
        for some in names.chunks(6) {
            others.extend_up_to(10, some.iter());
            assert!(others.known().len() <= 10);
            assert!(others.contains(some.last().unwrap()), "the newest is known");
        }
        assert!(!others.contains(&names[0]));
        assert!(!others.contains(&Dn::parse("cn=25,dc=x").unwrap()));
    }
}
