//! The signing keys that all gateways share: one sealed value, replaced whole by
//! whoever read it last, so that two who rotate at once do so one after the other.

use std::time::Duration;

use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::redis::{LASTING, Redis, number, parsed};

/// Of what is sealed: the version, before the keys.
const VERSION: usize = 8;

/// The keys as they were read; what they say is for others to know.
pub struct SharedKeys {
    /// Greater with every change. Sealed with the keys, so that whoever can write to
    /// Redis can only put back both.
    pub version: u64,
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
        let plain = self.seal.open(&sealed);
        let split = plain.as_ref().and_then(|plain| plain.expose().split_first_chunk::<VERSION>());
        let Some((version, plain)) = split else {
            tracing::error!(
                "the signing keys in Redis were sealed with another key than that of \
                 store.encryption_key_file"
            );
            return Err(StoreError::Unavailable);
        };
        let (version, plain) = (u64::from_be_bytes(*version), Secret::new(plain.to_vec()));
        Ok(Some(SharedKeys { version, plain, sealed }))
    }

    /// Says whether nobody else replaced them meanwhile.
    pub(in crate::store) async fn replace_shared_keys(
        &self,
        before: Option<&SharedKeys>,
        (version, plain): (u64, &Secret<Vec<u8>>),
    ) -> Result<bool, StoreError> {
        let before = before.map(|before| before.sealed.clone()).unwrap_or_default();
        let plain = Secret::new([&version.to_be_bytes()[..], plain.expose()].concat());
        let after = self.seal.seal(&plain).ok_or(StoreError::Unavailable)?;
        let keys = ["keys", "news", "starts"].map(|name| self.common(name));
        let args = [number(LASTING), before, after];
        parsed(self.durably(&self.scripts.keys, &keys, &args).await?)
    }
}
