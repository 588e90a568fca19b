//! `POST /auth/password`: somebody who knows the old password chooses a new one and
//! is logged in with it; and what a login answers whose password must be changed first:
//! a token for programs, a form for people.

use std::rc::Rc;
use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;

use crate::audit::Event;
use crate::directory::Objection;
use crate::gateway::answer;
use crate::gateway::body::Body;
use crate::gateway::changing::{Changing, UNKNOWN, Unchanged};
use crate::gateway::device;
use crate::gateway::endpoints::own_proof;
use crate::gateway::exchange::{Exchange, Progress};
use crate::gateway::login;
use crate::gateway::logins::{Place, Refused};
use crate::gateway::observe::Decision;
use crate::gateway::opening::{LoggedIn, Unopened};
use crate::gateway::page;
use crate::gateway::worker::Loaded;
use crate::gateway::{Gateway, Inbound};
use crate::identity::Credentials;
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::token::{ChangeTicket, ChangeTokenError, ChangeTokens};

/// What was posted.
struct Posted {
    who: Who,
    old: Secret<String>,
    new: Secret<String>,
    form: Option<Form>,
}

/// Whose password it is.
enum Who {
    /// Of whom a login said that it must be changed.
    Token(Secret<String>),
    /// Of whoever has this login name.
    Named(String),
}

/// What only the form says.
struct Form {
    /// The new password, typed once more.
    again: Secret<String>,
    /// The return path.
    back: String,
}

#[derive(Deserialize)]
struct PasswordJson {
    change_token: Option<String>,
    username: Option<String>,
    old_password: String,
    new_password: String,
}

/// Why nobody was logged in.
struct Failed {
    refusal: Refusal,
    /// What is wrong with the new password, if that is why.
    objection: Option<&'static str>,
    /// Whether another change may still be what helps.
    may_retry: bool,
}

impl Gateway {
    /// `POST /auth/password`, as JSON or as the form that a login showed.
    pub(crate) async fn password(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        inbound: Inbound,
    ) -> Result<Response<Body>, Refusal> {
        own_proof(loaded, &inbound)?;
        let body = login::posted_body(loaded, exchange).await?;
        let headers = &inbound.parts.headers;
        let posted = posted(headers, body.expose())?;
        // Without a login page there is nothing to go back to: a form is answered like JSON.
        let form = posted.form.as_ref().filter(|_| loaded.has_login_page());
        let back = form.map(|form| login::back_path(loaded, &inbound.host, Some(&form.back)));
        let client = exchange.client;
        let work = async |place| self.change(loaded, exchange, (&posted, place), headers).await;
        let failed = match self.on_schedule(loaded, client, work).await {
            Ok(logged_in) => {
                return Ok(login::welcome(loaded, exchange, &logged_in, back.as_deref()));
            }
            Err(failed) => failed,
        };
        let Failed { refusal, objection, may_retry } = failed;
        if let (Some(back), Who::Named(name)) = (back, &posted.who) {
            exchange.decision = Decision::Deny;
            // The form's name cannot be typed: without one only the login helps.
            let page = if may_retry && !name.is_empty() { change_form } else { login::form_again };
            return Ok(page(loaded, refusal, name, &back));
        }
        let Some(objection) = objection else { return Err(refusal) };
        drop(self.refuse(loaded, exchange, refusal));
        Ok(answer::refusal_with(refusal, [("reason", objection.into())]))
    }

    /// The answer to a login whose password is right but must be changed: with a token
    /// that lets its owner do so once, within minutes. A form gets the form for it, and no
    /// token: none stands in any page, and name and old password are enough.
    pub(super) fn ask_for_change(
        &self,
        loaded: &Loaded,
        exchange: &mut Exchange,
        (account, name): (&str, &str),
        back: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        let services = self.services();
        let refusal = Refusal::PasswordChangeRequired;
        if let Some(back) = back {
            exchange.decision = Decision::Deny;
            return Ok(change_form(loaded, refusal, name, back));
        }
        let (now, entropy) = (services.clock.now(), &services.entropy);
        let token =
            services.change_tokens.issue((account, name), now, entropy).map_err(|error| {
                tracing::error!(%error, "a change token could not be issued");
                refusal
            })?;
        drop(self.refuse(loaded, exchange, refusal));
        let members = [
            ("change_token", token.expose().as_str().into()),
            ("expires_in", ChangeTokens::LIFETIME.as_secs().into()),
        ];
        Ok(answer::refusal_with(refusal, members))
    }

    /// Changes the password, then logs in with it.
    async fn change(
        &self,
        loaded: &Rc<Loaded>,
        exchange: &mut Exchange,
        (posted, place): (&Posted, Arc<Place>),
        headers: &HeaderMap,
    ) -> Result<LoggedIn, Failed> {
        exchange.progress = Progress::Recorded;
        let services = self.services();
        let mut record = exchange.record(Event::PasswordChange, "", None);
        let whose = self.whose(&posted.who);
        if let Ok((name, _)) = &whose {
            record.name_hash = Some(services.audit.hash_name(name));
        }
        let name = whose.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
        let device = device::brought(headers, &loaded.snapshot.config.cookie.device_name);
        let changing = whose
            .and_then(|whose| self.prepare(loaded, exchange, (posted, &place), (whose, device)));
        let changing = match changing {
            Ok(changing) => changing,
            Err(unchanged) => {
                services.metrics.password_changes(unchanged.outcome).inc();
                record.outcome = unchanged.outcome;
                record.status = Some(unchanged.refusal.facts().status);
                services.audit.refusal(exchange.client, record);
                return Err(unchanged.into());
            }
        };
        // On the runtime of logins, to its end: a client that goes away leaves no change
        // without its record.
        let work = Arc::clone(&place).held_by(changing.complete(Arc::clone(services), record));
        let changed = services.login.spawn(work).await;
        let changed =
            changed.unwrap_or_else(|_| Err(Unchanged::new(Refusal::Internal, "internal")));
        changed?;
        let login = login::Posted::new(name, posted.new.clone());
        let logged_in = self.log_in(loaded, exchange, (login, place), headers).await;
        // It is the new password that they log in with from now on.
        logged_in.map_err(|Unopened { refusal, .. }| Failed { may_retry: false, ..refusal.into() })
    }

