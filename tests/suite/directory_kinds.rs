//! One table of logins, put to every kind of directory that we say we understand:
//! `OpenLDAP`, 389 Directory Server and Active Directory (Samba), each a real one.

mod answers;

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use bindgate::ambient::Entropy;
use bindgate::config;
use bindgate::config::{DirectoryKind, LdapTransport};
use bindgate::directory::{Directory, DirectoryError, Person, VerifyError};
use bindgate::identity::Credentials;
use bindgate::metrics::Metrics;
use bindgate::secret::Secret;

use self::answers::{Answered, expect_answers};
use crate::support::dirsrv::Dirsrv;
use crate::support::samba::{BASE, Samba};
use crate::support::slapd::{PASSWORD, Slapd};

const WRONG: &str = "wrong";
const NOBODY: &str = "rejected: no_such_user";
const WRONG_PASSWORD: &str = "rejected: wrong_password";
const LOCKED: &str = "rejected: locked";
const DISABLED: &str = "rejected: disabled";
const EXPIRED: &str = "change: password_expired";
const RESET: &str = "change: must_change";
const NO_ROLE: &str = "no role";
const SUPER_ADMIN: &str = "super_admin";
const ADMIN: &str = "admin";
const TRACER: &str = "contact_tracer";
/// What a login over HTTPS is told by every server that knows password policies.
const ALIKE: [Answered; 7] = [
    ("expiring", PASSWORD, 200, "", "ok password_expires_in_days=3"),
    ("carol", PASSWORD, 200, "", "ok"),
    ("alice", WRONG, 401, "InvalidCredentials", "wrong_password"),
    ("nobody", PASSWORD, 401, "InvalidCredentials", "no_such_user"),
    ("twin", PASSWORD, 401, "InvalidCredentials", "ambiguous"),
    ("locked", PASSWORD, 401, "InvalidCredentials", "locked"),
    ("locked", WRONG, 401, "InvalidCredentials", "locked"),
];

/// What it is about, the name and the password, and what becomes of them at
/// `OpenLDAP`, at 389-ds and at Active Directory.
type Case = (&'static str, &'static str, &'static str, [&'static str; 3]);

/// 256 bytes.
const LONG: &str = concat!(
    "éééééééééééééééééééééééééééééééé",
    "éééééééééééééééééééééééééééééééé",
    "éééééééééééééééééééééééééééééééé",
    "éééééééééééééééééééééééééééééééé",
);

