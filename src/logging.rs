//! Logs as lines of JSON or text, written by a thread of their own so that a
//! stuck pipe stalls nobody. Knows nothing of what is logged.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::{Registry, fmt};

use crate::ambient::Clock;
use crate::config::{LogFormat, LogLevel};

/// Lines that wait to be written; more are dropped and counted.
const LINES_MAX: usize = 8192;
/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Libraries are never heard below this level: some log passwords, cookies and
/// tokens at theirs.
const LIBRARIES: LevelFilter = LevelFilter::WARN;

/// The hand on the log: level and format, until the process ends.
#[derive(Clone)]
pub struct Logging {
    settings: Arc<Settings>,
    lines: Lines,
}

struct Settings {
    format: AtomicU8,
    level: AtomicU8,
}

impl Logging {
    /// A log that writes to `sink`, usually stderr, and the dispatcher that main
    /// installs as the default of the process.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        format: LogFormat,
        level: LogLevel,
        clock: &Clock,
        sink: impl Write + Send + 'static,
    ) -> io::Result<(Self, Dispatch)> {
        let (format, level) = (AtomicU8::new(number(format)), AtomicU8::new(rank(level)));
        let settings = Arc::new(Settings { format, level });
        let (sender, receiver) = sync_channel(LINES_MAX);
        let lines = Lines { sender, dropped: Arc::new(AtomicU64::new(0)) };
        let dropped = Arc::clone(&lines.dropped);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&receiver, sink, &dropped))?;
        let filter = |format| Chosen { settings: Arc::clone(&settings), format: number(format) };
        let timer = || WallTime(clock.clone());
        let json = fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_timer(timer())
            .with_writer(lines.clone());
        let text = fmt::layer().with_ansi(false).with_timer(timer()).with_writer(lines.clone());
        // Both stand there always, each heard when its format is the chosen one.
        let subscriber = Registry::default()
            .with(json.with_filter(filter(LogFormat::Json)))
            .with(text.with_filter(filter(LogFormat::Text)));
        let dispatch = Dispatch::new(subscriber);
        Ok((Self { settings, lines }, dispatch))
    }

    /// Changes format and level, at a reload: once the dispatcher is the default,
    /// for only that one is asked again what it wants to hear.
    pub fn apply(&self, format: LogFormat, level: LogLevel) {
        self.settings.format.store(number(format), Ordering::Relaxed);
        self.settings.level.store(rank(level), Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Lines dropped so far because nobody read fast enough.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lines.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was logged so far is written, a second at most: for the
    /// end of the process.
    pub fn flush(&self) {
        let (done, finished) = sync_channel(1);
        if self.lines.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = finished.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

const fn number(format: LogFormat) -> u8 {
    match format {
        LogFormat::Json => 0,
        LogFormat::Text => 1,
    }
}

const fn rank(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
        LogLevel::Trace => 5,
    }
}

/// Lets one format's layer hear what the settings ask for. Atomics only: a lock
/// here would be shared by all workers.
struct Chosen {
    settings: Arc<Settings>,
    format: u8,
}

impl Chosen {
    fn level(&self) -> LevelFilter {
        if self.settings.format.load(Ordering::Relaxed) != self.format {
            return LevelFilter::OFF;
        }
        match self.settings.level.load(Ordering::Relaxed) {
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }

    fn hears(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.level();
        let target = metadata.target();
        let ours = target == "bindgate" || target.starts_with("bindgate::");
        *metadata.level() <= if ours { level } else { level.min(LIBRARIES) }
    }
}

impl<S: Subscriber> Filter<S> for Chosen {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.hears(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.hears(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level())
    }
}

struct WallTime(Clock);

impl FormatTime for WallTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str(&self.0.now().rfc3339())
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Takes whole lines and never waits.
#[derive(Clone)]
struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    // The formatter writes a whole line in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Line(line.to_owned())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn write_lines(messages: &Receiver<Message>, mut sink: impl Write, dropped: &AtomicU64) {
    let mut told = 0;
    for message in messages {
        // A log that cannot be written has nowhere to say so.
        match message {
            Message::Line(line) => {
                let _ = sink.write_all(&line);
            }
            Message::Flush(done) => {
                let _ = sink.flush();
                let _ = done.try_send(());
            }
        }
        let lost = dropped.load(Ordering::Relaxed);
        if lost > told {
            told = lost;
            tracing::warn!(lost, "log lines were dropped: nobody reads them fast enough");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::sync::{Arc, Mutex};

    use tracing::dispatcher::with_default;

    use super::{LINES_MAX, Logging};
    use crate::ambient::Clock;
    use crate::config::{LogFormat, LogLevel};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn lines(&self, logging: &Logging) -> Vec<String> {
            logging.flush();
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn a_json_line_carries_its_fields_and_the_request_id_of_its_span() {
        let memory = Memory::default();
        let (logging, dispatch) =
            Logging::start(LogFormat::Json, LogLevel::Info, &Clock::system(), memory.clone())
                .unwrap();
        with_default(&dispatch, || {
            tracing::info_span!("request", request_id = "r1").in_scope(|| {
                tracing::info!(user.name = "alice", duration_ms = 3, "logged\nin");
            });
        });
        let lines = memory.lines(&logging);
        assert_eq!(lines.len(), 1);
        let json: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(json["message"], "logged\nin");
        assert_eq!(json["user.name"], "alice");
        assert_eq!(json["span"]["request_id"], "r1");
        assert_eq!(json["level"], "INFO");
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn level_and_format_change_at_a_reload() {
        let memory = Memory::default();
        let (logging, dispatch) =
            Logging::start(LogFormat::Json, LogLevel::Warn, &Clock::system(), memory.clone())
                .unwrap();
        let log = || with_default(&dispatch, || tracing::debug!("detail"));
        log();
        assert!(memory.lines(&logging).is_empty());
        with_default(&dispatch, || logging.apply(LogFormat::Text, LogLevel::Debug));
        let span = with_default(&dispatch, || tracing::info_span!("request", request_id = "r1"));
        with_default(&dispatch, || span.in_scope(|| tracing::debug!("detail")));
        let lines = memory.lines(&logging);
        assert!(lines[0].contains("DEBUG request{request_id=\"r1\"}"), "{lines:?}");
        with_default(&dispatch, || logging.apply(LogFormat::Json, LogLevel::Debug));
        with_default(&dispatch, || span.in_scope(|| tracing::debug!("detail")));
        assert!(memory.lines(&logging)[0].starts_with('{'), "a span begun as text does no harm");
    }

    #[test]
    fn libraries_are_not_heard_below_warning() {
        let memory = Memory::default();
        let (logging, dispatch) =
            Logging::start(LogFormat::Json, LogLevel::Trace, &Clock::system(), memory.clone())
                .unwrap();
        with_default(&dispatch, || {
            tracing::debug!(target: "ldap3::conn", password = "hunter2", "bind");
            tracing::debug!(target: "bindgated", "not ours");
            tracing::warn!(target: "rustls", "odd");
            tracing::trace!(target: "bindgate::wire", "ours");
        });
        let lines = memory.lines(&logging);
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn text_from_outside_cannot_begin_a_line_of_its_own_or_paint_the_terminal() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let memory = Memory::default();
            let (logging, dispatch) =
                Logging::start(format, LogLevel::Info, &Clock::system(), memory.clone()).unwrap();
            with_default(&dispatch, || {
                tracing::info!(path = "/a\n\u{1b}[31mERROR forged", "request refused");
            });
            let lines = memory.lines(&logging);
            assert_eq!(lines.len(), 1, "{format:?} {lines:?}");
            assert!(!lines[0].contains('\u{1b}'));
        }
    }

    /// Takes a line only when it is let.
    struct Stuck(Receiver<()>, SyncSender<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.try_send(());
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_pipe_stalls_nobody_and_what_is_lost_is_counted() {
        let (release, stuck) = sync_channel::<()>(0);
        let (stopped, writing) = sync_channel(1);
        let (logging, dispatch) = Logging::start(
            LogFormat::Json,
            LogLevel::Info,
            &Clock::system(),
            Stuck(stuck, stopped),
        )
        .unwrap();
        with_default(&dispatch, || {
            tracing::info!("first");
            writing.recv().unwrap();
            for _ in 0..LINES_MAX + 100 {
                tracing::info!("more");
            }
        });
        assert_eq!(logging.dropped(), 100);
        drop(release);
    }
}
