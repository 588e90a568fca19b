//! Many logins at the same moment: none that is right is refused because of others that
//! are under way, and of those that are wrong no more reach the directory than one after
//! the other would.

use bindgate::config::LdapTransport;
use futures_util::future::join_all;

use crate::support::client::Answer;
use crate::support::eventually_async;
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;
use crate::support::setup::Setup;
use crate::support::several::{Several, url};
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::world::{ADMIN, TRACER, World, log_in};

/// A server that locks an account at the fifth wrong password, and has so many further
/// people in one role.
fn slapd(people: usize) -> Slapd {
    let slapd = Slapd::start();
    slapd.ldapmodify(
        "dn: cn=default,ou=policies,dc=example,dc=org\nchangetype: modify\n\
         replace: pwdMaxFailure\npwdMaxFailure: 5\n",
    );
    let dn = |number| format!("uid=client{number},ou=people,dc=example,dc=org");
    let person = |number| {
        format!(
            "dn: {}\nobjectClass: inetOrgPerson\nuid: client{number}\ncn: {number}\n\
             sn: {number}\nuserPassword: {PASSWORD}\n\n",
            dn(number)
        )
    };
    let member = |number| format!("member: {}\n", dn(number));
    if people > 0 {
        slapd.ldapadd(&(0..people).map(person).collect::<String>());
        let members: String = (0..people).map(member).collect();
        let group = "cn=contact_tracers,ou=groups,dc=example,dc=org";
        slapd.ldapmodify(&format!("dn: {group}\nchangetype: modify\nadd: member\n{members}"));
    }
    slapd
}

/// A gateway with the limits as they come, before this directory.
async fn world(slapd: &Slapd) -> World {
    let world = World::with(|setup: &mut Setup| {
        setup.directory(&slapd.toml(LdapTransport::Tls));
    })
    .await;
    world.gateway.readiness(200).await;
    eventually_async("the directory's threshold is read", async || {
        let metrics = world.gateway.metrics().await;
        let read = metrics.sum("bindgate_directory_lockout_threshold", &[]);
        ((read - 5.0).abs() < 0.1).then_some(())
    })
    .await;
    world
}

async fn at_once(gateway: &Gateway, people: impl Iterator<Item = (String, &str)>) -> Vec<Answer> {
    let logins = people.map(|(name, password)| {
        let client = gateway.client();
        async move { log_in(&client, &name, password).await }
    });
    join_all(logins).await
}

async fn binds(gateway: &Gateway) -> f64 {
    let bound = [("operation", "user_bind")];
    gateway.metrics().await.sum("bindgate_directory_operations_total", &bound)
}

/// How many were told that there were too many tries; all others had the wrong password.
fn refused(answers: &[Answer]) -> usize {
    let refused = answers.iter().filter(|answer| {
        if answer.status != 429 {
            answer.expect(401, "InvalidCredentials");
            return false;
        }
        let wait = answer.header("retry-after").expect("Retry-After");
        assert!(wait.parse::<u64>().expect("seconds") > 60, "it is true: {wait}");
        true
    });
    refused.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_people_behind_one_address_log_in_at_once() {
    let slapd = slapd(40);
    let world = world(&slapd).await;
    let people = (0..40).map(|number| (format!("client{number}"), PASSWORD));
    for answer in at_once(&world.gateway, people).await {
        answer.expect_status(200);
    }
    world.gateway.counted("bindgate_logins_total", &[("result", "ok")], 40.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_right_logins_of_one_account_at_once_all_succeed_where_little_is_allowed() {
    let slapd = slapd(0);
    let world = world(&slapd).await;
    // In several spellings too, which meet at the entry.
    let people =
        (0..30).map(|number| (["carol", "CAROL", "carol "][number % 3].to_owned(), PASSWORD));
    for answer in at_once(&world.gateway, people).await {
        answer.expect_status(200);
    }
    world.gateway.counted("bindgate_throttled_total", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_thirty_wrong_passwords_at_once_the_directory_hears_no_more_than_the_limit() {
    let slapd = slapd(0);
    let world = world(&slapd).await;
    let before = binds(&world.gateway).await;
    let people = (0..30).map(|_| (TRACER.to_owned(), "wrong"));
    let answers = at_once(&world.gateway, people).await;
    // At a threshold of five, strangers have two.
    assert_eq!(refused(&answers), 28);
    let bound = binds(&world.gateway).await - before;
    assert!((bound - 2.0).abs() < 0.1, "{bound}");
    assert_eq!(slapd.failed_binds("uid=carol,ou=people,dc=example,dc=org"), 2);
    // Among right ones as well.
    let people = (0..30).map(|number| (ADMIN.to_owned(), [PASSWORD, "wrong"][number % 2]));
    at_once(&world.gateway, people).await;
    let failed = slapd.failed_binds("uid=alice,ou=people,dc=example,dc=org");
    assert!(failed <= 2, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_on_one_redis_let_no_more_wrong_passwords_through_than_one() {
    let redis = RedisServer::start(&[]);
    let urls = url(redis.port);
    let all = Several::start(3, |_, setup| {
        setup.set("store", "urls", &urls).set("throttle", "login_per_user", "\"4 per 15m\"");
        setup.set("throttle", "login_per_address", "\"1000 per 5m\"");
        // Nothing else holds them back.
        setup.set("throttle", "directory_lockout", "\"1000 per 15m\"");
    })
    .await;
    let guesses = all
        .gateways
        .iter()
        .map(|gateway| at_once(gateway, (0..30).map(|_| ("nina".to_owned(), "wrong"))));
    let answers: Vec<_> = join_all(guesses).await.into_iter().flatten().collect();
    assert_eq!(refused(&answers), 86);
    let mut bound = 0.0;
    for gateway in &all.gateways {
        bound += binds(gateway).await;
    }
    assert!((bound - 4.0).abs() < 0.1, "{bound}");
    // With the store a way off, those who ask at the same moment see each other all the same.
    let people = (0..30).map(|_| (TRACER.to_owned(), PASSWORD));
    for answer in at_once(&all.gateways[0], people).await {
        answer.expect_status(200);
    }
}
