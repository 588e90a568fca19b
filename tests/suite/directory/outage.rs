//! Servers that are away, come back, or are not the ones that were meant.

use std::time::Duration;

use bindgate::ambient::Entropy;
use bindgate::config::LdapTransport;
use bindgate::directory::Directory;
use bindgate::directory::{DirectoryError, VerifyError};
use bindgate::identity::Credentials;
use bindgate::metrics::Metrics;
use bindgate::secret::Secret;
use tokio::time::{sleep, timeout};

use super::{PATIENCE, TRANSPORTS, directory, login};
use crate::support::slapd::{PASSWORD, Slapd};

#[tokio::test]
async fn a_server_that_went_away_and_came_back_is_used_again_without_restart() {
    let mut slapd = Slapd::start();
    for transport in TRANSPORTS {
        let directory = directory(&slapd.directory(transport));
        login(&directory, "alice", PASSWORD).await.expect("up");
        slapd.stop();
        let outcome = login(&directory, "alice", PASSWORD).await;
        assert!(
            matches!(outcome, Err(VerifyError::Unavailable(DirectoryError::Connect(_)))),
            "{outcome:?}"
        );
        slapd.resume();
        login(&directory, "alice", PASSWORD).await.expect("up again");
    }
}

#[tokio::test]
async fn a_server_that_restarted_between_two_logins_is_not_noticed() {
    let mut slapd = Slapd::start();
    let directory = directory(&slapd.directory(LdapTransport::Tls));
    for _ in 0..3 {
        login(&directory, "alice", PASSWORD).await.expect("up");
        slapd.stop();
        slapd.resume();
    }
}

#[tokio::test]
async fn whether_the_server_answers_is_known_without_a_login() {
    let mut slapd = Slapd::start();
    let metrics = Metrics::new().expect("metrics");
    let config = slapd.directory(LdapTransport::StartTls);
    let gauge = metrics.directory_up(&format!("127.0.0.1:{}", config.servers[0].port));
    let directory = Directory::new(&config, &metrics, &Entropy::system()).expect("valid");
    assert!(!directory.is_up());
    let becomes = async |up: bool| {
        let reached = async {
            while directory.is_up() != up || gauge.get() != i64::from(up) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("the state is noticed");
    };
    let observe = async {
        becomes(true).await;
        slapd.stop();
        // A login that fails makes it look again at once.
        let password = Secret::new(PASSWORD.to_owned());
        let alice = Credentials::parse("alice".to_owned(), password).expect("possible");
        assert!(directory.verify(&alice).await.is_err());
        becomes(false).await;
        slapd.resume();
        becomes(true).await;
    };
    tokio::select! {
        () = directory.keep_up() => panic!("it never ends"),
        () = observe => {}
    }
    let text = String::from_utf8(metrics.encode().expect("text")).expect("UTF-8");
    assert!(text.contains("bindgate_directory_operations_total{operation=\"probe\",result=\"ok\""));
    assert!(text.contains("operation=\"connect\",result=\"connect\""));
}

#[tokio::test]
async fn a_server_of_another_authority_is_sent_nothing() {
    let (slapd, other) = (Slapd::start(), Slapd::start());
    for transport in TRANSPORTS {
        let mut config = slapd.directory(transport);
        config.authorities = other.directory(transport).authorities;
        let outcome = login(&directory(&config), "alice", PASSWORD).await;
        assert!(
            matches!(outcome, Err(VerifyError::Unavailable(DirectoryError::Tls(_)))),
            "{outcome:?}"
        );
        // Nor is one whose certificate is for another name.
        let mut config = slapd.directory(transport);
        config.servers[0].host = "localhost".to_owned();
        let outcome = login(&directory(&config), "alice", PASSWORD).await;
        assert!(
            matches!(outcome, Err(VerifyError::Unavailable(DirectoryError::Tls(_)))),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn tls_and_start_tls_are_not_mistaken_for_each_other() {
    let slapd = Slapd::start();
    for (transport, port) in [
        (LdapTransport::Tls, slapd.port(LdapTransport::StartTls)),
        (LdapTransport::StartTls, slapd.port(LdapTransport::Tls)),
        (LdapTransport::Plaintext, slapd.port(LdapTransport::Plaintext)),
    ] {
        let mut config = slapd.directory(transport);
        config.servers[0].port = port;
        config.timeout = Duration::from_secs(1);
        let outcome = login(&directory(&config), "alice", PASSWORD).await;
        assert!(matches!(outcome, Err(VerifyError::Unavailable(_))), "{outcome:?}");
    }
}
