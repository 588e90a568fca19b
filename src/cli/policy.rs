//! `bindgate policy check`: what the routes say of one request.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::PolicyCheck;
use crate::cli::serve::fail;
use crate::config::Config;
use crate::identity::Role;
use crate::policy;

/// The exit code of a denial.
const DENIED: u8 = 3;

/// Prints allow or deny and which route decided.
pub(super) fn check(args: &PolicyCheck) -> ExitCode {
    let loaded = match Config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems),
    };
    let role = Role::new(&args.role);
    let host = args.host.as_deref();
    let explanation = policy::explain(&loaded.config, host, &role, &args.method, &args.path);
    if writeln!(io::stdout().lock(), "{explanation}").is_err() {
        return ExitCode::FAILURE;
    }
    if explanation.is_allowed() { ExitCode::SUCCESS } else { ExitCode::from(DENIED) }
}
