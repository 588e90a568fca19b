//! The route table: host, method and target in, the row that alone decides out.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Config;
use crate::identity::Role;
use crate::policy::method::Methods;
use crate::policy::own::{self, OwnEndpoint};
use crate::policy::pattern::Pattern;
use crate::policy::route::Route;
use crate::policy::tree::{Owner, Place, Tree};
use crate::wire::host::name_of;
use crate::wire::target::Target;

/// All routes of a configuration, by host. Finding one allocates nothing.
#[derive(Debug)]
pub struct RouteTable {
    hosts: HashMap<Box<str>, Tree>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub enum Found<'t> {
    /// An endpoint of ours.
    Own(OwnEndpoint),
    /// An endpoint of ours, by a method that it does not take.
    OwnMethod {
        /// The value of `Allow`.
        allow: &'static str,
    },
    /// The row that decides.
    Route(&'t Arc<Route>),
    /// Nothing.
    NoRoute,
    /// A host that no route and no origin names.
    Misdirected,
}

/// Why a host that we serve has no route, for people who wonder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss<'t> {
    /// No path matches.
    Nothing,
    /// It is another spelling of this path, so that no wider one takes it.
    Spelling(&'t str),
    /// This path matches and has no row for the method.
    Method(&'t str),
    /// This path is the gateway's own and not built yet.
    Reserved(&'t str),
}

impl RouteTable {
    /// The table of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let roles: Vec<Role> = config
            .directory
            .iter()
            .flat_map(|directory| directory.roles.iter().map(|role| role.name.clone()))
            .collect();
        let roles: Arc<[Role]> = Arc::from(roles);
        let mut table = Self { hosts: HashMap::new() };
        table.host_mut(&config.server.public_origin.host);
        table.place_own(config);
        for (index, route) in config.routes.iter().enumerate() {
            let methods = route.methods.clone().map_or(Methods::All, Methods::Named);
            let row = (methods, Arc::new(Route::new(index, route, &roles)));
            table.host_mut(host_of(route, config)).insert(Place {
                pattern: Pattern::of(&route.path),
                owner: Owner::Rows(vec![row]),
                path: route.path.clone(),
            });
        }
        table
    }

    /// What a request asks for. `host` is its name in lower case, without port.
    /// The most specific path decides alone; of its rows the one that names the
    /// method most closely, and the first of equals.
    #[must_use]
    pub fn find(&self, host: &str, method: &str, target: &Target) -> Found<'_> {
        let Some(tree) = self.hosts.get(host) else { return Found::Misdirected };
        match exact(tree, target) {
            Ok(Place { owner: Owner::Own(own), .. }) if own.takes(method) => Found::Own(*own),
            Ok(Place { owner: Owner::Own(own), .. }) => Found::OwnMethod { allow: own.allow() },
            Ok(Place { owner: Owner::Rows(rows), .. }) => {
                row(rows, method).map_or(Found::NoRoute, Found::Route)
            }
            Ok(Place { owner: Owner::Reserved, .. }) | Err(_) => Found::NoRoute,
        }
    }

    /// Why [`RouteTable::find`] said `NoRoute`.
    pub(super) fn miss(&self, host: &str, target: &Target) -> Miss<'_> {
        let Some(tree) = self.hosts.get(host) else { return Miss::Nothing };
        match exact(tree, target) {
            Ok(Place { owner: Owner::Reserved, path, .. }) => Miss::Reserved(path),
            Ok(place) => Miss::Method(&place.path),
            Err([]) => Miss::Nothing,
            Err([near, ..]) => Miss::Spelling(&near.path),
        }
    }

    /// Our own endpoints live on every host that has a route that is not public.
    /// They are placed first: a route of the same path never hides one.
    fn place_own(&mut self, config: &Config) {
        let guarded = config
            .routes
            .iter()
            .filter(|route| !matches!(route.access, crate::config::Access::Public));
        for route in guarded {
            let tree = self.host_mut(host_of(route, config));
            for (path, own) in own::paths(config) {
                let owner = own.map_or(Owner::Reserved, Owner::Own);
                tree.insert(Place { pattern: Pattern::of(&path), owner, path });
            }
        }
    }

