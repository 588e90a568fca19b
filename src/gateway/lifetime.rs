//! The end of a session, as seen by what outlives its request: streamed
//! answers, WebSockets and long waits for the upstream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::ambient::Clock;
use crate::session::VerifiedIdentity;

/// How often a waiting answer looks whether its session is still live. The
/// contract gives 1 s to end it; most answers are over before the first look,
/// so that an ordinary request never registers with its session.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// Watches one session on behalf of one answer.
pub struct SessionWatch {
    identity: VerifiedIdentity,
    clock: Clock,
    look: Option<Pin<Box<Sleep>>>,
}

impl SessionWatch {
    /// Watches this identity's session.
    pub const fn new(identity: VerifiedIdentity, clock: Clock) -> Self {
        Self { identity, clock, look: None }
    }

    /// Whether the session was revoked or is past its end.
    pub fn has_ended(&self) -> bool {
        self.identity.has_ended(self.clock.now())
    }

    /// Ready once the session has ended, within [`LOOK_EVERY`] of it.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
            if look.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.identity.has_ended(self.clock.now()) {
                return Poll::Ready(());
            }
            look.as_mut().reset(Instant::now() + LOOK_EVERY);
        }
    }

    /// Resolves once the session has ended.
    pub async fn ended(&mut self) {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await;
    }
}
