//! A WebSocket after its handshake: bytes both ways until one end closes, the
//! session ends, or the gateway drains. Knows no frames.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use crate::gateway::lifetime::SessionWatch;
use crate::metrics::IntGauge;
use crate::server::Peer;
use crate::session::VerifiedIdentity;

/// How many WebSockets are open over all workers, and how many may be.
#[derive(Clone)]
pub struct WebSocketSlots {
    open: Arc<AtomicUsize>,
    gauge: IntGauge,
}

/// One open WebSocket.
pub struct WebSocketSlot(WebSocketSlots);

impl WebSocketSlots {
    /// Counts into this gauge.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        Self { open: Arc::default(), gauge }
    }

    /// A slot, unless `max` are taken.
    #[must_use]
    pub fn take(&self, max: usize) -> Option<WebSocketSlot> {
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < max).then_some(open + 1)
        });
        taken.ok()?;
        self.gauge.inc();
        Some(WebSocketSlot(self.clone()))
    }
}

impl Drop for WebSocketSlot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.gauge.dec();
    }
}

/// What an open WebSocket holds on to.
pub(super) struct Tunnel {
    /// Its place among all.
    pub slot: WebSocketSlot,
    /// The client's connection, which keeps its own slot meanwhile and says when a drain
    /// has come to what is left.
    pub peer: Rc<Peer>,
    /// Whose it is; `None` on a public route without a session.
    pub identity: Option<VerifiedIdentity>,
    /// Ends it with its session.
    pub watch: Option<SessionWatch>,
}

/// Carries bytes between both ends until something ends it.
pub(super) async fn splice(client: OnUpgrade, upstream: OnUpgrade, tunnel: Tunnel) {
    let Tunnel { slot, peer, identity, mut watch } = tunnel;
    if let Ok((client, upstream)) = tokio::try_join!(client, upstream) {
        let mut client = ActiveClient { io: TokioIo::new(client), identity };
        let mut upstream = TokioIo::new(upstream);
        let ended = async {
            match &mut watch {
                Some(watch) => watch.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Either end's error or close ends both; the bytes were not ours to judge.
            _ = copy_bidirectional(&mut client, &mut upstream) => {}
            () = ended => {}
            () = peer.ending() => {}
        }
    }
    drop(slot);
}

/// The client's end; what it sends counts as activity of its session.
struct ActiveClient {
    io: TokioIo<Upgraded>,
    identity: Option<VerifiedIdentity>,
}

impl AsyncRead for ActiveClient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        if result.is_ready()
            && buffer.filled().len() > before
            && let Some(identity) = &self.identity
        {
            identity.touch();
        }
        result
    }
}

impl AsyncWrite for ActiveClient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
