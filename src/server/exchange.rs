//! One request and its answer on a connection: the guard that says when it is
//! over, the body that carries the guard, and the HTTP/2 stream's own deadline.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::peer::Peer;
use super::{BoxError, Service};

/// What the last poll of an answer's body brought. An HTTP/2 stream whose last poll
/// brought a frame and that still waits is waiting for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyPoll {
    Frame,
    Nothing,
}

/// How often an answer that may be revoked is looked at, also when its client reads
/// nothing and so nobody polls its body.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(400);

/// Says whether an answer must end before its time. A service puts it into a response's
/// extensions; the server asks it while the answer is under way.
#[derive(Clone)]
pub struct Revocable(Arc<dyn Fn() -> bool + Send + Sync>);

impl Revocable {
    /// `is_revoked` is asked a few times a second.
    pub fn new(is_revoked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_revoked))
    }

    pub(crate) fn is_revoked(&self) -> bool {
        (self.0)()
    }
}

/// A request under way; it is over when this is dropped.
struct Exchange(Rc<Peer>);

impl Exchange {
    fn begin(peer: Rc<Peer>) -> Self {
        peer.activity().begin_request();
        Self(peer)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.activity().end_request();
        self.0.revocable().take();
    }
}

/// Asks the service, and says `Connection: close` on the last answer of an HTTP/1 connection.
pub(crate) async fn answer<S: Service>(
    service: Rc<S>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<Answer<S::Body>>, Infallible> {
    let exchange = Exchange::begin(Rc::clone(&peer));
    let http1 = request.version() < Version::HTTP_2;
    let mut response = service.handle(request, Rc::clone(&peer)).await;
    if http1 && peer.is_last_answer() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(revocable) = response.extensions_mut().remove::<Revocable>() {
        peer.revocable().replace(Some(revocable));
    }
    Ok(response.map(|body| Answer { body, exchange }))
}

/// An answer's body; the exchange lasts as long as it does.
pub(crate) struct Answer<B> {
    body: B,
    exchange: Exchange,
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let seen = if polled.is_ready() { BodyPoll::Frame } else { BodyPoll::Nothing };
        this.exchange.0.note_body_poll(seen);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the streams of one HTTP/2 connection as tasks of this worker, and resets one
/// whose client grants no window for `patience`: the socket's own deadline doesn't see
/// it, because the other streams and pings flow on.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) peer: Rc<Peer>,
    pub(crate) patience: Duration,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(bounded(stream, self.clone()));
    }
}

async fn bounded<F: Future<Output = ()>>(stream: F, streams: Streams) {
    let mut stream = pin!(stream);
    let mut deadline: Option<Pin<Box<Sleep>>> = None;
    let mut waits_for_client = false;
    let mut revocable = None;
    poll_fn(|cx| {
        streams.peer.take_body_poll();
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(found) = streams.peer.revocable().take() {
            revocable = Some((found, Box::pin(tokio::time::sleep(LOOK_EVERY))));
        }
        if let Some((revocable, look)) = &mut revocable {
            while look.as_mut().poll(cx).is_ready() {
                if revocable.is_revoked() {
                    return Poll::Ready(());
                }
                look.as_mut().reset(Instant::now() + LOOK_EVERY);
            }
        }
        match streams.peer.take_body_poll() {
            Some(BodyPoll::Frame) => {
                waits_for_client = true;
                let end = Instant::now() + streams.patience;
                match &mut deadline {
                    Some(sleep) => sleep.as_mut().reset(end),
                    None => deadline = Some(Box::pin(tokio::time::sleep_until(end))),
                }
            }
            Some(BodyPoll::Nothing) => waits_for_client = false,
            None => {}
        }
        match &mut deadline {
            Some(sleep) if waits_for_client => sleep.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    })
    .await;
}
