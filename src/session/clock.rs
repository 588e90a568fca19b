//! How far the store's clock and ours are apart. What is decided here goes by our own
//! clock, with the leeway that tokens have; when that is not enough, it is said.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::metrics::Metrics;
use crate::token::LEEWAY;

/// Whether the two were too far apart when they were compared last.
#[derive(Default)]
pub(super) struct ClockWatch(AtomicBool);

impl ClockWatch {
    /// Whether they were too far apart when they were compared last.
    pub(super) fn are_apart(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes note of how far the store's clock is ahead of ours, in milliseconds. The
    /// log says it once, until it is over.
    pub(super) fn note(&self, ahead: i64, metrics: &Metrics) {
        metrics.clock_offset().set(ahead.saturating_add(500).div_euclid(1000));
        let is_apart = Duration::from_millis(ahead.unsigned_abs()) > LEEWAY;
        let was_apart = self.0.swap(is_apart, Ordering::Relaxed);
        match (was_apart, is_apart) {
            (false, true) => tracing::warn!(
                store.ahead_ms = ahead,
                leeway_s = LEEWAY.as_secs(),
                "this machine's clock and the store's are further apart than tokens allow for: \
                 tokens of other gateways may be refused or live on for too long"
            ),
            (true, false) => tracing::info!(
                store.ahead_ms = ahead,
                "this machine's clock and the store's agree again"
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::dispatcher::with_default;

    use super::ClockWatch;
    use crate::ambient::Clock;
    use crate::config::{LogFormat, LogLevel};
    use crate::logging::Logging;
    use crate::metrics::Metrics;

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

    #[test]
    fn a_clock_that_is_off_is_said_once_in_the_log_and_always_in_the_metric() {
        let (watch, metrics, memory) =
            (ClockWatch::default(), Metrics::new().unwrap(), Memory::default());
        let (logging, dispatch) =
            Logging::start(LogFormat::Json, LogLevel::Info, &Clock::system(), memory.clone())
                .unwrap();
        let lines = |ahead| {
            with_default(&dispatch, || watch.note(ahead, &metrics));
            logging.flush();
            let text = std::mem::take(&mut *memory.0.lock().unwrap());
            String::from_utf8(text).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        for ahead in [0, 400, -5000, 5000] {
            assert!(lines(ahead).is_empty(), "{ahead} ms are within the leeway");
        }
        assert_eq!(metrics.clock_offset().get(), 5);
        let said = lines(-120_000);
        assert!(said.len() == 1 && said[0].contains("WARN") && said[0].contains("-120000"));
        assert_eq!(metrics.clock_offset().get(), -120);
        assert!(lines(-119_000).is_empty(), "once");
        let said = lines(10);
        assert!(said.len() == 1 && said[0].contains("INFO"), "{said:?}");
        assert_eq!(metrics.clock_offset().get(), 0);
        assert_eq!(lines(5001).len(), 1, "and again");
    }
}
