//! No spelling of a path gets around a narrower route. The judge is a model of
//! an upstream that decodes once, ignores case and one slash at the end; it is
//! written without the code that it judges, by lists where that has a tree.

use percent_encoding::percent_decode_str;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::sample::select;

use crate::config::{Access, Route};
use crate::identity::Role;
use crate::policy::sample::{HOME, config, route};
use crate::policy::table::{Found, RouteTable};
use crate::wire::target::Target;

const OWN: [&str; 11] = [
    "/auth",
    "/auth/login",
    "/auth/logout",
    "/auth/session",
    "/auth/refresh",
    "/auth/verify",
    "/auth/password",
    "/auth/access-codes",
    "/auth/access-codes/redeem",
    "/auth/access-codes/revoke",
    "/.well-known/jwks.json",
];

/// The careless reading of a path.
fn careless(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy().to_uppercase().to_lowercase();
    decoded.strip_suffix('/').unwrap_or(&decoded).to_owned()
}

/// Segments, and whether `**` follows.
fn parts(pattern: &str) -> (Vec<&str>, bool) {
    let (path, rest) = pattern.strip_suffix("/**").map_or((pattern, false), |path| (path, true));
    (path.split('/').skip(1).filter(|segment| !segment.is_empty()).collect(), rest)
}

fn takes(pattern: &str, path: &str, exactly: bool) -> bool {
    let (expected, rest) = parts(pattern);
    let sent: Vec<&str> = path.split('/').skip(1).filter(|segment| !segment.is_empty()).collect();
    let fits = |(expected, sent): (&&str, &&str)| {
        expected.starts_with('{')
            || if exactly { expected == sent } else { careless(expected) == *sent }
    };
    let long_enough =
        if rest { sent.len() >= expected.len() } else { sent.len() == expected.len() };
    let same_end = !exactly || rest || pattern.ends_with('/') == path.ends_with('/');
    long_enough && same_end && expected.iter().zip(&sent).all(fits)
}

/// Literals before parameters before `**`, from the left.
fn specificity(pattern: &str) -> Vec<u8> {
    let (segments, rest) = parts(pattern);
    let ranks = segments.iter().map(|segment| if segment.starts_with('{') { 2 } else { 3 });
    ranks.chain([u8::from(!rest) * 3]).collect()
}

/// The path pattern that the careless upstream serves the request by.
fn served_by<'r>(routes: &'r [Route], path: &str) -> Option<&'r str> {
    let path = careless(path);
    let patterns = routes.iter().map(|route| route.path.as_str());
    patterns
        .filter(|pattern| takes(pattern, &path, false))
        .max_by_key(|pattern| specificity(pattern))
}

fn row<'r>(routes: &'r [Route], pattern: &str, method: &str) -> Option<&'r Route> {
    let rows = || routes.iter().filter(|route| route.path == pattern);
    let named = |name: &str| {
        rows().find(|row| row.methods.as_ref().is_some_and(|names| names.iter().any(|n| n == name)))
    };
    let by_get = || if method == "HEAD" { named("GET") } else { None };
    let known = ["GET", "HEAD", "PUT", "POST"].contains(&method);
    let all = || rows().find(|row| row.methods.is_none() && known);
    named(method).or_else(by_get).or_else(all)
}

/// What the contract says of a path that the gateway takes.
fn expected<'r>(routes: &'r [Route], path: &str, method: &str) -> Option<&'r Route> {
    let has_own = routes.iter().any(|route| route.access != Access::Public);
    let plain = careless(path);
    let is_own = OWN.contains(&plain.as_str()) || format!("{plain}/").starts_with("/auth/mfa/");
    if has_own && is_own {
        return None;
    }
    let pattern = served_by(routes, path)?;
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    if takes(pattern, &decoded, true) { row(routes, pattern, method) } else { None }
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = select(vec!["a", "B", "é", "ab", "{x}", "{x}", "auth", "login", "mfa"]);
    (vec(segment, 0..4), select(vec!["", "/", "/**"])).prop_map(|(segments, end)| {
        let path: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
        if path.is_empty() && end.is_empty() { "/".to_owned() } else { path + end }
    })
}

/// Routes of which no two differ only in what the careless upstream ignores:
/// which of those it would take, nobody could say.
fn routes() -> impl Strategy<Value = Vec<Route>> {
    let methods = select(vec!["", "GET ", "PUT ", "GET,PUT ", "HEAD "]);
    let access = select(vec!["public", "authenticated", "admin", "tracer", "admin,tracer"]);
    vec((pattern(), methods, access), 1..9).prop_map(|rows| {
        let mut kept: Vec<Route> = Vec::new();
        for (path, methods, access) in rows {
            let alike = |other: &Route| careless(&other.path) == careless(&path);
            let is_own = OWN.contains(&careless(&path).as_str());
            if !is_own && !kept.iter().any(|other| other.path != path && alike(other)) {
                kept.push(route(&format!("{methods}{path}"), access));
            }
        }
        kept
    })
}

fn path() -> impl Strategy<Value = String> {
    let segment = select(vec![
        "a", "A", "b", "B", "é", "É", "%C3%A9", "%c3%89", "ab", "Ab", "aB", "auth", "AUTH",
        "login", "Login", "mfa", "MFA", "x", "%40", "%E9", "a;v", "%41", "..",
    ]);
    let built = (vec(segment, 0..5), any::<bool>()).prop_map(|(segments, slash)| {
        let path: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
        if slash || path.is_empty() { path + "/" } else { path }
    });
    prop_oneof![9 => built, 1 => "/[/aAbBé%34CcA9.;]{0,8}"]
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(4000))]

    #[test]
    fn no_spelling_gets_around_a_narrower_route(
        routes in routes(),
        paths in vec(path(), 1..12),
        method in select(vec!["GET", "HEAD", "PUT", "POST", "get", "BREW"]),
    ) {
        let table = RouteTable::new(&config(routes.clone()));
        for path in paths {
            let Ok(sent) = path.parse() else { continue };
            let Ok(target) = Target::parse(&sent) else { continue };
            let found = match table.find(HOME, method, &target) {
                Found::Route(found) => Some(found),
                _ => None,
            };
            // What is allowed is allowed by the row that the upstream goes by.
            if let Some(found) = found {
                let pattern = served_by(&routes, &path.replace(";v", "")).unwrap();
                let theirs = row(&routes, pattern, method).unwrap();
                for role in ["admin", "tracer", "access_code", "nobody"].map(Role::new) {
                    let allowed = match &theirs.access {
                        Access::Public => true,
                        Access::Authenticated => ["admin", "tracer"].contains(&role.as_str()),
                        Access::Roles(roles) => roles.contains(&role),
                    };
                    assert!(allowed || !found.allows(&role), "{method} {path} {role}");
                }
            }
            // And nothing is refused that the contract lets through.
            if !target.has_path_parameters() {
                let label = expected(&routes, &path, method).map(|route| route.label.as_str());
                assert_eq!(found.map(|found| &*found.label), label, "{method} {path}");
            }
        }
    }
}
