//! The pool against upstreams that keep, break, stall and swap connections.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use bindgate::config::Upstream;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::http::{get, http2};
use super::support::{Client, OK, SOON, limits, raw_upstream, read_head, start, upstream_at};

/// Answers every request on every connection; counts both.
fn counting() -> (Upstream, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&connections), Arc::clone(&requests));
    let address = raw_upstream(move |_, mut socket| {
        counts.0.fetch_add(1, Ordering::SeqCst);
        while read_head(&mut socket).is_some() {
            counts.1.fetch_add(1, Ordering::SeqCst);
            socket.write_all(OK).unwrap();
        }
    });
    (upstream_at(address), connections, requests)
}

#[test]
fn one_upstream_connection_serves_one_request_after_the_other() {
    let (upstream, connections, requests) = counting();
    let server = start(limits(), Some(upstream));
    for _ in 0..3 {
        let mut client = Client::connect(&server);
        for _ in 0..20 {
            assert_eq!(client.get("/up").body, "ok");
        }
    }
    assert_eq!(requests.load(Ordering::SeqCst), 60);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let line = r#"bindgate_upstream_requests_total{result="ok",upstream="backend"}"#;
    server.await_metric(line, 60);
}

#[test]
fn chunked_large_and_empty_answers_leave_a_connection_that_is_used_again() {
    let (sender, accepted) = channel();
    let sender = std::sync::Mutex::new(sender);
    let address =
        raw_upstream(move |number, mut socket| {
            sender.lock().unwrap().send(number).unwrap();
            while let Some(head) = read_head(&mut socket) {
                let answer = match head.split(' ').nth(1) {
                Some("/up/chunked") => {
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n\
                     0\r\n\r\n".to_owned()
                }
                Some("/up/large") => {
                    let body = "z".repeat(1_000_000);
                    format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{body}")
                }
                Some("/up/hints") => {
                    "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\
                     content-length: 1\r\n\r\nh".to_owned()
                }
                _ => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            };
                socket.write_all(answer.as_bytes()).unwrap();
            }
        });
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    for _ in 0..3 {
        assert_eq!(client.get("/up/chunked").body, "abcdefg");
        assert_eq!(client.get("/up/large").body.len(), 1_000_000);
        assert_eq!(client.get("/up/hints").body, "h");
        client.send("HEAD /up/empty HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(client.head().unwrap().starts_with("HTTP/1.1 204"));
    }
    assert_eq!(accepted.try_iter().count(), 1);
}

#[test]
fn a_kept_connection_that_the_upstream_closed_costs_no_request() {
    let (sender, closed) = channel();
    let sender = std::sync::Mutex::new(sender);
    let address = raw_upstream(move |_, mut socket| {
        if read_head(&mut socket).is_some() {
            socket.write_all(OK).unwrap();
        }
        drop(socket);
        sender.lock().unwrap().send(()).unwrap();
    });
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    for _ in 0..10 {
        let answer = client.get("/up");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
        closed.recv_timeout(SOON).unwrap();
        // The worker learns of it from the kernel before it learns of the next request.
        assert_eq!(client.get("/hello").status, 200);
    }
}

#[test]
fn a_request_that_was_written_is_never_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let address = raw_upstream(move |_, mut socket| {
        while read_head(&mut socket).is_some() {
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                return;
            }
            socket.write_all(OK).unwrap();
        }
    });
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    assert_eq!(client.get("/up").status, 200);
    let answer = client.get("/up");
    assert_eq!((answer.status, answer.body.as_str()), (502, "unavailable"));
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[test]
fn an_idle_connection_is_closed_before_the_upstream_would() {
    let (sender, closed) = channel();
    let sender = std::sync::Mutex::new(sender);
    let address = raw_upstream(move |_, mut socket| {
        read_head(&mut socket);
        socket.write_all(OK).unwrap();
        let begun = Instant::now();
        assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
        sender.lock().unwrap().send(begun.elapsed()).unwrap();
    });
    let mut upstream = upstream_at(address);
    upstream.idle_timeout = Duration::from_millis(300);
    let server = start(limits(), Some(upstream));
    assert_eq!(Client::connect(&server).get("/up").status, 200);
    let idle = closed.recv_timeout(SOON).unwrap();
    assert!(idle >= Duration::from_millis(250) && idle < Duration::from_secs(4), "{idle:?}");
}

