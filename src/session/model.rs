//! Random histories of one user against a model of what the contract says, over
//! every kind of store: logins, requests, renewals, ends, rotated and
//! dropped keys, restarts, a lost store, and time in between.

mod history;
mod place;

use super::{Carrier, RenewError};

/// What the contract says of one session, in seconds.
struct Model {
    ended: bool,
    end: i64,
    active: i64,
    /// Each generation's newest `iat` and `exp`, from the first.
    issued: Vec<(i64, i64)>,
    /// Since when a generation has been replaced.
    replaced: Vec<Option<i64>>,
    /// Every token signed so far is dead: the keys were dropped, or the store was lost.
    keyless: bool,
}

/// A token that the user holds.
struct Held {
    token: String,
    generation: usize,
    iat: i64,
    exp: i64,
}

const LIFETIME: i64 = 15 * 60;
const IDLE: i64 = 60 * 60;
const GRACE: i64 = 60;
const LEEWAY: i64 = 5;

impl Model {
    fn see(&mut self, generation: usize, now: i64) {
        for older in &mut self.replaced[..generation] {
            older.get_or_insert(now);
        }
    }

    fn is_stolen(&self, generation: usize, carrier: Carrier, now: i64) -> bool {
        let replaced = self.replaced[generation];
        carrier == Carrier::Cookie && replaced.is_some_and(|since| now - since > GRACE)
    }

    fn request(&mut self, token: &Held, carrier: Carrier, now: i64) -> &'static str {
        let expired = now >= token.exp + LEEWAY;
        if self.ended {
            return "ended";
        }
        if expired && carrier == Carrier::Authorization {
            return "expired";
        }
        if now >= self.end || expired && now - self.active > IDLE {
            return "ended";
        }
        self.see(token.generation, now);
        if self.is_stolen(token.generation, carrier, now) {
            self.ended = true;
            return "stolen";
        }
        if expired {
            return "renew first";
        }
        self.active = now;
        let past_half = (now - token.iat) * 2 >= token.exp - token.iat;
        let newest = self.replaced[token.generation].is_none();
        let in_passing = carrier == Carrier::Cookie && newest && past_half && token.exp < self.end;
        if in_passing { "renew in passing" } else { "live" }
    }

    /// Whether it can still be renewed by anybody.
    fn is_live(&self, now: i64) -> bool {
        !self.ended && !self.keyless && now < self.end && now - self.active <= IDLE
    }

    /// Whether a key may have been retired that signed this token: it is past `exp`, and
    /// of no more use, not even to tell a theft by.
    fn may_be_unknown(&self, token: &Held, now: i64) -> bool {
        let replaced = self.replaced[token.generation];
        let is_useless = replaced.is_some_and(|since| now - since > GRACE);
        self.keyless || now >= token.exp + LEEWAY && (is_useless || !self.is_live(now))
    }

    /// The generation given and its `iat` and `exp`.
    fn renew(&mut self, token: &Held, carrier: Carrier, now: i64) -> Result<usize, RenewError> {
        if self.ended || now >= self.end || now - self.active > IDLE {
            // A presented token is seen even so.
            self.see(token.generation, now);
            return Err(RenewError::Ended);
        }
        self.see(token.generation, now);
        if self.is_stolen(token.generation, carrier, now) {
            self.ended = true;
            return Err(RenewError::Stolen);
        }
        let replaced = self.replaced[token.generation].is_some();
        if replaced && carrier == Carrier::Authorization && now >= token.exp + LEEWAY {
            return Err(RenewError::Expired);
        }
        self.active = now;
        let newest = self.issued.len() - 1;
        let (iat, exp) = self.issued[newest];
        let fresh = (now - iat) * 2 < exp - iat;
        let dates = (now, (now + LIFETIME).min(self.end));
        if token.generation < newest && fresh {
            return Ok(newest);
        }
        if token.generation < newest && self.replaced[newest - 1].is_none() {
            self.issued[newest] = dates;
            return Ok(newest);
        }
        self.issued.push(dates);
        self.replaced.push(None);
        Ok(newest + 1)
    }
}
