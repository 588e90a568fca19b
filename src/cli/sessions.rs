//! `bindgate sessions`: which there are, and the end of some.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::admin::control::{Answer, Command, SessionLine, Which};
use crate::cli::control::{ControlError, ask, printable, table};
use crate::cli::serve::fail;
use crate::cli::{Selection, Sessions, SessionsCommand};

/// Exits with 0, also when a user has no session, or with 1.
pub(super) fn run(args: &Sessions) -> ExitCode {
    let done = match &args.command {
        SessionsCommand::List(args) => list(args),
        SessionsCommand::Revoke(args) => revoke(&args.selection),
    };
    match done {
        Ok(text) => {
            // Whoever closed our output does not want to hear of it.
            let printed = io::stdout().lock().write_all(text.as_bytes());
            if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

fn list(args: &Selection) -> Result<String, ControlError> {
    let command = Command::SessionsList { which: which(args) };
    let mut rows = Vec::new();
    let count = ask(&args.config, &command, |line| {
        if let Answer::Session(session) = line {
            rows.push(row(&session));
        }
    })?;
    let headings = ["SESSION", "SUBJECT", "ROLE", "BEGAN", "LAST SEEN", "ADDRESS", "USER AGENT"];
    let table = if rows.is_empty() { String::new() } else { table(headings, &rows) };
    Ok(format!("{table}{}\n", counted(count)))
}

fn revoke(args: &Selection) -> Result<String, ControlError> {
    let command = Command::SessionsRevoke { which: which(args) };
    let count = ask(&args.config, &command, |_| {})?;
    Ok(format!("{} ended\n", counted(count)))
}

/// Every session, unless one kind was chosen; the arguments exclude each other.
fn which(args: &Selection) -> Which {
    match (&args.user, &args.session) {
        (Some(user), _) => Which::User(user.clone()),
        (None, Some(session)) => Which::Session(session.clone()),
        (None, None) => Which::All,
    }
}

fn row(line: &SessionLine) -> [String; 7] {
    let agent = line.user_agent.as_deref().unwrap_or("-");
    [&line.session, &line.subject, &line.role, &line.began, &line.last_seen, &line.address, agent]
        .map(printable)
}

fn counted(count: u64) -> String {
    if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
}
