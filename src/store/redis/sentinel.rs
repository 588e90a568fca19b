//! Which server the sentinels call the primary: asked for each connection, and now and
//! then while connections last, as the server before may go on as if nothing were.

use std::time::Duration;

use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{Client, RedisResult, TlsMode};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::RedisStore;
use crate::store::redis::connect::{Link, addresses, certificates};

/// How often they are asked while all seems well.
const EVERY: Duration = Duration::from_secs(2);

/// The primary, as the sentinels name it now; it was asked whether it is one.
pub(super) async fn primary(settings: &RedisStore, master: &str) -> RedisResult<Client> {
    let mut builder =
        SentinelClientBuilder::new(addresses(settings), master, SentinelServerType::Master)?
            .set_client_to_redis_db(settings.database);
    if let Some(username) = &settings.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &settings.password {
        builder = builder.set_client_to_redis_password(password.expose());
    }
    if settings.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates(settings))
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates(settings));
    }
    builder.build()?.async_get_client().await
}

/// Asks the sentinels beside everything else.
pub(super) struct Watch {
    asked: Instant,
    answer: Option<JoinHandle<Option<String>>>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { asked: Instant::now(), answer: None }
    }

    /// The primary's address, once for each time that they were asked. Waits for
    /// nobody; whoever does not answer changes nothing.
    pub(super) async fn named(&mut self, link: &Link) -> Option<String> {
        if let Some(answer) = self.answer.take_if(|answer| answer.is_finished()) {
            return answer.await.ok().flatten();
        }
        if self.answer.is_none() && self.asked.elapsed() >= EVERY {
            self.asked = Instant::now();
            self.answer = link.ask_sentinels();
        }
        None
    }
}
