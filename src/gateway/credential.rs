//! From a request's headers to the token and context cookie it presents, and
//! from those to a pair that was verified, remembered by this worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::gateway::assertion::LocalAssertions;
use crate::refusal::Refusal;
use crate::session::{Carrier, CheckError, CheckedPair, Sessions};
use crate::token;
use crate::wire::cookie::{self, Found};

/// A pair whose signature and context hold, with the header values that state
/// its identity, made once.
pub(crate) struct KnownPair {
    /// The pair; whether it is expired or revoked is asked on every request.
    pub pair: CheckedPair,
    /// The subject as a header value.
    pub user: HeaderValue,
    /// The role as a header value.
    pub role: HeaderValue,
    /// The reference of an access code as a header value.
    pub reference: Option<HeaderValue>,
    /// What was signed for its session.
    pub assertions: LocalAssertions,
}

/// What a request presents, once token and cookie were checked.
pub(crate) struct Credential {
    /// The checked pair.
    pub known: Rc<KnownPair>,
    /// How the token came.
    pub carrier: Carrier,
}

/// What was found in a request's headers.
pub(crate) struct Reading {
    /// The credential, or why there is none.
    pub credential: Result<Credential, Refusal>,
    /// Whether `Authorization` carried a token of ours, valid or not; it is then
    /// never forwarded.
    pub authorization_is_ours: bool,
}

/// The check of tokens and cookies on one worker.
pub(crate) struct Credentials {
    sessions: Arc<Sessions>,
    remembered: Remembered,
    token_cookie: String,
    context_cookie: String,
}

enum Bearer<'h> {
    None,
    One(&'h str),
    Several,
}

impl Credentials {
    /// Remembers at most `pairs_max` pairs.
    pub(crate) fn new(sessions: Arc<Sessions>, names: (&str, &str), pairs_max: usize) -> Self {
        let (token_cookie, context_cookie) = names;
        Self {
            sessions,
            remembered: Remembered::new(pairs_max),
            token_cookie: token_cookie.to_owned(),
            context_cookie: context_cookie.to_owned(),
        }
    }

    /// Reads and checks what a request presents (contract section 4).
    ///
    /// On a `public` route a bearer token that is not ours is the upstream's
    /// business; elsewhere it is an invalid token.
    pub(crate) async fn read(&self, headers: &HeaderMap, public: bool) -> Reading {
        self.remembered.follow(self.sessions.version());
        let context = cookie::find(headers, &self.context_cookie);
        let from_cookie = cookie::find(headers, &self.token_cookie);
        let (bearer, ours) = match bearer(headers) {
            Bearer::None => (None, false),
            Bearer::Several => {
                return Reading {
                    credential: Err(Refusal::InvalidToken),
                    authorization_is_ours: any_bearer_is_ours(headers, &self.sessions),
                };
            }
            Bearer::One(text) => {
                if let Some(known) = self.recall(text.as_bytes(), &context)
                    && matches!(from_cookie, Found::None)
                {
                    let credential = Credential { known, carrier: Carrier::Authorization };
                    return Reading { credential: Ok(credential), authorization_is_ours: true };
                }
                (Some(text), self.sessions.is_ours(text))
            }
        };
        let credential = match (bearer, from_cookie) {
            (_, Found::Several) => Err(Refusal::InvalidToken),
            (Some(_), _) if !ours && !public => Err(Refusal::InvalidToken),
            (Some(text), Found::One(bytes)) if ours => self.both(text, bytes, &context).await,
            (Some(text), Found::None) if ours => {
                self.one(text.as_bytes(), &context, Carrier::Authorization).await
            }
            (_, Found::One(bytes)) => self.one(bytes, &context, Carrier::Cookie).await,
            (_, Found::None) => Err(Refusal::Unauthenticated),
        };
        Reading { credential, authorization_is_ours: ours }
    }

    /// Two tokens must name one session; then the one in `Authorization` counts. Tokens of
    /// one session have one context, so if only one of them fits the cookie, the other is
    /// another session's.
    async fn both(
        &self,
        bearer: &str,
        cookie: &[u8],
        context: &Found<'_>,
    ) -> Result<Credential, Refusal> {
        let first = self.one(bearer.as_bytes(), context, Carrier::Authorization).await;
        let second = self.one(cookie, context, Carrier::Cookie).await;
        match (first, second) {
            (Ok(first), Ok(second))
                if first.known.pair.session() == second.known.pair.session() =>
            {
                Ok(first)
            }
            (Err(Refusal::ContextMismatch), Err(Refusal::ContextMismatch)) => {
                Err(Refusal::ContextMismatch)
            }
            _ => Err(Refusal::InvalidToken),
        }
    }

