//! The loader as a whole, over files in a temporary folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::{
    Access, Config, KeyDefault, LdapTransport, Loaded, LogLevel, Problems, SameSite, Store,
};
use crate::ambient::{Clock, Timestamp};

/// A folder with certificate, key and secret.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        let key = KeyPair::generate().unwrap();
        let names = vec!["safeplaces.example.org".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        folder.write("tls.crt", &certificate.pem());
        folder.write("tls.key", &key.serialize_pem());
        folder.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
        folder.write("secret", "hunter2\n");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that only we may read.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load(&self, text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Problems> {
        self.write("bindgate.toml", text);
        self.reload(environment, Clock::system().now())
    }

    fn reload(&self, environment: &[(&str, &str)], now: Timestamp) -> Result<Loaded, Problems> {
        let pairs = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Config::load_with(&self.path("bindgate.toml"), pairs, now)
    }

    fn lines(&self, text: &str) -> Vec<String> {
        problems(self.load(text, &[]))
    }
}

fn problems(result: Result<Loaded, Problems>) -> Vec<String> {
    result.err().map(|all| all.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// One line says all of these things, and no other line is there.
fn only(lines: &[String], words: &[&str]) {
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for word in words {
        assert!(lines[0].contains(word), "{word} is not in {}", lines[0]);
    }
}

const SMALL: &str = r#"
[server]
listen = ["127.0.0.1:0"]
public_origin = "https://safeplaces.example.org"
[server.tls]
certificate_file = "tls.crt"
private_key_file = "tls.key"
[directory]
kind = "ldap"
urls = ["ldaps://dc1.example.org"]
bind_dn = "cn=bindgate,dc=example,dc=org"
bind_password_file = "secret"
base_dn = "ou=people,dc=example,dc=org"
group_base_dn = "ou=groups,dc=example,dc=org"
[[directory.role]]
name = "admin"
group = "cn=admins,ou=groups,dc=example,dc=org"
[token]
keys_dir = "keys"
[store]
kind = "embedded"
path = "state.redb"
[[upstream]]
name = "backend"
urls = ["http://127.0.0.1:3000"]
[[route]]
path = "/**"
access = "authenticated"
upstream = "backend"
"#;

/// `SMALL` with one line after a table's header.
fn with(header: &str, line: &str) -> String {
    let at = SMALL.find(&format!("{header}\n")).unwrap() + header.len();
    format!("{}\n{line}{}", &SMALL[..at], &SMALL[at..])
}

/// `SMALL` with the line of a key replaced.
fn replaced(old: &str, new: &str) -> String {
    assert!(SMALL.contains(old));
    SMALL.replacen(old, new, 1)
}

#[test]
fn a_small_file_loads_with_the_contracts_defaults() {
    let folder = Folder::new();
    let config = folder.load(SMALL, &[]).unwrap().config;
    assert_eq!(config.server.auth_prefix, "/auth");
    assert_eq!(config.server.limits, super::Limits::default());
    assert_eq!(config.telemetry.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.token.lifetime, Duration::from_mins(15));
    assert_eq!(config.token.keys_dir, Some(folder.path("keys")));
    assert_eq!(config.cookie.token_name, "__Host-bindgate-token");
    assert_eq!(config.cookie.same_site, SameSite::Strict);
    assert_eq!(config.throttle.per_user.count, 5);
    assert_eq!(config.store, Store::Embedded { path: folder.path("state.redb") });
    assert_eq!(config.headers.user, "x-auth-user");
    let hsts = config.headers.hsts.unwrap().0;
    assert_eq!(hsts, "max-age=63072000; includeSubDomains; preload");
    assert_eq!(config.login_page.title, "Sign in");
    let directory = config.directory.unwrap();
    assert_eq!(directory.bind_password.expose(), "hunter2", "without its line end");
    assert_eq!(directory.servers[0].transport, LdapTransport::Tls);
    assert_eq!(directory.servers[0].port, 636);
    assert_eq!(config.upstreams[0].idle_timeout, Duration::from_secs(4));
    assert_eq!(config.routes[0].access, Access::Authenticated);
    assert!(config.server.tls.expires_at().unwrap() > Clock::system().now());
}

#[test]
fn all_problems_are_told_at_once_each_with_file_key_found_and_allowed() {
    let text = SMALL
        .replace("\"127.0.0.1:0\"", "\"here\"")
        .replace("https://safe", "http://safe")
        .replace("tls.key", "other.key")
        .replace("ldaps://", "ldap://")
        .replace("cn=admins,ou", "admins,ou")
        .replace("[token]", "[token]\nidle_timeout = \"5m\"\n[cookie]\nsame_site = 3")
        .replace("keys_dir = \"keys\"", "")
        .replace("http://127", "https://127")
        .replace("access = \"authenticated\"", "roles = [\"boss\"]")
        .replace("upstream = \"backend\"", "upstream = \"backened\"\nmethod = [\"GET\"]");
    let lines = Folder::new().lines(&text);
    let expected: [&[&str]; 11] = [
        &["bindgate.toml: server.listen: found \"here\"; allowed: a list", "127.0.0.1:8443"],
        &["server.public_origin: found \"http://safeplaces", "https://app.example.org"],
        &["server.tls.private_key_file", "another certificate"],
        &["directory.urls", "without TLS"],
        &["directory.role.group in [[directory.role]] no. 1", "\"admins,ou=", "distinguished"],
        &["token.keys_dir", "nothing"],
        &["cookie.same_site: found 3", "\"strict\", \"lax\", \"none\""],
        &["upstream.urls in [[upstream]] no. 1", "not built yet", "https"],
        &["route.roles in [[route]] no. 1", "\"boss\"", "admin"],
        &["route.upstream in [[route]] no. 1", "\"backened\"", "backend"],
        &["route.method", "an unknown key", "route.methods, perhaps?"],
    ];
    for words in expected {
        let hit = |line: &&String| words.iter().all(|word| line.contains(word));
        assert!(lines.iter().any(|line| hit(&line)), "{words:?} in {lines:#?}");
    }
    assert_eq!(lines.len(), 11, "{lines:#?}");
}

#[test]
fn the_environment_wins_and_is_named() {
    let folder = Folder::new();
    let loaded = folder.load(
        SMALL,
        &[
            ("BINDGATE_TELEMETRY__LOG_LEVEL", "debug"),
            ("BINDGATE_SERVER__WORKERS", "3"),
            ("BINDGATE_SERVER__LISTEN", "127.0.0.1:1, 127.0.0.1:2"),
            ("BINDGATE_SERVER__LIMITS__BODY_BYTES", "1KiB"),
            ("BINDGATE_DIRECTORY__NESTED_GROUPS", "false"),
            ("BINDGATE_DIRECTORY__BIND_PASSWORD", "123456"),
            ("BINDGATE_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/"),
        ],
    );
    let Loaded { config, notes } = loaded.unwrap();
    assert_eq!(config.telemetry.log_level, LogLevel::Debug);
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.limits.body_bytes, 1024);
    let directory = config.directory.unwrap();
    assert!(!directory.nested_groups);
    assert_eq!(directory.bind_password.expose(), "123456", "over the file's bind_password_file");
    assert!(notes.iter().any(|note| note.contains("BINDGATE_SERVICE_HOST: not read")));

    let lines = problems(folder.load(SMALL, &[("BINDGATE_SERVER__WORKERS", "many")]));
    only(
        &lines,
        &["environment variable BINDGATE_SERVER__WORKERS: server.workers: found \"many\""],
    );
    let lines = problems(folder.load(SMALL, &[("BINDGATE_SERVR__WORKERS", "1")]));
    only(&lines, &["environment variable BINDGATE_SERVR__WORKERS: servr", "server, perhaps?"]);
    let lines = problems(folder.load(SMALL, &[("BINDGATE_UPSTREAM__0__URLS", "x")]));
    assert!(lines[0].contains("BINDGATE_UPSTREAM__0__URLS: upstream: found a table"), "{lines:?}");
}

#[test]
fn what_is_no_toml_is_said_without_repeating_the_line() {
    let lines = Folder::new().lines("[directory]\nbind_password = \"hunter2\" x");
    only(&lines, &["bindgate.toml: found what is not TOML", "line 2"]);
    assert!(!lines[0].contains("hunter2"));
    let lines = problems(Config::load(Path::new("/nowhere/bindgate.toml")));
    only(&lines, &["/nowhere/bindgate.toml: found a file that cannot be read"]);
}

#[test]
fn every_unbuilt_key_is_refused_by_name() {
    let folder = Folder::new();
    let unbuilt = Config::keys();
    let unbuilt = unbuilt.iter().filter(|key| key.default == KeyDefault::Unbuilt);
    let mut count = 0;
    for key in unbuilt {
        count += 1;
        let text = match key.path.rsplit_once('.') {
            None => format!("{SMALL}\n[{}]\nenabled = true\n", key.path),
            Some((table @ ("route" | "upstream"), name)) => {
                with(&format!("[[{table}]]"), &format!("{name} = 1"))
            }
            Some((table, name)) if SMALL.contains(&format!("[{table}]")) => {
                with(&format!("[{table}]"), &format!("{name} = 1"))
            }
            Some((table, name)) => format!("{SMALL}\n[{table}]\n{name} = 1\n"),
        };
        only(&folder.lines(&text), &[&key.path, "not built yet", key.doc]);
    }
    assert!(count >= 30, "{count}");
}

#[test]
fn every_unbuilt_value_is_refused_by_name() {
    let folder = Folder::new();
    for (old, new, word) in [
        ("kind = \"ldap\"", "kind = \"active_directory\"", "Active Directory"),
        ("kind = \"ldap\"", "kind = \"file\"", "users in a file"),
        ("\"ldaps://dc1.example.org\"", "\"ad://example.org\"", "ad://"),
        ("\"ldaps://dc1.example.org\"", "\"ldaps://a\", \"ldaps://b\"", "failover"),
        ("kind = \"embedded\"", "kind = \"redis\"", "Redis"),
        ("\"http://127.0.0.1:3000\"", "\"http://a\", \"http://b\"", "balancing"),
        ("\"http://127.0.0.1:3000\"", "\"https://a\"", "https"),
    ] {
        only(&folder.lines(&replaced(old, new)), &["not built yet", word]);
    }
}

#[test]
fn an_inline_secret_is_refused_in_a_file_that_everybody_may_read() {
    let folder = Folder::new();
    let text = replaced("bind_password_file = \"secret\"", "bind_password = \"hunter2\"");
    assert!(folder.load(&text, &[]).is_ok());
    let open = |name: &str| {
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(0o644)).unwrap();
    };
    open("bindgate.toml");
    let now = Clock::system().now();
    let lines = problems(folder.reload(&[], now));
    only(&lines, &["directory.bind_password", "everybody on the machine may read"]);
    assert!(!lines[0].contains("hunter2"));
    let environment = [("BINDGATE_DIRECTORY__BIND_PASSWORD", "other")];
    assert!(folder.reload(&environment, now).is_ok(), "the environment's is not in the file");

    folder.write("bindgate.toml", SMALL);
    open("bindgate.toml");
    open("secret");
    let notes = folder.reload(&[], now).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("bind_password_file: everybody")), "{notes:?}");
}

