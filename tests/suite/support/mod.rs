//! Real servers, real clients and the means to break what is between them. Started
//! on free loopback ports, ended with the value that holds them.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod dirsrv;
pub(crate) mod dns;
pub(crate) mod gateway;
pub(crate) mod ldif;
pub(crate) mod metrics;
pub(crate) mod node;
pub(crate) mod raw;
#[expect(unreachable_pub, reason = "also used by the tests beside the store's code")]
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod saboteur;
pub(crate) mod samba;
pub(crate) mod setup;
pub(crate) mod several;
pub(crate) mod slapd;
pub(crate) mod token;
pub(crate) mod upstream;
mod upstream_connection;
pub(crate) mod users;
pub(crate) mod verifier;
pub(crate) mod websocket;
pub(crate) mod world;

/// How long a condition may take to come true on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is a value; fails loudly when there is none in time.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    eventually_async(what, async || probe()).await
}

/// As `eventually`, for questions that take a while to ask.
pub(crate) async fn eventually_async<T>(
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The value of a future that must not take longer than this.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(limit, future).await else {
        panic!("took longer than {limit:?}: {what}");
    };
    value
}
