//! The connections to a server: one for all searches, some that bind and nothing else,
//! never more than is allowed, and none that nobody needs.

use std::sync::Arc;
use std::time::Duration;

use bindgate::ambient::Entropy;
use bindgate::config;
use bindgate::config::LdapTransport;
use bindgate::directory::{Directory, Rejection};
use bindgate::metrics::Metrics;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{login, rejection};
use crate::support::relay::Relay;
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::{eventually, within};

/// A directory behind a relay, and what its metrics say of its connections.
struct Watched {
    relay: Relay,
    directory: Arc<Directory>,
    metrics: Metrics,
    server: String,
}

impl Watched {
    async fn new(slapd: &Slapd, change: impl FnOnce(&mut config::Directory)) -> Self {
        let server = ([127, 0, 0, 1], slapd.port(LdapTransport::Tls)).into();
        let relay = Relay::to(server).await;
        let mut config = slapd.directory(LdapTransport::Tls);
        config.servers[0].port = relay.address.port();
        change(&mut config);
        let metrics = Metrics::new().expect("metrics");
        let directory = Directory::new(&config, &metrics, &Entropy::system()).expect("valid");
        let server = format!("127.0.0.1:{}", relay.address.port());
        Self { relay, directory: Arc::new(directory), metrics, server }
    }

    /// Open connections for searches, for binds, and through the relay.
    fn open(&self) -> (i64, i64, usize) {
        let open = |purpose| self.metrics.directory_connections_open(&self.server, purpose).get();
        (open("service"), open("bind"), self.relay.open())
    }

    async fn becomes(&self, what: &str, open: (i64, i64, usize)) {
        eventually(&format!("{what}: {open:?}"), || (self.open() == open).then_some(())).await;
    }

    fn waits(&self) -> u64 {
        self.metrics.limit_hits("directory_bind_connections").get()
    }
}

#[tokio::test]
async fn a_bind_connection_is_kept_after_a_plain_answer_alone() {
    let slapd = Slapd::start();
    let watched = Watched::new(&slapd, |_| {}).await;
    let directory = &watched.directory;
    login(directory, "alice", PASSWORD).await.expect("right");
    watched.becomes("after a plain success", (1, 1, 2)).await;
    for _ in 0..3 {
        let outcome = login(directory, "alice", "wrong").await;
        assert_eq!(rejection(outcome), Ok(Rejection::WrongPassword));
        login(directory, "carol", PASSWORD).await.expect("right");
    }
    assert_eq!((watched.open(), watched.relay.opened()), ((1, 1, 2), 2), "it serves again");
    for (closed, name) in ["locked", "reset", "expired", "gracious"].into_iter().enumerate() {
        drop(login(directory, name, PASSWORD).await);
        watched.becomes(name, (1, 0, 1)).await;
        login(directory, "alice", PASSWORD).await.expect("right");
        assert_eq!(watched.relay.opened(), 3 + closed, "{name}: a new connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_passwords_are_tried_at_once_than_allowed_and_the_others_wait() {
    let slapd = Slapd::start();
    let watched = Watched::new(&slapd, |config| config.bind_connections = 3).await;
    let mut logins = JoinSet::new();
    for number in 0..60 {
        let directory = Arc::clone(&watched.directory);
        let password = if number % 3 == 0 { "wrong" } else { PASSWORD };
        logins.spawn(async move { login(&directory, "alice", password).await.is_ok() });
    }
    let mut succeeded = 0;
    while let Some(outcome) = logins.join_next().await {
        succeeded += u32::from(outcome.expect("no panic"));
        assert!(watched.open().1 <= 3, "{:?}", watched.open());
    }
    assert_eq!(succeeded, 40);
    assert!(watched.waits() > 0, "it is told that somebody waited");
    assert!(watched.relay.opened() <= 4, "{} connections", watched.relay.opened());
}

#[tokio::test]
async fn what_nobody_uses_is_closed_in_time_and_the_shared_one_is_kept() {
    let mut slapd = Slapd::start();
    // The server itself hangs up after two seconds without a word.
    slapd.configure("idletimeout 2\n");
    let watched = Watched::new(&slapd, |config| {
        config.idle_timeout = Duration::from_millis(800);
    })
    .await;
    let observe = async {
        watched.becomes("the shared one alone", (1, 0, 1)).await;
        login(&watched.directory, "alice", PASSWORD).await.expect("right");
        let used = Instant::now();
        watched.becomes("one more", (1, 1, 2)).await;
        watched.becomes("it is closed", (1, 0, 1)).await;
        assert!(used.elapsed() >= Duration::from_millis(700), "{:?}", used.elapsed());
        sleep(Duration::from_secs(4)).await;
        login(&watched.directory, "alice", PASSWORD).await.expect("right");
        assert_eq!(watched.relay.opened(), 3, "the shared one is as old as before");
    };
    tokio::select! {
        () = watched.directory.keep_up() => panic!("it never ends"),
        () = observe => {}
    }
    let Watched { relay, directory, .. } = watched;
    drop(directory);
    eventually("nothing is left open", || (relay.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_shared_connection_that_was_lost_is_there_again_before_anybody_logs_in() {
    let slapd = Slapd::start();
    let watched = Watched::new(&slapd, |_| {}).await;
    let observe = async {
        for lost in 1..=3 {
            watched.becomes("there it is", (1, 0, 1)).await;
            assert_eq!(watched.relay.opened(), lost);
            watched.relay.end_all();
            let back = async {
                while watched.relay.opened() == lost {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            // Well before it would look without a reason.
            within(Duration::from_secs(5), "it is back", back).await;
        }
    };
    tokio::select! {
        () = watched.directory.keep_up() => panic!("it never ends"),
        () = observe => {}
    }
}
