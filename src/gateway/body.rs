//! Bodies on their way through: the client's, bounded and timed, and the
//! answer's, which ends when its session ends. Knows no routes and no rules.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::gateway::guess::Guess;
use crate::gateway::lifetime::SessionWatch;
use crate::gateway::observe::Finish;
use crate::server::BoxError;
use crate::upstream::UpstreamBody;
use crate::wire::headers::FoldedNames;

/// Why a client's body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// More bytes than the limit allows.
    #[error("the request's body is larger than the limit")]
    TooLarge,
    /// No byte came in time.
    #[error("the request's body stopped coming")]
    Stalled,
    /// The client broke off or sent malformed framing.
    #[error("the client broke off its request's body")]
    Broken,
}

/// Where the fault of a client's body is found after the upstream gave up on it.
pub(super) type FaultCell = Rc<Cell<Option<BodyFault>>>;

/// The client's body on its way to the upstream: bounded, timed, its trailers
/// stripped of every name that is not the client's to set.
pub struct ClientBody(Option<Flow>);

struct Flow {
    incoming: Incoming,
    bytes_left: u64,
    idle_timeout: Duration,
    idle: Option<Pin<Box<Sleep>>>,
    idle_armed: bool,
    forbidden_trailers: Rc<FoldedNames>,
    fault: FaultCell,
}

impl ClientBody {
    /// No body.
    pub const fn empty() -> Self {
        Self(None)
    }

    /// Wraps a request's body; the cell tells later why it ended early.
    pub fn new(
        incoming: Incoming,
        bytes_max: u64,
        idle_timeout: Duration,
        forbidden_trailers: Rc<FoldedNames>,
    ) -> (Self, FaultCell) {
        let fault = FaultCell::default();
        let flow = Flow {
            incoming,
            bytes_left: bytes_max,
            idle_timeout,
            idle: None,
            idle_armed: false,
            forbidden_trailers,
            fault: Rc::clone(&fault),
        };
        (Self(Some(flow)), fault)
    }
}

impl Flow {
    fn fail(&mut self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.fault.set(Some(fault));
        Poll::Ready(Some(Err(fault.into())))
    }

    /// Whether the client has paused too long; arms the timer on the first pause.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + self.idle_timeout;
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !self.idle_armed {
            idle.as_mut().reset(deadline);
            self.idle_armed = true;
        }
        idle.as_mut().poll(cx)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => {
                ready!(self.poll_stalled(cx));
                return self.fail(BodyFault::Stalled);
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(_))) => return self.fail(BodyFault::Broken),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        self.idle_armed = false;
        match frame.into_data() {
            Ok(data) => match self.bytes_left.checked_sub(data.len() as u64) {
                Some(left) => {
                    self.bytes_left = left;
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                None => self.fail(BodyFault::TooLarge),
            },
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    let kept = without(trailers, &self.forbidden_trailers);
                    Poll::Ready(Some(Ok(Frame::trailers(kept))))
                }
                Err(_) => Poll::Ready(None),
            },
        }
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Some(flow) => flow.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|flow| flow.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |flow| flow.incoming.size_hint())
    }
}

fn without(mut trailers: HeaderMap, forbidden: &FoldedNames) -> HeaderMap {
    crate::wire::headers::strip(&mut trailers, forbidden);
    trailers
}

/// The body of an answer.
pub enum Body {
    /// One of ours, whole.
    Own(Option<Bytes>),
    /// The upstream's, streamed.
    Upstream(Streamed),
}

/// What an upstream's response carries.
pub(super) type Received = UpstreamBody<ClientBody>;

/// The upstream's body on its way to the client; broken off when the session
/// it is answered under ends.
pub struct Streamed {
    incoming: Received,
    watch: Option<SessionWatch>,
    guess: Option<Box<Guess>>,
    _finish: Finish,
}

impl Body {
    /// No body at all.
    pub const fn empty() -> Self {
        Self::Own(None)
    }

    /// One of ours.
    pub fn own(bytes: impl Into<Bytes>) -> Self {
        Self::Own(Some(bytes.into()))
    }

    /// The upstream's; `watch` is `None` on public routes without a session, `guess`
    /// where the body says nothing of a code.
    #[must_use]
    pub const fn streamed(
        incoming: Received,
        watch: Option<SessionWatch>,
        guess: Option<Box<Guess>>,
        finish: Finish,
    ) -> Self {
        Self::Upstream(Streamed { incoming, watch, guess, _finish: finish })
    }
}

/// The session ended while its answer was under way.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the session ended")]
struct SessionEnded;

impl Streamed {
    /// Shows a guess what passes; unread, unfinished or broken off it stays counted.
    fn watch_guess(&mut self, frame: Option<&Result<Frame<Bytes>, BoxError>>) {
        let Some(guess) = &mut self.guess else { return };
        match frame {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| guess.see(data)),
            Some(Err(_)) => return self.guess = None,
            None => {}
        }
        // Whoever knows the length need not ask for the end.
        if frame.is_none() || self.incoming.is_end_stream() {
            guess.end();
            self.guess = None;
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(streamed) => {
                if let Some(watch) = &streamed.watch
                    && watch.has_ended()
                {
                    return Poll::Ready(Some(Err(SessionEnded.into())));
                }
                match Pin::new(&mut streamed.incoming).poll_frame(cx) {
                    Poll::Ready(frame) => {
                        streamed.watch_guess(frame.as_ref());
                        Poll::Ready(frame)
                    }
                    Poll::Pending => match &mut streamed.watch {
                        Some(watch) => {
                            ready!(watch.poll_ended(cx));
                            Poll::Ready(Some(Err(SessionEnded.into())))
                        }
                        None => Poll::Pending,
                    },
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Upstream(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream(streamed) => streamed.incoming.size_hint(),
        }
    }
}