/// A name that a server does not have is a case too: it must not be taken for another.
#[rustfmt::skip]
const CASES: &[Case] = &[
    // Roles.
    ("a direct member", "sam", PASSWORD, [SUPER_ADMIN; 3]),
    ("another group", "carol", PASSWORD, [TRACER; 3]),
    ("two groups: the first role wins", "both", PASSWORD, [SUPER_ADMIN; 3]),
    ("a group in a group", "nina", PASSWORD, [TRACER; 3]),
    ("groups that are members of each other", "lola", PASSWORD, [ADMIN; 3]),
    ("the primary group", "prim", PASSWORD, [NOBODY, NOBODY, TRACER]),
    ("a group for mail within the group", "mailed", PASSWORD, [NOBODY, NOBODY, NO_ROLE]),
    ("a group of unique names", "uma", PASSWORD, [ADMIN, ADMIN, NOBODY]),
    ("a group of the same name elsewhere", "frank", PASSWORD, [NO_ROLE; 3]),
    ("no group", "nora", PASSWORD, [NO_ROLE; 3]),
    // Names.
    ("a name in capitals", "ALICE", PASSWORD, [ADMIN; 3]),
    ("Unicode", "zoë", PASSWORD, [TRACER; 3]),
    ("Unicode in capitals", "ZOË", PASSWORD, [TRACER; 3]),
    ("Unicode is not its base letter", "zoe", PASSWORD, [NOBODY; 3]),
    ("a DN full of escapes", "obrien", PASSWORD, [TRACER; 3]),
    ("no such name", "nobody", PASSWORD, [NOBODY; 3]),
    ("a lone asterisk", "*", PASSWORD, [NOBODY; 3]),
    ("an asterisk at the end", "ali*", PASSWORD, [NOBODY; 3]),
    ("a filter's end", "alice)(uid=*", PASSWORD, [NOBODY; 3]),
    ("a filter within", "*)(|(objectClass=*", PASSWORD, [NOBODY; 3]),
    ("brackets that are the name", "st(r)", PASSWORD, [NOBODY, NOBODY, NO_ROLE]),
    ("filter characters that are the name", r"st*r(x)\y", PASSWORD,
        [NO_ROLE, NO_ROLE, "rejected: other_domain"]),
    ("filter characters that are the principal name", "st*r(x)@example.org", PASSWORD,
        [NOBODY, NOBODY, NO_ROLE]),
    ("a name of two entries", "twin", PASSWORD,
        ["rejected: ambiguous", "rejected: ambiguous", NOBODY]),
    ("one's principal name, the other's by the domain", "amb@ad.example.test", PASSWORD,
        [NOBODY, NOBODY, "rejected: ambiguous"]),
    ("the same, said unmistakably", r"ADTEST\amb", PASSWORD,
        [NOBODY, NOBODY, NO_ROLE]),
    ("a principal name", "alice.smith@example.org", PASSWORD, [NOBODY, NOBODY, ADMIN]),
    ("a principal name in capitals", "Alice.Smith@EXAMPLE.org", PASSWORD, [NOBODY, NOBODY, ADMIN]),
    ("the name that the domain gives", "alice@ad.example.test", PASSWORD, [NOBODY, NOBODY, ADMIN]),
    ("the same by the short name", "alice@adtest", PASSWORD, [NOBODY, NOBODY, ADMIN]),
    ("a principal name that begins like another's", "alice@other.example.org", PASSWORD,
        [NOBODY, NOBODY, NO_ROLE]),
    ("no domain of ours behind the @", "alice@example.org", PASSWORD, [NOBODY; 3]),
    ("domain and name", r"ADTEST\alice", PASSWORD, [NOBODY, NOBODY, ADMIN]),
    ("domain and name, other case", r"adtest\ALICE", PASSWORD, [NOBODY, NOBODY, ADMIN]),
    ("another domain and name", r"OTHER\alice", PASSWORD,
        [NOBODY, NOBODY, "rejected: other_domain"]),
    ("the domain's long name", r"ad.example.test\alice", PASSWORD,
        [NOBODY, NOBODY, "rejected: other_domain"]),
    ("nothing behind the domain", r"ADTEST\", PASSWORD, [NOBODY; 3]),
    ("nothing before the domain", "@adtest", PASSWORD, [NOBODY; 3]),
    ("a lone @", "@", PASSWORD, [NOBODY; 3]),
    ("a lone backslash", r"\", PASSWORD, [NOBODY, NOBODY, "rejected: other_domain"]),
    ("a control character", "alice\u{1}", PASSWORD, [NOBODY; 3]),
    ("a line end", "alice\n(uid=*)", PASSWORD, [NOBODY; 3]),
    ("characters that are left out in comparisons", "\u{ad}\u{200b}", PASSWORD, [NOBODY; 3]),
    ("a mark without a letter", "\u{301}", PASSWORD, [NOBODY; 3]),
    ("no character at all", "\u{ffff}\u{10ffff}", PASSWORD, [NOBODY; 3]),
    ("as many bytes as a name may have", LONG, PASSWORD, [NOBODY; 3]),
    ("a machine is nobody", "DC1$", PASSWORD, [NOBODY; 3]),
    ("an alias", "alias", PASSWORD, [WRONG_PASSWORD, WRONG_PASSWORD, NOBODY]),
    ("behind a referral", "remote", PASSWORD, [NOBODY; 3]),
    // Passwords and states: the right password, then a wrong one.
    ("a wrong password", "alice", WRONG, [WRONG_PASSWORD; 3]),
    ("another's password in another case", "alice", "Correct horse battery", [WRONG_PASSWORD; 3]),
    ("no password at all", "keyless", PASSWORD, [WRONG_PASSWORD; 3]),
    ("locked", "locked", PASSWORD, [LOCKED; 3]),
    ("locked, wrong", "locked", WRONG, [LOCKED; 3]),
    ("expired", "expired", PASSWORD, [EXPIRED; 3]),
    ("expired, wrong", "expired", WRONG, [WRONG_PASSWORD; 3]),
    ("must change", "reset", PASSWORD, [RESET; 3]),
    ("must change, wrong", "reset", WRONG, [WRONG_PASSWORD; 3]),
    ("grace logins, wrong", "gracious", WRONG, [WRONG_PASSWORD, WRONG_PASSWORD, NOBODY]),
    ("grace logins", "gracious", PASSWORD,
        ["contact_tracer grace_logins_left=1", "contact_tracer grace_logins_left=1", NOBODY]),
    ("the last grace login", "gracious", PASSWORD,
        ["contact_tracer grace_logins_left=0", "contact_tracer grace_logins_left=0", NOBODY]),
    ("no grace login left", "gracious", PASSWORD, [EXPIRED, EXPIRED, NOBODY]),
    ("expiring", "expiring", PASSWORD, ["contact_tracer password_expires_in_days=3"; 3]),
    ("disabled", "disabled", PASSWORD, [LOCKED, DISABLED, "closed: disabled"]),
    ("disabled, wrong", "disabled", WRONG, [LOCKED, DISABLED, WRONG_PASSWORD]),
    ("account expired", "accountexpired", PASSWORD, [NOBODY, NOBODY, "closed: account_expired"]),
    ("account expired, wrong", "accountexpired", WRONG, [NOBODY, NOBODY, WRONG_PASSWORD]),
    ("not at this hour", "hours", PASSWORD, [NOBODY, NOBODY, "closed: not_now"]),
    ("not at this hour, wrong", "hours", WRONG, [NOBODY, NOBODY, WRONG_PASSWORD]),
    ("not from here", "workstation", PASSWORD, [NOBODY, NOBODY, "closed: not_here"]),
    ("not from here, wrong", "workstation", WRONG, [NOBODY, NOBODY, WRONG_PASSWORD]),
    ("a smart card's owner", "card", PASSWORD, [NOBODY, NOBODY, "rejected: smart_card_required"]),
    ("a smart card's owner, wrong", "card", WRONG, [NOBODY, NOBODY, "rejected: smart_card_required"]),
    ("no password required, but one given", "notrequired", PASSWORD, [NOBODY, NOBODY, NO_ROLE]),
    ("no password required, wrong", "notrequired", WRONG, [NOBODY, NOBODY, WRONG_PASSWORD]),
    // After all of it: nothing of a special answer clings to a connection.
    ("an ordinary login", "alice", PASSWORD, [ADMIN; 3]),
];

/// People whose states the two plain servers write in their own ways.
fn states(own: &[(&str, &str)]) -> String {
    let tracers = "cn=contact_tracers,ou=groups,dc=example,dc=org";
    let person = |(name, more): &(&str, &str)| {
        format!(
            "dn: uid={name},ou=people,dc=example,dc=org\nchangetype: add\n\
             objectClass: inetOrgPerson\nuid: {name}\nsn: {name}\ncn: person\n{more}\n\n"
        )
    };
    let people: String = own.iter().map(person).collect();
    format!(
        "{people}dn: uid=alias,ou=people,dc=example,dc=org\nchangetype: add\n\
         objectClass: alias\nobjectClass: extensibleObject\nuid: alias\n\
         aliasedObjectName: uid=alice,ou=people,dc=example,dc=org\n\n\
         dn: {tracers}\nchangetype: modify\nadd: member\n\
         member: uid=gracious,ou=people,dc=example,dc=org\n\
         member: uid=expiring,ou=people,dc=example,dc=org\n\n"
    )
}

fn replacing(name: &str, attribute: &str, value: &str) -> String {
    format!(
        "dn: uid={name},ou=people,dc=example,dc=org\nchangetype: modify\n\
         replace: {attribute}\n{attribute}: {value}\n"
    )
}

fn referral(to: &TcpListener) -> String {
    format!(
        "dn: ou=elsewhere,ou=people,dc=example,dc=org\nchangetype: add\nobjectClass: referral\n\
         objectClass: extensibleObject\nou: elsewhere\nref: ldap://{}/ou=people,dc=example,dc=org\n\n",
        to.local_addr().expect("bound")
    )
}

async fn login(directory: &Directory, name: &str, password: &str) -> Result<Person, VerifyError> {
    let password = Secret::new(password.to_owned());
    let credentials = Credentials::parse(name.to_owned(), password).expect("possible credentials");
    directory.verify(&credentials).await
}

fn told(outcome: &Result<Person, VerifyError>) -> String {
    match outcome {
        Ok(Person { role, notice: None, .. }) => role.to_string(),
        Ok(Person { role, notice: Some(notice), .. }) => format!("{role} {}", notice.detail()),
        Err(VerifyError::Rejected(rejection)) => format!("rejected: {}", rejection.label()),
        Err(VerifyError::MustChange(change)) => format!("change: {}", change.label()),
        Err(VerifyError::AccountUnavailable(bar)) => format!("closed: {}", bar.label()),
        Err(VerifyError::NoRole { .. }) => NO_ROLE.to_owned(),
        other => format!("{other:?}"),
    }
}

fn opened(config: &config::Directory) -> Directory {
    let metrics = Metrics::new().expect("metrics");
    Directory::new(config, &metrics, &Entropy::system()).expect("a valid configuration")
}

async fn put_table_to(column: usize, config: &config::Directory) -> Directory {
    let directory = opened(config);
    let mut wrong = Vec::new();
    for (what, name, password, expected) in CASES {
        let outcome = login(&directory, name, password).await;
        let told = told(&outcome);
        if told != expected[column] {
            wrong.push(format!("{what} ({name}): {told}, not {}", expected[column]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    directory
}

/// A server that nobody may ever be referred to.
fn forbidden() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("non-blocking");
    listener
}

fn assert_nobody_came(to: &TcpListener) {
    let came = to.accept().map_err(|error| error.kind());
    assert!(matches!(came, Err(std::io::ErrorKind::WouldBlock)), "a referral was followed");
}

/// Starts a server off the runtime's threads.
async fn started<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(start).await.expect("a server")
}

#[tokio::test]
async fn openldap_is_understood() {
    let slapd = started(Slapd::start).await;
    let elsewhere = forbidden();
    let password = format!("userPassword: {PASSWORD}");
    let policy = |name: &str| {
        format!("{password}\npwdPolicySubentry: cn={name},ou=policies,dc=example,dc=org")
    };
    slapd.ldapmodify(&states(&[
        ("expiring", &policy("soon")),
        ("disabled", &format!("{password}\npwdEndTime: 20200101000000Z")),
        ("keyless", "description: without a password"),
    ]));
    slapd.ldapmodify(&referral(&elsewhere));
    let mut config = slapd.directory(LdapTransport::Tls);
    // So that the alias is found too.
    config.user_filter = None;
    put_table_to(0, &config).await;
    assert_nobody_came(&elsewhere);
    expect_answers(
        &slapd.toml(LdapTransport::Tls),
        &[
            ALIKE.as_slice(),
            &[
                ("disabled", PASSWORD, 401, "InvalidCredentials", "locked"),
                ("gracious", PASSWORD, 401, "PasswordChangeRequired", "password_expired"),
                ("expired", WRONG, 401, "InvalidCredentials", "wrong_password"),
                ("expired", PASSWORD, 401, "PasswordChangeRequired", "password_expired"),
                ("reset", WRONG, 401, "InvalidCredentials", "wrong_password"),
                ("reset", PASSWORD, 401, "PasswordChangeRequired", "must_change"),
                ("nora", PASSWORD, 403, "NoRole", "no_role"),
            ],
        ]
        .concat(),
    )
    .await;
}

#[tokio::test]
async fn directory_server_389_is_understood() {
    let (dirsrv, slapd) = tokio::join!(started(Dirsrv::start), started(Slapd::start));
    let elsewhere = forbidden();
    let in_two_days = Command::new("date")
        .args(["-u", "-d", "+60 hours", "+%Y%m%d%H%M%SZ"])
        .output()
        .expect("date");
    let in_two_days = String::from_utf8(in_two_days.stdout).expect("UTF-8");
    let password = format!("userPassword: {PASSWORD}");
    dirsrv.ldapmodify(&states(&[
        ("expiring", &password),
        ("disabled", &format!("{password}\nnsAccountLock: true")),
        ("keyless", "description: without a password"),
    ]));
    for (name, attribute, value) in [
        ("gracious", "passwordExpirationTime", "20200101000000Z"),
        ("gracious", "passwordGraceUserTime", "1"),
        ("expired", "passwordExpirationTime", "20200101000000Z"),
        ("expired", "passwordGraceUserTime", "3"),
        ("expiring", "passwordExpirationTime", in_two_days.trim()),
        ("expiring", "passwordExpWarned", "1"),
        ("reset", "passwordExpirationTime", "19700101000000Z"),
        ("locked", "passwordRetryCount", "3"),
        ("locked", "accountUnlockTime", "19700101000000Z"),
    ] {
        dirsrv.ldapmodify(&replacing(name, attribute, value));
    }
    dirsrv.ldapmodify(&referral(&elsewhere));
    let mut config = dirsrv.directory(&slapd);
    config.user_filter = None;
    put_table_to(1, &config).await;
    assert_nobody_came(&elsewhere);
    // As before the table.
    for (name, attribute, value) in [
        ("gracious", "passwordGraceUserTime", "1"),
        ("gracious", "passwordRetryCount", "0"),
        ("expired", "passwordRetryCount", "0"),
        ("reset", "passwordRetryCount", "0"),
    ] {
        dirsrv.ldapmodify(&replacing(name, attribute, value));
    }
    expect_answers(
        &dirsrv.toml(),
        &[
            ALIKE.as_slice(),
            &[
                ("disabled", PASSWORD, 401, "InvalidCredentials", "disabled"),
                ("disabled", WRONG, 401, "InvalidCredentials", "disabled"),
                ("gracious", WRONG, 401, "InvalidCredentials", "wrong_password"),
                ("gracious", PASSWORD, 200, "", "ok grace_logins_left=1"),
                ("gracious", PASSWORD, 200, "", "ok grace_logins_left=0"),
                ("gracious", PASSWORD, 401, "PasswordChangeRequired", "password_expired"),
                ("expired", WRONG, 401, "InvalidCredentials", "wrong_password"),
                ("expired", PASSWORD, 401, "PasswordChangeRequired", "password_expired"),
                ("reset", WRONG, 401, "InvalidCredentials", "wrong_password"),
                ("reset", PASSWORD, 401, "PasswordChangeRequired", "must_change"),
                ("nora", PASSWORD, 403, "NoRole", "no_role"),
            ],
        ]
        .concat(),
    )
    .await;
}

#[tokio::test]
async fn active_directory_is_understood() {
    let samba = started(Samba::start).await;
    let directory = put_table_to(2, &samba.directory()).await;
    // However the name is typed: one account, and one subject that outlives a new name.
    let mut known: Option<Person> = None;
    for name in ["alice", r"ADTEST\Alice", "alice@ad.example.test", "alice.smith@example.org"] {
        let person = login(&directory, name, PASSWORD).await.expect(name);
        assert_eq!(person.subject.as_str().len(), 36, "an objectGUID: {}", person.subject);
        assert_eq!(known.get_or_insert_with(|| person.clone()), &person);
    }
    let mut config = samba.directory();
    config.subject_attribute = "sAMAccountName".to_owned();
    let directory = opened(&config);
    let person = login(&directory, "alice.smith@example.org", PASSWORD).await.expect("alice");
    assert_eq!(person.subject.as_str(), "alice");
    expect_answers(
        &samba.toml(),
        &[
            ("expiring", PASSWORD, 200, "", "ok password_expires_in_days=3"),
            ("alice", WRONG, 401, "InvalidCredentials", "wrong_password"),
            ("nobody", PASSWORD, 401, "InvalidCredentials", "no_such_user"),
            (r"OTHER\alice", PASSWORD, 401, "InvalidCredentials", "other_domain"),
            ("amb@ad.example.test", PASSWORD, 401, "InvalidCredentials", "ambiguous"),
            ("locked", PASSWORD, 401, "InvalidCredentials", "locked"),
            ("locked", WRONG, 401, "InvalidCredentials", "locked"),
            ("disabled", WRONG, 401, "InvalidCredentials", "wrong_password"),
            ("disabled", PASSWORD, 403, "AccountUnavailable", "disabled"),
            ("accountexpired", PASSWORD, 403, "AccountUnavailable", "account_expired"),
            ("hours", PASSWORD, 403, "AccountUnavailable", "not_now"),
            ("workstation", PASSWORD, 403, "AccountUnavailable", "not_here"),
            ("expired", WRONG, 401, "InvalidCredentials", "wrong_password"),
            ("expired", PASSWORD, 401, "PasswordChangeRequired", "password_expired"),
            ("reset", PASSWORD, 401, "PasswordChangeRequired", "must_change"),
            ("nora", PASSWORD, 403, "NoRole", "no_role"),
        ],
    )
    .await;
    // Roles would be guesswork: the password is right, and nobody is told a role.
    samba.hide_groups_of("carol");
    let outcome = login(&directory, "carol", PASSWORD).await;
    assert!(
        matches!(outcome, Err(VerifyError::Unavailable(DirectoryError::HiddenGroups))),
        "{outcome:?}"
    );
    login(&directory, "alice", PASSWORD).await.expect("whose groups are seen");
}

#[tokio::test]
async fn what_active_directory_refers_to_is_never_asked() {
    let elsewhere = forbidden();
    let address = elsewhere.local_addr().expect("bound");
    let samba = started(move || Samba::start_referring_to(address)).await;
    let told_elsewhere = format!("ldaps://{address}/CN=Configuration,{BASE}");
    assert_eq!(samba.referrals("alice"), [told_elsewhere]);
    // As any LDAP server it is not told that the rest is of no interest.
    let as_any = config::Directory {
        kind: DirectoryKind::Ldap,
        user_attribute: "sAMAccountName".to_owned(),
        group_base_dn: BASE.to_owned(),
        ..samba.directory()
    };
    for config in [samba.directory(), as_any] {
        let directory = opened(&config);
        for (name, password, expected) in
            [("alice", PASSWORD, ADMIN), ("alice", WRONG, WRONG_PASSWORD), ("eve", WRONG, NOBODY)]
        {
            let outcome = login(&directory, name, password).await;
            assert_eq!(told(&outcome), expected, "{name} {:?}", config.kind);
        }
    }
    assert_nobody_came(&elsewhere);
}