#[test]
fn a_secret_is_given_once_and_is_not_empty() {
    let folder = Folder::new();
    let file = "bind_password_file = \"secret\"";
    let both = replaced(file, "bind_password_file = \"secret\"\nbind_password = \"x\"");
    only(&folder.lines(&both), &["directory.bind_password", "one of them"]);
    only(&folder.lines(&replaced(file, "")), &["directory.bind_password_file: found nothing"]);
    only(&folder.lines(&replaced(file, "bind_password = \"\"")), &["not empty"]);
    folder.write("secret", "\n");
    only(&folder.lines(SMALL), &["bind_password_file: found an empty file"]);
    only(&folder.lines(&replaced("\"secret\"", "\"missing\"")), &["cannot be read"]);
    folder.write("secret", "with space \r\n");
    let config = folder.load(SMALL, &[]).unwrap().config;
    assert_eq!(config.directory.unwrap().bind_password.expose(), "with space ");
}

#[test]
fn broken_certificates_keys_and_authorities_stop_the_start() {
    let folder = Folder::new();
    folder.write("empty", "");
    folder.write("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("cut", "-----BEGIN CERTIFICATE-----\nAAAA");
    let certificate = "certificate_file = \"tls.crt\"";
    let key = "private_key_file = \"tls.key\"";
    for (old, file, word) in [
        (certificate, "missing", "cannot be read"),
        (certificate, "empty", "without a certificate"),
        (certificate, "broken", "cannot be read"),
        (certificate, "cut", "PEM"),
        (certificate, ".", "cannot be read"),
        (key, "empty", "without a private key"),
        (key, "tls.crt", "without a private key"),
        (key, "other.key", "another certificate"),
    ] {
        let name = old.split(' ').next().unwrap();
        let text = replaced(old, &format!("{name} = \"{file}\""));
        only(&folder.lines(&text), &[&format!("server.tls.{name}: "), word]);
    }
    for file in ["missing", "empty", "broken", "cut"] {
        let text = with("[directory]", &format!("ca_file = \"{file}\""));
        only(&folder.lines(&text), &["directory.ca_file"]);
        let text = with("[server.tls]", &format!("client_ca_file = \"{file}\""));
        only(&folder.lines(&text), &["server.tls.client_ca_file"]);
    }
    let text = with("[directory]", "ca_file = \"tls.crt\"");
    assert!(folder.load(&text, &[]).unwrap().config.directory.unwrap().authorities.is_some());
}

#[test]
fn an_ended_certificate_is_noted_not_refused() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["other.example.org".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    folder.write("tls.crt", &params.self_signed(&key).unwrap().pem());
    folder.write("tls.key", &key.serialize_pem());
    let notes = folder.load(SMALL, &[]).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("ended at 2021-01-01T00:00:00")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("not for safeplaces.example.org")), "{notes:?}");
    let notes = folder.reload(&[], Timestamp::from_seconds(0)).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("begins only at 2020-01-01")), "{notes:?}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let folder = Folder::new();
    let cases: &[(&str, &str, &[&str])] = &[
        ("[token]", "idle_timeout = \"14m\"", &["token.idle_timeout: found \"14m\"", "\"15m\""]),
        ("[token]", "lifetime = \"13h\"\nidle_timeout = \"13h\"", &["token.lifetime", "\"12h\""]),
        ("[token]", "lifetime = \"1500ms\"", &["token.lifetime", "whole seconds"]),
        ("[directory]", "start_tls = true", &["directory.start_tls", "ldaps://"]),
        ("[directory]", "user_filter = \"(a=b\"", &["directory.user_filter", "filter"]),
        ("[directory]", "user_attribute = \"u)(\"", &["directory.user_attribute"]),
        ("[server]", "trusted_proxies = [\"everybody\"]", &["server.trusted_proxies"]),
        ("[server]", "auth_prefix = \"/\"", &["server.auth_prefix"]),
        ("[server.tls]", "min_version = \"1.1\"", &["server.tls.min_version", "\"1.2\", \"1.3\""]),
        ("[[upstream]]", "set_headers = { X-Auth-User = \"x\" }", &["set_headers", "who is"]),
        ("[[upstream]]", "set_headers = { x_auth_role = \"x\" }", &["set_headers", "who is"]),
        ("[[upstream]]", "allow_headers = [\"X-Auth-User\"]", &["allow_headers"]),
        ("[[route]]", "roles = [\"admin\"]", &["route.access", "exactly one"]),
        ("[[route]]", "host = \"a:443\"", &["route.host"]),
    ];
    for (header, line, words) in cases {
        only(&folder.lines(&with(header, line)), words);
    }
    for limit in ["connections = 0", "header_timeout = \"0s\"", "header_bytes = \"1KiB\""] {
        let text = format!("{SMALL}\n[server.limits]\n{limit}");
        only(&folder.lines(&text), &["server.limits."]);
    }
    for (section, words) in [
        ("[cookie]\ntoken_name = \"a\"\ndevice_name = \"A\"", ["cookie.device_name", "token_name"]),
        ("[cookie]\ntoken_name = \"__Host-\"", ["cookie.token_name", "prefix"]),
        ("[headers]\nuser = \"X_A\"\nrole = \"X-A\"", ["headers.role", "headers.user"]),
        ("[headers]\nrole = \"X-Auth-User\"", ["headers.role", "headers.user"]),
        ("[headers]\nrole = \"Remote-User\"\npreset = \"remote\"", ["headers.role", "preset"]),
        ("[headers]\nhsts = \"yes\"", ["headers.hsts", "max-age"]),
        ("[throttle]\nlogin_per_user = \"5\"", ["throttle.login_per_user", "5 per 15m"]),
        ("[login_page]\ntitle = \"\"", ["login_page.title", "not empty"]),
    ] {
        let lines = folder.lines(&format!("{SMALL}\n{section}\n"));
        only(&lines, &words);
    }
}

