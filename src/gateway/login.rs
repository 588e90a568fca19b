//! The login: a name and a password become a session (contract section 3,
//! architecture section 3), and the page that asks for them.

use std::rc::Rc;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::audit::{Event, Record};
use crate::directory::{Directory, Person, VerifyError};
use crate::gateway::answer;
use crate::gateway::body::{Body, BodyFault, read_bounded};
use crate::gateway::endpoints::{own_proof, owner};
use crate::gateway::exchange::Exchange;
use crate::gateway::page;
use crate::gateway::worker::Loaded;
use crate::gateway::{Gateway, Inbound};
use crate::identity::Credentials;
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::session::{self, Opened, Origin, Reason};
use crate::throttle::Attempt;
use crate::wire::cookie::{self, Found};
use crate::wire::return_path;

/// Largest body of a login, in bytes.
const LOGIN_BYTES_MAX: usize = 16 * 1024;
/// Longest user agent kept with a session, in bytes.
const USER_AGENT_BYTES_MAX: usize = 256;

/// What was posted.
struct Posted {
    username: String,
    password: Secret<String>,
    /// The form's return path; `None` for JSON.
    form: Option<String>,
}

#[derive(Deserialize)]
struct LoginJson {
    username: String,
    password: String,
}

/// How a login went, with what its record says.
struct Verdict {
    result: Result<Opened, Refusal>,
    /// The true outcome, for metric and audit.
    outcome: &'static str,
    /// Whose login it was, in the directory's spelling; `None` until an entry was found.
    account: Option<String>,
}

