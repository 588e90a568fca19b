//! Who is at the other end of a connection, as far as sockets and the PROXY
//! protocol can say. Not who the user is.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::activity::Activity;
use super::exchange::{BodyPoll, Revocable};
use super::worker::{Stage, Worker};

/// The other end of one connection.
pub struct Peer {
    /// The client, as the PROXY protocol names it; otherwise the socket's other end.
    pub address: SocketAddr,
    /// The socket's other end: a client or a proxy.
    pub socket: SocketAddr,
    /// Our end of the socket.
    pub local: SocketAddr,
    close: Cell<bool>,
    body_poll: Cell<Option<BodyPoll>>,
    revocable: RefCell<Option<Revocable>>,
    activity: Arc<Activity>,
    worker: Rc<Worker>,
}

/// The addresses of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    pub(crate) socket: SocketAddr,
    pub(crate) local: SocketAddr,
}

impl Peer {
    pub(crate) fn new(addresses: Addresses, activity: Arc<Activity>, worker: Rc<Worker>) -> Self {
        Self {
            address: addresses.client,
            socket: addresses.socket,
            local: addresses.local,
            close: Cell::new(false),
            body_poll: Cell::new(None),
            revocable: RefCell::new(None),
            activity,
            worker,
        }
    }

    /// A peer without a connection, for tests of what stands above the server.
    ///
    /// # Panics
    /// Never: the name of its gauge is valid.
    #[cfg(test)]
    #[must_use]
    pub fn detached(address: SocketAddr) -> Rc<Self> {
        let addresses = Addresses { client: address, socket: address, local: address };
        let gauge = crate::metrics::IntGauge::new("open", "Open connections.").unwrap();
        Rc::new(Self::new(addresses, Arc::new(Activity::new()), Worker::new(gauge)))
    }

    /// The answer under way is the last one of this HTTP/1 connection.
    pub fn close_after_answer(&self) {
        self.close.set(true);
    }

    /// Resolves when the server drains and has come to ending what is left: WebSockets
    /// and streams without end should stop then. What does not is cut at `drain_timeout`.
    pub async fn ending(&self) {
        self.worker.closing_idle().await;
    }

    pub(crate) fn is_last_answer(&self) -> bool {
        self.close.get() || self.worker.stage() > Stage::Serving
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// What may have to end the answer under way; over HTTP/2 that of the stream just polled.
    pub(crate) fn revocable(&self) -> &RefCell<Option<Revocable>> {
        &self.revocable
    }

    pub(crate) fn note_body_poll(&self, seen: BodyPoll) {
        self.body_poll.set(Some(seen));
    }

    pub(crate) fn take_body_poll(&self) -> Option<BodyPoll> {
        self.body_poll.take()
    }
}
