//! The gateway's own endpoints about a session: logout, session, refresh, and
//! the public keys (contract section 3).

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use crate::audit::{Event, Record};
use crate::config::Publication;
use crate::gateway::answer;
use crate::gateway::body::Body;
use crate::gateway::credential::Reading;
use crate::gateway::exchange::Exchange;
use crate::gateway::gate;
use crate::gateway::worker::Loaded;
use crate::gateway::{Gateway, Inbound, Services};
use crate::identity::{Role, SessionId, Subject};
use crate::refusal::Refusal;
use crate::session::{Admission, Carrier, CheckedPair, Reason};
use crate::wire::cookie::{self, Found};
use crate::wire::csrf::{self, Proof};

/// What a browser forgets at logout: not cookies, so that the device cookie stays.
const CLEAR_SITE_DATA: HeaderValue = HeaderValue::from_static("\"cache\", \"storage\"");

impl Gateway {
    /// `GET` or `POST /auth/logout`.
    pub(crate) async fn logout(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        let headers = &inbound.parts.headers;
        let reading = loaded.credentials.read(headers, false).await;
        if inbound.parts.method == Method::POST {
            proved(loaded, &inbound, &reading)?;
        }
        let mut answer = if exchange.is_navigation && loaded.has_login_page() {
            let prefix = &loaded.snapshot.config.server.auth_prefix;
            answer::see_other(&format!("{prefix}/"))
        } else {
            answer::empty(StatusCode::NO_CONTENT)
        };
        let is_cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        if inbound.parts.method == Method::GET && is_cross_site {
            return Ok(answer);
        }
        // Only what verifies may end a session; expired tokens do, forged ones do not.
        if let Ok(credential) = reading.credential {
            let pair = &credential.known.pair;
            match self.end_session(exchange, owner(pair), Reason::Logout).await {
                // The logout took effect, even if its record could not be written.
                Ok(()) | Err(Refusal::AuditUnavailable) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        loaded.clear_cookies(exchange);
        answer.headers_mut().insert("clear-site-data", CLEAR_SITE_DATA);
        Ok(answer)
    }

    /// `GET /auth/session`.
    pub(crate) async fn session(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        let reading = loaded.credentials.read(&inbound.parts.headers, false).await;
        let caller = self.caller(loaded, exchange, reading.credential, (false, None)).await?;
        let identity = caller.ok_or(Refusal::Unauthenticated)?.named.identity;
        let answer = answer::json(
            StatusCode::OK,
            &json!({
                "sub": identity.subject().as_str(),
                "role": identity.role().as_str(),
                "iat": identity.issued_at().seconds(),
                "exp": identity.expires_at().seconds(),
                "session_expires": identity.session_expires_at().seconds(),
            }),
        );
        exchange.identity = Some(identity);
        Ok(answer)
    }

    /// `POST /auth/refresh`: a new token for a live session, whichever way the old one came.
    pub(crate) async fn refresh(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        let reading = loaded.credentials.read(&inbound.parts.headers, false).await;
        proved(loaded, &inbound, &reading)?;
        let credential = reading.credential?;
        let (pair, carrier) = (credential.known.pair.clone(), credential.carrier);
        match self.services().sessions.admit(&pair, carrier, exchange.presence) {
            Admission::Ended => return Err(Refusal::SessionRevoked),
            Admission::Unknown => return Err(Refusal::StoreUnavailable),
            Admission::Stolen => {
                self.end_session(exchange, owner(&pair), Reason::Stolen).await?;
                return Err(Refusal::SessionRevoked);
            }
            Admission::Live(_)
            | Admission::RenewInPassing(_)
            | Admission::RenewFirst
            | Admission::Expired => {}
        }
        let renewed =
            match self.renewal(exchange, &pair, carrier).await.map_err(|_| Refusal::Internal)? {
                Ok(renewed) => renewed,
                Err(error) => return Err(self.renewal_refused(exchange, &pair, error).await),
            };
        let config = &loaded.snapshot.config.token;
        let named = (renewed.identity.subject(), renewed.identity.role());
        let lifetime = renewed.expires_at.since(renewed.issued_at);
        let answer = answer::logged_in(config, named, lifetime, &renewed.token);
        if config.delivery.by_cookie() {
            loaded.set_token_cookie(exchange, &renewed.token);
        }
        exchange.identity = Some(renewed.identity);
        Ok(answer)
    }

    /// `GET /.well-known/jwks.json`.
    pub(crate) fn jwks(&self, loaded: &Loaded) -> Response<Body> {
        let mut keys = self.services().sessions.public_jwks();
        let now = self.services().clock.now();
        if let Some(all) = keys["keys"].as_array_mut() {
            all.extend(loaded.snapshot.assertion_keys.public(Publication::Public, now));
        }
        answer::json(StatusCode::OK, &keys)
    }

    /// Ends a session for good, with its record; the end holds even when the record
    /// cannot be written. On the control runtime, so that a client that goes away cuts
    /// nothing off.
    pub(crate) async fn end_session(
        &self,
        exchange: &Exchange,
        whose: (SessionId, &Subject, &Role),
        reason: Reason,
    ) -> Result<(), Refusal> {
        let record = ending_record(exchange, whose, reason);
        let ending = end_and_record(Arc::clone(self.services()), whose.0, reason, record);
        self.services().control.spawn(ending).await.map_err(|_| Refusal::Internal)?
    }
}

/// The record of a session's end.
pub(super) fn ending_record(
    exchange: &Exchange,
    (session, subject, role): (SessionId, &Subject, &Role),
    reason: Reason,
) -> Record {
    let event = if reason == Reason::Logout { Event::Logout } else { Event::Revocation };
    let mut record = exchange.record(event, reason.label(), None);
    record.session = Some(*session.as_bytes());
    record.subject = Some(subject.shared());
    record.role = Some(role.shared());
    record
}

/// Ends a session, then records that it ended, if it was live.
pub(super) async fn end_and_record(
    services: Arc<Services>,
    session: SessionId,
    reason: Reason,
    record: Record,
) -> Result<(), Refusal> {
    match services.sessions.end(session, reason).await {
        Ok(true) => services.audit.durable(record).await.map_err(|_| Refusal::AuditUnavailable),
        Ok(false) => Ok(()),
        Err(error) => {
            tracing::error!(%session, %error, "a session could not be ended");
            Err(Refusal::StoreUnavailable)
        }
    }
}

/// Endpoints of ours that change state are refused on a failed proof; no proof at
/// all is accepted when no cookie of ours came along.
pub(super) fn own_proof(loaded: &Loaded, inbound: &Inbound) -> Result<(), Unproved> {
    debug_assert!(gate::needs_proof(&inbound.parts.method, false));
    let headers = &inbound.parts.headers;
    let origins = &loaded.snapshot.config.server.cors_origins;
    match csrf::proof(headers, inbound.host.authority(), origins) {
        Proof::Given => Ok(()),
        Proof::Failed => Err(Unproved::Failed),
        Proof::Absent => {
            let names = &loaded.snapshot.config.cookie;
            let absent = |name| matches!(cookie::find(headers, name), Found::None);
            if absent(&names.context_name) && absent(&names.token_name) {
                Ok(())
            } else {
                Err(Unproved::Absent)
            }
        }
    }
}

/// Why a request to an endpoint of ours does not prove where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproved {
    /// It says that it comes from elsewhere.
    Failed,
    /// It says nothing, and a cookie of ours came along.
    Absent,
}

impl From<Unproved> for Refusal {
    fn from(_: Unproved) -> Self {
        Self::CsrfRejected
    }
}

/// Like [`own_proof`], for a request that a session answers for. Nobody else's page can
/// set `Authorization`: such a token is proof by itself, unless the request says that it
/// comes from elsewhere.
fn proved(loaded: &Loaded, inbound: &Inbound, reading: &Reading) -> Result<(), Refusal> {
    match own_proof(loaded, inbound) {
        Err(Unproved::Absent) if carried_by_header(reading) => Ok(()),
        proof => Ok(proof?),
    }
}

fn carried_by_header(reading: &Reading) -> bool {
    reading.credential.as_ref().is_ok_and(|credential| credential.carrier == Carrier::Authorization)
}

/// Whose session a pair belongs to.
pub(super) fn owner(pair: &CheckedPair) -> (SessionId, &Subject, &Role) {
    (pair.session(), pair.subject(), pair.role())
}
