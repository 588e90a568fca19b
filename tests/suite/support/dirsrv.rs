//! A real 389 Directory Server in a temporary directory, with the people and groups
//! of the OpenLDAP tests. Knows nothing of the gateway but its `[directory]` section.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use bindgate::config;
use bindgate::config::{LdapServer, LdapTransport};

use super::ldif;
use super::slapd::{GROUPS, PEOPLE, Slapd, section, write_certificates};

const TEMPLATE: &str = "/usr/share/dirsrv/data/template-dse.ldif";
const ROOT_DN: &str = "cn=root";
const ROOT_PASSWORD: &str = "root of the tests";
const START_ATTEMPTS: usize = 3000;
/// Added to the server's own configuration: the data's place, and one password policy.
const CONFIGURATION: &str = r#"
dn: cn=userroot,cn=ldbm database,cn=plugins,cn=config
objectClass: top
objectClass: extensibleObject
objectClass: nsBackendInstance
cn: userroot
nsslapd-suffix: dc=example,dc=org

dn: cn="dc=example,dc=org",cn=mapping tree,cn=config
objectClass: top
objectClass: extensibleObject
objectClass: nsMappingTree
cn: "dc=example,dc=org"
nsslapd-state: backend
nsslapd-backend: userroot
"#;
/// Applied when the people are there, lest the policy counts their creation.
const POLICY: &str = "dn: cn=config
changetype: modify
replace: passwordExp
passwordExp: on
-
replace: passwordMaxAge
passwordMaxAge: 86400000
-
replace: passwordWarning
passwordWarning: 259200
-
replace: passwordGraceLimit
passwordGraceLimit: 3
-
replace: passwordMustChange
passwordMustChange: on
-
replace: passwordLockout
passwordLockout: on
-
replace: passwordMaxFailure
passwordMaxFailure: 3
-
replace: passwordUnlock
passwordUnlock: off
";

/// One server; ended, and its files removed, on drop.
pub(crate) struct Dirsrv {
    directory: tempfile::TempDir,
    port: u16,
    tls_port: u16,
    process: Option<Child>,
}

