//! `[telemetry]`.

use std::net::SocketAddr;
use std::path::PathBuf;

/// `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Listener of `/metrics`, `/healthz`, `/readyz`.
    pub listen: SocketAddr,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// The least level that is logged.
    pub log_level: LogLevel,
    /// The audit log; absent means none is kept.
    pub audit_file: Option<PathBuf>,
    /// Whether forwarded requests are recorded too.
    pub audit_requests: bool,
    /// Whether requests are refused while no record can be written.
    pub audit_required: bool,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The least level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what someone should look at.
    Error,
    /// And what is odd.
    Warn,
    /// And what happens.
    Info,
    /// And details.
    Debug,
    /// And everything.
    Trace,
}
