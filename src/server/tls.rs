//! The TLS side of the listener, from certificate and key that were already
//! read. Everything broken is an error here, before any socket is touched.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::config::{Tls, TlsVersion};

/// ALPN names in the order of preference.
const ALPN: [&[u8]; 2] = [HTTP2, b"http/1.1"];

/// The ALPN name of HTTP/2.
pub(crate) const HTTP2: &[u8] = b"h2";

/// The TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The library refuses certificate, key or versions.
    #[error("server.tls: {0}")]
    Library(#[from] rustls::Error),
    /// The authorities for client certificates are not usable.
    #[error("server.tls.client_ca_file: {0}")]
    ClientAuthorities(#[from] rustls::server::VerifierBuilderError),
}

/// Makes the configuration that new connections get.
///
/// Session tickets are encrypted with a key made here: they die with this value,
/// so a reload that changes the client authorities cannot be bypassed by resumption.
///
/// # Errors
/// When certificate, key or client authorities are not usable.
pub fn tls_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls.min_version))?;
    let builder = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            for authority in &client.authorities {
                roots.add(authority.clone())?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config =
        builder.with_single_cert(tls.certificates.clone(), tls.private_key.clone_key())?;
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

fn versions(oldest: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    match oldest {
        TlsVersion::Tls12 => vec![&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => vec![&rustls::version::TLS13],
    }
}
