//! A login at the directory: against a real OpenLDAP server, and against servers
//! that are down, silent, broken or hostile.

mod ahead;
mod connections;
mod discovery;
mod failover;
mod hostile;
mod outage;

use std::time::Duration;

use bindgate::ambient::Entropy;
use bindgate::config;
use bindgate::config::LdapTransport;
use bindgate::directory::{Bar, Change, Directory, DirectoryError, Person, Rejection, VerifyError};
use bindgate::identity::Credentials;
use bindgate::metrics::Metrics;
use bindgate::secret::Secret;

use crate::support::slapd::{
    FILTER_CHARACTERS, PASSWORD, PEOPLE_WITH_ROLES, PEOPLE_WITHOUT_ROLE, ROLES, Slapd,
};

/// Longer than any wait in these tests, shorter than a hang.
const PATIENCE: Duration = Duration::from_secs(20);
const TRANSPORTS: [LdapTransport; 2] = [LdapTransport::Tls, LdapTransport::StartTls];

fn directory(config: &config::Directory) -> Directory {
    let metrics = Metrics::new().expect("metrics");
    Directory::new(config, &metrics, &Entropy::system()).expect("a valid configuration")
}

async fn login(directory: &Directory, name: &str, password: &str) -> Result<Person, VerifyError> {
    let password = Secret::new(password.to_owned());
    let credentials = Credentials::parse(name.to_owned(), password).expect("possible credentials");
    directory.verify(&credentials).await
}

/// The rejection, or the whole outcome as text when it is another.
fn rejection(outcome: Result<Person, VerifyError>) -> Result<Rejection, String> {
    match outcome {
        Err(VerifyError::Rejected(rejection)) => Ok(rejection),
        other => Err(format!("{other:?}")),
    }
}

fn dn(uid: &str) -> String {
    format!("uid={uid},ou=people,dc=example,dc=org")
}

#[tokio::test]
async fn everybody_gets_exactly_their_role_over_ldaps_and_start_tls() {
    let slapd = Slapd::start();
    for transport in TRANSPORTS {
        let directory = directory(&slapd.directory(transport));
        for (name, role) in PEOPLE_WITH_ROLES {
            let person = login(&directory, name, PASSWORD).await.expect(name);
            assert_eq!((person.subject.as_str(), person.role.as_str()), (name, role));
        }
        for name in PEOPLE_WITHOUT_ROLE {
            let Err(VerifyError::NoRole { account, subject }) =
                login(&directory, name, PASSWORD).await
            else {
                panic!("{name} has a role")
            };
            assert_eq!((account, subject.as_str()), (dn(name), name));
        }
        assert!(directory.is_up());
    }
}

#[tokio::test]
async fn every_spelling_of_a_name_is_one_account_and_one_subject() {
    let slapd = Slapd::start();
    let directory = directory(&slapd.directory(LdapTransport::Tls));
    for name in ["alice", "ALICE", "  Alice "] {
        let person = login(&directory, name, PASSWORD).await.expect(name);
        assert_eq!((person.subject.as_str(), person.account), ("alice", dn("alice")));
    }
    let person = login(&directory, "ZOË", PASSWORD).await.expect("folded beyond ASCII");
    assert_eq!(person.subject.as_str(), "zoë");
    let person = login(&directory, "obrien", PASSWORD).await.expect("a name full of escapes");
    let account =
        r"cn=\23o'brien\2c pat \22p\2bq\22 \3ca\3bb\3e \5c\3dc,ou=people,dc=example,dc=org";
    assert_eq!(person.account, account);
}

#[tokio::test]
async fn a_wrong_password_is_bound_exactly_once() {
    let slapd = Slapd::start();
    let directory = directory(&slapd.directory(LdapTransport::Tls));
    for tries in 1..=3 {
        let outcome = login(&directory, "alice", "wrong").await;
        assert_eq!(rejection(outcome), Ok(Rejection::WrongPassword));
        assert_eq!(slapd.failed_binds(&dn("alice")), tries);
    }
    login(&directory, "alice", PASSWORD).await.expect("right again");
    assert_eq!(slapd.failed_binds(&dn("alice")), 0);
}

