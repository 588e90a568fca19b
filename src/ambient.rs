//! Wall time and randomness, passed in and never taken from the surroundings,
//! so that tests govern both. Durations are measured with `tokio::time` only.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, RngExt, SeedableRng, TryRng};

/// A moment of wall time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since 1970, as JWT claims hold them (RFC 7519 `NumericDate`).
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The moment `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds, as in the audit log.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let millis = u64::try_from(self.0).unwrap_or(0);
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
    }
}

/// Where wall time comes from.
#[derive(Clone, Debug)]
pub struct Clock(ClockKind);

#[derive(Clone, Debug)]
enum ClockKind {
    System,
    Manual(Arc<AtomicI64>),
}

/// The hand that moves a manual clock; it only goes forward.
#[derive(Clone, Debug)]
pub struct ManualTime(Arc<AtomicI64>);

impl Clock {
    /// The operating system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(ClockKind::System)
    }

    /// A clock that starts at the real time and moves only when told.
    #[must_use]
    pub fn manual() -> (Self, ManualTime) {
        Self::manual_at(Self::system().now())
    }

    /// A clock that starts at a moment and moves only when told.
    #[must_use]
    pub fn manual_at(start: Timestamp) -> (Self, ManualTime) {
        let millis = Arc::new(AtomicI64::new(start.millis()));
        (Self(ClockKind::Manual(Arc::clone(&millis))), ManualTime(millis))
    }

    /// Whether it moves only when told.
    #[must_use]
    pub const fn is_manual(&self) -> bool {
        matches!(self.0, ClockKind::Manual(_))
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockKind::System => system_now(),
            ClockKind::Manual(millis) => Timestamp(millis.load(Ordering::SeqCst)),
        }
    }
}

impl ManualTime {
    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
fn system_now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

/// Where random bytes come from.
#[derive(Clone, Debug)]
pub struct Entropy(EntropyKind);

#[derive(Clone, Debug)]
enum EntropyKind {
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct EntropyFailed;

impl Entropy {
    /// The operating system's generator.
    #[must_use]
    pub const fn system() -> Self {
        Self(EntropyKind::System)
    }

    /// A reproducible generator, for tests and simulations only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(EntropyKind::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// When the operating system gives none.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], EntropyFailed> {
        let mut bytes = [0; N];
        match &self.0 {
            EntropyKind::System => {
                SysRng.try_fill_bytes(&mut bytes).map_err(|_| EntropyFailed)?;
            }
            EntropyKind::Seeded(generator) => {
                generator.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
            }
        }
        Ok(bytes)
    }

    /// A number drawn uniformly from `0..bound`; 0 when `bound` is 0.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn below(&self, bound: u64) -> Result<u64, EntropyFailed> {
        if bound == 0 {
            return Ok(0);
        }
        match &self.0 {
            // A fresh ChaCha generator from the system's seed: its range sampling rejects, so the draw is uniform.
            EntropyKind::System => Ok(StdRng::from_seed(self.bytes()?).random_range(0..bound)),
            EntropyKind::Seeded(generator) => {
                Ok(generator.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..bound))
            }
        }
    }
}

/// The next whole step of a time that went by: at least one, and never that time itself.
#[must_use]
pub fn next_step(step: Duration, elapsed: Duration) -> Duration {
    let past = elapsed.as_nanos().checked_div(step.as_nanos()).unwrap_or(0);
    step.saturating_mul(u32::try_from(past).unwrap_or(u32::MAX).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, Entropy, Timestamp};

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let (clock, time) = Clock::manual();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        time.advance(Duration::from_secs(61));
        assert_eq!(clock.now().since(before), Duration::from_secs(61));
        assert_eq!(before.since(clock.now()), Duration::ZERO);
    }

    #[test]
    fn a_seed_reproduces_its_bytes_and_numbers() {
        let (one, two) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!(one.bytes::<16>().unwrap(), two.bytes::<16>().unwrap());
        assert_eq!(one.below(1000).unwrap(), two.below(1000).unwrap());
        assert_ne!(
            Entropy::system().bytes::<16>().unwrap(),
            Entropy::system().bytes::<16>().unwrap()
        );
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(Timestamp::from_millis(1_500).rfc3339(), "1970-01-01T00:00:01.500Z");
        assert_eq!(Timestamp::from_millis(-1).seconds(), -1);
    }
}
