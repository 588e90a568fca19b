//! What the route table says about one request, in words for operators. Decides
//! nothing itself: it asks the table that the gateway asks.

use std::fmt;
use std::sync::Arc;

use http::uri::PathAndQuery;

use crate::config::{Access, Config};
use crate::identity::Role;
use crate::policy::own::OwnEndpoint;
use crate::policy::route::Route;
use crate::policy::table::{Found, Miss, RouteTable};
use crate::refusal::Refusal;
use crate::wire::host::name_of;
use crate::wire::target::Target;

/// The answer to "may this role do that, and what decides?".
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Let through, or refused as the client would be told.
    pub outcome: Result<(), Refusal>,
    /// The row that decided, if one did.
    pub route: Option<Arc<Route>>,
    /// What decided, one line.
    pub reason: String,
}

impl Explanation {
    /// Whether the request would be let through.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.outcome.is_ok()
    }

    fn refused(refusal: Refusal, reason: impl Into<String>) -> Self {
        Self { outcome: Err(refusal), route: None, reason: reason.into() }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Ok(()) => write!(f, "allow: {}", self.reason),
            Err(refusal) => {
                let facts = refusal.facts();
                write!(f, "deny: {} {}: {}", facts.status, facts.code, self.reason)
            }
        }
    }
}

/// Says whether somebody in this role may send this request, and what decides.
/// `host` is the public origin's when absent; `path` may have a query.
#[must_use]
pub fn explain(
    config: &Config,
    host: Option<&str>,
    role: &Role,
    method: &str,
    path: &str,
) -> Explanation {
    let host = host.unwrap_or(&config.server.public_origin.host);
    let host = name_of(host).unwrap_or(host).to_ascii_lowercase();
    let parsed = path
        .parse::<PathAndQuery>()
        .map_err(|_| "The request target is malformed.")
        .and_then(|sent| Target::parse(&sent));
    let target = match parsed {
        Ok(target) => target,
        Err(reason) => return Explanation::refused(Refusal::BadRequest { reason }, reason),
    };
    let table = RouteTable::new(config);
    match table.find(&host, method, &target) {
        Found::Route(route) => by_route(config, route, role, &target),
        Found::Own(own) => by_gateway(own),
        Found::OwnMethod { allow } => Explanation::refused(
            Refusal::MethodNotAllowed { allow },
            format!("the gateway's own endpoint takes {allow}"),
        ),
        Found::NoRoute => {
            Explanation::refused(Refusal::NoRoute, missed(table.miss(&host, &target)))
        }
        Found::Misdirected => {
            let reason = format!("no route and no origin names the host {host}");
            Explanation::refused(Refusal::Misdirected, reason)
        }
    }
}

fn by_route(config: &Config, route: &Arc<Route>, role: &Role, target: &Target) -> Explanation {
    let upstream = config.upstreams.get(route.upstream);
    let takes_parameters = upstream.is_some_and(|upstream| upstream.path_parameters);
    let outcome = if target.has_path_parameters() && !takes_parameters {
        Err(Refusal::BadRequest { reason: "The path holds a semicolon." })
    } else if route.allows(role) {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    };
    Explanation { outcome, route: Some(Arc::clone(route)), reason: described(config, route) }
}

fn by_gateway(own: OwnEndpoint) -> Explanation {
    let reason = format!("the gateway's own endpoint ({own:?}), which asks for what it needs");
    Explanation { outcome: Ok(()), route: None, reason }
}

fn missed(miss: Miss<'_>) -> String {
    match miss {
        Miss::Nothing => "no route has this path".to_owned(),
        Miss::Spelling(path) => {
            format!("the path is another spelling of {path}, so no wider route takes it")
        }
        Miss::Method(path) => format!("the path {path} has no row for this method"),
        Miss::Reserved(path) => format!("the path {path} is the gateway's own and not built yet"),
    }
}

