//! A worker in a thread, a service that does what a path says, raw TLS clients,
//! and an upstream that records what arrives.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use bindgate::config::{Limits, Tls, TlsVersion, Upstream, UpstreamServer};
use bindgate::metrics::Metrics;
use bindgate::server::{
    BoxError, Drain, Listening, Peer, ServerShared, Service, Slots, bind, serve, tls_config,
};
use bindgate::upstream::{Outgoing, Pool, SendError, UpstreamBody};
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// No test waits longer for something that should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn limits() -> Limits {
    Limits { drain_timeout: Duration::from_secs(8), ..Limits::default() }
}

/// A certificate of its own for `localhost`.
pub(crate) fn certificate() -> Tls {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Tls {
        certificates: vec![made.cert.der().clone()],
        private_key: Arc::new(PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into())),
        min_version: TlsVersion::Tls12,
        client: None,
        certificate_file: "test.crt".into(),
    }
}

pub(crate) fn client_config(tls: &Tls, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(tls.certificates[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// One worker, running.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Tls,
    pub(crate) listening: Arc<ArcSwap<Listening>>,
    pub(crate) drain: Drain,
    pub(crate) metrics: Metrics,
    thread: Option<JoinHandle<()>>,
}

/// Starts a worker that forwards `/up/…` to `upstream`.
pub(crate) fn start(limits: Limits, upstream: Option<Upstream>) -> Running {
    let tls = certificate();
    let listening = Arc::new(ArcSwap::from_pointee(Listening {
        tls: tls_config(&tls).unwrap(),
        limits: Arc::new(limits),
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
    }));
    let bound = bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
    let (drain, metrics) = (Drain::new(), Metrics::new().unwrap());
    let shared = ServerShared {
        listening: Arc::clone(&listening),
        slots: Slots::new(),
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let address = bound.addresses[0];
    let listeners = bound.workers.into_iter().next().unwrap();
    let thread = std::thread::spawn(move || {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let pool = upstream.map(|upstream| Pool::new(&upstream, &shared.metrics));
        let service = Rc::new(Stand { pool });
        runtime.unwrap().block_on(serve(listeners, service, shared));
    });
    Running { address, tls, listening, drain, metrics, thread: Some(thread) }
}

impl Running {
    /// Waits until the worker has drained.
    pub(crate) fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    /// The value of one line of the metrics; 0 when it isn't there.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let text = String::from_utf8(self.metrics.encode().unwrap()).unwrap();
        let found = text.lines().find_map(|have| have.strip_prefix(&format!("{line} ")));
        found.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until it has this value: what is counted may be counted after the client saw it.
    pub(crate) fn await_metric(&self, line: &str, value: u64) {
        let deadline = Instant::now() + SOON;
        while self.metric(line) != value {
            assert!(Instant::now() < deadline, "{line} is {}, not {value}", self.metric(line));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain.begin();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Stands in for the gateway.
struct Stand {
    pool: Option<Pool<Forwarded>>,
}

struct Forwarded(Request<Boxed>);

/// The request's body as the pool wants it.
pub(crate) struct Boxed(Incoming);

impl Outgoing for Forwarded {
    type Body = Boxed;

    fn into_request(self) -> Request<Boxed> {
        self.0
    }
}

impl Body for Boxed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// What the stand answers with.
pub(crate) enum Said {
    Text(Full<Bytes>),
    Echo(Boxed),
    Upstream(UpstreamBody<Boxed>),
    Stream(mpsc::Receiver<Bytes>),
    Endless,
}

impl Body for Said {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Text(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Echo(body) => Pin::new(body).poll_frame(cx),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Stream(receiver) => {
                receiver.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
            Self::Endless => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'.'; 16384]))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(body) => body.is_end_stream(),
            Self::Echo(body) => body.is_end_stream(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Stream(_) | Self::Endless => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(body) => body.size_hint(),
            Self::Echo(body) => body.size_hint(),
            Self::Upstream(body) => body.size_hint(),
            Self::Stream(_) | Self::Endless => SizeHint::default(),
        }
    }
}

fn text(status: StatusCode, text: &str) -> Response<Said> {
    let mut response = Response::new(Said::Text(Full::from(text.to_owned())));
    *response.status_mut() = status;
    response
}

impl Service for Stand {
    type Body = Said;

    async fn handle(self: Rc<Self>, request: Request<Incoming>, peer: Rc<Peer>) -> Response<Said> {
        match request.uri().path() {
            "/hello" => text(StatusCode::OK, "hello"),
            "/peer" => text(StatusCode::OK, &peer.address.to_string()),
            "/echo" => Response::new(Said::Echo(Boxed(request.into_body()))),
            "/refuse" => text(StatusCode::FORBIDDEN, "refused, and the body left alone"),
            "/count" => match request.into_body().collect().await {
                Ok(body) => text(StatusCode::OK, &body.to_bytes().len().to_string()),
                Err(_) => text(StatusCode::BAD_REQUEST, "broken off"),
            },
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(700)).await;
                text(StatusCode::OK, "slow but whole")
            }
            "/trickle" => {
                let (sender, receiver) = mpsc::channel(1);
                tokio::task::spawn_local(async move {
                    for _ in 0..8 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        if sender.send(Bytes::from_static(b"drop ")).await.is_err() {
                            return;
                        }
                    }
                });
                Response::new(Said::Stream(receiver))
            }
            "/endless" => Response::new(Said::Endless),
            "/last" => {
                peer.close_after_answer();
                text(StatusCode::OK, "last")
            }
            "/panic" => panic!("as asked"),
            _ => self.forward(request).await,
        }
    }
}

impl Stand {
    async fn forward(&self, mut request: Request<Incoming>) -> Response<Said> {
        let pool = self.pool.as_ref().unwrap();
        let upgrade = request.headers().get(UPGRADE).cloned();
        let downstream = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        if let Some(authority) = parts.uri.authority() {
            let host = HeaderValue::from_str(authority.as_str()).unwrap();
            parts.headers.entry("host").or_insert(host);
        }
        let target = parts.uri.path_and_query().unwrap().as_str().parse().unwrap();
        let mut outgoing = Request::new(Boxed(body));
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = target;
        *outgoing.headers_mut() = parts.headers;
        outgoing.headers_mut().remove("expect");
        if let Some(name) = upgrade {
            outgoing.headers_mut().insert(UPGRADE, name);
            outgoing.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        } else {
            outgoing.headers_mut().remove(CONNECTION);
        }
        match pool.send(Forwarded(outgoing)).await {
            Ok(mut answer) => {
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    let upstream = hyper::upgrade::on(&mut answer);
                    tokio::task::spawn_local(async move {
                        let mut upstream = TokioIo::new(upstream.await.unwrap());
                        let mut client = TokioIo::new(downstream.unwrap().await.unwrap());
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
                    });
                }
                answer.map(Said::Upstream)
            }
            Err(error @ SendError::Timeout) => text(StatusCode::GATEWAY_TIMEOUT, error.label()),
            Err(error @ SendError::Overloaded) => {
                text(StatusCode::SERVICE_UNAVAILABLE, error.label())
            }
            Err(error @ SendError::RequestBody(_)) => text(StatusCode::BAD_REQUEST, error.label()),
            Err(error) => text(StatusCode::BAD_GATEWAY, error.label()),
        }
    }
}

