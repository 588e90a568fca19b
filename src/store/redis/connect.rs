//! Connections to Redis: one server, a primary that sentinels name, or a cluster.
//! Each is made again when it breaks. Knows no keys and no scripts' meaning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo as _, Pipeline, RedisConnectionInfo, RedisError, RedisResult,
    ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::config::{RedisStore, Topology};
use crate::store::StoreError;
use crate::store::redis::scripts::Script;
use crate::store::redis::sentinel;

/// How long a connection may take to be made, sentinels asked and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a replica may take to hold what was written.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(1500);
/// After a failed connection others fail at once for so long.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a command is sent again that a cluster told to go elsewhere.
const REDIRECTS: u32 = 4;

/// How a server is reached.
pub(super) enum Target {
    Single(Box<Client>),
    Sentinel { settings: Box<RedisStore>, master: String },
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// One connection, made again when it breaks. What runs over it at the same time
/// shares it, and what blocks it blocks all of them.
pub(super) struct Link {
    target: Arc<Target>,
    /// Where connections live: callers come and go.
    runtime: Handle,
    current: Mutex<State>,
    /// Of the current connection.
    generation: AtomicU64,
    up: AtomicBool,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Where it leads, if sentinels said so.
    primary: Option<String>,
    failed: Option<Instant>,
}

/// What Redis said to a command that it did not carry out.
enum Trouble {
    /// It does not know the script.
    NoScript,
    /// Nothing is known.
    Unknown,
}

impl Target {
    pub(super) fn of(settings: &RedisStore) -> RedisResult<Self> {
        let addresses = addresses(settings);
        Ok(match &settings.topology {
            Topology::Single => {
                let address = addresses.into_iter().next().ok_or_else(no_server)?;
                let info = connection_info(settings, address)?;
                let client = if settings.tls {
                    Client::build_with_tls(info, certificates(settings))
                } else {
                    Client::open(info)
                };
                Self::Single(Box::new(client?))
            }
            Topology::Sentinel { master } => {
                Self::Sentinel { settings: Box::new(settings.clone()), master: master.clone() }
            }
            Topology::Cluster => {
                let mut builder = ClusterClientBuilder::new(addresses)
                    .connection_timeout(CONNECT_TIMEOUT / 2)
                    .response_timeout(ANSWER_TIMEOUT * 2)
                    .retries(REDIRECTS)
                    .min_retry_wait(10)
                    .max_retry_wait(200);
                if let Some(username) = &settings.username {
                    builder = builder.username(username);
                }
                if let Some(password) = &settings.password {
                    builder = builder.password(password.expose());
                }
                if settings.tls {
                    builder = builder.tls(TlsMode::Secure).certs(certificates(settings));
                }
                Self::Cluster(Box::new(builder.build()?))
            }
        })
    }

    /// Sends commands to the server that holds a key, over a connection made for them; for
    /// whoever wants to know why that fails.
    pub(super) async fn ask(&self, commands: &[Cmd], key: &[u8]) -> Result<Vec<Value>, String> {
        let late = |_| "no answer in time".to_owned();
        let told = |error: RedisError| error.to_string();
        let (connection, _) =
            timeout(CONNECT_TIMEOUT, self.connect()).await.map_err(late)?.map_err(told)?;
        let mut answers = Vec::new();
        for command in commands {
            let route = Route::with_key(key, SlotAddr::Master);
            let sending = send_one(connection.clone(), command.clone(), route);
            answers.push(timeout(ANSWER_TIMEOUT, sending).await.map_err(late)?.map_err(told)?);
        }
        Ok(answers)
    }

    /// A connection, and where it leads if sentinels said so.
    async fn connect(&self) -> RedisResult<(Connection, Option<String>)> {
        // Timeouts are ours: commands that wait on purpose take longer than others.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (client, primary) = match self {
            Self::Single(client) => (client.as_ref().clone(), None),
            Self::Sentinel { settings, master } => {
                let client = sentinel::primary(settings, master).await?;
                let primary = address(&client);
                (client, Some(primary))
            }
            Self::Cluster(client) => {
                return Ok((Connection::Cluster(client.get_async_connection().await?), None));
            }
        };
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok((Connection::One(connection), primary))
    }
}

