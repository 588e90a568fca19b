//! What only a store has that several gateways share: news of what the others
//! did, keys for all, and how fresh what is known here is.

use std::time::Duration;

use crate::ambient::Timestamp;
use crate::identity::SessionId;
use crate::secret::Secret;
use crate::store::redis::{Feed, Redis, SharedKeys};
use crate::store::{Family, Kind, Store, StoreError};

impl Store {
    fn redis(&self) -> Option<&Redis> {
        match &self.kind {
            Kind::Memory(_) | Kind::Embedded(_) => None,
            Kind::Redis(redis) => Some(redis),
        }
    }

    /// Whether other gateways share it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.redis().is_some()
    }

    /// News of what others did; `None` when nobody else can. To be read by one.
    #[must_use]
    pub fn feed(&self) -> Option<Feed<'_>> {
        self.redis().map(Feed::new)
    }

    /// Whether revocations may be missing here: none were read yet, or the last time
    /// is longer ago than `store.max_staleness`. Takes no lock and asks nobody.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.redis().is_some_and(|redis| redis.heard().is_stale())
    }

    /// After what time without news nothing is decided any more; zero when nobody else
    /// has any.
    #[must_use]
    pub fn max_staleness(&self) -> Duration {
        self.redis().map_or(Duration::ZERO, |redis| redis.heard().max())
    }

    /// How long ago news of revocations were read last; `None` when there was no
    /// time yet, or there are no others.
    #[must_use]
    pub fn news_age(&self) -> Option<Duration> {
        self.redis()?.heard().age()
    }

    /// How far the store's clock was ahead of ours when it was asked last, in
    /// milliseconds; `None` when it has none of its own.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        self.redis().map(|redis| redis.heard().ahead())
    }

    /// Tells the store revocations that it may have lost; what it knows stays.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn remember(&self, ended: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        match self.redis() {
            Some(redis) => self.counted("remember", redis.remember(ended).await),
            None => Ok(()),
        }
    }

    /// The signing keys of all gateways, as [`Store::replace_shared_keys`] kept them.
    ///
    /// # Errors
    /// When the store cannot answer, or they were sealed under another key.
    pub async fn shared_keys(&self) -> Result<Option<SharedKeys>, StoreError> {
        match self.redis() {
            Some(redis) => self.counted("shared_keys", redis.shared_keys().await),
            None => Ok(None),
        }
    }

    /// Replaces the signing keys of all gateways and their version, if they still are as
    /// they were read.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn replace_shared_keys(
        &self,
        before: Option<&SharedKeys>,
        after: (u64, &Secret<Vec<u8>>),
    ) -> Result<bool, StoreError> {
        match self.redis() {
            Some(redis) => {
                let replaced = redis.replace_shared_keys(before, after).await;
                self.counted("replace_shared_keys", replaced)
            }
            None => Ok(false),
        }
    }

    /// Counts a start of a gateway that shares the store, from no less than was counted
    /// before; answers with the count, in which is also every revocation, redemption and
    /// change of keys.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn count_start(&self, before: u64) -> Result<u64, StoreError> {
        match self.redis() {
            Some(redis) => self.counted("starts", redis.begin(before).await),
            None => Ok(0),
        }
    }

    /// Voids all access codes of a store that was put back: some may have been redeemed.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn void_codes(&self) -> Result<(), StoreError> {
        let voided = match &self.kind {
            Kind::Memory(_) => return Ok(()),
            Kind::Embedded(embedded) => embedded.void(Family::AccessCode).await,
            Kind::Redis(redis) => redis.void_all_codes().await,
        };
        self.counted("void", voided)
    }

    /// The count of starts as it was read last; `None` while all is being read anew, and
    /// where nothing outlives the process.
    #[must_use]
    pub fn starts_heard(&self) -> Option<u64> {
        match &self.kind {
            Kind::Memory(_) => None,
            Kind::Embedded(embedded) => embedded.starts().ok().flatten(),
            Kind::Redis(redis) => redis.heard().starts(),
        }
    }

    /// Whether this process is the one that looks after what all share, for so long.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn is_our_turn(&self, length: Duration) -> Result<bool, StoreError> {
        match self.redis() {
            Some(redis) => self.counted("turn", redis.is_our_turn(length).await),
            None => Ok(true),
        }
    }
}
