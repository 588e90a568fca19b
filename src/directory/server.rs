//! One server: the connection that all searches share, bound as the service account,
//! and some that do nothing but bind users. A user never binds on the first, and
//! nothing is ever searched on the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ldap3::Scope;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::ambient::Entropy;
use crate::config;
use crate::directory::bind::BindAnswer;
use crate::directory::binding::Binding;
use crate::directory::breaker::{Breaker, Failure, Trial};
use crate::directory::connection::{Connection, Found, Search};
use crate::directory::endpoint::Endpoint;
use crate::directory::filter::{Attribute, Filter};
use crate::directory::group::NO_ATTRIBUTES;
use crate::directory::meter::{Meter, Purpose};
use crate::directory::outcome::Outcome;
use crate::directory::password_modify::{Changed, PasswordChange};
use crate::directory::{DirectoryError, Operation};
use crate::metrics::{DirectoryUp, Metrics};
use crate::secret::Secret;

/// Longest time between two looks at a server that answers.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between any two.
const LOOKS_APART: Duration = Duration::from_secs(1);
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

    /// Looks at the server regularly, at once when an operation failed or the shared
    /// connection was lost, and when a pause is over; keeps that connection open.
    pub(super) async fn keep_up(self: Arc<Self>) {
        tokio::join!(self.keep_looking(), self.keep_closing());
    }

    async fn keep_looking(&self) {
        // Less than the time after which the server would close it.
        let interval = LOOK_INTERVAL.min(self.terms.idle_timeout / 2);
        loop {
            let looked = Instant::now();
            self.look().await;
            if let Some(until) = self.breaker.down_until() {
                sleep_until(until).await;
                continue;
            }
            let service = self.service_ended().await;
            sleep_until(looked + LOOKS_APART.min(interval)).await;
            tokio::select! {
                () = sleep_until(looked + interval) => {}
                () = self.look_again.notified() => {}
                () = service => {}
            }
        }
    }

    /// Closes bind connections as soon as nobody used them for long enough.
    async fn keep_closing(&self) {
        loop {
            let kept = self.terms.idle_timeout;
            let first = {
                let mut idle = self.idle();
                idle.retain(|idle| idle.is_fresh(kept));
                idle.iter().map(|idle| idle.since).min()
            };
            sleep_until(first.unwrap_or_else(Instant::now) + kept).await;
        }
    }

    /// Whether the server answers the service account; once more on a new connection
    /// when the old one turns out to be lost.
    async fn look(&self) {
        let search = Search {
            operation: Operation::Probe,
            base: "",
            scope: Scope::Base,
            filter: &Filter::Present(self.terms.object_class.clone()),
            attributes: NO_ATTRIBUTES,
            entries_max: 1,
        };
        for _ in 0..2 {
            let result = match self.service().await {
                Ok(connection) => self.search(&connection, &search).await,
                Err(error) => Err(error),
            };
            if !matches!(result, Err(DirectoryError::Lost)) {
                return;
            }
        }
    }

    /// Resolves when the shared connection has ended, at once when there is none.
    async fn service_ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let ended = match &*self.service.lock().await {
            Service::Bound(connection) => Some(connection.ended()),
            _ => None,
        };
        async move {
            if let Some(ended) = ended {
                ended.await;
            }
        }
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

    /// Runs an operation, counts how it ended, and remembers what that says of the server.
    async fn observe<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        self.observe_after(Duration::ZERO, operation, work).await
    }

    /// The same for what waits for others first, and so may have little time left.
    async fn observe_fairly<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        self.observe_after(self.terms.fair, operation, work).await
    }

    async fn observe_after<T>(
        &self,
        least: Duration,
        operation: Operation,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        let due = Instant::now() + least;
        let mut verdict = Verdict { server: self, operation, due, spoken: false };
        let result = self.meter.observe(operation, work).await;
        verdict.spoken = true;
        self.judge(operation, result.as_ref().err());
        result
    }

    fn judge(&self, operation: Operation, error: Option<&DirectoryError>) {
        let server = self.meter.server();
        let begins = matches!(operation, Operation::Connect | Operation::ServiceBind);
        match error {
            Some(error) if error.is_of_the_server() => {
                let certain = match error {
                    // It may be the only one that was.
                    DirectoryError::Lost => false,
                    // One slow answer alone does not say that the only server is down; but
                    // nobody else should wait for it while there is another.
                    DirectoryError::Timeout if self.terms.several => true,
                    _ => begins || operation == Operation::Probe,
                };
                let failure = if certain { Failure::Certain } else { Failure::Perhaps };
                if self.breaker.failed(failure) {
                    tracing::warn!(server, %error, "a directory server does not answer");
                    self.idle().clear();
                }
                self.look_again.notify_one();
            }
            // That somebody is there is not yet an answer.
            _ if begins => {}
            _ => {
                if self.breaker.succeeded() {
                    tracing::info!(server, "a directory server answers");
                }
            }
        }
        self.up.set(self.breaker.is_up());
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

/// An operation that is dropped half-way ran out of time.
struct Verdict<'s> {
    server: &'s Server,
    operation: Operation,
    /// From when on that is the server's fault.
    due: Instant,
    spoken: bool,
}

impl Drop for Verdict<'_> {
    fn drop(&mut self) {
        if self.spoken {
            return;
        }
        if Instant::now() >= self.due {
            self.server.judge(self.operation, Some(&DirectoryError::Timeout));
        } else {
            self.server.look_again.notify_one();
        }
    }
}