#[test]
fn plaintext_to_the_directory_needs_loopback_and_a_word() {
    let folder = Folder::new();
    let plain = |url: &str, allow: bool| {
        let text = with("[directory]", &format!("allow_plaintext = {allow}"));
        folder.load(&text.replace("ldaps://dc1.example.org", url), &[])
    };
    assert!(plain("ldap://dc1.example.org", true).is_err());
    assert!(plain("ldap://127.0.0.1:1389", false).is_err());
    let Loaded { config, notes } = plain("ldap://127.0.0.1:1389", true).unwrap();
    assert_eq!(config.directory.unwrap().servers[0].transport, LdapTransport::Plaintext);
    assert!(notes.iter().any(|note| note.contains("in clear")));
    assert!(plain("ldap://[::1]", true).is_ok());
}

#[test]
fn routes_that_contradict_or_shadow_are_refused() {
    let folder = Folder::new();
    let route = |path: &str, rest: &str| {
        let route = format!("[[route]]\npath = \"{path}\"\nupstream = \"backend\"\n{rest}\n");
        folder.lines(&format!("{SMALL}\n{route}"))
    };
    let public = "access = \"public\"";
    only(&route("/**", public), &["route.path in [[route]] no. 2", "no. 1"]);
    let same_host = format!("host = \"SafePlaces.example.org\"\n{public}");
    only(&route("/**", &same_host), &["route.path in [[route]] no. 2"]);
    for path in ["/auth/login", "/auth", "/Auth/Logout/", "/auth/mfa/x", "/.well-known/jwks.json"] {
        only(&route(path, public), &["route.path in [[route]] no. 2", "the gateway answers"]);
    }
    for path in ["/auth/users", "/auth/**", "/x/{id}"] {
        assert_eq!(route(path, public), Vec::<String>::new());
    }
    let elsewhere = format!("host = \"ingest.example.org\"\n{public}");
    assert!(route("/**", &elsewhere).is_empty(), "another host");
    assert!(route("/auth/login", &elsewhere).is_empty(), "no endpoints where all is public");
    only(&route("/x/**/y", public), &["route.path", "** last"]);
    only(&route("/x", ""), &["route.roles", "neither"]);
    let two = "[[upstream]]\nname = \"backend\"\nurls = [\"http://b\"]\n";
    only(&folder.lines(&format!("{SMALL}\n{two}")), &["upstream.name in [[upstream]] no. 2"]);
}

