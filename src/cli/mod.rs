//! The command line: one file a command, arguments in, exit code out. Here are
//! the names and the help; what a command does is in its file.

pub mod audit;
mod check;
pub mod demo;
pub mod policy;
mod schema;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// An authenticating reverse proxy for organisations that live on LDAP.
///
/// People log in against the directory, and the service behind bindgate is told
/// who is calling. Exits with 0 for yes, with 1 for a problem, wrong arguments included.
#[derive(Debug, Parser)]
#[command(name = "bindgate", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    Serve(Serve),
    Check(Check),
    Demo(Demo),
    Policy(Policy),
    Audit(Audit),
    Schema(Schema),
}

/// Check a configuration and print everything that is wrong with it
///
/// Judges what `serve` would at its start: keys, certificates, files, routes and
/// numbers; each problem with its file (or environment variable) and key, what
/// was found and what is allowed. Then notes what is allowed but risky. Opens no
/// store, no port and no network. Exits with 0, or with 1 when there is a problem.
#[derive(Args, Debug)]
pub struct Check {
    /// The configuration file (TOML); `BINDGATE_SECTION__KEY` in the environment overrides it
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Print the JSON Schema of the configuration file
///
/// For editors that complete and check TOML by a schema; docs/configuration.md
/// says the same in words.
#[derive(Args, Debug)]
pub struct Schema {}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            // Help is no error. Whoever closed our output does not want to hear of it.
            let printed = error.print();
            let failed = error.use_stderr() || printed.is_err();
            if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

impl Cli {
    /// Runs the command.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        match &self.command {
            Command::Serve(args) => serve::run(args),
            Command::Check(args) => check::run(args),
            Command::Demo(args) => demo::run(args),
            Command::Policy(args) => policy::run(args),
            Command::Audit(Audit { command: AuditCommand::Verify(args) }) => audit::run(args),
            Command::Schema(_) => schema::run(),
        }
    }
}

/// Run the gateway
///
/// Prints one line, "bindgate ready https=ADDR telemetry=ADDR [jwks=ADDR]", once it accepts
/// connections. SIGHUP reloads configuration, certificates and keys; a bad file
/// keeps what was there. SIGTERM and SIGINT let open requests finish, then exit
/// with 0. Exits with 1 when it cannot start, with every problem printed.
#[derive(Args, Debug)]
pub struct Serve {
    /// The configuration file (TOML); `BINDGATE_SECTION__KEY` in the environment overrides it
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Run everything on loopback, with nothing to install
///
/// A demo directory that speaks LDAP over TLS, a sample upstream that shows what
/// it received, a throw-away certificate, and the gateway in front. Prints users,
/// passwords and curl lines to paste. Ctrl-C ends it and leaves nothing behind.
#[derive(Args, Debug)]
pub struct Demo {
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub listen: std::net::SocketAddr,
}

/// Ask what the routes allow
#[derive(Args, Debug)]
pub struct Policy {
    /// What to ask.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What to ask of the routes.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say whether a role may make a request, and which route decides
    ///
    /// Exits with 0 when it may, 3 when it may not, 1 when the question or the
    /// configuration is wrong.
    Check(PolicyCheck),
}

/// The arguments of `policy check`.
#[derive(Args, Debug)]
pub struct PolicyCheck {
    /// The configuration file (TOML); `BINDGATE_SECTION__KEY` in the environment overrides it
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The host asked for; that of `server.public_origin` if left out
    #[arg(long)]
    pub host: Option<String>,
    /// The role that asks
    #[arg(long)]
    pub role: String,
    /// The method, as a client sends it: GET
    pub method: String,
    /// The path, as a client sends it: /orders/7
    pub path: String,
}

/// Look after the audit log
#[derive(Args, Debug)]
pub struct Audit {
    /// What to do.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What to do with audit logs.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Prove that an audit log is unaltered
    ///
    /// Says up to which checkpoint the records are proved, or names the first bad
    /// one. Without a key only the chain is proved, and it says so. Exits with 0, or
    /// with 1 when a record is bad.
    Verify(AuditVerify),
}

/// The arguments of `audit verify`.
#[derive(Args, Debug)]
pub struct AuditVerify {
    /// The gateway's configuration file; the key is taken from its `token.keys_dir`
    #[arg(long, value_name = "FILE", conflicts_with = "public_key")]
    pub config: Option<PathBuf>,
    /// The public half of the checkpoint key (a JSON Web Key)
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
    /// A checkpoint line kept elsewhere; proves that nothing was cut off before it
    #[arg(long, value_name = "LINE")]
    pub checkpoint: Option<String>,
    /// The log's files, the oldest first
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, CommandFactory as _, Parser as _};

    use super::{Audit, AuditVerify, Check, Cli, Demo, Policy, PolicyCheck, Schema, Serve};

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
        for augment in [Serve::augment_args, Demo::augment_args, Policy::augment_args] {
            augment(Command::new("test")).debug_assert();
        }
        Audit::augment_args(Command::new("test")).debug_assert();
    }

    #[test]
    fn every_command_and_argument_has_help() {
        for (name, command) in [
            ("serve", Serve::augment_args(Command::new("serve"))),
            ("check", Check::augment_args(Command::new("check"))),
            ("schema", Schema::augment_args(Command::new("schema"))),
            ("demo", Demo::augment_args(Command::new("demo"))),
            ("policy check", PolicyCheck::augment_args(Command::new("check"))),
            ("audit verify", AuditVerify::augment_args(Command::new("verify"))),
        ] {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
            }
        }
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn check_needs_a_file() {
        assert!(Cli::try_parse_from(["bindgate", "check"]).is_err());
        assert!(Cli::try_parse_from(["bindgate", "check", "--config", "a.toml"]).is_ok());
        assert!(Cli::try_parse_from(["bindgate", "schema"]).is_ok());
    }
}
