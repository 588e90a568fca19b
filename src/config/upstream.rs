//! `[[upstream]]`: where requests are forwarded to.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::assertion::Assertion;
use super::headers::fold;
use super::kind::{self, Boolean, HeaderMapKind, List, Whole};
use super::reader::Reader;

/// One `[[upstream]]`.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name, as routes and metrics call it.
    pub name: String,
    /// Its servers; exactly one until balancing is built.
    pub servers: Vec<UpstreamServer>,
    /// Names of client cookies that never pass.
    pub strip_cookies: Vec<String>,
    /// Headers of the client that never pass.
    pub strip_headers: Vec<HeaderName>,
    /// Headers that replace the client's.
    pub set_headers: BTreeMap<String, HeaderValue>,
    /// Headers that pass though they are in the list of dangerous ones.
    pub allow_headers: Vec<HeaderName>,
    /// Whether `;` may stand in a path.
    pub path_parameters: bool,
    /// The signed statement of who is calling.
    pub assertion: Option<Assertion>,
    /// Whether its answers of 5xx are replaced by ours.
    pub hide_errors: bool,
    /// To open a connection.
    pub connect_timeout: Duration,
    /// From the request's last byte to the response's head.
    pub response_timeout: Duration,
    /// How long an idle connection is kept; below the upstream's own time.
    pub idle_timeout: Duration,
    /// Connections of one worker.
    pub connections: usize,
}

/// One server of `upstream.urls`, over http.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Host name or address, without brackets.
    pub host: String,
    /// The port; 80 when the URL names none.
    pub port: u16,
}

impl Upstream {
    /// Reads one `[[upstream]]`; `managed` are the folded names of identity headers,
    /// `origin` is the issuer of assertions.
    pub(super) fn read(r: &mut Reader<'_>, managed: &[String], origin: &str) -> Option<Self> {
        let name = r.required("name", kind::label(), "Its name, as routes and metrics call it.");
        let servers = read_servers(r);
        let strip_cookies = r.or(
            "strip_cookies",
            List { of: kind::cookie_name(), min: 0 },
            Vec::new(),
            "Cookies of the client that never pass.",
        );
        let strip_headers = r.or(
            "strip_headers",
            List { of: kind::upstream_header(), min: 0 },
            Vec::new(),
            "Headers of the client that never pass.",
        );
        let set_headers = r.or(
            "set_headers",
            HeaderMapKind,
            BTreeMap::new(),
            "Headers that replace the client's.",
        );
        let allow_headers = r.or(
            "allow_headers",
            List { of: kind::overriding_header(), min: 0 },
            Vec::new(),
            "Headers that pass though frameworks take them as another path or method.",
        );
        let path_parameters =
            r.or("path_parameters", Boolean, false, "Whether a path may hold \";\".");
        let hide_errors = r.or(
            "hide_errors",
            Boolean,
            false,
            "Whether its answers of 5xx are replaced by our JSON, with their status.",
        );
        let (connect_timeout, response_timeout, idle_timeout) = read_timeouts(r);
        let connections = r.or(
            "connections",
            Whole { min: 1, max: 65_535 },
            1024,
            "The most connections that one worker opens.",
        );
        let doc = "A signed statement of who is calling; left out, there is none.";
        let given = r.given("assertion");
        let assertion = r.switch("assertion", doc, |r| Assertion::read(r, origin)).flatten();
        check_managed(r, &set_headers, managed, assertion.as_ref());
        if !allow_headers.is_empty() {
            r.note("allow_headers", "the upstream may take another path or method than was judged");
        }
        Some(Self {
            name: name?,
            servers: servers?,
            strip_cookies,
            strip_headers,
            set_headers,
            allow_headers,
            path_parameters,
            assertion: if given { Some(assertion?) } else { None },
            hide_errors,
            connect_timeout,
            response_timeout,
            idle_timeout,
            connections,
        })
    }
}

fn read_servers(r: &mut Reader<'_>) -> Option<Vec<UpstreamServer>> {
    let servers = r.required(
        "urls",
        List { of: kind::upstream_url(), min: 1 },
        "Its server; several, and https, are not built yet.",
    )?;
    if servers.len() > 1 {
        r.refuse_unbuilt(
            "urls",
            format!("{} URLs", servers.len()),
            "balancing over several servers",
        );
        return None;
    }
    Some(servers)
}

fn read_timeouts(r: &mut Reader<'_>) -> (Duration, Duration, Duration) {
    let connect = r.or(
        "connect_timeout",
        kind::duration(false),
        Duration::from_secs(3),
        "How long opening a connection may take.",
    );
    let response = r.or(
        "response_timeout",
        kind::duration(false),
        Duration::from_mins(1),
        "From the request's last byte to the response's head.",
    );
    let idle = r.or(
        "idle_timeout",
        kind::duration(false),
        Duration::from_secs(4),
        "How long an idle connection is kept; stay below the upstream's own keep-alive time.",
    );
    (connect, response, idle)
}

/// A header that states the identity is the gateway's to set, nobody else's.
fn check_managed(
    r: &mut Reader<'_>,
    set_headers: &BTreeMap<String, HeaderValue>,
    managed: &[String],
    assertion: Option<&Assertion>,
) {
    let carrier = assertion.and_then(|it| it.deliver.header()).map(|name| fold(name.as_str()));
    if carrier.as_ref().is_some_and(|carrier| managed.contains(carrier)) {
        let found = "a header that states who is calling".to_owned();
        r.problem("assertion.deliver", found, "another than those of [headers]".to_owned());
    }
    let is_taken = |name: &&String| {
        let name = fold(name);
        managed.contains(&name) || carrier.as_ref() == Some(&name)
    };
    let taken = set_headers.keys().find(is_taken);
    if let Some(name) = taken {
        let found = format!("{name:?}, which states who is calling");
        r.problem(
            "set_headers",
            found,
            "other headers than those of [headers] and of the assertion".to_owned(),
        );
    }
}
