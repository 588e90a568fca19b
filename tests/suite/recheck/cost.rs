//! What a recheck costs the directory: counted with ten thousand sessions.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bindgate::ambient::{Clock, Entropy, Timestamp};
use bindgate::config::{self, Config, LdapTransport};
use bindgate::directory::{Directory, Known, Standing};
use bindgate::identity::{Attributes, Role, Subject};
use bindgate::metrics::Metrics;
use bindgate::session::{Origin, Person, Reason, Sessions};

use super::{GROUPS, PASSWORD, PEOPLE, started};
use crate::support::metrics::Samples;
use crate::support::samba::Samba;
use crate::support::setup::Setup;
use crate::support::slapd::Slapd;

const SESSIONS: usize = 10_000;
/// What the directory may be asked for so many.
const SEARCHES_MAX: f64 = 60.0;

fn searches(metrics: &Metrics) -> f64 {
    let text = String::from_utf8(metrics.encode().expect("text")).expect("UTF-8");
    let samples = Samples::parse(&text);
    let operations = samples.values("bindgate_directory_operations_total", "operation");
    let searches =
        operations.iter().filter(|it| !["connect", "service_bind"].contains(&it.as_str()));
    let searches: std::collections::BTreeSet<&String> = searches.collect();
    let sum = |it: &&String| {
        samples.sum("bindgate_directory_operations_total", &[("operation", it.as_str())])
    };
    searches.iter().map(sum).sum()
}

/// Ten thousand people, all of them tracers: every other one through a group of groups.
fn many() -> String {
    let mut ldif = String::new();
    for number in 0..SESSIONS {
        write!(
            ldif,
            "dn: uid=many{number},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: many{number}\n\
             sn: many\ncn: many\n\n"
        )
        .expect("text");
    }
    for (group, odd) in [("many_even", 0), ("many_odd", 1)] {
        write!(ldif, "dn: cn={group},{GROUPS}\nobjectClass: groupOfNames\ncn: {group}\n")
            .expect("text");
        for number in (odd..SESSIONS).step_by(2) {
            writeln!(ldif, "member: uid=many{number},{PEOPLE}").expect("text");
        }
        ldif.push('\n');
    }
    write!(
        ldif,
        "dn: cn=many_between,{GROUPS}\nobjectClass: groupOfNames\ncn: many_between\n\
         member: cn=many_odd,{GROUPS}\n\n"
    )
    .expect("text");
    ldif
}

async fn sessions(setup: &Setup, metrics: &Metrics) -> std::sync::Arc<Sessions> {
    setup.save();
    let config = Config::load(&setup.config_file());
    let config = config.unwrap_or_else(|problems| panic!("configuration: {problems}")).config;
    let (clock, _) = Clock::manual();
    Sessions::open_store(&config, clock, Entropy::system(), metrics).await.expect("a store")
}

