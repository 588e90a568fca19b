//! The gateway's own tokens: claims, the cookie they are bound to, the keys that
//! sign them, and what makes a token ours. Knows no sessions' state and no HTTP.

mod assertion;
mod audit_key;
mod change;
mod claims;
mod context;
mod der;
mod header;
mod jwk;
mod keys_dir;
mod material;
mod ring;
mod rotation;
mod shared;
mod signer;

pub use assertion::{
    Assertion, AssertionError, AssertionIssuer, AssertionKeyFacts, AssertionKeys, AssertionMemory,
    KeyStage, NewAssertionKey, Remembered, Stated,
};
pub use audit_key::{AuditKey, audit_key, audit_public_keys};
pub use change::{ChangeTicket, ChangeTokenError, ChangeTokens};
pub use claims::{Claims, TokenId};
pub use context::{ContextCookie, ContextHash, pair_key};
pub use header::is_ours;
pub use keys_dir::{KeyError, KeysDir};
pub use ring::{KeyRing, KeySource, LEEWAY, TokenError};
pub use rotation::KeyFacts;
