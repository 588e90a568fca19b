//! What operators ask the running gateway. Knows no request of a client.

pub mod jwks;
mod plain;
pub mod telemetry;
