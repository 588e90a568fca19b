//! Tokens taken apart and put together by hand, with the key as it lies on disk: what
//! somebody could do who has the key, or only pretends to.

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The three parts of a compact JWS, the first two decoded.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    pub(crate) signature: Vec<u8>,
}

impl Token {
    pub(crate) fn parse(text: &str) -> Self {
        let parts: Vec<Vec<u8>> = text
            .split('.')
            .map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64url without padding"))
            .collect();
        let [header, claims, signature] = parts.try_into().expect("three parts");
        Self {
            header: serde_json::from_slice(&header).expect("a JSON header"),
            claims: serde_json::from_slice(&claims).expect("JSON claims"),
            signature,
        }
    }

    pub(crate) fn claim(&self, name: &str) -> &str {
        self.claims[name].as_str().unwrap_or_default()
    }

    pub(crate) fn seconds(&self, name: &str) -> i64 {
        self.claims[name].as_i64().expect("a number of seconds")
    }

    /// With this header member changed, and the signature as it was.
    pub(crate) fn with_header(mut self, name: &str, value: Value) -> Self {
        self.header[name] = value;
        self
    }

    /// With this claim changed, and the signature as it was.
    pub(crate) fn with_claim(mut self, name: &str, value: Value) -> Self {
        self.claims[name] = value;
        self
    }

    /// What is signed.
    pub(crate) fn signing_input(&self) -> String {
        format!("{}.{}", encode(self.header.to_string()), encode(self.claims.to_string()))
    }

    /// The compact form with the signature as it is.
    pub(crate) fn text(&self) -> String {
        format!("{}.{}", self.signing_input(), URL_SAFE_NO_PAD.encode(&self.signature))
    }

    /// The compact form, signed anew with HMAC-SHA-256.
    pub(crate) fn signed(&self, secret: &[u8]) -> String {
        sign(&self.signing_input(), secret)
    }
}

/// `input.signature` with HMAC-SHA-256, whatever the input is.
pub(crate) fn sign(input: &str, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{input}.{}", encode(hmac::sign(&key, input.as_bytes())))
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The session key in this directory: its file and its members.
pub(crate) fn session_key(keys: &Path) -> (PathBuf, Value) {
    let files = fs::read_dir(keys).expect("the directory of keys");
    let mut found = files
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jwk"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a key file");
            (path, serde_json::from_str::<Value>(&text).expect("a JSON Web Key"))
        })
        .filter(|(_, key)| key["purpose"] == "session");
    let key = found.next().expect("a session key");
    assert!(found.next().is_none(), "one session key on first start");
    key
}

/// The bytes of a symmetric session key.
pub(crate) fn secret(keys: &Path) -> Vec<u8> {
    let (_, key) = session_key(keys);
    URL_SAFE_NO_PAD.decode(key["k"].as_str().expect("an oct key")).expect("base64url")
}
