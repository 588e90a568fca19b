//! A real OpenLDAP server in a temporary directory, with the people and groups
//! that the tests need. Knows nothing of the gateway but its `[directory]` section.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use bindgate::config;
use bindgate::config::{DirectoryKind, LdapServer, LdapTransport, RoleMapping};
use bindgate::identity::Role;
use bindgate::secret::Secret;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;

/// Everybody's password.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// The service account.
pub(crate) const SERVICE_DN: &str = "cn=bindgate,ou=services,dc=example,dc=org";
/// Its password.
pub(crate) const SERVICE_PASSWORD: &str = "service secret";
/// Roles in the configured order, and their groups.
pub(crate) const ROLES: [(&str, &str); 3] = [
    ("super_admin", "cn=super_admins,ou=groups,dc=example,dc=org"),
    ("admin", "CN=Admins, OU=groups, DC=example, DC=org"),
    ("contact_tracer", "cn=contact_tracers,ou=groups,dc=example,dc=org"),
];
/// Users with the role that the directory gives them, by every way groups are written there.
pub(crate) const PEOPLE_WITH_ROLES: [(&str, &str); 9] = [
    ("sam", "super_admin"),
    ("alice", "admin"),
    ("carol", "contact_tracer"),
    ("both", "super_admin"), // also a contact tracer: the first role from the top wins
    ("nina", "contact_tracer"), // through a group in a group
    ("lola", "admin"),       // through two groups that are members of each other
    ("uma", "admin"),        // through a groupOfUniqueNames
    ("obrien", "contact_tracer"), // the DN needs every kind of escape
    ("zoë", "contact_tracer"),
];
/// In no group that gives a role; `frank` is in a `cn=super_admins` elsewhere.
pub(crate) const PEOPLE_WITHOUT_ROLE: [&str; 2] = ["nora", "frank"];
/// The user whose name is all filter characters; without a role.
pub(crate) const FILTER_CHARACTERS: &str = r"st*r(x)\y";

const ROOT_DN: &str = "cn=root,dc=example,dc=org";
const ROOT_PASSWORD: &str = "root";
/// Loaded while the server is off, so that operational attributes can be set.
pub(crate) const PEOPLE: &str = include_str!("people.ldif");
/// Added over LDAP, so that the memberof overlay sees them.
pub(crate) const GROUPS: &str = include_str!("groups.ldif");
const START_ATTEMPTS: usize = 1000;

/// One server; ended, and its files removed, on drop.
pub(crate) struct Slapd {
    directory: tempfile::TempDir,
    authority: CertificateDer<'static>,
    plain_port: u16,
    tls_port: u16,
    /// What it writes into its log; nothing, usually.
    log_level: u16,
    process: Option<Child>,
}

impl Slapd {
    /// Starts a server with the fixtures loaded; it answers when this returns.
    pub(crate) fn start() -> Self {
        Self::start_anew(0, "")
    }

    /// The same with further entries.
    pub(crate) fn start_with(more: &str) -> Self {
        Self::start_anew(0, more)
    }

    /// The same, of a server that writes down each operation.
    pub(crate) fn start_telling() -> Self {
        Self::start_anew(256, "")
    }

    fn start_anew(log_level: u16, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let authority = write_certificates(
            directory.path(),
            &["127.0.0.1", "dc1.example.org", "dc2.example.org"],
        );
        fs::create_dir(directory.path().join("db")).expect("database directory");
        let configuration = slapd_conf(directory.path());
        fs::write(directory.path().join("slapd.conf"), configuration).expect("slapd.conf");
        let (plain_port, tls_port, process) = (0, 0, None);
        let mut slapd = Self { directory, authority, plain_port, tls_port, log_level, process };
        slapd.tool(
            Command::new("slapadd").arg("-q").arg("-f").arg(slapd.path("slapd.conf")),
            &format!("{PEOPLE}\n{more}"),
        );
        slapd.start_anywhere();
        slapd.ldapadd(GROUPS);
        slapd
    }

    /// Restarts it with a part of its configuration replaced, or as it was before.
    pub(crate) fn reconfigure(&mut self, usual: &str, other: &str, now_other: bool) {
        let path = self.path("slapd.conf");
        let text = fs::read_to_string(&path).expect("slapd.conf");
        let (from, to) = if now_other { (usual, other) } else { (other, usual) };
        assert!(text.contains(from), "{text}");
        self.stop();
        fs::write(&path, text.replacen(from, to, 1)).expect("slapd.conf");
        self.resume();
    }

