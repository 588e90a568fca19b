//! One connection after its handshake: HTTP/1 or HTTP/2 as ALPN said, with the
//! deadlines of [`Activity`](super::activity::Activity) and a graceful end.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::Service;
use super::activity::{Verdict, Watched, millis};
use super::exchange::{LOOK_EVERY, Streams, answer};
use super::peer::Peer;
use super::tls::HTTP2;
use super::worker::{Registration, Stage};
use crate::config::Limits;
use crate::metrics::IntCounter;

/// What a client still sends after our last answer is read and thrown away for so long:
/// closing earlier would reset the connection and could take the answer with it.
const LINGER: Duration = Duration::from_secs(1);

/// How long a farewell (TLS `close_notify`) may take on a connection that is given up.
const FAREWELL: Duration = Duration::from_millis(100);

/// Bytes that hyper may hold of one HTTP/1 message before it waits for the other side.
const HTTP1_BUFFER: usize = 128 * 1024;

/// hyper's own limit of fields, which it keeps without an allocation a request.
const HTTP1_HEADERS: usize = 100;

/// Window of one HTTP/2 stream: what a client may send before we read.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Window of one HTTP/2 connection.
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// Bytes of an answer that may wait in one HTTP/2 stream.
const STREAM_SEND_BUFFER: usize = 128 * 1024;

/// Streams that a client may reset before we looked at them (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// Streams that we may have to reset for a client's errors.
const ERROR_RESETS: usize = 256;

type Socket = TlsStream<Watched<TcpStream>>;

/// A connection that is ready for HTTP.
pub(crate) struct Ready<S> {
    pub(crate) socket: Socket,
    pub(crate) service: Rc<S>,
    pub(crate) peer: Rc<Peer>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) registration: Registration,
    pub(crate) malformed: IntCounter,
}

impl<S: Service> Ready<S> {
    /// Whether the client chose HTTP/2; everything else is HTTP/1.
    pub(crate) fn is_http2(&self) -> bool {
        self.socket.get_ref().1.alpn_protocol() == Some(HTTP2)
    }

    /// Serves HTTP/1 until the connection ends or is upgraded.
    ///
    /// Not an `async fn`, which would keep room for every value that it moves: this
    /// future lives as long as the connection does.
    pub(crate) fn http1(self) -> impl Future<Output = ()> {
        let Self { socket, service, peer, limits, registration, malformed } = self;
        peer.activity().ready(false);
        let mut control = Control::new(Rc::clone(&peer), Arc::clone(&limits), registration);
        let service =
            service_fn(move |request| answer(Rc::clone(&service), Rc::clone(&peer), request));
        let mut connection =
            http1_builder(&limits).serve_connection(TokioIo::new(socket), service).with_upgrades();
        async move {
            let shut_down = http1::UpgradeableConnection::graceful_shutdown;
            let end = drive(&mut connection, shut_down, &mut control).await;
            if let Some(parts) = connection.into_parts() {
                let answering = control.peer.activity().is_answering();
                Box::pin(farewell(parts.io.into_inner(), end, answering, malformed)).await;
            }
        }
    }

    /// Serves HTTP/2 until the connection ends.
    pub(crate) fn http2(self) -> impl Future<Output = ()> {
        let Self { socket, service, peer, limits, registration, malformed } = self;
        peer.activity().ready(true);
        let streams = Streams { peer: Rc::clone(&peer), patience: limits.body_idle_timeout };
        let mut control = Control::new(Rc::clone(&peer), Arc::clone(&limits), registration);
        let service =
            service_fn(move |request| answer(Rc::clone(&service), Rc::clone(&peer), request));
        let mut connection =
            http2_builder(&limits, streams).serve_connection(TokioIo::new(socket), service);
        async move {
            let shut_down = http2::Connection::graceful_shutdown;
            let end = drive(&mut connection, shut_down, &mut control).await;
            if let End::Finished(Err(error)) = end
                && is_protocol_error(&error)
            {
                malformed.inc();
            }
        }
    }
}