impl Dirsrv {
    /// Starts a server with the fixtures loaded; it answers when this returns.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (port, tls_port) = (free_port(), free_port());
        write_instance(directory.path(), port, tls_port);
        write_certificates(directory.path(), &["127.0.0.1"]);
        fill_certificate_store(directory.path());
        let mut dirsrv = Self { directory, port, tls_port, process: None };
        dirsrv.launch();
        dirsrv.ldapmodify(&people());
        dirsrv.ldapmodify(POLICY);
        dirsrv
    }

    /// The section `[directory]` for this server, typed: as for OpenLDAP, but for the
    /// server itself.
    pub(crate) fn directory(&self, like: &Slapd) -> config::Directory {
        let mut config = like.directory(LdapTransport::Plaintext);
        config.servers = vec![LdapServer {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port,
            transport: LdapTransport::Plaintext,
        }];
        config
    }

    /// The sections `[directory]` and `[[directory.role]]` for this server, over TLS.
    pub(crate) fn toml(&self) -> String {
        let url = format!("ldaps://127.0.0.1:{}", self.tls_port);
        section(&url, false, self.directory.path())
    }

    /// The port that it listens on.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// How many wrong passwords it holds against an entry.
    pub(crate) fn bad_password_count(&self, dn: &str) -> usize {
        let mut command = Command::new("ldapsearch");
        command.args(["-LLL", "-x", "-H", &format!("ldap://127.0.0.1:{}", self.port)]);
        command.args(["-D", ROOT_DN, "-w", ROOT_PASSWORD, "-b", dn, "-s", "base"]);
        command.args(["(objectClass=*)", "passwordRetryCount"]);
        let output = command.output().expect("ldap-utils is installed (.ci/setup)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = text.lines().find_map(|line| line.strip_prefix("passwordRetryCount: "));
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// Applies the changes of an LDIF text; entries without one are added.
    pub(crate) fn ldapmodify(&self, ldif: &str) {
        let mut tool = Command::new("ldapmodify");
        tool.args(["-a", "-x", "-H", &format!("ldap://127.0.0.1:{}", self.port)]);
        tool.args(["-D", ROOT_DN, "-w", ROOT_PASSWORD]);
        assert_eq!(ldif::apply(&mut tool, ldif), Ok(()), "{}", self.log());
    }

    fn launch(&mut self) {
        let output = fs::File::create(self.path("out")).expect("out");
        let mut process = Command::new("ns-slapd")
            .args(["-d", "0", "-D"])
            .arg(self.path("config"))
            .arg("-i")
            .arg(self.path("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("389-ds-base is installed (.ci/setup)");
        for _ in 0..START_ATTEMPTS {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                self.process = Some(process);
                return;
            }
            assert!(process.try_wait().expect("can be awaited").is_none(), "{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
        process.kill().expect("ns-slapd can be killed");
        process.wait().expect("ns-slapd can be awaited");
        panic!("389-ds did not start: {}", self.log());
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        read("out") + &read("log/errors")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Dirsrv {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// What its own installer would write, into one folder.
fn write_instance(directory: &Path, port: u16, tls_port: u16) {
    for name in ["config/schema", "db", "log", "lock", "run", "tmp", "ldif", "bak", "inst", "certs"]
    {
        fs::create_dir_all(directory.join(name)).expect("a folder");
    }
    for (from, to) in [("config", "config"), ("config", "certs"), ("schema", "config/schema")] {
        let files = fs::read_dir(Path::new("/etc/dirsrv").join(from));
        for file in files.expect("389-ds-base is installed (.ci/setup)") {
            let file = file.expect("a file").path();
            let name = file.file_name().expect("a name");
            fs::copy(&file, directory.join(to).join(name)).expect("a copy");
        }
    }
    let mut dse = fs::read_to_string(TEMPLATE).expect("389-ds-base is installed (.ci/setup)");
    let folder = |name: &str| directory.join(name).display().to_string();
    for (placeholder, value) in [
        ("bak_dir", folder("bak")),
        ("cert_dir", folder("certs")),
        ("config_dir", folder("config")),
        ("db_dir", folder("db")),
        ("db_home_dir", folder("db")),
        ("db_lib", "bdb".to_owned()),
        ("ds_passwd", format!("{{CLEAR}}{ROOT_PASSWORD}")),
        ("ds_port", port.to_string()),
        ("ds_suffix", "dc=example,dc=org".to_owned()),
        ("ds_user", "root".to_owned()),
        ("fqdn", "localhost".to_owned()),
        ("inst_dir", folder("inst")),
        ("ldapi", folder("run/ldapi")),
        ("ldapi_autobind", "off".to_owned()),
        ("ldapi_enabled", "off".to_owned()),
        ("ldif_dir", folder("ldif")),
        ("lock_dir", folder("lock")),
        ("log_dir", folder("log")),
        ("rootdn", ROOT_DN.to_owned()),
        ("run_dir", folder("run")),
        ("schema_dir", folder("config/schema")),
        ("tmp_dir", folder("tmp")),
    ] {
        dse = dse.replace(&format!("%{placeholder}%"), &value);
    }
    // As installed it takes names of plain ASCII only.
    let (before, plugin) = dse.split_once("dn: cn=7-bit check,").expect("as installed");
    let plugin = plugin.replacen("nsslapd-pluginenabled: on", "nsslapd-pluginenabled: off", 1);
    let dse = format!("{before}dn: cn=7-bit check,{}\n{CONFIGURATION}", plugin.trim_end());
    // Changes of passwords are taken over TLS only.
    let security = format!("dn: cn=config\nnsslapd-security: on\nnsslapd-securePort: {tls_port}\n");
    let dse = dse.replacen("dn: cn=config\n", &security, 1);
    fs::write(directory.join("config/dse.ldif"), dse).expect("dse.ldif");
}

/// The server's certificate, in the form that it reads.
fn fill_certificate_store(directory: &Path) {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(directory).output();
        let output = output.expect("openssl and libnss3-tools are installed (.ci/setup)");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
    };
    run("certutil", &["-N", "-d", "sql:certs", "--empty-password"]);
    let pair = ["-inkey", "server.key", "-in", "server.pem", "-name", "Server-Cert"];
    let to = ["-passout", "pass:x", "-out", "server.p12"];
    run("openssl", &[&["pkcs12", "-export"][..], &pair, &to].concat());
    run("pk12util", &["-i", "server.p12", "-d", "sql:certs", "-W", "x", "-K", ""]);
    run("certutil", &["-A", "-d", "sql:certs", "-n", "ca", "-t", "CT,,", "-i", "ca.pem"]);
}

/// The people and groups of the OpenLDAP tests, without what only OpenLDAP knows.
fn people() -> String {
    let mut ldif = String::new();
    for entry in PEOPLE.split("\n\n").filter(|entry| !entry.contains("pwdPolicy\n")) {
        for line in entry.lines().filter(|line| !line.starts_with("pwd")) {
            writeln!(ldif, "{line}").expect("a string can be written");
            if line.starts_with("dn: dc=example,dc=org") {
                writeln!(
                    ldif,
                    "aci: (targetattr != \"userPassword\")(version 3.0; acl \"service\"; allow \
                     (read, search, compare) userdn = \"ldap:///cn=bindgate,ou=services,dc=example,dc=org\";)\n\
                     aci: (targetattr = \"userPassword\")(version 3.0; acl \"own\"; allow (write) \
                     userdn = \"ldap:///self\";)"
                )
                .expect("a string can be written");
            }
        }
        ldif.push('\n');
    }
    ldif + GROUPS
}
