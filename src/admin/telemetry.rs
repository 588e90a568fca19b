//! Metrics and health on a listener of their own, in plain HTTP/1, chosen by path
//! only: no header, query or host makes it anything else, and no path of the
//! public listeners leads here.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

use crate::metrics::Metrics;

/// Connections at a time; a scraper and some probes need a handful.
const CONNECTIONS_MAX: usize = 64;
/// For a request's head, and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection is asked to end after this ...
const CONNECTION_LIFETIME: Duration = Duration::from_mins(5);
/// ... and then has this long to read its last answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes and count of a request's headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// One thing without which a login or a request would not be served.
pub struct Check {
    reason: String,
    holds: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Check {
    /// `reason` is the line that `/readyz` shows while `holds` says no.
    pub fn new(
        reason: impl Into<String>,
        holds: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { reason: reason.into(), holds: Box::new(holds) }
    }
}

/// Whether a login and a request would be served.
#[derive(Clone)]
pub struct Readiness(Arc<Inner>);

struct Inner {
    draining: AtomicBool,
    checks: Vec<Check>,
}

impl Readiness {
    /// Ready while every check holds and no drain has begun.
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        Self(Arc::new(Inner { draining: AtomicBool::new(false), checks }))
    }

    /// From now on not ready, for good.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// Why it is not ready, one line each; none when it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<&str> {
        let draining = self.0.draining.load(Ordering::SeqCst).then_some("draining");
        let failed = self.0.checks.iter().filter(|check| !(check.holds)());
        draining.into_iter().chain(failed.map(|check| check.reason.as_str())).collect()
    }
}

/// The bound listener.
pub struct Telemetry {
    listener: TcpListener,
    address: SocketAddr,
    pages: Arc<Pages>,
}

struct Pages {
    metrics: Metrics,
    readiness: Readiness,
}

impl Telemetry {
    /// Binds the listener; port 0 takes any free port.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        metrics: Metrics,
        readiness: Readiness,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, pages: Arc::new(Pages { metrics, readiness }) })
    }

    /// The address as bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until dropped.
    pub async fn serve(self) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // Who comes when all slots are taken waits in the kernel's queue.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(serve_connection(stream, Arc::clone(&self.pages), slot));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the telemetry listener cannot accept");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, pages: Arc<Pages>, slot: OwnedSemaphorePermit) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = pages.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
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

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let page: fn(&Self) -> Response<Full<Bytes>> = match path {
            "/metrics" => Self::metrics,
            "/healthz" | "/ping" => |_| text(StatusCode::OK, "ok\n".into()),
            "/readyz" | "/ready" => Self::readiness,
            _ => return text(StatusCode::NOT_FOUND, "there is nothing here\n".into()),
        };
        if method == Method::GET || method == Method::HEAD {
            return page(self);
        }
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        answer
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.encode() {
            Ok(body) => {
                let mut answer = text(StatusCode::OK, body.into());
                let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                answer.headers_mut().insert(CONTENT_TYPE, format);
                answer
            }
            Err(error) => {
                tracing::error!(error = %error, "the metrics cannot be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n".into())
            }
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let reasons = self.readiness.reasons();
        if reasons.is_empty() {
            return text(StatusCode::OK, "ready\n".into());
        }
        text(StatusCode::SERVICE_UNAVAILABLE, (reasons.join("\n") + "\n").into())
    }
}

fn text(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::{Check, Readiness, Telemetry};
    use crate::metrics::Metrics;

    /// A listener, the switch of its one check, and its readiness.
    async fn serve() -> (SocketAddr, Arc<AtomicBool>, Readiness) {
        let up = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&up);
        let check =
            Check::new("the directory does not answer", move || seen.load(Ordering::SeqCst));
        let readiness = Readiness::new(vec![check]);
        let metrics = Metrics::new().unwrap();
        metrics.build_info("1").set(1);
        let listen = "127.0.0.1:0".parse().unwrap();
        let telemetry = Telemetry::bind(listen, metrics, readiness.clone()).await.unwrap();
        let address = telemetry.address();
        tokio::spawn(telemetry.serve());
        (address, up, readiness)
    }

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn status(address: SocketAddr, head: &str) -> u16 {
        ask(address, head).await.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn metrics_and_health_are_chosen_by_path_only() {
        let (address, ..) = serve().await;
        let answer = ask(address, "GET /metrics?x=/healthz HTTP/1.1").await;
        assert!(answer.contains("bindgate_build_info{version=\"1\"} 1"), "{answer}");
        for path in ["/healthz", "/ping", "/readyz", "/ready"] {
            assert_eq!(status(address, &format!("GET {path} HTTP/1.1")).await, 200, "{path}");
        }
        for path in ["/", "/metrics/", "/Metrics", "//metrics", "/?/healthz", "/auth/login"] {
            let head = format!(
                "GET {path} HTTP/1.1\r\nX-Original-URL: /healthz\r\nUser-Agent: kube-probe/1.30"
            );
            assert_eq!(status(address, &head).await, 404, "{path}");
        }
    }

    #[tokio::test]
    async fn other_methods_are_refused() {
        let (address, ..) = serve().await;
        let answer = ask(address, "POST /healthz HTTP/1.1\r\nContent-Length: 0").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        assert!(answer.contains("allow: GET, HEAD"), "{answer}");
        assert_eq!(status(address, "HEAD /metrics HTTP/1.1").await, 200);
    }

    #[tokio::test]
    async fn readiness_names_each_reason_on_its_own_line_and_health_stays() {
        let (address, up, readiness) = serve().await;
        up.store(false, Ordering::SeqCst);
        readiness.drain();
        let answer = ask(address, "GET /readyz HTTP/1.1").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("\r\n\r\ndraining\nthe directory does not answer\n"), "{answer}");
        up.store(true, Ordering::SeqCst);
        assert_eq!(status(address, "GET /ready HTTP/1.1").await, 503, "a drain is for good");
        assert_eq!(status(address, "GET /healthz HTTP/1.1").await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed() {
        let (address, ..) = serve().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
}
