//! One connection to the upstream. Whoever has a request on it polls it: no task
//! of its own, so an answer wakes nobody but the one who waits for it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::{BoxError, SendError};

/// Bytes of an answer's head; hyper's own limit of 100 fields is kept.
const ANSWER_HEAD: usize = 64 * 1024;

/// hyper's connection with upgrades; its own type has no public name.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// One connection to the upstream.
pub(crate) struct Channel<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> {
    sender: SendRequest<Outbound<B>>,
    /// `None` once it has ended.
    connection: Option<Connection>,
    upload: Rc<Upload>,
    deadline: Deadline,
}

/// What became of a request.
pub(crate) enum Outcome<B> {
    /// The head of its answer is there.
    Answered(Response<Incoming>),
    /// The connection ended before anything of the request was written.
    Unsent(Request<B>),
    /// The upstream may have seen it.
    Failed(SendError),
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> Channel<B> {
    pub(crate) async fn open(socket: TcpStream) -> Result<Box<Self>, SendError> {
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_header_size(ANSWER_HEAD)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| SendError::Unavailable(Box::new(error)))?;
        Ok(Box::new(Self {
            sender,
            connection: Some(Box::pin(connection.with_upgrades())),
            upload: Rc::default(),
            deadline: Deadline::new(Instant::now()),
        }))
    }

    /// Whether the last exchange is over on both sides and another may begin.
    pub(crate) fn is_idle(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Sends one request and waits for its answer's head. `patience`: how long the upstream
    /// may take for it, or stop reading; time that the client takes for its body is not counted.
    pub(crate) async fn exchange(&mut self, request: Request<B>, patience: Duration) -> Outcome<B> {
        self.upload.begin();
        let request = request.map(|body| Outbound { body, upload: Rc::clone(&self.upload) });
        // Unconstrained: with a waker that wakes nobody, an exhausted budget would be a hang.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(request)));
        let (connection, deadline) = (&mut self.connection, &mut self.deadline);
        let upload = &self.upload;
        poll_fn(|cx| {
            drive(connection, cx);
            // Only the connection, polled just above, can make the answer ready:
            // a real waker would wake this very task once more for each request.
            if let Poll::Ready(result) =
                answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return Poll::Ready(match result {
                    Ok(answer) => Outcome::Answered(answer),
                    Err(error) => broken(error, upload),
                });
            }
            match upload.upstream_since.get() {
                Some(since) => deadline
                    .poll(cx, since + patience)
                    .map(|()| Outcome::Failed(SendError::Timeout)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Moves bytes; afterwards what there is of the answer can be taken from its body.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.connection, cx);
    }

    /// The connection itself, after an answer that took it over (101).
    pub(crate) fn into_connection(self) -> Option<Connection> {
        self.connection
    }
}

fn drive(connection: &mut Option<Connection>, cx: &mut Context<'_>) {
    if let Some(running) = connection
        && running.as_mut().poll(cx).is_ready()
    {
        // Dropping it gives back a request that was not begun.
        *connection = None;
    }
}

fn broken<B>(mut error: TrySendError<Request<Outbound<B>>>, upload: &Upload) -> Outcome<B> {
    if let Some(failure) = upload.failure.take() {
        return Outcome::Failed(SendError::RequestBody(failure));
    }
    match error.take_message() {
        Some(request) => Outcome::Unsent(request.map(|outbound| outbound.body)),
        None => Outcome::Failed(SendError::Unavailable(Box::new(error.into_error()))),
    }
}

/// How far the request's body is; one a connection, used by one request after the other.
#[derive(Debug, Default)]
struct Upload {
    /// Since when the upstream is the one waited for; `None`: the client is.
    upstream_since: Cell<Option<Instant>>,
    /// Why the client's body broke off.
    failure: RefCell<Option<BoxError>>,
}

impl Upload {
    fn begin(&self) {
        self.upstream_since.set(Some(Instant::now()));
        self.failure.take();
    }
}

/// The client's body on its way, seen by [`Upload`].
pub(crate) struct Outbound<B> {
    body: B,
    upload: Rc<Upload>,
}

/// hyper is told only that the body broke off; the cause stays with [`Upload`].
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off")]
struct BrokenOff;

impl<B> Body for Outbound<B>
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
        match polled {
            Poll::Pending => {
                this.upload.upstream_since.set(None);
                Poll::Pending
            }
            Poll::Ready(Some(Err(error))) => {
                this.upload.failure.replace(Some(error));
                Poll::Ready(Some(Err(Box::new(BrokenOff))))
            }
            ready @ Poll::Ready(_) => {
                this.upload.upstream_since.set(Some(Instant::now()));
                ready
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
