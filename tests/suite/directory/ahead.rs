//! What the last login of a name searched for is searched for ahead at the next one:
//! sooner, but anew.

use std::sync::Arc;

use bindgate::config::LdapTransport;
use bindgate::directory::VerifyError;

use super::{directory, login};
use crate::support::eventually;
use crate::support::relay::{Mood, Relay};
use crate::support::slapd::{PASSWORD, Slapd};

#[tokio::test]
async fn what_the_last_login_searched_for_is_sent_before_anything_is_answered() {
    let slapd = Slapd::start_telling();
    let server = ([127, 0, 0, 1], slapd.port(LdapTransport::Tls)).into();
    let relay = Relay::to(server).await;
    let mut config = slapd.directory(LdapTransport::Tls);
    config.servers[0].port = relay.address.port();
    let directory = Arc::new(directory(&config));
    let role =
        |person: Result<_, VerifyError>| person.map(|it: bindgate::directory::Person| it.role);
    let first = role(login(&directory, "nina", PASSWORD).await).expect("right");

    let (searches, binds) = (slapd.searches().len(), slapd.binds().len());
    relay.becomes(Mood::Mute);
    let next = Arc::clone(&directory);
    let next = tokio::spawn(async move { login(&next, "nina", PASSWORD).await });
    // The entry, and the groups above the person and above both groups that she is in.
    eventually("all four are sent", || (slapd.searches().len() == searches + 4).then_some(()))
        .await;
    assert_eq!(slapd.binds().len(), binds, "the password waits for the entry");
    relay.becomes(Mood::Well);
    assert_eq!(role(next.await.expect("no panic")).expect("right"), first);
    assert_eq!(slapd.searches().len(), searches + 4, "and none is sent twice");
    assert_eq!(slapd.binds().len(), binds + 1);
}

#[tokio::test]
async fn a_role_is_that_of_the_moment_whatever_was_searched_for_ahead() {
    let slapd = Slapd::start();
    let directory = directory(&slapd.directory(LdapTransport::Tls));
    let person = |uid: &str| format!("uid={uid},ou=people,dc=example,dc=org");
    let group = |name: &str| format!("cn={name},ou=groups,dc=example,dc=org");
    let member = |how: &str, member: &str, of: &str| {
        let of = group(of);
        format!("dn: {of}\nchangetype: modify\n{how}: member\nmember: {member}\n\n")
    };
    let nina = person("nina");
    let another = format!(
        "dn: cn=Nina,ou=people,dc=example,dc=org\nchangetype: add\nobjectClass: inetOrgPerson\n\
         cn: Nina\nsn: Nina\nuid: nina\nuserPassword: {PASSWORD}\n\n"
    );
    for (what, change, expected) in [
        ("as it is", member("add", &person("alice"), "region_north"), Some("contact_tracer")),
        ("a further group", member("add", &nina, "admins"), Some("admin")),
        ("it is left", member("delete", &nina, "admins"), Some("contact_tracer")),
        ("the group is left", member("delete", &nina, "region_north"), None),
        ("it is entered", member("add", &nina, "region_north"), Some("contact_tracer")),
        ("the groups part", member("delete", &group("region_north"), "contact_tracers"), None),
        ("others join", member("add", &group("region_north"), "admins"), Some("admin")),
        ("a step more", member("add", &group("admins"), "super_admins"), Some("super_admin")),
        (
            "it is somebody else of the name",
            format!("dn: {nina}\nchangetype: delete\n\n{another}"),
            None,
        ),
    ] {
        slapd.ldapmodify(&change);
        for time in 0..2 {
            match (login(&directory, "nina", PASSWORD).await, expected) {
                (Ok(person), Some(role)) => assert_eq!(person.role.as_str(), role, "{what} {time}"),
                (Err(VerifyError::NoRole { .. }), None) => {}
                (outcome, _) => panic!("{what} {time}: {outcome:?}"),
            }
        }
    }
}