#[test]
fn an_upstream_that_takes_too_long_is_a_timeout_and_its_connection_is_not_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = raw_upstream(move |number, mut socket| {
        count.fetch_add(1, Ordering::SeqCst);
        read_head(&mut socket);
        if number == 0 {
            let _ = socket.read(&mut [0; 1]);
        } else {
            socket.write_all(OK).unwrap();
        }
    });
    let mut upstream = upstream_at(address);
    upstream.response_timeout = Duration::from_millis(300);
    let server = start(limits(), Some(upstream));
    let mut client = Client::connect(&server);
    let begun = Instant::now();
    let answer = client.get("/up");
    assert_eq!((answer.status, answer.body.as_str()), (504, "timeout"));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(client.get("/up").status, 200);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[test]
fn the_time_for_an_answer_begins_with_the_last_byte_of_the_request() {
    let address = raw_upstream(move |_, mut socket| {
        read_head(&mut socket);
        let mut body = [0; 4];
        socket.read_exact(&mut body).unwrap();
        socket.write_all(OK).unwrap();
    });
    let mut upstream = upstream_at(address);
    upstream.response_timeout = Duration::from_millis(400);
    let server = start(limits(), Some(upstream));
    let mut client = Client::connect(&server);
    client.send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n");
    for byte in ["a", "b", "c", "d"] {
        std::thread::sleep(Duration::from_millis(250));
        client.send(byte);
    }
    assert_eq!(client.answer().unwrap().status, 200);
}

#[test]
fn a_refused_connection_is_502_and_the_gauge_says_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    assert_eq!(client.get("/up").status, 502);
    let line = format!(r#"bindgate_upstream_up{{server="{address}",upstream="backend"}}"#);
    server.await_metric(&line, 0);
    let revived = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = revived.accept().unwrap();
        read_head(&mut socket);
        socket.write_all(OK).unwrap();
    });
    assert_eq!(client.get("/up").status, 200);
    server.await_metric(&line, 1);
}

#[test]
fn no_more_connections_than_configured_are_opened() {
    let (arrive, arrived) = channel();
    let (release, released) = channel::<()>();
    let ends = std::sync::Mutex::new((arrive, released));
    let address = raw_upstream(move |_, mut socket| {
        while read_head(&mut socket).is_some() {
            let ends = ends.lock().unwrap();
            ends.0.send(()).unwrap();
            ends.1.recv_timeout(SOON).unwrap();
            socket.write_all(OK).unwrap();
        }
    });
    let mut upstream = upstream_at(address);
    upstream.connections = 1;
    upstream.connect_timeout = Duration::from_millis(300);
    let server = start(limits(), Some(upstream));
    let mut first = Client::connect(&server);
    let mut second = Client::connect(&server);
    first.send("GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n");
    arrived.recv_timeout(SOON).unwrap();
    let refused = second.get("/up");
    assert_eq!((refused.status, refused.body.as_str()), (503, "overloaded"));
    release.send(()).unwrap();
    assert_eq!(first.answer().unwrap().status, 200);
    release.send(()).unwrap();
    assert_eq!(second.get("/up").status, 200);
}

#[test]
fn an_upgraded_connection_carries_both_ways() {
    let address = raw_upstream(move |_, mut socket| {
        let head = read_head(&mut socket).unwrap();
        assert!(head.contains("Upgrade: echo"), "{head}");
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\
                      \r\nhello ";
        socket.write_all(switch.as_bytes()).unwrap();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            socket.write_all(&buffer[..count]).unwrap();
        }
    });
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    client.send(
        "GET /up HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst ",
    );
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    client.send("second");
    let mut echoed = [0; 18];
    client.0.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"hello first second");
    server.await_metric(r#"bindgate_connections_open{listener="https"}"#, 1);
}

