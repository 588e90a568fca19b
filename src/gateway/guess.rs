//! Guards of a backend's own codes: a try is counted before the upstream is asked, and
//! given back when its answer says that it was no wrong guess. What cannot be read
//! stays counted, so that no trick with the answer makes guessing free.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap};
use http::{HeaderValue, StatusCode};
use tokio::runtime::Handle;

use crate::access_code::{Budget, BudgetError, Ledger, Try};
use crate::config::{self, FailureTest, GuessGuard};
use crate::gateway::Gateway;
use crate::gateway::exchange::Exchange;
use crate::gateway::worker::Loaded;
use crate::metrics::Metrics;
use crate::policy::Route;
use crate::refusal::Refusal;
use crate::store::StoreError;

/// The longest answer that is read for what it says of a code.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The guards of all routes, each in the place of its route.
pub struct GuessGuards {
    routes: Vec<Option<Guard>>,
    /// Each budget once, with its name.
    budgets: Vec<(String, Arc<Budget>)>,
    metrics: Metrics,
}

/// One route's guard; its budget may be others' too.
struct Guard {
    settings: GuessGuard,
    budget: Arc<Budget>,
}

impl GuessGuards {
    /// The guards of these routes.
    #[must_use]
    pub fn new(routes: &[config::Route], ledger: &Ledger, metrics: &Metrics) -> Self {
        let mut known: HashMap<&str, Arc<Budget>> = HashMap::new();
        let mut budgets = Vec::new();
        let guards = routes.iter().map(|route| {
            route.guess_guard.as_ref().map(|settings| {
                let budget = known.entry(&settings.name).or_insert_with(|| {
                    let purpose = format!("guard\0{}", settings.name);
                    let budget = Arc::new(Budget::new(&purpose, settings.budget, ledger.clone()));
                    let tries = i64::from(settings.budget.tries);
                    metrics.guess_budget(&settings.name).set(tries);
                    budgets.push((settings.name.clone(), Arc::clone(&budget)));
                    budget
                });
                Guard { settings: settings.clone(), budget: Arc::clone(budget) }
            })
        });
        Self { routes: guards.collect(), budgets, metrics: metrics.clone() }
    }

    /// Tells the metrics what is left of each budget.
    ///
    /// # Errors
    /// When the store cannot answer; the metrics then say what they said before.
    pub async fn tell(&self) -> Result<(), StoreError> {
        for (name, budget) in &self.budgets {
            let left = budget.limit().tries.saturating_sub(budget.spent().await?);
            self.metrics.guess_budget_left(name).set(i64::from(left));
        }
        Ok(())
    }

    /// Whether a route has one.
    pub(super) fn guards(&self, route: &Route) -> bool {
        self.of(route.index).is_some()
    }

    fn of(&self, route: usize) -> Option<&Guard> {
        self.routes.get(route)?.as_ref()
    }
}

/// A guess that is on its way to the upstream.
pub struct Guess {
    tried: Option<Try>,
    failure_status: Vec<u16>,
    failure_json: Option<FailureTest>,
    seen: Vec<u8>,
    control: Handle,
}

impl Gateway {
    /// Counts a request on a guarded route, before it is forwarded.
    ///
    /// # Errors
    /// When the budget is spent, or nobody can say whether it is.
    pub(super) async fn reserve_guess(
        &self,
        loaded: &Loaded,
        exchange: &Exchange,
        route: &Route,
    ) -> Result<Option<Guess>, Refusal> {
        let Some(guard) = loaded.snapshot.guards.of(route.index) else { return Ok(None) };
        let (budget, client) = (Arc::clone(&guard.budget), exchange.client);
        let control = self.services().control.clone();
        let reserved = control.spawn(async move { budget.reserve(client).await }).await;
        let tried = reserved.map_err(|_| Refusal::Internal)?.map_err(|error| match error {
            BudgetError::Spent { retry_after } => {
                let rule = format!("guess_guard {}", guard.settings.name);
                self.services().metrics.throttled(&rule).inc();
                Refusal::TooManyAttempts { retry_after: whole_seconds(retry_after) }
            }
            BudgetError::Store(_) => Refusal::StoreUnavailable,
            BudgetError::Entropy(error) => {
                tracing::error!(%error, "a guess could not be counted");
                Refusal::Internal
            }
        })?;
        Ok(Some(Guess {
            tried: Some(tried),
            failure_status: guard.settings.failure_status.clone(),
            failure_json: guard.settings.failure_json.clone(),
            seen: Vec::new(),
            control,
        }))
    }
}

impl Guess {
    /// Asks the upstream for an answer that can be read.
    pub(super) fn ask_plainly(&self, headers: &mut HeaderMap) {
        if self.failure_json.is_some() {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
    }

    /// The upstream gave no answer, so nobody learned anything.
    pub(super) fn unanswered(mut self) {
        self.give_back();
    }

    /// Judges by the head of the answer; what is left is to be judged by its body.
    pub(super) fn judge(mut self, status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if self.failure_status.contains(&status.as_u16()) {
            return None; // Dropped, it stays counted.
        }
        // Other failures say nothing of a code.
        if status.is_client_error() || status.is_server_error() || self.failure_json.is_none() {
            self.give_back();
            return None;
        }
        let encodings = headers.get_all(CONTENT_ENCODING).iter();
        let is_plain = encodings.into_iter().all(|encoding| encoding == "identity");
        let is_whole = status.is_success() && status != StatusCode::PARTIAL_CONTENT;
        (is_plain && is_whole).then_some(self)
    }

    /// A piece of the answer's body has passed.
    pub(super) fn see(&mut self, data: &[u8]) {
        if self.seen.len().saturating_add(data.len()) > ANSWER_BYTES_MAX {
            // Too long to tell: it stays counted.
            self.tried = None;
        }
        if self.tried.is_some() {
            self.seen.extend_from_slice(data);
        }
    }

    /// The answer's body is whole.
    pub(super) fn end(&mut self) {
        let failure = self.failure_json.as_ref().and_then(|test| test.fails(&self.seen));
        if failure == Some(false) {
            self.give_back();
        }
        self.tried = None;
    }

    fn give_back(&mut self) {
        let Some(tried) = self.tried.take() else { return };
        self.control.spawn(async move {
            if let Err(error) = tried.give_back().await {
                tracing::warn!(%error, "a right code stays counted as a wrong one");
            }
        });
    }
}

/// Rounded up: who waits this long is not refused again.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}
