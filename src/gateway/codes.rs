//! The endpoints of access codes: one is given out, redeemed, taken back (contract
//! section 3), and the page where people ask for one.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::access_code::{AccessCodes, Code, IssueError, Issued};
use crate::audit::{Event, Record};
use crate::gateway::answer;
use crate::gateway::body::{Body, BodyFault};
use crate::gateway::code_page;
use crate::gateway::endpoints::{ending_record, own_proof, owner};
use crate::gateway::exchange::{Exchange, Progress};
use crate::gateway::gate;
use crate::gateway::login::user_agent;
use crate::gateway::needs_login;
use crate::gateway::observe::Decision;
use crate::gateway::redeeming::{Redeeming, Welcomed, refused};
use crate::gateway::schedule::{Schedule, Timer};
use crate::gateway::unread::read_bounded;
use crate::gateway::worker::Loaded;
use crate::gateway::{Gateway, Inbound, Services};
use crate::identity::{Reference, Subject};
use crate::refusal::Refusal;
use crate::session::{Carrier, Origin, Reason, VerifiedIdentity};
use crate::wire::csrf::{self, Proof};

/// Largest body of these endpoints, in bytes.
const BODY_BYTES_MAX: u64 = 4 * 1024;
/// When codes that are not good are said not to be: all of them, whatever the reason.
const REFUSALS: Schedule = Schedule::every(Duration::from_millis(250));

/// What somebody posts who wants a code.
#[derive(Default, Deserialize)]
struct Wanted {
    reference: Option<String>,
}

/// What somebody posts who has one.
#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "accessCode")]
    access_code: String,
}

