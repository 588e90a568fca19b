//! The composition root: from a valid configuration to a running gateway, its
//! reload and its end. Decides nothing about requests.

mod assertion_keys;
mod codes;
mod emergency;
mod feed;
mod keys;
mod operator;
mod recheck;
mod workers;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::access_code::{AccessCodes, CodeKeys, Ledger};
use crate::admin::control::Control;
use crate::admin::jwks::JwksListener;
use crate::admin::telemetry::{Check, Readiness, Telemetry};
use crate::ambient::{Clock, Entropy};
use crate::app::workers::Listeners;
use crate::audit::{Audit, AuditKeys, CheckpointKey, Event, Record};
use crate::config::{self, Config, Publication};
use crate::directory::{Directory, LockoutReading};
use crate::gateway::{GuessGuards, Logins, Services, Snapshot, Timer, WebSocketSlots};
use crate::metrics::Metrics;
use crate::policy::RouteTable;
use crate::secret::Secret;
use crate::server::{self, Drain, Listening, ServerShared, Slots};
use crate::session::{KeysMade, Sessions};
use crate::store::SecretName;
use crate::throttle::{LoginThrottle, RouteThrottles};
use crate::token::{self, AssertionIssuer, AssertionKeys, ChangeTokens};

/// Threads of the runtime for everything that is neither a forwarded request nor a login.
const CONTROL_THREADS: usize = 2;
/// Threads of the runtime of logins. With several, each message of the directory's would
/// wake another one.
const LOGIN_THREADS: usize = 1;

/// Wall time and randomness, as the whole process sees them.
#[derive(Clone, Debug)]
pub struct Ambient {
    /// Wall time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
}

impl Ambient {
    /// The operating system's.
    #[must_use]
    pub const fn system() -> Self {
        Self { clock: Clock::system(), entropy: Entropy::system() }
    }
}

/// Why the gateway did not start, or kept its old state at a reload.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A part could not be made.
    #[error("{part}: {cause}")]
    Part {
        /// Which part.
        part: &'static str,
        /// Why.
        cause: String,
    },
    /// A reload would change what only a restart can change.
    #[error("a reload cannot change {0}; restart instead")]
    NeedsRestart(String),
}

fn failed<E: std::fmt::Display>(part: &'static str) -> impl FnOnce(E) -> AppError {
    move |cause| AppError::Part { part, cause: cause.to_string() }
}

/// A running gateway. Dropping it without [`App::drain`] breaks everything off.
pub struct App {
    control: Option<Runtime>,
    login: Option<Runtime>,
    services: Arc<Services>,
    shared: ServerShared,
    readiness: Readiness,
    workers: Vec<JoinHandle<()>>,
    https: Vec<SocketAddr>,
    http: Option<SocketAddr>,
    telemetry: SocketAddr,
    jwks: Option<SocketAddr>,
    /// The task that keeps the current directory connected.
    keeper: Mutex<Option<AbortHandle>>,
    /// The task that listens to operators.
    control_socket: Option<tokio::task::JoinHandle<()>>,
}

