//! Access codes: short enough for the telephone, given out by somebody who is logged
//! in, redeemed once by somebody who never was. Kept as keyed hashes, and guessed no
//! more often than the configuration allows. Knows no HTTP and no sessions.

mod budget;
mod draw;
mod issue;
mod kept;
mod keys;
mod redeem;

pub use budget::{Budget, BudgetError, Ledger, Try};
pub use draw::Code;
pub use issue::{IssueError, Issued};
pub use keys::{CodeKeys, KeysError};
pub use redeem::{RedeemError, Redeemed};

use crate::config;
use crate::metrics::Metrics;
use crate::store::{Family, StoreError};

/// All codes of this gateway, and of those that share its store.
pub struct AccessCodes {
    config: config::AccessCodes,
    ledger: Ledger,
    metrics: Metrics,
    /// One a length, the shortest first.
    budgets: Vec<Budget>,
}

impl AccessCodes {
    /// The codes of this configuration.
    #[must_use]
    pub fn new(config: &config::AccessCodes, ledger: &Ledger, metrics: &Metrics) -> Self {
        let budget = |limit| Budget::new("own", limit, ledger.clone());
        let budgets: Vec<Budget> = config.budgets.iter().copied().map(budget).collect();
        for budget in &budgets {
            let config::GuessBudget { digits, tries, .. } = budget.limit();
            metrics.access_code_budget(&digits.to_string()).set(i64::from(*tries));
        }
        let (config, metrics) = (config.clone(), metrics.clone());
        let codes = Self { config, ledger: ledger.clone(), metrics, budgets };
        // Each stands at zero from the start, so that its first increase is seen.
        for event in ["issued", "redeemed", "wrong", "expired", "revoked"] {
            codes.metrics.access_codes(event).inc_by(0);
        }
        codes
    }

    /// Tells the metrics how many codes are alive and what is left of each budget.
    ///
    /// # Errors
    /// When the store cannot answer; the metrics then say what they said before.
    pub async fn tell(&self) -> Result<(), StoreError> {
        let now = self.ledger.clock.now();
        let alive = self.ledger.store.count(Family::AccessCode, now).await?;
        self.metrics.access_codes_alive().set(i64::try_from(alive).unwrap_or(i64::MAX));
        for budget in &self.budgets {
            let limit = budget.limit();
            let left = limit.tries.saturating_sub(budget.spent().await?);
            self.metrics.access_code_budget_left(&limit.digits.to_string()).set(i64::from(left));
        }
        Ok(())
    }

    fn count(&self, event: &'static str) {
        self.metrics.access_codes(event).inc();
    }
}

#[cfg(test)]
mod tests;
