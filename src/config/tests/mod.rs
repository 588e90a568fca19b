//! The loader as a whole, over files in a temporary folder.

mod directory;
mod files;
mod published;
mod redis;
mod rules;
mod users;
mod whole;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::{Config, Loaded, Problems};
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
