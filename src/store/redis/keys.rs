//! The signing keys that all gateways share: one sealed value, replaced whole by
//! whoever read it last, so that two who rotate at once do so one after the other.

use std::time::Duration;

use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::redis::{LASTING, Redis, number, parsed};

/// The keys as they were read; what they say is for others to know.
pub struct SharedKeys {
    /// What was sealed.
    pub plain: Secret<Vec<u8>>,
    sealed: Vec<u8>,
}

impl Redis {
    pub(in crate::store) async fn shared_keys(&self) -> Result<Option<SharedKeys>, StoreError> {
        let key = self.common("keys");
        let get = redis::cmd("GET").arg(&key).take();
        let sealed: Option<Vec<u8>> = parsed(self.link.command(&get, &key, Duration::ZERO).await?)?;
        let Some(sealed) = sealed else { return Ok(None) };
        let Some(plain) = self.seal.open(&sealed) else {
            tracing::error!(
                "the signing keys in Redis were sealed with another key than that of \
                 store.encryption_key_file"
            );
            return Err(StoreError::Unavailable);
        };
        Ok(Some(SharedKeys { plain, sealed }))
    }

    /// Says whether nobody else replaced them meanwhile.
    pub(in crate::store) async fn replace_shared_keys(
        &self,
        before: Option<&SharedKeys>,
        plain: &Secret<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        let before = before.map(|before| before.sealed.clone()).unwrap_or_default();
        let after = self.seal.seal(plain).ok_or(StoreError::Unavailable)?;
        let keys = [self.common("keys"), self.common("news")];
        let args = [number(LASTING), before, after];
        parsed(self.durably(&self.scripts.keys, &keys, &args).await?)
    }
}
