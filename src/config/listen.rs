//! `[server]` and `[server.tls]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::kind::{self, Boolean, Choice, List, Whole};
use super::pem;
use super::reader::{Presence, Reader};
use super::{Limits, crosscheck};
use crate::ambient::Timestamp;

/// `[server]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// TLS listeners, at least one.
    pub listen: Vec<SocketAddr>,
    /// The listener for those who come without TLS; it forwards nothing.
    pub plain_http_listen: Option<SocketAddr>,
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
    /// Further paths of the login; none of them an endpoint of ours already.
    pub login_aliases: Vec<String>,
    /// Where the keys of internal assertions are told, if there are any.
    pub jwks_listen: SocketAddr,
    /// Who may ask there besides this machine.
    pub jwks_allow: Vec<IpNet>,
    /// Origins whose pages may call with credentials, as browsers write them.
    pub cors_origins: Vec<String>,
    /// `[server.tls]`.
    pub tls: Tls,
    /// `[server.limits]`.
    pub limits: Limits,
}

/// An https origin: a lower-case host name, and its port when it is not 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Host name or address, lower case, without port and without brackets.
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

impl Server {
    /// Reads `[server]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let listen = r.required(
            "listen",
            List { of: kind::socket_address(), min: 1 },
            "The addresses to listen at; TLS only.",
        );
        let plain_http_listen = r.optional(
            "plain_http_listen",
            kind::socket_address(),
            "The address where plain HTTP is sent on to https, and what must not come that way is \
             refused; nothing is forwarded.",
        );
        let public_origin = r.required(
            "public_origin",
            kind::origin(),
            "Where the gateway is reached; a route without host belongs to its host.",
        );
        let trusted_proxies = r.or(
            "trusted_proxies",
            List { of: kind::network(), min: 0 },
            Vec::new(),
            "Peers that may speak X-Forwarded-For and PROXY, and ask /auth/verify.",
        );
        let proxy_protocol = r.or(
            "proxy_protocol",
            Boolean,
            false,
            "Whether connections from trusted proxies begin with a PROXY header.",
        );
        let workers = r.or(
            "workers",
            Whole { min: 0, max: 1024 },
            0,
            "Worker threads; 0 means one per core.",
        );
        let auth_prefix = r.or(
            "auth_prefix",
            kind::auth_prefix(),
            "/auth".to_owned(),
            "The path below which the gateway's own endpoints are.",
        );
        let login_aliases = read_login_aliases(r, &auth_prefix);
        let cors_origins = r.or(
            "cors_origins",
            List { of: kind::calling_origin(), min: 0 },
            Vec::new(),
            "Other origins whose pages may call with the user's cookies, each exactly.",
        );
        let (jwks_listen, jwks_allow) = read_jwks(r);
        let doc = "Certificate and versions of TLS.";
        let tls = r.section("tls", Presence::Required, doc, Tls::read).flatten();
        let doc = "Everything at the listener that has a limit.";
        let limits = r.section("limits", Presence::Optional, doc, Limits::read);
        note_proxies(r, &trusted_proxies, proxy_protocol);
        note_plain_origins(r, &cors_origins);
        refuse_doubled_address(r, listen.as_deref().unwrap_or_default());
        Some(Self {
            listen: listen?,
            plain_http_listen,
            public_origin: public_origin?,
            trusted_proxies,
            proxy_protocol,
            workers,
            auth_prefix,
            login_aliases,
            jwks_listen,
            jwks_allow,
            cors_origins,
            tls: tls?,
            limits: limits?,
        })
    }
}

fn read_login_aliases(r: &mut Reader<'_>, prefix: &str) -> Vec<String> {
    let aliases = r.or(
        "login_aliases",
        List { of: kind::login_alias(), min: 0 },
        Vec::new(),
        "Further paths that take a login as /auth/login does; wrong passwords are answered \
         {\"message\": \"Invalid credentials.\"} there.",
    );
    for (index, alias) in aliases.iter().enumerate() {
        let again = aliases[..index].iter().any(|earlier| earlier.eq_ignore_ascii_case(alias));
        if again || crosscheck::is_own(alias, prefix) {
            let found = format!("{alias:?}, where the gateway answers already");
            r.problem("login_aliases", found, format!("other paths than its own below {prefix}"));
        }
    }
    aliases
}

