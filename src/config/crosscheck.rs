//! What must hold between sections: routes against each other and against the
//! gateway's own endpoints, names that must differ, listeners that collide.

use std::net::SocketAddr;

use super::reader::Reader;
use super::{Access, AssertionSignature, Config, Route, SameSite, Server, Telemetry, pem};
use crate::identity::{ATTRIBUTES_MAX, ClaimTemplates};

/// The gateway's own endpoints below `server.auth_prefix`, built or not, without
/// outer slashes; `mfa` stands for everything below it.
const OWN_ENDPOINTS: [&str; 10] = [
    "",
    "login",
    "logout",
    "session",
    "refresh",
    "verify",
    "password",
    "access-codes",
    "access-codes/redeem",
    "access-codes/revoke",
];

/// Refuses routes of one host and path that name one method twice.
pub(super) fn refuse_doubled_routes(r: &mut Reader<'_>, routes: &[Option<Route>], home: &str) {
    for (index, route) in routes.iter().enumerate() {
        let Some(route) = route else { continue };
        let same = |(_, earlier): &(usize, &Route)| {
            host_of(earlier, home) == host_of(route, home)
                && shape(&earlier.path) == shape(&route.path)
                && share_a_method(earlier, route)
        };
        let earlier = routes[..index].iter().enumerate();
        let earlier = earlier.filter_map(|(at, route)| Some((at, route.as_ref()?))).find(same);
        if let Some((at, _)) = earlier {
            let found =
                format!("{:?}, which [[route]] no. {} has for the same", route.path, at + 1);
            let allowed = "each method of a path in one route (one without methods has all)";
            r.problem_in(("route", index, "path"), found, allowed.to_owned());
        }
    }
}

/// Refuses routes that no request could reach, as the gateway answers there itself.
pub(super) fn refuse_shadowed_routes(
    r: &mut Reader<'_>,
    routes: &[Option<Route>],
    home: &str,
    (prefix, aliases): (&str, &[String]),
) {
    let guarded: Vec<&str> = routes
        .iter()
        .flatten()
        .filter(|route| route.access != Access::Public)
        .map(|route| host_of(route, home))
        .collect();
    for (index, route) in routes.iter().enumerate() {
        let Some(route) = route else { continue };
        // A host with public routes alone has no endpoints of ours.
        let is_ours = is_own(&route.path, prefix) || is_alias(&route.path, aliases);
        if guarded.contains(&host_of(route, home)) && is_ours {
            let found = format!("{:?}, where the gateway answers itself", route.path);
            let aliases = if aliases.is_empty() { "" } else { " and server.login_aliases" };
            let allowed = format!("a path other than the gateway's own below {prefix}{aliases}");
            r.problem_in(("route", index, "path"), found, allowed);
        }
    }
}

/// Refuses two upstreams of one name, and notes those that no route leads to.
pub(super) fn check_upstream_names(
    r: &mut Reader<'_>,
    names: &[Option<String>],
    used: &[Option<String>],
) {
    for (index, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        if names[..index].iter().flatten().any(|earlier| earlier == name) {
            let found = format!("{name:?} again");
            r.problem_in(("upstream", index, "name"), found, "each name once".to_owned());
        } else if !used.iter().flatten().any(|used| used == name) {
            r.note("upstream", &format!("no route leads to {name:?}"));
        }
    }
}

/// Refuses listeners where the gateway listens already.
pub(super) fn refuse_shared_listener(r: &mut Reader<'_>, server: &Server, telemetry: &Telemetry) {
    let mut taken: Vec<(&str, SocketAddr)> =
        server.listen.iter().map(|address| ("server.listen", *address)).collect();
    let plain = server.plain_http_listen.map(|address| ("server.plain_http_listen", address));
    let others =
        [("telemetry.listen", telemetry.listen), ("server.jwks_listen", server.jwks_listen)];
    for (key, address) in plain.into_iter().chain(others) {
        if let Some((owner, other)) = taken.iter().find(|(_, other)| shares(address, *other)) {
            let found = format!("{address}, while {owner} has {other}");
            r.problem(key, found, "an address of its own".to_owned());
        }
        taken.push((key, address));
    }
}

fn shares(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    // Port 0 asks for any free port, each time another.
    one.port() != 0 && other.port() == one.port() && (all || other.ip() == one.ip())
}

/// Has the directory fetch what claims ask for, and refuses a secret that also serves
/// something else.
pub(super) fn settle_assertions(r: &mut Reader<'_>, config: &mut Config) {
    let assertions = config.upstreams.iter().filter_map(|upstream| upstream.assertion.as_ref());
    let mut names: Vec<String> = Vec::new();
    let claims = assertions.map(|assertion| &assertion.claims).chain([&config.token.claims]);
    for name in claims.flat_map(ClaimTemplates::attributes) {
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name.to_owned());
        }
    }
    if names.len() > ATTRIBUTES_MAX {
        let found = format!("claims that ask for {} attributes", names.len());
        r.problem("upstream", found, format!("at most {ATTRIBUTES_MAX} in all"));
    }
    let Some(directory) = &mut config.directory else { return };
    directory.attributes = names;
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let signature = upstream.assertion.as_ref().map(|assertion| &assertion.signature);
        if let Some(AssertionSignature::Shared(secret)) = signature
            && secret.expose() == directory.bind_password.expose()
        {
            let found = "the directory's password as the secret of assertions".to_owned();
            r.problem_in(("upstream", index, "assertion"), found, "a secret of its own".to_owned());
        }
    }
}

