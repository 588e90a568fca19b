//! A comfortable client: real TLS, HTTP/1.1 or HTTP/2 by ALPN, a cookie jar as a
//! browser keeps one. Knows nothing of the gateway's inside.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// No answer of the gateway may take longer than this, whatever is behind it.
const ANSWER_DEADLINE: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// The cookies of one browser profile; a clone is another tab of it.
#[derive(Clone, Default)]
pub(crate) struct Jar(Arc<Mutex<BTreeMap<String, String>>>);

impl Jar {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.lock().get(name).cloned()
    }

    pub(crate) fn set(&self, name: &str, value: &str) {
        self.lock().insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    /// The names of all cookies.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// The value of one `Cookie` header, if there is any cookie.
    pub(crate) fn header(&self) -> Option<String> {
        let cookies = self.lock();
        let pairs: Vec<String> =
            cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Takes a `Set-Cookie`, or drops the cookie when it says so.
    pub(crate) fn take(&self, set_cookie: &str) {
        let mut parts = set_cookie.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let gone = parts.any(|attribute| attribute.eq_ignore_ascii_case("max-age=0"));
        if gone {
            self.remove(name);
        } else {
            self.set(name, value);
        }
    }
}

/// How to reach one gateway, and as whom.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// What goes into `Host`, and what the certificate must name.
    pub(crate) host: String,
    pub(crate) protocol: Protocol,
    pub(crate) jar: Jar,
    pub(crate) http1: Arc<ClientConfig>,
    pub(crate) http2: Arc<ClientConfig>,
}

impl Client {
    /// The same person in the same browser, over HTTP/2.
    pub(crate) fn over_http2(&self) -> Self {
        Self { protocol: Protocol::Http2, ..self.clone() }
    }

    pub(crate) fn over(&self, protocol: Protocol) -> Self {
        Self { protocol, ..self.clone() }
    }

    /// Another browser, with no cookies.
    pub(crate) fn stranger(&self) -> Self {
        Self { jar: Jar::default(), ..self.clone() }
    }

    /// Another browser with a copy of these cookies.
    pub(crate) fn copy(&self) -> Self {
        let jar = Jar::default();
        *jar.lock() = self.jar.lock().clone();
        Self { jar, ..self.clone() }
    }

    /// The same browser, asking for another host.
    pub(crate) fn for_host(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    pub(crate) fn get(&self, target: &str) -> Call<'_> {
        self.call("GET", target)
    }

    pub(crate) fn post(&self, target: &str) -> Call<'_> {
        self.call("POST", target)
    }

    pub(crate) fn call(&self, method: &str, target: &str) -> Call<'_> {
        Call {
            client: self,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            cookies: true,
            body: None,
            deadline: ANSWER_DEADLINE,
        }
    }

    /// The TLS stream alone, with this protocol offered.
    pub(crate) async fn tls(&self) -> Result<TlsStream<TcpStream>, BoxError> {
        let config = match self.protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.host_name().to_owned())?;
        Ok(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)
    }

    fn host_name(&self) -> &str {
        self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name)
    }

    /// A connection for several requests.
    pub(crate) async fn connect(&self) -> Result<Connection, BoxError> {
        let stream = TokioIo::new(self.tls().await?);
        let sender = match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection.with_upgrades());
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, jar: self.jar.clone() })
    }
}

/// One open connection.
pub(crate) struct Connection {
    sender: Sender,
    jar: Jar,
}

enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

impl Connection {
    /// Sends and returns the head; the body streams.
    pub(crate) async fn open(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, BoxError> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        for cookie in response.headers().get_all(http::header::SET_COOKIE) {
            self.jar.take(cookie.to_str()?);
        }
        Ok(response)
    }

    /// Sends and reads the whole answer.
    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Result<Answer, BoxError> {
        let response = self.open(request).await?;
        Answer::read(response).await
    }

    /// Another handle of the same HTTP/2 connection.
    pub(crate) fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => {
                Some(Self { sender: Sender::Http2(sender.clone()), jar: self.jar.clone() })
            }
        }
    }
}