fn read_jwks(r: &mut Reader<'_>) -> (SocketAddr, Vec<IpNet>) {
    let listen = r.or(
        "jwks_listen",
        kind::socket_address(),
        (Ipv4Addr::LOCALHOST, 9465).into(),
        "The address of the keys of internal assertions, in plain HTTP; opened if there are any.",
    );
    let allow = r.or(
        "jwks_allow",
        List { of: kind::network(), min: 0 },
        Vec::new(),
        "Who may fetch those keys besides this machine.",
    );
    if !listen.ip().to_canonical().is_loopback() && !r.given("jwks_allow") {
        let allowed = "a loopback address, or server.jwks_allow with those who may ask".to_owned();
        r.problem("jwks_listen", listen.to_string(), allowed);
    }
    if allow.iter().any(|network| network.prefix_len() == 0) {
        r.note("jwks_allow", "everybody may fetch the keys of internal assertions");
    }
    (listen, allow)
}

fn note_proxies(r: &mut Reader<'_>, trusted: &[IpNet], proxy_protocol: bool) {
    if trusted.iter().any(|network| network.prefix_len() == 0) {
        r.note("trusted_proxies", "everybody may say which address a request comes from");
    }
    if proxy_protocol && trusted.is_empty() {
        r.note("proxy_protocol", "without effect, as trusted_proxies is empty");
    }
}

fn note_plain_origins(r: &mut Reader<'_>, origins: &[String]) {
    if let Some(origin) = origins.iter().find(|origin| origin.starts_with("http://")) {
        let text = format!("{origin}: whoever can change its unencrypted pages acts as the user");
        r.note("cors_origins", &text);
    }
}

fn refuse_doubled_address(r: &mut Reader<'_>, listen: &[SocketAddr]) {
    for (index, address) in listen.iter().enumerate() {
        // Port 0 asks for any free port, each time another.
        if address.port() != 0 && listen[..index].contains(address) {
            r.problem("listen", format!("{address} twice"), "each address once".to_owned());
        }
    }
}

impl Tls {
    /// When the certificate ends; `None` when it does not say so legibly.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        pem::validity(self.certificates.first()?).map(|(_, end)| end)
    }

    /// Reads `[server.tls]`, with certificate and key.
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let certificate_file = r.required(
            "certificate_file",
            kind::file(),
            "The certificate (PEM), then those between it and its authority.",
        );
        let private_key_file =
            r.required("private_key_file", kind::file(), "The certificate's private key (PEM).");
        let min_version = r.or(
            "min_version",
            Choice {
                built: &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)],
                unbuilt: &[],
            },
            TlsVersion::Tls12,
            "The oldest version of TLS that is spoken.",
        );
        let client_ca_file = r.optional(
            "client_ca_file",
            kind::file(),
            "Authorities (PEM), one of which a client must show a certificate of; without it \
             clients need none.",
        );
        let certificates = certificate_file
            .as_ref()
            .and_then(|file| pem::certificates(r, "certificate_file", file));
        let private_key = private_key_file
            .as_ref()
            .and_then(|file| pem::private_key(r, "private_key_file", file));
        let client = match client_ca_file {
            Some(file) => pem::authorities(r, "client_ca_file", &file)
                .map(|authorities| Some(ClientVerification { authorities })),
            None if r.given("client_ca_file") => None,
            None => Some(None),
        };
        let (certificates, private_key) = (certificates?, private_key?);
        if !pem::check_pair(
            r,
            ("certificate_file", "private_key_file"),
            &certificates,
            &private_key,
        ) {
            return None;
        }
        Some(Self {
            certificates,
            private_key: Arc::new(private_key),
            min_version,
            client: client?,
            certificate_file: r.resolve(&certificate_file?),
        })
    }
}