impl App {
    /// Opens the store, binds every listener and starts the workers. When this
    /// returns, connections are accepted.
    ///
    /// # Errors
    /// When a part cannot be made; nothing runs then.
    pub fn start(config: Config, ambient: &Ambient) -> Result<Self, AppError> {
        // Libraries that take the process's default provider get ours; a second start keeps it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let control = runtime("control", CONTROL_THREADS)?;
        let login = runtime("login", LOGIN_THREADS)?;
        let metrics = Metrics::new().map_err(failed("metrics"))?;
        metrics.build_info(env!("CARGO_PKG_VERSION")).set(1);
        let services =
            Arc::new(control.block_on(services(config, ambient, &metrics, (&control, &login)))?);
        let snapshot = services.snapshot.load_full();
        let readiness = readiness(&services);
        let telemetry = control
            .block_on(Telemetry::bind(
                snapshot.config.telemetry.listen,
                metrics.clone(),
                readiness.clone(),
            ))
            .map_err(|error| format!("{}: {error}", snapshot.config.telemetry.listen))
            .map_err(failed("telemetry.listen"))?;
        let shared = ServerShared {
            listening: Arc::new(ArcSwap::from_pointee(listening(&snapshot.config)?)),
            slots: Slots::new(),
            drain: Drain::new(),
            metrics,
        };
        let listeners = Listeners::bind(&snapshot.config.server)?;
        let telemetry_address = telemetry.address();
        let control_socket = control_socket(&services, &readiness, control.handle())?;
        control.spawn(telemetry.serve());
        // Before the first request is forwarded, until the last was answered.
        let jwks = control.block_on(serve_jwks(&services))?;
        control.spawn(Arc::clone(&services.sessions).run());
        control.spawn(feed::follow(Arc::clone(&services)));
        control.spawn(feed::tell(Arc::clone(&services)));
        control.block_on(feed::settle(&services));
        control.spawn(services.throttle.clone().run());
        control.spawn(keys::tend(Arc::clone(&services)));
        control.spawn(codes::tell(Arc::clone(&services)));
        control.spawn(emergency::tend(Arc::clone(&services)));
        control.spawn(recheck::run(Arc::clone(&services)));
        let app = Self {
            https: listeners.https(),
            http: listeners.http(),
            workers: listeners.serve(&services, &shared)?,
            control_socket,
            telemetry: telemetry_address,
            jwks,
            keeper: Mutex::new(None),
            services,
            shared,
            readiness,
            control: Some(control),
            login: Some(login),
        };
        app.follow(&snapshot);
        if snapshot.assertion_keys.has_made() {
            app.note(Event::Keys, "made");
        }
        match app.services.sessions.keys_made() {
            KeysMade::None => {}
            KeysMade::First => app.note(Event::Keys, "made"),
            KeysMade::Replaced => app.note(Event::Keys, "replaced"),
        }
        app.note(Event::Start, "success");
        Ok(app)
    }

