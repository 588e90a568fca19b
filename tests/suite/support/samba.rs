//! A real Samba Active Directory domain controller in a temporary directory, with the
//! people and groups of `samba_fixtures.py`. Knows nothing of the gateway but its
//! `[directory]` section.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use bindgate::config;
use bindgate::config::{DirectoryKind, LdapServer, LdapTransport, RoleMapping};
use bindgate::identity::Role;
use bindgate::secret::Secret;
use rustls_pki_types::CertificateDer;

use super::ldif;
use super::slapd::write_certificates;

/// The controller's name in DNS.
pub(crate) const HOST: &str = "dc1.ad.example.test";
/// The domain's base.
pub(crate) const BASE: &str = "DC=ad,DC=example,DC=test";
const REALM: &str = "AD.EXAMPLE.TEST";
/// Where fine-grained password policies are.
const POLICIES: &str = "CN=Password Settings Container,CN=System";
/// The attribute of that name, as rights name it.
const TOKEN_GROUPS: &str = "b7c69e6d-2cc7-11d2-854e-00a0c983f608";
const ADMINISTRATOR_PASSWORD: &str = "Some-long-secret-1";
const FIXTURES: &str = include_str!("samba_fixtures.py");
/// Its ports are fixed, so that every server has an address of its own.
const PORT: u16 = 636;
const START_ATTEMPTS: usize = 3000;

/// One domain controller; ended, and its files removed, on drop.
pub(crate) struct Samba {
    directory: tempfile::TempDir,
    authority: CertificateDer<'static>,
    address: Ipv4Addr,
    process: Option<Child>,
}

impl Samba {
    /// Makes a domain with the fixtures in it and starts its controller, which answers
    /// when this returns. Takes some ten seconds.
    pub(crate) fn start() -> Self {
        Self::start_anew(REALM, "yes")
    }

    /// The same of a controller that lets people log in without TLS.
    pub(crate) fn start_in_clear() -> Self {
        Self::start_anew(REALM, "no")
    }

    /// The same of a controller that refers whoever searches the whole domain to this
    /// address for the rest of it: it takes the name to say there from its configuration.
    pub(crate) fn start_referring_to(elsewhere: SocketAddr) -> Self {
        Self::start_anew(&elsewhere.to_string(), "yes")
    }

