//! Preflights of pages of other origins, once `server.cors_origins` says which may
//! call: answered here, never forwarded. What every answer says of other origins
//! is stated in `Gateway::finish`.

use std::rc::Rc;

use http::{HeaderValue, Method, Response, StatusCode};

use crate::gateway::answer;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::observe::Decision;
use crate::gateway::worker::Loaded;
use crate::gateway::{Gateway, Inbound};
use crate::policy::Found;
use crate::refusal::Refusal;
use crate::wire::cors;

impl Gateway {
    /// The answer to a preflight; `None` for everything else. It comes without
    /// credentials, and its answer says nothing about who may do what: the request
    /// itself is judged when it comes.
    pub(super) fn preflight(
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: &Inbound,
    ) -> Option<Result<Response<Body>, Refusal>> {
        if loaded.snapshot.config.server.cors_origins.is_empty() {
            return None;
        }
        let headers = &inbound.parts.headers;
        let method = cors::preflight(&inbound.parts.method, headers)?;
        if exchange.allowed_origin.is_none() {
            return Some(Err(Refusal::CsrfRejected));
        }
        let routes = &loaded.snapshot.routes;
        let methods = match routes.find(inbound.host.name(), method.as_str(), &inbound.target) {
            Found::Own(endpoint) => {
                exchange.meter = loaded.own_meter(endpoint);
                exact(&method)
            }
            Found::OwnMethod { allow } => HeaderValue::from_static(allow),
            Found::Route(route) => {
                exchange.meter = loaded.route_meter(route);
                exact(&method)
            }
            Found::NoRoute => return Some(Err(Refusal::NoRoute)),
            Found::Misdirected => return Some(Err(Refusal::Misdirected)),
        };
        exchange.decision = Decision::Own;
        let mut answer = answer::empty(StatusCode::NO_CONTENT);
        cors::grant(headers, methods, answer.headers_mut());
        Some(Ok(answer))
    }
}

/// The method that was asked about, and no other.
fn exact(method: &Method) -> HeaderValue {
    HeaderValue::from_str(method.as_str()).unwrap_or(HeaderValue::from_static(""))
}
