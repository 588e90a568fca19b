//! Where a server is and how to get there: TCP, and TLS by our own rules, up to where
//! LDAP can be spoken. Knows no accounts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{LdapServer, LdapTransport};
use crate::directory::DirectoryError;
use crate::directory::connection::Connection;
use crate::directory::discovery::Discovery;
use crate::directory::guard;

/// One server.
pub(super) struct Endpoint {
    pub(super) server: LdapServer,
    /// Whether searches are kept to the server's own domain.
    within_domain: bool,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    found: Option<FoundByDns>,
}

/// Where a server is that DNS named.
struct FoundByDns {
    discovery: Arc<Discovery>,
    /// Where it was last; good while DNS is silent.
    last: Mutex<Vec<SocketAddr>>,
}

impl Endpoint {
    /// Opens nothing.
    pub(super) fn new(
        server: &LdapServer,
        connector: &TlsConnector,
        within_domain: bool,
        discovery: Option<&Arc<Discovery>>,
    ) -> Result<Self, DirectoryError> {
        let tls = match server.transport {
            LdapTransport::Plaintext => None,
            LdapTransport::Tls | LdapTransport::StartTls => {
                let name = ServerName::try_from(server.host.clone()).map_err(|_| {
                    DirectoryError::Configuration("the server's name is no host name".to_owned())
                })?;
                Some((connector.clone(), name))
            }
        };
        let found =
            discovery.map(|it| FoundByDns { discovery: Arc::clone(it), last: Mutex::default() });
        Ok(Self { server: server.clone(), within_domain, tls, found })
    }

    /// `host:port`, as metrics and logs name the server.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.server.host, self.server.port)
    }

    /// Whether what is said there stays between the two.
    pub(super) const fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects; has no deadline of its own.
    pub(super) async fn connect(&self) -> Result<Connection, DirectoryError> {
        let stream = match &self.found {
            None => TcpStream::connect((self.server.host.as_str(), self.server.port)).await,
            Some(found) => TcpStream::connect(&*found.addresses(&self.server).await?).await,
        };
        let mut stream = stream.map_err(DirectoryError::Connect)?;
        // Without this every new TLS connection waits 44 ms for a delayed acknowledgement.
        stream.set_nodelay(true).map_err(DirectoryError::Connect)?;
        if self.server.transport == LdapTransport::StartTls {
            guard::start_tls(&mut stream).await?;
        }
        match &self.tls {
            None => self.speak(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.speak(stream.map_err(DirectoryError::Tls)?).await
            }
        }
    }

    /// Speaks LDAP over a stream to the server that is secured as it should be.
    pub(super) async fn speak<S>(&self, stream: S) -> Result<Connection, DirectoryError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Connection::over(stream, self.name(), self.within_domain).await
    }
}

impl FoundByDns {
    async fn addresses(&self, server: &LdapServer) -> Result<Vec<SocketAddr>, DirectoryError> {
        let found = self.discovery.addresses(server).await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(addresses) => last.clone_from(&addresses),
            Err(error) if last.is_empty() => return Err(error),
            Err(_) => {}
        }
        Ok(last.clone())
    }
}

/// TLS with servers of these authorities, or of the operating system's.
pub(super) fn tls_connector(
    authorities: Option<&[CertificateDer<'static>]>,
) -> Result<TlsConnector, DirectoryError> {
    let authorities = match authorities {
        Some(authorities) => authorities.to_vec(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities);
    if added == 0 {
        let text = "there is no usable certificate authority for the directory";
        return Err(DirectoryError::Configuration(text.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DirectoryError::Configuration(error.to_string()))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
