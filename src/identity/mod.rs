//! The domain's plain nouns: who somebody is, in which role, in which session,
//! and what was typed to prove it. Knows no HTTP, no LDAP and no token format.

mod credentials;
mod names;

pub use credentials::{Credentials, ImpossibleCredentials};
pub use names::{Role, SessionId, Subject};
