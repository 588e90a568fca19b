//! The login: a name and a password become a session (contract section 3,
//! architecture section 3), and the page that asks for them.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::audit::Event;
use crate::directory::Directory;
use crate::gateway::answer;
use crate::gateway::body::{Body, BodyFault};
use crate::gateway::device;
use crate::gateway::emergency::GivenReason;
use crate::gateway::endpoints::{ending_record, own_proof, owner};
use crate::gateway::exchange::{Exchange, Progress};
use crate::gateway::logins::{Place, Refused, level};
use crate::gateway::opening::{self, LoggedIn, Opening, Unopened};
use crate::gateway::page;
use crate::gateway::schedule::Schedule;
use crate::gateway::unread::read_bounded;
use crate::gateway::worker::Loaded;
use crate::gateway::{Gateway, Inbound};
use crate::identity::Credentials;
use crate::policy::{Found, OwnEndpoint};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::session::{Origin, Reason};
use crate::wire::cookie;
use crate::wire::host::Host;
use crate::wire::return_path;
use crate::wire::target::Target;

/// Largest body of a login, in bytes.
const LOGIN_BYTES_MAX: u64 = 16 * 1024;
/// Longest user agent kept with a session, in bytes.
const USER_AGENT_BYTES_MAX: usize = 256;

/// What was posted.
pub(super) struct Posted {
    username: String,
    password: Secret<String>,
    /// Why an emergency account is needed; others are not asked.
    reason: Option<GivenReason>,
    /// The form's return path; `None` for JSON.
    form: Option<String>,
}

impl Posted {
    pub(super) const fn new(username: String, password: Secret<String>) -> Self {
        Self { username, password, reason: None, form: None }
    }
}

#[derive(Deserialize)]
struct LoginJson {
    username: String,
    password: String,
    /// Whatever it is: where it is not needed, it is ignored.
    #[serde(default)]
    reason: serde_json::Value,
}

impl Gateway {
    /// `POST /auth/login`, as JSON or as the login page's form.
    pub(crate) async fn login(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        own_proof(loaded, &inbound)?;
        let body = posted_body(loaded, exchange).await?;
        let mut posted = posted(&inbound.parts.headers, body.expose())?;
        // Without a login page there is nothing to go back to: a form is answered like JSON.
        let form = posted.form.take().filter(|_| loaded.has_login_page());
        posted.form = form.map(|back| back_path(loaded, &inbound.host, Some(&back)));
        let (name, back) = (posted.username.clone(), posted.form.clone());
        let client = exchange.client;
        let headers = &inbound.parts.headers;
        let work = async |place| self.log_in(loaded, exchange, (posted, place), headers).await;
        match self.on_schedule(loaded, client, work).await {
            Ok(logged_in) => Ok(welcome(loaded, exchange, &logged_in, back.as_deref())),
            Err(Unopened { change: Some(account), .. }) => {
                self.ask_for_change(loaded, exchange, (&account, &name), back.as_deref())
            }
            Err(Unopened { refusal, change: None }) => match back {
                Some(back) => {
                    exchange.decision = crate::gateway::Decision::Deny;
                    Ok(form_again(loaded, refusal, &name, &back))
                }
                None => Err(refusal),
            },
        }
    }

    /// `POST` to a path of `server.login_aliases`: its clients are of the era that
    /// showed the one sentence it knew, so wrong credentials are said in exactly that.
    pub(crate) async fn login_on_alias(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        match self.login(loaded, exchange, inbound).await {
            Err(refusal @ Refusal::InvalidCredentials) => {
                exchange.decision = crate::gateway::Decision::Deny;
                let status = StatusCode::from_u16(refusal.facts().status);
                let members = json!({ "message": "Invalid credentials." });
                Ok(answer::json(status.unwrap_or(StatusCode::UNAUTHORIZED), &members))
            }
            result => result,
        }
    }

    /// Tries a password, or is refused at a time that tells nothing of the way there. The
    /// place is free when the client has its answer, or has gone, and the work is done.
    pub(super) async fn on_schedule<T, E: Refused>(
        &self,
        loaded: &Loaded,
        client: IpAddr,
        work: impl AsyncFnOnce(Arc<Place>) -> Result<T, E>,
    ) -> Result<T, E> {
        let (services, config) = (self.services(), &loaded.snapshot.config.throttle);
        let place = services.logins.enter(client, config.logins);
        let place = place.inspect_err(|_| services.metrics.limit_hits("logins").inc())?;
        let place = Arc::new(place);
        let schedule = Schedule::every(config.refusal_after);
        let result = work(Arc::clone(&place)).await;
        level((schedule, &services.timer), place.began(), result).await
    }