fn person(number: usize) -> Person {
    let name = format!("many{number}");
    Person {
        subject: Subject::new(&name),
        role: Role::new("contact_tracer"),
        account: format!("uid={name},{PEOPLE}"),
        attributes: Attributes::default(),
        stamp: None,
        emergency: false,
        lifetime_max: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sessions_cost_at_most_sixty_searches() {
    let slapd = started(|| {
        let slapd = Slapd::start_with(&many());
        let tracers = format!("cn=contact_tracers,{GROUPS}");
        slapd.ldapmodify(&format!(
            "dn: {tracers}\nchangetype: modify\nadd: member\nmember: cn=many_even,{GROUPS}\n\
             member: cn=many_between,{GROUPS}\n"
        ));
        slapd
    })
    .await;
    let mut setup = Setup::new(&slapd.toml(LdapTransport::Tls), "http://127.0.0.1:1");
    setup.set("store", "kind", "\"memory\"");
    let metrics = Metrics::new().expect("metrics");
    let sessions = sessions(&setup, &metrics).await;
    let origin = Origin { address: IpAddr::V4(Ipv4Addr::LOCALHOST), user_agent: None };
    for number in 0..SESSIONS {
        let prepared = sessions.prepare(person(number), origin.clone()).expect("a token");
        sessions.open(prepared).await.expect("a session");
    }
    let mut config = slapd.directory(LdapTransport::Tls);
    config.timeout = Duration::from_secs(20);
    let directory = open(&config, &metrics);
    let overdue_after = Duration::from_hours(1);
    let swept = sessions.recheck_all(&directory, overdue_after).await.expect("the store answers");
    assert!(swept.error.is_none(), "{swept:?}");
    assert_eq!((swept.sessions, swept.unknown, swept.ended.len()), (SESSIONS, 0, 0));
    let cost = searches(&metrics);
    eprintln!("{SESSIONS} sessions, OpenLDAP: {cost} searches");
    assert!((50.0..=SEARCHES_MAX).contains(&cost), "{cost} searches");

    // Who leaves is found among all the others.
    slapd.ldapmodify(&format!(
        "dn: cn=many_odd,{GROUPS}\nchangetype: modify\ndelete: member\nmember: uid=many77,{PEOPLE}\n\n\
         dn: uid=many78,{PEOPLE}\nchangetype: delete\n\n\
         dn: uid=many79,{PEOPLE}\nchangetype: modify\nadd: pwdAccountLockedTime\n\
         pwdAccountLockedTime: 000001010000Z\n"
    ));
    let swept = sessions.recheck_all(&directory, overdue_after).await.expect("the store answers");
    let mut ended: Vec<(String, Reason)> =
        swept.ended.iter().map(|(reason, record)| (record.subject.to_string(), *reason)).collect();
    ended.sort_by(|(one, _), (other, _)| one.cmp(other));
    let expected = [
        ("many77", Reason::RoleLost),
        ("many78", Reason::AccountGone),
        ("many79", Reason::AccountDisabled),
    ];
    assert_eq!(ended, expected.map(|(name, reason)| (name.to_owned(), reason)));
    assert!(swept.error.is_none(), "{swept:?}");
}

/// The same count where groups are read otherwise. Hardly any of these accounts exist,
/// which changes no search.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sessions_cost_at_most_sixty_searches_in_active_directory() {
    let samba = started(Samba::start).await;
    let metrics = Metrics::new().expect("metrics");
    let directory = open(&samba.directory(), &metrics);
    let mut known: Vec<Known> = (0..SESSIONS)
        .map(|number| Known {
            subject: Subject::new(&format!("00000000-0000-0000-0000-{number:012x}")),
            account: format!("cn=many{number},dc=x"),
            role: Role::new("contact_tracer"),
            stamp: None,
        })
        .collect();
    let people =
        ["sam", "alice", "carol", "both", "nina", "lola", "prim", "zoë", "obrien", "expiring"];
    for name in people {
        let password = bindgate::secret::Secret::new(PASSWORD.to_owned());
        let credentials = bindgate::identity::Credentials::parse(name.to_owned(), password);
        let person = directory.verify(&credentials.expect("possible")).await.expect(name);
        let bindgate::directory::Person { subject, account, role, stamp, .. } = person;
        known.push(Known { subject, account, role, stamp });
    }
    let before = searches(&metrics);
    let now = Timestamp::from_seconds(1_790_000_000);
    let rechecked = directory.recheck(&known, now).await;
    assert!(rechecked.error.is_none(), "{:?}", rechecked.error);
    let count = |standing| rechecked.standings.iter().filter(|it| **it == standing).count();
    assert_eq!((count(Standing::Gone), count(Standing::Unchanged)), (SESSIONS, people.len()));
    let cost = searches(&metrics) - before;
    eprintln!("{} sessions, Active Directory: {cost} searches", known.len());
    assert!((50.0..=SEARCHES_MAX).contains(&cost), "{cost} searches");
}

fn open(config: &config::Directory, metrics: &Metrics) -> Directory {
    Directory::new(config, metrics, &Entropy::system()).expect("a valid configuration")
}
