//! The connections of one worker to one upstream: the most recently used one is
//! used again first, an idle one closes before the upstream would close it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::body::UpstreamBody;
use super::channel::{Channel, Outcome};
use super::connect::Connector;
use super::{BoxError, Outgoing, SendError};
use crate::config::Upstream;
use crate::metrics::{Histogram, IntCounter, Metrics};

/// One worker's connections to one upstream; clones share them. Used inside a
/// `LocalRuntime` (or `LocalSet`).
pub struct Pool<R: Outgoing> {
    shared: Rc<Shared<R::Body>>,
    takes: PhantomData<fn(R)>,
}

impl<R: Outgoing> Clone for Pool<R> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), takes: PhantomData }
    }
}

pub(crate) struct Shared<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> {
    connector: Connector,
    /// The oldest in front.
    idle: RefCell<VecDeque<Idle<B>>>,
    /// Whether the task that closes idle connections was started.
    swept: Cell<bool>,
    /// Wakes that task when there is something idle again, and when the pool is gone.
    became_idle: Rc<Notify>,
    /// One permit a request under way. Idle connections need none: a new one is opened
    /// only when none is idle, so all together are never more than the permits.
    permits: Arc<Semaphore>,
    waiting: Cell<usize>,
    limits: Limits,
    metrics: PoolMetrics,
}

struct Idle<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> {
    channel: Box<Channel<B>>,
    until: Instant,
}

struct Limits {
    connections: usize,
    wait: Duration,
    response: Duration,
    idle: Duration,
}

struct PoolMetrics {
    answered: IntCounter,
    duration: Histogram,
    all: Metrics,
    upstream: String,
}

impl<R: Outgoing> Pool<R> {
    /// No connection yet; none is opened before the first request.
    #[must_use]
    pub fn new(upstream: &Upstream, metrics: &Metrics) -> Self {
        let shared = Shared {
            connector: Connector::new(upstream, metrics),
            idle: RefCell::default(),
            swept: Cell::new(false),
            became_idle: Rc::default(),
            permits: Arc::new(Semaphore::new(upstream.connections)),
            waiting: Cell::new(0),
            limits: Limits {
                connections: upstream.connections,
                wait: upstream.connect_timeout,
                response: upstream.response_timeout,
                idle: upstream.idle_timeout,
            },
            metrics: PoolMetrics {
                answered: metrics.upstream_requests(&upstream.name, "ok"),
                duration: metrics.upstream_duration(&upstream.name),
                all: metrics.clone(),
                upstream: upstream.name.clone(),
            },
        };
        Self { shared: Rc::new(shared), takes: PhantomData }
    }