    /// Logs in.
    pub(super) async fn log_in(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        (mut posted, place): (Posted, Arc<Place>),
        headers: &HeaderMap,
    ) -> Result<LoggedIn, Unopened> {
        exchange.progress = Progress::Recorded;
        let services = self.services();
        if !services.audit.is_available() {
            return Err(Refusal::AuditUnavailable.into());
        }
        let began = Instant::now();
        let mut record = exchange.record(Event::Login, "", None);
        record.name_hash = Some(services.audit.hash_name(&posted.username));
        let reason = posted.reason.take();
        let (credentials, directory) = possible(loaded, posted).map_err(|(refusal, outcome)| {
            opening::count(services, outcome, began);
            record.outcome = outcome;
            record.status = Some(refusal.facts().status);
            services.audit.refusal(exchange.client, record.clone());
            refusal
        })?;
        let opening = Opening {
            directory,
            credentials,
            device: device::brought(headers, &loaded.snapshot.config.cookie.device_name),
            origin: Origin { address: exchange.client, user_agent: user_agent(headers) },
            reason,
            previous: loaded.credentials.read(headers, false).await.credential.ok().map(
                |previous| {
                    let pair = &previous.known.pair;
                    (pair.session(), ending_record(exchange, owner(pair), Reason::NewLogin))
                },
            ),
            record,
            began,
            place: Arc::clone(&place),
        };
        // On a runtime of its own, to its end: neither a bind that has begun nor the record of
        // a session that was opened is cut off by a client that goes away.
        let opened = services.login.spawn(place.held_by(opening.complete(Arc::clone(services))));
        opened.await.map_err(|_| Refusal::Internal)?
    }

    /// `GET /auth/`.
    pub(crate) async fn login_page(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        if !loaded.has_login_page() {
            return Err(Refusal::NoRoute);
        }
        let query = inbound.target.query().unwrap_or_default();
        let back = back_path(loaded, &inbound.host, parameter(query, "rd").as_deref());
        let headers = &inbound.parts.headers;
        let names = &loaded.snapshot.config.cookie;
        let is_cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        let came = |name| !matches!(cookie::find(headers, name), cookie::Found::None);
        if is_cross_site
            && !came(&names.context_name)
            && !came(&names.token_name)
            && parameter(query, page::AGAIN).is_none()
        {
            // Strict cookies do not come along on a link from another site, but do on
            // the reload that this page asks for.
            let config = &loaded.snapshot.config;
            let again = page::Again {
                title: &config.login_page.title,
                login_path: &format!("{}/", config.server.auth_prefix),
                return_path: &back,
            };
            return Ok(answer::page(StatusCode::OK, again.html()));
        }
        let reading = loaded.credentials.read(headers, false).await;
        let caller = self.caller(loaded, exchange, reading.credential, (false, None)).await;
        if let Ok(Some(_)) = caller {
            return Ok(answer::see_other(&back));
        }
        Ok(login_form(loaded, StatusCode::OK, ("", &back), None))
    }
}

/// The body of a post that holds credentials, bounded.
pub(super) async fn posted_body(
    loaded: &Loaded,
    exchange: &mut Exchange,
) -> Result<Secret<Vec<u8>>, Refusal> {
    if exchange.body.bytes_min() > LOGIN_BYTES_MAX {
        return Err(Refusal::BodyTooLarge);
    }
    let incoming = exchange.body.take().ok_or(Refusal::Internal)?;
    let pause_max = loaded.snapshot.config.server.limits.body_idle_timeout;
    let body = read_bounded(incoming, LOGIN_BYTES_MAX, pause_max).await;
    body.map(Secret::new).map_err(|fault| match fault {
        BodyFault::TooLarge => Refusal::BodyTooLarge,
        BodyFault::Stalled => Refusal::RequestTimeout,
        BodyFault::Broken => {
            Refusal::BadRequest { reason: "The request's body ended before its end." }
        }
    })
}

/// Credentials that a directory may be asked about, and the directory.
fn possible(
    loaded: &Loaded,
    Posted { username, password, .. }: Posted,
) -> Result<(Credentials, Arc<Directory>), (Refusal, &'static str)> {
    let credentials = Credentials::parse(username, password)
        .map_err(|_| (Refusal::InvalidCredentials, "impossible"))?;
    let directory = loaded.snapshot.directory.clone();
    let directory = directory.ok_or((Refusal::DirectoryUnavailable, "directory_unavailable"))?;
    Ok((credentials, directory))
}

