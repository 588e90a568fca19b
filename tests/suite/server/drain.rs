//! A drain loses no request: every head that was read gets its whole answer.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::support::{Client, Running, client_config, limits, start};

/// Requests over kept connections until the server is gone; counts what was answered.
fn load(server: &Running, answered: &AtomicUsize) {
    let config = client_config(&server.tls, &[]);
    // No connection any more: the drain is over for this client.
    while let Ok(mut client) = Client::with(server, Arc::clone(&config)) {
        loop {
            // A connection may be closed between two requests; never after one was sent.
            if client.try_send("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err() {
                break;
            }
            match client.answer() {
                Ok(answer) => {
                    assert_eq!(answer.body, "hello");
                    answered.fetch_add(1, Ordering::Relaxed);
                    if answer.head.contains("Connection: close") {
                        break;
                    }
                }
                Err(error) => panic!("a request was lost: {error}"),
            }
        }
    }
}

#[test]
fn no_request_is_lost_when_a_server_drains_under_load() {
    let mut server = start(limits(), None);
    let answered = AtomicUsize::new(0);
    let mut slow = Client::connect(&server);
    let mut trickle = Client::connect(&server);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(|| load(&server, &answered))).collect();
        while answered.load(Ordering::Relaxed) < 200 {
            std::thread::sleep(Duration::from_millis(1));
        }
        slow.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
        trickle.send("GET /trickle HTTP/1.1\r\nHost: localhost\r\n\r\n");
        trickle.head().unwrap();
        server.drain.begin();
        for client in clients {
            client.join().unwrap();
        }
    });
    let answer = slow.answer().unwrap();
    assert_eq!(answer.body, "slow but whole");
    assert!(answer.head.contains("Connection: close"));
    let (rest, clean) = trickle.rest();
    assert_eq!(rest.matches("drop ").count(), 8);
    assert!(rest.ends_with("0\r\n\r\n") && clean);
    server.join();
    assert!(begun.elapsed() < limits().drain_timeout, "the drain did not wait for its timeout");
    server.await_metric(r#"bindgate_connections_open{listener="https"}"#, 0);
}

#[test]
fn an_idle_connection_may_ask_once_more_while_the_server_drains() {
    let mut server = start(limits(), None);
    let mut idle = Client::connect(&server);
    let mut busy = Client::connect(&server);
    assert!(!idle.get("/hello").head.contains("Connection: close"));
    busy.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // Once this is answered the head above was read, too.
    assert_eq!(idle.get("/hello").status, 200);
    server.drain.begin();
    while Client::with(&server, client_config(&server.tls, &[])).is_ok() {}
    let last = idle.get("/hello");
    assert!(last.head.contains("Connection: close"), "{}", last.head);
    assert_eq!(idle.rest(), (String::new(), true));
    assert_eq!(busy.answer().unwrap().body, "slow but whole");
    server.join();
}

#[test]
fn a_drain_ends_at_its_timeout_whatever_is_open() {
    let mut limits = limits();
    limits.drain_timeout = Duration::from_millis(500);
    let mut server = start(limits, None);
    let mut endless = Client::connect(&server);
    endless.send("GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n");
    endless.head().unwrap();
    let begun = Instant::now();
    server.drain.begin();
    server.join();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn the_answer_that_the_service_calls_the_last_one_is_the_last() {
    let server = start(limits(), None);
    let mut client = Client::connect(&server);
    assert!(client.get("/last").head.contains("Connection: close"));
    assert_eq!(client.rest(), (String::new(), true));
    let refused = Client::with(&server, client_config(&server.tls, &[b"nonsense"]));
    assert_ne!(refused.err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
}
