//! Connections to the backend: one pool a worker, HTTP/1.1 over TCP, each
//! connection driven by the request that uses it. Knows no sessions, routes or
//! rules: what it may send is decided by who makes an [`Outgoing`].

mod body;
mod channel;
mod connect;
mod deadline;
mod pool;

use bytes::Bytes;
use http::Request;
use http_body::Body;

pub use body::UpstreamBody;
pub use connect::reach;
pub use pool::Pool;

/// The error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request that may be sent. The pool takes nothing else, so that its owner alone
/// decides what is sent: with origin-form target, exactly one `Host`, and no
/// hop-by-hop header but those of an upgrade.
pub trait Outgoing {
    /// The request's body.
    type Body: Body<Data = Bytes, Error = BoxError> + Unpin + 'static;

    /// The request to put on the wire.
    fn into_request(self) -> Request<Self::Body>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The upstream cannot be reached, or broke off before its answer's head.
    #[error("the upstream is not available: {0}")]
    Unavailable(#[source] BoxError),
    /// Connecting, or the answer's head, took too long.
    #[error("the upstream is too slow")]
    Timeout,
    /// The client's body broke off; the upstream is not to blame.
    #[error("the request's body broke off: {0}")]
    RequestBody(#[source] BoxError),
    /// All connections are in use.
    #[error("too many requests for the upstream")]
    Overloaded,
}

impl SendError {
    /// The result's name in the metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout => "timeout",
            Self::RequestBody(_) => "request_body",
            Self::Overloaded => "overloaded",
        }
    }
}
