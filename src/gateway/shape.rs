//! What a route or an upstream sets differently: how often it may be asked, how
//! much it takes, how long it may take, and what is seen of its failures.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response};

use crate::config::Config;
use crate::gateway::answer;
use crate::gateway::body::{Body, Received};
use crate::gateway::exchange::Exchange;
use crate::gateway::forward::filter_response;
use crate::gateway::worker::Loaded;
use crate::policy::Route;
use crate::refusal::Refusal;
use crate::session::VerifiedIdentity;
use crate::wire::cors;

/// The longest `Retry-After` that passes: a date (RFC 9110 section 5.6.7).
const RETRY_AFTER_BYTES_MAX: usize = 29;

/// Counts a request that is about to be forwarded; its caller is known by now.
///
/// # Errors
/// When a rule of the route allows no more.
pub(super) fn throttle(loaded: &Loaded, exchange: &Exchange, route: &Route) -> Result<(), Refusal> {
    let user = exchange.identity.as_ref().map(VerifiedIdentity::subject);
    let admitted = loaded.snapshot.throttles.admit(route.index, exchange.client, user);
    admitted.map_err(|exceeded| Refusal::TooManyAttempts { retry_after: exceeded.retry_after })
}

/// The most bytes that a request's body may have.
pub(super) fn body_bytes(config: &Config, route: &Route) -> u64 {
    let own = config.routes.get(route.index).and_then(|route| route.body_bytes);
    own.unwrap_or(config.server.limits.body_bytes)
}

/// How long the upstream may take for its response's head.
pub(super) fn response_timeout(config: &Config, route: &Route) -> Option<Duration> {
    config.routes.get(route.index).and_then(|route| route.response_timeout)
}

/// Filters the head of an upstream's response: what it says of other origins, if
/// the gateway knows which may call, and what it tells browsers, where that is laxer.
pub(super) fn response_head(loaded: &Loaded, headers: &mut HeaderMap, route_is_public: bool) {
    let config = &loaded.snapshot.config;
    filter_response(headers, &config.cookie, route_is_public);
    if !config.server.cors_origins.is_empty() {
        cors::strip(headers);
    }
    loaded.protection.tighten(headers);
}

/// Our answer in place of an upstream's 5xx: nothing of it passes but its status
/// and when to ask again, so that no stack trace does.
pub(super) fn hidden_error(exchange: &Exchange, response: &Response<Received>) -> Response<Body> {
    let status = response.status();
    tracing::warn!(
        request_id = exchange.request_id_text(),
        route = &*exchange.meter.label(),
        status = status.as_u16(),
        "the upstream's error was hidden"
    );
    let mut answer = answer::refusal(Refusal::UpstreamUnavailable, false);
    *answer.status_mut() = status;
    let retry_after = response.headers().get(RETRY_AFTER);
    if let Some(value) = retry_after.filter(|value| value.len() <= RETRY_AFTER_BYTES_MAX) {
        answer.headers_mut().insert(RETRY_AFTER, value.clone());
    }
    answer
}