#[test]
fn one_path_may_have_a_route_for_each_method() {
    let folder = Folder::new();
    let rows = |one: &str, other: &str| {
        let route = |methods: &str| {
            format!(
                "[[route]]\npath = \"/x/{{id}}\"\nmethods = [{methods}]\nroles = [\"admin\"]\n\
                 upstream = \"backend\"\n"
            )
        };
        folder.lines(&format!("{SMALL}\n{}{}", route(one), route(other)))
    };
    assert!(rows("\"GET\"", "\"PUT\", \"POST\"").is_empty());
    only(&rows("\"GET\"", "\"PUT\", \"GET\""), &["no. 3", "no. 2"]);
    only(&rows("\"get\"", "\"PUT\""), &["route.methods in [[route]] no. 2", "capitals"]);
}

#[test]
fn what_is_risky_but_allowed_is_noted() {
    let folder = Folder::new();
    let notes = |text: &str| folder.load(text, &[]).unwrap().notes.join("\n");
    let small = notes(SMALL);
    assert!(small.contains("telemetry.audit_file: left out"), "{small}");
    assert_eq!(small.lines().count(), 1, "{small}");
    for (text, word) in [
        (format!("{SMALL}\n[telemetry]\nlisten = \"0.0.0.0:9464\""), "telemetry.listen"),
        (format!("{SMALL}\n[cookie]\nsame_site = \"none\""), "cookie.same_site"),
        (format!("{SMALL}\n[cookie]\nsame_site = \"lax\""), "cookie.same_site"),
        (format!("{SMALL}\n[cookie]\ntoken_name = \"access_token\""), "cookie.token_name"),
        (format!("{SMALL}\n[headers]\nhsts = \"off\""), "headers.hsts"),
        (with("[token]", "delivery = \"both\""), "token.delivery"),
        (with("[server]", "trusted_proxies = [\"0.0.0.0/0\"]"), "server.trusted_proxies"),
        (with("[server]", "proxy_protocol = true"), "server.proxy_protocol"),
        (replaced("kind = \"embedded\"", "kind = \"memory\""), "store.kind"),
        (replaced("kind = \"embedded\"", "kind = \"memory\""), "token.keys_dir"),
        (format!("{SMALL}\n[[upstream]]\nname = \"b\"\nurls = [\"http://b\"]"), "no route leads"),
    ] {
        assert!(notes(&text).contains(word), "{word} in {}", notes(&text));
    }
}

#[test]
fn without_a_directory_only_public_routes_can_be_used() {
    let folder = Folder::new();
    let (start, end) = (SMALL.find("[directory]").unwrap(), SMALL.find("[token]").unwrap());
    let text = format!("{}{}", &SMALL[..start], &SMALL[end..]);
    let Loaded { config, notes } = folder.load(&text, &[]).unwrap();
    assert!(config.directory.is_none());
    assert!(notes.iter().any(|note| note.contains("nobody can log in")), "{notes:?}");
    let text = text.replace("access = \"authenticated\"", "roles = [\"admin\"]");
    only(&folder.lines(&text), &["route.roles", "of which there is none"]);
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let lines = Folder::new().lines("");
    for key in ["server", "store", "upstream", "route"] {
        let start = format!(": {key}: found nothing");
        assert!(lines.iter().any(|line| line.contains(&start)), "{key} in {lines:#?}");
    }
}
