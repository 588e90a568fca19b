//! What is known of one request while it is answered, for its metrics, its audit
//! record and its answer's headers. Nothing of it outlives the request.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::ACCEPT;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ambient::{Entropy, EntropyFailed};
use crate::audit::{Event, Record, Slot};
use crate::gateway::forward::X_REQUEST_ID;
use crate::gateway::observe::{Decision, RouteMeter, method_label};
use crate::gateway::unread::Unread;
use crate::server::Peer;
use crate::session::{RenewError, Renewed, VerifiedIdentity};
use crate::wire::client;

/// Longest request id taken over from a trusted proxy.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A renewal that runs beside the request it was asked for.
pub(super) type Renewal = JoinHandle<Result<Renewed, RenewError>>;

/// One request on its way to its answer.
pub(crate) struct Exchange {
    /// When its head was read.
    pub began: Instant,
    /// Its id, in logs, audit and headers.
    pub request_id: HeaderValue,
    /// Its method.
    pub method: Method,
    /// The method of the request that another proxy asks about.
    pub described: Option<Method>,
    /// Its method as a label.
    pub method_label: &'static str,
    /// Its body, until it is taken by whoever reads it; a refusal leaves it unread.
    pub body: Unread,
    /// Its path and query, as sent.
    pub target: Option<PathAndQuery>,
    /// Whose request it is: the peer, or whom a trusted proxy speaks for.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether that end is a trusted proxy.
    pub peer_is_trusted: bool,
    /// The page's origin, when that is another one that may call.
    pub allowed_origin: Option<HeaderValue>,
    /// Whether it comes from a browser that wants to show a page.
    pub is_navigation: bool,
    /// The metrics of its route.
    pub meter: Rc<RouteMeter>,
    /// What became of it.
    pub decision: Decision,
    /// Who it was made by, once verified.
    pub identity: Option<VerifiedIdentity>,
    /// A renewal of its token that is under way.
    pub renewal: Option<Renewal>,
    /// Cookies that its answer sets.
    pub set_cookies: Vec<HeaderValue>,
    /// Time spent waiting for the upstream.
    pub waited: Duration,
    /// The place of its record, from the moment it goes to the upstream.
    pub forwarding: Option<Slot>,
    /// How far it has come; dropped before its answer, its client went away.
    pub progress: Progress,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// It has no record yet.
    Begun,
    /// Its record is written, by whoever knew most of it.
    Recorded,
    /// It has its answer.
    Answered,
}

/// What a request's record says when its client did not wait for the answer.
const CLIENT_GONE: &str = "client_gone";
/// The status counted then, as other proxies do.
const CLIENT_GONE_STATUS: u16 = 499;

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.progress == Progress::Answered {
            return;
        }
        self.meter.count(self.method_label, CLIENT_GONE_STATUS, self.decision);
        // The upstream may have acted on it all the same.
        if let Some(slot) = self.forwarding.take() {
            slot.record(self.record(Event::Request, CLIENT_GONE, None));
        }
    }
}

impl Exchange {
    /// Reads what every request has.
    pub(crate) fn new(
        parts: &Parts,
        peer: &Peer,
        trusted: &[ipnet::IpNet],
        ids: &RequestIds,
        meter: Rc<RouteMeter>,
    ) -> Self {
        let address = peer.address.ip();
        let peer_is_trusted = client::is_trusted(peer.socket.ip(), trusted);
        let client = if peer_is_trusted {
            client::ClientAddress::of(address, &parts.headers, trusted)
        } else {
            address.to_canonical()
        };
        Self {
            began: Instant::now(),
            request_id: ids.of(&parts.headers, peer_is_trusted),
            method_label: method_label(&parts.method),
            described: None,
            body: Unread::of(parts),
            target: parts.uri.path_and_query().cloned(),
            client,
            peer: address,
            peer_is_trusted,
            allowed_origin: None,
            is_navigation: is_navigation(parts),
            method: parts.method.clone(),
            meter,
            decision: Decision::Deny,
            identity: None,
            renewal: None,
            set_cookies: Vec::new(),
            waited: Duration::ZERO,
            forwarding: None,
            progress: Progress::Begun,
        }
    }

    /// Its audit record.
    pub(crate) fn record(
        &self,
        event: Event,
        outcome: &'static str,
        status: Option<u16>,
    ) -> Record {
        let mut record = Record {
            request_id: Some(self.request_id.clone()),
            client: Some(self.client),
            method: Some(self.described.as_ref().unwrap_or(&self.method).clone()),
            path: self.target.clone(),
            route: Some(self.meter.label()),
            status,
            duration: Some(self.began.elapsed()),
            ..Record::new(event, outcome)
        };
        if let Some(identity) = &self.identity {
            record.subject = Some(identity.subject().shared());
            record.role = Some(identity.role().shared());
            record.session = Some(*identity.session().as_bytes());
        }
        record
    }

    /// The request id as text.
    pub(crate) fn request_id_text(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

/// A browser that follows a link or types an address (Fetch metadata), or a
/// client old enough not to say so that asks for a page.
fn is_navigation(parts: &Parts) -> bool {
    let mode = parts.headers.get("sec-fetch-mode");
    parts.method == Method::GET
        && mode.is_none_or(|mode| mode == "navigate")
        && parts.headers.get_all(ACCEPT).iter().any(|accept| {
            accept.to_str().is_ok_and(|accept| accept.to_ascii_lowercase().contains("text/html"))
        })
}

/// Request ids: a random prefix of the worker and a running number. They name
/// requests and protect nothing.
pub(crate) struct RequestIds {
    prefix: String,
    next: Cell<u64>,
}

impl RequestIds {
    /// A new series.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(crate) fn new(entropy: &Entropy) -> Result<Self, EntropyFailed> {
        let prefix = u64::from_be_bytes(entropy.bytes()?);
        Ok(Self { prefix: format!("{prefix:016x}"), next: Cell::new(1) })
    }

    /// The id a trusted proxy gave, or the next of our own.
    fn of(&self, headers: &HeaderMap, peer_is_trusted: bool) -> HeaderValue {
        if peer_is_trusted
            && let Some(given) = headers.get(X_REQUEST_ID)
            && given.len() <= REQUEST_ID_BYTES_MAX
            && given.to_str().is_ok_and(|given| !given.is_empty())
        {
            return given.clone();
        }
        let number = self.next.replace(self.next.get().wrapping_add(1));
        let id = format!("{}-{number:x}", self.prefix);
        HeaderValue::from_maybe_shared(bytes::Bytes::from(id))
            .unwrap_or_else(|_| HeaderValue::from(number))
    }
}
