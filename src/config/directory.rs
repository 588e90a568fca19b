//! `[directory]` and `[[directory.role]]`.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::kind::{self, Boolean, Choice, DirectoryUrl, List, Whole};
use super::pem;
use super::reader::Reader;
use super::users::UsersFile;
use crate::identity::Role;
use crate::secret::Secret;

/// `[directory]`. What only a server has is empty with users in a file.
#[derive(Clone, Debug)]
pub struct Directory {
    /// What kind of directory it is.
    pub kind: DirectoryKind,
    /// The users, with kind `File` and only then.
    pub users: Option<UsersFile>,
    /// How many passwords are compared with hashes of our own at a time.
    pub password_checks: usize,
    /// The servers, in the order of `urls`: the first that answers is asked.
    pub servers: Vec<LdapServer>,
    /// Authorities of `ca_file`; `None` means those of the operating system.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// The service account.
    pub bind_dn: String,
    /// Its password.
    pub bind_password: Secret<String>,
    /// Below which users are searched.
    pub base_dn: String,
    /// The attribute that the login name is compared with; not in Active Directory.
    pub user_attribute: String,
    /// An RFC 4515 filter and-ed with the comparison; parsed and known to be valid.
    pub user_filter: Option<String>,
    /// The attribute that becomes `sub`.
    pub subject_attribute: String,
    /// Below which groups are searched; not in Active Directory.
    pub group_base_dn: String,
    /// Whether groups of groups count; in Active Directory they always do.
    pub nested_groups: bool,
    /// Deadline of a whole login at the directory.
    pub timeout: Duration,
    /// Most user binds at one time at one server, and most connections kept for them.
    pub bind_connections: usize,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// The attributes that claims ask for, each once; no key of its own.
    pub attributes: Vec<String>,
    /// `[[directory.role]]`, in order; the first match from the top wins.
    pub roles: Vec<RoleMapping>,
}

/// What kind of directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryKind {
    /// LDAP with groups that name their members: OpenLDAP, 389-ds and others.
    Ldap,
    /// Active Directory, or Samba as one.
    ActiveDirectory,
    /// Users in a file; there is no server.
    File,
}

/// One server of `directory.urls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapServer {
    /// Host name or address, as in the URL, without brackets.
    pub host: String,
    /// The port; 636 or 389 when the URL names none.
    pub port: u16,
    /// How the connection is protected.
    pub transport: LdapTransport,
}

impl LdapServer {
    fn is_in_clear(&self) -> bool {
        self.transport == LdapTransport::Plaintext
    }
}

/// How the connection to a directory is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LdapTransport {
    /// `ldaps://`: TLS from the first byte.
    Tls,
    /// `ldap://` with `start_tls`.
    StartTls,
    /// `ldap://` on loopback with `allow_plaintext`.
    Plaintext,
}

/// One `[[directory.role]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleMapping {
    /// The role's name.
    pub name: Role,
    /// The DN of the group whose members have it; empty with users in a file.
    pub group: String,
}

