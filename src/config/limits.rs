//! `[server.limits]`.

use std::time::Duration;

use super::kind::{self, Text, Whole};
use super::reader::Reader;

/// Everything that has a limit at the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections over all workers.
    pub connections: usize,
    /// Open connections of one address (IPv6: of one /64); not for trusted proxies.
    pub connections_per_address: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// The longest pause within a request's body.
    pub body_idle_timeout: Duration,
    /// The longest pause between requests.
    pub idle_timeout: Duration,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub header_count: usize,
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// Concurrent streams of one HTTP/2 connection.
    pub http2_streams: u32,
    /// Open WebSockets over all workers.
    pub websockets: usize,
    /// Verified token and cookie pairs that one worker remembers.
    pub verified_pairs: usize,
    /// Between the failing of `/readyz` and the closing of the listeners.
    pub drain_delay: Duration,
    /// How long open requests may take to finish at the end.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 512,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            header_bytes: 32 * 1024,
            header_count: 100,
            body_bytes: 16 * 1024 * 1024,
            http2_streams: 128,
            websockets: 10_000,
            verified_pairs: 20_000,
            drain_delay: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Any number that memory could hold connections for.
const MANY: Whole = Whole { min: 1, max: 10_000_000 };
const TIME: Text<Duration> = kind::duration(false);

impl Limits {
    /// Reads `[server.limits]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let usual = Self::default();
        let mut limits = Self::read_timeouts(r, &usual);
        limits.connections =
            r.or("connections", MANY, usual.connections, "Open connections over all workers.");
        limits.connections_per_address = r.or(
            "connections_per_address",
            MANY,
            usual.connections_per_address,
            "Open connections of one address (IPv6: one /64); trusted proxies are not limited.",
        );
        let bytes = u64::try_from(usual.header_bytes).unwrap_or(u64::MAX);
        // Below 8 KiB hyper has no room for its own work.
        let size = kind::size(8 * 1024, 1024 * 1024);
        let bytes = r.or("header_bytes", size, bytes, "Size of a request's head.");
        limits.header_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        limits.header_count = r.or(
            "header_count",
            Whole { min: 1, max: 10_000 },
            usual.header_count,
            "Header fields of a request.",
        );
        let size = kind::size(1, 1 << 50);
        limits.body_bytes = r.or("body_bytes", size, usual.body_bytes, "Size of a request's body.");
        let streams = usize::try_from(usual.http2_streams).unwrap_or(usize::MAX);
        let streams = r.or(
            "http2_streams",
            Whole { min: 1, max: 10_000 },
            streams,
            "Concurrent streams of one HTTP/2 connection.",
        );
        limits.http2_streams = u32::try_from(streams).unwrap_or(u32::MAX);
        limits.websockets =
            r.or("websockets", MANY, usual.websockets, "Open WebSockets over all workers.");
        limits.verified_pairs = r.or(
            "verified_pairs",
            MANY,
            usual.verified_pairs,
            "Verified pairs of token and cookie that one worker remembers.",
        );
        limits
    }

    fn read_timeouts(r: &mut Reader<'_>, usual: &Self) -> Self {
        Self {
            handshake_timeout: r.or(
                "handshake_timeout",
                TIME,
                usual.handshake_timeout,
                "From accepting a connection to the end of its TLS handshake.",
            ),
            header_timeout: r.or(
                "header_timeout",
                TIME,
                usual.header_timeout,
                "From the first byte of a request's head to its last.",
            ),
            body_idle_timeout: r.or(
                "body_idle_timeout",
                TIME,
                usual.body_idle_timeout,
                "The longest pause within a request's body.",
            ),
            idle_timeout: r.or(
                "idle_timeout",
                TIME,
                usual.idle_timeout,
                "How long a connection may lie idle between requests.",
            ),
            drain_delay: r.or(
                "drain_delay",
                kind::duration(true),
                usual.drain_delay,
                "At the end: from the failing of /readyz to the closing of the listeners.",
            ),
            drain_timeout: r.or(
                "drain_timeout",
                TIME,
                usual.drain_timeout,
                "At the end: how long open requests may take to finish.",
            ),
            ..usual.clone()
        }
    }
}
