//! `[telemetry]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::kind::{self, Boolean, Choice};
use super::reader::Reader;

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
    /// Where operators' commands reach the running gateway; absent means nowhere.
    pub control_socket: Option<PathBuf>,
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

impl Telemetry {
    /// Reads `[telemetry]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let listen = r.or(
            "listen",
            kind::socket_address(),
            SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)),
            "The address of /metrics, /healthz and /readyz, in plain HTTP.",
        );
        let log_format = r.or(
            "log_format",
            Choice { built: &[("json", LogFormat::Json), ("text", LogFormat::Text)], unbuilt: &[] },
            LogFormat::Json,
            "How log lines are written: for machines or for people.",
        );
        let log_level =
            r.or("log_level", LOG_LEVEL, LogLevel::Info, "The least level that is logged.");
        let audit_file = r.optional(
            "audit_file",
            kind::file(),
            "The audit log, a chain of JSON lines; without it none is kept.",
        );
        let audit_file = audit_file.map(|path| r.resolve(&path));
        let audit_requests =
            r.or("audit_requests", Boolean, true, "Whether forwarded requests are recorded too.");
        let audit_required = r.or(
            "audit_required",
            Boolean,
            true,
            "Whether requests are refused while no record can be written.",
        );
        let control_socket = r.optional(
            "control_socket",
            kind::file(),
            "The Unix socket through which `bindgate sessions` and `bindgate keys` reach the \
             running gateway.",
        );
        let control_socket = control_socket.map(|path| r.resolve(&path));
        if control_socket
            .as_ref()
            .and_then(|path| path.parent())
            .is_some_and(|folder| !r.folder_exists(folder))
        {
            r.note("control_socket", "its folder does not exist yet");
        }
        if !listen.ip().to_canonical().is_loopback() {
            r.note("listen", "metrics can be read from other machines, without a password");
        }
        match &audit_file {
            None => r.note("audit_file", "left out: no audit log is kept"),
            Some(path) if path.parent().is_some_and(|folder| !r.folder_exists(folder)) => {
                r.note("audit_file", "its folder does not exist yet");
            }
            Some(_) if !audit_required => {
                r.note("audit_required", "false: requests go on while no record can be written");
            }
            Some(_) => {}
        }
        Self {
            listen,
            log_format,
            log_level,
            audit_file,
            audit_requests,
            audit_required,
            control_socket,
        }
    }
}

const LOG_LEVEL: Choice<LogLevel> = Choice {
    built: &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ],
    unbuilt: &[],
};