    async fn one(
        &self,
        token: &[u8],
        context: &Found<'_>,
        carrier: Carrier,
    ) -> Result<Credential, Refusal> {
        if let Some(known) = self.recall(token, context) {
            return Ok(Credential { known, carrier });
        }
        let text = std::str::from_utf8(token).map_err(|_| Refusal::InvalidToken)?;
        let value = match context {
            Found::One(value) => Some(*value),
            Found::None | Found::Several => None,
        };
        let pair = self.sessions.check(text, value).await.map_err(|error| match error {
            CheckError::InvalidToken(_) => Refusal::InvalidToken,
            CheckError::ContextMismatch => Refusal::ContextMismatch,
            CheckError::StoreUnavailable => Refusal::StoreUnavailable,
        })?;
        let known = Rc::new(KnownPair {
            user: header_value(pair.subject().as_str())?,
            role: header_value(pair.role().as_str())?,
            reference: pair.reference().map(|it| header_value(it.as_str())).transpose()?,
            assertions: LocalAssertions::default(),
            pair,
        });
        if let Some(value) = value {
            self.remembered.put(token::pair_key(token, value), &known);
        }
        Ok(Credential { known, carrier })
    }

    fn recall(&self, token: &[u8], context: &Found<'_>) -> Option<Rc<KnownPair>> {
        let Found::One(value) = context else { return None };
        self.remembered.get(&token::pair_key(token, value))
    }
}

/// Identity travels as UTF-8; a subject with control characters is never stated.
fn header_value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Refusal::Internal)
}

/// The token of an `Authorization: Bearer` value (RFC 6750), if it is one.
pub(super) fn bearer_text(value: &HeaderValue) -> Option<&str> {
    let bytes = value.as_bytes();
    let (scheme, rest) = bytes.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.first().is_some_and(|b| !b" \t".contains(b))
    {
        return None;
    }
    // Bytes that are no text cannot be a token of ours, but are a bearer value all the same.
    Some(std::str::from_utf8(rest).unwrap_or_default().trim())
}

fn bearer(headers: &HeaderMap) -> Bearer<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = values.next() else { return Bearer::None };
    if values.next().is_none() {
        return bearer_text(first).map_or(Bearer::None, Bearer::One);
    }
    let any = headers.get_all(AUTHORIZATION).iter().any(|value| bearer_text(value).is_some());
    if any { Bearer::Several } else { Bearer::None }
}

fn any_bearer_is_ours(headers: &HeaderMap, sessions: &Sessions) -> bool {
    let mut texts = headers.get_all(AUTHORIZATION).iter().filter_map(bearer_text);
    texts.any(|text| sessions.is_ours(text))
}

type Generation = HashMap<[u8; 32], Rc<KnownPair>, BuildHasherDefault<AlreadyRandom>>;

/// Verified pairs by the hash of token and cookie, in two generations: when the
/// young one is full it becomes the old one, and what was not asked for since is
/// forgotten. Emptied when the keys change.
struct Remembered {
    young: RefCell<Generation>,
    old: RefCell<Generation>,
    generation_max: usize,
    version: Cell<u64>,
}

impl Remembered {
    fn new(pairs_max: usize) -> Self {
        Self {
            young: RefCell::default(),
            old: RefCell::default(),
            generation_max: (pairs_max / 2).max(1),
            version: Cell::new(0),
        }
    }

    fn follow(&self, version: u64) {
        if self.version.replace(version) != version {
            self.young.borrow_mut().clear();
            self.old.borrow_mut().clear();
        }
    }

    fn get(&self, key: &[u8; 32]) -> Option<Rc<KnownPair>> {
        if let Some(known) = self.young.borrow().get(key) {
            return Some(Rc::clone(known));
        }
        let known = self.old.borrow_mut().remove(key)?;
        self.put(*key, &known);
        Some(known)
    }

    fn put(&self, key: [u8; 32], known: &Rc<KnownPair>) {
        let mut young = self.young.borrow_mut();
        if young.len() >= self.generation_max {
            *self.old.borrow_mut() = std::mem::take(&mut *young);
        }
        young.insert(key, Rc::clone(known));
    }
}

/// The keys are SHA-256 sums of secrets: their first bytes are the hash.
#[derive(Default)]
struct AlreadyRandom(u64);

impl Hasher for AlreadyRandom {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks_exact(8).take(1) {
            self.0 = chunk.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;
    use http::{HeaderMap, HeaderValue};

    use super::{Bearer, bearer};

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_bearer_value_is_found_whatever_its_case_and_never_among_several() {
        assert!(matches!(bearer(&headers(&["Bearer abc"])), Bearer::One("abc")));
        assert!(matches!(bearer(&headers(&["bEARER   abc "])), Bearer::One("abc")));
        assert!(matches!(bearer(&headers(&["Bearer"])), Bearer::One("")));
        assert!(matches!(bearer(&headers(&["Basic abc"])), Bearer::None));
        assert!(matches!(bearer(&headers(&["Bearerabc"])), Bearer::None));
        assert!(matches!(bearer(&headers(&["Basic a", "Bearer b"])), Bearer::Several));
        assert!(matches!(bearer(&headers(&["Basic a", "Basic b"])), Bearer::None));
    }
}
