//! `bindgate serve`: runs the gateway until it is told to stop.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ambient::Clock;
use crate::app::{Ambient, App};
use crate::cli::Serve;
use crate::config::{Config, Loaded};
use crate::logging::Logging;

/// Runs the gateway of a configuration file.
pub(super) fn run(args: &Serve) -> ExitCode {
    run_file(&args.config, &|app| {
        let (https, telemetry) = (app.https(), app.telemetry());
        let jwks = app.jwks().map(|address| format!(" jwks={address}")).unwrap_or_default();
        let mut out = io::stdout().lock();
        // Nobody reads a closed pipe; the gateway goes on.
        let _ = writeln!(out, "bindgate ready https={https} telemetry={telemetry}{jwks}");
        let _ = out.flush();
    })
}

/// Loads, starts, announces, and follows signals to the end.
pub(super) fn run_file(file: &Path, announce: &dyn Fn(&App)) -> ExitCode {
    let Loaded { config, notes } = match Config::load(file) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems),
    };
    let telemetry = &config.telemetry;
    let (format, level) = (telemetry.log_format, telemetry.log_level);
    let logging = match Logging::start(format, level, &Clock::system(), io::stderr()) {
        Ok((logging, dispatch)) => {
            if tracing::dispatcher::set_global_default(dispatch).is_err() {
                return fail(&"logging was already set up");
            }
            logging
        }
        Err(error) => return fail(&format_args!("logging: {error}")),
    };
    for note in &notes {
        tracing::warn!("{note}");
    }
    let code = match App::start(config, &Ambient::system()) {
        Ok(app) => follow_signals(app, file, (&logging, announce)),
        Err(error) => fail(&error),
    };
    logging.flush();
    code
}

/// SIGHUP reloads; SIGTERM and SIGINT drain. Announces the gateway once it listens to
/// them: before, a signal would kill it.
fn follow_signals(
    app: App,
    file: &Path,
    (logging, announce): (&Logging, &dyn Fn(&App)),
) -> ExitCode {
    let control = app.control().clone();
    let entered = control.enter();
    let signals = (|| {
        Ok::<_, io::Error>((
            signal(SignalKind::hangup())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ))
    })();
    drop(entered);
    let (mut hangup, mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(&format_args!("signals: {error}")),
    };
    announce(&app);
    while control.block_on(is_hangup(&mut hangup, &mut terminate, &mut interrupt)) {
        reload(&app, file, logging);
    }
    tracing::info!("draining");
    app.drain();
    ExitCode::SUCCESS
}

async fn is_hangup(hangup: &mut Signal, terminate: &mut Signal, interrupt: &mut Signal) -> bool {
    tokio::select! {
        _ = hangup.recv() => true,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    }
}

/// Applies the file as it is now; a bad one changes nothing.
fn reload(app: &App, file: &Path, logging: &Logging) {
    let Loaded { config, notes } = match Config::load(file) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for problem in problems.iter() {
                tracing::error!("{problem}");
            }
            tracing::error!("the configuration was not reloaded; the old one stays");
            app.refuse_reload();
            return;
        }
    };
    let (format, level) = (config.telemetry.log_format, config.telemetry.log_level);
    match app.reload(config) {
        Ok(()) => {
            logging.apply(format, level);
            for note in &notes {
                tracing::warn!("{note}");
            }
            tracing::info!("the configuration was reloaded");
        }
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded; the old one stays");
        }
    }
}

/// Prints why, and fails.
pub(super) fn fail(why: &dyn std::fmt::Display) -> ExitCode {
    let mut err = io::stderr().lock();
    // Whoever closed our output does not want to hear of it.
    let _ = writeln!(err, "{why}");
    ExitCode::FAILURE
}
