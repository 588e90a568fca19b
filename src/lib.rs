//! bindgate: an authenticating reverse proxy for organisations that live on LDAP
//! and Active Directory. `docs/architecture.md` is the map of these modules.

pub mod access_code;
pub mod admin;
pub mod ambient;
pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod demo;
pub mod directory;
mod dn;
pub mod gateway;
pub mod identity;
pub mod logging;
pub mod metrics;
pub mod policy;
pub mod refusal;
pub mod secret;
pub mod server;
pub mod session;
pub mod store;
pub mod throttle;
pub mod token;
pub mod upstream;
pub mod wire;
