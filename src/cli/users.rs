//! `bindgate users hash`: a password becomes what a users file keeps of it.

use std::io::{self, IsTerminal as _, Read, Write as _};
use std::process::ExitCode;

use crate::ambient::Entropy;
use crate::cli::serve::fail;
use crate::cli::terminal;
use crate::cli::{Users, UsersCommand};
use crate::identity::{Credentials, HashingError, PasswordHash};
use crate::secret::Secret;

/// More than any password that can log in, with its line end, in bytes.
const BYTES_MAX: u64 = 2048;
/// Shorter ones are hashed, but said to be short.
const CHARACTERS_ENOUGH: usize = 12;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no password was read: {0}")]
    Read(#[from] io::Error),
    #[error("the two passwords differ")]
    Differ,
    #[error("nobody could log in with this password: it is empty, too long, or holds a NUL")]
    Impossible,
    #[error("more than one line: the password must stand alone")]
    SeveralLines,
    #[error(transparent)]
    Hashing(#[from] HashingError),
}

/// Exits with 0, or with 1.
pub(super) fn run(args: &Users) -> ExitCode {
    let UsersCommand::Hash(_) = args.command;
    let hashed = read_password().and_then(|password| {
        Ok((PasswordHash::fresh(&password, &Entropy::system())?, is_short(&password)))
    });
    match hashed {
        Ok((hash, is_short)) => {
            if is_short {
                // Whoever closed it does not want to hear of it.
                let _ = writeln!(io::stderr(), "note: shorter than {CHARACTERS_ENOUGH} characters");
            }
            let printed = writeln!(io::stdout().lock(), "{}", hash.to_phc().expose());
            if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(trouble) => fail(&trouble),
    }
}

/// Twice from a terminal, which does not show it; once from anything else.
fn read_password() -> Result<Secret<String>, Trouble> {
    if !io::stdin().is_terminal() {
        return possible(read_line(io::stdin().lock())?);
    }
    let first = terminal::ask("Password: ", BYTES_MAX)?;
    let first = possible(without_line_end(&first)?)?;
    let again = without_line_end(&terminal::ask("Again: ", BYTES_MAX)?)?;
    if first.expose() == again.expose() { Ok(first) } else { Err(Trouble::Differ) }
}

/// All that comes, which must be one line.
fn read_line(input: impl Read) -> Result<Secret<String>, Trouble> {
    // Room for all of it: a buffer that grows leaves copies behind.
    let mut text = String::with_capacity(usize::try_from(BYTES_MAX).unwrap_or(0));
    let read = input.take(BYTES_MAX).read_to_string(&mut text);
    let text = Secret::new(text);
    read?;
    without_line_end(&text)
}

fn without_line_end(text: &Secret<String>) -> Result<Secret<String>, Trouble> {
    let line = text.expose().strip_suffix('\n').unwrap_or(text.expose());
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains(['\n', '\r']) {
        return Err(Trouble::SeveralLines);
    }
    Ok(Secret::new(line.to_owned()))
}

/// Only what a login would take.
fn possible(password: Secret<String>) -> Result<Secret<String>, Trouble> {
    let credentials = Credentials::parse("x".to_owned(), password.clone());
    credentials.map(|_| password).map_err(|_| Trouble::Impossible)
}

fn is_short(password: &Secret<String>) -> bool {
    password.expose().chars().count() < CHARACTERS_ENOUGH
}

#[cfg(test)]
mod tests {
    use super::{Trouble, possible, read_line};

    fn read(text: &str) -> Result<String, Trouble> {
        let password = possible(read_line(text.as_bytes())?)?;
        Ok(password.expose().clone())
    }

    #[test]
    fn the_line_end_is_no_part_of_a_password() {
        for text in ["pass word", "pass word\n", "pass word\r\n"] {
            assert_eq!(read(text).unwrap(), "pass word");
        }
        assert_eq!(read(" pass ").unwrap(), " pass ", "spaces are");
    }

    #[test]
    fn what_could_never_log_in_is_not_hashed() {
        for text in ["", "\n", "a\0b", &"x".repeat(1025), &"x".repeat(5000)] {
            assert!(matches!(read(text), Err(Trouble::Impossible)), "{text:.10}");
        }
        assert!(matches!(read("one\ntwo\n"), Err(Trouble::SeveralLines)));
    }
}