/// Notes what a valid configuration will be asked about.
pub(super) fn note_oddities(r: &mut Reader<'_>, config: &Config) {
    let guarded = config.routes.iter().any(|route| route.access != Access::Public);
    if guarded && config.directory.is_none() {
        r.note("directory", "left out: nobody can log in, so only public routes can be used");
    }
    if !config.token.delivery.by_cookie() && r.given("login_page") {
        r.note("login_page", "without effect, as token.delivery = \"bearer\" has no login page");
    }
    if !config.server.cors_origins.is_empty() && config.cookie.same_site != SameSite::None {
        let same_site = config.cookie.same_site.as_str().to_lowercase();
        let text = format!(
            "pages of another site call without our cookies, as cookie.same_site = {same_site:?}; \
             only pages of the same site (the same registered domain) can call like that, others \
             need \"none\""
        );
        r.note("server.cors_origins", &text);
    }
    let break_glass = config.directory.as_ref().and_then(|it| it.break_glass.as_ref());
    if break_glass.is_some() && config.telemetry.audit_file.is_none() {
        let text = "what emergency accounts do stands in the log alone, as telemetry.audit_file \
                    is left out";
        r.note("directory.break_glass", text);
    }
    note_strange_hosts(r, config);
}

/// Notes the hosts that the certificate is not for.
fn note_strange_hosts(r: &mut Reader<'_>, config: &Config) {
    let home = config.server.public_origin.host.as_str();
    let mut hosts: Vec<&str> = config.routes.iter().map(|route| host_of(route, home)).collect();
    hosts.push(home);
    hosts.sort_unstable();
    hosts.dedup();
    let Some(leaf) = config.server.tls.certificates.first() else { return };
    for host in hosts.iter().filter(|host| !pem::names_host(leaf, host)) {
        r.note("server.tls.certificate_file", &format!("the certificate is not for {host}"));
    }
}

/// The host that a route belongs to.
fn host_of<'r>(route: &'r Route, home: &'r str) -> &'r str {
    route.host.as_deref().unwrap_or(home)
}

/// A path without the names of its parts: `/a/{id}` and `/a/{name}` match the same.
fn shape(path: &str) -> Vec<&str> {
    let blank = |segment| if str::starts_with(segment, '{') { "{}" } else { segment };
    path.split('/').map(blank).collect()
}

fn share_a_method(one: &Route, other: &Route) -> bool {
    let (Some(one), Some(other)) = (&one.methods, &other.methods) else { return true };
    one.iter().any(|method| other.contains(method))
}

/// Whether a path, without case and a last slash, is an endpoint of ours: those
/// near-misses are refused too, never forwarded.
pub(super) fn is_own(path: &str, prefix: &str) -> bool {
    let path = path.to_lowercase();
    let path = path.strip_suffix('/').unwrap_or(&path);
    if path == "/.well-known/jwks.json" {
        return true;
    }
    let Some(below) = path.strip_prefix(&prefix.to_lowercase()) else { return false };
    let below = match below.strip_prefix('/') {
        Some(below) => below,
        None if below.is_empty() => below,
        None => return false,
    };
    OWN_ENDPOINTS.contains(&below) || below == "mfa" || below.starts_with("mfa/")
}

/// Whether a path, read as carelessly, is a further path of the login.
fn is_alias(path: &str, aliases: &[String]) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    aliases.iter().any(|alias| alias.eq_ignore_ascii_case(path))
}

#[cfg(test)]
mod tests {
    use super::{is_own, shape};

    #[test]
    fn own_endpoints_are_known_in_every_near_spelling() {
        for path in [
            "/auth",
            "/auth/",
            "/auth/login",
            "/Auth/Login/",
            "/auth/access-codes/redeem",
            "/auth/mfa",
            "/auth/mfa/enrol",
            "/.well-known/jwks.json",
        ] {
            assert!(is_own(path, "/auth"), "{path}");
        }
        for path in ["/auth/users", "/auth/users/**", "/auth/**", "/authors", "/login", "/"] {
            assert!(!is_own(path, "/auth"), "{path}");
        }
    }

    #[test]
    fn names_of_segments_do_not_tell_paths_apart() {
        assert_eq!(shape("/a/{id}/b"), shape("/a/{name}/b"));
        assert_ne!(shape("/a/{id}"), shape("/a/id"));
        assert_ne!(shape("/a/{id}"), shape("/a/**"));
    }
}
