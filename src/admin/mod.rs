//! What operators ask the running gateway. Knows no request of a client.

pub mod control;
pub mod jwks;
mod plain;
pub mod telemetry;
