//! Certificates, versions, resumption, reload.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use bindgate::config::{ClientVerification, TlsVersion};
use bindgate::server::{Listening, tls_config};

use super::support::{Client, Running, certificate, client_config, limits, start};

fn swap(server: &Running, tls: &bindgate::config::Tls) {
    let before = server.listening.load_full();
    server.listening.store(Arc::new(Listening {
        tls: tls_config(tls).unwrap(),
        limits: Arc::clone(&before.limits),
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
    }));
}

#[test]
fn a_reload_gives_new_connections_the_new_certificate_and_keeps_the_old_ones() {
    let server = start(limits(), None);
    let mut old = Client::connect(&server);
    assert_eq!(old.get("/hello").status, 200);
    let new = certificate();
    swap(&server, &new);
    assert_eq!(old.get("/hello").status, 200);
    assert!(Client::with(&server, client_config(&server.tls, &[])).is_err());
    let mut fresh = Client::with(&server, client_config(&new, &[])).unwrap();
    assert_eq!(fresh.get("/hello").status, 200);
}

#[test]
fn a_second_connection_resumes_and_versions_are_counted() {
    let server = start(limits(), None);
    let config = client_config(&server.tls, &[]);
    for _ in 0..2 {
        let mut client = Client::with(&server, Arc::clone(&config)).unwrap();
        assert_eq!(client.get("/hello").status, 200);
    }
    let line = |resumed| {
        format!(r#"bindgate_tls_handshakes_total{{result="ok",resumed="{resumed}",version="1.3"}}"#)
    };
    server.await_metric(&line("false"), 1);
    server.await_metric(&line("true"), 1);
}

#[test]
fn a_version_below_the_configured_one_is_refused() {
    let server = start(limits(), None);
    let mut tls = server.tls.clone();
    let mut old = (*client_config(&tls, &[])).clone();
    let old_only = rustls::ClientConfig::builder_with_provider(Arc::clone(old.crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(tls.certificates[0].clone()).unwrap();
    old = old_only.with_root_certificates(roots).with_no_client_auth();
    let old = Arc::new(old);
    let mut client = Client::with(&server, Arc::clone(&old)).unwrap();
    assert_eq!(client.get("/hello").status, 200);
    tls.min_version = TlsVersion::Tls13;
    swap(&server, &tls);
    assert!(Client::with(&server, old).is_err());
}

#[test]
fn mutual_tls_lets_in_only_who_shows_a_certificate_of_the_authority() {
    let server = start(limits(), None);
    let mut tls = server.tls.clone();
    let authority = certificate();
    tls.client = Some(ClientVerification { authorities: authority.certificates.clone() });
    swap(&server, &tls);
    // In TLS 1.3 the client learns of the refusal with its first read.
    let nobody = Client::with(&server, client_config(&tls, &[]));
    if let Ok(mut nobody) = nobody {
        let _ = nobody.try_send("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(nobody.answer().is_err());
    }
    let line = r#"bindgate_tls_handshakes_total{result="failed",resumed="false",version="none"}"#;
    server.await_metric(line, 1);
}

#[test]
fn plain_http_on_the_tls_port_gets_no_page() {
    let server = start(limits(), None);
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let _ = socket.read_to_end(&mut seen);
    assert!(!seen.starts_with(b"HTTP/"), "{seen:?}");
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_an_error() {
    let mut tls = certificate();
    tls.private_key = certificate().private_key;
    assert!(tls_config(&tls).is_err());
}
