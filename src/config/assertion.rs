//! `[upstream.assertion]`: the signed statement of who is calling.

use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::kind::{self, Choice};
use super::reader::Reader;
use super::{SESSION_TYP, TokenAlgorithm};
use crate::identity::ClaimTemplates;
use crate::secret::Secret;

/// `[upstream.assertion]`.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// How the upstream gets it.
    pub deliver: Deliver,
    /// What it is signed with.
    pub signature: AssertionSignature,
    /// `aud`.
    pub audience: String,
    /// `iss`.
    pub issuer: String,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
    /// `typ` in the header.
    pub typ: String,
    /// Further claims.
    pub claims: ClaimTemplates,
    /// How long a new key is published before it signs.
    pub publish_ahead: Duration,
}

/// How an upstream gets its assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// In a header of its own.
    Header(HeaderName),
    /// In a cookie.
    Cookie(String),
    /// As `Authorization: Bearer`.
    Bearer,
}

/// What assertions are signed with.
#[derive(Clone, Debug)]
pub enum AssertionSignature {
    /// HS256, with a secret that the upstream has too; never published.
    Shared(Secret<String>),
    /// A key pair of our own.
    KeyPair {
        /// Never HS256.
        algorithm: TokenAlgorithm,
        /// Who may know the public key.
        publication: Publication,
    },
}

/// Where the public key of an assertion is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Publication {
    /// On `server.jwks_listen` only.
    Internal,
    /// To everybody, on `/.well-known/jwks.json`.
    Public,
}

/// What the gateway itself says in every assertion, or will not have said.
const RESERVED: &[&str] = &["iss", "aud", "sub", "exp", "iat", "nbf", "jti"];
/// The `typ` of assertions, unless the upstream insists on another.
const TYP: &str = "bindgate-assertion+jwt";
/// The shortest shared secret, in bytes (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;

impl Assertion {
    /// Reads `[upstream.assertion]`; `origin` is the issuer when none is given.
    pub(super) fn read(r: &mut Reader<'_>, origin: &str) -> Option<Self> {
        let deliver = r.required(
            "deliver",
            kind::deliver(),
            "How the upstream gets it; the client's own header or cookie of that name, or its \
             Authorization, never passes.",
        );
        let publication = r.or(
            "publish",
            Choice {
                built: &[("internal", Publication::Internal), ("public", Publication::Public)],
                unbuilt: &[],
            },
            Publication::Internal,
            "Who may fetch its public key: on server.jwks_listen, or everybody on \
             /.well-known/jwks.json; not with HS256.",
        );
        let algorithm = r.or("algorithm", ALGORITHM, TokenAlgorithm::Rs256, "How it is signed.");
        let secret = r.secret_in_file(
            "secret_file",
            "The file with the secret that the upstream has too; for HS256, and only for it.",
        );
        let audience = r.required("audience", kind::line(), "Its aud: whom it is for.");
        let issuer =
            r.optional("issuer", kind::line(), "Its iss; server.public_origin unless given.");
        let lifetime = r.or(
            "lifetime",
            kind::seconds(),
            Duration::from_mins(5),
            "How long it is valid; a new one is signed after half of that.",
        );
        let typ = r.or(
            "typ",
            kind::token_type(),
            TYP.to_owned(),
            "The typ in its header; \"JWT\" for an upstream that insists on it.",
        );
        let claims = r.or(
            "claims",
            kind::Claims { reserved: RESERVED },
            ClaimTemplates::default(),
            "Further claims.",
        );
        let publish_ahead = r.or(
            "publish_ahead",
            kind::duration(true),
            Duration::from_mins(1),
            "How long a new key is published before it signs; no shorter than upstreams remember \
             the keys they fetched.",
        );
        if lifetime > Duration::from_hours(1) {
            r.note("lifetime", "an assertion holds so long after its session was ended");
        }
        let signature = read_signature(r, algorithm, publication, secret);
        Some(Self {
            deliver: deliver?,
            signature: signature?,
            audience: audience?,
            issuer: issuer.unwrap_or_else(|| origin.to_owned()),
            lifetime,
            typ,
            claims,
            publish_ahead,
        })
    }

    /// Where its public key is told; `None` when there is none.
    #[must_use]
    pub const fn publication(&self) -> Option<Publication> {
        match self.signature {
            AssertionSignature::Shared(_) => None,
            AssertionSignature::KeyPair { publication, .. } => Some(publication),
        }
    }
}

impl Deliver {
    /// The header that it comes in, besides `Cookie`.
    #[must_use]
    pub fn header(&self) -> Option<HeaderName> {
        match self {
            Self::Header(name) => Some(name.clone()),
            Self::Bearer => Some(AUTHORIZATION),
            Self::Cookie(_) => None,
        }
    }

    /// The cookie that it comes in.
    #[must_use]
    pub const fn cookie(&self) -> Option<&String> {
        match self {
            Self::Cookie(name) => Some(name),
            Self::Header(_) | Self::Bearer => None,
        }
    }
}

const ALGORITHM: Choice<TokenAlgorithm> = Choice {
    built: &[
        ("RS256", TokenAlgorithm::Rs256),
        ("ES256", TokenAlgorithm::Es256),
        ("EdDSA", TokenAlgorithm::EdDsa),
        ("HS256", TokenAlgorithm::Hs256),
    ],
    unbuilt: &[],
};

fn read_signature(
    r: &mut Reader<'_>,
    algorithm: TokenAlgorithm,
    publication: Publication,
    secret: Option<Secret<String>>,
) -> Option<AssertionSignature> {
    if algorithm != TokenAlgorithm::Hs256 {
        if r.given("secret_file") {
            let allowed = "none, or algorithm = \"HS256\"".to_owned();
            r.problem("secret_file", "a secret for a key pair", allowed);
        }
        return Some(AssertionSignature::KeyPair { algorithm, publication });
    }
    if r.given("publish") {
        let found = "a shared secret to be published";
        r.problem("publish", found, "nothing, with algorithm = \"HS256\"".to_owned());
    }
    if r.is_missing("secret_file") {
        let allowed = "a file with the secret, as algorithm is \"HS256\"".to_owned();
        r.problem("secret_file", "nothing", allowed);
    }
    let secret = secret?;
    if secret.expose().len() < SECRET_BYTES_MIN {
        let found = format!("a secret of {} bytes", secret.expose().len());
        r.problem("secret_file", found, format!("one of at least {SECRET_BYTES_MIN}"));
        return None;
    }
    Some(AssertionSignature::Shared(secret))
}

/// Whether a `typ` could be read as one of ours that is no assertion's.
pub(super) fn is_foreign_typ(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    typ == SESSION_TYP || (typ.starts_with("bindgate-") && typ != TYP)
}
