//! What one worker holds: the services it shares with the others, and its own
//! view of the current configuration, with every rule, pool and metric resolved.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use http::request::Parts;
use tokio::runtime::Handle;

use crate::access_code::{AccessCodes, Ledger};
use crate::ambient::{Clock, Entropy, EntropyFailed};
use crate::audit::{Audit, WorkerQueue};
use crate::config::{Config, Delivery};
use crate::directory::Directory;
use crate::gateway::as_parameter;
use crate::gateway::assertion::Assertions;
use crate::gateway::credential::Credentials;
use crate::gateway::exchange::{Exchange, RequestIds};
use crate::gateway::forward::{ForwardRules, IdentityHeaders, UpstreamRequest};
use crate::gateway::guess::GuessGuards;
use crate::gateway::logins::Logins;
use crate::gateway::observe::RouteMeter;
use crate::gateway::protection::Protection;
use crate::gateway::schedule::Timer;
use crate::gateway::websocket::WebSocketSlots;
use crate::metrics::{Histogram, IntCounter, Metrics};
use crate::policy::{OwnEndpoint, Route, RouteTable};
use crate::secret::Secret;
use crate::server::Peer;
use crate::session::Sessions;
use crate::throttle::{LoginThrottle, RouteThrottles};
use crate::token::{AssertionIssuer, AssertionKeys, ChangeTokens};
use crate::upstream::Pool;
use crate::wire::{cookie, cors};

/// The longest cookie that browsers keep, name and value together (RFC 6265bis).
const COOKIE_BYTES_MAX: usize = 4096;

/// What a reload replaces as a whole.
pub struct Snapshot {
    /// The configuration.
    pub config: Config,
    /// Its routes.
    pub routes: RouteTable,
    /// The keys of its assertions.
    pub assertion_keys: Arc<AssertionKeys>,
    /// Who signs them, for each upstream.
    pub issuers: Vec<Option<Arc<AssertionIssuer>>>,
    /// Its directory, if there is one.
    pub directory: Option<Arc<Directory>>,
    /// What its routes may still take.
    pub throttles: RouteThrottles,
    /// How many guesses of their own codes backends take.
    pub guards: GuessGuards,
    /// Its access codes, if there are any.
    pub codes: Option<Arc<AccessCodes>>,
}

/// What all workers share.
pub struct Services {
    /// The current snapshot.
    pub snapshot: ArcSwap<Snapshot>,
    /// Held by whoever puts another in its place, or changes the keys of assertions.
    pub changing: Mutex<()>,
    /// Sessions, tokens, revocations.
    pub sessions: Arc<Sessions>,
    /// The count of failed logins.
    pub throttle: LoginThrottle,
    /// What lets somebody change a password.
    pub change_tokens: ChangeTokens,
    /// The logins under way.
    pub logins: Logins,
    /// Where refusals wait for their time.
    pub timer: Timer,
    /// Where guesses of codes are counted.
    pub guesses: Ledger,
    /// The audit log.
    pub audit: Audit,
    /// All metrics.
    pub metrics: Metrics,
    /// Wall time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// The runtime of everything that is neither a forwarded request nor a login.
    pub control: Handle,
    /// The runtime of logins, and of the directory's connections that they open: one
    /// thread, so that what a login asks and what it is answered does not change threads.
    pub login: Handle,
    /// Open WebSockets.
    pub websockets: WebSocketSlots,
}

/// The gateway, as one worker runs it.
pub struct Gateway {
    services: Arc<Services>,
    queue: WorkerQueue,
    ids: RequestIds,
    loaded: RefCell<Rc<Loaded>>,
}

/// One worker's resolved view of a snapshot.
pub(crate) struct Loaded {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) credentials: Credentials,
    pub(crate) identity_headers: Rc<IdentityHeaders>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) protection: Protection,
    pub(crate) overhead: Histogram,
    metrics: Metrics,
    checks: RefCell<Vec<(&'static str, IntCounter)>>,
    routes: Vec<Rc<RouteMeter>>,
    own: Rc<RouteMeter>,
    login: Rc<RouteMeter>,
    none: Rc<RouteMeter>,
    plain: Rc<RouteMeter>,
}

/// One upstream, as one worker reaches it.
pub(crate) struct Upstream {
    pub(crate) pool: Pool<UpstreamRequest>,
    pub(crate) rules: ForwardRules,
    pub(crate) assertions: Option<Assertions>,
}

impl Gateway {
    /// One worker's gateway.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new(services: Arc<Services>) -> Result<Self, EntropyFailed> {
        let loaded = Rc::new(Loaded::new(&services, services.snapshot.load_full()));
        Ok(Self {
            queue: services.audit.worker_queue(),
            ids: RequestIds::new(&services.entropy)?,
            services,
            loaded: RefCell::new(loaded),
        })
    }

    /// The current view; made anew after a reload.
    pub(crate) fn loaded(&self) -> Rc<Loaded> {
        let current = self.services.snapshot.load();
        let mut loaded = self.loaded.borrow_mut();
        if !Arc::ptr_eq(&current, &loaded.snapshot) {
            *loaded = Rc::new(Loaded::new(&self.services, Arc::clone(&current)));
        }
        Rc::clone(&loaded)
    }

    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    pub(crate) const fn queue(&self) -> &WorkerQueue {
        &self.queue
    }

    pub(crate) fn exchange(&self, loaded: &Loaded, parts: &Parts, peer: &Peer) -> Exchange {
        let server = &loaded.snapshot.config.server;
        let none = Rc::clone(&loaded.none);
        let mut exchange = Exchange::new(parts, peer, &server.trusted_proxies, &self.ids, none);
        exchange.allowed_origin = cors::allowed(&parts.headers, &server.cors_origins);
        exchange
    }
}

