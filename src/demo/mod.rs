//! The demonstration: a directory that speaks real LDAP over TLS, a sample
//! upstream, a throw-away certificate, and the configuration that puts the
//! gateway in front of them. Everything is on loopback and in one temporary
//! folder. Knows the gateway's configuration, and nothing of its inside.

mod certificate;
mod configuration;
mod conversation;
mod directory;
mod dn;
mod folder;
mod instructions;
mod people;
mod service;
mod tree;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

pub use certificate::CertificateError;
pub use folder::FolderError;
pub use people::{DemoUser, USERS};

use crate::ambient::{Clock, Entropy, EntropyFailed};
use crate::secret::Secret;
use configuration::Places;
use folder::Folder;
use service::Service;

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "tls.pem";
const PRIVATE_KEY: &str = "tls.key";
const BIND_PASSWORD: &str = "bind-password";
const KEYS: &str = "keys";
const CONFIGURATION: &str = "bindgate.toml";

/// The demonstration could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The temporary folder could not be made or filled.
    #[error("the temporary folder could not be made: {0}")]
    Folder(#[from] FolderError),
    /// The certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
    /// The directory or the sample upstream could not listen.
    #[error("no port could be bound on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// A name in the demo tree is no distinguished name.
    #[error("the demo tree is not well-formed")]
    Tree,
}

/// The parts behind and around the gateway, running; dropping it ends them and
/// removes the temporary folder.
pub struct Demo {
    directory: Service,
    // Only held: it ends with the demonstration.
    _upstream: Service,
    host: String,
    configuration: PathBuf,
    // The last field: removed after everything that may write into it has ended.
    folder: Folder,
}

impl Demo {
    /// Starts directory and sample upstream on the current tokio runtime, and
    /// writes certificate and configuration for a gateway that is to listen on
    /// `listen` (port 0 lets the system choose).
    ///
    /// # Errors
    /// When the folder, the certificate or a listener cannot be made.
    pub async fn start(
        listen: SocketAddr,
        entropy: &Entropy,
        clock: &Clock,
    ) -> Result<Self, DemoError> {
        let folder = Folder::create(entropy)?;
        let host = configuration::public_host(listen.ip());
        let service_password = format!("{:032x}", u128::from_be_bytes(entropy.bytes()?));
        let service_password = Secret::new(service_password);

        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        let own = listen.ip().to_string();
        if !listen.ip().is_unspecified() && !names.contains(&own) {
            names.push(own);
        }
        let certificate = certificate::make(&names, clock)?;
        folder.write(AUTHORITY, &certificate.authority)?;
        folder.write(CERTIFICATE, &certificate.certificate)?;
        folder.write(PRIVATE_KEY, certificate.private_key.expose())?;
        folder.write(BIND_PASSWORD, service_password.expose())?;
        let keys = folder.path().join(KEYS);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&keys);
        made.map_err(|source| FolderError::File { path: keys, source })?;

        let tree = people::tree(service_password).ok_or(DemoError::Tree)?;
        let directory = directory::start(tree, certificate.tls).await.map_err(DemoError::Listen)?;
        let upstream = upstream::start().await.map_err(DemoError::Listen)?;
        let places = Places {
            folder: folder.path(),
            listen,
            directory: directory.address(),
            upstream: upstream.address(),
        };
        let text = configuration::configuration(places);
        let configuration = folder.write(CONFIGURATION, &text)?;
        Ok(Self { directory, _upstream: upstream, host, configuration, folder })
    }

    /// The file to start the gateway with.
    #[must_use]
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// What to tell whoever started the demonstration, once the gateway accepts
    /// connections on `https`.
    #[must_use]
    pub fn instructions(&self, https: SocketAddr) -> String {
        let directory = self.directory.address();
        instructions::instructions(self.folder.path(), &self.host, https, directory)
    }
}

#[cfg(test)]
mod tests;
