//! A request's body before anybody has read it: read whole when it is for us, left
//! alone when it is forwarded, thrown away when it was refused.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body as _;
use hyper::body::Incoming;

use crate::gateway::body::BodyFault;

/// How much of a refused body is taken and thrown away, and for how long.
const DISCARD_BYTES: usize = 64 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A request's body that nobody has read yet.
pub(crate) struct Unread {
    incoming: Option<Incoming>,
    /// Over HTTP/2, from a client that waits for nobody's leave to send it.
    may_discard: bool,
}

impl Unread {
    /// The place for the body of a request with this head.
    pub(super) fn of(parts: &Parts) -> Self {
        let may_discard = parts.version == Version::HTTP_2 && !parts.headers.contains_key(EXPECT);
        Self { incoming: None, may_discard }
    }

    /// Keeps the body.
    pub(super) fn put(&mut self, incoming: Incoming) {
        self.incoming = Some(incoming);
    }

    /// For whoever reads it.
    pub(super) const fn take(&mut self) -> Option<Incoming> {
        self.incoming.take()
    }

    /// Whether there is one, be it of unknown length.
    pub(super) fn is_there(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| !incoming.is_end_stream())
    }

    /// How long it is at least.
    pub(super) fn bytes_min(&self) -> u64 {
        self.incoming.as_ref().map_or(0, |incoming| incoming.size_hint().lower())
    }

    /// Takes what still comes of a refused body, a little and for a moment. Over HTTP/2
    /// the stream would be reset at once otherwise, and clients that still send (curl)
    /// take that for a failure and lose the answer.
    pub(super) fn discard(&mut self) {
        let unread = self.incoming.take().filter(|body| self.may_discard && !body.is_end_stream());
        let Some(mut unread) = unread else { return };
        tokio::task::spawn_local(tokio::time::timeout(DISCARD_TIME, async move {
            let mut bytes = 0;
            while bytes < DISCARD_BYTES {
                let frame = std::future::poll_fn(|cx| Pin::new(&mut unread).poll_frame(cx)).await;
                let Some(Ok(frame)) = frame else { return };
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        }));
    }
}

/// A body of ours to read, refused beyond its bound.
///
/// # Errors
/// The fault of the body.
pub(super) async fn read_bounded(
    mut incoming: Incoming,
    bytes_max: u64,
    idle_timeout: Duration,
) -> Result<Vec<u8>, BodyFault> {
    let mut bytes = Vec::new();
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx));
        let Ok(frame) = tokio::time::timeout(idle_timeout, frame).await else {
            return Err(BodyFault::Stalled);
        };
        let Some(frame) = frame else { return Ok(bytes) };
        let Ok(frame) = frame else { return Err(BodyFault::Broken) };
        if let Ok(data) = frame.into_data() {
            if (bytes.len() + data.len()) as u64 > bytes_max {
                return Err(BodyFault::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }
}