#[tokio::test]
async fn a_name_is_never_more_than_a_value() {
    let slapd = Slapd::start();
    let directory = directory(&slapd.directory(LdapTransport::Tls));
    let long = "x".repeat(256);
    for name in ["nobody", "*", "ali*", "alice)(uid=*", "*)(|(uid=*", "alice\\", "\\2a", &long] {
        assert_eq!(
            rejection(login(&directory, name, PASSWORD).await),
            Ok(Rejection::NoSuchUser),
            "{name}"
        );
    }
    let outcome = login(&directory, FILTER_CHARACTERS, PASSWORD).await;
    assert!(
        matches!(&outcome, Err(VerifyError::NoRole { subject, .. }) if subject.as_str() == FILTER_CHARACTERS),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_name_of_two_entries_is_neither() {
    let slapd = Slapd::start();
    let directory = directory(&slapd.directory(LdapTransport::Tls));
    for password in [PASSWORD, "wrong"] {
        assert_eq!(rejection(login(&directory, "twin", password).await), Ok(Rejection::Ambiguous));
    }
    assert_eq!(slapd.failed_binds("uid=twin,ou=north,ou=people,dc=example,dc=org"), 0);
}

#[tokio::test]
async fn the_account_state_is_told_only_to_the_right_password() {
    let slapd = Slapd::start();
    let directory = directory(&slapd.directory(LdapTransport::StartTls));
    for (name, change) in [("reset", Change::AfterReset), ("expired", Change::Expired)] {
        let outcome = login(&directory, name, PASSWORD).await;
        assert!(
            matches!(outcome, Err(VerifyError::MustChange(told)) if told == change),
            "{name}: {outcome:?}"
        );
        let outcome = login(&directory, name, "wrong").await;
        assert_eq!(rejection(outcome), Ok(Rejection::WrongPassword), "{name}");
    }
    for password in [PASSWORD, "wrong"] {
        let outcome = login(&directory, "locked", password).await;
        assert_eq!(rejection(outcome), Ok(Rejection::Locked));
    }
    // Five grace logins are left; each login eats exactly one.
    for _ in 0..5 {
        let outcome = login(&directory, "grace", PASSWORD).await;
        assert!(matches!(outcome, Err(VerifyError::NoRole { .. })), "{outcome:?}");
    }
    let outcome = login(&directory, "grace", PASSWORD).await;
    assert!(matches!(outcome, Err(VerifyError::MustChange(Change::Expired))), "{outcome:?}");
    // None of it clings to a connection that the next login uses.
    login(&directory, "alice", PASSWORD).await.expect("an ordinary account");
}

#[tokio::test]
async fn a_subject_is_one_value_of_the_entry_or_the_account_is_unavailable() {
    let slapd = Slapd::start();
    let mut config = slapd.directory(LdapTransport::Tls);
    config.subject_attribute = "MAIL".to_owned();
    let by_mail = directory(&config);
    let person = login(&by_mail, "alice", PASSWORD).await.expect("one mail address");
    assert_eq!(person.subject.as_str(), "alice@example.org");
    for name in ["obrien", "sam"] {
        let outcome = login(&by_mail, name, PASSWORD).await;
        assert!(
            matches!(outcome, Err(VerifyError::AccountUnavailable(Bar::NoSubject))),
            "{name}: {outcome:?}"
        );
        let outcome = login(&by_mail, name, "wrong").await;
        assert_eq!(rejection(outcome), Ok(Rejection::WrongPassword));
    }
    config.subject_attribute = "entryUUID".to_owned();
    let person = login(&directory(&config), "alice", PASSWORD).await.expect("an operational one");
    assert_eq!(person.subject.as_str().len(), 36);
}

#[tokio::test]
async fn without_nesting_only_direct_groups_count() {
    let slapd = Slapd::start();
    let mut config = slapd.directory(LdapTransport::Tls);
    config.nested_groups = false;
    let directory = directory(&config);
    assert_eq!(
        login(&directory, "sam", PASSWORD).await.expect("direct").role.as_str(),
        "super_admin"
    );
    for name in ["nina", "lola", "uma"] {
        let outcome = login(&directory, name, PASSWORD).await;
        assert!(matches!(outcome, Err(VerifyError::NoRole { .. })), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_group_left_or_joined_counts_at_the_next_login() {
    let slapd = Slapd::start();
    let directory = directory(&slapd.directory(LdapTransport::Tls));
    let role = async || login(&directory, "both", PASSWORD).await.expect("a role").role;
    let change = |what: &str| {
        slapd.ldapmodify(&format!(
            "dn: {}\nchangetype: modify\n{what}: member\nmember: {}\n",
            ROLES[0].1,
            dn("both")
        ));
    };
    assert_eq!(role().await.as_str(), "super_admin");
    change("delete");
    assert_eq!(role().await.as_str(), "contact_tracer");
    change("add");
    assert_eq!(role().await.as_str(), "super_admin");
}

#[tokio::test]
async fn a_service_account_that_is_refused_is_not_tried_again_at_once() {
    let slapd = Slapd::start();
    let mut config = slapd.directory(LdapTransport::Tls);
    config.bind_password = Secret::new("wrong".to_owned());
    let directory = directory(&config);
    for _ in 0..3 {
        let outcome = login(&directory, "alice", PASSWORD).await;
        assert!(
            matches!(
                outcome,
                Err(VerifyError::Unavailable(DirectoryError::ServiceBind { code: 49 }))
            ),
            "{outcome:?}"
        );
    }
    assert_eq!(slapd.failed_binds(&config.bind_dn), 1);
}

#[tokio::test]
async fn many_logins_at_once_are_each_answered_for_themselves() {
    let slapd = Slapd::start();
    let directory = std::sync::Arc::new(directory(&slapd.directory(LdapTransport::Tls)));
    let mut logins = tokio::task::JoinSet::new();
    for number in 0..200 {
        let directory = std::sync::Arc::clone(&directory);
        let (name, role) = PEOPLE_WITH_ROLES[number % PEOPLE_WITH_ROLES.len()];
        logins.spawn(async move {
            if number % 5 == 4 {
                let outcome = login(&directory, name, "wrong").await;
                assert_eq!(rejection(outcome), Ok(Rejection::WrongPassword));
            } else {
                let person = login(&directory, name, PASSWORD).await.expect(name);
                assert_eq!((person.subject.as_str(), person.role.as_str()), (name, role));
            }
        });
    }
    while let Some(outcome) = logins.join_next().await {
        outcome.expect("each is right");
    }
}
