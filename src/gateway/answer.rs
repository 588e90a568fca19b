//! Answers of the gateway's own: refusals as JSON, redirects, and the headers
//! that every answer carries. Knows no rules.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::config;
use crate::gateway::body::Body;
use crate::gateway::page::{self, PageError};
use crate::identity::{Role, Subject};
use crate::refusal::{Facts, Refusal};
use crate::secret::Secret;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// An empty answer with this status, not to be stored.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    answer
}

/// A JSON answer, not to be stored.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut answer = Response::new(Body::own(value.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    answer
}

/// The JSON answer to a login or a renewal.
pub(super) fn logged_in(
    config: &config::Token,
    (subject, role): (&Subject, &Role),
    lifetime: Duration,
    token: &Secret<String>,
) -> Response<Body> {
    let mut members = config.login_response.clone();
    members.insert("id".to_owned(), subject.as_str().into());
    members.insert("role".to_owned(), role.as_str().into());
    members.insert("expires_in".to_owned(), lifetime.as_secs().into());
    if config.delivery.by_answer() {
        members.insert("token".to_owned(), token.expose().as_str().into());
    }
    json(StatusCode::OK, &members.into())
}

/// A refusal; on the gateway's own endpoints with `error_description` too.
pub(super) fn refusal(refusal: Refusal, own_endpoint: bool) -> Response<Body> {
    let facts = refusal.facts();
    let status = StatusCode::from_u16(facts.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut members = json!({ "error": facts.code, "message": facts.message });
    if own_endpoint {
        members["error_description"] = facts.message.into();
    }
    let mut answer = json(status, &members);
    let headers = answer.headers_mut();
    if let Some(seconds) = facts.retry_after_seconds {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    match refusal {
        Refusal::MethodNotAllowed { allow } => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        Refusal::Unauthenticated => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Refusal::InvalidToken
        | Refusal::TokenExpired
        | Refusal::ContextMismatch
        | Refusal::SessionRevoked => {
            // RFC 6750 section 3.1: the challenge of a token that was presented and failed.
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        _ => {}
    }
    answer
}

/// A refusal of an endpoint of ours, with further members.
pub(super) fn refusal_with<const N: usize>(
    refusal: Refusal,
    members: [(&'static str, serde_json::Value); N],
) -> Response<Body> {
    let facts = refusal.facts();
    let status = StatusCode::from_u16(facts.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut all = own_members(facts);
    all.extend(members.map(|(name, value)| (name.to_owned(), value)));
    json(status, &all.into())
}

/// What every refusal of ours says.
fn own_members(facts: Facts) -> serde_json::Map<String, serde_json::Value> {
    let said =
        [("error", facts.code), ("message", facts.message), ("error_description", facts.message)];
    said.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// 303 to a path on this origin; the caller has parsed it.
pub(super) fn see_other(location: &str) -> Response<Body> {
    let mut answer = empty(StatusCode::SEE_OTHER);
    match HeaderValue::from_str(location) {
        Ok(location) => {
            answer.headers_mut().insert(LOCATION, location);
            answer
        }
        Err(_) => refusal(Refusal::Internal, false),
    }
}

/// One of our pages.
pub(super) fn page(status: StatusCode, html: Result<String, PageError>) -> Response<Body> {
    let html = match html {
        Ok(html) => html,
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            return refusal(Refusal::Internal, true);
        }
    };
    let mut answer = Response::new(Body::own(html));
    *answer.status_mut() = status;
    answer.headers_mut().extend(page::headers());
    answer
}