/// `route 3, "label": PUT /path, roles admin, super_admin, upstream backend`.
fn described(config: &Config, route: &Route) -> String {
    let number = route.index + 1;
    let label = &route.label;
    let configured = config.routes.get(route.index);
    let path = configured.map_or("", |configured| configured.path.as_str());
    let methods = configured.and_then(|configured| configured.methods.as_ref());
    let methods = methods.map_or_else(|| "all methods".to_owned(), |methods| methods.join(", "));
    let access = match &route.access {
        Access::Public => "public".to_owned(),
        Access::Authenticated => "authenticated".to_owned(),
        Access::Roles(roles) => {
            let names: Vec<&str> = roles.iter().map(Role::as_str).collect();
            format!("roles {}", names.join(", "))
        }
    };
    let upstream = config.upstreams.get(route.upstream);
    let upstream = upstream.map_or("", |upstream| upstream.name.as_str());
    format!("route {number} \"{label}\": {methods} {path}, {access}, upstream {upstream}")
}

#[cfg(test)]
mod tests {
    use super::explain;
    use crate::identity::Role;
    use crate::policy::sample::{config, route, route_of};

    fn say(role: &str, host: Option<&str>, request: &str) -> String {
        let mut config = config(vec![
            route("GET /organization/**", "authenticated"),
            route("PUT /organization/configuration", "admin"),
            route_of("ingest.example", "/upload", "public"),
        ]);
        config.routes[1].label = "configure".to_owned();
        let (method, path) = request.split_once(' ').unwrap();
        explain(&config, host, &Role::new(role), method, path).to_string()
    }

    #[test]
    fn an_explanation_names_what_decided() {
        for (role, request, expected) in [
            (
                "admin",
                "PUT /organization/configuration?x=1",
                "allow: route 2 \"configure\": PUT /organization/configuration, roles admin, \
                 upstream backend",
            ),
            (
                "tracer",
                "PUT /organization/configuration",
                "deny: 403 Forbidden: route 2 \"configure\": PUT /organization/configuration, \
                 roles admin, upstream backend",
            ),
            (
                "tracer",
                "GET /organization/Configuration",
                "deny: 404 NoRoute: the path is another spelling of \
                 /organization/configuration, so no wider route takes it",
            ),
            (
                "admin",
                "GET /organization/configuration",
                "deny: 404 NoRoute: the path /organization/configuration has no row for this \
                 method",
            ),
            ("admin", "GET /x", "deny: 404 NoRoute: no route has this path"),
            (
                "admin",
                "POST /auth/mfa/enroll",
                "deny: 404 NoRoute: the path /auth/mfa/** is the gateway's own and not built yet",
            ),
            (
                "admin",
                "GET /organization/a;b",
                "deny: 400 BadRequest: route 1 \"GET /organization/**\": GET /organization/**, \
                 authenticated, upstream backend",
            ),
            (
                "admin",
                "GET /organization/%2e%2e",
                "deny: 400 BadRequest: The path escapes a character that needs no escape.",
            ),
            ("admin", "GET x", "deny: 400 BadRequest: The request target is malformed."),
            (
                "admin",
                "DELETE /auth/login",
                "deny: 405 MethodNotAllowed: the gateway's own endpoint takes POST",
            ),
            (
                "admin",
                "POST /auth/login",
                "allow: the gateway's own endpoint (Login), which asks for what it needs",
            ),
        ] {
            assert_eq!(say(role, None, request), expected);
        }
    }

    #[test]
    fn the_host_is_the_public_origins_unless_said() {
        assert_eq!(
            say("nobody", Some("Ingest.example:8443"), "POST /upload"),
            "allow: route 3 \"/upload\": all methods /upload, public, upstream backend"
        );
        assert_eq!(
            say("nobody", Some("other.example"), "POST /upload"),
            "deny: 421 Misdirected: no route and no origin names the host other.example"
        );
        assert!(say("admin", Some("home.example"), "GET /organization").starts_with("allow"));
    }
}
