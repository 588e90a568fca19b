//! Several servers: which one is asked, which one instead, and for what never a second.

use std::time::Duration;

use bindgate::ambient::Entropy;
use bindgate::config;
use bindgate::config::LdapTransport;
use bindgate::directory::{Directory, DirectoryError, Rejection, VerifyError};
use bindgate::metrics::Metrics;
use tokio::time::{Instant, sleep};

use super::{dn, login, rejection};
use crate::support::eventually;
use crate::support::relay::{Mood, Relay};
use crate::support::slapd::{PASSWORD, Slapd};

/// Both servers in one section, in this order.
fn both(first: &Slapd, second: &Slapd) -> config::Directory {
    let mut config = first.directory(LdapTransport::Tls);
    let other = second.directory(LdapTransport::Tls);
    config.servers.extend(other.servers);
    config.authorities.get_or_insert_default().extend(other.authorities.into_iter().flatten());
    config
}

fn prepared(config: &config::Directory) -> (Directory, Metrics) {
    let metrics = Metrics::new().expect("metrics");
    let directory = Directory::new(config, &metrics, &Entropy::system()).expect("valid");
    (directory, metrics)
}

fn name(config: &config::Directory, place: usize) -> String {
    format!("{}:{}", config.servers[place].host, config.servers[place].port)
}

#[tokio::test]
async fn the_first_server_that_answers_is_asked_and_again_when_it_is_back() {
    let (mut first, second) = (Slapd::start_telling(), Slapd::start_telling());
    let config = both(&first, &second);
    let (directory, metrics) = prepared(&config);
    let [first_up, second_up] = [0, 1].map(|place| metrics.directory_up(&name(&config, place)));
    let user_binds =
        |slapd: &Slapd| slapd.binds().iter().filter(|bound| bound.contains("ou=people")).count();
    let observe = async {
        eventually("both are up", || (first_up.get() + second_up.get() == 2).then_some(())).await;
        login(&directory, "alice", PASSWORD).await.expect("up");
        assert_eq!((user_binds(&first), user_binds(&second)), (1, 0));

        first.stop();
        let person = login(&directory, "alice", PASSWORD).await.expect("the second answers");
        assert_eq!(person.role.as_str(), "admin");
        eventually("it is known", || (first_up.get() == 0).then_some(())).await;
        assert!(directory.is_up() && second_up.get() == 1);
        login(&directory, "alice", PASSWORD).await.expect("the second answers");
        assert_eq!(user_binds(&second), 2);

        first.resume();
        eventually("the first is back", || (first_up.get() == 1).then_some(())).await;
        login(&directory, "alice", PASSWORD).await.expect("up");
        assert_eq!((user_binds(&first), user_binds(&second)), (1, 2), "its log began anew");
    };
    tokio::select! {
        () = directory.keep_up() => panic!("it never ends"),
        () = observe => {}
    }
}

#[tokio::test]
async fn a_refused_password_is_final_and_no_second_server_hears_of_it() {
    let (first, second) = (Slapd::start(), Slapd::start());
    // It is right at the second server alone.
    second.ldapmodify(&format!(
        "dn: {}\nchangetype: modify\nreplace: userPassword\nuserPassword: other\n",
        dn("alice")
    ));
    let (directory, _) = prepared(&both(&first, &second));
    for failures in 1..=3 {
        let outcome = login(&directory, "alice", "other").await;
        assert_eq!(rejection(outcome), Ok(Rejection::WrongPassword));
        assert_eq!(first.failed_binds(&dn("alice")), failures);
    }
    let outcome = login(&directory, "nobody", "other").await;
    assert_eq!(rejection(outcome), Ok(Rejection::NoSuchUser));
    let outcome = login(&directory, "locked", PASSWORD).await;
    assert_eq!(rejection(outcome), Ok(Rejection::Locked));
    assert_eq!(second.failed_binds(&dn("alice")), 0);
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_one_login_a_part_of_its_time() {
    let (first, second) = (Slapd::start(), Slapd::start());
    let server = ([127, 0, 0, 1], first.port(LdapTransport::Tls)).into();
    let relay = Relay::to(server).await;
    let mut config = both(&first, &second);
    config.servers[0].port = relay.address.port();
    config.timeout = Duration::from_secs(6);
    let (directory, _) = prepared(&config);
    login(&directory, "alice", PASSWORD).await.expect("up");
    relay.becomes(Mood::Stall);
    let began = Instant::now();
    login(&directory, "alice", PASSWORD).await.expect("the second answers in time");
    assert!(began.elapsed() < config.timeout, "{:?}", began.elapsed());
    // Nobody gets through to it: it is left alone until somebody looks.
    let began = Instant::now();
    for _ in 0..5 {
        login(&directory, "alice", PASSWORD).await.expect("the second answers");
    }
    assert!(began.elapsed() < config.timeout, "{:?}", began.elapsed());
    let opened = relay.opened();
    login(&directory, "alice", PASSWORD).await.expect("the second answers");
    assert_eq!(relay.opened(), opened, "it is not asked");
}

#[tokio::test]
async fn with_no_server_left_one_login_at_a_time_finds_out_whether_that_is_still_so() {
    let (mut first, mut second) = (Slapd::start(), Slapd::start());
    let config = both(&first, &second);
    let (directory, _) = prepared(&config);
    login(&directory, "alice", PASSWORD).await.expect("up");
    first.stop();
    second.stop();
    for _ in 0..10 {
        let outcome = login(&directory, "alice", PASSWORD).await;
        assert!(
            matches!(outcome, Err(VerifyError::Unavailable(DirectoryError::Connect(_)))),
            "{outcome:?}"
        );
    }
    assert!(!directory.is_up());
    second.resume();
    // Whatever pause had been reached: the next login does not wait for its end.
    login(&directory, "alice", PASSWORD).await.expect("one is back");
    assert!(directory.is_up());
}

#[tokio::test]
async fn a_service_account_that_one_server_refuses_is_taken_to_the_other() {
    let (first, second) = (Slapd::start(), Slapd::start());
    let config = both(&first, &second);
    first.ldapmodify(&format!(
        "dn: {}\nchangetype: modify\nreplace: userPassword\nuserPassword: other\n",
        config.bind_dn
    ));
    let (directory, _) = prepared(&config);
    for _ in 0..5 {
        login(&directory, "alice", PASSWORD).await.expect("the second answers");
    }
    assert_eq!(first.failed_binds(&config.bind_dn), 1, "lest it be locked");
}

#[tokio::test]
async fn a_server_that_is_looked_at_without_end_is_looked_at_seldom() {
    let slapd = Slapd::start();
    let server = ([127, 0, 0, 1], slapd.port(LdapTransport::Tls)).into();
    let relay = Relay::to(server).await;
    relay.becomes(Mood::Cut);
    let mut config = slapd.directory(LdapTransport::Tls);
    config.servers[0].port = relay.address.port();
    let (directory, _) = prepared(&config);
    let began = Instant::now();
    tokio::select! {
        () = directory.keep_up() => panic!("it never ends"),
        () = sleep(Duration::from_secs(3)) => {}
    }
    // Pauses of at least 125, 250, 500, 1000 and 2000 ms lie between the looks.
    assert!((2..=5).contains(&relay.opened()), "{} in {:?}", relay.opened(), began.elapsed());
}