/// Ends an HTTP/1 connection so that the client can tell a whole answer from a cut one.
async fn farewell(mut socket: Socket, end: End, answering: bool, malformed: IntCounter) {
    match end {
        End::Finished(Ok(())) => linger(socket.get_mut().0).await,
        End::Finished(Err(error)) if error.is_parse() => {
            malformed.inc();
            linger(socket.get_mut().0).await;
        }
        // No `close_notify`: an answer that broke off must not look whole.
        End::Finished(Err(_)) => {}
        End::Aborted if answering => {}
        End::Aborted => drop(timeout(FAREWELL, socket.shutdown()).await),
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .title_case_headers(true)
        // hyper's timer runs between requests too, and is made anew for each: ours is in Control.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes)
        .max_buf_size(HTTP1_BUFFER.max(limits.header_bytes));
    if limits.header_count != HTTP1_HEADERS {
        builder.max_headers(limits.header_count);
    }
    builder
}

fn http2_builder(limits: &Limits, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .keep_alive_interval(limits.body_idle_timeout)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

/// Whether the client broke HTTP/2's rules, as far as hyper says: not a lost socket.
fn is_protocol_error(error: &hyper::Error) -> bool {
    let lost = error.source().is_some_and(<dyn std::error::Error>::is::<io::Error>);
    !(lost || error.is_timeout() || error.is_canceled() || error.is_closed())
}

/// How a connection came to its end.
enum End {
    /// hyper is done with it.
    Finished(hyper::Result<()>),
    /// A deadline passed: nothing more is said.
    Aborted,
}

/// Polls hyper's connection and, after it, the deadlines.
async fn drive<C>(connection: &mut C, shut_down: fn(Pin<&mut C>), control: &mut Control) -> End
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
                return Poll::Ready(End::Finished(result));
            }
            match control.poll_verdict(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Verdict::Close) => shut_down(Pin::new(connection)),
                Poll::Ready(Verdict::Abort) => return Poll::Ready(End::Aborted),
            }
        }
    })
    .await
}

/// The one timer of a connection. It is moved forward only when a nearer deadline
/// appeared, and looked at anew only when it fires: a busy connection never touches it.
struct Control {
    peer: Rc<Peer>,
    limits: Arc<Limits>,
    registration: Registration,
    registered: bool,
    sleep: Pin<Box<Sleep>>,
    armed: u64,
    closing: Option<u64>,
    /// When the answer under way is looked at again, if it may be revoked.
    look: Option<Pin<Box<Sleep>>>,
}

impl Control {
    fn new(peer: Rc<Peer>, limits: Arc<Limits>, registration: Registration) -> Self {
        let armed = peer.activity().now() + millis(limits.header_timeout);
        let sleep = Box::pin(tokio::time::sleep_until(peer.activity().at(armed)));
        Self {
            peer,
            limits,
            registration,
            registered: false,
            sleep,
            armed,
            closing: None,
            look: None,
        }
    }

    fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        if !self.registered {
            self.registration.wake(cx.waker());
            self.registered = true;
        }
        if let Some(verdict) = self.drained() {
            return Poll::Ready(verdict);
        }
        if self.is_revoked(cx) {
            return Poll::Ready(Verdict::Abort);
        }
        let nearest = self.nearest();
        if let Some((at, _)) = nearest
            && at < self.armed
        {
            self.arm(at);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = self.peer.activity().now();
            match self.nearest() {
                Some((at, verdict)) if at <= now => return Poll::Ready(self.told(verdict, now)),
                Some((at, _)) => self.arm(at),
                // Whatever comes next, its deadline is not before this one, or arms it anew.
                None => self.arm(now + millis(self.limits.idle_timeout).max(1)),
            }
        }
        Poll::Pending
    }

    /// Whether the HTTP/1 answer under way must end; streams of HTTP/2 look for themselves.
    fn is_revoked(&mut self, cx: &mut Context<'_>) -> bool {
        let revocable = self.peer.revocable().borrow();
        let Some(revocable) = revocable.as_ref() else {
            self.look = None;
            return false;
        };
        let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
        while look.as_mut().poll(cx).is_ready() {
            if revocable.is_revoked() {
                return true;
            }
            look.as_mut().reset(Instant::now() + LOOK_EVERY);
        }
        false
    }

    /// What the drain asks of this connection now.
    fn drained(&mut self) -> Option<Verdict> {
        let stage = self.peer.worker().stage();
        if stage == Stage::Serving {
            return None;
        }
        if stage == Stage::Dropping {
            return Some(Verdict::Abort);
        }
        let activity = self.peer.activity();
        let may_end =
            activity.is_multiplexed() || (stage == Stage::ClosingIdle && activity.is_idle());
        if may_end && self.closing.is_none() {
            return Some(self.told(Verdict::Close, self.peer.activity().now()));
        }
        None
    }

    fn nearest(&self) -> Option<(u64, Verdict)> {
        self.peer.activity().deadline(&self.limits, self.closing)
    }

    fn told(&mut self, verdict: Verdict, now: u64) -> Verdict {
        if verdict == Verdict::Close {
            self.closing = Some(now);
        }
        verdict
    }

    fn arm(&mut self, at: u64) {
        self.armed = at;
        // The activity's clock counts whole milliseconds: one more, so that none fires early.
        self.sleep.as_mut().reset(self.peer.activity().at(at + 1));
    }
}

/// Reads and throws away what still comes, so that our last bytes arrive.
async fn linger(socket: &mut Watched<TcpStream>) {
    let mut rest = [0; 4096];
    let _ =
        timeout(LINGER, async { while !matches!(socket.read(&mut rest).await, Ok(0) | Err(_)) {} })
            .await;
}
