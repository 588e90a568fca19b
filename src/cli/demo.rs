//! `bindgate demo`: the whole thing on loopback, with nothing to install.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use crate::ambient::{Clock, Entropy};
use crate::cli::{self, serve};
use crate::demo::{Demo, DemoError};

/// The demonstration could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread or no event queue for directory and sample upstream.
    #[error("no runtime for the demo directory could be started")]
    Runtime(#[source] io::Error),
    /// Directory, sample upstream or temporary folder failed.
    #[error(transparent)]
    Demo(#[from] DemoError),
}

/// Runs the demonstration until Ctrl-C.
pub(super) fn run(args: &cli::Demo) -> ExitCode {
    let served = set_up(args, &Entropy::system(), &Clock::system(), |file, announce| {
        serve::run_file(file, &|app| announce(app.https(), app.telemetry()))
    });
    served.unwrap_or_else(|error| serve::fail(&error))
}

/// Sets the demonstration up and hands its configuration file to `serve`, which
/// runs the gateway to its end. `serve` calls its second argument with the bound
/// addresses of https and telemetry once connections are accepted; it prints the
/// ready line, then what to try. Everything is removed when `serve` returns.
///
/// # Errors
/// When directory, sample upstream or temporary folder cannot be made.
pub fn set_up<T>(
    arguments: &cli::Demo,
    entropy: &Entropy,
    clock: &Clock,
    serve: impl FnOnce(&Path, &dyn Fn(SocketAddr, SocketAddr)) -> T,
) -> Result<T, StartError> {
    // Apart from the gateway's runtimes, as the real ones are apart from it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("demo")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let demo = runtime.block_on(Demo::start(arguments.listen, entropy, clock))?;
    let announce = |https, telemetry| {
        let ready = format!("bindgate ready https={https} telemetry={telemetry}");
        let mut stdout = io::stdout().lock();
        // Nobody reads a closed pipe; the gateway goes on.
        let _ = writeln!(stdout, "{ready}\n{}", demo.instructions(https));
        let _ = stdout.flush();
    };
    Ok(serve(demo.configuration(), &announce))
}

#[cfg(test)]
mod tests {
    use super::set_up;
    use crate::ambient::{Clock, Entropy};
    use crate::cli;

    #[test]
    fn the_parts_run_while_the_gateway_does_and_no_longer() {
        let arguments = cli::Demo { listen: "127.0.0.1:0".parse().unwrap() };
        let served = set_up(&arguments, &Entropy::system(), &Clock::system(), |file, _announce| {
            let text = std::fs::read_to_string(file).unwrap();
            let (_, rest) = text.split_once("urls = [\"ldaps://").unwrap();
            let address: std::net::SocketAddr = rest.split('"').next().unwrap().parse().unwrap();
            std::net::TcpStream::connect(address).unwrap();
            file.to_owned()
        });
        assert!(!served.unwrap().exists());
    }
}
