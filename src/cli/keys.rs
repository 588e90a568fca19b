//! `bindgate keys`: which keys sign and verify, and a new one.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::admin::control::{self, Answer, Command, KeyLine, KeyUse};
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
            let rotated = match purpose {
                control::Purpose::Session => sessions_rotated,
                control::Purpose::Assertion => assertions_rotated,
            };
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
fn sessions_rotated(count: u64, now: bool) -> String {
    if now {
        let dropped = count.saturating_sub(1);
        format!("a new key signs; {dropped} dropped, every token before it is dead\n")
    } else {
        "a new key signs; the one before it verifies for as long as it is needed\n".to_owned()
    }
}

/// `count` keys changed, one new one of each kind among them.
fn assertions_rotated(count: u64, now: bool) -> String {
    if now {
        format!("{count} keys changed: new ones sign, those before them are dropped\n")
    } else {
        let keys = if count == 1 { "key is" } else { "keys are" };
        format!(
            "{count} new {keys} published, and will sign when upstream.assertion.publish_ahead \
             has passed\n"
        )
    }
}

fn row(key: &KeyLine) -> [String; 4] {
    let used = match &key.usage {
        KeyUse::Signs => "signs".to_owned(),
        KeyUse::Verifies(since) => format!("verifies only, since {}", printable(since)),
        KeyUse::SignsFrom(from) => format!("is published, signs from {}", printable(from)),
        KeyUse::Published => "is published only".to_owned(),
        KeyUse::Unused => "unused".to_owned(),
    };
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
