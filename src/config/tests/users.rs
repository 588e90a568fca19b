//! `[directory]` with users in a file.

use std::time::Duration;

use super::{Folder, SMALL, only};
use crate::config::DirectoryKind;

const HASH: &str =
    "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

/// `SMALL` with these keys in `[directory]`, and a role.
fn with_directory(keys: &str) -> String {
    let (start, end) = (SMALL.find("[directory]").unwrap(), SMALL.find("[token]").unwrap());
    let role = "[[directory.role]]\nname = \"admin\"\n";
    format!("{}[directory]\nkind = \"file\"\n{keys}\n{role}{}", &SMALL[..start], &SMALL[end..])
}

fn folder() -> Folder {
    let folder = Folder::new();
    let users = format!(
        "[[user]]\nname = \"Alice\"\npassword_hash = \"{HASH}\"\nroles = [\"admin\"]\n\
         attributes = {{ mail = \"a@example.org\" }}\n\
         [[user]]\nname = \"bob\"\npassword_hash = \"{HASH}\"\ndisabled = true\n"
    );
    folder.write("users.toml", &users);
    folder
}

#[test]
fn users_of_a_file_are_read_with_the_configuration() {
    let folder = folder();
    let loaded = folder.load(&with_directory("users_file = \"users.toml\""), &[]).unwrap();
    let directory = loaded.config.directory.unwrap();
    assert_eq!(directory.kind, DirectoryKind::File);
    assert_eq!(directory.password_checks, 4);
    let file = directory.users.unwrap();
    assert_eq!(file.path, folder.path("users.toml"), "from the configuration's folder");
    assert_eq!(file.state, file.current_state());
    let [alice, bob] = &*file.users else { panic!("two users") };
    assert_eq!((alice.name.as_str(), alice.is_disabled), ("Alice", false));
    assert_eq!(alice.role.as_ref().unwrap().as_str(), "admin");
    assert_eq!(alice.attributes.values("mail"), ["a@example.org"]);
    assert!(bob.is_disabled && bob.role.is_none());
    assert!(!format!("{alice:?}").contains("argon2"), "no hash is printed");
}

#[test]
fn what_only_a_server_has_is_refused_by_name_with_a_file() {
    let folder = folder();
    for key in [
        "urls = [\"ldaps://ldap.example.org\"]",
        "start_tls = true",
        "allow_plaintext = true",
        "ca_file = \"tls.crt\"",
        "bind_dn = \"cn=x,dc=y\"",
        "bind_password = \"x\"",
        "bind_password_file = \"secret\"",
        "base_dn = \"dc=x\"",
        "user_attribute = \"uid\"",
        "user_filter = \"(a=b)\"",
        "subject_attribute = \"uid\"",
        "group_base_dn = \"dc=x\"",
        "nested_groups = true",
    ] {
        let name = key.split(' ').next().unwrap();
        let lines = folder.lines(&with_directory(&format!("users_file = \"users.toml\"\n{key}")));
        only(&lines, &[&format!("directory.{name}: found a value"), "kind = \"file\""]);
    }
    let grouped = with_directory("users_file = \"users.toml\"")
        .replace("name = \"admin\"\n", "name = \"admin\"\ngroup = \"cn=a,dc=x\"\n");
    only(&folder.lines(&grouped), &["directory.role.group in [[directory.role]] no. 1"]);
    only(&folder.lines(&with_directory("")), &["directory.users_file: found nothing"]);
    let server = super::with("[directory]", "users_file = \"users.toml\"");
    only(&folder.lines(&server), &["directory.users_file", "only kind = \"file\""]);
}

#[test]
fn roles_of_a_file_have_names_alone_each_once() {
    let folder = folder();
    let twice = with_directory("users_file = \"users.toml\"")
        .replace("[token]", "[[directory.role]]\nname = \"admin\"\n[token]");
    only(&folder.lines(&twice), &["directory.role.name in [[directory.role]] no. 2", "again"]);
    let other = with_directory("users_file = \"users.toml\"").replace("\"admin\"", "\"boss\"");
    only(&folder.lines(&other), &["users.toml: user.roles in [[user]] no. 1", "\"admin\"", "boss"]);
    let routed = with_directory("users_file = \"users.toml\"")
        .replace("access = \"authenticated\"", "roles = [\"boss\"]");
    only(&folder.lines(&routed), &["route.roles in [[route]] no. 1", "\"boss\"", "admin"]);
}

#[test]
fn a_users_file_that_cannot_be_read_is_said_with_its_name() {
    let folder = folder();
    let lines = folder.lines(&with_directory("users_file = \"missing.toml\""));
    only(&lines, &["missing.toml: found a file that cannot be read"]);
    folder.write("users.toml", "[[user]]\nname = \"a\"\n\nx y\n");
    let lines = folder.lines(&with_directory("users_file = \"users.toml\""));
    only(&lines, &["users.toml: found what is not TOML", "line 4"]);
}

#[test]
fn emergency_accounts_stand_beside_a_server_each_with_a_role() {
    let folder = folder();
    let user = |name: &str, roles: &str| {
        format!("[[user]]\nname = \"{name}\"\npassword_hash = \"{HASH}\"\nroles = [{roles}]\n")
    };
    folder.write("emergency.toml", &user("ops", "\"admin\""));
    let text = format!("{SMALL}\n[directory.break_glass]\nusers_file = \"emergency.toml\"\n");
    let loaded = folder.load(&text, &[]).unwrap();
    let break_glass = loaded.config.directory.unwrap().break_glass.unwrap();
    assert_eq!(break_glass.session_lifetime, Duration::from_mins(30));
    assert_eq!(break_glass.users.users.len(), 1);
    let notes = loaded.notes.join("\n");
    assert!(notes.contains("directory.break_glass: what emergency accounts do"), "{notes}");
    let long = format!("{text}session_lifetime = \"13h\"\n");
    let notes = folder.load(&long, &[]).unwrap().notes.join("\n");
    assert!(notes.contains("break_glass.session_lifetime: emergencies of more than"), "{notes}");

    folder.write("emergency.toml", &(user("ops", "\"admin\"") + &user("more", "")));
    only(&folder.lines(&text), &["emergency.toml: user.roles in [[user]] no. 2: found none"]);
    let empty = text.replace("users_file = \"emergency.toml\"\n", "");
    only(&folder.lines(&empty), &["directory.break_glass.users_file: found nothing"]);
    let text = with_directory("users_file = \"users.toml\"");
    let text = format!("{text}\n[directory.break_glass]\nusers_file = \"users.toml\"\n");
    only(&folder.lines(&text), &["directory.break_glass: found a value", "kind = \"file\""]);
}
