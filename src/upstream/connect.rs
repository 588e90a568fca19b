//! Opening one connection: resolve, connect, say whether the server is up.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::SendError;
use crate::config::{Upstream, UpstreamServer};
use crate::metrics::{IntGauge, Metrics};

/// Where an upstream is, and whether it was there the last time.
#[derive(Debug)]
pub(crate) struct Connector {
    server: UpstreamServer,
    literal: Option<SocketAddr>,
    timeout: Duration,
    up: IntGauge,
    was_up: Cell<bool>,
}

impl Connector {
    /// The server of `upstream`, taken to be up until a connect fails.
    pub(crate) fn new(upstream: &Upstream, metrics: &Metrics) -> Self {
        // The loader sees to it that there is one; an empty name would be "unavailable".
        let nowhere = || UpstreamServer { host: String::new(), port: 0 };
        let server = upstream.servers.first().cloned().unwrap_or_else(nowhere);
        let literal = server.host.parse::<IpAddr>().ok();
        let label = if server.host.contains(':') {
            format!("[{}]:{}", server.host, server.port)
        } else {
            format!("{}:{}", server.host, server.port)
        };
        let up = metrics.upstream_up(&upstream.name, &label);
        up.set(1);
        Self {
            literal: literal.map(|address| SocketAddr::new(address, server.port)),
            server,
            timeout: upstream.connect_timeout,
            up,
            was_up: Cell::new(true),
        }
    }

    /// Opens a connection; a name is resolved each time and its addresses tried in order.
    pub(crate) async fn connect(&self) -> Result<TcpStream, SendError> {
        let outcome = match timeout(self.timeout, self.open()).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(error)) => Err(SendError::Unavailable(Box::new(error))),
            Err(_) => Err(SendError::Timeout),
        };
        self.note(outcome.as_ref().err());
        outcome
    }

    async fn open(&self) -> io::Result<TcpStream> {
        if let Some(address) = self.literal {
            return connect_to(address).await;
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((self.server.host.as_str(), self.server.port)).await? {
            match connect_to(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Logs and states a change; the gauge is shared with the other workers.
    fn note(&self, error: Option<&SendError>) {
        let is_up = error.is_none();
        if self.was_up.replace(is_up) == is_up {
            return;
        }
        self.up.set(i64::from(is_up));
        let (host, port) = (self.server.host.as_str(), self.server.port);
        match error {
            None => tracing::info!(host, port, "upstream accepts connections again"),
            Some(error) => tracing::warn!(host, port, %error, "upstream accepts no connection"),
        }
    }
}

/// Whether a server accepts connections, and at which address; closes it at once.
///
/// # Errors
/// When it does not, or not in time.
pub async fn reach(server: &UpstreamServer, patience: Duration) -> io::Result<SocketAddr> {
    let connecting = TcpStream::connect((server.host.as_str(), server.port));
    timeout(patience, connecting).await?.and_then(|socket| socket.peer_addr())
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
