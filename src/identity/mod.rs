//! The domain's plain nouns: who somebody is, in which role, in which session,
//! and what was typed to prove it. Knows no HTTP, no LDAP and no token format.

mod attributes;
mod credentials;
mod names;
mod template;

pub use attributes::{ATTRIBUTES_MAX, AttributeTooLarge, Attributes};
pub use credentials::{Credentials, ImpossibleCredentials};
pub use names::{Role, SessionId, Subject};
pub use template::{ClaimTemplates, Facts, TemplateError};
