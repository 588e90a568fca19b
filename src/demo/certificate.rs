//! A throw-away authority and one certificate of it, for the gateway and the
//! demo directory. The authority's key is forgotten as soon as it has signed.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ambient::Clock;
use crate::secret::Secret;

/// Backdated a little, for clients whose clock is behind.
const BACKDATED: Duration = Duration::from_hours(1);
/// 30 days: longer than any demonstration.
const LIFETIME: Duration = Duration::from_hours(720);

/// The certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Making or signing failed.
    #[error("making the throw-away certificate failed")]
    Make(#[from] rcgen::Error),
    /// It was made, but TLS does not take it.
    #[error("TLS does not take the throw-away certificate")]
    Use(#[from] rustls::Error),
}

/// What was made.
pub(super) struct Issued {
    /// The authority as PEM, for clients.
    pub(super) authority: String,
    /// The server's certificate as PEM, for the gateway.
    pub(super) certificate: String,
    /// Its key as PEM, for the gateway.
    pub(super) private_key: Secret<String>,
    /// For the demo directory.
    pub(super) tls: Arc<rustls::ServerConfig>,
}

/// Makes a certificate for these host names and addresses.
///
/// # Errors
/// When a name is none, or the cryptography fails.
pub(super) fn make(names: &[String], clock: &Clock) -> Result<Issued, CertificateError> {
    let mut params = CertificateParams::new(Vec::new())?;
    limit(&mut params, "bindgate demo authority", clock);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);

    let mut params = CertificateParams::new(names)?;
    limit(&mut params, "bindgate demo", clock);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )?;
    Ok(Issued {
        authority: authority.pem(),
        certificate: certificate.pem(),
        private_key: Secret::new(key.serialize_pem()),
        tls: Arc::new(tls),
    })
}

fn limit(params: &mut CertificateParams, name: &str, clock: &Clock) {
    let seconds = u64::try_from(clock.now().seconds()).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = now - BACKDATED;
    params.not_after = now + LIFETIME;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}
