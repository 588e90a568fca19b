//! The sample upstream: a plain HTTP service that shows each request as it
//! arrived, to people as a page and to programs as JSON. It has no login of its
//! own: who is calling it reads from the headers that the gateway states.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;

use askama::Template as _;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::service::Service;

/// No script, nothing from outside.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);
const USER: HeaderName = HeaderName::from_static("x-auth-user");
const ROLE: HeaderName = HeaderName::from_static("x-auth-role");

/// Starts the sample upstream on a loopback port of the system's choice; it ends
/// when the returned value is dropped.
///
/// # Errors
/// When no port can be bound.
pub(super) async fn start() -> io::Result<Service> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Service::start(listener, |socket, _peer| async move {
        let service = service_fn(async |request: Request<Incoming>| {
            let (parts, _body) = request.into_parts();
            Ok::<_, Infallible>(show(&Received::of(&parts), wants_page(&parts.headers)))
        });
        // A client that breaks off is no news.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
    })
}

/// A request as it arrived.
#[derive(askama::Template)]
#[template(path = "demo/sample.html")]
struct Received {
    method: String,
    target: String,
    user: Option<String>,
    role: Option<String>,
    headers: Vec<(String, String)>,
}

impl Received {
    fn of(parts: &http::request::Parts) -> Self {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut headers: Vec<(String, String)> =
            parts.headers.iter().map(|(name, it)| (name.as_str().to_owned(), text(it))).collect();
        headers.sort();
        Self {
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            user: parts.headers.get(USER).map(text),
            role: parts.headers.get(ROLE).map(text),
            headers,
        }
    }

    fn json(&self) -> String {
        let headers: Vec<String> =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let value = serde_json::json!({
            "method": self.method,
            "target": self.target,
            "user": self.user,
            "role": self.role,
            "headers": headers,
        });
        format!("{value:#}\n")
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.into_iter().any(|value| value.contains("text/html"))
}

fn show(received: &Received, as_page: bool) -> Response<Full<Bytes>> {
    let page = if as_page { received.render().ok() } else { None };
    let (kind, text) = match page {
        Some(page) => ("text/html; charset=utf-8", page),
        None => ("application/json", received.json()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::{any, proptest};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::Received;

    async fn answer_to(head: &str) -> String {
        let upstream = super::start().await.unwrap();
        let mut socket = TcpStream::connect(upstream.address()).await.unwrap();
        let request = format!("{head}\r\nHost: sample\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn programs_get_what_arrived_as_json() {
        let answer = answer_to("PUT /a?b=c HTTP/1.1\r\nX-Auth-User: ada\r\nCookie: x=1").await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["method"], &body["target"]), (&"PUT".into(), &"/a?b=c".into()));
        assert_eq!((&body["user"], &body["role"]), (&"ada".into(), &serde_json::Value::Null));
        assert!(body["headers"].as_array().unwrap().contains(&"cookie: x=1".into()));
    }

    #[tokio::test]
    async fn people_get_a_page_with_a_way_out() {
        let answer = answer_to(
            "GET / HTTP/1.1\r\nAccept: text/html,*/*;q=0.8\r\nX-Auth-User: ada\r\nX-Auth-Role: admin",
        )
        .await;
        assert!(answer.contains("text/html") && answer.contains("default-src 'none'"));
        assert!(answer.contains("<strong>ada</strong>") && answer.contains("/auth/logout"));
    }

    proptest! {
        #[test]
        fn nothing_that_arrived_is_echoed_unescaped(text in any::<String>()) {
            let mut request = Request::new(());
            let bytes: Vec<u8> = text.bytes().filter(|&byte| byte >= 0x20 && byte != 0x7f).collect();
            let value = http::HeaderValue::from_bytes(&[b"<script>\"'&", bytes.as_slice()].concat());
            request.headers_mut().insert("x-auth-user", value.unwrap());
            let page = askama::Template::render(&Received::of(&request.into_parts().0)).unwrap();
            assert!(!page.contains("<script"));
            let plain = askama::Template::render(&Received::of(&Request::new(()).into_parts().0));
            // Markup comes from the template alone.
            let tags = |page: &str| page.matches('<').count();
            assert!(tags(&page) >= tags(&plain.unwrap()) && tags(&page) < 60);
        }
    }
}
