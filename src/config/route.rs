//! `[[route]]`: who may use which path of which host, how much and how often, and
//! where it leads.

use std::time::Duration;

use super::kind::{self, Boolean, Choice, List};
use super::reader::Reader;
use super::{GuessGuard, ThrottleRule, ThrottleScope};
use crate::identity::{ACCESS_CODE_ROLE, Role};

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its label in metrics and audit: `name`, or the path.
    pub label: String,
    /// Lower-case host; `None` means the public origin's.
    pub host: Option<String>,
    /// Literal segments, `{name}` for one, `**` for the rest.
    pub path: String,
    /// Methods, compared exactly; `None` means all.
    pub methods: Option<Vec<String>>,
    /// Who may use it.
    pub access: Access,
    /// Index into `Config::upstreams`.
    pub upstream: usize,
    /// How many requests it takes: all of these must allow one.
    pub throttle: Vec<ThrottleRule>,
    /// Instead of `server.limits.body_bytes`.
    pub body_bytes: Option<u64>,
    /// Instead of the upstream's `response_timeout`.
    pub response_timeout: Option<Duration>,
    /// Whether its requests leave a session as idle as it was.
    pub passive: bool,
    /// How many wrong guesses of the backend's own codes it takes.
    pub guess_guard: Option<GuessGuard>,
}

/// Who may use a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, with or without a session.
    Public,
    /// Every role of `[[directory.role]]`.
    Authenticated,
    /// These roles only.
    Roles(Vec<Role>),
}

/// What routes refer to, as it stands in the file.
pub(super) struct Names {
    /// The names of `[[directory.role]]`.
    pub(super) roles: Vec<String>,
    /// The names of `[[upstream]]`, in order.
    pub(super) upstreams: Vec<Option<String>>,
}

impl Route {
    /// Reads one `[[route]]`.
    pub(super) fn read(r: &mut Reader<'_>, names: &Names) -> Option<Self> {
        let name = r.optional(
            "name",
            kind::line(),
            "Its label in metrics and audit records; the path if there is none.",
        );
        let host = r.optional(
            "host",
            kind::host_name(),
            "The host that it belongs to; that of server.public_origin if there is none.",
        );
        let path = r.required(
            "path",
            kind::route_path(),
            "Which paths: the most specific one that matches decides alone.",
        );
        let methods = r.optional(
            "methods",
            List { of: kind::method(), min: 1 },
            "Which methods, GET with HEAD; all if there is none.",
        );
        let access = read_access(r, &names.roles);
        let upstream = read_upstream(r, &names.upstreams);
        let throttle = read_throttle(r, access.as_ref());
        let body_bytes = r.optional(
            "body_bytes",
            kind::size(1, 1 << 50),
            "Size of a request's body; as server.limits.body_bytes says if there is none.",
        );
        let response_timeout = r.optional(
            "response_timeout",
            kind::duration(false),
            "From the request's last byte to the response's head; as the upstream's \
             response_timeout says if there is none.",
        );
        let passive = r.or(
            "passive",
            Boolean,
            false,
            "Whether its requests, a page's polling say, do not keep a session alive.",
        );
        // A wrong host or method is not the same as none: nothing is compared with it.
        let wrong = |key: &str, read: bool| r.given(key) && !read;
        if wrong("host", host.is_some()) || wrong("methods", methods.is_some()) {
            return None;
        }
        let label = name.clone().or_else(|| path.clone()).unwrap_or_default();
        let doc = "How many wrong guesses of the backend's own codes it takes.";
        let guess_guard = r.switch("guess_guard", doc, |r| GuessGuard::read(r, &label));
        let path = path?;
        let guess_guard = match guess_guard {
            // What was to be guarded is not served without.
            Some(None) => return None,
            guard => guard.flatten(),
        };
        Some(Self {
            label,
            host,
            path,
            methods,
            access: access?,
            upstream: upstream?,
            throttle,
            body_bytes,
            response_timeout,
            passive,
            guess_guard,
        })
    }
}

fn read_throttle(r: &mut Reader<'_>, access: Option<&Access>) -> Vec<ThrottleRule> {
    let rules = r.or(
        "throttle",
        List { of: kind::throttle_rule(), min: 0 },
        Vec::new(),
        "How many requests it takes, of one address (IPv6: one /64), of one user, or of all; \
         every rule must allow one.",
    );
    let by_user = rules.iter().find(|rule| rule.scope == ThrottleScope::User);
    // Whoever leaves the token out would not be counted.
    if let (Some(rule), Some(Access::Public)) = (by_user, access) {
        let allowed = "rules per address or in all, as a public route needs no user";
        r.problem("throttle", format!("\"{rule}\""), allowed.to_owned());
    }
    rules
}

fn read_access(r: &mut Reader<'_>, known: &[String]) -> Option<Access> {
    let roles = r.optional(
        "roles",
        List { of: kind::line(), min: 1 },
        "The roles that may use it; or access instead.",
    );
    let access = r.optional(
        "access",
        Choice {
            built: &[("public", Open::Public), ("authenticated", Open::Authenticated)],
            unbuilt: &[],
        },
        "\"public\": everybody; \"authenticated\": every role of [[directory.role]]; or roles \
         instead.",
    );
    match (r.given("roles"), r.given("access")) {
        (true, true) => {
            r.problem("access", "roles and access", "exactly one of them".to_owned());
            return None;
        }
        (false, false) => {
            let allowed = "roles = [..], access = \"authenticated\" or access = \"public\"";
            r.problem("roles", "neither roles nor access", allowed.to_owned());
            return None;
        }
        _ => {}
    }
    let Some(roles) = roles else {
        return access.map(|open| match open {
            Open::Public => Access::Public,
            Open::Authenticated => Access::Authenticated,
        });
    };
    for role in roles.iter().filter(|role| !known.contains(role)) {
        let allowed = match known {
            _ if role == ACCESS_CODE_ROLE => "access_codes.enabled = true for it".to_owned(),
            [] => "a role of [[directory.role]], of which there is none".to_owned(),
            known => known.join(", "),
        };
        r.problem("roles", format!("{role:?}"), allowed);
    }
    Some(Access::Roles(roles.iter().map(|role| Role::new(role)).collect()))
}

/// The values of `access`.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Public,
    Authenticated,
}

fn read_upstream(r: &mut Reader<'_>, known: &[Option<String>]) -> Option<usize> {
    let name = r.required("upstream", kind::line(), "The name of the upstream it leads to.")?;
    let index = known.iter().position(|known| known.as_deref() == Some(&name));
    if index.is_none() {
        let names: Vec<&str> = known.iter().flatten().map(String::as_str).collect();
        r.problem("upstream", format!("{name:?}"), names.join(", "));
    }
    index
}