    /// The login name of whose password it is, and what the token said.
    fn whose(&self, who: &Who) -> Result<(String, Option<ChangeTicket>), Unchanged> {
        let token = match who {
            Who::Named(name) => return Ok((name.clone(), None)),
            Who::Token(token) => token,
        };
        let services = self.services();
        match services.change_tokens.check(token.expose(), services.clock.now()) {
            Ok(ticket) => Ok((ticket.name.clone(), Some(ticket))),
            Err(ChangeTokenError::Expired) => {
                Err(Unchanged::new(Refusal::TokenExpired, "token_expired"))
            }
            Err(ChangeTokenError::Invalid) => {
                Err(Unchanged::new(Refusal::InvalidToken, "invalid_token"))
            }
        }
    }

    /// Everything before the attempt is counted and the directory asked.
    fn prepare(
        &self,
        loaded: &Loaded,
        exchange: &Exchange,
        (posted, place): (&Posted, &Arc<Place>),
        ((name, ticket), device): ((String, Option<ChangeTicket>), Option<Secret<String>>),
    ) -> Result<Changing, Unchanged> {
        let services = self.services();
        if !services.audit.is_available() {
            return Err(Unchanged::new(Refusal::AuditUnavailable, "audit_unavailable"));
        }
        if let Some(form) = &posted.form
            && form.again.expose() != posted.new.expose()
        {
            let reason = "The new password was typed differently the second time.";
            return Err(Unchanged::new(Refusal::PasswordRefused { reason }, "unrepeated"));
        }
        let credentials = Credentials::parse(name.clone(), posted.old.clone())
            .map_err(|_| Unchanged::new(Refusal::InvalidCredentials, "impossible"))?;
        let renewed = Credentials::parse(name, posted.new.clone())
            .map_err(|_| Unchanged::from(impossible(posted.new.expose())))?;
        let directory = loaded.snapshot.directory.clone().ok_or_else(|| {
            Unchanged::new(Refusal::DirectoryUnavailable, "directory_unavailable")
        })?;
        let (address, place) = (exchange.client, Arc::clone(place));
        Ok(Changing { directory, credentials, renewed, address, device, ticket, place })
    }
}

impl From<Unchanged> for Failed {
    fn from(Unchanged { refusal, outcome }: Unchanged) -> Self {
        let is_refused = matches!(refusal, Refusal::PasswordRefused { .. });
        let objection = is_refused.then_some(outcome);
        Self { refusal, objection, may_retry: outcome != UNKNOWN }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, objection: None, may_retry: true }
    }
}

impl Refused for Failed {
    fn refusal(&self) -> Refusal {
        self.refusal
    }
}

/// Why a new password cannot be one at all.
fn impossible(password: &str) -> Objection {
    if password.is_empty() {
        Objection::TooShort
    } else if password.contains('\0') {
        Objection::Unusable
    } else {
        Objection::TooLong
    }
}

/// The form for a new password, with the refusal's status and sentence.
fn change_form(loaded: &Loaded, refusal: Refusal, name: &str, back: &str) -> Response<Body> {
    let facts = refusal.facts();
    let config = &loaded.snapshot.config;
    let prefix = &config.server.auth_prefix;
    let rules = config.directory.as_ref().map(|directory| directory.password_rules);
    let page = page::ChangePassword {
        title: &config.login_page.title,
        action: &format!("{prefix}/password"),
        login_path: &format!("{prefix}/"),
        return_path: back,
        name,
        length_min: rules.unwrap_or_default().length_min,
        error: facts.message,
    };
    let status = StatusCode::from_u16(facts.status).unwrap_or(StatusCode::UNAUTHORIZED);
    let mut answer = answer::page(status, page.html());
    if let Some(seconds) = facts.retry_after_seconds {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

fn posted(headers: &HeaderMap, body: &[u8]) -> Result<Posted, Refusal> {
    let bad = |reason| Refusal::BadRequest { reason };
    if let Some(form) = login::posted_form(headers, body)? {
        let field = |name| login::parameter(form, name).unwrap_or_default();
        let secret = |name| Secret::new(field(name));
        return Ok(Posted {
            who: Who::Named(field("username")),
            old: secret("old_password"),
            new: secret("new_password"),
            form: Some(Form { again: secret("new_password_again"), back: field("rd") }),
        });
    }
    let reason = "The body must be JSON with the strings old_password, new_password and either \
                  change_token or username.";
    let json: PasswordJson = serde_json::from_slice(body).map_err(|_| bad(reason))?;
    let (old, new) = (Secret::new(json.old_password), Secret::new(json.new_password));
    let who = match (json.change_token, json.username) {
        (Some(token), None) => Who::Token(Secret::new(token)),
        (None, Some(name)) => Who::Named(name),
        _ => return Err(bad(reason)),
    };
    Ok(Posted { who, old, new, form: None })
}