/// A raw HTTP/1.1 client over TLS.
pub(crate) struct Client(pub(crate) BufReader<StreamOwned<ClientConnection, TcpStream>>);

/// One answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn connect(server: &Running) -> Self {
        Self::with(server, client_config(&server.tls, &[])).unwrap()
    }

    pub(crate) fn with(server: &Running, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        Self::announced(server, config, b"")
    }

    /// Connects, and sends `header` before the handshake.
    pub(crate) fn announced(
        server: &Running,
        config: Arc<ClientConfig>,
        header: &[u8],
    ) -> std::io::Result<Self> {
        let mut socket = TcpStream::connect(server.address)?;
        socket.write_all(header)?;
        socket.set_read_timeout(Some(SOON))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(config, name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Self(BufReader::new(StreamOwned::new(tls, socket))))
    }

    pub(crate) fn send(&mut self, bytes: &str) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes.as_bytes())?;
        self.0.get_mut().flush()
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer().unwrap()
    }

    /// Reads one answer with `Content-Length`, chunks or an end by close.
    pub(crate) fn answer(&mut self) -> std::io::Result<Answer> {
        let head = self.head()?;
        let lower = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = Vec::new();
        if let Some(length) = length {
            body.resize(length.parse().unwrap(), 0);
            self.0.read_exact(&mut body)?;
        } else if lower.contains("transfer-encoding: chunked") {
            loop {
                let mut size = String::new();
                self.0.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                self.0.read_exact(&mut chunk)?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        }
        Ok(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    /// Reads up to the empty line.
    pub(crate) fn head(&mut self) -> std::io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(head)
    }

    /// Reads to the end: what came, and whether the server said goodbye (`close_notify`).
    pub(crate) fn rest(&mut self) -> (String, bool) {
        let mut rest = Vec::new();
        let clean = self.0.read_to_end(&mut rest).is_ok();
        (String::from_utf8_lossy(&rest).into_owned(), clean)
    }
}

/// `[[upstream]]` at this address.
pub(crate) fn upstream_at(address: SocketAddr) -> Upstream {
    Upstream {
        assertion: None,
        name: "backend".to_owned(),
        servers: vec![UpstreamServer { host: address.ip().to_string(), port: address.port() }],
        strip_cookies: Vec::new(),
        strip_headers: Vec::new(),
        set_headers: std::collections::BTreeMap::new(),
        allow_headers: Vec::new(),
        path_parameters: false,
        hide_errors: false,
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(4),
        connections: 16,
    }
}

/// A raw upstream: `each` gets every accepted socket, in a thread of its own, with its number.
pub(crate) fn raw_upstream(each: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let each = Arc::new(each);
    std::thread::spawn(move || {
        for (number, socket) in listener.incoming().enumerate() {
            let (each, Ok(socket)) = (Arc::clone(&each), socket) else { return };
            socket.set_read_timeout(Some(SOON)).unwrap();
            std::thread::spawn(move || each(number, socket));
        }
    });
    address
}

/// Reads one head from a plain socket; `None` at its end.
pub(crate) fn read_head(socket: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
