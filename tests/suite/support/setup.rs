//! A configuration as an operator would write it, in a directory of its own, with
//! the few keys changed that a test is about.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::certs::{Authority, Issued};

/// The host that `public_origin` names.
pub(crate) const HOST: &str = "gateway.test";
/// A second host, for routes that name one.
pub(crate) const OTHER_HOST: &str = "ingest.gateway.test";

/// Routes that most tests can live with.
pub(crate) const ROUTES: &str = r#"
[[route]]
path = "/public/**"
access = "public"
upstream = "backend"

[[route]]
path = "/app/**"
access = "authenticated"
upstream = "backend"

[[route]]
path = "/admin/**"
roles = ["admin", "super_admin"]
upstream = "backend"

[[route]]
path = "/super/**"
roles = ["super_admin"]
upstream = "backend"

[[route]]
path = "/organization/configuration"
methods = ["GET"]
access = "authenticated"
upstream = "backend"

[[route]]
path = "/organization/configuration"
methods = ["PUT"]
roles = ["admin", "super_admin"]
upstream = "backend"

[[route]]
name = "one-case"
path = "/cases/{id}"
methods = ["GET", "POST"]
access = "authenticated"
upstream = "backend"
"#;

/// Everything a gateway is started from; its files go with it.
pub(crate) struct Setup {
    pub(crate) files: TempDir,
    pub(crate) authority: Authority,
    sections: BTreeMap<String, BTreeMap<String, String>>,
    directory: String,
    upstream: BTreeMap<String, String>,
    routes: String,
    /// A file of its own instead of all that.
    whole: Option<String>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// One upstream server, and the `[directory]` section as text.
    pub(crate) fn new(directory: &str, upstream_url: &str) -> Self {
        Self::within(&std::env::temp_dir(), directory, upstream_url)
    }

    /// The same, with its files in a folder of their own below that one.
    pub(crate) fn within(folder: &Path, directory: &str, upstream_url: &str) -> Self {
        let files = tempfile::tempdir_in(folder).expect("a temporary directory");
        let mut setup = Self {
            files,
            authority: Authority::new("gateway test authority"),
            sections: BTreeMap::new(),
            directory: directory.to_owned(),
            upstream: BTreeMap::new(),
            routes: ROUTES.to_owned(),
            whole: None,
            environment: Vec::new(),
        };
        setup.certificate();
        let path = |name: &str| format!("{:?}", setup.path(name).display().to_string());
        let settings = [
            ("server", "listen", "[\"127.0.0.1:0\"]".to_owned()),
            ("server", "public_origin", format!("\"https://{HOST}\"")),
            ("server", "workers", "2".to_owned()),
            ("server.tls", "certificate_file", path("tls.crt")),
            ("server.tls", "private_key_file", path("tls.key")),
            ("server.limits", "drain_delay", "\"50ms\"".to_owned()),
            ("server.limits", "drain_timeout", "\"20s\"".to_owned()),
            ("telemetry", "listen", "\"127.0.0.1:0\"".to_owned()),
            ("telemetry", "audit_file", path("audit.jsonl")),
            ("token", "keys_dir", path("keys")),
            ("store", "kind", "\"embedded\"".to_owned()),
            ("store", "path", path("state.redb")),
        ];
        for (section, key, value) in settings {
            setup.set(section, key, &value);
        }
        setup.upstream("name", "\"backend\"").upstream("urls", &format!("[\"{upstream_url}\"]"));
        setup
    }

    /// Sets a key to a value written as TOML.
    pub(crate) fn set(&mut self, section: &str, key: &str, toml: &str) -> &mut Self {
        let section = self.sections.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), toml.to_owned());
        self
    }

    /// With a control socket.
    pub(crate) fn control_socket(&mut self) -> &mut Self {
        let path = format!("{:?}", self.path("control.sock").display().to_string());
        self.set("telemetry", "control_socket", &path)
    }

    /// Leaves a key out.
    pub(crate) fn unset(&mut self, section: &str, key: &str) -> &mut Self {
        self.sections.entry(section.to_owned()).or_default().remove(key);
        self
    }

    /// Removes a section.
    pub(crate) fn without(&mut self, section: &str) -> &mut Self {
        self.sections.remove(section);
        self
    }

    /// Sets a key of `[[upstream]]`.
    pub(crate) fn upstream(&mut self, key: &str, toml: &str) -> &mut Self {
        self.upstream.insert(key.to_owned(), toml.to_owned());
        self
    }

    /// Replaces all routes.
    pub(crate) fn routes(&mut self, toml: &str) -> &mut Self {
        toml.clone_into(&mut self.routes);
        self
    }

    /// Adds routes.
    pub(crate) fn more_routes(&mut self, toml: &str) -> &mut Self {
        self.routes.push_str(toml);
        self
    }

    /// Replaces the `[directory]` section; empty text leaves it out.
    pub(crate) fn directory(&mut self, toml: &str) -> &mut Self {
        toml.clone_into(&mut self.directory);
        self
    }

    /// Replaces the configuration as a whole.
    pub(crate) fn whole(&mut self, toml: String) -> &mut Self {
        self.whole = Some(toml);
        self
    }

    /// Sets a variable of the process that is started.
    pub(crate) fn environment(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.environment
    }

    /// A new certificate and key in the configured files.
    pub(crate) fn certificate(&self) -> Issued {
        let issued = self.authority.issue(&[HOST, OTHER_HOST, "localhost", "127.0.0.1"]);
        // The key first and the certificate last: whoever watches one of them sees both.
        self.write("tls.key", &issued.key_pem);
        self.write("tls.crt", &issued.certificate_pem);
        issued
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn audit_file(&self) -> PathBuf {
        self.path("audit.jsonl")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path("bindgate.toml")
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        write_private(&self.path(name), text);
    }

    /// Writes the configuration as it now stands.
    pub(crate) fn save(&self) {
        self.write("bindgate.toml", &self.toml());
    }

    pub(crate) fn toml(&self) -> String {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let mut text = String::new();
        for (section, keys) in &self.sections {
            write!(text, "[{section}]\n{}\n", lines(keys)).expect("text");
        }
        write!(text, "{}\n[[upstream]]\n{}", self.directory, lines(&self.upstream)).expect("text");
        text + &self.routes
    }
}

fn lines(keys: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in keys {
        writeln!(text, "{key} = {value}").expect("text");
    }
    text
}

fn write_private(path: &Path, text: &str) {
    // Renamed into place, so that a reload never reads half a file.
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("a file");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("its mode");
    fs::rename(&beside, path).expect("its place");
}