impl Directory {
    /// Reads `[directory]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let kind = r.required("kind", KIND, "What kind of directory it is.");
        if kind == Some(DirectoryKind::File) {
            Self::read_file(r)
        } else {
            Self::read_ldap(r, kind)
        }
    }

    /// Reads the keys of users in a file.
    fn read_file(r: &mut Reader<'_>) -> Option<Self> {
        for key in SERVER_KEYS {
            r.refuse_foreign(key, "nothing: with kind = \"file\" people are in users_file alone");
        }
        let roles = read_roles(r, true);
        let names = r.texts("role", "name").into_iter().flatten().map(|name| Role::new(&name));
        let users = read_users_file(r, &names.collect::<Vec<_>>());
        let password_checks = read_password_checks(r);
        let timeout = read_timeout(r);
        refuse_unbuilt_keys(r);
        Some(Self {
            kind: DirectoryKind::File,
            users: Some(users?),
            password_checks,
            servers: Vec::new(),
            authorities: None,
            bind_dn: String::new(),
            bind_password: Secret::new(String::new()),
            base_dn: String::new(),
            user_attribute: String::new(),
            user_filter: None,
            subject_attribute: String::new(),
            group_base_dn: String::new(),
            nested_groups: false,
            timeout,
            bind_connections: 0,
            idle_timeout: Duration::ZERO,
            attributes: Vec::new(),
            roles: roles?,
        })
    }

    /// Reads the keys of a server; also all keys there are, when they are described.
    fn read_ldap(r: &mut Reader<'_>, kind: Option<DirectoryKind>) -> Option<Self> {
        let is_active = kind == Some(DirectoryKind::ActiveDirectory);
        if is_active {
            refuse_keys_of_other_directories(r);
        }
        let servers = read_servers(r);
        let authorities = read_authorities(r);
        let dn = kind::distinguished_name;
        let bind_dn = r.required_here("bind_dn", dn(), "The service account; not for a file.");
        let bind_password = r.secret(
            "bind_password",
            "bind_password_file",
            "The service account's password; not for a file.",
        );
        let base_dn = r.required_here(
            "base_dn",
            dn(),
            "Below which entry users are searched; not for a file.",
        );
        let user_attribute = r.or(
            "user_attribute",
            kind::attribute(),
            "uid".to_owned(),
            "The attribute that the login name is compared with; not for Active Directory.",
        );
        let user_filter =
            r.optional("user_filter", kind::filter(), "A filter that users must match too.");
        let subject_attribute = read_subject_attribute(r, is_active);
        let group_base_dn = read_group_base(r, is_active);
        let nested_groups = r.or(
            "nested_groups",
            Boolean,
            true,
            "Whether members of a group's groups count; in Active Directory they always do.",
        );
        let timeout = read_timeout(r);
        let (bind_connections, idle_timeout) = read_connections(r);
        if r.is_describing() {
            read_users_file(r, &[]);
        } else {
            r.refuse_foreign("users_file", "nothing: only kind = \"file\" has users in a file");
        }
        let password_checks = read_password_checks(r);
        let roles = read_roles(r, false);
        refuse_unbuilt_keys(r);
        // What comes after may hold when an earlier key is wrong, so `?` waits until here.
        let kind = kind?;
        let group_base_dn = if is_active { String::new() } else { group_base_dn? };
        Some(Self {
            kind,
            users: None,
            password_checks,
            servers: servers?,
            authorities: authorities?,
            bind_dn: bind_dn?,
            bind_password: bind_password?,
            base_dn: base_dn?,
            user_attribute,
            user_filter,
            subject_attribute,
            group_base_dn,
            nested_groups,
            timeout,
            bind_connections,
            idle_timeout,
            attributes: Vec::new(),
            roles: roles?,
        })
    }
}

const KIND: Choice<DirectoryKind> = Choice {
    built: &[
        ("ldap", DirectoryKind::Ldap),
        ("active_directory", DirectoryKind::ActiveDirectory),
        ("file", DirectoryKind::File),
    ],
    unbuilt: &[],
};

/// What only a server has.
const SERVER_KEYS: [&str; 15] = [
    "urls",
    "start_tls",
    "allow_plaintext",
    "ca_file",
    "bind_dn",
    "bind_password",
    "bind_password_file",
    "base_dn",
    "user_attribute",
    "user_filter",
    "subject_attribute",
    "group_base_dn",
    "nested_groups",
    "bind_connections",
    "idle_timeout",
];

fn read_users_file(r: &mut Reader<'_>, roles: &[Role]) -> Option<UsersFile> {
    let doc = "The users and the hashes of their passwords, in TOML; required with kind = \"file\", \
               and only there. Read again by itself when it changes.";
    r.users_file("users_file", roles, doc)
}

fn read_password_checks(r: &mut Reader<'_>) -> usize {
    r.or(
        "password_checks",
        Whole { min: 1, max: 256 },
        4,
        "How many passwords are compared with hashes of a users file at a time; each takes the \
         memory that its hash says, 19 MiB or more.",
    )
}

fn read_timeout(r: &mut Reader<'_>) -> Duration {
    r.or(
        "timeout",
        kind::duration(false),
        Duration::from_secs(5),
        "How long the directory may take for a whole login.",
    )
}

fn read_subject_attribute(r: &mut Reader<'_>, is_active: bool) -> String {
    let named = r.or(
        "subject_attribute",
        kind::attribute(),
        "uid".to_owned(),
        "The attribute that becomes the token's sub and the header of headers.user; in \
         Active Directory objectGUID unless it is named.",
    );
    if is_active && !r.given("subject_attribute") { "objectGUID".to_owned() } else { named }
}

fn read_group_base(r: &mut Reader<'_>, is_active: bool) -> Option<String> {
    let base = r.optional(
        "group_base_dn",
        kind::distinguished_name(),
        "Below which entry groups are searched; required, but not for Active Directory.",
    );
    if !is_active && r.is_missing("group_base_dn") {
        r.problem("group_base_dn", "nothing", kind::distinguished_name().allowed.to_owned());
    }
    base
}

/// Active Directory has its own login names, and counts groups itself.
fn refuse_keys_of_other_directories(r: &mut Reader<'_>) {
    for (key, allowed) in [
        ("user_attribute", "nothing: Active Directory finds people by its own login names"),
        ("group_base_dn", "nothing: Active Directory counts the groups itself, wherever they are"),
        ("nested_groups", "nothing: Active Directory counts nested groups always"),
    ] {
        if r.given(key) {
            r.problem(key, "a value", allowed.to_owned());
        }
    }
}

