//! From an accepted socket to a TLS stream: the PROXY header of a trusted proxy,
//! then the handshake, both under one deadline.

use std::net::SocketAddr;

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Listening;
use crate::metrics::Metrics;
use crate::wire::client;
use crate::wire::proxy_protocol::read_header;

/// Why there is no TLS stream.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// The trusted proxy did not say whose connection this is.
    Announcement,
    /// The announced client has too many connections.
    Limit,
    /// The handshake broke off.
    Tls,
    /// It took too long.
    Timeout,
}

impl HandshakeError {
    const fn label(&self) -> &'static str {
        match self {
            Self::Announcement => "proxy_header",
            Self::Limit => "limit",
            Self::Tls => "failed",
            Self::Timeout => "timeout",
        }
    }
}

/// Whether connections of this peer begin with a PROXY header, and are not counted
/// against the limit of one address.
pub(crate) fn is_trusted(listening: &Listening, peer: SocketAddr) -> bool {
    client::is_trusted(peer.ip(), &listening.trusted_proxies)
}

/// Reads the PROXY header: the client's address, or `None` when the proxy speaks for itself.
pub(crate) async fn announced<S: AsyncRead + Unpin>(
    socket: &mut S,
) -> Result<Option<SocketAddr>, HandshakeError> {
    read_header(socket).await.map_err(|_| HandshakeError::Announcement)
}

/// Does the TLS handshake.
pub(crate) async fn tls<S: AsyncRead + AsyncWrite + Unpin>(
    listening: &Listening,
    socket: S,
) -> Result<TlsStream<S>, HandshakeError> {
    let acceptor = TlsAcceptor::from(std::sync::Arc::clone(&listening.tls));
    acceptor.accept(socket).await.map_err(|_| HandshakeError::Tls)
}

/// Counts a handshake's outcome.
pub(crate) fn count(metrics: &Metrics, outcome: Result<&ServerConnection, &HandshakeError>) {
    let counter = match outcome {
        Err(error) => metrics.tls_handshakes(error.label(), "none", "false"),
        Ok(tls) => {
            let version = match tls.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                _ => "none",
            };
            let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
            metrics.tls_handshakes("ok", version, if resumed { "true" } else { "false" })
        }
    };
    counter.inc();
}