#[test]
fn an_upload_waits_for_the_upstream_and_arrives_whole() {
    const SIZE: usize = 64 << 20;
    let (go, gone) = channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let address = raw_upstream(move |_, mut socket| {
        read_head(&mut socket);
        gone.lock().unwrap().recv_timeout(SOON).unwrap();
        let (mut left, mut buffer) = (SIZE, vec![0; 1 << 16]);
        while left > 0 {
            left -= socket.read(&mut buffer).unwrap();
        }
        socket.write_all(OK).unwrap();
    });
    let server = start(limits(), Some(upstream_at(address)));
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| {
            let mut client = Client::connect(&server);
            client.send(&format!(
                "POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n"
            ));
            let chunk = "x".repeat(1 << 16);
            for _ in 0..SIZE / chunk.len() {
                client.send(&chunk);
                sent.fetch_add(chunk.len(), Ordering::SeqCst);
            }
            client.answer().unwrap().status
        });
        // It stops: nobody reads. Kernel buffers hold some MiB, the gateway little.
        let mut before = usize::MAX;
        while before != sent.load(Ordering::SeqCst) {
            before = sent.load(Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
        }
        assert!(before < SIZE * 3 / 4, "{before} bytes were taken while nobody read");
        go.send(()).unwrap();
        assert_eq!(upload.join().unwrap(), 200);
    });
}

#[test]
fn a_client_that_breaks_off_its_body_is_not_the_upstreams_fault() {
    let (sender, seen) = channel();
    let sender = std::sync::Mutex::new(sender);
    let address = raw_upstream(move |_, mut socket| {
        read_head(&mut socket);
        let mut body = Vec::new();
        let _ = socket.read_to_end(&mut body);
        sender.lock().unwrap().send(body).unwrap();
    });
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nXX");
    drop(client);
    let body = seen.recv_timeout(SOON).unwrap();
    assert!(!body.ends_with(b"0\r\n\r\n"), "an unfinished body must not look finished");
    let metrics = String::from_utf8(server.metrics.encode().unwrap()).unwrap();
    assert!(!metrics.contains(r#"result="unavailable""#), "{metrics}");
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    let address = raw_upstream(move |_, mut socket| {
        read_head(&mut socket);
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .unwrap();
    });
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    client.send("GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // Whether the head came before the end was seen does not matter.
    let (answer, clean) = client.rest();
    assert!(!answer.contains("\r\n0\r\n\r\n") && !clean, "{answer:?}");
}

#[test]
fn a_head_without_measure_from_the_upstream_is_502() {
    let address = raw_upstream(move |_, mut socket| {
        read_head(&mut socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n");
        let field = format!("x-filler: {}\r\n", "a".repeat(1000));
        while socket.write_all(field.as_bytes()).is_ok() {}
    });
    let server = start(limits(), Some(upstream_at(address)));
    assert_eq!(Client::connect(&server).get("/up").status, 502);
}

#[test]
fn an_early_answer_ends_the_upload() {
    let address = raw_upstream(move |_, mut socket| {
        read_head(&mut socket);
        socket
            .write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig")
            .unwrap();
        let mut sink = Vec::new();
        let _ = socket.read_to_end(&mut sink);
    });
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    client.send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nabc");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (413, "big"));
}

#[test]
fn the_100_is_sent_when_the_upstream_is_connected_and_not_forwarded() {
    let (sender, heads) = channel();
    let sender = std::sync::Mutex::new(sender);
    let address = raw_upstream(move |_, mut socket| {
        sender.lock().unwrap().send(read_head(&mut socket).unwrap()).unwrap();
        socket.read_exact(&mut [0; 5]).unwrap();
        socket.write_all(OK).unwrap();
    });
    let server = start(limits(), Some(upstream_at(address)));
    let mut client = Client::connect(&server);
    client.send(
        "POST /up HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    assert!(client.head().unwrap().starts_with("HTTP/1.1 100"));
    assert!(!heads.recv_timeout(SOON).unwrap().to_ascii_lowercase().contains("expect"));
    client.send("12345");
    assert_eq!(client.answer().unwrap().status, 200);
}

#[tokio::test]
async fn an_http2_request_goes_on_as_http_1_1() {
    let (sender, heads) = channel();
    let sender = std::sync::Mutex::new(sender);
    let address = raw_upstream(move |_, mut socket| {
        while let Some(head) = read_head(&mut socket) {
            sender.lock().unwrap().send(head).unwrap();
            socket.write_all(OK).unwrap();
        }
    });
    let server = start(limits(), Some(upstream_at(address)));
    let (mut client, _connection) = http2(&server, 65_535).await;
    for _ in 0..2 {
        let answer = client.send_request(get("/up/a?b=c")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        let head = heads.recv_timeout(SOON).unwrap();
        assert!(head.starts_with("GET /up/a?b=c HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nHost: localhost\r\n"), "{head}");
    }
    drop(client);
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
