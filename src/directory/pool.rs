//! The connections to one server: one that all searches share, bound as the
//! service account, and some that do nothing but bind users. A user never binds on
//! the first, and nothing is ever searched on the others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;

use crate::config;
use crate::directory::bind::BindAnswer;
use crate::directory::connection::{Connection, Endpoint, Found, Search};
use crate::directory::meter::Meter;
use crate::directory::outcome::Outcome;
use crate::directory::{DirectoryError, Operation};
use crate::secret::Secret;

/// Most user binds at one time, and most connections kept for them.
const BIND_CONNECTIONS_MAX: usize = 32;
/// How long an unused bind connection is kept: less than servers and firewalls usually do.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How long the service account is left alone after it was refused, lest we lock it.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// The connections to one server.
pub(super) struct Pool {
    endpoint: Endpoint,
    bind_dn: String,
    bind_password: Secret<String>,
    meter: Meter,
    service: AsyncMutex<Service>,
    bind_slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

enum Service {
    None,
    Bound(Arc<Connection>),
    Refused { code: u32, at: Instant },
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(config: &config::Directory, endpoint: Endpoint, meter: Meter) -> Self {
        Self {
            endpoint,
            bind_dn: config.bind_dn.clone(),
            bind_password: config.bind_password.clone(),
            meter,
            service: AsyncMutex::new(Service::None),
            bind_slots: Semaphore::new(BIND_CONNECTIONS_MAX),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Searches as the service account; once more on a new connection when the
    /// old one turns out to be lost.
    pub(super) async fn search(&self, search: Search<'_>) -> Result<Found, DirectoryError> {
        match self.search_once(&search).await {
            Err(DirectoryError::Lost) => self.search_once(&search).await,
            other => other,
        }
    }

    async fn search_once(&self, search: &Search<'_>) -> Result<Found, DirectoryError> {
        let connection = self.service().await?;
        self.meter.observe(search.operation, connection.search(search)).await
    }

    /// Asks whether `password` is that of `dn`. Exactly one bind is sent: a second
    /// one would count twice against the account.
    pub(super) async fn bind(
        &self,
        dn: &str,
        password: &Secret<String>,
    ) -> Result<BindAnswer, DirectoryError> {
        let _slot = self.bind_slots.acquire().await.map_err(|_| DirectoryError::Lost)?;
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let bind = connection.bind(dn, password);
        let answer = self.meter.observe(Operation::UserBind, bind).await?;
        if answer.plain && connection.is_usable() {
            self.idle().push(Idle { connection, since: Instant::now() });
        }
        Ok(answer)
    }

    /// Closes bind connections that nobody used for a while.
    pub(super) fn close_idle(&self) {
        self.idle().retain(Idle::is_fresh);
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(Idle::is_fresh);
        idle.pop().map(|idle| idle.connection)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Connection, DirectoryError> {
        // Boxed, because a TLS handshake is large and logins seldom need one.
        let connecting = Box::pin(self.endpoint.connect());
        self.meter.observe(Operation::Connect, connecting).await
    }

    /// The shared connection, made anew when there is none that is sound.
    async fn service(&self) -> Result<Arc<Connection>, DirectoryError> {
        let mut service = self.service.lock().await;
        match &*service {
            Service::Bound(connection) if connection.is_usable() => {
                return Ok(Arc::clone(connection));
            }
            Service::Refused { code, at } if at.elapsed() < REFUSED_PAUSE => {
                return Err(DirectoryError::ServiceBind { code: *code });
            }
            _ => *service = Service::None,
        }
        let connection = self.connect().await?;
        match self.meter.observe(Operation::ServiceBind, self.bind_service(&connection)).await {
            Ok(()) => {
                let connection = Arc::new(connection);
                *service = Service::Bound(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                if let DirectoryError::ServiceBind { code } = error {
                    *service = Service::Refused { code, at: Instant::now() };
                }
                Err(error)
            }
        }
    }

    async fn bind_service(&self, connection: &Connection) -> Result<(), DirectoryError> {
        match connection.bind(&self.bind_dn, &self.bind_password).await {
            Ok(BindAnswer { outcome: Outcome::Accepted(notice), .. }) => {
                if let Some(notice) = notice {
                    tracing::warn!(notice = notice.detail(), "the service account's password");
                }
                Ok(())
            }
            Ok(BindAnswer { code, .. }) | Err(DirectoryError::Refused { code, .. }) => {
                Err(DirectoryError::ServiceBind { code })
            }
            Err(error) => Err(error),
        }
    }
}

impl Idle {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < IDLE_MAX && self.connection.is_usable()
    }
}
