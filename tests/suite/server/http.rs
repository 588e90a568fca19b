//! HTTP/1 and HTTP/2 as a client sees them: limits, 100-continue, panics, streams
//! that stall, connections that end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bindgate::config::Limits;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::{Client, Running, SOON, client_config, limits, start};

/// An HTTP/2 connection and the task that drives it.
pub(crate) async fn http2(
    server: &Running,
    window: u32,
) -> (SendRequest<Empty<Bytes>>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let socket = TcpStream::connect(server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(client_config(&server.tls, &[b"h2"]));
    let name = ServerName::try_from("localhost").unwrap();
    let tls = connector.connect(name, socket).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(tls))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

pub(crate) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).unwrap()
}

#[test]
fn header_names_are_written_in_title_case() {
    let server = start(limits(), None);
    let head = Client::connect(&server).get("/hello").head;
    assert!(head.contains("\r\nContent-Length: 5\r\n"), "{head}");
}

#[test]
fn without_alpn_and_with_http_1_1_it_is_http_1_1() {
    let server = start(limits(), None);
    for alpn in [&[][..], &[b"http/1.1".as_slice()][..]] {
        let mut client = Client::with(&server, client_config(&server.tls, alpn)).unwrap();
        assert!(client.get("/hello").head.starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn a_head_over_the_limits_gets_431_and_is_counted() {
    let limits = Limits { header_bytes: 4096, header_count: 10, ..limits() };
    let server = start(limits, None);
    let large = format!("X-Large: {}\r\n", "a".repeat(5000));
    let many = "X-Many: a\r\n".repeat(11);
    for fields in [large, many] {
        let mut client = Client::connect(&server);
        client.send(&format!("GET /hello HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        assert_eq!(client.answer().unwrap().status, 431);
    }
    server.await_metric("bindgate_http_malformed_total", 2);
}

#[test]
fn a_panic_ends_its_connection_and_nothing_else() {
    let server = start(limits(), None);
    let mut other = Client::connect(&server);
    assert_eq!(other.get("/hello").status, 200);
    let mut client = Client::connect(&server);
    client.send("GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(client.answer().is_err());
    assert_eq!(other.get("/hello").status, 200);
    assert_eq!(Client::connect(&server).get("/hello").status, 200);
}

#[test]
fn a_refusal_comes_without_100_and_arrives_though_the_body_is_unread() {
    let server = start(limits(), None);
    let mut client = Client::connect(&server);
    let head = "POST /refuse HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                Content-Length: 1000000\r\n\r\n";
    client.send(head);
    assert_eq!(client.answer().unwrap().status, 403);

    let mut client = Client::connect(&server);
    client.send("POST /refuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n");
    for _ in 0..40 {
        if client.try_send(&"x".repeat(50_000)).is_err() {
            break;
        }
    }
    assert_eq!(client.answer().unwrap().status, 403);
}

#[test]
fn the_100_comes_when_the_body_is_wanted() {
    let server = start(limits(), None);
    let mut client = Client::connect(&server);
    client.send(
        "POST /count HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
         Content-Length: 5\r\n\r\n",
    );
    assert!(client.head().unwrap().starts_with("HTTP/1.1 100 Continue"));
    client.send("12345");
    assert_eq!(client.answer().unwrap().body, "5");
}

#[tokio::test]
async fn an_http2_connection_without_streams_gets_goaway() {
    let server = start(Limits { idle_timeout: Duration::from_millis(400), ..limits() }, None);
    let (mut sender, connection) = http2(&server, 65_535).await;
    let answer = sender.send_request(get("/slow")).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "slow but whole");
    let begun = Instant::now();
    timeout(SOON, connection).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn an_http2_client_that_asks_nothing_gets_goaway() {
    let server = start(Limits { header_timeout: Duration::from_millis(400), ..limits() }, None);
    let (_sender, connection) = http2(&server, 65_535).await;
    timeout(SOON, connection).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_whose_client_grants_no_window_is_reset_and_the_others_go_on() {
    let limits = Limits { body_idle_timeout: Duration::from_millis(500), ..limits() };
    let server = start(limits, None);
    let (mut sender, _connection) = http2(&server, 20_000).await;
    let mut stalled = sender.send_request(get("/endless")).await.unwrap().into_body();
    // The stalled one is read again only when the server must have given it up.
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        let answer = sender.send_request(get("/trickle")).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "drop ".repeat(8));
    }
    let mut received = 0;
    let ended = loop {
        match poll_fn(|cx| Pin::new(&mut stalled).poll_frame(cx)).await {
            Some(Ok(frame)) => received += frame.into_data().map_or(0, |data| data.len()),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(ended && received < 200_000, "{received} bytes came");
}

#[tokio::test]
async fn http2_streams_under_way_survive_the_drain() {
    let mut server = start(limits(), None);
    let (mut sender, connection) = http2(&server, 65_535).await;
    let slow = sender.send_request(get("/slow"));
    let trickle = sender.send_request(get("/trickle")).await.unwrap();
    server.drain.begin();
    let slow = slow.await.unwrap();
    assert_eq!(slow.status(), StatusCode::OK);
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "slow but whole");
    let rest = trickle.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(rest, "drop ".repeat(8));
    timeout(SOON, connection).await.unwrap().unwrap().unwrap();
    tokio::task::spawn_blocking(move || server.join()).await.unwrap();
}

#[tokio::test]
async fn an_http2_head_over_the_limit_is_refused() {
    let server = start(Limits { header_bytes: 4096, ..limits() }, None);
    let (mut sender, _connection) = http2(&server, 65_535).await;
    let mut large = get("/hello");
    large.headers_mut().insert("x-large", "a".repeat(6000).parse().unwrap());
    let answer = sender.send_request(large).await.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn a_thousand_streams_over_ten_connections_are_all_answered() {
    let server = Arc::new(start(limits(), None));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (sender, _) = http2(&server, 65_535).await;
        for _ in 0..100 {
            let mut sender = sender.clone();
            tasks.spawn(async move {
                let answer = sender.send_request(get("/slow")).await.unwrap();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, "slow but whole");
                Ok::<(), Infallible>(())
            });
        }
    }
    assert_eq!(tasks.join_all().await.len(), 1000);
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
