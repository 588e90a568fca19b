//! The upstream's answer on its way to the client: reading it moves the bytes.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::BoxError;
use super::pool::Lease;

/// The body of an upstream's answer. While nobody reads it nothing is read from the
/// upstream; dropped before its end, it closes the connection.
pub struct UpstreamBody<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> {
    incoming: Incoming,
    /// `None` once everything was received.
    lease: Option<Lease<B>>,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> UpstreamBody<B> {
    /// The answer with its connection attached, unless that is free already.
    pub(crate) fn attach(answer: Response<Incoming>, lease: Lease<B>) -> Response<Self> {
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody polls this body to the end, but the upgrade must be completed.
            if let Some(connection) = lease.leave().and_then(|channel| channel.into_connection()) {
                tokio::task::spawn_local(connection);
            }
            return answer.map(|incoming| Self { incoming, lease: None });
        }
        let lease = if lease.is_over() { None } else { Some(lease) };
        answer.map(|incoming| Self { incoming, lease })
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> Body for UpstreamBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut driven = false;
        loop {
            // A waker that wakes nobody: what comes here comes from `drive` just below.
            let mut here = Context::from_waker(Waker::noop());
            match Pin::new(&mut this.incoming).poll_frame(&mut here) {
                Poll::Ready(Some(Ok(frame))) => {
                    // The next request need not wait until the client took this.
                    if this.lease.as_ref().is_some_and(Lease::is_over) {
                        this.lease = None;
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(None) => {
                    this.lease = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => {
                    this.lease = None;
                    return Poll::Ready(Some(Err(Box::new(error))));
                }
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {}
            }
            let Some(channel) = this.lease.as_mut().and_then(Lease::channel) else {
                return Poll::Ready(Some(Err("the upstream's answer has no end".into())));
            };
            channel.drive(cx);
            driven = true;
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
