//! The directory as the login sees it, against a real OpenLDAP server and hostile ones.

use bindgate::config::LdapTransport;

use crate::support::slapd::{
    FILTER_CHARACTERS, PASSWORD, PEOPLE_WITH_ROLES, PEOPLE_WITHOUT_ROLE, Slapd,
};

#[test]
fn a_real_server_starts_stops_and_resumes() {
    let mut slapd = Slapd::start();
    assert_eq!(slapd.failed_binds("uid=alice,ou=people,dc=example,dc=org"), 0);
    slapd.ldapmodify("dn: uid=alice,ou=people,dc=example,dc=org\nchangetype: modify\nadd: description\ndescription: x\n");
    slapd.stop();
    slapd.resume();
    for transport in [LdapTransport::Tls, LdapTransport::StartTls] {
        assert!(slapd.toml(transport).contains(&slapd.port(transport).to_string()));
        assert_eq!(slapd.directory(transport).roles.len(), 3);
    }
    assert!(!PASSWORD.is_empty() && !FILTER_CHARACTERS.is_empty());
    assert!(PEOPLE_WITH_ROLES.len() > PEOPLE_WITHOUT_ROLE.len());
}
