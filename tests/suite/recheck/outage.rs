//! What is wrong with the directory is not held against people: their sessions go on
//! for a while, and on as before when it is well again.

use std::net::SocketAddr;
use std::time::Duration;

use bindgate::config::LdapTransport;

use super::{GROUPS, INTERVAL, PEOPLE, ends, revocation, sign_in, started, world};
use crate::support::eventually_async;
use crate::support::relay::{Mood, Relay};
use crate::support::slapd::Slapd;
use crate::support::world::{World, directory_through, token_of};

async fn counted(world: &World, result: &str) -> f64 {
    let labels = [("result", result)];
    world.gateway.metrics().await.sum("bindgate_rechecks_total", &labels)
}

/// Waits for one more recheck that ends so.
async fn rechecked(world: &World, result: &str, before: f64) {
    let labels = [("result", result)];
    world.gateway.counted("bindgate_rechecks_total", &labels, before + 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_directory_keeps_sessions_for_the_grace_and_no_longer() {
    let slapd = started(Slapd::start).await;
    let at = SocketAddr::from(([127, 0, 0, 1], slapd.port(LdapTransport::Tls)));
    let relay = Relay::to(at).await;
    let (world, time) = world(&directory_through(&slapd, LdapTransport::Tls, relay.address)).await;
    let (sam, carol) = (sign_in(&world, "sam").await, sign_in(&world, "carol").await);

    relay.becomes(Mood::Cut);
    let failed = counted(&world, "failed").await;
    time.advance(INTERVAL);
    rechecked(&world, "failed", failed).await;
    let ok = counted(&world, "ok").await;
    // Sessions go on, and are renewed.
    time.advance(Duration::from_mins(30));
    sam.get("/app/echo").send().await.expect_status(200);
    carol.post("/auth/refresh").own_page().send().await.expect_status(200);
    let unknown = world.gateway.metrics().await.sum("bindgate_recheck_unknown_sessions", &[]);
    assert!((unknown - 2.0).abs() < 0.5, "{unknown}");

    // Back in time: as if nothing had been.
    relay.becomes(Mood::Well);
    time.advance(INTERVAL);
    rechecked(&world, "ok", ok).await;
    let ok = counted(&world, "ok").await;
    sam.post("/auth/refresh").own_page().send().await.expect_status(200);
    carol.post("/auth/refresh").own_page().send().await.expect_status(200);

    // Away again, and for too long: grace and interval are 65 minutes.
    relay.becomes(Mood::Cut);
    for _ in 0..2 {
        let failed = counted(&world, "failed").await;
        time.advance(Duration::from_mins(30));
        rechecked(&world, "failed", failed).await;
        sam.get("/app/echo").send().await.expect_status(200);
        carol.post("/auth/refresh").own_page().send().await.expect_status(200);
    }
    time.advance(Duration::from_mins(6));
    for client in [&sam, &carol] {
        ends(client, "the session ends").await;
        let session = token_of(client).claim("sid").to_owned();
        assert_eq!(revocation(&world.gateway, &session).await["outcome"], "recheck_overdue");
    }

    // Back: whoever logs in goes on.
    relay.becomes(Mood::Well);
    let sam = eventually_async("a login", async || {
        let client = world.client();
        let password = crate::support::slapd::PASSWORD;
        let answer = crate::support::world::log_in(&client, "sam", password).await;
        (answer.status == 200).then_some(client)
    })
    .await;
    time.advance(INTERVAL);
    rechecked(&world, "ok", ok).await;
    sam.get("/app/echo").send().await.expect_status(200);
    let unknown = world.gateway.metrics().await.sum("bindgate_recheck_unknown_sessions", &[]);
    assert!(unknown.abs() < 0.5, "{unknown}");
}

/// Breaks something, or mends it again.
type Breakage = fn(&mut Slapd, bool);

const PERSONS: &str = "ou=persons,dc=example,dc=org";
const TEAMS: &str = "ou=teams,dc=example,dc=org";
/// Who sees what, in the server's configuration.
const RIGHTS: &str = "access to * by dn.exact=\"cn=bindgate,ou=services,dc=example,dc=org\" read";

const BREAKAGES: [(&str, Breakage); 5] = [
    ("the people's base is gone", |slapd, broken| rename(slapd, (PEOPLE, PERSONS), broken)),
    ("the groups' base is gone", |slapd, broken| rename(slapd, (GROUPS, TEAMS), broken)),
    ("all people are hidden", |slapd, broken| {
        hide(slapd, "dn.children=\"ou=people,dc=example,dc=org\" by anonymous auth", broken);
    }),
    ("all members are hidden", |slapd, broken| {
        hide(slapd, "attrs=member,uniqueMember", broken);
    }),
    ("the service account may do nothing", |slapd, broken| {
        slapd.reconfigure(RIGHTS, &RIGHTS.replace(" read", " none"), broken);
    }),
];

fn rename(slapd: &Slapd, (usual, other): (&str, &str), broken: bool) {
    let (from, to) = if broken { (usual, other) } else { (other, usual) };
    let (rdn, _) = to.split_once(',').expect("a name");
    let ldif = format!("dn: {from}\nchangetype: modrdn\nnewrdn: {rdn}\ndeleteoldrdn: 1\n");
    slapd.ldapmodify(&ldif);
}

fn hide(slapd: &mut Slapd, what: &str, broken: bool) {
    slapd.reconfigure(RIGHTS, &format!("access to {what} by * none\n{RIGHTS}"), broken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_that_sees_nothing_ends_nobody() {
    let mut slapd = started(Slapd::start).await;
    let (world, time) = world(&slapd.toml(LdapTransport::Tls)).await;
    let mut clients = Vec::new();
    for name in ["sam", "alice", "carol", "both", "nina", "lola", "uma", "obrien", "zoë", "sam"] {
        clients.push((name, sign_in(&world, name).await));
    }
    for (what, set) in BREAKAGES {
        let failed = counted(&world, "failed").await;
        set(&mut slapd, true);
        time.advance(INTERVAL);
        rechecked(&world, "failed", failed).await;
        for (name, client) in &clients {
            assert_eq!(client.get("/app/echo").send().await.status, 200, "{name}: {what}");
        }
        set(&mut slapd, false);
        let ok = counted(&world, "ok").await;
        time.advance(INTERVAL);
        rechecked(&world, "ok", ok).await;
        for (name, client) in &clients {
            assert_eq!(client.get("/app/echo").send().await.status, 200, "{name}: back, {what}");
        }
    }
    let metrics = world.gateway.metrics().await;
    assert!(metrics.sum("bindgate_sessions_revoked_total", &[]).abs() < 0.5);
}
