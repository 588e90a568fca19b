//! Renewal: which token a session gets next. The decision is a pure function on
//! the record, which the store applies in one step, so that parallel renewals of
//! one token agree on one successor.

use std::time::Duration;

use crate::ambient::Timestamp;
use crate::secret::Secret;
use crate::session::{
    Carrier, CheckedPair, Lifetimes, Presence, Reason, Sessions, VerifiedIdentity,
};
use crate::store::{Issued, Replaced, Seen, SessionRecord};
use crate::token::{Claims, LEEWAY, TokenId};

/// A successor.
pub struct Renewed {
    /// The token; to be given to the client.
    pub token: Secret<String>,
    /// Whom it proves.
    pub identity: VerifiedIdentity,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
    /// When the session ends, whatever happens.
    pub session_expires_at: Timestamp,
}

/// Why there is no successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// The session was revoked, is over, or was idle too long.
    #[error("the session has ended")]
    Ended,
    /// A replaced token was used; the session is ended for it.
    #[error("a replaced token was used")]
    Stolen,
    /// A replaced token in `Authorization` is past its own `exp`.
    #[error("the token has expired and was replaced")]
    Expired,
    /// It is the session of a redeemed access code.
    #[error("sessions of access codes are not renewed")]
    NotRenewable,
    /// The store cannot answer.
    #[error("the store cannot answer")]
    StoreUnavailable,
    /// No randomness, or the library refused to sign.
    #[error("a successor could not be made")]
    Failed,
}

impl Sessions {
    /// The successor of a token, also when that is past `exp`.
    ///
    /// # Errors
    /// When the session is not live, or the token not the one to be renewed.
    pub async fn renew(
        &self,
        pair: &CheckedPair,
        carrier: Carrier,
        presence: Presence,
    ) -> Result<Renewed, RenewError> {
        let (claims, live) = (pair.claims(), pair.live());
        if live.is_ended() {
            return Err(RenewError::Ended);
        }
        if self.is_stale() {
            return Err(RenewError::StoreUnavailable);
        }
        let now = self.clock.now();
        if claims.role.is_of_access_code() {
            let expired = pair.is_expired(now);
            return Err(if expired { RenewError::Expired } else { RenewError::NotRenewable });
        }
        let times = **self.lifetimes.load();
        live.present(claims.id.generation, now, times.grace);
        let asked = Asked {
            generation: claims.id.generation,
            carrier,
            presence,
            expired: pair.is_expired(now),
            now,
            times,
            nonce: self.entropy.bytes().map_err(|_| RenewError::Failed)?,
            seen: live.seen(),
        };
        let decide = move |record: &mut SessionRecord| (decide(record, &asked), record.clone());
        let decided = self.store.update(claims.session, decide).await;
        let decided = decided.map_err(|_| RenewError::StoreUnavailable)?;
        let (decision, record) = decided.ok_or(RenewError::Ended)?;
        live.learn(&record);
        // It may have been revoked while the store was asked.
        if live.is_ended() {
            return Err(RenewError::Ended);
        }
        match decision {
            Decision::Give(issued) => {
                if presence == Presence::Active {
                    live.touch(now);
                }
                self.give(pair, issued, &record)
            }
            Decision::Ended => Err(RenewError::Ended),
            Decision::Expired => Err(RenewError::Expired),
            Decision::Stolen => {
                // Holds here at once, and is told again to a store that is down.
                if self.end(claims.session, Reason::Stolen).await.is_err() {
                    tracing::error!("the end of a stolen session is not in the store yet");
                }
                Err(RenewError::Stolen)
            }
        }
    }

    fn give(
        &self,
        pair: &CheckedPair,
        issued: Issued,
        record: &SessionRecord,
    ) -> Result<Renewed, RenewError> {
        let claims = Claims {
            issued_at: Timestamp::from_seconds(issued.issued_at),
            expires_at: Timestamp::from_seconds(issued.expires_at),
            id: TokenId { generation: issued.generation, nonce: issued.nonce },
            ..pair.claims().clone()
        };
        let token = self.sign(&claims, &record.attributes).map_err(|_| RenewError::Failed)?;
        Ok(Renewed {
            token,
            issued_at: claims.issued_at,
            expires_at: claims.expires_at,
            session_expires_at: record.end,
            identity: pair.renewed(claims),
        })
    }
}

/// All that a decision depends on besides the record.
struct Asked {
    generation: u32,
    carrier: Carrier,
    presence: Presence,
    expired: bool,
    now: Timestamp,
    times: Lifetimes,
    nonce: [u8; 12],
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Give(Issued),
    Ended,
    Stolen,
    Expired,
}

fn decide(record: &mut SessionRecord, asked: &Asked) -> Decision {
    let Asked { generation, carrier, presence, now, times, .. } = *asked;
    record.absorb(&asked.seen);
    forget_old(&mut record.replaced, now, times.grace);
    if record.end <= now || now.since(record.last_activity) > times.idle {
        return Decision::Ended;
    }
    if generation < record.newest_seen {
        let in_grace = record.replaced.iter().any(|known| known.generation == generation);
        match carrier {
            Carrier::Cookie if !in_grace => return Decision::Stolen,
            Carrier::Authorization if asked.expired => return Decision::Expired,
            Carrier::Cookie | Carrier::Authorization => {}
        }
    }
    let newest = record.issued;
    let was_seen = record.newest_seen >= newest.generation;
    let next = if !was_seen || generation < newest.generation {
        if !is_past_half(&newest, now) {
            return Decision::Give(newest);
        }
        // Given again, but as it would soon be renewed itself: unseen, with new dates.
        newest.generation.saturating_add(u32::from(was_seen))
    } else {
        // A store that lags behind the token knows an older generation.
        generation.max(newest.generation).saturating_add(1)
    };
    let end = presence.horizon(record.end, record.last_activity, times.idle);
    let Some(issued) = Issued::new(next, asked.nonce, (now, times.token), end) else {
        return Decision::Ended;
    };
    record.issued = issued;
    if presence == Presence::Active {
        record.last_activity = record.last_activity.max(now);
    }
    Decision::Give(issued)
}

fn forget_old(replaced: &mut Vec<Replaced>, now: Timestamp, grace: Duration) {
    replaced.retain(|one| now.since(Timestamp::from_millis(one.since)) <= grace);
}

fn is_past_half(issued: &Issued, now: Timestamp) -> bool {
    let life = issued.expires_at - issued.issued_at;
    (now.seconds() - issued.issued_at) * 2 >= life
}

impl Issued {
    /// A token issued now, which lives no longer than its session; `None` when
    /// there is not a second left of that.
    pub(super) fn new(
        generation: u32,
        nonce: [u8; 12],
        (now, lifetime): (Timestamp, Duration),
        end: Timestamp,
    ) -> Option<Self> {
        let issued_at = now.seconds();
        let expires_at = now.plus(lifetime).min(end).seconds();
        (expires_at > issued_at).then_some(Self { generation, nonce, issued_at, expires_at })
    }
}

/// How long revocations are remembered beyond the end of their sessions: whoever forgets
/// them, be it this process, a gateway or Redis, may have a clock that is off by as much.
pub(super) const CLOCK_MARGIN: Duration = Duration::from_hours(1);

/// Until when a revocation must be remembered: no token outlives its session, save for
/// the leeway and for clocks that are off.
pub(super) fn revoked_until(end: Timestamp) -> Timestamp {
    end.plus(LEEWAY).plus(CLOCK_MARGIN)
}
