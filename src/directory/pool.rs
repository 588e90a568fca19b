//! All servers of a directory, in order: who is asked, and who is asked instead when
//! that one fails. A search is asked of a second one; a password is never tried twice.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;

use crate::ambient::Entropy;
use crate::config;
use crate::directory::DirectoryError;
use crate::directory::bind::BindAnswer;
use crate::directory::binding::Binding;
use crate::directory::breaker::Trial;
use crate::directory::connection::{Connection, Found, Search};
use crate::directory::discovery::{Discovery, Listed};
use crate::directory::endpoint::{Endpoint, tls_connector};
use crate::directory::password_modify::{Changed, PasswordChange};
use crate::directory::server::{Seat, Server, Terms};
use crate::metrics::Metrics;
use crate::secret::Secret;

/// How long DNS is left alone after it did not say who the servers are.
const LISTING_PAUSE: Duration = Duration::from_secs(2);

/// The servers.
pub(super) struct Pool {
    servers: ArcSwap<Vec<Arc<Server>>>,
    maker: Maker,
    /// When DNS says which they are.
    listing: Option<Listing>,
}

/// Where the list comes from.
struct Listing {
    discovery: Arc<Discovery>,
    /// One asks at a time; until when nobody does, because DNS has just failed.
    pause: Mutex<Option<Instant>>,
}

/// What servers are made of.
struct Maker {
    terms: Arc<Terms>,
    connector: TlsConnector,
    within_domain: bool,
}

/// A server to ask.
struct Choice<'s> {
    place: usize,
    server: &'s Arc<Server>,
    _alone: Option<Trial<'s>>,
}

/// A task that ends with the value.
struct Keeper {
    server: Arc<Server>,
    task: AbortHandle,
}

/// A connection of a person's own, after a bind; nobody uses it later.
pub(super) struct Alone {
    /// What the server said to the bind.
    pub(super) answer: BindAnswer,
    server: Arc<Server>,
    seat: Seat,
}

impl Alone {
    /// The same server's service connection, for a change that says by the old password in
    /// it whose it is.
    pub(super) async fn service(&self) -> Result<Arc<Connection>, DirectoryError> {
        self.server.service().await
    }

    /// Asks for a change of password, on this connection if on no other.
    pub(super) async fn change_password(
        &self,
        change: &PasswordChange<'_>,
        elsewhere: Option<&Connection>,
    ) -> Result<Changed, DirectoryError> {
        let connection = elsewhere.unwrap_or(self.seat.connection());
        self.server.change_password(connection, change).await
    }

    /// Whether passwords travel encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.server.is_encrypted()
    }
}

impl Pool {
    /// Opens no connection.
    ///
    /// # Errors
    /// When there is no server, one has no proper name, or no authority is usable.
    pub(super) fn new(
        config: &config::Directory,
        metrics: &Metrics,
        entropy: &Entropy,
    ) -> Result<Self, DirectoryError> {
        let problem = |text: &str| DirectoryError::Configuration(text.to_owned());
        if config.servers.is_empty() && config.discovery.is_none() {
            return Err(problem("there is no server"));
        }
        let several = config.discovery.is_some() || config.servers.len() > 1;
        let terms = Terms::new(config, several, (metrics, entropy));
        let maker = Maker {
            terms: Arc::new(terms.ok_or_else(|| problem("an attribute name is malformed"))?),
            connector: tls_connector(config.authorities.as_deref())?,
            within_domain: config.kind == config::DirectoryKind::ActiveDirectory,
        };
        let servers = config.servers.iter().map(|server| maker.make(server, None));
        let servers: Vec<_> = servers.collect::<Result<_, _>>()?;
        let listing = config.discovery.as_ref().map(|discovery| Listing {
            discovery: Arc::new(Discovery::new(discovery, entropy)),
            pause: Mutex::new(None),
        });
        Ok(Self { servers: ArcSwap::from_pointee(servers), maker, listing })
    }

    /// Whether any server answered when it was last asked; false until one was.
    pub(super) fn is_up(&self) -> bool {
        self.servers.load().iter().any(|server| server.is_up())
    }

