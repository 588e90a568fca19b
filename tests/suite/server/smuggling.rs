//! One framing, one request: what reaches the upstream's socket when a client
//! frames its request oddly (security rule 23).

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::support::{Client, limits, raw_upstream, start, upstream_at};

/// An upstream that answers the first head, and hands over all it received within a while.
fn recorder() -> (SocketAddr, Receiver<String>) {
    let (sender, receiver) = channel();
    let sender = std::sync::Mutex::new(sender);
    let address = raw_upstream(move |_, mut socket| {
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..count]);
        }
        // Said, so that the next request is never sent on a connection that is just closing.
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        let _ = socket.write_all(answer);
        let _ = sender.lock().unwrap().send(String::from_utf8_lossy(&seen).into_owned());
    });
    (address, receiver)
}

#[test]
fn what_frames_a_request_oddly_is_refused_and_never_forwarded() {
    let (upstream, seen) = recorder();
    let server = start(limits(), Some(upstream_at(upstream)));
    let odd = [
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nabcde",
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd",
        "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "POST /up HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /up HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
        "GET /up HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n",
        "GET /up HTTP/1.1\r\nHost: a\r\nX-\0A: b\r\n\r\n",
        "GET  /up HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /up HTTP/1.1 \r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in odd {
        let mut client = Client::connect(&server);
        client.send(request);
        let answer = client.answer();
        if let Ok(answer) = &answer {
            assert_eq!(answer.status, 400, "{request:?}: {answer:?}");
        }
        assert!(client.rest().0.is_empty(), "closed after {request:?}");
    }
    assert!(seen.try_recv().is_err(), "nothing of it reached the upstream");
    server.await_metric("bindgate_http_malformed_total", odd.len() as u64);
}

#[test]
fn the_upstream_sees_one_freshly_made_framing() {
    let (upstream, seen) = recorder();
    let server = start(limits(), Some(upstream_at(upstream)));
    let smuggled = "GET /stolen HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Client::connect(&server);
    client.send(&format!(
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{smuggled}\r\n0\r\n\r\n",
        smuggled.len()
    ));
    let first = seen.recv_timeout(super::support::SOON).unwrap();
    let (head, body) = first.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
    assert!(body.starts_with(&format!("{:X}\r\n{smuggled}", smuggled.len())), "{body}");

    let mut client = Client::connect(&server);
    client.send("POST /up HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 3\n\nabc");
    let second = seen.recv_timeout(super::support::SOON).unwrap();
    assert_eq!(second.matches("Content-Length: 3").count(), 1, "{second}");
    assert!(second.ends_with("\r\n\r\nabc"), "{second}");
}

#[test]
fn a_chunked_body_with_a_broken_chunk_never_ends_well_at_the_upstream() {
    let (upstream, seen) = recorder();
    let server = start(limits(), Some(upstream_at(upstream)));
    for chunk in ["-1\r\n", "1g\r\n", "ffffffffffffffffff\r\n", "3\r\nabcX"] {
        let mut client = Client::connect(&server);
        client.send(&format!(
            "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
        ));
        let upstream_saw = seen.recv_timeout(super::support::SOON).unwrap();
        assert!(!upstream_saw.ends_with("0\r\n\r\n"), "{chunk:?} became {upstream_saw:?}");
    }
}