/// The answer to a login that succeeded.
pub(super) fn welcome(
    loaded: &Loaded,
    exchange: &mut Exchange,
    LoggedIn { opened, device }: &LoggedIn,
    form: Option<&str>,
) -> Response<Body> {
    if let Some(device) = device {
        loaded.set_device_cookie(exchange, device);
    }
    let config = &loaded.snapshot.config.token;
    loaded.set_context_cookie(exchange, opened.context.as_str());
    if config.delivery.by_cookie() {
        loaded.set_token_cookie(exchange, &opened.token);
    }
    if let Some(back) = form {
        return answer::see_other(back);
    }
    let lifetime = opened.expires_at.since(opened.issued_at);
    answer::logged_in(config, (&opened.subject, &opened.role), lifetime, &opened.token)
}

/// The page again, with the refusal's status and sentence, and the name as typed.
pub(super) fn form_again(
    loaded: &Loaded,
    refusal: Refusal,
    name: &str,
    back: &str,
) -> Response<Body> {
    let facts = refusal.facts();
    let status = StatusCode::from_u16(facts.status).unwrap_or(StatusCode::UNAUTHORIZED);
    let mut answer = login_form(loaded, status, (name, back), Some(facts.message));
    if let Some(seconds) = facts.retry_after_seconds {
        answer.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    answer
}

fn login_form(
    loaded: &Loaded,
    status: StatusCode,
    (name, back): (&str, &str),
    error: Option<&str>,
) -> Response<Body> {
    let config = &loaded.snapshot.config;
    let page = page::Login {
        title: &config.login_page.title,
        notice: &config.login_page.notice,
        action: &format!("{}/login", config.server.auth_prefix),
        return_path: back,
        name,
        asks_reason: loaded.snapshot.directory.as_ref().is_some_and(|it| it.is_emergency()),
        error,
    };
    answer::page(status, page.html())
}

fn posted(headers: &HeaderMap, body: &[u8]) -> Result<Posted, Refusal> {
    if let Some(text) = posted_form(headers, body)? {
        return Ok(Posted {
            username: parameter(text, "username").unwrap_or_default(),
            password: Secret::new(parameter(text, "password").unwrap_or_default()),
            reason: parameter(text, "reason").and_then(|text| GivenReason::parse(&text)),
            form: Some(parameter(text, "rd").unwrap_or_default()),
        });
    }
    let reason = "The body must be JSON with the strings username and password.";
    let login: LoginJson =
        serde_json::from_slice(body).map_err(|_| Refusal::BadRequest { reason })?;
    Ok(Posted {
        username: login.username,
        password: Secret::new(login.password),
        reason: login.reason.as_str().and_then(GivenReason::parse),
        form: None,
    })
}

/// The text of what was posted as a form; `None` when it is JSON.
pub(super) fn posted_form<'b>(
    headers: &HeaderMap,
    body: &'b [u8],
) -> Result<Option<&'b str>, Refusal> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let reason = "The form is not URL-encoded UTF-8.";
        return std::str::from_utf8(body).map(Some).map_err(|_| Refusal::BadRequest { reason });
    }
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(None);
    }
    Err(Refusal::BadRequest { reason: "Passwords are posted as JSON or as a form." })
}

/// A parameter of a query or form (application/x-www-form-urlencoded): the first
/// of that name.
pub(super) fn parameter(encoded: &str, name: &str) -> Option<String> {
    let value = encoded.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// The return path: the one given, unless it leads elsewhere or to an endpoint of
/// ours, which could log the person out again (`/auth/logout`).
pub(super) fn back_path(loaded: &Loaded, host: &Host, given: Option<&str>) -> String {
    let leads_to_us = |path: &String| {
        let target = path.parse::<PathAndQuery>().ok().and_then(|path| Target::parse(&path).ok());
        target.is_none_or(|target| {
            let found = loaded.snapshot.routes.find(host.name(), "GET", &target);
            match found {
                // A page like any other.
                Found::Own(OwnEndpoint::AccessCodes) => false,
                found => matches!(found, Found::Own(_) | Found::OwnMethod { .. }),
            }
        })
    };
    let path = given.and_then(return_path::parse).filter(|path| !leads_to_us(path));
    path.unwrap_or_else(|| "/".to_owned())
}

pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(http::header::USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(USER_AGENT_BYTES_MAX).collect())
}
