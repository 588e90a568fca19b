//! A listener whose connections all end with it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// How long to wait after a failed accept, so that a full descriptor table is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running service on a loopback port; dropping it ends listener and connections.
pub(super) struct Service {
    address: SocketAddr,
    task: AbortHandle,
}

impl Service {
    /// Serves every connection of `listener` with `serve`, on the current runtime.
    ///
    /// # Errors
    /// When the listener has no address.
    pub(super) fn start<F>(
        listener: TcpListener,
        serve: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, serve)).abort_handle();
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream, SocketAddr) -> F + Send)
where
    F: Future<Output = ()> + Send + 'static,
{
    // Aborts what is in it when this task ends.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, peer)) => {
                // Answers are small and wait for nobody; without it each costs a delayed ACK.
                if socket.set_nodelay(true).is_ok() {
                    connections.spawn(serve(socket, peer));
                }
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
