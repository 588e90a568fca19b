//! `[server.limits]`.

use std::time::Duration;

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
