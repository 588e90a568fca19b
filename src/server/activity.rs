//! What one connection is doing, seen at the socket, so that its one timer can
//! be checked lazily: a request costs two looks at the clock and no timer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::worker::Open;
use crate::config::Limits;

/// Until the handshake is done, which has a deadline of its own.
const HANDSHAKE: u8 = 0;
/// Nothing was asked yet.
const FRESH: u8 = 1;
/// Between two requests.
const IDLE: u8 = 2;
/// Between the first and the last byte of a head (HTTP/1 only).
const HEAD: u8 = 3;
/// At least one request is under way.
const BUSY: u8 = 4;

/// How long a connection may take to end once it was told to and has nothing left to do.
const CLOSING_GRACE: Duration = Duration::from_secs(5);

/// Times in milliseconds since the connection was accepted.
///
/// Atomics only because hyper demands `Send` of a socket that can be upgraded:
/// one thread uses them, so every access is relaxed.
#[derive(Debug)]
pub(crate) struct Activity {
    origin: Instant,
    multiplexed: AtomicBool,
    phase: AtomicU8,
    since: AtomicU64,
    /// Since when the peer takes no byte, plus one; 0: it takes them.
    blocked: AtomicU64,
    requests: AtomicU32,
}

/// What a passed deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// End in good order: nothing of a request would be lost.
    Close,
    /// End at once.
    Abort,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            multiplexed: AtomicBool::new(false),
            phase: AtomicU8::new(HANDSHAKE),
            since: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            requests: AtomicU32::new(0),
        }
    }

    /// Milliseconds since the connection was accepted.
    pub(crate) fn now(&self) -> u64 {
        millis(self.origin.elapsed())
    }

    /// The moment `millis` after accept.
    pub(crate) fn at(&self, millis: u64) -> Instant {
        self.origin + Duration::from_millis(millis)
    }

    /// The handshake is done; with `multiplexed` bytes alone don't begin a head.
    pub(crate) fn ready(&self, multiplexed: bool) {
        self.multiplexed.store(multiplexed, Ordering::Relaxed);
        self.enter(FRESH);
    }

    /// Whether several requests share the connection (HTTP/2).
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// A request's head is complete.
    pub(crate) fn begin_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// An answer was handed over whole, or given up.
    pub(crate) fn end_request(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.enter(IDLE);
        }
    }

    /// Whether an answer is due or under way.
    pub(crate) fn is_answering(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether nobody would miss the connection.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase.load(Ordering::Relaxed), FRESH | IDLE)
    }

    /// The nearest deadline, and what passing it asks for. `closing`: since when the
    /// connection has been told to end.
    pub(crate) fn deadline(&self, limits: &Limits, closing: Option<u64>) -> Option<(u64, Verdict)> {
        let since = self.since.load(Ordering::Relaxed);
        let phase = match (self.phase.load(Ordering::Relaxed), closing) {
            (HEAD, _) => Some((since + millis(limits.header_timeout), Verdict::Abort)),
            (FRESH | IDLE, Some(told)) => {
                Some((told.max(since) + millis(CLOSING_GRACE), Verdict::Abort))
            }
            (FRESH, None) => Some((since + millis(limits.header_timeout), Verdict::Close)),
            (IDLE, None) => Some((since + millis(limits.idle_timeout), Verdict::Close)),
            _ => None,
        };
        let blocked = match self.blocked.load(Ordering::Relaxed) {
            0 => None,
            since => Some((since - 1 + millis(limits.body_idle_timeout), Verdict::Abort)),
        };
        match (phase, blocked) {
            (Some(phase), Some(blocked)) if blocked.0 < phase.0 => Some(blocked),
            (None, blocked) => blocked,
            (phase, _) => phase,
        }
    }

    fn enter(&self, phase: u8) {
        self.since.store(self.now(), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn bytes_came(&self) {
        if self.is_idle() && !self.is_multiplexed() {
            self.enter(HEAD);
        }
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => {
                if self.blocked.load(Ordering::Relaxed) == 0 {
                    self.blocked.store(self.now() + 1, Ordering::Relaxed);
                }
            }
            Poll::Ready(_) => self.blocked.store(0, Ordering::Relaxed),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

/// A socket that reports to its [`Activity`] and holds the connection's place,
/// also after an upgrade took it away from hyper.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    socket: S,
    activity: std::sync::Arc<Activity>,
    _open: Open,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S, activity: std::sync::Arc<Activity>, open: Open) -> Self {
        Self { socket, activity, _open: open }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.activity.bytes_came();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.activity.wrote(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.activity.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use super::{Activity, CLOSING_GRACE, Verdict, millis};
    use crate::config::Limits;

    fn after(activity: &Activity, closing: Option<u64>) -> Option<(u64, Verdict)> {
        activity.deadline(&Limits::default(), closing).map(|(at, what)| (at - activity.now(), what))
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_deadline() {
        let activity = Activity::new();
        assert_eq!(after(&activity, None), None, "the handshake has its own");
        activity.ready(false);
        assert_eq!(after(&activity, None), Some((10_000, Verdict::Close)));
        tokio::time::advance(Duration::from_secs(3)).await;
        activity.bytes_came();
        activity.bytes_came();
        assert_eq!(after(&activity, None), Some((10_000, Verdict::Abort)));
        tokio::time::advance(Duration::from_secs(3)).await;
        activity.bytes_came();
        assert_eq!(after(&activity, None), Some((7_000, Verdict::Abort)), "from the first byte");
        activity.begin_request();
        activity.begin_request();
        activity.end_request();
        assert_eq!(after(&activity, None), None, "a request under way has none");
        activity.end_request();
        assert_eq!(after(&activity, None), Some((75_000, Verdict::Close)));
        let told = Some(activity.now());
        assert_eq!(after(&activity, told), Some((millis(CLOSING_GRACE), Verdict::Abort)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_no_byte_has_a_deadline_even_within_an_answer() {
        let activity = Activity::new();
        activity.ready(true);
        activity.begin_request();
        activity.wrote(&Poll::Pending);
        tokio::time::advance(Duration::from_secs(10)).await;
        activity.wrote(&Poll::Pending);
        assert_eq!(after(&activity, None), Some((20_000, Verdict::Abort)));
        activity.wrote(&Poll::Ready(Ok(1)));
        assert_eq!(after(&activity, None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_alone_do_not_keep_an_http2_connection() {
        let activity = Activity::new();
        activity.ready(true);
        activity.begin_request();
        activity.end_request();
        tokio::time::advance(Duration::from_secs(70)).await;
        activity.bytes_came();
        assert_eq!(after(&activity, None), Some((5_000, Verdict::Close)));
    }
}
