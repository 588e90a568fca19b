//! The keys under which codes, issuers, addresses and budgets are kept. The one for
//! codes serves nothing else.

use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::access_code::Code;
use crate::ambient::{Entropy, EntropyFailed};
use crate::secret::Secret;
use crate::store::{SecretName, Store, StoreError};

/// Two keys of the store. Clones share them.
#[derive(Clone)]
pub struct CodeKeys(Arc<Keys>);

struct Keys {
    codes: hmac::Key,
    names: hmac::Key,
}

/// The keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness for new ones.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
}

impl CodeKeys {
    /// Reads the keys; new ones are made for a new store.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn open(store: &Store, entropy: &Entropy) -> Result<Self, KeysError> {
        let codes = store.secret(SecretName::AccessCode, Secret::new(entropy.bytes()?)).await?;
        let names = store.secret(SecretName::Names, Secret::new(entropy.bytes()?)).await?;
        let key = |secret: &Secret<[u8; 32]>| hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        Ok(Self(Arc::new(Keys { codes: key(&codes), names: key(&names) })))
    }

    /// What a code is found by.
    pub(super) fn of_code(&self, code: &Code) -> [u8; 32] {
        tag(&self.0.codes, code.expose().as_bytes())
    }

    /// What the tries of somebody or something are counted by; `purpose` keeps the names
    /// of different things apart.
    pub(super) fn of_name(&self, purpose: &str, name: &[u8]) -> [u8; 32] {
        tag(&self.0.names, &[b"access code\0", purpose.as_bytes(), b"\0", name].concat())
    }
}

fn tag(key: &hmac::Key, text: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hmac::sign(key, text).as_ref());
    bytes
}