    /// Whether every server failed when it was last asked, or DNS when it was asked for
    /// the first.
    pub(super) fn is_down(&self) -> bool {
        let servers = self.servers.load();
        match self.listing.as_ref().filter(|_| servers.is_empty()) {
            Some(listing) => listing.pause.try_lock().is_ok_and(|pause| pause.is_some()),
            None => !servers.iter().any(|server| server.is_closed()),
        }
    }

    /// Keeps every server's shared connection open, looks how they are, and closes what
    /// nobody uses; asks DNS again for who they are, where it says so; never returns.
    pub(super) async fn keep_up(&self) {
        let mut keepers = Vec::new();
        loop {
            let next_look = match &self.listing {
                None => None,
                Some(listing) => Some(self.list(listing).await),
            };
            follow(&mut keepers, &self.servers.load());
            match next_look {
                None => std::future::pending::<()>().await,
                Some(at) => sleep_until(at).await,
            }
        }
    }

    /// Searches as the service account; once more when the server failed at it: on
    /// another, or on a new connection when only the old one was lost.
    pub(super) async fn search(&self, search: Search<'_>) -> Result<Found, DirectoryError> {
        let servers = self.servers().await?;
        let mut passed = Vec::new();
        let error = match search_once(&servers, &search, &mut passed).await {
            Err(error) if error.is_of_the_server() => error,
            other => return other,
        };
        let elsewhere = unpassed(&servers, &passed).any(|(_, server)| server.is_closed());
        if !elsewhere && matches!(error, DirectoryError::Lost) {
            passed.pop();
        }
        match Box::pin(search_once(&servers, &search, &mut passed)).await {
            Err(DirectoryError::AllDown) => Err(error),
            other => other,
        }
    }

    /// Searches if a server is known to answer, once: for what need not be known yet.
    pub(super) async fn search_ahead(&self, search: Search<'_>) -> Result<Found, DirectoryError> {
        let servers = self.servers.load_full();
        let server = servers.iter().find(|server| server.is_closed());
        server.ok_or(DirectoryError::AllDown)?.search_ahead(&search).await
    }

    /// Asks whether `password` is that of `dn`. Exactly one bind is sent: a second
    /// one would count twice against the account. Only before it is sent may another
    /// server be taken instead. `binding` learns how far it is.
    pub(super) async fn bind(
        &self,
        dn: &str,
        password: &Secret<String>,
        binding: &Binding,
    ) -> Result<BindAnswer, DirectoryError> {
        let servers = self.servers().await?;
        let (choice, seat) = take_seat(&servers, binding).await?;
        choice.server.bind(seat, dn, password, binding).await
    }

    /// Binds as [`Self::bind`] does, on a connection that the caller may go on with.
    pub(super) async fn bind_alone(
        &self,
        dn: &str,
        password: &Secret<String>,
        binding: &Binding,
    ) -> Result<Alone, DirectoryError> {
        let servers = self.servers().await?;
        let (choice, seat) = take_seat(&servers, binding).await?;
        let answer = choice.server.bind_alone(&seat, dn, password, binding).await?;
        Ok(Alone { answer, server: Arc::clone(choice.server), seat })
    }

    /// The servers; asked of DNS when it has not said yet.
    async fn servers(&self) -> Result<Arc<Vec<Arc<Server>>>, DirectoryError> {
        let servers = self.servers.load_full();
        let Some(listing) = self.listing.as_ref().filter(|_| servers.is_empty()) else {
            return Ok(servers);
        };
        Box::pin(self.list_first(listing)).await?;
        Ok(self.servers.load_full())
    }

    async fn list_first(&self, listing: &Listing) -> Result<(), DirectoryError> {
        let mut pause = listing.pause.lock().await;
        if !self.servers.load().is_empty() {
            return Ok(());
        }
        if pause.is_some_and(|until| Instant::now() < until) {
            return Err(DirectoryError::AllDown);
        }
        self.list_anew(listing, &mut pause).await.map(drop)
    }

