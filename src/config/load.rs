//! From a file and the environment to a `Config`, or to all problems at once.

use std::path::Path;

use serde_json::Value as Json;

use super::declaration::{self, KeyDescription};
use super::document::Document;
use super::reader::{Findings, Presence, Reader};
use super::route::Names;
use super::{
    AccessCodes, Config, Cookie, Directory, Headers, LoginPage, LoginThrottle, Problem, Problems,
    Route, Server, Store, Telemetry, Token, Upstream, access_codes, crosscheck, guess_guard, kind,
};
use crate::ambient::{Clock, Timestamp};
use crate::identity::ACCESS_CODE_ROLE;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but risky, one sentence each.
    pub notes: Vec<String>,
}

impl Config {
    /// Loads a file, the process's environment laid over it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(file: &Path) -> Result<Loaded, Problems> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()));
        Self::load_with(file, environment, Clock::system().now())
    }

    /// Loads a file with these environment variables, as if it were `now`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load_with(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        now: Timestamp,
    ) -> Result<Loaded, Problems> {
        judge(Document::read(file, environment, now))
    }

    /// Loads text without an environment; relative paths start from the working folder.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(toml: &str) -> Result<Loaded, Problems> {
        judge(Document::parse("configuration", toml, [], Clock::system().now()))
    }

    /// The JSON Schema (2020-12) of the configuration file.
    #[must_use]
    pub fn schema() -> Json {
        declaration::schema(&described().declared)
    }

    /// Every key that the loader knows, the unbuilt ones too.
    #[must_use]
    pub fn keys() -> Vec<KeyDescription> {
        declaration::keys(&described().declared)
    }

    /// Reads all sections; `None` only beside a problem.
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (required, optional) = (Presence::Required, Presence::Optional);
        let server = r.section("server", required, "Listeners and origin.", Server::read).flatten();
        let doc = "Metrics, health, logs and audit.";
        let telemetry = r.section("telemetry", optional, doc, Telemetry::read);
        let doc = "Where people and their groups are; left out, nobody can log in.";
        let given = r.given("directory");
        let directory = r.switch("directory", doc, Directory::read).flatten();
        let doc = "What outlives the process.";
        let store = r.section("store", required, doc, Store::read).flatten();
        // With a broken store nothing is known that could demand a folder of keys.
        let in_memory = store.as_ref().is_none_or(Store::is_memory);
        let read_token = |r: &mut Reader<'_>| Token::read(r, in_memory);
        let token = r.section("token", optional, "Tokens and sessions.", read_token);
        let cookie = r.section("cookie", optional, "Our cookies.", Cookie::read);
        let throttle = r.section("throttle", optional, "Failed logins.", LoginThrottle::read);
        let roles: Vec<String> =
            r.texts_within("directory", "role", "name").into_iter().flatten().collect();
        let read_codes = |r: &mut Reader<'_>| AccessCodes::read(r, &roles);
        let doc = "Codes told over the telephone.";
        let access_codes = r.section("access_codes", optional, doc, read_codes);
        let doc = "How the upstream is told who is calling, and headers of answers.";
        let headers = r.section("headers", optional, doc, Headers::read);
        let login_page = r.section("login_page", optional, "The login page.", LoginPage::read);
        let managed = headers.as_ref().map(Headers::managed).unwrap_or_default();
        let doc = "Where requests are forwarded to.";
        let issuer = r.text_within("server", "public_origin").unwrap_or_default();
        let upstreams = r.tables("upstream", doc, |r| Upstream::read(r, &managed, &issuer));
        let aliases = server.as_ref().map(|server| server.login_aliases.as_slice());
        let roles = match access_codes {
            Some(Some(_)) => [roles.as_slice(), &[ACCESS_CODE_ROLE.to_owned()]].concat(),
            _ => roles,
        };
        let routes = read_routes(r, roles, aliases.unwrap_or_default());
        r.unbuilt("mfa", "second factors");
        if let (Some(server), Some(telemetry)) = (&server, &telemetry) {
            crosscheck::refuse_shared_listener(r, server, telemetry);
        }
        let directory = if given { Some(directory?) } else { None };
        let mut config = Self {
            server: server?,
            telemetry: telemetry?,
            directory,
            token: token?,
            cookie: cookie?,
            throttle: throttle?,
            access_codes: access_codes?,
            store: store?,
            headers: headers?,
            login_page: login_page?,
            upstreams: upstreams.into_iter().collect::<Option<_>>()?,
            routes: routes.into_iter().collect::<Option<_>>()?,
        };
        crosscheck::settle_assertions(r, &mut config);
        access_codes::check_against_others(r, &config);
        crosscheck::note_oddities(r, &config);
        Some(config)
    }
}

/// Reads the routes and checks them against what stands elsewhere in the file,
/// also when that has problems of its own.
fn read_routes(r: &mut Reader<'_>, roles: Vec<String>, aliases: &[String]) -> Vec<Option<Route>> {
    let names = Names { roles, upstreams: r.texts("upstream", "name") };
    let doc = "Who may use what; what no route matches is not forwarded.";
    let routes = r.tables("route", doc, |r| Route::read(r, &names));
    let used = r.texts("route", "upstream");
    crosscheck::check_upstream_names(r, &names.upstreams, &used);
    let origin = r.text_within("server", "public_origin");
    let home = origin.and_then(|text| kind::origin_host(&text)).unwrap_or_default();
    let prefix = r.text_within("server", "auth_prefix").unwrap_or_else(|| "/auth".to_owned());
    guess_guard::check_shared(r, &routes);
    crosscheck::refuse_doubled_routes(r, &routes, &home);
    crosscheck::refuse_shadowed_routes(r, &routes, &home, (&prefix, aliases));
    routes
}

fn judge(document: Result<Document, Problem>) -> Result<Loaded, Problems> {
    let document =
        document.map_err(|problem| Problems { problems: vec![problem], notes: Vec::new() })?;
    let mut findings = Findings::default();
    let config = Reader::read_root(&document, &mut findings, Config::read);
    let mut notes = document.notes.clone();
    notes.append(&mut findings.notes);
    match config {
        Some(config) if findings.problems.is_empty() => Ok(Loaded { config, notes }),
        _ => Err(Problems { problems: findings.problems, notes }),
    }
}

/// Walks through all keys without a document.
fn described() -> Findings {
    let document = Document::empty();
    let mut findings = Findings::describing();
    Reader::read_root(&document, &mut findings, Config::read);
    findings
}
