//! The accept loop of one worker: places are counted, connections become tasks,
//! and at the end the listeners are emptied before they close.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use super::activity::{Activity, Watched};
use super::connection::Ready;
use super::handshake::{self, HandshakeError};
use super::peer::{Addresses, Peer};
use super::slots::Full;
use super::worker::{Open, Registration, Stage, Worker};
use super::{Listening, ServerShared, Service};

/// How long accepting rests when the system is out of file descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How often that is said.
const EXHAUSTED_LOG: Duration = Duration::from_secs(10);

/// Connections taken from a listener's queue before it closes: as many as it can hold,
/// so that a flood does not keep it open.
const LAST_ACCEPTS: usize = 4096;

/// Serves the listeners of one worker until the drain is over. Runs inside a
/// `LocalRuntime` (or `LocalSet`); what is still open when it returns has been told to
/// end and dies with the runtime.
pub async fn serve<S: Service>(
    listeners: Vec<std::net::TcpListener>,
    service: Rc<S>,
    shared: ServerShared,
) {
    serve_as(Scheme::Https, listeners, service, shared).await;
}

/// Serves the listeners of one worker in plain HTTP/1, with the same limits,
/// deadlines and drain.
pub async fn serve_plain<S: Service>(
    listeners: Vec<std::net::TcpListener>,
    service: Rc<S>,
    shared: ServerShared,
) {
    serve_as(Scheme::Http, listeners, service, shared).await;
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Https,
    Http,
}

async fn serve_as<S: Service>(
    scheme: Scheme,
    listeners: Vec<std::net::TcpListener>,
    service: Rc<S>,
    shared: ServerShared,
) {
    let label = if scheme == Scheme::Https { "https" } else { "http" };
    let worker = Worker::new(shared.metrics.connections_open(label));
    let acceptor = Rc::new(Acceptor { service, shared, worker, scheme });
    let loops: Vec<JoinHandle<()>> = listeners
        .into_iter()
        .filter_map(|listener| match TcpListener::from_std(listener) {
            Ok(listener) => Some(spawn_local(Rc::clone(&acceptor).run(listener))),
            Err(error) => {
                tracing::error!(%error, "a listener cannot be served");
                None
            }
        })
        .collect();
    acceptor.shared.drain.wait().await;
    acceptor.worker.enter(Stage::LastAnswers);
    for accepting in loops {
        let _ = accepting.await;
    }
    let timeout = acceptor.shared.listening.load().limits.drain_timeout;
    acceptor.worker.drain(timeout).await;
}

struct Acceptor<S> {
    service: Rc<S>,
    shared: ServerShared,
    worker: Rc<Worker>,
    scheme: Scheme,
}

/// A socket that has its place.
struct Accepted {
    socket: TcpStream,
    addresses: Addresses,
    open: Open,
    listening: Arc<Listening>,
    trusted: bool,
}