    /// Asks DNS, and says when it should be asked again. While it is silent, or says
    /// that there is nobody, the servers stay who they were.
    async fn list(&self, listing: &Listing) -> Instant {
        let mut pause = listing.pause.lock().await;
        match self.list_anew(listing, &mut pause).await {
            Ok(holds) => Instant::now() + holds,
            Err(error) => {
                let kept = self.servers.load().len();
                tracing::warn!(%error, kept, "the directory servers are not known anew");
                Instant::now() + LISTING_PAUSE
            }
        }
    }

    async fn list_anew(
        &self,
        Listing { discovery, .. }: &Listing,
        pause: &mut Option<Instant>,
    ) -> Result<Duration, DirectoryError> {
        // Also when this is dropped because a login ran out of time.
        *pause = Some(Instant::now() + LISTING_PAUSE);
        let Listed { servers: listed, holds } = discovery.look_up().await?;
        let known = self.servers.load_full();
        let mut servers = Vec::with_capacity(listed.len());
        for server in &listed {
            let kept = known.iter().find(|known| known.is_at(server)).map(Arc::clone);
            servers.push(match kept {
                Some(kept) => kept,
                None => self.maker.make(server, Some(discovery))?,
            });
        }
        let names: Vec<_> = servers.iter().map(|server| server.name()).collect();
        if names != known.iter().map(|server| server.name()).collect::<Vec<_>>() {
            tracing::info!(servers = names.join(" "), "directory servers, as DNS names them");
        }
        self.servers.store(Arc::new(servers));
        *pause = None;
        Ok(holds)
    }
}

impl Maker {
    fn make(
        &self,
        server: &config::LdapServer,
        discovery: Option<&Arc<Discovery>>,
    ) -> Result<Arc<Server>, DirectoryError> {
        let endpoint = Endpoint::new(server, &self.connector, self.within_domain, discovery)?;
        Ok(Arc::new(Server::new(endpoint, &self.terms)))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Each server has a keeper, as long as it is one of ours.
fn follow(keepers: &mut Vec<Keeper>, servers: &[Arc<Server>]) {
    keepers.retain(|it| servers.iter().any(|server| Arc::ptr_eq(server, &it.server)));
    for server in servers {
        if !keepers.iter().any(|it| Arc::ptr_eq(server, &it.server)) {
            let task = tokio::spawn(Arc::clone(server).keep_up()).abort_handle();
            keepers.push(Keeper { server: Arc::clone(server), task });
        }
    }
}

async fn search_once(
    servers: &[Arc<Server>],
    search: &Search<'_>,
    passed: &mut Vec<usize>,
) -> Result<Found, DirectoryError> {
    let mut failure = DirectoryError::AllDown;
    while let Some(choice) = choose(servers, passed) {
        passed.push(choice.place);
        match choice.server.service().await {
            Ok(connection) => return choice.server.search(&connection, search).await,
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A connection for one bind.
async fn take_seat<'s>(
    servers: &'s [Arc<Server>],
    binding: &Binding,
) -> Result<(Choice<'s>, Seat), DirectoryError> {
    let mut failure = DirectoryError::AllDown;
    let mut passed = Vec::new();
    while let Some(choice) = choose(servers, &passed) {
        passed.push(choice.place);
        match choice.server.seat(binding).await {
            Ok(seat) => return Ok((choice, seat)),
            Err(DirectoryError::Busy) => return Err(DirectoryError::Busy),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The first server that is not known to be down. When all are, one login at a time
/// finds out whether that is still so, as waiting would help nobody.
fn choose<'s>(servers: &'s [Arc<Server>], passed: &[usize]) -> Option<Choice<'s>> {
    if let Some((place, server)) = unpassed(servers, passed).find(|(_, it)| it.is_closed()) {
        return Some(Choice { place, server, _alone: None });
    }
    unpassed(servers, passed).find_map(|(place, server)| {
        Some(Choice { place, server, _alone: Some(server.try_alone()?) })
    })
}

fn unpassed<'s>(
    servers: &'s [Arc<Server>],
    passed: &[usize],
) -> impl Iterator<Item = (usize, &'s Arc<Server>)> {
    servers.iter().enumerate().filter(|(place, _)| !passed.contains(place))
}
