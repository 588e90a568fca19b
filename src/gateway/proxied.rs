//! The way of a forwarded request: credential, renewal, gate, upstream, answer.

use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::audit::{Event, Slot};
use crate::gateway::body::{Body, BodyFault, ClientBody, FaultCell, Received};
use crate::gateway::credential::Credential;
use crate::gateway::endpoints::owner;
use crate::gateway::exchange::{Exchange, Progress};
use crate::gateway::forward::{Origin, UpstreamRequest};
use crate::gateway::gate::{self, Caller, Named, Permit};
use crate::gateway::guess::Guess;
use crate::gateway::lifetime::SessionWatch;
use crate::gateway::observe::{Decision, Finish};
use crate::gateway::shape;
use crate::gateway::websocket::{self, Tunnel, WebSocketSlot};
use crate::gateway::worker::{Loaded, Upstream};
use crate::gateway::{Gateway, Inbound};
use crate::policy::Route;
use crate::refusal::Refusal;
use crate::server::{Peer, Revocable};
use crate::session::{Admission, Carrier, Presence, Reason, RenewError};
use crate::upstream::SendError;
use crate::wire::csrf::{self, Proof};

/// An answer of no more bytes is never waited for by a client that does not read.
const BUFFERED_BYTES: u64 = 16 * 1024;

/// Which renewals of a token a request may bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewals {
    /// It may be forged.
    None,
    /// What is past `exp` means nobody.
    InPassing,
    All,
}

/// What a WebSocket needs besides its request.
struct Handshake {
    client: OnUpgrade,
    slot: WebSocketSlot,
}

impl Gateway {
    /// Serves a request on a configured route.
    pub(crate) async fn proxied(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        route: &Route,
        mut inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        let config = &loaded.snapshot.config;
        let upstream = loaded.upstreams.get(route.upstream).ok_or(Refusal::Internal)?;
        let settings = config.upstreams.get(route.upstream).ok_or(Refusal::Internal)?;
        if inbound.target.has_path_parameters() && !settings.path_parameters {
            return Err(Refusal::BadRequest { reason: "The path must not hold a semicolon." });
        }
        if content_length(&inbound.parts.headers) > Some(shape::body_bytes(config, route)) {
            return Err(Refusal::BodyTooLarge);
        }
        if route.passive {
            exchange.presence = Presence::Passive;
        }
        let slot = self.audit_slot(loaded)?;
        let origins = &config.server.cors_origins;
        inbound.is_websocket = is_websocket(&inbound.parts.headers, &inbound.parts.method);
        let reading = loaded.credentials.read(&inbound.parts.headers, route.is_public()).await;
        inbound.authorization_is_ours = reading.authorization_is_ours;
        let proof = gate::needs_proof(&inbound.parts.method, inbound.is_websocket)
            .then(|| csrf::proof(&inbound.parts.headers, inbound.host.authority(), origins));
        let caller =
            self.caller(loaded, exchange, reading.credential, (route.is_public(), proof)).await?;
        // Known to a refusal's record too.
        exchange.identity = caller.as_ref().map(|caller| caller.named.identity.clone());
        let permit = gate::judge(route, caller, proof)?;
        exchange.identity = permit.identity().cloned();
        let handshake = self.handshake(loaded, exchange, &mut inbound)?;
        shape::throttle(loaded, exchange, route)?;
        let assertion = match (&upstream.assertions, permit.named()) {
            (Some(assertions), Some(named)) => Some(self.assertion(assertions, named).await?),
            _ => None,
        };
        let guess = self.reserve_guess(loaded, exchange, route).await?;
        if let Some(guess) = &guess {
            guess.ask_plainly(&mut inbound.parts.headers);
        }
        let decision = if exchange.identity.is_some() { Decision::Allow } else { Decision::Public };

        let body_bytes = shape::body_bytes(config, route);
        let permit = (permit, assertion);
        let (request, fault) =
            upstream_request(loaded, (upstream, body_bytes), exchange, &mut inbound, permit)?;
        exchange.forwarding = slot;
        exchange.decision = decision;
        let patience = shape::response_timeout(config, route);
        let response = match self.send((upstream, patience), exchange, request, &fault).await {
            Ok(response) => response,
            Err(refusal) => {
                if let Some(guess) = guess {
                    guess.unanswered();
                }
                return Err(refusal);
            }
        };
        let guess = guess.and_then(|it| it.judge(response.status(), response.headers()));
        let tunnel = handshake.map(|handshake| (handshake, inbound.peer));
        let answer = if settings.hide_errors && response.status().is_server_error() {
            shape::hidden_error(exchange, &response)
        } else {
            self.answer(loaded, exchange, (route.is_public(), guess), (response, tunnel))?
        };
        loaded
            .overhead
            .observe(exchange.began.elapsed().saturating_sub(exchange.waited).as_secs_f64());
        if let Some(slot) = exchange.forwarding.take() {
            let status = Some(answer.status().as_u16());
            slot.record(exchange.record(Event::Request, decision.label(), status));
        }
        exchange.progress = Progress::Recorded;
        Ok(answer)
    }

