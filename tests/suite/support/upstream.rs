//! A backend written on the bare socket, so that what it records is what arrived:
//! the head byte for byte, the body's length and hash, the trailers. It answers by
//! the last segment of the path, or by what a test scripted for the path.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::eventually;
use super::upstream_connection::Connection;

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Request line and headers up to and with the empty line.
    pub(crate) head: Vec<u8>,
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as spelled.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body_bytes: u64,
    pub(crate) body_sha256: String,
    /// The body's first 64 KiB.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Which connection it came on, counted from 1.
    pub(crate) connection: usize,
}

impl Seen {
    /// All values of the header of this name, case ignored.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of this header, if it came at all.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// Names that a framework could read as this one: compared by letters and digits.
    pub(crate) fn readable_as(&self, name: &str) -> Vec<(&str, &str)> {
        let wanted = fold_name(name);
        let headers = self.headers.iter().chain(&self.trailers);
        headers
            .filter(|(found, _)| fold_name(found) == wanted)
            .map(|(found, value)| (found.as_str(), value.as_str()))
            .collect()
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "trailers": self.trailers,
            "body_bytes": self.body_bytes,
            "body_sha256": self.body_sha256,
        })
    }
}

/// A header name as CGI, WSGI and their like read it.
pub(crate) fn fold_name(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// What a path was scripted to do.
pub(crate) enum Script {
    /// These bytes as the answer, then the next request.
    Answer(Vec<u8>),
    /// A chunked answer of this content type whose chunks the test sends.
    Steps { content_type: &'static str, chunks: mpsc::UnboundedReceiver<Vec<u8>> },
    /// The request's body is not read until the test says so.
    Reluctant(watch::Receiver<bool>),
}

/// What connections and test share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) seen: Mutex<Vec<Seen>>,
    pub(crate) scripts: Mutex<HashMap<String, Script>>,
    pub(crate) connections: AtomicUsize,
    pub(crate) open: AtomicUsize,
    pub(crate) websockets: AtomicUsize,
    pub(crate) held: AtomicUsize,
    pub(crate) release: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn record(&self, seen: Seen) {
        lock(&self.seen).push(seen);
    }

    pub(crate) fn script(&self, path: &str) -> Option<Script> {
        let mut scripts = lock(&self.scripts);
        match scripts.get(path) {
            Some(Script::Answer(bytes)) => Some(Script::Answer(bytes.clone())),
            Some(Script::Reluctant(go)) => Some(Script::Reluctant(go.clone())),
            Some(Script::Steps { .. }) => scripts.remove(path),
            None => None,
        }
    }
}

/// A running backend; it ends with the value.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far whose head arrived.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The requests whose target begins like this.
    pub(crate) fn seen_at(&self, prefix: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.target.starts_with(prefix)).collect()
    }

    /// The newest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("a request arrived")
    }

    pub(crate) fn forget(&self) {
        lock(&self.shared.seen).clear();
    }

    /// Answers this path with exactly these bytes.
    pub(crate) fn answer(&self, path: &str, bytes: impl AsRef<[u8]>) {
        self.on(path, Script::Answer(bytes.as_ref().to_vec()));
    }

    pub(crate) fn on(&self, path: &str, script: Script) {
        lock(&self.shared.scripts).insert(path.to_owned(), script);
    }

    /// A chunked answer to the next request for this path, one chunk a send; it ends
    /// when the sender is dropped.
    pub(crate) fn steps(
        &self,
        path: &str,
        content_type: &'static str,
    ) -> mpsc::UnboundedSender<Vec<u8>> {
        let (sender, chunks) = mpsc::unbounded_channel();
        self.on(path, Script::Steps { content_type, chunks });
        sender
    }

    /// How many connections were ever opened.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    pub(crate) fn open_websockets(&self) -> usize {
        self.shared.websockets.load(Ordering::SeqCst)
    }

    /// Waits until this many requests for `…/hold` are here at once.
    pub(crate) async fn held(&self, count: usize) {
        eventually("requests held at the upstream", || {
            (self.shared.held.load(Ordering::SeqCst) >= count).then_some(())
        })
        .await;
    }

    /// Lets every request for `…/hold` go, now and from now on.
    pub(crate) fn release(&self) {
        self.shared.release.send_replace(true);
    }

    /// Waits until a request for this path has arrived.
    pub(crate) async fn arrived(&self, prefix: &str) -> Seen {
        eventually("a request at the upstream", || self.seen_at(prefix).pop()).await
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(Connection::new(stream, number, Arc::clone(&shared)).serve());
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A count that goes down by itself.
pub(crate) struct Counted<'s>(&'s AtomicUsize);

impl<'s> Counted<'s> {
    pub(crate) fn new(count: &'s AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text");
        text
    })
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