    /// Ends the server process; its files and ports stay for [`Self::resume`].
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("slapd can be killed");
            process.wait().expect("slapd can be awaited");
        }
    }

    /// Starts the server again, on the same ports.
    pub(crate) fn resume(&mut self) {
        assert!(self.launch(), "slapd did not come back: {}", self.log());
    }

    /// Starts it again with these lines before the database's.
    pub(crate) fn configure(&mut self, lines: &str) {
        self.stop();
        let file = self.path("slapd.conf");
        let text = fs::read_to_string(&file).expect("slapd.conf");
        let text = text.replacen("database mdb", &format!("{lines}database mdb"), 1);
        fs::write(&file, text).expect("slapd.conf");
        self.resume();
    }

    /// The section `[directory]` for this server, typed.
    pub(crate) fn directory(&self, transport: LdapTransport) -> config::Directory {
        config::Directory {
            kind: DirectoryKind::Ldap,
            users: None,
            password_checks: 4,
            break_glass: None,
            attributes: Vec::new(),
            password_rules: config::PasswordRules::default(),
            discovery: None,
            servers: vec![LdapServer {
                host: Ipv4Addr::LOCALHOST.to_string(),
                port: self.port(transport),
                transport,
            }],
            authorities: Some(vec![self.authority.clone()]),
            bind_dn: SERVICE_DN.to_owned(),
            bind_password: Secret::new(SERVICE_PASSWORD.to_owned()),
            base_dn: "ou=people,dc=example,dc=org".to_owned(),
            user_attribute: "uid".to_owned(),
            user_filter: Some("(objectClass=inetOrgPerson)".to_owned()),
            subject_attribute: "uid".to_owned(),
            group_base_dn: "ou=groups,dc=example,dc=org".to_owned(),
            nested_groups: true,
            timeout: Duration::from_secs(5),
            recheck_interval: Duration::from_mins(5),
            recheck_grace: Duration::from_hours(1),
            bind_connections: 32,
            searches_ahead: 5000,
            idle_timeout: Duration::from_secs(30),
            roles: ROLES
                .iter()
                .map(|(name, group)| RoleMapping {
                    name: Role::new(name),
                    group: (*group).to_owned(),
                })
                .collect(),
        }
    }

    /// The sections `[directory]` and `[[directory.role]]` for this server, as TOML.
    pub(crate) fn toml(&self, transport: LdapTransport) -> String {
        let (scheme, start_tls) = match transport {
            LdapTransport::Tls => ("ldaps", false),
            LdapTransport::StartTls => ("ldap", true),
            LdapTransport::Plaintext => ("ldap", false),
        };
        let port = self.port(transport);
        section(&format!("{scheme}://127.0.0.1:{port}"), start_tls, self.directory.path())
    }

    /// The same, with a second server behind this one; `authorities` is a file that the
    /// authorities of both are written to.
    pub(crate) fn toml_with(&self, other: &Self, authorities: &Path) -> String {
        let pem = |slapd: &Self| fs::read_to_string(slapd.authority_file()).expect("ca.pem");
        fs::write(authorities, pem(self) + &pem(other)).expect("a file of authorities");
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let url = |slapd: &Self| format!("\"ldaps://127.0.0.1:{}\"", slapd.tls_port);
        let both = format!("{}, {}", url(self), url(other));
        let toml = self.toml(LdapTransport::Tls).replace(&url(self), &both);
        toml.replace(&quoted(&self.authority_file()), &quoted(authorities))
    }

    /// The authority that signed the server's certificate, as a PEM file.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The port that speaks this transport.
    pub(crate) const fn port(&self, transport: LdapTransport) -> u16 {
        match transport {
            LdapTransport::Tls => self.tls_port,
            LdapTransport::StartTls | LdapTransport::Plaintext => self.plain_port,
        }
    }

    /// How many binds with a wrong password the server has counted against this entry.
    pub(crate) fn failed_binds(&self, dn: &str) -> usize {
        let mut command = self.client("ldapsearch");
        command.args(["-LLL", "-b", dn, "-s", "base", "(objectClass=*)", "pwdFailureTime"]);
        self.tool(&mut command, "")
            .lines()
            .filter(|line| line.starts_with("pwdFailureTime:"))
            .count()
    }

    /// The names that were bound as since it started, in order; for one that tells.
    pub(crate) fn binds(&self) -> Vec<String> {
        assert!(self.log_level != 0, "it tells nothing");
        let log = self.log();
        let names = log.lines().filter_map(|line| {
            let (name, rest) = line.split_once(" BIND dn=\"")?.1.split_once('"')?;
            rest.starts_with(" method=").then(|| name.to_owned())
        });
        names.collect()
    }

    /// The filters that were searched with since it started, in order; for one that tells.
    pub(crate) fn searches(&self) -> Vec<String> {
        assert!(self.log_level != 0, "it tells nothing");
        let log = self.log();
        let filters = log.lines().filter_map(|line| {
            let filter = line.split_once(" SRCH base=")?.1.split_once(" filter=\"")?.1;
            Some(filter.trim_end_matches('"').to_owned())
        });
        filters.collect()
    }

    /// Adds the entries of an LDIF text.
    pub(crate) fn ldapadd(&self, ldif: &str) {
        self.tool(&mut self.client("ldapadd"), ldif);
    }

    /// Applies the changes of an LDIF text.
    pub(crate) fn ldapmodify(&self, ldif: &str) {
        self.tool(&mut self.client("ldapmodify"), ldif);
    }

    fn start_anywhere(&mut self) {
        for _ in 0..10 {
            (self.plain_port, self.tls_port) = free_ports();
            if self.launch() {
                return;
            }
        }
        panic!("slapd did not start: {}", self.log());
    }

    /// True once the server accepts connections; false when it ends instead.
    fn launch(&mut self) -> bool {
        let log = fs::File::create(self.path("slapd.log")).expect("slapd.log");
        let mut process = Command::new("slapd")
            .args(["-d", &self.log_level.to_string(), "-f"])
            .arg(self.path("slapd.conf"))
            .arg("-h")
            .arg(format!(
                "ldap://127.0.0.1:{}/ ldaps://127.0.0.1:{}/",
                self.plain_port, self.tls_port
            ))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("slapd is installed (apt-get install slapd ldap-utils)");
        for _ in 0..START_ATTEMPTS {
            let connected = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            if connected(self.plain_port) && connected(self.tls_port) {
                self.process = Some(process);
                return true;
            }
            if process.try_wait().expect("slapd can be awaited").is_some() {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        process.kill().expect("slapd can be killed");
        process.wait().expect("slapd can be awaited");
        false
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LDAPTLS_CACERT", self.authority_file())
            .args(["-x", "-H", &format!("ldaps://127.0.0.1:{}", self.tls_port)])
            .args(["-D", ROOT_DN, "-w", ROOT_PASSWORD]);
        command
    }

    fn tool(&self, command: &mut Command, input: &str) -> String {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the OpenLDAP tools are installed (apt-get install slapd ldap-utils)");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("tool reads");
        let output = child.wait_with_output().expect("tool ends");
        assert!(
            output.status.success(),
            "{command:?} in {}: {}",
            self.directory.path().display(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("slapd.log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// The sections `[directory]` and `[[directory.role]]`, as TOML; `folder` is where
/// [`write_certificates`] wrote.
pub(crate) fn section(url: &str, start_tls: bool, folder: &Path) -> String {
    let mut toml = format!(
        "[directory]\nkind = \"ldap\"\nurls = [\"{url}\"]\nstart_tls = {start_tls}\n\
         ca_file = {authority:?}\nbind_dn = \"{SERVICE_DN}\"\nbind_password_file = {password:?}\n\
         base_dn = \"ou=people,dc=example,dc=org\"\nuser_attribute = \"uid\"\n\
         user_filter = \"(objectClass=inetOrgPerson)\"\nsubject_attribute = \"uid\"\n\
         group_base_dn = \"ou=groups,dc=example,dc=org\"\nnested_groups = true\ntimeout = \"5s\"\n",
        authority = folder.join("ca.pem").display().to_string(),
        password = folder.join("service-password").display().to_string(),
    );
    for (name, group) in ROLES {
        write!(toml, "[[directory.role]]\nname = \"{name}\"\ngroup = \"{group}\"\n")
            .expect("a string can be written");
    }
    toml
}

fn free_ports() -> (u16, u16) {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
    let (one, other) = (listen(), listen());
    (port(&one), port(&other))
}

/// An authority and a certificate signed by it for these names and addresses alone, as
/// PEM files; returns the authority.
pub(crate) fn write_certificates(directory: &Path, names: &[&str]) -> CertificateDer<'static> {
    let authority_key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "directory test authority");
    let authority = params.self_signed(&authority_key).expect("authority");
    let issuer = Issuer::from_params(&params, &authority_key);

    let key = KeyPair::generate().expect("key");
    let server =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .expect("parameters");
    let server = server.signed_by(&key, &issuer).expect("certificate");
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("server.pem", server.pem()),
        ("server.key", key.serialize_pem()),
        ("service-password", SERVICE_PASSWORD.to_owned()),
    ] {
        fs::write(directory.join(name), text).expect("file");
    }
    authority.der().clone()
}

fn slapd_conf(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
TLSCACertificateFile {directory}/ca.pem
TLSCertificateFile {directory}/server.pem
TLSCertificateKeyFile {directory}/server.key
security simple_bind=1
database mdb
maxsize 67108864
suffix \"dc=example,dc=org\"
rootdn \"{ROOT_DN}\"
rootpw {ROOT_PASSWORD}
directory {directory}/db
index objectClass,uid,member,uniqueMember eq
access to attrs=userPassword by self =xw by anonymous auth by * none
access to * by dn.exact=\"{SERVICE_DN}\" read by self read by anonymous auth by * none
overlay memberof
overlay ppolicy
ppolicy_default \"cn=default,ou=policies,dc=example,dc=org\"
ppolicy_use_lockout
"
    )
}

#[test]
fn the_section_as_text_says_what_the_typed_one_says() {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    let slapd = Slapd::start();
    let text = slapd.toml(LdapTransport::StartTls);
    let typed = slapd.directory(LdapTransport::StartTls);
    let text: serde_json::Value = Figment::from(Toml::string(&text)).extract().expect("TOML");
    let section = &text["directory"];
    let string = |key: &str| section[key].as_str().expect(key).to_owned();
    assert_eq!(string("base_dn"), typed.base_dn);
    assert_eq!(Some(string("user_filter")), typed.user_filter);
    assert_eq!(section["role"][2]["group"], typed.roles[2].group);
    assert_eq!(section["start_tls"], true);
    let password = fs::read_to_string(string("bind_password_file")).expect("a file");
    assert_eq!(&password, typed.bind_password.expose());
}
