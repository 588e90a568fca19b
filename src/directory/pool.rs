//! All servers of a directory, in order: who is asked, and who is asked instead when
//! that one fails. A search is asked of a second one; a password is never tried twice.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::ambient::Entropy;
use crate::config;
use crate::directory::DirectoryError;
use crate::directory::bind::BindAnswer;
use crate::directory::breaker::Trial;
use crate::directory::connection::{Found, Search};
use crate::directory::endpoint::{Endpoint, tls_connector};
use crate::directory::server::{Seat, Server, Terms};
use crate::metrics::Metrics;
use crate::secret::Secret;

/// The servers.
pub(super) struct Pool {
    servers: Vec<Arc<Server>>,
}

/// A server to ask.
struct Choice<'s> {
    place: usize,
    server: &'s Arc<Server>,
    _alone: Option<Trial<'s>>,
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
        if config.servers.is_empty() {
            return Err(problem("there is no server"));
        }
        let terms = Terms::new(config, config.servers.len() > 1, (metrics, entropy));
        let terms = Arc::new(terms.ok_or_else(|| problem("an attribute name is malformed"))?);
        let connector = tls_connector(config.authorities.as_deref())?;
        let within_domain = config.kind == config::DirectoryKind::ActiveDirectory;
        let server = |server: &config::LdapServer| {
            let endpoint = Endpoint::new(server, &connector, within_domain)?;
            Ok(Arc::new(Server::new(endpoint, &terms)))
        };
        Ok(Self { servers: config.servers.iter().map(server).collect::<Result<_, _>>()? })
    }

    /// Whether any server answered when it was last asked; false until one was.
    pub(super) fn is_up(&self) -> bool {
        self.servers.iter().any(|server| server.is_up())
    }

    /// Keeps every server's shared connection open, looks how they are, and closes what
    /// nobody uses; never returns.
    pub(super) async fn keep_up(&self) {
        let mut keepers = JoinSet::new();
        for server in &self.servers {
            keepers.spawn(Arc::clone(server).keep_up());
        }
        while keepers.join_next().await.is_some() {}
        std::future::pending::<()>().await;
    }

    /// Searches as the service account; once more when the server failed at it: on
    /// another, or on a new connection when only the old one was lost.
    pub(super) async fn search(&self, search: Search<'_>) -> Result<Found, DirectoryError> {
        let mut passed = Vec::new();
        let error = match self.search_once(&search, &mut passed).await {
            Err(error) if error.is_of_the_server() => error,
            other => return other,
        };
        let elsewhere = self.unpassed(&passed).any(|(_, server)| server.is_closed());
        if !elsewhere && matches!(error, DirectoryError::Lost) {
            passed.pop();
        }
        match Box::pin(self.search_once(&search, &mut passed)).await {
            Err(DirectoryError::AllDown) => Err(error),
            other => other,
        }
    }

    /// Asks whether `password` is that of `dn`. Exactly one bind is sent: a second
    /// one would count twice against the account. Only before it is sent may another
    /// server be taken instead.
    pub(super) async fn bind(
        &self,
        dn: &str,
        password: &Secret<String>,
    ) -> Result<BindAnswer, DirectoryError> {
        let (choice, seat) = self.seat().await?;
        choice.server.bind(seat, dn, password).await
    }

    async fn search_once(
        &self,
        search: &Search<'_>,
        passed: &mut Vec<usize>,
    ) -> Result<Found, DirectoryError> {
        let mut failure = DirectoryError::AllDown;
        while let Some(choice) = self.choose(passed) {
            passed.push(choice.place);
            match choice.server.service().await {
                Ok(connection) => return choice.server.search(&connection, search).await,
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A connection for one bind.
    async fn seat(&self) -> Result<(Choice<'_>, Seat), DirectoryError> {
        let mut failure = DirectoryError::AllDown;
        let mut passed = Vec::new();
        while let Some(choice) = self.choose(&passed) {
            passed.push(choice.place);
            match choice.server.seat().await {
                Ok(seat) => return Ok((choice, seat)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The first server that is not known to be down. When all are, one login at a time
    /// finds out whether that is still so, as waiting would help nobody.
    fn choose(&self, passed: &[usize]) -> Option<Choice<'_>> {
        if let Some((place, server)) = self.unpassed(passed).find(|(_, it)| it.is_closed()) {
            return Some(Choice { place, server, _alone: None });
        }
        self.unpassed(passed).find_map(|(place, server)| {
            Some(Choice { place, server, _alone: Some(server.try_alone()?) })
        })
    }

    fn unpassed(&self, passed: &[usize]) -> impl Iterator<Item = (usize, &Arc<Server>)> {
        self.servers.iter().enumerate().filter(|(place, _)| !passed.contains(place))
    }
}
