//! `bindgate keys`: which keys sign and verify, and a new one.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::admin::control::{self, Answer, Command, KeyLine};
use crate::cli::control::{ControlError, ask, printable, table};
use crate::cli::serve::fail;
use crate::cli::{Keys, KeysCommand, Purpose};

/// Exits with 0, or with 1.
pub(super) fn run(args: &Keys) -> ExitCode {
    let done = match &args.command {
        KeysCommand::List(args) => {
            let mut rows = Vec::new();
            let command = Command::KeysList { purpose: args.purpose.into() };
            let listed = ask(&args.config, &command, |line| {
                if let Answer::Key(key) = line {
                    rows.push(row(&key));
                }
            });
            listed.map(|_| table(["KEY", "ALGORITHM", "MADE", "USE"], &rows))
        }
        KeysCommand::Rotate(args) => {
            let purpose = args.which.purpose.into();
            let command = Command::KeysRotate { purpose, now: args.now };
            ask(&args.which.config, &command, |_| {}).map(|count| rotated(count, args.now))
        }
    };
    print(done)
}

fn print(done: Result<String, ControlError>) -> ExitCode {
    match done {
        Ok(text) => {
            // Whoever closed our output does not want to hear of it.
            let printed = io::stdout().lock().write_all(text.as_bytes());
            if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

/// `count` keys changed, the new one among them.
fn rotated(count: u64, now: bool) -> String {
    if now {
        let dropped = count.saturating_sub(1);
        format!("a new key signs; {dropped} dropped, every token before it is dead\n")
    } else {
        "a new key signs; the one before it verifies for as long as it is needed\n".to_owned()
    }
}

fn row(key: &KeyLine) -> [String; 4] {
    let used = key.replaced.as_ref().map_or_else(
        || "signs".to_owned(),
        |since| format!("verifies only, since {}", printable(since)),
    );
    [printable(&key.kid), printable(&key.algorithm), printable(&key.created), used]
}

impl From<Purpose> for control::Purpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Session => Self::Session,
            Purpose::Assertion => Self::Assertion,
        }
    }
}
