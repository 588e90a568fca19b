//! `bindgate policy check`: what the route table says of one request. Asks the
//! table that the gateway asks; opens no store, port or network.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::{Policy, PolicyCheck, PolicyCommand};
use crate::config::Config;
use crate::identity::Role;
use crate::policy::explain;

/// The exit code of "deny".
const DENIED: u8 = 3;

/// Answers with 0 for allow, 3 for deny and 1 when there is no answer.
pub(super) fn run(args: &Policy) -> ExitCode {
    let PolicyCommand::Check(args) = &args.command;
    // Whoever closed our output does not want to hear of it.
    match Config::load(&args.config) {
        Ok(loaded) => check(&loaded.config, args, &mut io::stdout().lock())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(problems) => {
            let mut out = io::stderr().lock();
            for problem in problems.iter() {
                if writeln!(out, "problem: {problem}").is_err() {
                    break;
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// Prints allow or deny, and which route decided; the outcome is the exit code.
///
/// # Errors
/// When the answer cannot be printed.
pub fn check(config: &Config, args: &PolicyCheck, out: &mut impl Write) -> io::Result<u8> {
    let role = Role::new(&args.role);
    let explanation = explain(config, args.host.as_deref(), &role, &args.method, &args.path);
    writeln!(out, "{explanation}")?;
    let mut roles = config.directory.iter().flat_map(|directory| &directory.roles);
    if !roles.any(|known| known.name == role) {
        writeln!(out, "note: no [[directory.role]] has the name {role:?}", role = args.role)?;
    }
    Ok(if explanation.is_allowed() { 0 } else { DENIED })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::ExitCode;

    use super::{check, run};
    use crate::cli::{Policy, PolicyCheck, PolicyCommand};
    use crate::policy::sample::{config, route};

    fn question(role: &str, request: &str) -> PolicyCheck {
        let (method, path) = request.split_once(' ').unwrap();
        PolicyCheck {
            config: PathBuf::new(),
            host: None,
            role: role.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn the_exit_code_says_allow_or_deny() {
        let config = config(vec![route("GET /a", "tracer")]);
        for (role, request, code, start) in [
            ("tracer", "GET /a", 0, "allow: route 1 "),
            ("admin", "GET /a", 3, "deny: 403 Forbidden: route 1 "),
            ("tracer", "GET /A", 3, "deny: 404 NoRoute: "),
            ("tracer", "GET /%", 3, "deny: 400 BadRequest: "),
        ] {
            let mut out = Vec::new();
            assert_eq!(check(&config, &question(role, request), &mut out).unwrap(), code);
            let out = String::from_utf8(out).unwrap();
            assert!(out.starts_with(start) && out.lines().count() == 1, "{out}");
        }
    }

    #[test]
    fn a_role_that_nobody_can_have_is_pointed_out() {
        let mut out = Vec::new();
        let config = config(vec![route("/a", "public")]);
        assert_eq!(check(&config, &question("tracr", "GET /a"), &mut out).unwrap(), 0);
        let out = String::from_utf8(out).unwrap();
        assert!(out.ends_with("note: no [[directory.role]] has the name \"tracr\"\n"), "{out}");
    }

    #[test]
    fn without_a_valid_configuration_there_is_no_answer() {
        let folder = tempfile::TempDir::new().unwrap();
        let config = folder.path().join("none.toml");
        let args = PolicyCheck { config, ..question("tracer", "GET /a") };
        let code = run(&Policy { command: PolicyCommand::Check(args) });
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }
}
