//! Metrics and health on a listener of their own, in plain HTTP/1, chosen by path
//! only: no header, query or host makes it anything else, and no path of the
//! public listeners leads here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};

use crate::admin::plain::{self, Answer, Bounds, PlainListener, text};
use crate::metrics::Metrics;

/// A scraper and some probes need a handful of connections.
const BOUNDS: Bounds = Bounds { connections: 64, header_timeout: Duration::from_secs(30) };

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
    listener: PlainListener,
    pages: Pages,
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
        let listener = PlainListener::bind(address).await?;
        Ok(Self { listener, pages: Pages { metrics, readiness } })
    }

    /// The address as bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Answers until dropped.
    pub async fn serve(self) {
        let pages = self.pages;
        let answer = move |method: &Method, path: &str| pages.answer(method, path);
        self.listener.serve(BOUNDS, |_| true, answer).await;
    }
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Answer {
        let page: Option<fn(&Self) -> Answer> = match path {
            "/metrics" => Some(Self::metrics),
            "/healthz" | "/ping" => Some(|_| text(StatusCode::OK, "ok\n".into())),
            "/readyz" | "/ready" => Some(Self::readiness),
            _ => None,
        };
        plain::answer(method, page.map(|page| move || page(self)))
    }

    fn metrics(&self) -> Answer {
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

    fn readiness(&self) -> Answer {
        let reasons = self.readiness.reasons();
        if reasons.is_empty() {
            return text(StatusCode::OK, "ready\n".into());
        }
        text(StatusCode::SERVICE_UNAVAILABLE, (reasons.join("\n") + "\n").into())
    }
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
