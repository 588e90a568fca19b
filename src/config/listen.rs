//! `[server]` and `[server.tls]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Limits;

/// `[server]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// TLS listeners, at least one.
    pub listen: Vec<SocketAddr>,
    /// Where the gateway is reached; a route without host belongs to it.
    pub public_origin: Origin,
    /// Peers that may speak `X-Forwarded-For`, PROXY and `/auth/verify`.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    /// Path prefix of the gateway's own endpoints, without trailing slash.
    pub auth_prefix: String,
    /// `[server.tls]`.
    pub tls: Tls,
    /// `[server.limits]`.
    pub limits: Limits,
}

/// An https origin: a lower-case host name, and its port when it is not 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Host name or address literal, lower case, without port.
    pub host: String,
    /// The port as written; `None` for the default.
    pub port: Option<u16>,
}

/// `[server.tls]`, certificate and key already read and known to fit each other.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub private_key: Arc<PrivateKeyDer<'static>>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
    /// Mutual TLS, when configured.
    pub client: Option<ClientVerification>,
    /// Where the certificate was read, for messages.
    pub certificate_file: PathBuf,
}

/// The oldest TLS version spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Mutual TLS: a client must show a certificate of one of these authorities.
#[derive(Clone, Debug)]
pub struct ClientVerification {
    /// The authorities of `server.tls.client_ca_file`.
    pub authorities: Vec<CertificateDer<'static>>,
}