impl Gateway {
    /// `POST /auth/login`, as JSON or as the login page's form.
    pub(crate) async fn login(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        mut inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        own_proof(loaded, &inbound)?;
        let limits = &loaded.snapshot.config.server.limits;
        let incoming = inbound.body.take().ok_or(Refusal::Internal)?;
        let body = read_bounded(incoming, LOGIN_BYTES_MAX, limits.body_idle_timeout).await;
        let body = Secret::new(body.map_err(|fault| match fault {
            BodyFault::TooLarge => Refusal::BodyTooLarge,
            BodyFault::Stalled => Refusal::RequestTimeout,
            BodyFault::Broken => {
                Refusal::BadRequest { reason: "The request's body ended before its end." }
            }
        })?);
        let posted = posted(&inbound.parts.headers, body.expose())?;
        let form = posted.form.clone().map(|back| (posted.username.clone(), back));
        match self.log_in(loaded, exchange, posted, &inbound.parts.headers).await {
            Ok(opened) => {
                let back = form.as_ref().map(|(_, back)| back.as_str());
                Ok(welcome(loaded, exchange, &opened, back))
            }
            Err(refusal) => match form {
                Some((name, back)) if loaded.has_login_page() => {
                    exchange.decision = crate::gateway::Decision::Deny;
                    Ok(form_again(loaded, refusal, &name, &back))
                }
                _ => Err(refusal),
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

    async fn log_in(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        posted: Posted,
        headers: &HeaderMap,
    ) -> Result<Opened, Refusal> {
        let began = Instant::now();
        exchange.is_recorded = true;
        let services = self.services();
        if !services.audit.is_available() {
            return Err(Refusal::AuditUnavailable);
        }
        let name_hash = services.audit.hash_name(&posted.username);
        let verdict = match self.attempt(loaded, exchange, &posted) {
            Ok((credentials, attempt, directory)) => {
                let origin = Origin { address: exchange.client, user_agent: user_agent(headers) };
                let task = verify_and_open(
                    Arc::clone(services),
                    directory,
                    (credentials, attempt),
                    origin,
                );
                // On the control runtime, to its end: a bind that has begun is never cut off.
                services.control.spawn(task).await.map_err(|_| Refusal::Internal)?
            }
            Err((refusal, outcome)) => Verdict { result: Err(refusal), outcome, account: None },
        };
        services.metrics.logins(verdict.outcome).inc();
        let duration = services.metrics.login_duration(verdict.outcome);
        duration.observe(began.elapsed().as_secs_f64());
        self.conclude(loaded, exchange, (verdict, name_hash), headers).await
    }

    /// Everything before the directory is asked; the attempt is counted first.
    fn attempt(
        &self,
        loaded: &Loaded,
        exchange: &Exchange,
        posted: &Posted,
    ) -> Result<(Credentials, Attempt, Arc<Directory>), (Refusal, &'static str)> {
        let credentials = Credentials::parse(posted.username.clone(), posted.password.clone())
            .map_err(|_| (Refusal::InvalidCredentials, "impossible"))?;
        let directory = loaded.snapshot.directory.clone();
        let directory =
            directory.ok_or((Refusal::DirectoryUnavailable, "directory_unavailable"))?;
        let attempt =
            self.services().throttle.begin(&credentials.folded_name(), exchange.client).map_err(
                |throttled| {
                    let retry_after = throttled.retry_after;
                    (Refusal::TooManyAttempts { retry_after }, "throttled")
                },
            )?;
        Ok((credentials, attempt, directory))
    }

    /// The record first, then the session that the browser already had.
    async fn conclude(
        &self,
        loaded: &Loaded,
        exchange: &mut Exchange,
        (verdict, name_hash): (Verdict, String),
        headers: &HeaderMap,
    ) -> Result<Opened, Refusal> {
        let services = self.services();
        let status = verdict.result.as_ref().map_or_else(|refusal| refusal.facts().status, |_| 200);
        let mut record: Record = exchange.record(Event::Login, verdict.outcome, Some(status));
        match verdict.account {
            Some(account) => record.subject = Some(account.into()),
            None => record.name_hash = Some(name_hash),
        }
        let opened = match verdict.result {
            Ok(opened) => opened,
            Err(refusal) => {
                tracing::info!(
                    request_id = exchange.request_id_text(),
                    client = %exchange.client,
                    outcome = verdict.outcome,
                    "login refused"
                );
                if verdict.outcome == "throttled" || verdict.outcome == "impossible" {
                    services.audit.refusal(exchange.client, record);
                } else if services.audit.durable(record).await.is_err() {
                    return Err(Refusal::AuditUnavailable);
                }
                return Err(refusal);
            }
        };
        record.subject = Some(opened.subject.shared());
        record.role = Some(opened.role.shared());
        record.session = Some(*opened.session.as_bytes());
        if services.audit.durable(record).await.is_err() {
            // A login that nobody can account for is no login.
            let whose = (opened.session, &opened.subject, &opened.role);
            self.end_session(exchange, whose, Reason::Unrecorded).await?;
            return Err(Refusal::AuditUnavailable);
        }
        tracing::info!(
            request_id = exchange.request_id_text(),
            client = %exchange.client,
            session = %opened.session,
            "logged in"
        );
        if let Ok(previous) = loaded.credentials.read(headers, false).credential {
            self.end_session(exchange, owner(&previous.known.pair), Reason::NewLogin).await?;
        }
        Ok(opened)
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
        let back = back_path(parameter(query, "rd").as_deref());
        let headers = &inbound.parts.headers;
        let names = &loaded.snapshot.config.cookie;
        let is_cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        let came = |name| !matches!(cookie::find(headers, name), Found::None);
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
        let reading = loaded.credentials.read(headers, false);
        let caller = self.caller(loaded, exchange, reading.credential, (false, None)).await;
        if let Ok(Some(_)) = caller {
            return Ok(answer::see_other(&back));
        }
        Ok(login_form(loaded, StatusCode::OK, ("", &back), None))
    }
}

/// Verifies the password at the directory and opens the session.
async fn verify_and_open(
    services: Arc<crate::gateway::Services>,
    directory: Arc<Directory>,
    (credentials, attempt): (Credentials, Attempt),
    origin: Origin,
) -> Verdict {
    let refused = |refusal, outcome, account| Verdict { result: Err(refusal), outcome, account };
    let person: Person = match directory.verify(&credentials).await {
        Ok(person) => person,
        // The attempt is dropped here and stays counted.
        Err(VerifyError::Rejected(rejection)) => {
            return refused(Refusal::InvalidCredentials, rejection.label(), None);
        }
        Err(VerifyError::MustChange) => {
            attempt.succeeded();
            return refused(Refusal::PasswordChangeRequired, "must_change", None);
        }
        Err(VerifyError::AccountUnavailable) => {
            attempt.succeeded();
            return refused(Refusal::AccountUnavailable, "account_unavailable", None);
        }
        Err(VerifyError::NoRole { account, .. }) => {
            attempt.succeeded();
            return refused(Refusal::NoRole, "no_role", Some(account));
        }
        Err(VerifyError::Unavailable(error)) => {
            // An outage locks nobody out.
            attempt.withdraw();
            tracing::error!(%error, "the directory cannot answer");
            return refused(Refusal::DirectoryUnavailable, "directory_unavailable", None);
        }
    };
    attempt.succeeded();
    let account = Some(person.account.clone());
    let Person { subject, role, account: name, attributes } = person;
    let person = session::Person { subject, role, account: name, attributes };
    match services.sessions.open(person, origin).await {
        Ok(opened) => Verdict { result: Ok(opened), outcome: "ok", account },
        Err(error) => {
            tracing::error!(%error, "a session could not be opened");
            refused(Refusal::StoreUnavailable, "store_unavailable", account)
        }
    }
}

/// The answer to a login that succeeded.
fn welcome(
    loaded: &Loaded,
    exchange: &mut Exchange,
    opened: &Opened,
    form: Option<&str>,
) -> Response<Body> {
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
fn form_again(loaded: &Loaded, refusal: Refusal, name: &str, back: &str) -> Response<Body> {
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
        error,
    };
    answer::page(status, page.html())
}

fn posted(headers: &HeaderMap, body: &[u8]) -> Result<Posted, Refusal> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let reason = "The form is not URL-encoded UTF-8.";
        let text = std::str::from_utf8(body).map_err(|_| Refusal::BadRequest { reason })?;
        return Ok(Posted {
            username: parameter(text, "username").unwrap_or_default(),
            password: Secret::new(parameter(text, "password").unwrap_or_default()),
            form: Some(back_path(parameter(text, "rd").as_deref())),
        });
    }
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::BadRequest { reason: "A login is posted as JSON or as a form." });
    }
    let reason = "The body must be JSON with the strings username and password.";
    let login: LoginJson =
        serde_json::from_slice(body).map_err(|_| Refusal::BadRequest { reason })?;
    Ok(Posted { username: login.username, password: Secret::new(login.password), form: None })
}

/// A parameter of a query or form (application/x-www-form-urlencoded): the first
/// of that name.
fn parameter(encoded: &str, name: &str) -> Option<String> {
    let value = encoded.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn back_path(given: Option<&str>) -> String {
    given.and_then(return_path::parse).unwrap_or_else(|| "/".to_owned())
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(http::header::USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(USER_AGENT_BYTES_MAX).collect())
}
