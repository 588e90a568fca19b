//! A server's certificate in words for operators: what is wrong with it, by name,
//! or from whom it is and until when. Decides nothing: the handshake did.

use std::io;

use rustls::CertificateError;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::ambient::Timestamp;
use crate::directory::examine::Finding;

/// How many days before its end a certificate is spoken of.
const WARN_DAYS: i64 = 21;
const SECONDS_PER_DAY: i64 = 86_400;

/// Why there is no TLS, and what to try next.
pub(super) fn trouble(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(cause)) => certificate_trouble(cause),
        Some(rustls::Error::InvalidMessage(_)) => {
            "the server does not answer in TLS: is this a plain ldap:// port?".to_owned()
        }
        Some(cause) => format!("{cause}: do both sides have a TLS version in common?"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server hung up: is this a plain ldap:// port?".to_owned()
        }
        None => error.to_string(),
    }
}

fn certificate_trouble(cause: &CertificateError) -> String {
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate is expired ({cause}): renew it on the server")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate is not valid yet ({cause}): is a clock wrong?")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "the certificate is for another name ({cause}): use a name of the certificate in \
                 directory.urls"
            )
        }
        CertificateError::UnknownIssuer => {
            "the certificate is from an unknown authority: put the authority that issued it into \
             directory.ca_file"
                .to_owned()
        }
        other => format!("the certificate is not accepted: {other}"),
    }
}

/// Whose the certificate is, from whom, and until when.
pub(super) fn describe(chain: &[CertificateDer<'_>], now: Timestamp) -> Finding {
    let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let Some((_, leaf)) = leaf else {
        return Finding::Fine("TLS, with a certificate that cannot be described".to_owned());
    };
    let days = (leaf.validity().not_after.timestamp() - now.seconds()) / SECONDS_PER_DAY;
    let text =
        format!("TLS, {:?} from {:?}", leaf.subject().to_string(), leaf.issuer().to_string());
    if days < WARN_DAYS {
        return Finding::Suspect(format!("{text} ends in {days} days: renew it"));
    }
    Finding::Fine(format!("{text}, {days} days left"))
}
