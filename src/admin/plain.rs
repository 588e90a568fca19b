//! Small listeners in plain HTTP/1 for machines: bounded, and chosen by method and
//! path only. Knows no page.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// A connection is asked to end after this ...
const CONNECTION_LIFETIME: Duration = Duration::from_mins(5);
/// ... and then has this long to read its last answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes and count of a request's headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// An answer, whole.
pub(super) type Answer = Response<Full<Bytes>>;

/// A bound listener.
pub(super) struct PlainListener {
    listener: TcpListener,
    address: SocketAddr,
}

/// What a listener bears.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at a time; who comes then waits in the kernel's queue.
    pub(super) connections: usize,
    /// For a request's head, and for an idle connection.
    pub(super) header_timeout: Duration,
}

impl PlainListener {
    /// Binds it; port 0 takes any free port.
    pub(super) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address as bound.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until dropped; whom `admits` does not admit gets no answer at all.
    pub(super) async fn serve(
        self,
        bounds: Bounds,
        admits: impl Fn(IpAddr) -> bool,
        answer: impl Fn(&Method, &str) -> Answer + Send + Sync + 'static,
    ) {
        let (slots, answer) = (Arc::new(Semaphore::new(bounds.connections)), Arc::new(answer));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, peer)) if admits(peer.ip().to_canonical()) => {
                    let answer = Arc::clone(&answer);
                    tokio::spawn(serve_connection(stream, bounds.header_timeout, answer, slot));
                }
                Ok((_, peer)) => {
                    tracing::warn!(client = %peer.ip(), listener = %self.address, "not admitted");
                }
                Err(error) => {
                    tracing::warn!(%error, listener = %self.address, "cannot accept");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    header_timeout: Duration,
    answer: Arc<impl Fn(&Method, &str) -> Answer>,
    slot: OwnedSemaphorePermit,
) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    // What goes wrong on such a connection concerns only its peer.
    if timeout(CONNECTION_LIFETIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(CLOSE_TIMEOUT, connection).await;
    }
    drop(slot);
}

/// The page of a path, for GET and HEAD; any other path has none.
pub(super) fn answer(method: &Method, page: Option<impl FnOnce() -> Answer>) -> Answer {
    let Some(page) = page else {
        return text(StatusCode::NOT_FOUND, "there is nothing here\n".into());
    };
    if method == Method::GET || method == Method::HEAD {
        return page();
    }
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// Plain text that nobody keeps.
pub(super) fn text(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
