//! Where HTTP meets the domain: one request in, one answer out. The pipeline is
//! `handle` → `judge` → an endpoint of ours or `forward`; each step may refuse,
//! and what is not explicitly allowed is refused.

mod answer;
mod assertion;
mod body;
mod changing;
mod code_page;
mod codes;
mod credential;
mod device;
mod emergency;
mod endpoints;
mod exchange;
mod exposure;
mod forward;
mod gate;
mod guess;
mod lifetime;
mod login;
mod logins;
mod observe;
mod opening;
pub mod page;
mod password;
mod plain;
mod preflight;
mod protection;
mod proxied;
mod redeeming;
mod renewal;
mod schedule;
mod session_limit;
mod shape;
mod unread;
mod verify_endpoint;
mod websocket;
mod worker;

pub use body::Body;
pub use guess::GuessGuards;
pub use logins::Logins;
pub use plain::PlainHttp;
pub use schedule::Timer;
pub use websocket::WebSocketSlots;
pub use worker::{Gateway, Services, Snapshot};

use std::rc::Rc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::audit::Event;
use crate::config::Limits;
use crate::gateway::exchange::{Exchange, Progress};
use crate::gateway::forward::X_REQUEST_ID;
use crate::gateway::observe::Decision;
use crate::gateway::worker::Loaded;
use crate::policy::{Found, OwnEndpoint};
use crate::refusal::Refusal;
use crate::server::{Peer, Service};
use crate::wire::cors;
use crate::wire::headers;
use crate::wire::host::Host;
use crate::wire::target::Target;

/// How long an answer waits for a renewal that runs beside it.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(1);

/// What stays as it is in the return path's query parameter.
const RETURN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request after its target and host were judged.
pub(crate) struct Inbound {
    parts: Parts,
    peer: Rc<Peer>,
    target: Target,
    host: Host,
    is_websocket: bool,
    authorization_is_ours: bool,
}

impl Service for Gateway {
    type Body = Body;

    async fn handle(self: Rc<Self>, request: Request<Incoming>, peer: Rc<Peer>) -> Response<Body> {
        let loaded = self.loaded();
        let (parts, body) = request.into_parts();
        let mut exchange = self.exchange(&loaded, &parts, &peer);
        exchange.body.put(body);
        let result = self.judge(&loaded, &mut exchange, parts, peer).await;
        let mut answer =
            result.unwrap_or_else(|refusal| self.refuse(&loaded, &mut exchange, refusal));
        self.finish(&loaded, &mut exchange, &mut answer).await;
        answer
    }
}

impl Gateway {
    /// Parses what decides, once, and hands the request to whom it is for.
    async fn judge(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        parts: Parts,
        peer: Rc<Peer>,
    ) -> Result<Response<Body>, Refusal> {
        let parsed = parse(&parts, &loaded.snapshot.config.server.limits);
        let (host, target) = parsed.inspect_err(|_| peer.close_after_answer())?;
        self.refuse_token_in(target.query(), exchange).await?;
        let found = loaded.snapshot.routes.find(host.name(), parts.method.as_str(), &target);
        let inbound = Inbound {
            parts,
            peer,
            target,
            host,
            is_websocket: false,
            authorization_is_ours: false,
        };
        if let Some(answer) = Self::preflight(loaded, exchange, &inbound) {
            return answer;
        }
        match found {
            Found::Own(endpoint) => {
                exchange.meter = loaded.own_meter(endpoint);
                self.own(loaded, exchange, endpoint, inbound).await
            }
            Found::OwnMethod { allow } => Err(Refusal::MethodNotAllowed { allow }),
            Found::Route(route) => {
                exchange.meter = loaded.route_meter(route);
                self.proxied(loaded, exchange, route, inbound).await
            }
            Found::NoRoute => Err(Refusal::NoRoute),
            Found::Misdirected => Err(Refusal::Misdirected),
        }
    }

    async fn own(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        endpoint: OwnEndpoint,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        exchange.decision = Decision::Own;
        let answer = match endpoint {
            OwnEndpoint::Login => self.login(loaded, exchange, inbound).await,
            OwnEndpoint::LoginAlias => self.login_on_alias(loaded, exchange, inbound).await,
            OwnEndpoint::Password => self.password(loaded, exchange, inbound).await,
            OwnEndpoint::LoginPage => self.login_page(loaded, exchange, inbound).await,
            OwnEndpoint::Logout => self.logout(loaded, exchange, inbound).await,
            OwnEndpoint::Session => self.session(loaded, exchange, inbound).await,
            OwnEndpoint::Refresh => self.refresh(loaded, exchange, inbound).await,
            OwnEndpoint::Verify => self.verify(loaded, exchange, inbound).await,
            OwnEndpoint::Jwks => Ok(self.jwks(loaded)),
            OwnEndpoint::AccessCodes => self.access_codes(loaded, exchange, inbound).await,
            OwnEndpoint::RedeemCode => self.redeem_code(loaded, exchange, inbound).await,
            OwnEndpoint::RevokeCode => self.revoke_code(loaded, exchange, inbound).await,
        };
        codes::released(answer, &self.services().timer, exchange.began).await
    }