    /// Sends a request as HTTP/1.1 and waits for its answer's head. It is sent a second time
    /// only when a kept connection turned out to be closed before a byte was written.
    ///
    /// Answers with 101 can be upgraded (`hyper::upgrade::on`); their connection leaves the
    /// pool. Dropping the future or an unfinished answer closes the connection.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, outgoing: R) -> Result<Response<UpstreamBody<R::Body>>, SendError> {
        self.send_within(outgoing, None).await
    }

    /// The same, perhaps with another patience than `upstream.response_timeout`.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send_within(
        &self,
        outgoing: R,
        patience: Option<Duration>,
    ) -> Result<Response<UpstreamBody<R::Body>>, SendError> {
        let begun = Instant::now();
        let patience = patience.unwrap_or(self.shared.limits.response);
        let result = self.shared.send((outgoing.into_request(), patience), begun).await;
        let metrics = &self.shared.metrics;
        match &result {
            Ok(_) => {
                metrics.answered.inc();
                metrics.duration.observe(begun.elapsed().as_secs_f64());
            }
            Err(error) => {
                metrics.all.upstream_requests(&metrics.upstream, error.label()).inc();
            }
        }
        result
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> Shared<B> {
    async fn send(
        self: &Rc<Self>,
        (mut request, patience): (Request<B>, Duration),
        now: Instant,
    ) -> Result<Response<UpstreamBody<B>>, SendError> {
        *request.version_mut() = Version::HTTP_11;
        let permit = self.permit().await?;
        loop {
            let kept = self.take_idle(now);
            let reused = kept.is_some();
            let mut channel = match kept {
                Some(channel) => channel,
                None => self.open().await?,
            };
            match channel.exchange(request, patience).await {
                Outcome::Answered(answer) => {
                    let lease = Lease { pool: Rc::clone(self), channel: Some(channel), permit };
                    return Ok(UpstreamBody::attach(answer, lease));
                }
                // The upstream closed it while it was idle, and has seen nothing.
                Outcome::Unsent(unsent) if reused => request = unsent,
                Outcome::Unsent(_) => {
                    return Err(SendError::Unavailable("closed before the request".into()));
                }
                Outcome::Failed(error) => return Err(error),
            }
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, SendError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        if self.waiting.get() >= self.limits.connections {
            return Err(SendError::Overloaded);
        }
        let _waiting = Waiting::begin(&self.waiting);
        match timeout(self.limits.wait, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(SendError::Overloaded),
        }
    }

    fn take_idle(&self, now: Instant) -> Option<Box<Channel<B>>> {
        let newest = self.idle.borrow_mut().pop_back()?;
        if newest.until > now {
            return Some(newest.channel);
        }
        // All others are older still.
        let expired = self.idle.take();
        drop(expired);
        None
    }

    fn keep(&self, channel: Box<Channel<B>>) {
        let until = Instant::now() + self.limits.idle;
        let mut idle = self.idle.borrow_mut();
        idle.push_back(Idle { channel, until });
        if idle.len() == 1 {
            self.became_idle.notify_one();
        }
    }

    /// Opens a connection, and sees to it that idle ones will be closed.
    async fn open(self: &Rc<Self>) -> Result<Box<Channel<B>>, SendError> {
        if !self.swept.replace(true) {
            let became_idle = Rc::clone(&self.became_idle);
            tokio::task::spawn_local(sweep(Rc::downgrade(self), became_idle));
        }
        Channel::open(self.connector.connect().await?).await
    }

    /// Closes what is idle for too long; says when to look again, if anything is left.
    fn close_expired(&self) -> Option<Instant> {
        let now = Instant::now();
        loop {
            let mut idle = self.idle.borrow_mut();
            let oldest = idle.front()?;
            if oldest.until > now {
                return Some(oldest.until);
            }
            let expired = idle.pop_front();
            drop(idle);
            drop(expired);
        }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> Drop for Shared<B> {
    fn drop(&mut self) {
        self.became_idle.notify_one();
    }
}

/// Closes connections whose time is over, also when requests cease; ends with the pool.
async fn sweep<B>(pool: Weak<Shared<B>>, became_idle: Rc<Notify>)
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static,
{
    while let Some(next) = pool.upgrade().map(|pool| pool.close_expired()) {
        match next {
            Some(next) => tokio::time::sleep_until(next).await,
            None => became_idle.notified().await,
        }
    }
}

/// One who waits for a connection.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The use of a connection by one request. Dropped, it gives back what can be used again.
pub(crate) struct Lease<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> {
    pool: Rc<Shared<B>>,
    channel: Option<Box<Channel<B>>>,
    /// Given back after the channel, so that whoever waits finds it.
    #[expect(dead_code, reason = "held for its drop")]
    permit: OwnedSemaphorePermit,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> Lease<B> {
    pub(crate) fn channel(&mut self) -> Option<&mut Channel<B>> {
        self.channel.as_deref_mut()
    }

    /// Whether the whole answer is here already.
    pub(crate) fn is_over(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.is_idle())
    }

    /// Takes the connection out of the pool.
    pub(crate) fn leave(mut self) -> Option<Box<Channel<B>>> {
        self.channel.take()
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin + 'static> Drop for Lease<B> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take()
            && channel.is_idle()
        {
            self.pool.keep(channel);
        }
    }
}
