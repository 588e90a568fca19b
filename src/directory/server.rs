//! One server: the connection that all searches share, bound as the service account,
//! and some that do nothing but bind users. A user never binds on the first, and
//! nothing is ever searched on the others.

mod upkeep;
mod verdict;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::ambient::Entropy;
use crate::config;
use crate::directory::bind::BindAnswer;
use crate::directory::binding::Binding;
use crate::directory::breaker::{Breaker, Trial};
use crate::directory::connection::{Connection, Found, Search};
use crate::directory::endpoint::Endpoint;
use crate::directory::filter::Attribute;
use crate::directory::meter::{Meter, Purpose};
use crate::directory::outcome::Outcome;
use crate::directory::password_modify::{Changed, PasswordChange};
use crate::directory::{DirectoryError, Operation};
use crate::metrics::{DirectoryUp, Metrics};
use crate::secret::Secret;

/// How long the service account is left alone after it was refused, lest we lock it;
/// twice as long each time.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(10);
const REFUSED_PAUSE_MAX: Duration = Duration::from_mins(5);

/// With several servers, one of them gets this part of the time that a login has, so
/// that enough is left for another.
const SHARE_OF_ONE: u32 = 3;

/// What is the same for every server of a directory.
pub(super) struct Terms {
    bind_dn: String,
    bind_password: Secret<String>,
    bind_connections: usize,
    idle_timeout: Duration,
    /// Whether there are several servers.
    several: bool,
    /// How long one server may keep a search to itself, or a new connection.
    patience: Duration,
    /// How long it must have had for what is done for one login alone, before the end of
    /// that login's time counts against it.
    fair: Duration,
    /// What every entry has, also the root one.
    object_class: Attribute,
    metrics: Metrics,
    entropy: Entropy,
}

impl Terms {
    pub(super) fn new(
        config: &config::Directory,
        several: bool,
        (metrics, entropy): (&Metrics, &Entropy),
    ) -> Option<Self> {
        let fair = config.timeout / SHARE_OF_ONE;
        let patience = if several { fair } else { config.timeout };
        Some(Self {
            several,
            fair,
            bind_dn: config.bind_dn.clone(),
            bind_password: config.bind_password.clone(),
            bind_connections: config.bind_connections,
            idle_timeout: config.idle_timeout,
            patience,
            object_class: Attribute::parse("objectClass")?,
            metrics: metrics.clone(),
            entropy: entropy.clone(),
        })
    }
}

/// One server and the connections to it.
pub(super) struct Server {
    endpoint: Endpoint,
    terms: Arc<Terms>,
    meter: Meter,
    up: DirectoryUp,
    breaker: Breaker,
    service: AsyncMutex<Service>,
    bind_slots: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    look_again: Notify,
}

enum Service {
    None,
    Bound(Arc<Connection>),
    Refused { code: u32, times: u32, until: Instant },
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection for one bind, and the place among the limited number of them.
pub(super) struct Seat {
    connection: Connection,
    _slot: OwnedSemaphorePermit,
}

impl Seat {
    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Server {
    pub(super) fn new(endpoint: Endpoint, terms: &Arc<Terms>) -> Self {
        let meter = Meter::new(terms.metrics.clone(), endpoint.name());
        let up = meter.up();
        Self {
            endpoint,
            up,
            meter,
            breaker: Breaker::new(terms.entropy.clone()),
            service: AsyncMutex::new(Service::None),
            bind_slots: Arc::new(Semaphore::new(terms.bind_connections)),
            idle: Mutex::new(Vec::new()),
            look_again: Notify::new(),
            terms: Arc::clone(terms),
        }
    }

    /// `host:port`.
    pub(super) fn name(&self) -> &str {
        self.meter.server()
    }

    /// Whether it is this one, reached in this way.
    pub(super) fn is_at(&self, server: &config::LdapServer) -> bool {
        self.endpoint.server == *server
    }

    /// Whether it answered when it was last asked; false until it was.
    pub(super) fn is_up(&self) -> bool {
        self.breaker.is_up()
    }

    /// Whether everybody may ask it.
    pub(super) fn is_closed(&self) -> bool {
        self.breaker.is_closed()
    }

    /// The right to ask it all the same; `None` while somebody else does.
    pub(super) fn try_alone(&self) -> Option<Trial<'_>> {
        self.breaker.try_alone()
    }

    /// Searches on the shared connection, within this server's share of the time.
    pub(super) async fn search(
        &self,
        connection: &Connection,
        search: &Search<'_>,
    ) -> Result<Found, DirectoryError> {
        let searching = self.observe(search.operation, connection.search(search));
        timeout(self.terms.patience, searching).await.unwrap_or(Err(DirectoryError::Timeout))
    }

    /// Searches on the shared connection if there is a sound one. How that ends says
    /// nothing of the server: several such searches are sent at once and fail together,
    /// and what has failed is asked again when it is needed.
    pub(super) async fn search_ahead(&self, search: &Search<'_>) -> Result<Found, DirectoryError> {
        let connection = match self.service.try_lock().as_deref() {
            Ok(Service::Bound(connection)) if connection.is_usable() => Arc::clone(connection),
            _ => return Err(DirectoryError::Lost),
        };
        let searching = self.meter.observe(search.operation, connection.search(search));
        timeout(self.terms.patience, searching).await.unwrap_or(Err(DirectoryError::Timeout))
    }

