//! A line typed at the terminal that does not show. Knows not what it is.

use std::io::{self, BufRead as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::secret::Secret;

/// Asks for a line of at most so many bytes; what is typed is not shown.
///
/// # Errors
/// When it cannot be read, or whoever was asked interrupts.
pub(super) fn ask(prompt: &str, bytes_max: u64) -> io::Result<Secret<String>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let line = runtime.block_on(async {
        // Before the echo is off: else the interrupted shell would be left without it.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let hidden = Hidden::begin()?;
        let mut err = io::stderr();
        write!(err, "{prompt}")?;
        err.flush()?;
        let line = tokio::select! {
            line = spawn_blocking(move || read_line(bytes_max)) => line.map_err(io::Error::other)?,
            _ = interrupt.recv() => Err(io::ErrorKind::Interrupted.into()),
        };
        drop(hidden);
        writeln!(err)?;
        line
    });
    // The reading thread of one that was interrupted ends with the process.
    runtime.shutdown_background();
    line
}

fn read_line(bytes_max: u64) -> io::Result<Secret<String>> {
    // Room for all of it: a buffer that grows leaves copies behind.
    let mut line = String::with_capacity(usize::try_from(bytes_max).unwrap_or(0));
    let read = io::stdin().lock().take(bytes_max).read_line(&mut line);
    let line = Secret::new(line);
    read.map(|_| line)
}

/// The terminal without echo, until it is dropped.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs none back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
