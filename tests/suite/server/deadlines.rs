//! Everything that waits for a client has a deadline, and every deadline ends
//! only the connection it is about.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bindgate::config::Limits;
use tokio::time::Instant;

use super::support::{Client, limits, start};

const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_mins(10);
/// How much later than its deadline a busy machine may close.
const SLACK: Duration = Duration::from_secs(4);

/// All deadlines far away, to bring one of them near.
fn patient() -> Limits {
    Limits {
        handshake_timeout: LONG,
        header_timeout: LONG,
        body_idle_timeout: LONG,
        idle_timeout: LONG,
        ..limits()
    }
}

fn assert_about(elapsed: Duration, deadline: Duration) {
    assert!(elapsed >= deadline, "closed {elapsed:?} after, too early");
    assert!(elapsed < deadline + SLACK, "closed {elapsed:?} after, too late");
}

#[test]
fn a_handshake_that_never_begins_is_given_up() {
    let server = start(Limits { handshake_timeout: SHORT, ..patient() }, None);
    let begun = Instant::now();
    let mut socket = TcpStream::connect(server.address).unwrap();
    assert_eq!(socket.read(&mut [0; 16]).unwrap(), 0);
    assert_about(begun.elapsed(), SHORT);
    let line = r#"bindgate_tls_handshakes_total{result="timeout",resumed="false",version="none"}"#;
    server.await_metric(line, 1);
}

#[test]
fn a_client_that_says_nothing_after_the_handshake_is_closed() {
    let server = start(Limits { header_timeout: SHORT, ..patient() }, None);
    let mut client = Client::connect(&server);
    let begun = Instant::now();
    assert_eq!(client.rest(), (String::new(), true));
    assert_about(begun.elapsed(), SHORT.saturating_sub(Duration::from_millis(50)));
}

#[test]
fn a_head_that_trickles_in_is_closed_without_an_answer() {
    let server = start(Limits { header_timeout: SHORT, ..patient() }, None);
    let mut client = Client::connect(&server);
    let begun = Instant::now();
    let mut sent = 0;
    for byte in "GET /hello HTTP/1.1\r\nHost: localhost\r\nX-Slow: aaaaaaaaaaaaaaaaaaaa".chars() {
        if client.try_send(&byte.to_string()).is_err() || begun.elapsed() > SHORT * 2 {
            break;
        }
        sent += 1;
        std::thread::sleep(Duration::from_millis(40));
    }
    assert!(sent > 5);
    assert_eq!(client.rest().0, "");
    assert_about(begun.elapsed(), SHORT);
}

#[test]
fn the_second_head_of_a_connection_has_the_same_deadline() {
    let server = start(Limits { header_timeout: SHORT, ..patient() }, None);
    let mut client = Client::connect(&server);
    assert_eq!(client.get("/hello").body, "hello");
    // Idle for longer than a head may take: that is another deadline.
    std::thread::sleep(SHORT * 2);
    let begun = Instant::now();
    client.send("GET /hello HT");
    assert_eq!(client.rest().0, "");
    assert_about(begun.elapsed(), SHORT);
}

#[test]
fn an_idle_connection_is_closed_with_a_goodbye() {
    let server = start(Limits { idle_timeout: SHORT, ..patient() }, None);
    let mut client = Client::connect(&server);
    for _ in 0..3 {
        assert_eq!(client.get("/hello").body, "hello");
        std::thread::sleep(SHORT / 2);
    }
    let begun = Instant::now();
    assert_eq!(client.rest(), (String::new(), true));
    assert!(begun.elapsed() < SHORT + SLACK);
}

#[test]
fn a_request_that_takes_longer_than_every_deadline_is_answered() {
    let short = Duration::from_millis(300);
    let limits = Limits {
        header_timeout: short,
        body_idle_timeout: short,
        idle_timeout: short,
        ..patient()
    };
    let server = start(limits, None);
    let mut client = Client::connect(&server);
    assert_eq!(client.get("/slow").body, "slow but whole");
    assert_eq!(client.get("/trickle").body, "drop ".repeat(8));
}

#[test]
fn a_client_that_takes_no_byte_of_its_answer_is_closed() {
    let server = start(Limits { body_idle_timeout: SHORT, ..patient() }, None);
    let mut client = Client::connect(&server);
    client.send("GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head().unwrap();
    server.await_metric(r#"bindgate_connections_open{listener="https"}"#, 0);
}

#[test]
fn one_address_gets_its_share_of_connections_and_not_more() {
    let server = start(Limits { connections_per_address: 2, ..patient() }, None);
    let mut first = Client::connect(&server);
    let mut second = Client::connect(&server);
    assert_eq!(first.get("/hello").status, 200);
    let mut third = TcpStream::connect(server.address).unwrap();
    assert_eq!(third.read(&mut [0; 16]).unwrap_or(0), 0, "closed at once");
    let line = r#"bindgate_limit_hits_total{limit="connections_per_address"}"#;
    server.await_metric(line, 1);
    server.await_metric(r#"bindgate_connections_open{listener="https"}"#, 2);
    second.0.get_mut().conn.send_close_notify();
    second.0.get_mut().flush().unwrap();
    drop(second);
    server.await_metric(r#"bindgate_connections_open{listener="https"}"#, 1);
    assert_eq!(Client::connect(&server).get("/hello").status, 200);
}

#[test]
fn all_together_get_no_more_connections_than_configured() {
    let server = start(Limits { connections: 1, ..patient() }, None);
    let mut first = Client::connect(&server);
    assert_eq!(first.get("/hello").status, 200);
    let mut second = TcpStream::connect(server.address).unwrap();
    assert_eq!(second.read(&mut [0; 16]).unwrap_or(0), 0);
    server.await_metric(r#"bindgate_limit_hits_total{limit="connections"}"#, 1);
}