impl Loaded {
    fn new(services: &Services, snapshot: Arc<Snapshot>) -> Self {
        let config = &snapshot.config;
        let metrics = &services.metrics;
        let names = (config.cookie.token_name.as_str(), config.cookie.context_name.as_str());
        let identity_headers = Rc::new(IdentityHeaders::new(&config.headers));
        let upstreams = config.upstreams.iter().enumerate().map(|(index, upstream)| Upstream {
            assertions: assertions(&snapshot, index),
            pool: Pool::new(upstream, metrics),
            rules: ForwardRules::new(config, upstream, &identity_headers),
        });
        Self {
            credentials: Credentials::new(
                Arc::clone(&services.sessions),
                names,
                config.server.limits.verified_pairs,
            ),
            upstreams: upstreams.collect(),
            identity_headers,
            protection: Protection::new(&config.headers),
            overhead: metrics.http_overhead(),
            metrics: metrics.clone(),
            checks: RefCell::default(),
            routes: config
                .routes
                .iter()
                .map(|route| RouteMeter::new(&route.label, metrics))
                .collect(),
            own: RouteMeter::new("(gateway)", metrics),
            login: RouteMeter::new("(login)", metrics),
            none: RouteMeter::new("(none)", metrics),
            plain: RouteMeter::new("(plain http)", metrics),
            snapshot,
        }
    }

    pub(crate) fn route_meter(&self, route: &Route) -> Rc<RouteMeter> {
        self.routes.get(route.index).map_or_else(|| Rc::clone(&self.none), Rc::clone)
    }

    pub(crate) fn own_meter(&self, endpoint: OwnEndpoint) -> Rc<RouteMeter> {
        Rc::clone(match endpoint {
            OwnEndpoint::Login | OwnEndpoint::LoginAlias => &self.login,
            _ => &self.own,
        })
    }

    pub(crate) fn plain_meter(&self) -> Rc<RouteMeter> {
        Rc::clone(&self.plain)
    }

    /// With bearer delivery there is no login page.
    pub(crate) fn has_login_page(&self) -> bool {
        self.snapshot.config.token.delivery != Delivery::Bearer
    }

    /// Whether a request asks for something below `server.auth_prefix`, ours or not.
    pub(crate) fn is_below_prefix(&self, exchange: &Exchange) -> bool {
        let prefix = self.snapshot.config.server.auth_prefix.trim_end_matches('/');
        let path = exchange.target.as_ref().map_or("", |target| target.path());
        path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The login page, with the way back to this request.
    pub(crate) fn login_location(&self, exchange: &Exchange) -> String {
        let prefix = &self.snapshot.config.server.auth_prefix;
        let back = exchange.target.as_ref().map_or("/", |target| target.as_str());
        format!("{prefix}/?rd={}", as_parameter(back))
    }

    /// Counts one check of token and cookie.
    pub(crate) fn count_check(&self, result: &'static str) {
        let mut counters = self.checks.borrow_mut();
        if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == result) {
            counter.inc();
            return;
        }
        let counter = self.metrics.token_checks(result);
        counter.inc();
        counters.push((result, counter));
    }

    pub(crate) fn set_token_cookie(&self, exchange: &mut Exchange, token: &Secret<String>) {
        let config = &self.snapshot.config.cookie;
        if config.token_name.len() + token.expose().len() > COOKIE_BYTES_MAX {
            tracing::warn!("browsers will not keep the token cookie: token.claims say too much");
        }
        self.set_cookie(exchange, &config.token_name, token.expose());
    }

    pub(crate) fn set_context_cookie(&self, exchange: &mut Exchange, value: &str) {
        let config = &self.snapshot.config.cookie;
        self.set_cookie(exchange, &config.context_name, value);
    }

    pub(crate) fn clear_cookies(&self, exchange: &mut Exchange) {
        let config = &self.snapshot.config.cookie;
        for name in [&config.token_name, &config.context_name] {
            exchange.set_cookies.extend(cookie::clear_cookie(name, config.same_site));
        }
    }

    fn set_cookie(&self, exchange: &mut Exchange, name: &str, value: &str) {
        let same_site = self.snapshot.config.cookie.same_site;
        let mut header: Option<HeaderValue> =
            cookie::set_cookie(name, value, same_site, None::<Duration>).ok();
        if let Some(header) = &mut header {
            header.set_sensitive(true);
        }
        exchange.set_cookies.extend(header);
    }
}

/// How an upstream gets its assertions, if it does.
fn assertions(snapshot: &Snapshot, upstream: usize) -> Option<Assertions> {
    let issuer = snapshot.issuers.get(upstream)?.as_ref()?;
    let config = snapshot.config.upstreams.get(upstream)?.assertion.as_ref()?;
    Some(Assertions { upstream, issuer: Arc::clone(issuer), deliver: config.deliver.clone() })
}