fn address(client: &Client) -> String {
    client.get_connection_info().addr().to_string()
}

fn no_server() -> RedisError {
    (ErrorKind::InvalidClientConfig, "no server").into()
}

pub(super) fn addresses(settings: &RedisStore) -> Vec<ConnectionAddr> {
    let address = |host: &str, port| {
        let host = host.to_owned();
        if settings.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    };
    settings.servers.iter().map(|server| address(&server.host, server.port)).collect()
}

pub(super) fn certificates(settings: &RedisStore) -> TlsCertificates {
    TlsCertificates { client_tls: None, root_cert: settings.authorities.clone() }
}

fn connection_info(settings: &RedisStore, address: ConnectionAddr) -> RedisResult<ConnectionInfo> {
    let mut redis = RedisConnectionInfo::default().set_db(settings.database);
    if let Some(username) = &settings.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password.expose());
    }
    Ok(address.into_connection_info()?.set_redis_settings(redis))
}

impl Link {
    pub(super) fn new(target: &Arc<Target>, runtime: Handle) -> Self {
        Self {
            target: Arc::clone(target),
            runtime,
            current: Mutex::default(),
            generation: AtomicU64::new(0),
            up: AtomicBool::new(false),
        }
    }

    /// Whether the last command was answered.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Whose number changes with every connection that is made.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Runs a script at the server that holds its first key.
    pub(super) async fn script(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Value, StoreError> {
        let route = route(keys.first());
        match self.send(&script.by_hash(keys, args), route, ANSWER_TIMEOUT).await {
            Err(Trouble::NoScript) => {
                self.send(&script.whole(keys, args), route, ANSWER_TIMEOUT).await
            }
            other => other,
        }
        .map_err(|_| StoreError::Unavailable)
    }

    /// Runs a script, and answers when a replica holds what it wrote.
    pub(super) async fn durable_script(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Value, StoreError> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(script.whole(keys, args));
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(u64::try_from(REPLICA_TIMEOUT.as_millis()).unwrap_or(u64::MAX));
        pipeline.add_command(wait);
        let (generation, connection) = self.connection().await?;
        let sending = send_both(connection, pipeline, route(keys.first()));
        let answers = timeout(ANSWER_TIMEOUT, sending).await;
        let mut answers = self.judged(generation, answers).await?.into_iter();
        match (answers.next().map(Value::extract_error), answers.next()) {
            (Some(Ok(answer)), Some(Value::Int(1..))) => return Ok(answer),
            (Some(Err(error)), _) => tracing::error!(%error, "Redis did not carry out a script"),
            (_, held) => tracing::warn!(?held, "no replica holds yet what was written to Redis"),
        }
        // It may be no primary any more.
        self.drop_connection().await;
        Err(StoreError::Unavailable)
    }

    /// Sends a command to the server that holds a key.
    pub(super) async fn command(
        &self,
        command: &Cmd,
        key: &[u8],
        patience: Duration,
    ) -> Result<Value, StoreError> {
        let patience = patience + ANSWER_TIMEOUT;
        self.send(command, Route::with_key(key, SlotAddr::Master), patience)
            .await
            .map_err(|_| StoreError::Unavailable)
    }

    /// Sends two commands to the server that holds a key, the second right behind the first:
    /// it is carried out later, over the same connection.
    pub(super) async fn commands(
        &self,
        [first, second]: [Cmd; 2],
        key: &[u8],
        patience: Duration,
    ) -> Result<[Value; 2], StoreError> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(first).add_command(second);
        let (generation, connection) = self.connection().await?;
        let route = Route::with_key(key, SlotAddr::Master);
        let sending = async {
            let answers = send_both(connection, pipeline, route).await?;
            answers.into_iter().map(Value::extract_error).collect::<RedisResult<Vec<_>>>()
        };
        let answers = timeout(patience + ANSWER_TIMEOUT, sending).await;
        let answers = self.judged(generation, answers).await?;
        <[Value; 2]>::try_from(answers).map_err(|_| StoreError::Unavailable)
    }

