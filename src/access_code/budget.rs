//! One budget of wrong guesses, counted in the store for all gateways: a try is
//! counted before anybody looks whether it is right, and given back when it was. Knows
//! neither codes nor what is guessed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::access_code::CodeKeys;
use crate::ambient::{Clock, Entropy, EntropyFailed};
use crate::config::{GUESS_WINDOW, GuessBudget};
use crate::store::{AttemptId, Counting, Store, StoreError, Taken, Window, WindowFamily};
use crate::throttle::network;

/// Where tries are counted, and with what.
#[derive(Clone)]
pub struct Ledger {
    /// Where tries are counted.
    pub store: Arc<Store>,
    /// The keys of what they are counted by.
    pub keys: CodeKeys,
    /// Wall time.
    pub clock: Clock,
    /// Randomness, for the names of tries.
    pub entropy: Entropy,
}

/// A budget, and where it is counted.
pub struct Budget {
    ledger: Ledger,
    limit: GuessBudget,
    whole: Window,
    purpose: String,
}

/// One try, counted as wrong until it is given back.
#[must_use = "a try that is dropped stays counted"]
pub struct Try {
    ledger: Ledger,
    id: AttemptId,
    windows: [Window; 2],
}

/// Why a try may not be made.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// The budget, or one address's part of it, is spent.
    #[error("the budget of guesses is spent")]
    Spent {
        /// Until a try leaves the window.
        retry_after: Duration,
    },
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
}

impl Budget {
    /// The budget of this name; all that share a name and a length share it.
    #[must_use]
    pub fn new(name: &str, limit: GuessBudget, ledger: Ledger) -> Self {
        let purpose = format!("{name}\0{}", limit.digits);
        let whole = window(ledger.keys.of_name(&purpose, b"all"), limit.tries);
        Self { ledger, limit, whole, purpose }
    }

    /// What it allows.
    #[must_use]
    pub const fn limit(&self) -> &GuessBudget {
        &self.limit
    }

    /// Counts a try from an address, before it is looked at.
    ///
    /// # Errors
    /// When the budget is spent, in all or for this address; nothing is counted then.
    pub async fn reserve(&self, address: IpAddr) -> Result<Try, BudgetError> {
        let Ledger { store, keys, clock, entropy } = &self.ledger;
        let address = [b"from ".as_slice(), &network(address).octets()].concat();
        let address = window(keys.of_name(&self.purpose, &address), self.limit.per_address);
        let windows = [self.whole, address];
        let id: AttemptId = entropy.bytes()?;
        match store.count_attempt(id, &windows, clock.now()).await? {
            Taken::Counted { .. } => Ok(Try { ledger: self.ledger.clone(), id, windows }),
            Taken::Full { wait, .. } => Err(BudgetError::Spent { retry_after: wait }),
        }
    }

    /// How many tries it has taken.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn spent(&self) -> Result<u32, StoreError> {
        self.ledger.store.attempts(&self.whole, self.ledger.clock.now()).await
    }

    /// Whether half of it is spent.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn is_half_spent(&self) -> Result<bool, StoreError> {
        Ok(self.spent().await?.saturating_mul(2) >= self.limit.tries)
    }
}

impl Try {
    /// It was right: it does not count.
    ///
    /// # Errors
    /// When the store cannot answer; it then stays counted.
    pub async fn give_back(self) -> Result<(), StoreError> {
        let Self { ledger: Ledger { store, clock, .. }, id, windows } = self;
        store.give_back(id, &windows, clock.now()).await
    }
}

fn window(key: [u8; 32], count: u32) -> Window {
    let (family, counting) = (WindowFamily::Code, Counting::Sliding);
    Window { family, key, count, length: GUESS_WINDOW, counting }
}
