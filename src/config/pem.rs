//! Certificates and keys from PEM files, read and checked while loading, so that
//! a broken one stops the start, and a reload keeps what was there.

use std::path::Path;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::document::read_bounded;
use super::reader::Reader;
use crate::ambient::Timestamp;
use crate::secret::Secret;

/// Reads a chain of certificates, leaf first, and notes when the leaf has ended.
pub(super) fn certificates(
    r: &mut Reader<'_>,
    key: &str,
    file: &Path,
) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = blocks(r, key, file)?;
    let Some((start, end)) = certificates.first().and_then(validity) else {
        r.problem(key, "a certificate that cannot be read", PEM_CERTIFICATES.to_owned());
        return None;
    };
    let now = r.document().now;
    if end < now {
        r.note(key, &format!("the certificate ended at {}", end.rfc3339()));
    } else if start > now {
        r.note(key, &format!("the certificate begins only at {}", start.rfc3339()));
    }
    Some(certificates)
}

/// Reads certificates of authorities, each fit to be one.
pub(super) fn authorities(
    r: &mut Reader<'_>,
    key: &str,
    file: &Path,
) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = blocks(r, key, file)?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        if let Err(cause) = roots.add(certificate.clone()) {
            let found = format!("a certificate, no. {}, that cannot be used ({cause})", index + 1);
            r.problem(key, found, PEM_CERTIFICATES.to_owned());
            return None;
        }
        if validity(certificate).is_some_and(|(_, end)| end < r.document().now) {
            r.note(key, &format!("certificate no. {} has ended", index + 1));
        }
    }
    Some(certificates)
}

/// Reads a private key.
pub(super) fn private_key(
    r: &mut Reader<'_>,
    key: &str,
    file: &Path,
) -> Option<PrivateKeyDer<'static>> {
    let bytes = Secret::new(read_file(r, key, file)?);
    let parsed = PrivateKeyDer::from_pem_slice(bytes.expose());
    if parsed.is_err() {
        r.problem(key, "a file without a private key", "a PEM file with a private key".to_owned());
    }
    if r.is_readable_by_everybody(file) {
        r.note(key, "everybody on the machine may read this file");
    }
    parsed.ok()
}

/// Whether the key can sign and fits the certificate; `keys` are both keys' names.
pub(super) fn check_pair(
    r: &mut Reader<'_>,
    keys: (&str, &str),
    certificates: &[CertificateDer<'static>],
    private_key: &PrivateKeyDer<'static>,
) -> bool {
    let provider = aws_lc_rs::default_provider();
    let pair = CertifiedKey::from_der(certificates.to_vec(), private_key.clone_key(), &provider);
    let (key, found, allowed) = match pair {
        Ok(_) => return true,
        Err(rustls::Error::InconsistentKeys(_)) => {
            (keys.1, "a key of another certificate".to_owned(), format!("the key of {}", keys.0))
        }
        Err(rustls::Error::InvalidCertificate(cause)) => {
            (keys.0, format!("a broken certificate ({cause:?})"), PEM_CERTIFICATES.to_owned())
        }
        Err(cause) => {
            let allowed = "an RSA, ECDSA or Ed25519 key".to_owned();
            (keys.1, format!("a key that cannot be used ({cause})"), allowed)
        }
    };
    r.problem(key, found, allowed);
    false
}

/// From when until when a certificate holds.
pub(super) fn validity(certificate: &CertificateDer<'static>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let moment = Timestamp::from_seconds;
    Some((moment(validity.not_before.timestamp()), moment(validity.not_after.timestamp())))
}

/// Whether a certificate is one for this host.
pub(super) fn names_host(certificate: &CertificateDer<'static>, host: &str) -> bool {
    let (Ok(parsed), Ok(name)) =
        (ParsedCertificate::try_from(certificate), ServerName::try_from(host))
    else {
        return false;
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

const PEM_CERTIFICATES: &str = "a PEM file with certificates (-----BEGIN CERTIFICATE-----)";

fn blocks(r: &mut Reader<'_>, key: &str, file: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = read_file(r, key, file)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = match parsed {
        Ok(certificates) if certificates.is_empty() => "a file without a certificate".to_owned(),
        Ok(certificates) => return Some(certificates),
        Err(cause) => format!("broken PEM ({cause})"),
    };
    r.problem(key, found, PEM_CERTIFICATES.to_owned());
    None
}

fn read_file(r: &mut Reader<'_>, key: &str, file: &Path) -> Option<Vec<u8>> {
    let path = r.resolve(file);
    match read_bounded(&path) {
        Ok(bytes) => Some(bytes),
        Err(cause) => {
            let found = format!("{}, which cannot be read ({cause})", path.display());
            r.problem(key, found, "a readable PEM file".to_owned());
            None
        }
    }
}
