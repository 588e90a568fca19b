//! `bindgate doctor`: walks the way of a login and of a request step by step and
//! says of each what was tried, how long it took, and what to do. Changes nothing.

mod lockout;
mod store;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::Instant;

use crate::admin::control::{Answer, Command};
use crate::ambient::{Clock, Entropy};
use crate::cli::Doctor;
use crate::cli::control::{ControlError, ask_at, printable};
use crate::cli::serve::fail;
use crate::config::{Config, Loaded};
use crate::directory::{self, Finding, Step};
use crate::identity::Role;
use crate::metrics::Metrics;
use crate::policy::explain;
use crate::upstream;

/// Exits with 0 when every step came to a good end, else with 1.
pub(super) fn run(args: &Doctor) -> ExitCode {
    let Loaded { config, notes } = match Config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems),
    };
    let prepared = Metrics::new()
        .map_err(io::Error::other)
        .and_then(|metrics| Ok((metrics, Builder::new_current_thread().enable_all().build()?)));
    let (metrics, runtime) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error),
    };
    let mut ward = Ward { failed: 0, suspected: 0 };
    ward.tell(&Step {
        place: args.config.display().to_string(),
        tried: "check",
        took: Duration::ZERO,
        finding: match notes.len() {
            0 => Finding::Fine("good".to_owned()),
            count => Finding::Fine(format!("good, with {count} notes: bindgate check shows them")),
        },
    });
    runtime.block_on(ward.examine(&config, args, &metrics));
    ward.conclude()
}

/// What came of the steps so far.
struct Ward {
    failed: usize,
    suspected: usize,
}

impl Ward {
    async fn examine(&mut self, config: &Config, args: &Doctor, metrics: &Metrics) {
        let now = Clock::system().now();
        let role = if let Some(directory) = &config.directory {
            let user = args.user.as_deref();
            let mut tell = |step| self.tell(&step);
            let ambient = (metrics, &Entropy::system(), now);
            let judge = |read, policy: Option<&str>| lockout::judge(&config.throttle, read, policy);
            let role = directory::examine(directory, user, ambient, &judge, &mut tell).await;
            if let Some(break_glass) = &directory.break_glass {
                let place = break_glass.users.path.display().to_string();
                let text = format!("{} emergency accounts", break_glass.users.users.len());
                self.at_once(&place, "read", Finding::Fine(text));
            }
            role
        } else {
            let text = "left out: nobody can log in".to_owned();
            self.at_once("directory", "read", Finding::Suspect(text));
            None
        };
        if let Some(request) = &args.request {
            self.policy(config, request, (args.user.is_some(), role.as_ref()));
        }
        self.gateway(config);
        store::examine(&config.store, metrics, &mut |step| self.tell(&step)).await;
        for upstream in &config.upstreams {
            for server in &upstream.servers {
                let began = Instant::now();
                let finding = match upstream::reach(server, upstream.connect_timeout).await {
                    Ok(peer) => Finding::Fine(peer.to_string()),
                    Err(error) => Finding::Failed(format!(
                        "{error}: is the service running where upstream.urls says?"
                    )),
                };
                let place = format!("{} {}:{}", upstream.name, server.host, server.port);
                self.tell(&Step { place, tried: "connect", took: began.elapsed(), finding });
            }
        }
    }

    /// What the routes say of the request, for the person's role or for every role.
    fn policy(&mut self, config: &Config, request: &str, (named, role): (bool, Option<&Role>)) {
        let Some((method, path)) = request.split_once(' ') else {
            let text = "a request is written 'GET /path'".to_owned();
            return self.at_once("--request", "read", Finding::Failed(text));
        };
        let roles: Vec<&Role> = match (named, role) {
            (true, Some(role)) => vec![role],
            (true, None) => {
                let text = "not asked, as the person's role is not known".to_owned();
                return self.at_once("policy", "route", Finding::Suspect(text));
            }
            (false, _) => {
                let configured = config.directory.iter().flat_map(|directory| &directory.roles);
                configured.map(|role| &role.name).collect()
            }
        };
        for role in roles {
            let explanation = explain(config, None, role, method, path);
            let text = explanation.to_string();
            // Asked for one person, a denial is what was looked for; for all, it is the rule.
            let finding = if explanation.is_allowed() || !named {
                Finding::Fine(text)
            } else {
                Finding::Failed(text)
            };
            self.at_once(&format!("role {}", role.as_str()), "route", finding);
        }
    }

    /// Whether the gateway runs, and what it says of itself.
    fn gateway(&mut self, config: &Config) {
        let began = Instant::now();
        let socket = config.telemetry.control_socket.as_deref();
        let asked = socket.map(|socket| (socket, readiness(socket)));
        let (place, finding) = match asked {
            None => (
                "gateway",
                Finding::Suspect("not asked: telemetry.control_socket is not set".to_owned()),
            ),
            Some((_, Ok(reasons))) if reasons.is_empty() => {
                ("gateway", Finding::Fine("runs and is ready".to_owned()))
            }
            Some((_, Ok(reasons))) => (
                "gateway",
                Finding::Failed(format!("runs, but is not ready: {}", reasons.join("; "))),
            ),
            Some((_, Err(ControlError::Unreachable { .. }))) => {
                ("gateway", Finding::Fine("is not running".to_owned()))
            }
            Some((_, Err(error))) => ("gateway", Finding::Failed(error.to_string())),
        };
        self.tell(&Step { place: place.to_owned(), tried: "ask", took: began.elapsed(), finding });
    }

    fn at_once(&mut self, place: &str, tried: &'static str, finding: Finding) {
        self.tell(&Step { place: place.to_owned(), tried, took: Duration::ZERO, finding });
    }

    fn tell(&mut self, step: &Step) {
        let (word, text) = match &step.finding {
            Finding::Fine(text) => ("ok", text),
            Finding::Suspect(text) => {
                self.suspected += 1;
                ("suspect", text)
            }
            Finding::Failed(text) => {
                self.failed += 1;
                ("FAILED", text)
            }
        };
        let took = format!("{:.1} ms", step.took.as_secs_f64() * 1e3);
        let (place, text) = (printable(&step.place), printable(text));
        // Whoever closed our output does not want to hear of it.
        let _ = writeln!(
            io::stdout().lock(),
            "{word:<8} {place:<28} {tried:<16} {took:>10}  {text}",
            tried = step.tried
        );
    }

    fn conclude(&self) -> ExitCode {
        let Self { failed, suspected } = self;
        let printed = writeln!(io::stdout().lock(), "{failed} failed, {suspected} suspect");
        if printed.is_ok() && *failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Why the running gateway is not ready; nothing when it is.
fn readiness(socket: &Path) -> Result<Vec<String>, ControlError> {
    let mut reasons = Vec::new();
    ask_at(socket, &Command::Readiness {}, |line| {
        if let Answer::Reason(reason) = line {
            reasons.push(reason);
        }
    })?;
    Ok(reasons)
}
