//! The listener: accept, TLS, HTTP/1 or HTTP/2, limits, deadlines, drain. What is
//! done with a request is the [`Service`]'s matter: nothing here knows users,
//! routes or upstreams.

mod accept;
mod activity;
mod bind;
mod connection;
mod drain;
mod exchange;
mod handshake;
mod peer;
mod slots;
mod tls;
mod worker;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use ipnet::IpNet;

pub use accept::serve;
pub use bind::{Bound, bind};
pub use drain::Drain;
pub use exchange::Revocable;
pub use peer::Peer;
pub use slots::Slots;
pub use tls::{TlsError, tls_config};

use crate::config::Limits;
use crate::metrics::Metrics;

/// The error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What answers requests. One for each worker; it stays on the worker's thread.
pub trait Service: 'static {
    /// The answers' body.
    type Body: Body<Data = Bytes, Error = BoxError> + Unpin + 'static;

    /// Answers one request. Dropped when the client goes away.
    fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: Rc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;
}

/// What new connections get; a reload swaps it.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Certificate, versions, client certificates.
    pub tls: Arc<rustls::ServerConfig>,
    /// Every limit and deadline.
    pub limits: Arc<Limits>,
    /// Peers that may speak PROXY; not counted against the limit of one address.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
}

/// What all workers share; touched when a connection opens or ends, never by a request.
#[derive(Clone)]
pub struct ServerShared {
    /// What new connections get.
    pub listening: Arc<ArcSwap<Listening>>,
    /// How many connections are open.
    pub slots: Arc<Slots>,
    /// When to stop.
    pub drain: Drain,
    /// Where things are counted.
    pub metrics: Metrics,
}