    /// Turns a refusal into its answer, its log line and its audit record. A browser
    /// that wants a page and has no session is sent to the login page instead.
    fn refuse(&self, loaded: &Loaded, exchange: &mut Exchange, refusal: Refusal) -> Response<Body> {
        let own = exchange.decision == Decision::Own;
        let below_prefix = loaded.is_below_prefix(exchange);
        exchange.decision = Decision::Deny;
        let facts = refusal.facts();
        log_refusal(exchange, refusal);
        if exchange.progress < Progress::Recorded {
            let record = exchange.record(Event::Refusal, facts.code, Some(facts.status));
            if let Some(slot) = exchange.forwarding.take() {
                slot.record(record);
            } else if exchange.identity.is_some() {
                // The refusal stands even when its record does not.
                let _ = self.queue().reserve().map(|slot| slot.record(record));
            } else {
                self.services().audit.refusal(exchange.client, record);
            }
            exchange.progress = Progress::Recorded;
        }
        if exchange.is_navigation && !own && needs_login(refusal) && loaded.has_login_page() {
            return answer::see_other(&loaded.login_location(exchange));
        }
        answer::refusal(refusal, own || below_prefix)
    }

    /// What every answer over TLS gets: a renewed token, and what browsers are told.
    async fn finish(&self, loaded: &Loaded, exchange: &mut Exchange, answer: &mut Response<Body>) {
        if let Some(renewal) = exchange.renewal.take()
            && answer.status() != StatusCode::SWITCHING_PROTOCOLS
            && let Ok(Ok(Ok(renewed))) = tokio::time::timeout(RENEWAL_PATIENCE, renewal).await
        {
            loaded.set_token_cookie(exchange, &renewed.token);
        }
        let headers = answer.headers_mut();
        loaded.protection.complete(headers);
        if !loaded.snapshot.config.server.cors_origins.is_empty() {
            cors::state(exchange.allowed_origin.take(), headers);
        }
        Self::complete(exchange, answer);
    }

    /// What every answer gets, in clear too: its id, its cookies, and its count.
    fn complete(exchange: &mut Exchange, answer: &mut Response<Body>) {
        let status = answer.status().as_u16();
        let headers = answer.headers_mut();
        if !exchange.set_cookies.is_empty() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        }
        for cookie in exchange.set_cookies.drain(..) {
            headers.append(SET_COOKIE, cookie);
        }
        headers.insert(X_REQUEST_ID, exchange.request_id.clone());
        exchange.meter.count(exchange.method_label, status, exchange.decision);
        exchange.progress = Progress::Answered;
        if matches!(answer.body(), Body::Own(_)) {
            exchange.meter.observe(exchange.began);
            if exchange.method == Method::HEAD {
                leave_body_out(answer);
            }
        }
        exchange.body.discard();
    }
}

/// Says how long the body would be and sends none. hyper does so by itself over
/// HTTP/1 only; over HTTP/2 a body in answer to HEAD is a protocol error.
fn leave_body_out(answer: &mut Response<Body>) {
    if let Some(length) = answer.body().size_hint().exact().filter(|length| *length > 0) {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        *answer.body_mut() = Body::empty();
    }
}

/// Host, framing and target, each judged before anything else is looked at.
fn parse(parts: &Parts, limits: &Limits) -> Result<(Host, Target), Refusal> {
    let bad = |reason| Refusal::BadRequest { reason };
    let header_bytes: usize =
        parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > limits.header_bytes || parts.headers.len() > limits.header_count {
        return Err(Refusal::HeadersTooLarge);
    }
    headers::check_framing(parts).map_err(bad)?;
    let host = Host::of(parts).map_err(bad)?;
    let path_and_query =
        parts.uri.path_and_query().ok_or_else(|| bad("The request's target has no path."))?;
    let target = Target::parse(path_and_query).map_err(bad)?;
    Ok((host, target))
}

/// Refusals that a login cures.
const fn needs_login(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Unauthenticated
            | Refusal::InvalidToken
            | Refusal::TokenExpired
            | Refusal::ContextMismatch
            | Refusal::SessionRevoked
    )
}

/// A return path as a query parameter's value.
fn as_parameter(path: &str) -> String {
    utf8_percent_encode(path, RETURN_PATH).to_string()
}

fn log_refusal(exchange: &Exchange, refusal: Refusal) {
    let facts = refusal.facts();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request_id = exchange.request_id_text(),
                client = %exchange.client,
                method = exchange.method_label,
                route = &*exchange.meter.label(),
                status = facts.status,
                code = facts.code,
                reason = facts.message,
                "request refused"
            )
        };
    }
    match facts.level {
        tracing::Level::ERROR => line!(error),
        tracing::Level::WARN => line!(warn),
        tracing::Level::INFO => line!(info),
        _ => line!(debug),
    }
}
