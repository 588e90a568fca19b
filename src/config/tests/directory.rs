//! What each key of `[directory]` takes and what it does not.

use super::{Folder, only, replaced, with};

#[test]
fn every_key_has_its_bounds() {
    let folder = Folder::new();
    for (line, words) in [
        ("timeout = \"0s\"", ["directory.timeout", "not zero"]),
        ("timeout = 5", ["directory.timeout", "a duration"]),
        ("recheck_interval = \"0s\"", ["directory.recheck_interval", "not zero"]),
        ("recheck_grace = \"-1s\"", ["directory.recheck_grace", "for none"]),
        ("idle_timeout = \"5ms\"", ["directory.idle_timeout", "whole seconds"]),
        ("bind_connections = 0", ["directory.bind_connections", "from 1 to 1000"]),
        ("bind_connections = 1001", ["directory.bind_connections", "from 1 to 1000"]),
        ("password_checks = 0", ["directory.password_checks", "from 1 to 256"]),
        ("nested_groups = \"yes\"", ["directory.nested_groups", "true or false"]),
        ("subject_attribute = \"u id\"", ["directory.subject_attribute", "an attribute's name"]),
        ("ca_file = 7", ["directory.ca_file", "a path"]),
        ("users_file = \"x\"", ["directory.users_file", "kind = \"file\""]),
        ("dns_servers = [\"dns.example.org\"]", ["directory.dns_servers", "an address"]),
    ] {
        only(&folder.lines(&with("[directory]", line)), &words);
    }
    for (old, new, words) in [
        ("= \"ou=people,", "= \"people,", ["directory.base_dn", "never a bare name"]),
        ("= \"cn=bindgate,", "= \"cn=#zz,", ["directory.bind_dn", "never a bare name"]),
        ("= \"ou=groups,", "= \"ou=\\u0000,", ["directory.group_base_dn", "never a bare name"]),
        ("= \"cn=admins,", "= \"2.05.4=admins,", ["directory.role.group", "never a bare name"]),
        ("[\"ldaps://dc1.example.org\"]", "[]", ["directory.urls", "not empty"]),
        ("ldaps://dc1.example.org", "ldaps://a..b", ["directory.urls", "ldaps://HOST"]),
        ("ldaps://dc1.example.org", "ldaps://a:99999", ["directory.urls", "ldaps://HOST"]),
        ("kind = \"ldap\"", "kind = \"openldap\"", ["directory.kind", "\"active_directory\""]),
    ] {
        only(&folder.lines(&replaced(old, new)), &words);
    }
}

#[test]
fn every_key_of_its_tables_has_its_bounds() {
    let folder = Folder::new();
    let with_table = |table: &str| replaced("[token]", &format!("{table}\n[token]"));
    for (line, words) in [
        ("length_min = 7", ["password_rules.length_min", "from 8 to 64"]),
        ("length_max = 257", ["password_rules.length_max", "from 64 to 256"]),
        ("score_min = 5", ["password_rules.score_min", "from 0 to 4"]),
        ("banned_list = 1", ["password_rules.banned_list", "true or false"]),
        ("length = 20", ["password_rules.length", "length_min, length_max"]),
    ] {
        let rules = format!("[directory.password_rules]\n{line}");
        only(&folder.lines(&with_table(&rules)), &words);
    }
    let emergency = "[directory.break_glass]\nsession_lifetime = \"500ms\"";
    let lines = folder.lines(&with_table(emergency));
    for words in ["break_glass.session_lifetime", "break_glass.users_file: found nothing"] {
        assert!(lines.iter().any(|line| line.contains(words)), "{lines:?}");
    }
}

#[test]
fn a_group_belongs_to_one_role_however_it_is_spelled() {
    let folder = Folder::new();
    let with_group = |group: &str| {
        let role = format!("[[directory.role]]\nname = \"other\"\ngroup = '{group}'");
        folder.lines(&replaced("[token]", &format!("{role}\n[token]")))
    };
    for group in [
        "cn=admins,ou=groups,dc=example,dc=org",
        "CN=Admins, OU=groups, DC=example, DC=org",
        r"2.5.4.3=\61dmins,ou=groups,dc=example,dc=org",
    ] {
        let words = ["directory.role.group in [[directory.role]] no. 2", "of role \"admin\" again"];
        only(&with_group(group), &words);
    }
    assert!(with_group("cn=admins,ou=others,dc=example,dc=org").is_empty());
}
