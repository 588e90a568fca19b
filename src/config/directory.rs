//! `[directory]` and `[[directory.role]]`.

use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::identity::Role;
use crate::secret::Secret;

/// `[directory]` of kind `ldap`.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The servers, in the order of `urls`; exactly one until failover is built.
    pub servers: Vec<LdapServer>,
    /// Authorities of `ca_file`; `None` means those of the operating system.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// The service account.
    pub bind_dn: String,
    /// Its password.
    pub bind_password: Secret<String>,
    /// Below which users are searched.
    pub base_dn: String,
    /// The attribute that the login name is compared with.
    pub user_attribute: String,
    /// An RFC 4515 filter and-ed with the comparison; parsed and known to be valid.
    pub user_filter: Option<String>,
    /// The attribute that becomes `sub`.
    pub subject_attribute: String,
    /// Below which groups are searched.
    pub group_base_dn: String,
    /// Whether groups of groups count.
    pub nested_groups: bool,
    /// Deadline of a whole login at the directory.
    pub timeout: Duration,
    /// `[[directory.role]]`, in order; the first match from the top wins.
    pub roles: Vec<RoleMapping>,
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
    /// The DN of the group whose members have it.
    pub group: String,
}
