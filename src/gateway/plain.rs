//! Plain HTTP (contract section 6): who only reads is sent on to https; whoever
//! sends something secret is told that it is secret no more. Forwards nothing.

use std::rc::Rc;

use http::header::{AUTHORIZATION, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::config::{Cookie, Server};
use crate::gateway::answer;
use crate::gateway::body::Body;
use crate::gateway::credential::bearer_text;
use crate::gateway::exchange::Exchange;
use crate::gateway::exposure::ACCESS_TOKEN;
use crate::gateway::observe::Decision;
use crate::gateway::worker::Loaded;
use crate::gateway::{Gateway, parse};
use crate::policy::{Found, password_paths};
use crate::refusal::Refusal;
use crate::server::{Peer, Service};
use crate::wire::cookie;
use crate::wire::host::Host;
use crate::wire::query;
use crate::wire::target::Target;

/// The gateway for those who come without TLS.
pub struct PlainHttp(Rc<Gateway>);

impl PlainHttp {
    /// Beside the gateway of the same worker.
    #[must_use]
    pub const fn new(gateway: Rc<Gateway>) -> Self {
        Self(gateway)
    }

    /// Judges a request by its head; its body stays unread.
    async fn judge(
        &self,
        loaded: &Loaded,
        exchange: &mut Exchange,
        parts: &Parts,
    ) -> Result<Response<Body>, Refusal> {
        let config = &loaded.snapshot.config;
        if let Some(tokens) = credentials(parts, &config.cookie) {
            let tokens = tokens.iter().map(Vec::as_slice);
            self.0.end_exposed(exchange, "http", tokens).await;
            return Err(Refusal::CredentialExposed);
        }
        if parts.method == Method::POST && is_login(&config.server, parts.uri.path()) {
            exchange.decision = Decision::Own;
            self.0.services().metrics.credentials_exposed("http", "login").inc();
            return Err(Refusal::CredentialExposed);
        }
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(Refusal::HttpsRequired);
        }
        let (host, target) = parse(parts, &config.server.limits)?;
        if matches!(loaded.snapshot.routes.find(host.name(), "GET", &target), Found::Misdirected) {
            return Err(Refusal::Misdirected);
        }
        exchange.decision = Decision::Own;
        redirect(&config.server, &host, &target)
    }
}

impl Service for PlainHttp {
    type Body = Body;

    async fn handle(self: Rc<Self>, request: Request<Incoming>, peer: Rc<Peer>) -> Response<Body> {
        let loaded = self.0.loaded();
        let (parts, body) = request.into_parts();
        let mut exchange = self.0.exchange(&loaded, &parts, &peer);
        exchange.body.put(body);
        exchange.meter = loaded.plain_meter();
        let judged = self.judge(&loaded, &mut exchange, &parts).await;
        let mut answer = judged.unwrap_or_else(|refusal| {
            peer.close_after_answer();
            self.0.refuse(&loaded, &mut exchange, refusal)
        });
        Gateway::complete(&mut exchange, &mut answer);
        answer
    }
}

/// What of a request is secret, in so far as it may be a token of ours; `None` when
/// nothing is. Somebody else's token in `Authorization` is as exposed as one of ours.
fn credentials(parts: &Parts, names: &Cookie) -> Option<Vec<Vec<u8>>> {
    let headers = &parts.headers;
    let mut tokens: Vec<Vec<u8>> = headers
        .get_all(AUTHORIZATION)
        .iter()
        .map(|value| bearer_text(value).unwrap_or_default().as_bytes().to_vec())
        .collect();
    for name in [&names.token_name, &names.context_name] {
        tokens.extend(cookie::all_values(headers, name).map(<[u8]>::to_vec));
    }
    let query = parts.uri.query().unwrap_or_default();
    tokens.extend(query::values(query, ACCESS_TOKEN).map(|value| value.as_bytes().to_vec()));
    (!tokens.is_empty()).then_some(tokens)
}

/// Whether a login would be posted there, however it is spelled.
fn is_login(server: &Server, path: &str) -> bool {
    let fold = |path: &str| {
        let decoded = percent_decode_str(path).decode_utf8_lossy().to_lowercase();
        decoded.trim_end_matches('/').to_owned()
    };
    password_paths(server).iter().any(|login| fold(login) == fold(path))
}

/// 308 to the same target of the host asked for, which is one of ours.
fn redirect(server: &Server, host: &Host, target: &Target) -> Result<Response<Body>, Refusal> {
    let name = host.name();
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    let port = server.public_origin.port.map(|port| format!(":{port}")).unwrap_or_default();
    let location = format!("https://{name}{port}{}", target.path_and_query());
    let location = HeaderValue::try_from(location).map_err(|_| Refusal::Internal)?;
    let mut answer = answer::empty(StatusCode::PERMANENT_REDIRECT);
    answer.headers_mut().insert(LOCATION, location);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::{credentials, is_login};
    use crate::policy::sample::config;

    fn found(target: &str, headers: &[(&str, &str)]) -> Option<Vec<String>> {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = credentials(&parts, &config(Vec::new()).cookie)?;
        Some(found.into_iter().map(|text| String::from_utf8(text).unwrap()).collect())
    }

    #[test]
    fn whatever_is_secret_is_seen_wherever_it_stands() {
        assert_eq!(found("/a?b=c", &[("cookie", "other=1; device=2")]), None);
        for (target, headers, tokens) in [
            ("/", vec![("authorization", "bearer abc")], vec!["abc"]),
            ("/", vec![("authorization", "Basic abc")], vec![""]),
            ("/", vec![("cookie", "a=1; token=t1"), ("cookie", "TOKEN=\"t2\"")], vec!["t1", "t2"]),
            ("/", vec![("cookie", "context=c")], vec!["c"]),
            ("/?x&access%5Ftoken=q%2E1&access_token=", vec![], vec!["q.1", ""]),
        ] {
            let found = found(target, &headers);
            assert_eq!(found.unwrap(), tokens, "{target} {headers:?}");
        }
    }

    #[test]
    fn a_login_is_known_by_its_path_in_every_spelling() {
        let server = config(Vec::new()).server;
        for path in ["/auth/login", "/auth/login/", "/AUTH/Login", "/auth/l%6Fgin"] {
            assert!(is_login(&server, path), "{path}");
        }
        for path in ["/auth/logout", "/login", "/auth/login/x", "/"] {
            assert!(!is_login(&server, path), "{path}");
        }
    }
}
