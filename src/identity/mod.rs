//! The domain's plain nouns: who somebody is, in which role, in which session,
//! and what was typed or is kept to prove it. Knows no HTTP, no LDAP and no token
//! format.

mod attributes;
mod credentials;
mod names;
mod password_hash;
mod template;

pub use attributes::{ATTRIBUTES_MAX, AttributeTooLarge, Attributes};
pub use credentials::{Credentials, ImpossibleCredentials, fold_name};
pub use names::{ACCESS_CODE_ROLE, Reference, Role, SessionId, Subject};
pub use password_hash::{HashingError, PasswordHash, PasswordHashError};
pub use template::{ClaimTemplates, Facts, TemplateError};
