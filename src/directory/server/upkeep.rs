//! What a server needs between logins, of which it knows nothing: it is looked at, its
//! shared connection kept open, and bind connections that nobody uses closed.

use std::sync::Arc;
use std::time::Duration;

use ldap3::Scope;
use tokio::time::{Instant, sleep_until};

use crate::directory::connection::Search;
use crate::directory::filter::Filter;
use crate::directory::group::NO_ATTRIBUTES;
use crate::directory::server::{Server, Service};
use crate::directory::{DirectoryError, Operation};

/// Longest time between two looks at a server that answers.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between any two.
const LOOKS_APART: Duration = Duration::from_secs(1);

impl Server {
    /// Looks at the server regularly, at once when an operation failed or the shared
    /// connection was lost, and when a pause is over; keeps that connection open.
    pub(in crate::directory) async fn keep_up(self: Arc<Self>) {
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
}