impl Gateway {
    /// `/auth/access-codes`: the page, or a new code as JSON or on the page.
    pub(crate) async fn access_codes(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        let codes = loaded.snapshot.codes.clone().ok_or(Refusal::NoRoute)?;
        if inbound.parts.method != Method::POST {
            return self.code_page(loaded, exchange, &inbound).await;
        }
        let issuer = self.issuer(loaded, exchange, &inbound).await?;
        let headers = &inbound.parts.headers;
        let is_form = loaded.has_login_page() && is_form(headers);
        let body = self.body_of_ours(loaded, exchange).await?;
        let reference = if is_form { None } else { reference(headers, &body)? };
        match self.issue(exchange, codes, issuer.subject(), reference).await {
            Ok(given) if is_form => Ok(shown(loaded, Some(&given), None)),
            Ok(given) => Ok(answer::json(
                StatusCode::CREATED,
                &json!({
                    "accessCode": given.code.expose(),
                    "expires_in": given.lifetime.as_secs(),
                }),
            )),
            Err(refusal) if is_form => {
                exchange.decision = Decision::Deny;
                Ok(shown(loaded, None, Some(refusal)))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// `POST /auth/access-codes/redeem`, from whoever has a code.
    pub(crate) async fn redeem_code(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        let codes = loaded.snapshot.codes.clone().ok_or(Refusal::NoRoute)?;
        own_proof(loaded, &inbound)?;
        let services = self.services();
        if !services.audit.is_available() {
            return Err(Refusal::AuditUnavailable);
        }
        let headers = &inbound.parts.headers;
        let body = self.body_of_ours(loaded, exchange).await?;
        let code = typed(headers, &body)?;
        let redeeming = Redeeming {
            codes,
            code,
            origin: Origin { address: exchange.client, user_agent: user_agent(headers) },
            previous: loaded.credentials.read(headers, false).await.credential.ok().map(
                |previous| {
                    let pair = &previous.known.pair;
                    (pair.session(), ending_record(exchange, owner(pair), Reason::NewLogin))
                },
            ),
            record: exchange.record(Event::AccessCode, "", None),
        };
        exchange.progress = Progress::Recorded;
        // On the control runtime, to its end: a code that is spent opens its session.
        let redeemed = services.control.spawn(redeeming.complete(Arc::clone(services)));
        let welcomed = redeemed.await.map_err(|_| Refusal::Internal)??;
        Ok(welcome(loaded, exchange, &welcomed))
    }

    /// `POST /auth/access-codes/revoke`, by whoever gave the code out.
    pub(crate) async fn revoke_code(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        let codes = loaded.snapshot.codes.clone().ok_or(Refusal::NoRoute)?;
        let issuer = self.issuer(loaded, exchange, &inbound).await?;
        let body = self.body_of_ours(loaded, exchange).await?;
        let code = typed(&inbound.parts.headers, &body)?;
        let record = exchange.record(Event::AccessCode, "revoked", Some(204));
        let (services, subject) = (Arc::clone(self.services()), issuer.subject().clone());
        let revoked = self.services().control.spawn(async move {
            let name = codes.revoke(&code, &subject).await.map_err(|error| refused(&error).0)?;
            // It is taken back, even when its record cannot be written.
            record_of(&services, record, &name).await
        });
        revoked.await.map_err(|_| Refusal::Internal)??;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    /// `GET /auth/access-codes`, for people; who is not logged in is sent there first.
    async fn code_page(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: &Inbound,
    ) -> Result<Response<Body>, Refusal> {
        if !loaded.has_login_page() {
            return Err(Refusal::MethodNotAllowed { allow: "POST" });
        }
        match self.issuer(loaded, exchange, inbound).await {
            Ok(_) => Ok(shown(loaded, None, None)),
            Err(refusal) if exchange.is_navigation && needs_login(refusal) => {
                Ok(answer::see_other(&loaded.login_location(exchange)))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Who is asking, in a role that may give out codes, with the proof that the method
    /// needs.
    async fn issuer(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: &Inbound,
    ) -> Result<VerifiedIdentity, Refusal> {
        let headers = &inbound.parts.headers;
        let config = &loaded.snapshot.config;
        let proof = gate::needs_proof(&inbound.parts.method, false)
            .then(|| csrf::proof(headers, inbound.host.authority(), &config.server.cors_origins));
        let reading = loaded.credentials.read(headers, false).await;
        let caller = self.caller(loaded, exchange, reading.credential, (false, proof)).await?;
        let caller = caller.ok_or(Refusal::Unauthenticated)?;
        let identity = caller.named.identity;
        exchange.identity = Some(identity.clone());
        let unproved = match caller.carrier {
            Carrier::Cookie => !matches!(proof, None | Some(Proof::Given)),
            // Nobody else's page can set the header, but one may say that it did.
            Carrier::Authorization => proof == Some(Proof::Failed),
        };
        if unproved {
            return Err(Refusal::CsrfRejected);
        }
        let roles = config.access_codes.as_ref().map(|codes| codes.issuer_roles.as_slice());
        if !roles.unwrap_or_default().contains(identity.role()) {
            return Err(Refusal::Forbidden);
        }
        Ok(identity)
    }

    /// Gives out a code and records it, to the end whatever the client does.
    async fn issue(
        &self,
        exchange: &mut Exchange,
        codes: Arc<AccessCodes>,
        issuer: &Subject,
        reference: Option<Reference>,
    ) -> Result<Issued, Refusal> {
        let services = Arc::clone(self.services());
        if !services.audit.is_available() {
            return Err(Refusal::AuditUnavailable);
        }
        let record = exchange.record(Event::AccessCode, "issued", Some(201));
        let issuer = issuer.clone();
        let issuing = self.services().control.spawn(async move {
            let given =
                codes.issue(&issuer, reference).await.map_err(|error| not_issued(&error))?;
            let recorded = record_of(&services, record, &given.subject).await;
            if let Err(refusal) = recorded {
                // A code that nobody can account for is none.
                let _ = codes.revoke(&given.code, &issuer).await;
                return Err(refusal);
            }
            Ok(given)
        });
        let given = issuing.await.map_err(|_| Refusal::Internal)??;
        exchange.progress = Progress::Recorded;
        Ok(given)
    }

    async fn body_of_ours(
        &self,
        loaded: &Loaded,
        exchange: &mut Exchange,
    ) -> Result<Vec<u8>, Refusal> {
        let timeout = loaded.snapshot.config.server.limits.body_idle_timeout;
        if exchange.body.bytes_min() > BODY_BYTES_MAX {
            return Err(Refusal::BodyTooLarge);
        }
        let incoming = exchange.body.take().ok_or(Refusal::Internal)?;
        read_bounded(incoming, BODY_BYTES_MAX, timeout).await.map_err(|fault| match fault {
            BodyFault::TooLarge => Refusal::BodyTooLarge,
            BodyFault::Stalled => Refusal::RequestTimeout,
            BodyFault::Broken => {
                Refusal::BadRequest { reason: "The request's body ended before its end." }
            }
        })
    }
}

/// What an endpoint answers, at the moment when it may be told: a code is not good for one
/// reason at the same moment as for any other.
pub(super) async fn released<T>(
    answer: Result<T, Refusal>,
    timer: &Timer,
    began: Instant,
) -> Result<T, Refusal> {
    if matches!(answer, Err(Refusal::InvalidAccessCode)) {
        REFUSALS.keep(timer, began).await;
    }
    answer
}

/// Records what became of a code by the name of who acts by it, never by its digits.
async fn record_of(
    services: &Services,
    mut record: Record,
    subject: &Subject,
) -> Result<(), Refusal> {
    record.detail = Some(subject.as_str().to_owned().into());
    services.audit.durable(record).await.map_err(|_| Refusal::AuditUnavailable)
}

fn not_issued(error: &IssueError) -> Refusal {
    match error {
        IssueError::TooMany { retry_after, .. } => {
            Refusal::TooManyAttempts { retry_after: *retry_after }
        }
        IssueError::Store(_) => Refusal::StoreUnavailable,
        IssueError::Entropy(_) | IssueError::Exhausted => {
            tracing::error!(%error, "a code could not be given out");
            Refusal::Internal
        }
    }
}

/// The answer to a redemption: like a login's, without what that adds for people.
fn welcome(loaded: &Loaded, exchange: &mut Exchange, welcomed: &Welcomed) -> Response<Body> {
    let Welcomed { opened, reference } = welcomed;
    let delivery = loaded.snapshot.config.token.delivery;
    loaded.set_context_cookie(exchange, opened.context.as_str());
    if delivery.by_cookie() {
        loaded.set_token_cookie(exchange, &opened.token);
    }
    let mut members = json!({
        "id": opened.subject.as_str(),
        "role": opened.role.as_str(),
        "expires_in": opened.expires_at.since(opened.issued_at).as_secs(),
    });
    if let Some(reference) = reference {
        members["reference"] = reference.as_str().into();
    }
    if delivery.by_answer() {
        members["token"] = opened.token.expose().as_str().into();
    }
    answer::json(StatusCode::OK, &members)
}

/// The page, with the code that was just given out, or with why there is none.
fn shown(loaded: &Loaded, issued: Option<&Issued>, refusal: Option<Refusal>) -> Response<Body> {
    let config = &loaded.snapshot.config;
    let facts = refusal.map(Refusal::facts);
    let page = code_page::Codes {
        title: &config.login_page.title,
        action: &format!("{}/access-codes", config.server.auth_prefix),
        issued,
        error: facts.map(|facts| facts.message),
    };
    let status = facts.and_then(|facts| StatusCode::from_u16(facts.status).ok());
    let mut answer = answer::page(status.unwrap_or(StatusCode::OK), page.html());
    if let Some(seconds) = facts.and_then(|facts| facts.retry_after_seconds) {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// The reference of a JSON body; nothing posted, nothing wanted.
fn reference(headers: &HeaderMap, body: &[u8]) -> Result<Option<Reference>, Refusal> {
    if body.is_empty() {
        return Ok(None);
    }
    let reason = "The body must be JSON, with the string reference or without.";
    let wanted: Wanted = json_of(headers, body, reason)?;
    let reason = "A reference is 1 to 128 characters of printable ASCII, without outer spaces.";
    let parse = |text: String| Reference::parse(&text).ok_or(Refusal::BadRequest { reason });
    wanted.reference.map(parse).transpose()
}

/// The code of a JSON body.
fn typed(headers: &HeaderMap, body: &[u8]) -> Result<Code, Refusal> {
    let reason = "The body must be JSON with the string accessCode.";
    let Typed { access_code } = json_of(headers, body, reason)?;
    Code::parse(&access_code).ok_or(Refusal::InvalidAccessCode)
}

fn json_of<T: for<'de> Deserialize<'de>>(
    headers: &HeaderMap,
    body: &[u8],
    reason: &'static str,
) -> Result<T, Refusal> {
    if essence(headers).eq_ignore_ascii_case("application/json") {
        serde_json::from_slice(body).map_err(|_| Refusal::BadRequest { reason })
    } else {
        Err(Refusal::BadRequest { reason })
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    essence(headers).eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// A content type without its parameters.
fn essence(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{refused, released};
    use crate::access_code::{AccessCodes, Code, CodeKeys, Ledger};
    use crate::ambient::{Clock, Entropy};
    use crate::config::{self, GuessBudget, Rate, SuccessBound};
    use crate::gateway::schedule::Timer;
    use crate::identity::Subject;
    use crate::metrics::Metrics;
    use crate::refusal::Refusal;
    use crate::store::Store;

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn never_was_spent_and_expired_are_said_at_the_same_moment() {
        let (clock, time) = Clock::manual();
        let metrics = Metrics::new().unwrap();
        let memory = config::Store::Memory;
        let store = Store::open(&memory, Duration::ZERO, (&clock, &Entropy::system()), &metrics)
            .await
            .unwrap();
        let (store, entropy) = (Arc::new(store), Entropy::seeded(1));
        let keys = CodeKeys::open(&store, &entropy).await.unwrap();
        let settings = config::AccessCodes {
            lifetime: HOUR,
            session_lifetime: HOUR,
            alive_max: 50,
            issuer_roles: Vec::new(),
            per_issuer: Rate { count: 10, window: HOUR },
            budgets: GuessBudget::of_lengths(6, 50, SuccessBound { one_in: 100 }),
        };
        let ledger = Ledger { store, keys, clock, entropy };
        let codes = AccessCodes::new(&settings, &ledger, &metrics);
        let (issuer, from) = (Subject::new("zoë"), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let late = codes.issue(&issuer, None).await.unwrap().code;
        time.advance(HOUR);
        let spent = codes.issue(&issuer, None).await.unwrap().code;
        codes.redeem(&spent, from).await.unwrap();
        let never = Code::parse("000000").unwrap();
        // However long each of them took to know, below one step of the schedule.
        for (code, took, outcome) in
            [(never, 3, "wrong"), (spent, 90, "wrong"), (late, 240, "expired")]
        {
            let began = Instant::now();
            let error = codes.redeem(&code, from).await.unwrap_err();
            sleep(Duration::from_millis(took)).await;
            let (refusal, recorded) = refused(&error);
            assert_eq!(recorded, outcome, "known here alone");
            let answer = released(Err::<(), _>(refusal), &Timer::here(), began).await;
            assert_eq!(answer, Err(Refusal::InvalidAccessCode));
            assert_eq!(began.elapsed(), Duration::from_millis(250));
        }
    }
}
