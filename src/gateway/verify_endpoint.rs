//! `GET /auth/verify`: the gateway's judgement for another proxy, on the request
//! that the proxy describes in headers (contract section 3). Forwards nothing.

use std::rc::Rc;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode};

use crate::audit::Event;
use crate::gateway::answer;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::gate::{self, Grounds};
use crate::gateway::observe::method_label;
use crate::gateway::shape;
use crate::gateway::worker::Loaded;
use crate::gateway::{Gateway, Inbound};
use crate::policy::Found;
use crate::refusal::Refusal;
use crate::session::Presence;
use crate::wire::csrf;
use crate::wire::host::Host;
use crate::wire::target::Target;

/// The request that the other proxy asks about.
struct Described {
    method: Method,
    host: Host,
    target: Target,
}

impl Gateway {
    /// Answers 204 with the identity headers, or the refusal; never 303.
    pub(crate) async fn verify(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        if !exchange.peer_is_trusted {
            return Err(Refusal::PeerNotTrusted);
        }
        // The client's wish for a page is the other proxy's to answer.
        exchange.is_navigation = false;
        let headers = &inbound.parts.headers;
        let described = describe(headers)?;
        self.refuse_token_in(described.target.query(), exchange).await?;
        // Log and audit speak of the request that is judged, not of the question.
        exchange.method_label = method_label(&described.method);
        exchange.described = Some(described.method.clone());
        exchange.target = Some(described.target.path_and_query().clone());
        let routes = &loaded.snapshot.routes;
        let Found::Route(route) =
            routes.find(described.host.name(), described.method.as_str(), &described.target)
        else {
            return Err(Refusal::Forbidden);
        };
        let settings =
            loaded.snapshot.config.upstreams.get(route.upstream).ok_or(Refusal::Internal)?;
        if described.target.has_path_parameters() && !settings.path_parameters {
            return Err(Refusal::BadRequest { reason: "The path must not hold a semicolon." });
        }
        exchange.meter = loaded.route_meter(route);
        if route.passive {
            exchange.presence = Presence::Passive;
        }
        let origins = &loaded.snapshot.config.server.cors_origins;
        let slot = self.audit_slot(loaded)?;
        let is_websocket = headers
            .get("upgrade")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let proof = gate::needs_proof(&described.method, is_websocket)
            .then(|| csrf::proof(headers, described.host.authority(), origins));
        let reading = loaded.credentials.read(headers, route.is_public()).await;
        let caller =
            self.caller(loaded, exchange, reading.credential, (route.is_public(), proof)).await?;
        // Known to a refusal's record too.
        exchange.identity = caller.as_ref().map(|caller| caller.named.identity.clone());
        let permit = gate::judge(route, caller, proof)?;
        exchange.identity = permit.identity().cloned();
        if loaded.snapshot.guards.guards(route) {
            tracing::warn!(route = &*route.label, "guess_guard needs to see the answers");
            return Err(Refusal::Forbidden);
        }
        // What the other proxy forwards counts as if it were forwarded here.
        shape::throttle(loaded, exchange, route)?;
        if let Some(slot) = slot {
            slot.record(exchange.record(Event::Request, "verified", Some(204)));
        }
        let mut answer = answer::empty(StatusCode::NO_CONTENT);
        loaded.identity_headers.state_nobody(answer.headers_mut());
        if let Grounds::Session(named) = permit.spend() {
            loaded.identity_headers.state(&named, answer.headers_mut());
        }
        Ok(answer)
    }
}

/// Reads exactly one of the two families; missing, doubled or both is ambiguous.
fn describe(headers: &HeaderMap) -> Result<Described, Refusal> {
    let forwarded = ["x-forwarded-method", "x-forwarded-host", "x-forwarded-uri"];
    let original = ["x-original-method", "x-original-url"];
    let has_any = |names: &[&str]| names.iter().any(|name| headers.contains_key(*name));
    let uses_original = has_any(&original);
    // Proxies add X-Forwarded-Host by themselves: method and URI mark the family.
    if uses_original == has_any(&["x-forwarded-method", "x-forwarded-uri"]) {
        let reason = "Exactly one family of X-Forwarded-Method, -Host, -Uri or X-Original-Method, -URL is needed.";
        return Err(Refusal::BadRequest { reason });
    }
    let [method, host, uri] = if uses_original {
        let url = one(headers, original[1])?;
        let (host, uri) = split_url(url)?;
        [one(headers, original[0])?, host, uri]
    } else {
        [one(headers, forwarded[0])?, one(headers, forwarded[1])?, one(headers, forwarded[2])?]
    };
    let bad = |reason| Refusal::BadRequest { reason };
    let path_and_query =
        PathAndQuery::try_from(uri).map_err(|_| bad("The described target is malformed."))?;
    // A fragment is dropped by that parser; here nothing may be.
    if path_and_query.as_str() != uri {
        return Err(bad("The described target is malformed."));
    }
    Ok(Described {
        method: Method::from_bytes(method.as_bytes())
            .map_err(|_| bad("The described method is malformed."))?,
        host: Host::parse(host).map_err(bad)?,
        target: Target::parse(&path_and_query).map_err(bad)?,
    })
}

fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value),
        _ => Err(Refusal::BadRequest {
            reason: "A header that describes the request is missing or doubled.",
        }),
    }
}

/// `https://host/path` into host and the rest.
fn split_url(url: &str) -> Result<(&str, &str), Refusal> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let split = rest.and_then(|rest| rest.find('/').map(|slash| rest.split_at(slash)));
    split.ok_or(Refusal::BadRequest {
        reason: "X-Original-URL must be an absolute URL with a path.",
    })
}