impl<S: Service> Acceptor<S> {
    async fn run(self: Rc<Self>, listener: TcpListener) {
        let mut said: Option<Instant> = None;
        let mut draining = Box::pin(async {
            self.shared.drain.wait().await;
        });
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut draining => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.admit(socket, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if said.is_none_or(|said| said.elapsed() >= EXHAUSTED_LOG) {
                        tracing::error!(%error, "connections cannot be accepted");
                        said = Some(Instant::now());
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
        self.empty(listener);
    }

    /// Closing a listener resets what waits in its queue: that is served first.
    fn empty(self: &Rc<Self>, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..LAST_ACCEPTS {
            let Ok((socket, peer)) = listener.accept() else { return };
            if socket.set_nonblocking(true).is_ok()
                && let Ok(socket) = TcpStream::from_std(socket)
            {
                self.admit(socket, peer);
            }
        }
    }

    /// Gives the connection its place and a task, or closes it at once.
    fn admit(self: &Rc<Self>, socket: TcpStream, peer: SocketAddr) {
        let accepted = match self.place(socket, peer) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return,
            Err(full) => return self.refuse(full),
        };
        let activity = Arc::new(Activity::new());
        let registration = self.worker.register(&activity);
        spawn_local(Rc::clone(self).serve_one(accepted, activity, registration));
    }

    fn place(&self, socket: TcpStream, peer: SocketAddr) -> Result<Option<Accepted>, Full> {
        let listening = self.shared.listening.load_full();
        let trusted = handshake::is_trusted(&listening, peer);
        let mut slot = self.shared.slots.take(&listening.limits)?;
        if !trusted {
            slot.claim(peer.ip(), &listening.limits)?;
        }
        let Ok(local) = socket.local_addr() else { return Ok(None) };
        if socket.set_nodelay(true).is_err() {
            return Ok(None);
        }
        let addresses = Addresses { client: peer, socket: peer, local };
        let open = self.worker.open(slot);
        Ok(Some(Accepted { socket, addresses, open, listening, trusted }))
    }

    /// Each phase is boxed: what the handshake needs is freed when it is over, and the
    /// room of HTTP/2 is not kept by an HTTP/1 connection.
    async fn serve_one(
        self: Rc<Self>,
        accepted: Accepted,
        activity: Arc<Activity>,
        registration: Registration,
    ) {
        let serving: Pin<Box<dyn Future<Output = ()>>> = if self.scheme == Scheme::Http {
            match Box::pin(self.announce(accepted, activity, registration)).await {
                None => return,
                Some(ready) => Box::pin(ready.http1()),
            }
        } else {
            match Box::pin(self.establish(accepted, activity, registration)).await {
                None => return,
                Some(ready) if ready.is_http2() => Box::pin(ready.http2()),
                Some(ready) => Box::pin(ready.http1()),
            }
        };
        drop(self);
        serving.await;
    }

    /// The handshake; `None` when there is no connection, which has been counted then.
    async fn establish(
        &self,
        accepted: Accepted,
        activity: Arc<Activity>,
        registration: Registration,
    ) -> Option<Box<Ready<S, TlsStream<Watched<TcpStream>>>>> {
        let Accepted { mut socket, mut addresses, mut open, listening, trusted } = accepted;
        let established = timeout(listening.limits.handshake_timeout, async {
            if trusted && listening.proxy_protocol {
                addresses.client = self.announced(&mut socket, &mut open, &listening).await?;
            }
            let socket = Watched::new(socket, Arc::clone(&activity), open);
            handshake::tls(&listening, socket).await
        });
        let socket = match established.await.unwrap_or(Err(HandshakeError::Timeout)) {
            Ok(socket) => socket,
            Err(error) => {
                handshake::count(&self.shared.metrics, Err(&error));
                return None;
            }
        };
        handshake::count(&self.shared.metrics, Ok(socket.get_ref().1));
        Some(Box::new(self.ready(socket, (addresses, activity), &listening, registration)))
    }

    /// A connection in clear: at most the PROXY header comes before its first request.
    async fn announce(
        &self,
        accepted: Accepted,
        activity: Arc<Activity>,
        registration: Registration,
    ) -> Option<Box<Ready<S, Watched<TcpStream>>>> {
        let Accepted { mut socket, mut addresses, mut open, listening, trusted } = accepted;
        if trusted && listening.proxy_protocol {
            let announced = self.announced(&mut socket, &mut open, &listening);
            let announced = timeout(listening.limits.handshake_timeout, announced);
            addresses.client = announced.await.ok()?.ok()?;
        }
        let socket = Watched::new(socket, Arc::clone(&activity), open);
        Some(Box::new(self.ready(socket, (addresses, activity), &listening, registration)))
    }

    fn ready<T>(
        &self,
        socket: T,
        (addresses, activity): (Addresses, Arc<Activity>),
        listening: &Listening,
        registration: Registration,
    ) -> Ready<S, T> {
        Ready {
            socket,
            service: Rc::clone(&self.service),
            peer: Rc::new(Peer::new(addresses, activity, Rc::clone(&self.worker))),
            limits: Arc::clone(&listening.limits),
            registration,
            malformed: self.shared.metrics.http_malformed(),
        }
    }
}

impl<S> Acceptor<S> {
    /// The client that a trusted proxy speaks for; it is counted like one that came itself.
    async fn announced(
        &self,
        socket: &mut TcpStream,
        open: &mut Open,
        listening: &Listening,
    ) -> Result<SocketAddr, HandshakeError> {
        let Some(client) = handshake::announced(socket).await? else {
            return socket.peer_addr().map_err(|_| HandshakeError::Announcement);
        };
        if !handshake::is_trusted(listening, client)
            && let Err(full) = open.slot().claim(client.ip(), &listening.limits)
        {
            self.refuse(full);
            return Err(HandshakeError::Limit);
        }
        Ok(client)
    }

    fn refuse(&self, full: Full) {
        self.shared.metrics.limit_hits(full.label()).inc();
    }
}

/// Whether accepting failed for the one connection only.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}
