//! Who a request comes from, as proved by its token and context cookie. The only
//! file that can make a `VerifiedIdentity`.

use std::sync::Arc;
use std::time::Duration;

use crate::ambient::{Clock, Timestamp};
use crate::identity::{Attributes, Reference, Role, SessionId, Subject};
use crate::session::live::{Live, Presented};
use crate::session::{Reason, Sessions};
use crate::token::{AssertionMemory, Claims, ContextHash, LEEWAY, TokenError};

/// A token whose signature and claims hold and whose context cookie came along.
/// Says nothing of expiry and revocation: `Sessions::admit` does, on every request.
#[derive(Clone)]
pub struct CheckedPair(Arc<Pair>);

/// Somebody who may act now: made from a checked pair only, after a look at
/// expiry and revocation. No `Default`, `From` or `Deserialize`.
#[derive(Clone)]
pub struct VerifiedIdentity(Arc<Pair>);

struct Pair {
    claims: Claims,
    live: Arc<Live>,
    clock: Clock,
}

/// How a token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In the token cookie, which the browser sends by itself.
    Cookie,
    /// As `Authorization: Bearer`.
    Authorization,
}

/// Whether somebody is there: what a page asks for by itself does not say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A person did something; the session's idle time begins anew.
    Active,
    /// The session stays as idle as it was.
    Passive,
}

/// Why a pair is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Revocations may be missing here, or the keys are not known yet.
    #[error("the store cannot answer")]
    StoreUnavailable,
    /// The token is malformed, forged, or of a wrong key, type or algorithm.
    #[error("{0}")]
    InvalidToken(TokenError),
    /// The context cookie is missing or not the token's.
    #[error("the context cookie is missing or not the token's")]
    ContextMismatch,
}

/// What may happen now with a checked pair.
pub enum Admission {
    /// Served.
    Live(VerifiedIdentity),
    /// Served; and its successor should go along with the answer.
    RenewInPassing(VerifiedIdentity),
    /// Past `exp`: served only after a renewal.
    RenewFirst,
    /// Revocations may be missing here: nobody can be let in.
    Unknown,
    /// Past `exp`, and not to be renewed.
    Expired,
    /// The session was revoked, is over, or was idle too long.
    Ended,
    /// A replaced token was used: the session has just been ended for it. The
    /// caller makes that durable with `Sessions::end` and `Reason::Stolen`.
    Stolen,
}

impl Sessions {
    /// Checks a token and its context cookie. The slow path: callers remember the
    /// pair, and forget it when `Sessions::version` changes.
    ///
    /// # Errors
    /// When the two do not prove anything.
    pub async fn check(
        &self,
        token: &str,
        context: Option<&[u8]>,
    ) -> Result<CheckedPair, CheckError> {
        if self.is_stale() {
            return Err(CheckError::StoreUnavailable);
        }
        let keys = self.keys.load_full();
        let claims = keys.check(token, self.clock.now()).map_err(CheckError::InvalidToken)?;
        let presented = context.map(ContextHash::of).ok_or(CheckError::ContextMismatch)?;
        if presented != claims.context {
            return Err(CheckError::ContextMismatch);
        }
        let live = if let Some(live) = self.live.in_use(claims.session) {
            live
        } else {
            // Without a record, be it lost or the store down, the token lives until its `exp`.
            let record = self.store.read(claims.session).await.ok().flatten();
            self.live.live(&claims, || record)
        };
        Ok(CheckedPair(Arc::new(Pair { claims, live, clock: self.clock.clone() })))
    }