fn refuse_unbuilt_keys(r: &mut Reader<'_>) {
    r.unbuilt("recheck_interval", "asking the directory again during a session");
    r.unbuilt("recheck_grace", "asking the directory again during a session");
    r.unbuilt("password_rules", "changing passwords");
    r.unbuilt("break_glass", "emergency accounts");
}

fn read_servers(r: &mut Reader<'_>) -> Option<Vec<LdapServer>> {
    let urls = r.required_here(
        "urls",
        List { of: kind::directory_url(), min: 1 },
        "The servers, in order: the first that answers is asked. Not for a file.",
    );
    let start_tls =
        r.or("start_tls", Boolean, false, "Whether ldap:// connections are upgraded to TLS.");
    let allow_plaintext = r.or(
        "allow_plaintext",
        Boolean,
        false,
        "Whether passwords may cross ldap:// without TLS; on loopback only.",
    );
    let urls = urls?;
    let mut servers = Vec::new();
    for DirectoryUrl { tls, host, port } in urls {
        let transport = match (tls, start_tls) {
            (true, true) => {
                r.problem("start_tls", "true", "false with ldaps://, which is TLS".to_owned());
                return None;
            }
            (true, false) => LdapTransport::Tls,
            (false, true) => LdapTransport::StartTls,
            (false, false) if allow_plaintext && is_loopback(&host) => {
                if !servers.iter().any(LdapServer::is_in_clear) {
                    r.note("allow_plaintext", "passwords cross this machine's loopback in clear");
                }
                LdapTransport::Plaintext
            }
            (false, false) => {
                let allowed = "ldaps://, start_tls = true, or a loopback address with \
                               allow_plaintext = true";
                r.problem("urls", "ldap:// without TLS", allowed.to_owned());
                return None;
            }
        };
        let server = LdapServer { host, port, transport };
        if servers.contains(&server) {
            let found = format!("{}:{} twice", server.host, server.port);
            r.problem("urls", found, "each server once".to_owned());
            return None;
        }
        servers.push(server);
    }
    Some(servers)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The authorities; `None` inside when those of the operating system count.
#[expect(clippy::option_option, reason = "wrong is not the same as left out")]
fn read_authorities(r: &mut Reader<'_>) -> Option<Option<Vec<CertificateDer<'static>>>> {
    let file = r.optional(
        "ca_file",
        kind::file(),
        "Authorities (PEM) that the directory's certificate must come from; the operating \
         system's if there is none.",
    );
    match (r.given("ca_file"), file) {
        (false, _) => Some(None),
        (true, file) => pem::authorities(r, "ca_file", &file?).map(Some),
    }
}

fn read_connections(r: &mut Reader<'_>) -> (usize, Duration) {
    let bind_connections = r.or(
        "bind_connections",
        Whole { min: 1, max: 1000 },
        32,
        "The most passwords that one server checks for us at a time, each on a connection of \
         its own; further logins wait.",
    );
    let idle_timeout = r.or(
        "idle_timeout",
        kind::duration(false),
        Duration::from_secs(30),
        "How long an unused connection is kept; stay below the server's own limit.",
    );
    (bind_connections, idle_timeout)
}

fn read_roles(r: &mut Reader<'_>, in_file: bool) -> Option<Vec<RoleMapping>> {
    let doc = "The roles, in order: the first that the user has is the user's.";
    let rows = r.tables("role", doc, |r| {
        let name = r.required("name", kind::role_name(), "The role's name.");
        if in_file {
            r.refuse_foreign("group", "nothing: with kind = \"file\" the users file names roles");
            return Some(RoleMapping { name: name?, group: String::new() });
        }
        let group = r.required_here(
            "group",
            kind::distinguished_name(),
            "The group whose members have it, by its distinguished name; not for a file.",
        );
        Some(RoleMapping { name: name?, group: group? })
    });
    if in_file {
        refuse_doubled_names(r, &rows);
        return rows.into_iter().collect();
    }
    for (index, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let same = |earlier: &&RoleMapping| earlier.group.eq_ignore_ascii_case(&row.group);
        // Only the first would ever be reached: the operator meant another group.
        if let Some(earlier) = rows[..index].iter().flatten().find(same) {
            let found = format!("the group of role {:?} again", earlier.name.as_str());
            r.problem_in(("role", index, "group"), found, "each group once".to_owned());
        }
    }
    rows.into_iter().collect()
}

/// Without groups, a name again could only be a mistake.
fn refuse_doubled_names(r: &mut Reader<'_>, rows: &[Option<RoleMapping>]) {
    for (index, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        if rows[..index].iter().flatten().any(|earlier| earlier.name == row.name) {
            let found = format!("{:?} again", row.name.as_str());
            r.problem_in(("role", index, "name"), found, "each name once".to_owned());
        }
    }
}
