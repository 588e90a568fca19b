//! The other end of the control socket: one command to the running gateway, its
//! answer line by line. Knows no command's meaning.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::admin::control::{Answer, Command};
use crate::config::{Config, Problems};

/// How long the gateway may take for the next line.
const PATIENCE: Duration = Duration::from_mins(5);

/// A command did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    /// The configuration file does not load.
    #[error("{0}")]
    Configuration(Problems),
    /// There is no socket to ask through.
    #[error("telemetry.control_socket is not set: without it no command reaches the gateway")]
    NoSocket,
    /// Nobody answers there.
    #[error("{path}: {source}: is the gateway running?")]
    Unreachable {
        /// The socket's path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer broke off.
    #[error("the gateway's answer broke off; what was asked may be done or not")]
    Broken,
    /// The gateway could not do it.
    #[error("{0}")]
    Failed(String),
}

/// Sends a command to the gateway of this configuration; says how many it
/// concerned. `line` takes everything that comes before that.
///
/// # Errors
/// When it was not carried out, or nobody can tell.
pub(super) fn ask(
    config: &Path,
    command: &Command,
    line: impl FnMut(Answer),
) -> Result<u64, ControlError> {
    let loaded = Config::load(config).map_err(ControlError::Configuration)?;
    let path = loaded.config.telemetry.control_socket.ok_or(ControlError::NoSocket)?;
    ask_at(&path, command, line)
}

/// The same through the socket at `path`.
///
/// # Errors
/// As above.
pub(super) fn ask_at(
    path: &Path,
    command: &Command,
    mut line: impl FnMut(Answer),
) -> Result<u64, ControlError> {
    let unreachable =
        |source| ControlError::Unreachable { path: path.display().to_string(), source };
    let mut stream = UnixStream::connect(path).map_err(unreachable)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
    let mut text = serde_json::to_vec(command).map_err(|_| ControlError::Broken)?;
    text.push(b'\n');
    stream.write_all(&text).map_err(unreachable)?;
    for answer in BufReader::new(stream).lines() {
        let answer = answer.map_err(|_| ControlError::Broken)?;
        match serde_json::from_str(&answer).map_err(|_| ControlError::Broken)? {
            Answer::Done(count) => return Ok(count),
            Answer::Failed(sentence) => return Err(ControlError::Failed(sentence)),
            other => line(other),
        }
    }
    Err(ControlError::Broken)
}

/// Text of somebody else's for a terminal: what is not printable is escaped.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\'' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    shown
}

/// Rows below their headings, each column as wide as its widest cell.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths = headings.map(width);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let mut text = String::new();
    let headings = headings.map(str::to_owned);
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (cell, widest) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', widest - width(cell) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{printable, table};

    #[test]
    fn nothing_that_a_client_chose_governs_the_terminal() {
        assert_eq!(printable("curl/8 \"zoë\" it's"), "curl/8 \"zoë\" it's");
        let shown = printable("a\x1b[2J\n\u{202e}b\u{9b}\\");
        assert_eq!(shown, "a\\u{1b}[2J\\n\\u{202e}b\\u{9b}\\\\");
    }

    #[test]
    fn columns_stand_below_their_headings() {
        let rows = [["zoë".to_owned(), "x".to_owned()], ["a".to_owned(), String::new()]];
        assert_eq!(table(["WHO", "WHAT"], &rows), "WHO  WHAT\nzoë  x\na\n");
    }
}
