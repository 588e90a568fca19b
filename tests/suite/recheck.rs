//! The directory is asked again during a session: whose account is gone, closed, in
//! another role or has another password is logged out at once, and nobody else is.
//! Against a real server of each kind. Time is the test's.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bindgate::ambient::ManualTime;
use bindgate::config::LdapTransport;
use serde_json::Value;

use crate::support::client::Client;
use crate::support::dirsrv::Dirsrv;
use crate::support::gateway::Gateway;
use crate::support::samba::{BASE, Samba};
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::world::{World, directory_through, log_in, token_of};
use crate::support::{eventually, eventually_async, websocket, within};

mod cost;
mod outage;

const INTERVAL: Duration = Duration::from_mins(5);
const OWN: &[(&str, &str)] = &[("origin", "https://gateway.test")];

/// Somebody, what becomes of the account, and why the session then ends; no reason when
/// it goes on.
struct Fate {
    name: &'static str,
    role: &'static str,
    change: String,
    reason: Option<&'static str>,
}

fn fate(
    (name, role): (&'static str, &'static str),
    change: impl Into<String>,
    reason: impl Into<Option<&'static str>>,
) -> Fate {
    Fate { name, role, change: change.into(), reason: reason.into() }
}

/// A gateway in this process before the directory of this section.
async fn world(directory: &str) -> (World, ManualTime) {
    World::with_time(|setup| {
        setup.directory(directory);
    })
    .await
}

async fn sign_in(world: &World, name: &str) -> Client {
    let client = world.client();
    log_in(&client, name, PASSWORD).await.expect_status(200);
    client
}

/// Everybody signs in, all accounts change, one recheck later it shows whom it concerned.
async fn fulfil(world: &World, time: &ManualTime, fates: &[Fate], change: impl Fn(&str)) {
    let mut clients = Vec::new();
    for Fate { name, role, .. } in fates {
        let client = sign_in(world, name).await;
        assert_eq!(token_of(&client).claim("role"), *role, "{name}");
        clients.push(client);
    }
    let before = revoked(&world.gateway, fates).await;
    // Nothing has changed: nobody is troubled.
    let looks = looks(&world.gateway).await;
    time.advance(INTERVAL);
    world.gateway.counted("bindgate_rechecks_total", &[("result", "ok")], looks + 1.0).await;
    for (fate, client) in fates.iter().zip(&clients) {
        assert_eq!(client.get("/app/echo").send().await.status, 200, "{} at first", fate.name);
    }
    for fate in fates {
        change(&fate.change);
    }
    time.advance(INTERVAL);
    world.gateway.counted("bindgate_rechecks_total", &[("result", "ok")], looks + 2.0).await;
    let mut expected = before;
    for (fate, client) in fates.iter().zip(&clients) {
        let Some(reason) = fate.reason else {
            assert_eq!(client.get("/app/echo").send().await.status, 200, "{} goes on", fate.name);
            continue;
        };
        *expected.entry(reason).or_default() += 1.0;
        ends(client, &format!("{} ends for {reason}", fate.name)).await;
        let session = token_of(client).claim("sid").to_owned();
        let record = revocation(&world.gateway, &session).await;
        let told = (&record["outcome"], &record["role"], &record["detail"]);
        assert_eq!(told, (&reason.into(), &fate.role.into(), &"recheck".into()), "{}", fate.name);
    }
    assert_eq!(revoked(&world.gateway, fates).await, expected);
    for (_, client) in fates.iter().zip(&clients).filter(|(fate, _)| fate.reason.is_none()) {
        client.post("/auth/logout").own_page().send().await.expect_status(204);
    }
}

/// Waits until this session is refused; a request under way may be broken off.
async fn ends(client: &Client, what: &str) {
    eventually_async(what, async || {
        let answer = client.get("/app/echo").try_send().await;
        answer.is_ok_and(|answer| answer.status == 401).then_some(())
    })
    .await;
    client.get("/app/echo").send().await.expect(401, "SessionRevoked");
}

async fn looks(gateway: &Gateway) -> f64 {
    gateway.metrics().await.sum("bindgate_rechecks_total", &[("result", "ok")])
}

