//! `bindgate schema`: prints the JSON Schema of the configuration file.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::Config;

/// Prints the schema.
pub(super) fn run() -> ExitCode {
    match writeln!(io::stdout().lock(), "{:#}", Config::schema()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
