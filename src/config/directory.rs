//! `[directory]` and `[[directory.role]]`.

use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::kind::{self, Boolean, Choice, Whole};
use super::password_rules::PasswordRules;
use super::reader::{Presence, Reader};
use super::servers::{self, Discovery, LdapServer};
use super::users::UsersFile;
use super::{BreakGlass, pem};
use crate::dn::Dn;
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
    /// `[directory.break_glass]`, beside a server and only there.
    pub break_glass: Option<BreakGlass>,
    /// The servers, in the order of `urls`: the first that answers is asked.
    pub servers: Vec<LdapServer>,
    /// The domain whose servers DNS names; `servers` is empty then.
    pub discovery: Option<Discovery>,
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
    /// How often the accounts of live sessions are read again.
    pub recheck_interval: Duration,
    /// How long sessions go on beyond that while they cannot be read.
    pub recheck_grace: Duration,
    /// Most user binds at one time at one server, and most connections kept for them.
    pub bind_connections: usize,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Of how many login names the last searches are remembered.
    pub searches_ahead: usize,
    /// `[directory.password_rules]`: what a new password must be like.
    pub password_rules: PasswordRules,
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

/// One `[[directory.role]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleMapping {
    /// The role's name.
    pub name: Role,
    /// The DN of the group whose members have it; empty with users in a file.
    pub group: String,
}

impl Directory {
    /// How long a session goes on whose account cannot be read.
    #[must_use]
    pub const fn overdue_after(&self) -> Duration {
        self.recheck_interval.saturating_add(self.recheck_grace)
    }

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
        let users = read_users_file(r, &role_names(r));
        r.refuse_foreign("break_glass", "nothing: with kind = \"file\" no directory can be down");
        let password_checks = read_password_checks(r);
        let timeout = read_timeout(r);
        let (recheck_interval, recheck_grace) = read_recheck(r);
        Some(Self {
            kind: DirectoryKind::File,
            users: Some(users?),
            password_checks,
            break_glass: None,
            servers: Vec::new(),
            discovery: None,
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
            recheck_interval,
            recheck_grace,
            bind_connections: 0,
            idle_timeout: Duration::ZERO,
            searches_ahead: 0,
            password_rules: PasswordRules::default(),
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
        let servers = servers::read(r, is_active);
        let authorities = read_authorities(r);
        let dn = kind::distinguished_name;
        let (bind_dn, bind_password) = read_service_account(r);
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
        let (recheck_interval, recheck_grace) = read_recheck(r);
        let (bind_connections, idle_timeout) = servers::read_connections(r);
        let searches_ahead = servers::read_searches_ahead(r);
        refuse_users_file(r);
        let password_checks = read_password_checks(r);
        let roles = read_roles(r, false);
        let doc = "What a new password must be like, beside what the directory itself asks.";
        let password_rules =
            r.section("password_rules", Presence::Optional, doc, PasswordRules::read);
        let break_glass = read_break_glass(r);
        // What comes after may hold when an earlier key is wrong, so `?` waits until here.
        let (kind, servers) = (kind?, servers?);
        let group_base_dn = if is_active { String::new() } else { group_base_dn? };
        Some(Self {
            kind,
            users: None,
            password_checks,
            break_glass: break_glass?,
            servers: servers.0,
            discovery: servers.1,
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
            recheck_interval,
            recheck_grace,
            bind_connections,
            idle_timeout,
            searches_ahead,
            password_rules: password_rules?,
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

fn read_recheck(r: &mut Reader<'_>) -> (Duration, Duration) {
    let interval = r.or(
        "recheck_interval",
        kind::seconds(),
        Duration::from_mins(5),
        "How often the accounts of live sessions are read again; whose account is gone, closed \
         or in another role is logged out.",
    );
    let grace = r.or(
        "recheck_grace",
        kind::duration(true),
        Duration::from_hours(1),
        "How much longer than recheck_interval sessions go on while the directory cannot be asked.",
    );
    (interval, grace)
}

/// What only a server has.
const SERVER_KEYS: [&str; 18] = [
    "urls",
    "dns_servers",
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
    "searches_ahead",
    "password_rules",
];

fn read_users_file(r: &mut Reader<'_>, roles: &[Role]) -> Option<UsersFile> {
    let doc = "The users and the hashes of their passwords, in TOML; required with kind = \"file\", \
               and only there. Read again by itself when it changes.";
    r.users_file("users_file", (roles, false), doc)
}

/// The accounts; `None` inside when there are none.
#[expect(clippy::option_option, reason = "wrong is not the same as left out")]
fn read_break_glass(r: &mut Reader<'_>) -> Option<Option<BreakGlass>> {
    let doc = "Accounts that work only while the directory is down; left out, there are none.";
    let (given, roles) = (r.given("break_glass"), role_names(r));
    let read = r.switch("break_glass", doc, |r| BreakGlass::read(r, &roles)).flatten();
    if given { read.map(Some) } else { Some(None) }
}

/// The names of the roles as they stand in the file, also beside what is wrong.
fn role_names(r: &Reader<'_>) -> Vec<Role> {
    r.texts("role", "name").into_iter().flatten().map(|name| Role::new(&name)).collect()
}

fn read_password_checks(r: &mut Reader<'_>) -> usize {
    r.or(
        "password_checks",
        Whole { min: 1, max: 256 },
        4,
        "How many passwords are compared with hashes of a users file, or judged as new ones, at a \
         time; each comparison takes the memory that its hash says, 19 MiB or more.",
    )
}

/// Only described beside a server.
fn refuse_users_file(r: &mut Reader<'_>) {
    if r.is_describing() {
        read_users_file(r, &[]);
    } else {
        r.refuse_foreign("users_file", "nothing: only kind = \"file\" has users in a file");
    }
}

fn read_service_account(r: &mut Reader<'_>) -> (Option<String>, Option<Secret<String>>) {
    let dn = kind::distinguished_name();
    let bind_dn = r.required_here("bind_dn", dn, "The service account; not for a file.");
    let bind_password = r.secret(
        "bind_password",
        "bind_password_file",
        "The service account's password; not for a file.",
    );
    (bind_dn, bind_password)
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
        let same = |earlier: &&RoleMapping| Dn::parse(&earlier.group) == Dn::parse(&row.group);
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