    /// Asks the sentinels which server is the primary; `None` when there are none.
    pub(super) fn ask_sentinels(&self) -> Option<JoinHandle<Option<String>>> {
        matches!(*self.target, Target::Sentinel { .. }).then_some(())?;
        let target = Arc::clone(&self.target);
        Some(self.runtime.spawn(async move {
            let Target::Sentinel { settings, master } = &*target else { return None };
            let asking = sentinel::primary(settings, master);
            let primary = timeout(CONNECT_TIMEOUT, asking).await.ok()?.ok()?;
            Some(address(&primary))
        }))
    }

    /// Whether the connection leads to another server than the sentinels name.
    pub(super) async fn leads_elsewhere(&self, named: &str) -> bool {
        let state = self.current.lock().await;
        state.connection.is_some() && state.primary.as_deref().is_some_and(|held| held != named)
    }

    /// Forgets the connection, so that the next command makes a new one.
    pub(super) async fn drop_connection(&self) {
        self.current.lock().await.connection = None;
    }

    async fn send(
        &self,
        command: &Cmd,
        route: Route,
        patience: Duration,
    ) -> Result<Value, Trouble> {
        let (generation, connection) = self.connection().await.map_err(|_| Trouble::Unknown)?;
        let result = timeout(patience, send_one(connection, command.clone(), route)).await;
        if let Ok(Err(error)) = &result
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            return Err(Trouble::NoScript);
        }
        self.judged(generation, result).await.map_err(|_| Trouble::Unknown)
    }

    /// What a result says of the connection.
    async fn judged<A>(
        &self,
        generation: u64,
        result: Result<RedisResult<A>, tokio::time::error::Elapsed>,
    ) -> Result<A, StoreError> {
        let was_up = self.up.load(Ordering::Acquire);
        let reason = match result {
            Ok(Ok(answer)) => {
                self.up.store(true, Ordering::Release);
                return Ok(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.up.store(false, Ordering::Release);
        let mut state = self.current.lock().await;
        // A cluster's mends itself; another one may be the wrong server by now.
        if self.generation() == generation && matches!(state.connection, Some(Connection::One(_))) {
            state.connection = None;
        }
        if was_up {
            tracing::error!(reason, "Redis did not carry out a command");
        }
        Err(StoreError::Unavailable)
    }

    async fn connection(&self) -> Result<(u64, Connection), StoreError> {
        let mut state = self.current.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((self.generation(), connection.clone()));
        }
        if state.failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return Err(StoreError::Unavailable);
        }
        let target = Arc::clone(&self.target);
        let connecting =
            self.runtime.spawn(async move { timeout(CONNECT_TIMEOUT, target.connect()).await });
        let reason = match connecting.await {
            Ok(Ok(Ok((connection, primary)))) => {
                state.connection = Some(connection.clone());
                state.primary = primary;
                state.failed = None;
                let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
                return Ok((generation, connection));
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => "no connection in time".to_owned(),
            Err(_) => "the process ends".to_owned(),
        };
        state.failed = Some(Instant::now());
        if self.up.swap(false, Ordering::AcqRel) || self.generation() == 0 {
            tracing::error!(reason, "Redis cannot be reached");
        }
        Err(StoreError::Unavailable)
    }
}

fn route(key: Option<&Vec<u8>>) -> Route {
    Route::with_key(key.map_or(&[][..], Vec::as_slice), SlotAddr::Master)
}

async fn send_one(connection: Connection, command: Cmd, route: Route) -> RedisResult<Value> {
    match connection {
        Connection::One(mut one) => one.req_packed_command(&command).await,
        Connection::Cluster(mut cluster) => {
            let node = SingleNodeRoutingInfo::SpecificNode(route);
            cluster.route_command(command, RoutingInfo::SingleNode(node)).await
        }
    }
    .and_then(Value::extract_error)
}

async fn send_both(
    connection: Connection,
    pipeline: Pipeline,
    route: Route,
) -> RedisResult<Vec<Value>> {
    match connection {
        Connection::One(mut one) => one.req_packed_commands(&pipeline, 0, 2).await,
        Connection::Cluster(mut cluster) => {
            let node = SingleNodeRoutingInfo::SpecificNode(route);
            cluster.route_pipeline(pipeline, 0, 2, node).await
        }
    }
}