    /// Looks at expiry and revocation: on every request, however the pair was found.
    pub fn admit(&self, pair: &CheckedPair, carrier: Carrier, presence: Presence) -> Admission {
        let Pair { claims, live, .. } = &*pair.0;
        let now = self.clock.now();
        let times = self.lifetimes.load();
        if live.is_ended() {
            return Admission::Ended;
        }
        if self.is_stale() {
            return Admission::Unknown;
        }
        let expired = pair.is_expired(now);
        if expired && carrier == Carrier::Authorization {
            return Admission::Expired;
        }
        let over = live.end().is_some_and(|end| end <= now);
        let is_guest = claims.role.is_of_access_code();
        if is_guest && (expired || over) {
            return Admission::Expired;
        }
        // Other gateways may have seen it since: what they share says so, at the renewal.
        let idle = || !self.store.is_shared() && now.since(live.last_activity()) > times.idle;
        if over || (expired && idle()) {
            return Admission::Ended;
        }
        let presented = live.present(claims.id.generation, now, times.grace);
        if carrier == Carrier::Cookie && presented == Presented::Replaced {
            self.mark_stolen(claims.session);
            return Admission::Stolen;
        }
        if expired {
            return Admission::RenewFirst;
        }
        if presence == Presence::Active {
            live.touch(now);
        }
        let identity = VerifiedIdentity(Arc::clone(&pair.0));
        let renewable = carrier == Carrier::Cookie
            && !is_guest
            && presented == Presented::Newest
            && is_past_half(claims, now)
            // Nothing is won by a successor that expires no later.
            && live.end().is_some_and(|end| {
                let end = presence.horizon(end, live.last_activity(), times.idle);
                claims.expires_at.seconds() < end.seconds()
            });
        if renewable { Admission::RenewInPassing(identity) } else { Admission::Live(identity) }
    }

    /// Ends a session here and at once; the store learns of it by `Sessions::end`,
    /// or at the latest by the next upkeep.
    fn mark_stolen(&self, session: SessionId) {
        self.revoke_here(session, Reason::Stolen);
    }
}

impl Presence {
    /// Until when a token given now may live: not beyond the session, and for what
    /// comes by itself not beyond the idle time either.
    pub(super) fn horizon(self, end: Timestamp, active: Timestamp, idle: Duration) -> Timestamp {
        match self {
            Self::Active => end,
            Self::Passive => end.min(active.plus(idle)),
        }
    }
}

fn is_past_half(claims: &Claims, now: Timestamp) -> bool {
    let life = claims.expires_at.since(claims.issued_at);
    now.since(claims.issued_at) >= life / 2
}

impl CheckedPair {
    /// Who the token names.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.0.claims.subject
    }

    /// The role the token names.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.0.claims.role
    }

    /// What the access code was given out with, if it was one.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        self.0.claims.reference.as_ref()
    }

    /// The session the token belongs to.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.0.claims.session
    }

    /// `exp`.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.0.claims.expires_at
    }

    pub(super) fn claims(&self) -> &Claims {
        &self.0.claims
    }

    pub(super) fn live(&self) -> &Live {
        &self.0.live
    }

    /// Whether the token is past `exp` by more than the leeway.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.0.claims.expires_at.plus(LEEWAY)
    }

    /// Whoever this pair proves, under the claims of the successor just signed.
    pub(super) fn renewed(&self, claims: Claims) -> VerifiedIdentity {
        let Pair { live, clock, .. } = &*self.0;
        let (live, clock) = (Arc::clone(live), clock.clone());
        VerifiedIdentity(Arc::new(Pair { claims, live, clock }))
    }
}

impl VerifiedIdentity {
    /// Who it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.0.claims.subject
    }

    /// In which role.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.0.claims.role
    }

    /// In which session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.0.claims.session
    }

    /// What claims ask of the directory's entry, as it was at login; `None` while the
    /// session's record is not known.
    #[must_use]
    pub fn attributes(&self) -> Option<&Arc<Attributes>> {
        self.0.live.attributes()
    }

    /// What the access code was given out with, if it was one.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        self.0.claims.reference.as_ref()
    }

    /// When the token was issued.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        self.0.claims.issued_at
    }

    /// When the token expires.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.0.claims.expires_at
    }

    /// When the session ends, whatever happens; with its record lost, with its token.
    #[must_use]
    pub fn session_expires_at(&self) -> Timestamp {
        self.0.live.end().unwrap_or(self.0.claims.expires_at)
    }

    /// Whether the session was ended, or its time is over.
    #[must_use]
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.0.live.is_ended() || now >= self.session_expires_at()
    }

    pub(super) fn assertions(&self) -> &AssertionMemory {
        &self.0.live.assertions
    }

    /// Wall time, as this session's checks see it.
    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Counts as activity: traffic of the client on a WebSocket.
    pub fn touch(&self) {
        self.0.live.touch(self.0.clock.now());
    }

    /// Resolves when the session is revoked or its time is over.
    pub async fn ended(&self) {
        let left = self.session_expires_at().since(self.0.clock.now());
        // A timeout is the session's own end: nothing further to tell apart.
        drop(tokio::time::timeout(left, self.0.live.ended()).await);
    }
}