    fn start_anew(realm: &str, strong: &str) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let address = own_address();
        let authority = write_certificates(directory.path(), &[&address.to_string(), HOST]);
        // Samba refuses a key that others may read.
        let key = directory.path().join("server.key");
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("key mode");
        let mut samba = Self { directory, authority, address, process: None };
        samba.provision();
        fs::write(samba.path("smb.conf"), samba.configuration(realm, strong)).expect("smb.conf");
        let fixtures = samba.path("fixtures.py");
        fs::write(&fixtures, FIXTURES).expect("fixtures.py");
        // The system's own Python: another one in PATH does not see the system's packages.
        let mut python = Command::new("/usr/bin/python3");
        samba.run(python.arg(fixtures).arg(samba.path("smb.conf")));
        samba.launch();
        samba
    }

    /// Where it listens; the ports are the usual ones.
    pub(crate) const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The section `[directory]` for this server, typed.
    pub(crate) fn directory(&self) -> config::Directory {
        let role = |name: &str, group: &str| RoleMapping {
            name: Role::new(name),
            group: format!("{group},OU=groups,{BASE}"),
        };
        config::Directory {
            kind: DirectoryKind::ActiveDirectory,
            users: None,
            password_checks: 4,
            break_glass: None,
            attributes: Vec::new(),
            password_rules: config::PasswordRules::default(),
            discovery: None,
            servers: vec![LdapServer {
                host: self.address.to_string(),
                port: PORT,
                transport: LdapTransport::Tls,
            }],
            authorities: Some(vec![self.authority.clone()]),
            bind_dn: format!("CN=bindgate,OU=people,{BASE}"),
            bind_password: Secret::new("service secret".to_owned()),
            // The domain's root: a search from there is referred elsewhere as well.
            base_dn: BASE.to_owned(),
            user_attribute: "uid".to_owned(),
            user_filter: None,
            subject_attribute: "objectGUID".to_owned(),
            group_base_dn: String::new(),
            nested_groups: true,
            timeout: Duration::from_secs(20),
            recheck_interval: Duration::from_mins(5),
            recheck_grace: Duration::from_hours(1),
            bind_connections: 32,
            searches_ahead: 5000,
            idle_timeout: Duration::from_secs(30),
            roles: vec![
                role("super_admin", "CN=super_admins"),
                role("admin", "cn=Admins"),
                role("contact_tracer", "CN=contact_tracers"),
                role("nobody", "CN=not there"),
            ],
        }
    }

    /// The sections `[directory]` and `[[directory.role]]` for this server, as TOML.
    pub(crate) fn toml(&self) -> String {
        let typed = self.directory();
        let password = self.path("service-password");
        fs::write(&password, typed.bind_password.expose()).expect("the service password");
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("its mode");
        let mut toml = format!(
            "[directory]\nkind = \"active_directory\"\nurls = [\"ldaps://{}\"]\nca_file = {:?}\n\
             bind_dn = {:?}\nbind_password_file = {:?}\nbase_dn = {:?}\ntimeout = \"20s\"\n",
            self.address,
            self.path("ca.pem").display().to_string(),
            typed.bind_dn,
            password.display().to_string(),
            typed.base_dn,
        );
        for role in &typed.roles {
            let (name, group) = (role.name.as_str(), &role.group);
            write!(toml, "[[directory.role]]\nname = {name:?}\ngroup = {group:?}\n")
                .expect("a string can be written");
        }
        toml
    }

    /// What becomes of a change in LDIF that the service account asks for itself.
    pub(crate) fn ldapmodify_as_service(&self, ldif: &str) -> Result<(), String> {
        let service = self.directory();
        let password = service.bind_password.expose();
        ldif::apply(&mut self.client("ldapmodify", &service.bind_dn, password), ldif)
    }

    /// Where a search of the whole domain for an account is referred to, for whoever does
    /// not say that the rest is of no interest; asked as the service account.
    pub(crate) fn referrals(&self, account: &str) -> Vec<String> {
        let service = self.directory();
        let password = service.bind_password.expose();
        let mut command = self.client("ldapsearch", &service.bind_dn, password);
        let filter = format!("(sAMAccountName={account})");
        command.args(["-LLL", "-o", "ldif-wrap=no", "-b", &service.base_dn, &filter, "1.1"]);
        let output = command.output().expect("ldap-utils is installed (.ci/setup)");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().filter_map(|line| line.strip_prefix("# ref")).map(str::to_owned).collect()
    }

    /// How many wrong passwords the directory holds against an account.
    pub(crate) fn bad_password_count(&self, account: &str) -> usize {
        let service = format!("CN=bindgate,OU=people,{BASE}");
        let mut command = self.client("ldapsearch", &service, "service secret");
        let filter = format!("(sAMAccountName={account})");
        command.args(["-LLL", "-b", &format!("OU=people,{BASE}"), &filter, "badPwdCount"]);
        let output = command.output().expect("ldap-utils is installed (.ci/setup)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = text.lines().find_map(|line| line.strip_prefix("badPwdCount: "));
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// Whether the person can log in at the directory itself.
    pub(crate) fn may_bind(&self, account: &str) -> bool {
        let dn = format!("CN={account},OU=people,{BASE}");
        let mut command = self.client("ldapsearch", &dn, "correct horse battery");
        command.args(["-b", "", "-s", "base"]);
        command.output().expect("ldap-utils is installed (.ci/setup)").status.success()
    }

    fn client(&self, program: &str, dn: &str, password: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LDAPTLS_CACERT", self.path("ca.pem"))
            .args(["-x", "-H", &format!("ldaps://{}:{PORT}", self.address)])
            .args(["-D", dn, "-w", password]);
        command
    }

    /// Applies the changes of an LDIF text.
    pub(crate) fn ldapmodify(&self, ldif: &str) {
        let applied = ldif::apply(&mut self.administrator("ldapmodify"), ldif);
        assert_eq!(applied, Ok(()), "{ldif}");
    }

    /// A policy that locks one account, at this wrong password within half an hour.
    pub(crate) fn add_fine_grained_policy(&self, name: &str, account: &str, threshold: u32) {
        let half_an_hour = "-18000000000";
        self.ldapmodify(&format!(
            "dn: CN={name},{POLICIES},{BASE}\nchangetype: add\n\
             objectClass: msDS-PasswordSettings\nmsDS-PasswordSettingsPrecedence: 1\n\
             msDS-PasswordReversibleEncryptionEnabled: FALSE\nmsDS-PasswordHistoryLength: 0\n\
             msDS-PasswordComplexityEnabled: FALSE\nmsDS-MinimumPasswordLength: 1\n\
             msDS-MinimumPasswordAge: 0\nmsDS-MaximumPasswordAge: -36288000000000\n\
             msDS-LockoutThreshold: {threshold}\n\
             msDS-LockoutObservationWindow: {half_an_hour}\n\
             msDS-LockoutDuration: {half_an_hour}\n\
             msDS-PSOAppliesTo: CN={account},OU=people,{BASE}\n"
        ));
    }

    /// Lets the service account read the fine-grained policies, as docs/directories.md
    /// says.
    pub(crate) fn let_policies_be_read(&self) {
        let policies = format!("{POLICIES},{BASE}");
        self.set_right(("allow", &policies), "A;CI;LCRPLORC;;");
    }

    /// Keeps from the service account which groups this account is in.
    pub(crate) fn hide_groups_of(&self, account: &str) {
        let dn = format!("CN={account},OU=people,{BASE}");
        self.set_right(("deny", &dn), &format!("OD;;RP;{TOKEN_GROUPS};"));
    }

    /// A right of the service account at an entry, in the words of SDDL.
    fn set_right(&self, (action, dn): (&str, &str), right: &str) {
        let database = self.path("dc/private/sam.ldb");
        let tool = |arguments: &[&str]| {
            let mut command = Command::new("samba-tool");
            command.args(arguments).arg("-s").arg(self.path("smb.conf"));
            self.run(command.arg("-H").arg(&database))
        };
        let shown = tool(&["user", "show", "bindgate", "--attributes=objectSid"]);
        let sid = shown.lines().find_map(|line| line.strip_prefix("objectSid: "));
        let right = format!("--sddl=({right};{})", sid.expect("a SID"));
        let (action, dn) = (format!("--action={action}"), format!("--objectdn={dn}"));
        tool(&["dsacl", "set", &action, &dn, &right]);
    }

    /// The DN of an account as an LDIF text may name it.
    pub(crate) fn dn_of(&self, account: &str) -> String {
        let mut command = self.administrator("ldapsearch");
        command.args(["-LLL", "-o", "ldif-wrap=no", "-b", &format!("OU=people,{BASE}")]);
        let output = command.args([&format!("(sAMAccountName={account})"), "1.1"]).output();
        let text = String::from_utf8(output.expect("ldap-utils").stdout).expect("UTF-8");
        let dn = text.lines().find_map(|line| line.strip_prefix("dn: "));
        dn.unwrap_or_else(|| panic!("no DN: {text}")).to_owned()
    }

    fn administrator(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LDAPTLS_CACERT", self.path("ca.pem"))
            .args(["-x", "-H", &format!("ldaps://{}", self.address)])
            .args(["-D", "administrator@ad.example.test", "-w", ADMINISTRATOR_PASSWORD])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn provision(&self) {
        let mut command = Command::new("samba-tool");
        command.args(["domain", "provision", "--realm", REALM, "--domain=ADTEST"]);
        command.args(["--server-role=dc", "--dns-backend=NONE", "--host-name=dc1"]);
        command.arg(format!("--host-ip={}", self.address));
        command.arg(format!("--adminpass={ADMINISTRATOR_PASSWORD}"));
        command.arg(format!("--targetdir={}", self.path("dc").display()));
        self.run(&mut command);
    }

    fn configuration(&self, realm: &str, strong: &str) -> String {
        let (directory, address) = (self.directory.path().display(), self.address);
        format!(
            "[global]
netbios name = DC1
realm = {realm}
workgroup = ADTEST
server role = active directory domain controller
server services = ldap
private dir = {directory}/dc/private
state directory = {directory}/dc/state
cache directory = {directory}/dc/cache
lock directory = {directory}/dc
pid directory = {directory}/dc
ncalrpc dir = {directory}/dc/ncalrpc
binddns dir = {directory}/dc/bind-dns
log file = {directory}/samba.log
interfaces = {address}/8
bind interfaces only = yes
old password allowed period = 0
ldap server require strong auth = {strong}
tls enabled = yes
tls certfile = {directory}/server.pem
tls keyfile = {directory}/server.key
tls cafile = {directory}/ca.pem
"
        )
    }

    fn launch(&mut self) {
        let output = fs::File::create(self.path("samba.out")).expect("samba.out");
        // One process, so that nothing is left when it is ended.
        let mut process = Command::new("samba")
            .args(["--foreground", "--no-process-group", "--model=single", "-s"])
            .arg(self.path("smb.conf"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("samba is installed (.ci/setup)");
        for _ in 0..START_ATTEMPTS {
            if TcpStream::connect((self.address, PORT)).is_ok() {
                self.process = Some(process);
                return;
            }
            assert!(process.try_wait().expect("can be awaited").is_none(), "{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
        process.kill().expect("samba can be killed");
        process.wait().expect("samba can be awaited");
        panic!("samba did not start: {}", self.log());
    }

    /// Runs it to its good end; what it said.
    fn run(&self, command: &mut Command) -> String {
        let output = command.output().expect("samba is installed (.ci/setup)");
        assert!(
            output.status.success(),
            "{command:?} in {}: {}{}",
            self.directory.path().display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        read("samba.out") + &read("samba.log")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(name)
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// A loopback address that no other server has, of this test program or another.
fn own_address() -> Ipv4Addr {
    static STARTED: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let started = STARTED.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, 88 + started % 32, high, low)
}