async fn revoked(gateway: &Gateway, fates: &[Fate]) -> BTreeMap<&'static str, f64> {
    let metrics = gateway.metrics().await;
    let reasons = fates.iter().filter_map(|fate| fate.reason);
    let name = "bindgate_sessions_revoked_total";
    reasons.map(|reason| (reason, metrics.sum(name, &[("reason", reason)]))).collect()
}

async fn revocation(gateway: &Gateway, session: &str) -> Value {
    let log = gateway.setup.audit_file();
    eventually("the record of a session's end", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let mut records = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        records.find(|it: &Value| it["event"] == "revocation" && it["session"] == session)
    })
    .await
}

/// Starts a server off the runtime's threads.
async fn started<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(start).await.expect("a server")
}

const PEOPLE: &str = "ou=people,dc=example,dc=org";
const GROUPS: &str = "ou=groups,dc=example,dc=org";

fn modify(dn: &str, lines: &str) -> String {
    format!("dn: {dn}\nchangetype: modify\n{lines}\n")
}

fn delete(dn: &str) -> String {
    format!("dn: {dn}\nchangetype: delete\n")
}

fn person(name: &str) -> String {
    format!(
        "dn: uid={name},{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: {name}\n\
         sn: {name}\ncn: person\nuserPassword: {PASSWORD}\n"
    )
}

fn members(verb: &str, group: &str, members: &[String]) -> String {
    let members = members.join("\nmember: ");
    modify(&format!("cn={group},{GROUPS}"), &format!("{verb}: member\nmember: {members}\n"))
}

/// What both plain servers can do to people, each in its own words for three of them.
fn plain_fates(disabled: &str, expired: Option<&str>, locked: &str) -> Vec<Fate> {
    let dn = |name: &str| format!("uid={name},{PEOPLE}");
    let tracer = |name| (name, "contact_tracer");
    let mut fates = vec![
        fate(("sam", "super_admin"), "", None),
        fate(("lola", "admin"), "", None),
        fate(tracer("carol"), delete(&dn("carol")), "account_gone"),
        fate(
            tracer("again"),
            // The group still names whoever had the name before.
            format!("{}\n{}", delete(&dn("again")), person("again")),
            "account_gone",
        ),
        fate(tracer("zoë"), modify(&dn("zoë"), disabled), "account_disabled"),
        fate(
            ("alice", "admin"),
            modify(&dn("alice"), "replace: userPassword\nuserPassword: Another one 1\n"),
            "password_changed",
        ),
        fate(tracer("leaver"), members("delete", "contact_tracers", &[dn("leaver")]), "role_lost"),
        fate(
            ("uma", "admin"),
            members("delete", "admins", &[format!("cn=unique,{GROUPS}")]),
            "role_lost",
        ),
        fate(
            ("both", "super_admin"),
            members("delete", "super_admins", &[dn("both")]),
            "role_changed",
        ),
        fate(tracer("nina"), members("add", "super_admins", &[dn("nina")]), "role_changed"),
        // Whoever guesses at a password must not be able to end what its owner began.
        fate(tracer("guessed"), modify(&dn("guessed"), locked), None),
        fate(
            tracer("moved"),
            format!(
                "dn: {}\nchangetype: modrdn\nnewrdn: uid=moved\ndeleteoldrdn: 0\n\
                 newsuperior: ou=north,{PEOPLE}\n\n{}",
                dn("moved"),
                members("add", "contact_tracers", &[format!("uid=moved,ou=north,{PEOPLE}")])
            ),
            None,
        ),
        fate(
            tracer("plain"),
            modify(&dn("plain"), "replace: description\ndescription: another\n"),
            None,
        ),
    ];
    if let Some(expired) = expired {
        fates.push(fate(tracer("over"), modify(&dn("over"), expired), "account_expired"));
    }
    fates
}