    /// The first https address, as bound.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        self.https.first().copied().unwrap_or(self.telemetry)
    }

    /// The plain HTTP address, as bound, if there is one.
    #[must_use]
    pub const fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The telemetry listener's address, as bound.
    #[must_use]
    pub const fn telemetry(&self) -> SocketAddr {
        self.telemetry
    }

    /// Where the keys of internal assertions are told, as bound; `None` when there are none.
    #[must_use]
    pub const fn jwks(&self) -> Option<SocketAddr> {
        self.jwks
    }

    /// The runtime of everything that is neither a forwarded request nor a login.
    #[must_use]
    pub fn control(&self) -> &Handle {
        &self.services.control
    }

    /// Takes over a new configuration, certificates and keys; requests under way
    /// finish under the old one.
    ///
    /// # Errors
    /// When it cannot be applied; everything is then as it was.
    pub fn reload(&self, config: Config) -> Result<(), AppError> {
        let result = self.apply(config);
        let label = if result.is_ok() { "ok" } else { "error" };
        self.services.metrics.config_reloads(label).inc();
        self.note(Event::Reload, if result.is_ok() { "success" } else { "refused" });
        result
    }

    /// Counts and records a reload whose file could not even be loaded.
    pub fn refuse_reload(&self) {
        self.services.metrics.config_reloads("error").inc();
        self.note(Event::Reload, "refused");
    }

    fn apply(&self, config: Config) -> Result<(), AppError> {
        let _changing = self.services.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.services.snapshot.load_full();
        let fixed = old.config.needs_restart(&config);
        if !fixed.is_empty() {
            return Err(AppError::NeedsRestart(fixed.join(", ")));
        }
        // All that can fail comes before all that takes effect.
        let listening = listening(&config)?;
        let Services { sessions, metrics, clock, entropy, guesses, .. } = &*self.services;
        let ambient = Ambient { clock: clock.clone(), entropy: entropy.clone() };
        let keys = open_assertion_keys(&config, sessions, Some(&old.assertion_keys), &ambient)?;
        let snapshot = Arc::new(snapshot(config, keys, (guesses, metrics), Some(&old.throttles))?);
        self.reload_audit(&snapshot.config)?;
        let keys = self.services.sessions.version();
        let (services, new) = (Arc::clone(&self.services), Arc::clone(&snapshot));
        let reloaded = self
            .control()
            .block_on(async move { services.sessions.reload(&new.config.token).await });
        if let Err(error) = reloaded {
            self.reload_audit(&old.config)?;
            return Err(failed("token")(error));
        }
        let same = old.assertion_keys.same_keys(&snapshot.assertion_keys);
        if self.services.sessions.version() != keys || !same {
            self.note(Event::Keys, "reloaded");
        }
        self.services.throttle.reload(&snapshot.config.throttle);
        let which = |config: &Config| {
            config.directory.as_ref().map(|directory| (directory.kind, directory.base_dn.clone()))
        };
        if which(&old.config) != which(&snapshot.config) {
            // What was read of another directory says nothing of this one.
            self.services.throttle.follow(None);
        }
        self.shared.listening.store(Arc::new(listening));
        self.services.snapshot.store(Arc::clone(&snapshot));
        self.follow(&snapshot);
        Ok(())
    }

    fn reload_audit(&self, config: &Config) -> Result<(), AppError> {
        let (audit, telemetry) = (self.services.audit.clone(), config.telemetry.clone());
        self.control()
            .block_on(async move { audit.reload(&telemetry).await })
            .map_err(failed("telemetry.audit_file"))
    }

    /// What goes with a snapshot: its directory's connection and its certificate's end.
    fn follow(&self, snapshot: &Snapshot) {
        assertion_keys::tell_held(&self.services);
        let keeper = snapshot.directory.clone().map(|directory| {
            let throttle = self.services.throttle.clone();
            let keep = async move {
                let locks = directory.watch_lockout(|reading| match reading {
                    LockoutReading::Says(lockout) => throttle.follow(Some(lockout)),
                    LockoutReading::Nothing => {
                        throttle.follow(None);
                        throttle.miss_lockout();
                    }
                    LockoutReading::NotRead => throttle.miss_lockout(),
                });
                tokio::join!(directory.keep_up(), locks);
            };
            self.services.login.spawn(keep).abort_handle()
        });
        let mut current = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *current, keeper) {
            old.abort();
        }
        if let Some(expiry) = snapshot.config.server.tls.expires_at() {
            self.services.metrics.certificate_expiry().set(expiry.seconds());
        }
    }

    /// Stops: `/readyz` fails, `drain_delay` passes, listeners are emptied and closed,
    /// requests under way get their whole answers, state is written.
    pub fn drain(mut self) {
        self.readiness.drain();
        let delay = self.services.snapshot.load().config.server.limits.drain_delay;
        self.control().block_on(async move { tokio::time::sleep(delay).await });
        self.shared.drain.begin();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
        let services = Arc::clone(&self.services);
        let control_socket = self.control_socket.take();
        self.control().block_on(async move {
            // Its file goes before the store's lock does, which the next process waits for.
            if let Some(listening) = control_socket {
                listening.abort();
                let _ = listening.await;
            }
            services.sessions.flush().await;
            services.throttle.flush().await;
            let stopped = services.audit.durable(Record::new(Event::Stop, "success")).await;
            if stopped.is_err() {
                tracing::error!("the stop could not be recorded");
            }
            services.audit.close().await;
        });
        tracing::info!("stopped");
    }

    /// Records an event of the gateway itself.
    fn note(&self, event: Event, outcome: &'static str) {
        let audit = self.services.audit.clone();
        self.control().spawn(async move {
            if audit.durable(Record::new(event, outcome)).await.is_err() {
                tracing::error!(event = event.label(), "an event could not be recorded");
            }
        });
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shared.drain.begin();
        // A runtime must not be waited for where others run.
        for runtime in [self.login.take(), self.control.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, AppError> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name(name).enable_all();
    builder.build().map_err(failed("runtimes"))
}

/// Listens to operators, if they have a socket; the task ends it when it is aborted.
fn control_socket(
    services: &Arc<Services>,
    readiness: &Readiness,
    control: &Handle,
) -> Result<Option<tokio::task::JoinHandle<()>>, AppError> {
    let snapshot = services.snapshot.load();
    let Some(path) = &snapshot.config.telemetry.control_socket else { return Ok(None) };
    let _runtime = control.enter();
    let socket = Control::bind(path).map_err(failed("telemetry.control_socket"))?;
    let (commands, asked) = mpsc::channel(1);
    control.spawn(operator::obey(Arc::clone(services), readiness.clone(), asked));
    Ok(Some(control.spawn(socket.serve(commands))))
}

/// Starts the listener of the keys of internal assertions, if there are any.
async fn serve_jwks(services: &Arc<Services>) -> Result<Option<SocketAddr>, AppError> {
    let Some(address) = services.snapshot.load().config.jwks_address() else { return Ok(None) };
    let listener = JwksListener::bind(address).await.map_err(failed("server.jwks_listen"))?;
    let address = listener.address();
    let (asked, services) = (Arc::clone(services), Arc::clone(services));
    let admits = move |peer: IpAddr| {
        let snapshot = asked.snapshot.load();
        snapshot.config.server.jwks_allow.iter().any(|network| network.contains(&peer))
    };
    let keys = move || {
        let keys = &services.snapshot.load().assertion_keys;
        let keys = keys.public(Publication::Internal, services.clock.now());
        serde_json::json!({ "keys": keys }).to_string()
    };
    tokio::spawn(listener.serve(admits, keys));
    Ok(Some(address))
}

/// What all workers share, from the configuration.
async fn services(
    config: Config,
    ambient: &Ambient,
    metrics: &Metrics,
    (control, login): (&Runtime, &Runtime),
) -> Result<Services, AppError> {
    let Ambient { clock, entropy } = ambient;
    let sessions = Sessions::open_store(&config, clock.clone(), entropy.clone(), metrics)
        .await
        .map_err(failed("store and keys"))?;
    let throttle =
        LoginThrottle::open(&config.throttle, sessions.store(), clock.clone(), entropy, metrics)
            .await
            .map_err(failed("throttle"))?;
    let fresh = Secret::new(entropy.bytes().map_err(failed("change tokens"))?);
    let key = sessions.store().secret(SecretName::PasswordChange, fresh).await;
    let change_tokens = ChangeTokens::new(&key.map_err(failed("change tokens"))?);
    // After the store's lock: a process that still drains holds both.
    let audit = open_audit(&config, &sessions, ambient, metrics).await?;
    let keys = open_assertion_keys(&config, &sessions, None, ambient)?;
    let store = sessions.store();
    let code_keys = CodeKeys::open(&store, entropy).await.map_err(failed("store"))?;
    let (now, random) = (clock.clone(), entropy.clone());
    let guesses = Ledger { store, keys: code_keys, clock: now, entropy: random };
    Ok(Services {
        snapshot: ArcSwap::from_pointee(snapshot(config, keys, (&guesses, metrics), None)?),
        guesses,
        changing: Mutex::new(()),
        sessions,
        throttle,
        change_tokens,
        logins: Logins::default(),
        timer: Timer::start().map_err(failed("schedule"))?,
        audit,
        websockets: WebSocketSlots::new(metrics.websockets_open()),
        metrics: metrics.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        control: control.handle().clone(),
        login: login.handle().clone(),
    })
}

async fn open_audit(
    config: &Config,
    sessions: &Sessions,
    ambient: &Ambient,
    metrics: &Metrics,
) -> Result<Audit, AppError> {
    let Ambient { clock, entropy } = ambient;
    let key = token::audit_key(sessions.keys_dir(), clock.now(), entropy)
        .map_err(failed("the audit key"))?;
    let checkpoint =
        CheckpointKey::from_seed(&key.kid, &key.seed).map_err(failed("the audit key"))?;
    let fresh = Secret::new(entropy.bytes().map_err(failed("entropy"))?);
    let hash_key =
        sessions.store().secret(SecretName::Names, fresh).await.map_err(failed("store"))?;
    // One key a purpose: the store's is for throttle entries, this is derived from it.
    let derived = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, hash_key.expose()),
        b"bindgate audit: login names",
    );
    let mut login_names = [0; 32];
    login_names.copy_from_slice(derived.as_ref());
    let keys = AuditKeys { checkpoint, login_names: Secret::new(login_names) };
    Audit::open(&config.telemetry, keys, clock.clone(), metrics)
        .map_err(failed("telemetry.audit_file"))
}

