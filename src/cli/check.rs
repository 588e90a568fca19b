//! `bindgate check`: judges a configuration file and changes nothing.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Check;
use crate::config::Config;
use crate::token::KeysDir;

/// Prints every problem, then every note, and says by its exit code whether the
/// gateway would start.
pub(super) fn run(args: &Check) -> ExitCode {
    // Whoever closed our output does not want to hear of it.
    report(args, &mut io::stdout().lock()).unwrap_or(ExitCode::FAILURE)
}

fn report(args: &Check, out: &mut impl Write) -> io::Result<ExitCode> {
    match Config::load(&args.config) {
        Ok(loaded) => {
            if let Some(problem) = broken_keys(&loaded.config) {
                writeln!(out, "problem: {}: token.keys_dir: {problem}", args.config.display())?;
                return Ok(ExitCode::FAILURE);
            }
            for note in &loaded.notes {
                writeln!(out, "note: {note}")?;
            }
            writeln!(out, "{}: good", args.config.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            for problem in problems.iter() {
                writeln!(out, "problem: {problem}")?;
            }
            for note in problems.notes() {
                writeln!(out, "note: {note}")?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What is wrong with the keys that a start would read.
fn broken_keys(config: &Config) -> Option<String> {
    let folder = config.token.keys_dir.as_ref()?;
    let used = !config.store.is_memory();
    KeysDir::check(folder).err().filter(|_| used).map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::{Check, report};

    #[test]
    fn problems_are_printed_and_fail() {
        let folder = tempfile::TempDir::new().unwrap();
        let config = folder.path().join("bindgate.toml");
        std::fs::write(&config, "[cookie]\nsame_site = \"lax\"\ntoken_name = \"a b\"\n").unwrap();
        let mut out = Vec::new();
        let code = report(&Check { config }, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
        assert!(out.contains("problem: ") && out.contains("cookie.token_name: found \"a b\""));
        assert!(out.contains("note: ") && out.contains("cookie.same_site"), "notes too: {out}");
    }
}