/// People whom the fixtures do not know.
fn newcomers() -> String {
    let names = ["again", "leaver", "guessed", "moved", "over", "plain"];
    let people: String = names.iter().map(|name| person(name) + "\n").collect();
    let dns: Vec<String> = names.iter().map(|name| format!("uid={name},{PEOPLE}")).collect();
    people + &members("add", "contact_tracers", &dns)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openldap_ends_the_sessions_that_it_would_not_let_begin() {
    let slapd = started(Slapd::start).await;
    slapd.ldapmodify(&newcomers());
    let (world, time) = world(&slapd.toml(LdapTransport::Tls)).await;
    let fates = plain_fates(
        "replace: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n",
        Some("replace: pwdEndTime\npwdEndTime: 20200101000000Z\n"),
        "replace: pwdAccountLockedTime\npwdAccountLockedTime: 20260101000000Z\n",
    );
    fulfil(&world, &time, &fates, |ldif| {
        if !ldif.is_empty() {
            slapd.ldapmodify(ldif);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_server_389_ends_the_sessions_that_it_would_not_let_begin() {
    let (dirsrv, slapd) = tokio::join!(started(Dirsrv::start), started(Slapd::start));
    // Without this it keeps nothing that tells a password from a later one.
    dirsrv.ldapmodify(&modify(
        "cn=config",
        "replace: passwordTrackUpdateTime\npasswordTrackUpdateTime: on\n-\n\
         replace: passwordMustChange\npasswordMustChange: off\n",
    ));
    dirsrv.ldapmodify(&newcomers());
    let (world, time) = world(&toml_of(&dirsrv, &slapd)).await;
    let fates = plain_fates(
        "replace: nsAccountLock\nnsAccountLock: true\n",
        None,
        "replace: accountUnlockTime\naccountUnlockTime: 19700101000000Z\n",
    );
    fulfil(&world, &time, &fates, |ldif| {
        if !ldif.is_empty() {
            dirsrv.ldapmodify(ldif);
        }
    })
    .await;
}

fn toml_of(dirsrv: &Dirsrv, slapd: &Slapd) -> String {
    let port = dirsrv.directory(slapd).servers[0].port;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let toml = directory_through(slapd, LdapTransport::Plaintext, at);
    toml.replace("start_tls = false", "allow_plaintext = true")
}

/// `Another one 1` in quotation marks, in UTF-16LE, in base64.
const UNICODE_PASSWORD: &str = "IgBBAG4AbwB0AGgAZQByACAAbwBuAGUAIAAxACIA";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_directory_ends_the_sessions_that_it_would_not_let_begin() {
    let samba = started(Samba::start).await;
    let (world, time) = world(&samba.toml()).await;
    let change = |ldif: &str| {
        if !ldif.is_empty() {
            samba.ldapmodify(ldif);
        }
    };
    let dn = |name: &str| format!("CN={name},OU=people,{BASE}");
    let group = |name: &str| format!("CN={name},OU=groups,{BASE}");
    let member = |verb: &str, of: &str, dn: &str| {
        modify(&group(of), &format!("{verb}: member\nmember: {dn}\n"))
    };
    let obrien = samba.dn_of("obrien");
    let tracer = |name| (name, "contact_tracer");
    let fates = [
        fate(("sam", "super_admin"), "", None),
        fate(("lola", "admin"), "", None),
        fate(tracer("prim"), "", None),
        fate(tracer("carol"), delete(&dn("carol")), "account_gone"),
        fate(
            tracer("zoë"),
            modify(&dn("zoë"), "replace: userAccountControl\nuserAccountControl: 514\n"),
            "account_disabled",
        ),
        fate(
            tracer("obrien"),
            modify(&obrien, "replace: accountExpires\naccountExpires: 132223104000000000\n"),
            "account_expired",
        ),
        fate(
            ("alice", "admin"),
            modify(
                &dn("alice"),
                &format!("replace: unicodePwd\nunicodePwd:: {UNICODE_PASSWORD}\n"),
            ),
            "password_changed",
        ),
        fate(
            tracer("nina"),
            member("delete", "contact_tracers", &group("region_north")),
            "role_lost",
        ),
        fate(
            ("both", "super_admin"),
            member("delete", "super_admins", &dn("both")),
            "role_changed",
        ),
        fate(tracer("expiring"), member("add", "admins", &dn("expiring")), "role_changed"),
    ];
    fulfil(&world, &time, &fates, change).await;

    // Few enough that each is asked about alone. A primary group that is given up stays a
    // group like others until it is taken away as well.
    let primary = modify(&dn("prim"), "replace: primaryGroupID\nprimaryGroupID: 513\n");
    let left = member("delete", "contact_tracers", &dn("prim"));
    let fates = [
        fate(tracer("prim"), format!("{primary}\n{left}"), "role_lost"),
        fate(("lola", "admin"), member("delete", "loop_a", &dn("lola")), "role_lost"),
        fate(("sam", "super_admin"), "", None),
    ];
    fulfil(&world, &time, &fates, change).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_asks_the_directory_first() {
    let slapd = started(Slapd::start).await;
    slapd.ldapmodify(&newcomers());
    let (world, time) = World::with_time(|setup| {
        let toml = slapd.toml(LdapTransport::Tls);
        // So that no timer takes part.
        setup.directory(&toml.replacen("timeout", "recheck_interval = \"9h\"\ntimeout", 1));
    })
    .await;
    let refresh = async |client: &Client| client.post("/auth/refresh").own_page().send().await;
    let mut clients = BTreeMap::new();
    for name in ["sam", "alice", "carol", "leaver", "nina", "over"] {
        clients.insert(name, sign_in(&world, name).await);
    }
    let dn = |name: &str| format!("uid={name},{PEOPLE}");
    let disable = |name: &str| {
        modify(&dn(name), "replace: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n")
    };
    slapd.ldapmodify(&disable("alice"));
    slapd.ldapmodify(&members("delete", "contact_tracers", &[dn("leaver")]));
    slapd.ldapmodify(&members("add", "super_admins", &[dn("nina")]));
    for (name, reason) in
        [("alice", "account_disabled"), ("leaver", "role_lost"), ("nina", "role_changed")]
    {
        refresh(&clients[name]).await.expect(401, "SessionRevoked");
        let session = token_of(&clients[name]).claim("sid").to_owned();
        let record = revocation(&world.gateway, &session).await;
        assert_eq!((&record["outcome"], &record["client"]), (&reason.into(), &"127.0.0.1".into()));
        clients[name].get("/app/echo").send().await.expect(401, "SessionRevoked");
    }
    refresh(&clients["sam"]).await.expect_status(200);

    // In passing the session ends while the request is under way, and with it its streams.
    let mut socket = websocket::open(&clients["over"], "/app/ws", OWN).await.expect("a WebSocket");
    time.advance(Duration::from_mins(8));
    slapd.ldapmodify(&(disable("carol") + "\n" + &delete(&dn("over"))));
    for name in ["carol", "over"] {
        ends(&clients[name], name).await;
    }
    within(Duration::from_secs(5), "the WebSocket closes", async {
        while let Some(Ok(_)) = futures_util::StreamExt::next(&mut socket).await {}
    })
    .await;
    clients["sam"].get("/app/echo").send().await.expect_status(200);

    // Past its end a token is renewed before the request is served, or not at all.
    time.advance(Duration::from_mins(40));
    slapd.ldapmodify(&disable("sam"));
    clients["sam"].get("/app/echo").send().await.expect(401, "SessionRevoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_at_once_share_one_search() {
    let slapd = started(Slapd::start).await;
    let (world, time) = world(&slapd.toml(LdapTransport::Tls)).await;
    let sam = sign_in(&world, "sam").await;
    let searches = async || {
        let labels = [("operation", "recheck")];
        world.gateway.metrics().await.sum("bindgate_directory_operations_total", &labels)
    };
    time.advance(Duration::from_mins(4));
    let before = searches().await;
    let mut renewals = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let sam = sam.clone();
        renewals.spawn(async move { sam.post("/auth/refresh").own_page().send().await });
    }
    while let Some(answer) = renewals.join_next().await {
        answer.expect("no panic").expect_status(200);
    }
    assert!((searches().await - before - 1.0).abs() < 0.5, "one search");
    // Requests that renew nothing ask nothing.
    for _ in 0..20 {
        sam.get("/app/echo").send().await.expect_status(200);
    }
    assert!((searches().await - before - 1.0).abs() < 0.5, "one search");
}