    /// A place in the audit queue for this request's record, before anything is done.
    pub(crate) fn audit_slot(&self, loaded: &Loaded) -> Result<Option<Slot>, Refusal> {
        if !self.services().audit.is_available() {
            return Err(Refusal::AuditUnavailable);
        }
        if !loaded.snapshot.config.telemetry.audit_requests {
            return Ok(None);
        }
        self.queue().reserve().map(Some).map_err(|_| Refusal::AuditUnavailable)
    }

    /// Who is calling: expiry, revocation and renewal are looked at on every
    /// request. On a public route whatever does not hold means nobody.
    pub(crate) async fn caller(
        &self,
        loaded: &Loaded,
        exchange: &mut Exchange,
        credential: Result<Credential, Refusal>,
        (is_public, proof): (bool, Option<Proof>),
    ) -> Result<Option<Caller>, Refusal> {
        let result = match credential {
            Ok(credential) => {
                let unproved = credential.carrier == Carrier::Cookie
                    && !matches!(proof, None | Some(Proof::Given));
                // Without proof nothing is renewed either: the request may be forged.
                let renewals = match (unproved, is_public) {
                    (true, _) => Renewals::None,
                    (false, true) => Renewals::InPassing,
                    (false, false) => Renewals::All,
                };
                self.admit(loaded, exchange, credential, renewals).await
            }
            Err(refusal) => Err(refusal),
        };
        let label = result.as_ref().map_or_else(|refusal| refusal.facts().code, |_| "ok");
        loaded.count_check(label);
        match result {
            Ok(caller) => Ok(Some(caller)),
            Err(Refusal::Unauthenticated) => Ok(None),
            Err(_) if is_public => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn admit(
        &self,
        loaded: &Loaded,
        exchange: &mut Exchange,
        credential: Credential,
        renewals: Renewals,
    ) -> Result<Caller, Refusal> {
        let sessions = &self.services().sessions;
        let Credential { known, carrier } = credential;
        let identity = match sessions.admit(&known.pair, carrier, exchange.presence) {
            Admission::Live(identity) => identity,
            Admission::RenewInPassing(identity) if renewals == Renewals::None => identity,
            Admission::RenewInPassing(identity) => {
                exchange.renewal = Some(self.renewal(exchange, &known.pair, carrier));
                identity
            }
            Admission::RenewFirst if renewals == Renewals::All => {
                let renewed = self.renewal(exchange, &known.pair, carrier).await;
                match renewed.map_err(|_| Refusal::Internal)? {
                    Ok(renewed) => {
                        loaded.set_token_cookie(exchange, &renewed.token);
                        renewed.identity
                    }
                    Err(error) => {
                        return Err(self.renewal_refused(exchange, &known.pair, error).await);
                    }
                }
            }
            Admission::RenewFirst | Admission::Expired => return Err(Refusal::TokenExpired),
            Admission::Ended => return Err(Refusal::SessionRevoked),
            Admission::Unknown => return Err(Refusal::StoreUnavailable),
            Admission::Stolen => {
                self.end_session(exchange, owner(&known.pair), Reason::Stolen).await?;
                return Err(Refusal::SessionRevoked);
            }
        };
        Ok(Caller { named: Named { identity, known }, carrier })
    }

    /// Why a renewal was refused; a replaced token that came back ends its session.
    pub(crate) async fn renewal_refused(
        &self,
        exchange: &mut Exchange,
        pair: &crate::session::CheckedPair,
        error: RenewError,
    ) -> Refusal {
        match error {
            RenewError::Ended => Refusal::SessionRevoked,
            RenewError::Expired => Refusal::TokenExpired,
            RenewError::NotRenewable => Refusal::Forbidden,
            RenewError::StoreUnavailable => Refusal::StoreUnavailable,
            RenewError::Failed => Refusal::Internal,
            RenewError::Stolen => {
                let ended = self.end_session(exchange, owner(pair), Reason::Stolen).await;
                ended.err().unwrap_or(Refusal::SessionRevoked)
            }
        }
    }

    fn handshake(
        &self,
        loaded: &Loaded,
        exchange: &Exchange,
        inbound: &mut Inbound,
    ) -> Result<Option<Handshake>, Refusal> {
        if !inbound.is_websocket {
            return Ok(None);
        }
        // An upstream that upgrades could take the body for frames.
        if exchange.body.is_there() {
            return Err(Refusal::BadRequest { reason: "A WebSocket handshake has no body." });
        }
        let max = loaded.snapshot.config.server.limits.websockets;
        let Some(slot) = self.services().websockets.take(max) else {
            self.services().metrics.limit_hits("websockets").inc();
            return Err(Refusal::Overloaded);
        };
        let client = inbound.parts.extensions.remove::<OnUpgrade>();
        let client = client
            .ok_or(Refusal::BadRequest { reason: "This connection cannot become a WebSocket." })?;
        Ok(Some(Handshake { client, slot }))
    }

    /// Sends the request and waits for the response's head, no longer than the
    /// session lives.
    async fn send(
        &self,
        (upstream, patience): (&Upstream, Option<Duration>),
        exchange: &mut Exchange,
        request: UpstreamRequest,
        fault: &FaultCell,
    ) -> Result<Response<Received>, Refusal> {
        let began = Instant::now();
        let sent = match exchange.identity.clone() {
            None => upstream.pool.send_within(request, patience).await,
            Some(identity) => {
                let mut watch = SessionWatch::new(identity, self.services().clock.clone());
                tokio::select! {
                    biased;
                    sent = upstream.pool.send_within(request, patience) => sent,
                    () = watch.ended() => return Err(Refusal::SessionRevoked),
                }
            }
        };
        exchange.waited = began.elapsed();
        sent.map_err(|error| match fault.get() {
            Some(BodyFault::TooLarge) => Refusal::BodyTooLarge,
            Some(BodyFault::Stalled) => Refusal::RequestTimeout,
            Some(BodyFault::Broken) => {
                Refusal::BadRequest { reason: "The request's body ended before its end." }
            }
            None => {
                tracing::warn!(request_id = exchange.request_id_text(), %error, "upstream failed");
                match error {
                    SendError::Timeout => Refusal::UpstreamTimeout,
                    SendError::Overloaded => Refusal::Overloaded,
                    _ => Refusal::UpstreamUnavailable,
                }
            }
        })
    }

    fn answer(
        &self,
        loaded: &Loaded,
        exchange: &Exchange,
        (is_public, guess): (bool, Option<Guess>),
        (response, tunnel): (Response<Received>, Option<(Handshake, Rc<Peer>)>),
    ) -> Result<Response<Body>, Refusal> {
        let (mut parts, body) = response.into_parts();
        let watch = exchange
            .identity
            .clone()
            .map(|identity| SessionWatch::new(identity, self.services().clock.clone()));
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let upstream = parts.extensions.remove::<OnUpgrade>();
            let (Some((handshake, peer)), Some(upstream)) = (tunnel, upstream) else {
                return Err(Refusal::UpstreamUnavailable);
            };
            shape::response_head(loaded, &mut parts.headers, true);
            parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            // Where nobody need be there, what comes does not say that somebody is.
            let active = exchange.presence == Presence::Active;
            let identity = exchange.identity.clone().filter(|_| active);
            let tunnel = Tunnel { slot: handshake.slot, peer, identity, watch };
            tokio::task::spawn_local(websocket::splice(handshake.client, upstream, tunnel));
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        shape::response_head(loaded, &mut parts.headers, is_public);
        // What is small lies whole in the buffers; the rest must end even if nobody reads it.
        if let Some(identity) = exchange.identity.clone()
            && body.size_hint().upper().is_none_or(|bytes| bytes > BUFFERED_BYTES)
        {
            let clock = self.services().clock.clone();
            let revocable = Revocable::new(move || identity.has_ended(clock.now()));
            parts.extensions.insert(revocable);
        }
        let finish = Finish::new(Rc::clone(&exchange.meter), exchange.began);
        Ok(Response::from_parts(parts, Body::streamed(body, watch, guess.map(Box::new), finish)))
    }
}

fn upstream_request(
    loaded: &Loaded,
    (upstream, body_bytes): (&Upstream, u64),
    exchange: &mut Exchange,
    inbound: &mut Inbound,
    (permit, assertion): (Permit, Option<HeaderValue>),
) -> Result<(UpstreamRequest, FaultCell), Refusal> {
    let limits = &loaded.snapshot.config.server.limits;
    let incoming = exchange.body.take().filter(|body| !body.is_end_stream());
    let (body, fault) = match incoming {
        None => (ClientBody::empty(), FaultCell::default()),
        Some(incoming) => {
            let trailers = upstream.rules.forbidden_trailers();
            ClientBody::new(incoming, body_bytes, limits.body_idle_timeout, trailers)
        }
    };
    let origin = Origin {
        target: &inbound.target,
        host: inbound.host.value().map_err(|_| Refusal::Internal)?,
        peer: exchange.peer,
        peer_is_trusted: exchange.peer_is_trusted,
        request_id: &exchange.request_id,
        authorization_is_ours: inbound.authorization_is_ours,
        assertion,
        is_websocket: inbound.is_websocket,
    };
    let request = UpstreamRequest::new(&mut inbound.parts, body, permit, &upstream.rules, &origin)?;
    Ok((request, fault))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// A WebSocket handshake over HTTP/1.1 (RFC 6455 section 4.1). Every other
/// upgrade is dropped with the hop-by-hop headers.
fn is_websocket(headers: &HeaderMap, method: &Method) -> bool {
    let has = |name, token: &str| {
        headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
            })
        })
    };
    *method == Method::GET && has(&UPGRADE, "websocket") && has(&CONNECTION, "upgrade")
}