    fn host_mut(&mut self, host: &str) -> &mut Tree {
        let name = name_of(host).unwrap_or(host).to_ascii_lowercase();
        self.hosts.entry(name.into()).or_default()
    }
}

fn host_of<'c>(route: &'c crate::config::Route, config: &'c Config) -> &'c str {
    route.host.as_deref().unwrap_or(&config.server.public_origin.host)
}

/// The place that matches letter by letter, or those that nearly do.
fn exact<'t>(tree: &'t Tree, target: &Target) -> Result<&'t Place, &'t [Place]> {
    let places = tree.most_specific(target.matched_path());
    places.iter().find(|place| place.pattern.matches(target.matched_path())).ok_or(places)
}

fn row<'t>(rows: &'t [(Methods, Arc<Route>)], method: &str) -> Option<&'t Arc<Route>> {
    let fitting = rows.iter().filter_map(|(methods, route)| Some((methods.fit(method)?, route)));
    // `max_by_key` gives the last of equals; the first row from the top is to win.
    fitting.rev().max_by_key(|(fit, _)| *fit).map(|(_, route)| route)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{Found, RouteTable};
    use crate::config::{Config, Delivery};
    use crate::identity::Role;
    use crate::policy::sample::{HOME, config, route, route_of};
    use crate::wire::target::Target;

    /// What is found, in words.
    fn ask(config: &Config, host: &str, request: &str) -> String {
        let (method, path) = request.split_once(' ').unwrap();
        let target = Target::parse(&path.parse().unwrap()).unwrap();
        match RouteTable::new(config).find(host, method, &target) {
            Found::Own(own) => format!("{own:?}"),
            Found::OwnMethod { allow } => format!("405 {allow}"),
            Found::Route(route) => route.label.to_string(),
            Found::NoRoute => "404".to_owned(),
            Found::Misdirected => "421".to_owned(),
        }
    }

    fn check(config: &Config, cases: &[(&str, &str)]) {
        let mut wrong = String::new();
        for (request, expected) in cases {
            let found = ask(config, HOME, request);
            if found != *expected {
                let _ = writeln!(wrong, "{request}: {found}, not {expected}");
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }

    #[test]
    fn the_most_specific_path_decides_alone() {
        let config = config(vec![
            route("/**", "authenticated"),
            route("GET /case/{id}", "authenticated"),
            route("PUT /case/points", "admin"),
            route("/case/points/**", "admin"),
            route("/{kind}/points/last", "admin"),
        ]);
        check(
            &config,
            &[
                ("GET /", "/**"),
                ("DELETE /other/thing/", "/**"),
                ("GET /case/7", "GET /case/{id}"),
                ("POST /case/7", "404"),
                ("PUT /case/points", "PUT /case/points"),
                ("GET /case/points", "404"),
                ("GET /case/points/last", "/case/points/**"),
                ("GET /x/points/last", "/{kind}/points/last"),
                ("GET /case", "/**"),
            ],
        );
    }

    #[test]
    fn a_near_miss_never_falls_through_to_a_wider_route() {
        let config = config(vec![
            route("/**", "public"),
            route("/Admin/users", "admin"),
            route("/caf\u{e9}/{id}", "admin"),
            route("/{org}/secret/**", "admin"),
        ]);
        check(
            &config,
            &[
                ("GET /Admin/users", "/Admin/users"),
                ("GET /admin/users", "404"),
                ("GET /Admin/users/", "404"),
                ("GET /ADMIN/USERS/", "404"),
                ("GET /Admin/users/x", "/**"),
                ("GET /Admin/u\u{17f}ers", "404"),
                ("GET /Admin/users;a=b", "404"),
                ("GET /caf%C3%A9/7", "/caf\u{e9}/{id}"),
                ("GET /caf\u{e9}/7", "/caf\u{e9}/{id}"),
                ("GET /caf%C3%89/7", "404"),
                ("GET /CAF%C3%A9/7", "404"),
                ("GET /caf%C3%A9/7/", "404"),
                ("GET /caf%C3%A9/7/8", "/**"),
                ("GET /a/secret", "/{org}/secret/**"),
                ("GET /a/secret/", "/{org}/secret/**"),
                ("GET /A/Secret/x", "404"),
                ("GET /a/SECRET", "404"),
            ],
        );
    }

    #[test]
    fn a_slash_at_the_end_is_another_path() {
        let config = config(vec![
            route("/**", "public"),
            route("/a", "admin"),
            route("/b/", "admin"),
            route("/c/**", "admin"),
            route("/d", "admin"),
            route("/d/", "tracer"),
            route("/d/**", "public"),
        ]);
        check(
            &config,
            &[
                ("GET /a", "/a"),
                ("GET /a/", "404"),
                ("GET /b", "404"),
                ("GET /b/", "/b/"),
                ("GET /c", "/c/**"),
                ("GET /c/", "/c/**"),
                ("GET /c/x/", "/c/**"),
                ("GET /cx", "/**"),
                ("GET /d", "/d"),
                ("GET /d/", "/d/"),
                ("GET /d/x", "/d/**"),
                ("GET /D/", "404"),
            ],
        );
    }

    #[test]
    fn get_takes_head_and_the_closest_row_decides() {
        let config = config(vec![
            route("/a", "admin"),
            route("GET /a", "public"),
            route("PUT /a", "tracer"),
            route("HEAD /b", "admin"),
            route("GET /b", "public"),
            route("GET /c", "public"),
            route("GET /c", "admin"),
        ]);
        check(
            &config,
            &[
                ("GET /a", "GET /a"),
                ("HEAD /a", "GET /a"),
                ("PUT /a", "PUT /a"),
                ("DELETE /a", "/a"),
                ("put /a", "404"),
                ("BREW /a", "404"),
                ("TRACE /a", "404"),
                ("HEAD /b", "HEAD /b"),
                ("GET /c", "GET /c"),
                ("PUT /c", "404"),
            ],
        );
        let target = Target::parse(&"/c".parse().unwrap()).unwrap();
        let table = RouteTable::new(&config);
        assert!(matches!(table.find(HOME, "GET", &target), Found::Route(row) if row.index == 5));
    }

    #[test]
    fn own_endpoints_are_never_forwarded() {
        let config = config(vec![
            route("/**", "authenticated"),
            route("/auth/**", "public"),
            route("/auth/users/**", "admin"),
            route("/auth/login", "public"),
            route("/auth/mfa/enroll", "public"),
        ]);
        check(
            &config,
            &[
                ("POST /auth/login", "Login"),
                ("GET /auth/login", "405 POST"),
                ("GET /auth/", "LoginPage"),
                ("HEAD /auth/", "LoginPage"),
                ("POST /auth/", "405 GET, HEAD"),
                ("GET /auth/logout", "Logout"),
                ("POST /auth/logout", "Logout"),
                ("HEAD /auth/logout", "405 GET, POST"),
                ("GET /auth/session", "Session"),
                ("POST /auth/refresh", "Refresh"),
                ("GET /auth/verify", "Verify"),
                ("GET /.well-known/jwks.json?x", "Jwks"),
                ("PUT /.well-known/jwks.json", "405 GET, HEAD"),
                ("POST /auth/password", "Password"),
                ("POST /auth/access-codes", "404"),
                ("POST /auth/access-codes/redeem", "404"),
                ("POST /auth/access-codes/revoke", "404"),
                ("POST /auth/mfa", "404"),
                ("POST /auth/mfa/enroll", "404"),
                ("POST /auth/MFA/enroll/", "404"),
                ("POST /auth/Login", "404"),
                ("POST /AUTH/login", "404"),
                ("POST /auth/login/", "404"),
                ("GET /auth", "404"),
                ("GET /.well-known/JWKS.json", "404"),
                ("GET /auth/users/list", "/auth/users/**"),
                ("GET /auth/other", "/auth/**"),
                ("GET /auth/login/more", "/auth/**"),
                ("GET /.well-known/other", "/**"),
            ],
        );
    }

    #[test]
    fn a_login_alias_is_ours_where_something_is_guarded_and_nowhere_else() {
        let mut config =
            config(vec![route("/**", "authenticated"), route_of("open.example", "/**", "public")]);
        config.server.login_aliases = vec!["/login".to_owned(), "/api/Sign-in".to_owned()];
        check(
            &config,
            &[
                ("POST /login", "LoginAlias"),
                ("POST /api/Sign-in?rd=/", "LoginAlias"),
                ("GET /login", "405 POST"),
                ("POST /login/", "404"),
                ("POST /Login", "404"),
                ("POST /api/sign-in", "404"),
                ("POST /login/more", "/**"),
                ("POST /auth/login", "Login"),
            ],
        );
        assert_eq!(ask(&config, "open.example", "POST /login"), "/**");
    }

    #[test]
    fn the_prefix_of_own_endpoints_moves() {
        let mut config = config(vec![route("/**", "authenticated")]);
        config.server.auth_prefix = "/gate/Own".to_owned();
        check(
            &config,
            &[
                ("POST /gate/Own/login", "Login"),
                ("POST /gate/own/login", "404"),
                ("GET /gate/Own/", "LoginPage"),
                ("POST /auth/login", "/**"),
            ],
        );
    }

    #[test]
    fn without_cookies_there_is_no_login_page_and_nothing_in_its_place() {
        let mut config = config(vec![route("/**", "authenticated")]);
        config.token.delivery = Delivery::Bearer;
        check(&config, &[("GET /auth/", "404"), ("POST /auth/login", "Login")]);
    }

    #[test]
    fn a_route_belongs_to_its_host() {
        let config = config(vec![
            route("/**", "authenticated"),
            route_of("ingest.example", "/**", "public"),
            route_of("Home.example", "/more", "admin"),
            route_of("third.example", "/x", "admin"),
            route_of("::1", "/x", "public"),
        ]);
        for (host, request, expected) in [
            (HOME, "GET /more", "/more"),
            (HOME, "GET /x", "/**"),
            ("ingest.example", "GET /x", "/**"),
            ("ingest.example", "POST /auth/login", "/**"),
            ("ingest.example", "GET /.well-known/jwks.json", "/**"),
            ("third.example", "POST /auth/login", "Login"),
            ("third.example", "GET /.well-known/jwks.json", "Jwks"),
            ("third.example", "GET /other", "404"),
            ("::1", "GET /x", "/x"),
            ("other.example", "GET /x", "421"),
            ("home.example.", "GET /x", "421"),
            ("", "GET /x", "421"),
        ] {
            assert_eq!(ask(&config, host, request), expected, "{host} {request}");
        }
        let alone =
            crate::policy::sample::config(vec![route_of("ingest.example", "/**", "public")]);
        assert_eq!(ask(&alone, HOME, "GET /x"), "404");
    }

    #[test]
    fn a_role_is_allowed_only_where_it_is_named() {
        let config = config(vec![
            route("/public", "public"),
            route("/any", "authenticated"),
            route("/admin", "admin"),
        ]);
        let table = RouteTable::new(&config);
        for (path, role, expected) in [
            ("/public", "nobody", true),
            ("/any", "tracer", true),
            ("/any", "nobody", false),
            ("/any", "access_code", false),
            ("/any", "ADMIN", false),
            ("/admin", "admin", true),
            ("/admin", "tracer", false),
        ] {
            let target = Target::parse(&path.parse().unwrap()).unwrap();
            let Found::Route(route) = table.find(HOME, "GET", &target) else {
                panic!("{path} has a route");
            };
            assert_eq!(route.allows(&Role::new(role)), expected, "{path} {role}");
            assert_eq!(route.is_public(), path == "/public");
        }
    }
}
