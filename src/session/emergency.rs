//! Sessions of emergency accounts, found without a look at all others: they are few,
//! and over when the directory is back. Knows no directory.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::identity::SessionId;
use crate::session::Sessions;
use crate::store::{SessionRecord, StoreError};

/// Which sessions are of emergency accounts, as far as this process knows.
#[derive(Default)]
pub(super) struct Emergencies(Mutex<HashSet<SessionId>>);

impl Emergencies {
    pub(super) fn add(&self, session: SessionId) {
        self.known().insert(session);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// The live sessions of emergency accounts that were opened or found here.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn emergencies(&self) -> Result<Vec<SessionRecord>, StoreError> {
        let known: Vec<SessionId> = self.emergencies.known().iter().copied().collect();
        let mut live = Vec::with_capacity(known.len());
        for session in known {
            match self.find(session).await? {
                Some(record) => live.push(record),
                None => {
                    self.emergencies.known().remove(&session);
                }
            }
        }
        Ok(live)
    }

    /// Looks through all sessions for those of emergency accounts: of a process before
    /// this one, and of other gateways.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn find_emergencies(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let records = self.page(after).await?;
            let Some(last) = records.last() else { return Ok(()) };
            after = Some(last.session);
            let found = records.iter().filter(|record| record.emergency);
            self.emergencies.known().extend(found.map(|record| record.session));
        }
    }
}
