//! Redeeming a code, once, and taking one back. Why a code is not good is known here,
//! for metrics and audit; whoever typed it is told one thing, at one time.

use std::net::IpAddr;
use std::time::Duration;

use crate::access_code::AccessCodes;
use crate::access_code::budget::BudgetError;
use crate::access_code::draw::Code;
use crate::access_code::kept::Kept;
use crate::ambient::{EntropyFailed, Timestamp};
use crate::identity::{Reference, Subject};
use crate::store::{Family, StoreError};

/// A code that was just redeemed, and will never be again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    /// Who acts by it.
    pub subject: Subject,
    /// What it was given out with.
    pub reference: Option<Reference>,
    /// How long its session lives.
    pub lifetime: Duration,
}

/// Why a code opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// It is not good: never was, is spent, or too late.
    #[error("the access code is not good: {0}")]
    Invalid(&'static str),
    /// The guesses of its length are spent, in all or for this address.
    #[error("the guesses of this length are spent")]
    Spent {
        /// Until there are some again.
        retry_after: Duration,
    },
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
}

impl From<BudgetError> for RedeemError {
    fn from(error: BudgetError) -> Self {
        match error {
            BudgetError::Spent { retry_after } => Self::Spent { retry_after },
            BudgetError::Store(error) => Self::Store(error),
            BudgetError::Entropy(error) => Self::Entropy(error),
        }
    }
}

impl AccessCodes {
    /// Redeems what somebody typed. The try is charged to the length that was typed,
    /// before anybody looks, and given back when it was right.
    ///
    /// # Errors
    /// When it is not good, or may not be tried now.
    pub async fn redeem(&self, code: &Code, address: IpAddr) -> Result<Redeemed, RedeemError> {
        let typed = |digits: u8| usize::from(digits) == code.digits();
        let Some(budget) = self.budgets.iter().find(|budget| typed(budget.limit().digits)) else {
            // Of a length that no code has: nothing was guessed.
            return Err(self.invalid("wrong"));
        };
        let reserved = budget.reserve(address).await;
        let reserved = reserved.map_err(RedeemError::from).inspect_err(|error| {
            if matches!(error, RedeemError::Spent { .. }) {
                self.metrics.throttled("access_codes.success_probability").inc();
            }
        })?;
        let key = self.ledger.keys.of_code(code);
        let now = self.ledger.clock.now();
        let taken = self.ledger.store.take(Family::AccessCode, key, now).await?;
        let Some(kept) = taken.and_then(|value| Kept::read(&value)) else {
            let former = self.ledger.store.get(Family::FormerCode, key, now).await?;
            // Without its end over, somebody quicker has just redeemed it.
            let is_late = former
                .and_then(|end| end.try_into().ok())
                .is_some_and(|end| Timestamp::from_millis(i64::from_le_bytes(end)) <= now);
            return Err(self.invalid(if is_late { "expired" } else { "wrong" }));
        };
        if let Err(error) = reserved.give_back().await {
            tracing::warn!(%error, "a right code stays counted as a wrong one");
        }
        self.forget_former(key).await;
        self.count("redeemed");
        Ok(Redeemed {
            subject: kept.subject(),
            reference: kept.reference,
            lifetime: self.config.session_lifetime,
        })
    }

    /// Takes a code back that this issuer gave out, and says who would have acted by it.
    ///
    /// # Errors
    /// When it is not good, or somebody else's, which is not told apart.
    pub async fn revoke(&self, code: &Code, issuer: &Subject) -> Result<Subject, RedeemError> {
        let key = self.ledger.keys.of_code(code);
        let now = self.ledger.clock.now();
        let found = self.ledger.store.get(Family::AccessCode, key, now).await?;
        let kept = found.and_then(|value| Kept::read(&value));
        let Some(kept) = kept.filter(|kept| kept.issuer == issuer.as_str()) else {
            return Err(RedeemError::Invalid("wrong"));
        };
        // Somebody may just have redeemed it.
        if self.ledger.store.take(Family::AccessCode, key, now).await?.is_none() {
            return Err(RedeemError::Invalid("wrong"));
        }
        self.forget_former(key).await;
        self.count("revoked");
        Ok(kept.subject())
    }

    /// What was spent or taken back is not too late.
    async fn forget_former(&self, key: [u8; 32]) {
        let now = self.ledger.clock.now();
        // At worst a metric says "expired" of what was spent.
        let _ = self.ledger.store.take(Family::FormerCode, key, now).await;
    }

    fn invalid(&self, outcome: &'static str) -> RedeemError {
        self.count(outcome);
        RedeemError::Invalid(outcome)
    }
}
