//! bindgate: an authenticating reverse proxy for organisations that live on LDAP
//! and Active Directory. `docs/architecture.md` is the map of these modules.

pub mod ambient;
pub mod config;
pub mod directory;
pub mod identity;
pub mod metrics;
pub mod refusal;
pub mod secret;
