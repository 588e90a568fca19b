//! Several directory servers behind one gateway: one may go at any time, and all of
//! them may be away.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bindgate::config::LdapTransport;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::support::eventually_async;
use crate::support::gateway::Gateway;
use crate::support::setup::Setup;
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::upstream::Upstream;
use crate::support::world::{ADMIN, TRACER, log_in};

/// People who log in once each.
const PEOPLE: usize = 250;
const LOGINS_PER_SECOND: u64 = 50;
/// The login before which a server is killed.
const KILLED_AT: usize = 75;
/// How long logins may fail then.
const GRACE: Duration = Duration::from_secs(1);

/// A gateway with both servers, in this order.
async fn gateway(first: &Slapd, second: &Slapd) -> (Gateway, Upstream) {
    let upstream = Upstream::start().await;
    let mut setup = Setup::new("", &upstream.url());
    let directory = first.toml_with(second, &setup.path("both.pem"));
    setup.directory(&directory);
    (Gateway::start(setup).await, upstream)
}

fn person(number: usize) -> String {
    format!("person{number:03}")
}

fn add_people(slapd: &Slapd) {
    let mut entries = String::new();
    let group = "cn=contact_tracers,ou=groups,dc=example,dc=org";
    let mut members = format!("dn: {group}\nchangetype: modify\nadd: member\n");
    for name in (0..PEOPLE).map(person) {
        let dn = format!("uid={name},ou=people,dc=example,dc=org");
        write!(
            entries,
            "dn: {dn}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n\
             userPassword: {PASSWORD}\n\n"
        )
        .expect("text");
        writeln!(members, "member: {dn}").expect("text");
    }
    slapd.ldapadd(&entries);
    slapd.ldapmodify(&members);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_servers_is_killed_under_fifty_logins_a_second() {
    let (mut first, second) = (Slapd::start_telling(), Slapd::start_telling());
    add_people(&first);
    add_people(&second);
    let (gateway, _upstream) = gateway(&first, &second).await;
    gateway.readiness(200).await;
    let gateway = Arc::new(gateway);
    let mut logins = JoinSet::new();
    let mut ticks =
        interval(Duration::from_secs(1) / u32::try_from(LOGINS_PER_SECOND).expect("few"));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut killed = None;
    for number in 0..PEOPLE {
        ticks.tick().await;
        if number == KILLED_AT {
            first.stop();
            killed = Some(Instant::now());
        }
        let client = gateway.client();
        let began = Instant::now();
        logins
            .spawn(async move { (began, log_in(&client, &person(number), PASSWORD).await.status) });
    }
    let killed = killed.expect("it was killed");
    let mut failed = 0;
    while let Some(login) = logins.join_next().await {
        let (began, status) = login.expect("no panic");
        let excused = (killed - GRACE..=killed + GRACE).contains(&began);
        assert!(status == 200 || (status == 503 && excused), "{status} at {:?}", began - killed);
        failed += usize::from(status != 200);
    }
    // Whatever became of a login: its password was tried once, at one server.
    let mut binds: BTreeMap<String, usize> = BTreeMap::new();
    for name in first.binds().into_iter().chain(second.binds()) {
        *binds.entry(name).or_default() += 1;
    }
    let of = |name| format!("uid={},ou=people,dc=example,dc=org", person(name));
    let counts: Vec<usize> =
        (0..PEOPLE).map(|number| binds.get(&of(number)).copied().unwrap_or_default()).collect();
    assert!(counts.iter().all(|count| *count <= 1), "{counts:?}");
    assert!(counts.iter().sum::<usize>() >= PEOPLE - failed, "{failed} failed: {counts:?}");
    assert!(second.binds().len() > (PEOPLE - KILLED_AT) / 2, "the second took over");
}

#[tokio::test]
async fn with_every_server_away_sessions_go_on_and_logins_say_so() {
    let (mut first, mut second) = (Slapd::start(), Slapd::start());
    let (mut gateway, _upstream) = gateway(&first, &second).await;
    let mut signed_in = gateway.client();
    log_in(&signed_in, ADMIN, PASSWORD).await.expect_status(200);
    let up = async |gateway: &Gateway, slapd: &Slapd| {
        let server = format!("127.0.0.1:{}", slapd.port(LdapTransport::Tls));
        gateway.metrics().await.sum("bindgate_directory_up", &[("server", &server)])
    };
    first.stop();
    second.stop();
    for start in ["stays up", "starts"] {
        let reasons = gateway.readiness(503).await;
        let reasons: Vec<&str> = reasons.lines().collect();
        assert_eq!(reasons, ["the directory does not answer"], "{start}");
        assert_eq!(gateway.telemetry("/healthz").await.status, 200);
        for _ in 0..3 {
            let answer = log_in(&gateway.client(), TRACER, PASSWORD).await;
            answer.expect(503, "DirectoryUnavailable");
            let wait = answer.header("retry-after").expect("Retry-After");
            assert!(wait.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{start}: {wait}");
        }
        signed_in.get("/admin/echo").send().await.expect_status(200);
        signed_in.get("/public/echo").send().await.expect_status(200);
        assert!(up(&gateway, &first).await + up(&gateway, &second).await < 0.5, "{start}");
        if start == "stays up" {
            // As after a power cut: none of them is there when it starts.
            gateway.restart().await;
            signed_in.address = gateway.https;
        }
    }
    // One is enough, and nobody restarts us.
    second.resume();
    gateway.readiness(200).await;
    eventually_async("a login works", async || {
        let answer = log_in(&gateway.client(), TRACER, PASSWORD).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(up(&gateway, &first).await < 0.5 && up(&gateway, &second).await > 0.5);
    first.resume();
    eventually_async("both are up", async || (up(&gateway, &first).await > 0.5).then_some(()))
        .await;
    signed_in.get("/admin/echo").send().await.expect_status(200);
}
