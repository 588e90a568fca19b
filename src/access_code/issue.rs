//! Giving out a code: how long it is, that it is a new one, and who may give out how
//! many.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::access_code::AccessCodes;
use crate::access_code::draw::Code;
use crate::access_code::kept::Kept;
use crate::ambient::{EntropyFailed, Timestamp};
use crate::config::GUESS_WINDOW;
use crate::identity::{Reference, Subject};
use crate::store::{
    AttemptId, Counting, Expiring, Family, Put, StoreError, Taken, Window, WindowFamily,
};

/// Draws in one go. With half of all codes alive it would take all of them once in 2^64.
const DRAWS_MAX: usize = 64;
/// When to ask again while as many codes are alive as may be: one of them ends by then,
/// or is redeemed.
const FULL_WAIT: Duration = Duration::from_mins(1);

/// A code that was just given out.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The code.
    pub code: Code,
    /// Who will redeem it: a random name, which proves nothing.
    pub subject: Subject,
    /// How long it is good.
    pub lifetime: Duration,
    /// Until when.
    pub until: Timestamp,
}

/// Why no code was given out.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The issuer has given out as many as may be, or as many are alive.
    #[error("too many codes by {rule}")]
    TooMany {
        /// The key of the limit.
        rule: &'static str,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
    /// No draw was a new code: far more are alive than the budgets were made for.
    #[error("no code is left to draw")]
    Exhausted,
}

impl AccessCodes {
    /// Gives out a code to somebody who may.
    ///
    /// # Errors
    /// When there are too many already, or the store cannot answer.
    pub async fn issue(
        &self,
        issuer: &Subject,
        reference: Option<Reference>,
    ) -> Result<Issued, IssueError> {
        let attempt: AttemptId = self.ledger.entropy.bytes()?;
        let windows = [self.issuer_window(issuer)];
        let now = self.ledger.clock.now();
        let taken = self.ledger.store.count_attempt(attempt, &windows, now).await?;
        if let Taken::Full { wait, .. } = taken {
            return Err(self.too_many("access_codes.per_issuer", wait));
        }
        let given = self.issue_new(issuer, reference).await;
        if given.is_err() {
            // What was not given out does not count; if the store is down, it does.
            let _ = self.ledger.store.give_back(attempt, &windows, now).await;
        }
        given
    }

    async fn issue_new(
        &self,
        issuer: &Subject,
        reference: Option<Reference>,
    ) -> Result<Issued, IssueError> {
        let digits = self.length_now().await?;
        let now = self.ledger.clock.now();
        let until = now.plus(self.config.lifetime);
        let id = URL_SAFE_NO_PAD.encode(self.ledger.entropy.bytes::<16>()?);
        let kept = Kept { issuer: issuer.as_str().to_owned(), reference, id };
        for _ in 0..DRAWS_MAX {
            let code = Code::draw(digits, &self.ledger.entropy)?;
            let key = self.ledger.keys.of_code(&code);
            let value = kept.write();
            let entry = Expiring { family: Family::AccessCode, key, value, until };
            let at_most = Some(u64::from(self.config.alive_max));
            match self.ledger.store.put(entry, now, at_most).await? {
                Put::Kept => {
                    self.remember_former(key, until, now).await;
                    self.count("issued");
                    let (subject, lifetime) = (kept.subject(), self.config.lifetime);
                    return Ok(Issued { code, subject, lifetime, until });
                }
                // Distinct from every live code.
                Put::Exists => {}
                Put::Full => {
                    let wait = self.config.lifetime.min(FULL_WAIT);
                    return Err(self.too_many("access_codes.alive_max", wait));
                }
            }
        }
        Err(IssueError::Exhausted)
    }

    /// The length of new codes: the first of which not half of the guesses are spent, or
    /// the longest.
    async fn length_now(&self) -> Result<u8, StoreError> {
        let mut digits = 0;
        for budget in &self.budgets {
            digits = budget.limit().digits;
            if !budget.is_half_spent().await? {
                break;
            }
        }
        Ok(digits)
    }

    /// Leaves behind, for a day after its end, that a code of this key was good: so the
    /// metrics can tell "too late" from "never was", which clients are not told.
    async fn remember_former(&self, key: [u8; 32], until: Timestamp, now: Timestamp) {
        let value = until.millis().to_le_bytes().to_vec();
        let until = until.plus(GUESS_WINDOW);
        let entry = Expiring { family: Family::FormerCode, key, value, until };
        if let Err(error) = self.ledger.store.put(entry, now, None).await {
            tracing::warn!(%error, "metrics will take a code for one that never was");
        }
    }

    fn issuer_window(&self, issuer: &Subject) -> Window {
        Window {
            family: WindowFamily::Code,
            key: self.ledger.keys.of_name("issuer", issuer.as_str().as_bytes()),
            count: self.config.per_issuer.count,
            length: self.config.per_issuer.window,
            counting: Counting::Sliding,
        }
    }

    fn too_many(&self, rule: &'static str, retry_after: Duration) -> IssueError {
        self.metrics.throttled(rule).inc();
        IssueError::TooMany { rule, retry_after }
    }
}
