//! The command line: one file a command, arguments in, exit code out. Here are
//! the names and the help; what a command does is in its file.

pub mod audit;
mod check;
mod control;
pub mod demo;
mod doctor;
mod keys;
pub mod policy;
mod schema;
mod serve;
mod sessions;
mod terminal;
mod users;

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
    Doctor(Doctor),
    Sessions(Sessions),
    Keys(Keys),
    Policy(Policy),
    Audit(Audit),
    Users(Users),
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
            Command::Doctor(args) => doctor::run(args),
            Command::Sessions(args) => sessions::run(args),
            Command::Keys(args) => keys::run(args),
            Command::Policy(args) => policy::run(args),
            Command::Audit(Audit { command: AuditCommand::Verify(args) }) => audit::run(args),
            Command::Users(args) => users::run(args),
            Command::Schema(_) => schema::run(),
        }
    }
}

/// Run the gateway
///
/// Prints one line, "bindgate ready https=ADDR [http=ADDR] telemetry=ADDR [jwks=ADDR]", once it accepts
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

/// Walk the way of a login and of a request, and say where it breaks off
///
/// One line a step: what was tried, how long it took, and ok or what to do: each
/// directory server from its name to the service account, the search base, filter,
/// attributes and groups, a person's entry and role, the routes, the running gateway
/// (through `telemetry.control_socket`), the store and the upstreams. Asks for no
/// password and changes nothing. Exits with 0, or with 1 when a step failed.
#[derive(Args, Debug)]
pub struct Doctor {
    /// The configuration file (TOML); `BINDGATE_SECTION__KEY` in the environment overrides it
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Somebody's login name: find the entry, the groups and the role
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// A request, such as 'GET /orders/7': what the routes say of it
    #[arg(long, value_name = "'METHOD PATH'")]
    pub request: Option<String>,
}

/// See who is logged in, and end sessions
///
/// Asks the running gateway through `telemetry.control_socket`; as the gateway's own
/// user, or as root.
#[derive(Args, Debug)]
pub struct Sessions {
    /// What to do.
    #[command(subcommand)]
    pub command: SessionsCommand,
}

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List live sessions
    ///
    /// Says of each its id, whose it is and in which role, when it began and was last
    /// seen, and the address and user agent of its login; then how many there are.
    /// Exits with 0, also when a user has none; with 1 when a session is not known.
    List(Selection),
    /// End sessions at once
    ///
    /// Their tokens are dead and their streams closed within a second; says how many
    /// ended. Exits with 0, also when a user has none; with 1 when a session is not
    /// known, or when it was not done wholly.
    Revoke(Revocation),
}

/// Which sessions.
#[derive(Args, Debug)]
pub struct Selection {
    /// The gateway's configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Those of one user: the token's `sub`, or the directory's name of the account
    #[arg(long, value_name = "NAME", group = "which")]
    pub user: Option<String>,
    /// The one of this id
    #[arg(long, value_name = "ID", group = "which", allow_hyphen_values = true)]
    pub session: Option<String>,
    /// Every one
    #[arg(long, group = "which")]
    pub all: bool,
}

/// Which sessions to end; one of the three must be said.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub struct Revocation {
    /// Which.
    #[command(flatten)]
    pub selection: Selection,
}

/// Look after the keys that sign
///
/// Asks the running gateway through `telemetry.control_socket`; as the gateway's own
/// user, or as root.
#[derive(Args, Debug)]
pub struct Keys {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List keys: which one signs, and which still verify
    List(WhichKeys),
    /// Let a new key sign
    ///
    /// The one before it goes on verifying until no session holds a token of it that
    /// could still be used. Exits with 0, or with 1 when it was not done wholly.
    Rotate(KeysRotate),
}

/// The keys of a purpose.
#[derive(Args, Debug)]
pub struct WhichKeys {
    /// The gateway's configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// What the keys are for
    #[arg(long, value_enum, default_value = "session")]
    pub purpose: Purpose,
}

/// The arguments of `keys rotate`.
#[derive(Args, Debug)]
pub struct KeysRotate {
    /// Which.
    #[command(flatten)]
    pub which: WhichKeys,
    /// Drop the old keys at once: every token is dead, and every session ends
    #[arg(long)]
    pub now: bool,
}

/// What keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// Session tokens
    Session,
    /// Assertions for upstreams
    Assertion,
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

/// Look after users files
///
/// Those of `directory.users_file` and `directory.break_glass.users_file`: for places
/// without a directory, and for the time while it is down.
#[derive(Args, Debug)]
pub struct Users {
    /// What to do.
    #[command(subcommand)]
    pub command: UsersCommand,
}

/// What to do about users files.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Hash a password for `password_hash`
    ///
    /// Asks for the password twice at the terminal, where it does not show; or reads it
    /// as one line from anything else on standard input. It is never an argument, as
    /// others could see those. Prints an Argon2id hash (19 MiB, two passes) in PHC form.
    /// Exits with 0, or with 1 when the passwords differ or nobody could log in with it.
    Hash(UsersHash),
}

/// The arguments of `users hash`: none.
#[derive(Args, Debug)]
pub struct UsersHash {}

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

    use super::{
        Audit, AuditVerify, Check, Cli, Demo, Doctor, KeysRotate, Policy, PolicyCheck, Revocation,
        Schema, Selection, Serve,
    };

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
            ("doctor", Doctor::augment_args(Command::new("doctor"))),
            ("policy check", PolicyCheck::augment_args(Command::new("check"))),
            ("audit verify", AuditVerify::augment_args(Command::new("verify"))),
            ("sessions list", Selection::augment_args(Command::new("list"))),
            ("sessions revoke", Revocation::augment_args(Command::new("revoke"))),
            ("keys rotate", KeysRotate::augment_args(Command::new("rotate"))),
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
    fn sessions_are_ended_only_when_it_is_said_which() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let revoke = "bindgate sessions revoke --config a.toml";
        for which in ["--all", "--user zoë", "--session -_x"] {
            assert!(parse(&format!("{revoke} {which}")).is_ok(), "{which}");
        }
        for which in ["", " --all --user zoë", " --user a --session b"] {
            assert!(parse(&format!("{revoke}{which}")).is_err(), "{which}");
        }
        assert!(parse("bindgate sessions list --config a.toml").is_ok());
        assert!(parse("bindgate sessions list --config a.toml --user a --all").is_err());
        assert!(parse("bindgate keys rotate --config a.toml --purpose session --now").is_ok());
        assert!(parse("bindgate keys list --config a.toml --purpose audit").is_err());
    }

    #[test]
    fn check_needs_a_file() {
        assert!(Cli::try_parse_from(["bindgate", "check"]).is_err());
        assert!(Cli::try_parse_from(["bindgate", "check", "--config", "a.toml"]).is_ok());
        assert!(Cli::try_parse_from(["bindgate", "schema"]).is_ok());
    }

    #[test]
    fn a_password_is_never_an_argument() {
        assert!(Cli::try_parse_from(["bindgate", "users", "hash"]).is_ok());
        for more in [&["hunter2"][..], &["--password", "hunter2"], &["--password=hunter2"]] {
            let all = ["bindgate", "users", "hash"].iter().chain(more);
            assert!(Cli::try_parse_from(all).is_err(), "{more:?}");
        }
    }
}