/// The keys of assertions; one of a kind that was not asked for before is made.
fn open_assertion_keys(
    config: &Config,
    sessions: &Sessions,
    before: Option<&AssertionKeys>,
    Ambient { clock, entropy }: &Ambient,
) -> Result<AssertionKeys, AppError> {
    let assertions = config.upstreams.iter().filter_map(|it| it.assertion.as_ref());
    let assertions: Vec<_> = assertions.collect();
    AssertionKeys::open(sessions.keys_dir(), &assertions, before, clock.now(), entropy)
        .map_err(failed("token.keys_dir"))
}

/// `throttles` are those of the snapshot before it.
fn snapshot(
    config: Config,
    keys: AssertionKeys,
    (guesses, metrics): (&Ledger, &Metrics),
    throttles: Option<&RouteThrottles>,
) -> Result<Snapshot, AppError> {
    let keys = Arc::new(keys);
    let issuer = |upstream: &config::Upstream| {
        let (name, assertion) = (upstream.name.as_str(), upstream.assertion.as_ref()?);
        let signed = metrics.assertions_signed(name);
        Some(Arc::new(AssertionIssuer::new(name, assertion, &keys, signed)))
    };
    let directory = match &config.directory {
        Some(directory) => {
            let directory = Directory::new(directory, metrics, &guesses.entropy);
            Some(Arc::new(directory.map_err(failed("directory"))?))
        }
        None => None,
    };
    let entries = config.throttle.entries;
    let routes = (config.routes.as_slice(), entries);
    let throttles = RouteThrottles::new(routes, &guesses.clock, metrics, throttles);
    let codes = config.access_codes.as_ref();
    Ok(Snapshot {
        routes: RouteTable::new(&config),
        issuers: config.upstreams.iter().map(issuer).collect(),
        assertion_keys: keys,
        directory,
        throttles,
        guards: GuessGuards::new(&config.routes, guesses, metrics),
        codes: codes.map(|codes| Arc::new(AccessCodes::new(codes, guesses, metrics))),
        config,
    })
}

fn listening(config: &Config) -> Result<Listening, AppError> {
    Ok(Listening {
        tls: server::tls_config(&config.server.tls).map_err(failed("server.tls"))?,
        limits: Arc::new(config.server.limits.clone()),
        trusted_proxies: config.server.trusted_proxies.clone(),
        proxy_protocol: config.server.proxy_protocol,
    })
}

/// What must hold for a login and a request to be served.
fn readiness(services: &Arc<Services>) -> Readiness {
    let check = |reason: &str, holds: fn(&Services) -> bool| {
        let services = Arc::clone(services);
        Check::new(reason, move || holds(&services))
    };
    Readiness::new(vec![
        check("the directory does not answer", |services| {
            services.snapshot.load().directory.as_ref().is_none_or(|directory| directory.is_up())
        }),
        check("the store does not answer", |services| services.sessions.is_up()),
        check("the audit log cannot be written", |services| services.audit.is_available()),
    ])
}