    /// The shared connection, made anew when there is none that is sound.
    pub(super) async fn service(&self) -> Result<Arc<Connection>, DirectoryError> {
        let bound = timeout(self.terms.patience, self.bound()).await;
        bound.unwrap_or(Err(DirectoryError::Timeout))
    }

    /// A connection to bind on, as soon as one of the limited number is free.
    pub(super) async fn seat(&self, binding: &Binding) -> Result<Seat, DirectoryError> {
        let slots = Arc::clone(&self.bind_slots);
        let slot = if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            slot
        } else {
            self.meter.bind_waits();
            binding.waits(slots.acquire_owned()).await?.map_err(|_| DirectoryError::Lost)?
        };
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.connect(Purpose::Bind).await?,
        };
        Ok(Seat { connection, _slot: slot })
    }

    /// Asks whether `password` is that of `dn`. Exactly one bind is sent, and the
    /// connection is kept after a plain answer alone.
    pub(super) async fn bind(
        &self,
        seat: Seat,
        dn: &str,
        password: &Secret<String>,
        binding: &Binding,
    ) -> Result<BindAnswer, DirectoryError> {
        let answer = self.bind_alone(&seat, dn, password, binding).await?;
        if answer.plain && seat.connection.is_usable() {
            self.idle().push(Idle { connection: seat.connection, since: Instant::now() });
        }
        Ok(answer)
    }

    /// The same, on a connection that is not kept for others.
    pub(super) async fn bind_alone(
        &self,
        seat: &Seat,
        dn: &str,
        password: &Secret<String>,
        binding: &Binding,
    ) -> Result<BindAnswer, DirectoryError> {
        let bind = binding.sent(seat.connection.bind(dn, password));
        self.observe_fairly(Operation::UserBind, bind).await
    }

    /// Asks for a change of password, on a connection that is fit for it; once only.
    pub(super) async fn change_password(
        &self,
        connection: &Connection,
        change: &PasswordChange<'_>,
    ) -> Result<Changed, DirectoryError> {
        self.observe_fairly(Operation::PasswordChange, connection.change_password(change)).await
    }

    /// Whether passwords travel encrypted.
    pub(super) const fn is_encrypted(&self) -> bool {
        self.endpoint.is_encrypted()
    }

    async fn bound(&self) -> Result<Arc<Connection>, DirectoryError> {
        let mut service = self.service.lock().await;
        match &*service {
            Service::Bound(connection) if connection.is_usable() => Ok(Arc::clone(connection)),
            // Boxed, because a TLS handshake is large and searches seldom need one.
            _ => Box::pin(self.bind_anew(&mut service)).await,
        }
    }

    async fn bind_anew(&self, service: &mut Service) -> Result<Arc<Connection>, DirectoryError> {
        let refusals = match service {
            Service::Refused { code, until, .. } if Instant::now() < *until => {
                return Err(DirectoryError::ServiceBind { code: *code });
            }
            Service::Refused { times, .. } => *times,
            Service::None | Service::Bound(_) => {
                *service = Service::None;
                0
            }
        };
        let connection = self.connect(Purpose::Service).await?;
        match self.observe(Operation::ServiceBind, self.bind_service(&connection)).await {
            Ok(()) => {
                let connection = Arc::new(connection);
                *service = Service::Bound(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                if let DirectoryError::ServiceBind { code } = error {
                    let pause = REFUSED_PAUSE_MIN.saturating_mul(1 << refusals.min(8));
                    let until = Instant::now() + pause.min(REFUSED_PAUSE_MAX);
                    *service = Service::Refused { code, times: refusals + 1, until };
                }
                Err(error)
            }
        }
    }

    async fn bind_service(&self, connection: &Connection) -> Result<(), DirectoryError> {
        match connection.bind(&self.terms.bind_dn, &self.terms.bind_password).await {
            Ok(BindAnswer { outcome: Outcome::Accepted(notice), .. }) => {
                if let Some(notice) = notice {
                    tracing::warn!(notice = notice.detail(), "the service account's password");
                }
                Ok(())
            }
            // A server that is busy has not judged the account.
            Err(error @ DirectoryError::Refused { .. }) if error.is_of_the_server() => Err(error),
            Ok(BindAnswer { code, .. }) | Err(DirectoryError::Refused { code, .. }) => {
                Err(DirectoryError::ServiceBind { code })
            }
            Err(error) => Err(error),
        }
    }

    async fn connect(&self, purpose: Purpose) -> Result<Connection, DirectoryError> {
        let connecting = timeout(self.terms.patience, Box::pin(self.endpoint.connect()));
        let connecting = async { connecting.await.unwrap_or(Err(DirectoryError::Timeout)) };
        let connection = match purpose {
            Purpose::Service => self.observe(Operation::Connect, connecting).await?,
            Purpose::Bind => self.observe_fairly(Operation::Connect, connecting).await?,
        };
        Ok(connection.counted(self.meter.opened(purpose)))
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|idle| idle.is_fresh(self.terms.idle_timeout));
        idle.pop().map(|idle| idle.connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn is_fresh(&self, kept: Duration) -> bool {
        self.since.elapsed() < kept && self.connection.is_usable()
    }
}