/// One request being put together.
#[derive(Debug)]
pub(crate) struct Call<'c> {
    client: &'c Client,
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    cookies: bool,
    body: Option<RequestBody>,
    deadline: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({}, {:?})", self.host, self.protocol)
    }
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// What the gateway's own pages send with their requests.
    pub(crate) fn own_page(self) -> Self {
        let origin = format!("https://{}", self.client.host);
        self.header("origin", origin)
    }

    /// What a browser sends when somebody follows a link or types an address.
    pub(crate) fn navigation(self) -> Self {
        self.header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document")
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Leaves the jar's cookies out of this request.
    pub(crate) fn without_cookies(mut self) -> Self {
        self.cookies = false;
        self
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").bytes(value.to_string())
    }

    pub(crate) fn form(self, text: &str) -> Self {
        self.header("content-type", "application/x-www-form-urlencoded").bytes(text.to_owned())
    }

    pub(crate) fn bytes(self, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        self.body(Full::new(body).map_err(|never| match never {}).boxed_unsync())
    }

    pub(crate) fn body(mut self, body: RequestBody) -> Self {
        self.body = Some(body);
        self
    }

    /// For what takes long by its nature.
    pub(crate) fn patiently(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The request as it will go out.
    pub(crate) fn build(self) -> Request<RequestBody> {
        let client = self.client;
        let uri: Uri = match client.protocol {
            Protocol::Http1 => self.target.parse().expect("a target that a client can send"),
            Protocol::Http2 => format!("https://{}{}", client.host, self.target)
                .parse()
                .expect("a target that a client can send"),
        };
        let body = self
            .body
            .unwrap_or_else(|| Empty::new().map_err(|never| match never {}).boxed_unsync());
        let mut request = Request::new(body);
        *request.uri_mut() = uri;
        *request.method_mut() = Method::from_bytes(self.method.as_bytes()).expect("a method");
        let headers = request.headers_mut();
        if client.protocol == Protocol::Http1
            && !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            headers.insert("host", HeaderValue::from_str(&client.host).expect("a host"));
        }
        if self.cookies
            && let Some(cookies) = client.jar.header()
        {
            headers.insert("cookie", HeaderValue::from_str(&cookies).expect("cookies"));
        }
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            headers.append(name, HeaderValue::from_bytes(value).expect("a header value"));
        }
        request
    }

    /// Sends it on a connection of its own; the gateway must answer.
    pub(crate) async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.target);
        match self.try_send().await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error:?}"),
        }
    }

    /// As `send`, but a broken connection is the caller's business.
    pub(crate) async fn try_send(self) -> Result<Answer, BoxError> {
        let (client, deadline) = (self.client, self.deadline);
        let request = self.build();
        tokio::time::timeout(deadline, async {
            let mut connection = client.connect().await?;
            connection.send(request).await
        })
        .await?
    }

    /// The head of the answer, and its body as it comes.
    pub(crate) async fn open(self) -> Response<Incoming> {
        let client = self.client;
        let request = self.build();
        let opening = async {
            let mut connection = client.connect().await?;
            connection.open(request).await
        };
        let opened = tokio::time::timeout(ANSWER_DEADLINE, opening).await;
        opened.expect("an answer in time").expect("an answer")
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Result<Self, BoxError> {
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        Ok(Self {
            status: head.status.as_u16(),
            version: head.version,
            headers: head.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("header text"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {} {:?}", self.status, self.body))
    }

    /// The member `error`, empty when there is none.
    pub(crate) fn code(&self) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["error"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn set_cookies(&self) -> Vec<String> {
        let cookies = self.headers.get_all(http::header::SET_COOKIE).iter();
        cookies.map(|value| value.to_str().expect("cookie text").to_owned()).collect()
    }

    /// The value that `Set-Cookie` gives this cookie, if it is set.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        self.set_cookies().iter().find_map(|cookie| {
            let (found, rest) = cookie.split_once('=')?;
            (found == name).then(|| rest.split(';').next().unwrap_or_default().to_owned())
        })
    }

    /// Fails unless status and code are these.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, code: &str) {
        let found = (self.status, self.code());
        assert_eq!((found.0, found.1.as_str()), (status, code), "body: {:?}", self.body);
    }

    #[track_caller]
    pub(crate) fn expect_status(&self, status: u16) {
        assert_eq!(self.status, status, "headers: {:?} body: {:?}", self.headers, self.body);
    }
}

/// `GET` over plain HTTP, as a metrics scraper does; never through a proxy or TLS.
pub(crate) async fn plain_get(address: SocketAddr, target: &str) -> Result<Answer, BoxError> {
    let exchange = async {
        let stream = TokioIo::new(TcpStream::connect(address).await?);
        let (mut sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        let request =
            Request::get(target).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
        Answer::read(sender.send_request(request).await?).await
    };
    tokio::time::timeout(ANSWER_DEADLINE, exchange).await?
}
