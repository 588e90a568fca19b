//! The PROXY header: demanded of trusted proxies, believed from nobody else.

use std::sync::Arc;
use std::time::Duration;

use bindgate::config::Limits;
use bindgate::server::Listening;

use super::support::{Client, Running, client_config, limits, start};

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n";

fn behind(trusted: &str, limits: Limits) -> Running {
    let server = start(limits, None);
    let before = server.listening.load_full();
    server.listening.store(Arc::new(Listening {
        tls: Arc::clone(&before.tls),
        limits: Arc::clone(&before.limits),
        trusted_proxies: vec![trusted.parse().unwrap()],
        proxy_protocol: true,
    }));
    server
}

fn announced(server: &Running, header: &[u8]) -> std::io::Result<Client> {
    Client::announced(server, client_config(&server.tls, &[]), header)
}

#[test]
fn a_trusted_proxy_says_whose_connection_it_is() {
    let server = behind("127.0.0.0/8", limits());
    let mut client = announced(&server, HEADER).unwrap();
    assert_eq!(client.get("/peer").body, "192.0.2.7:4711");
    let mut own = announced(&server, b"PROXY UNKNOWN\r\n").unwrap();
    assert!(own.get("/peer").body.starts_with("127.0.0.1:"));
}

#[test]
fn a_trusted_proxy_that_says_nothing_gets_no_connection() {
    let limits = Limits { handshake_timeout: Duration::from_millis(500), ..limits() };
    let server = behind("127.0.0.0/8", limits);
    assert!(announced(&server, b"").is_err());
    assert!(announced(&server, b"PROXY TCP4 192.0").is_err());
    let line = |result| {
        format!(
            r#"bindgate_tls_handshakes_total{{result="{result}",resumed="false",version="none"}}"#
        )
    };
    server.await_metric(&line("proxy_header"), 2);
}

#[test]
fn nobody_else_can_say_whose_connection_it_is() {
    let server = behind("10.0.0.0/8", limits());
    assert!(announced(&server, HEADER).is_err());
    let mut client = announced(&server, b"").unwrap();
    assert!(client.get("/peer").body.starts_with("127.0.0.1:"));
}

#[test]
fn the_limit_of_one_address_counts_the_client_and_not_the_proxy() {
    let server = behind("127.0.0.0/8", Limits { connections_per_address: 1, ..limits() });
    let mut first = announced(&server, HEADER).unwrap();
    assert_eq!(first.get("/hello").status, 200);
    assert!(announced(&server, HEADER).is_err());
    let other = b"PROXY TCP4 192.0.2.8 127.0.0.1 4711 443\r\n";
    assert_eq!(announced(&server, other).unwrap().get("/hello").status, 200);
}
