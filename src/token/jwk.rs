//! A key as a JSON Web Key (RFC 7517, RFC 7518 section 6, RFC 8037), with the
//! members `purpose` and `created` of our own. Knows no files.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ambient::{Entropy, Timestamp};
use crate::config::TokenAlgorithm;
use crate::secret::Secret;
use crate::token::der::without_zeros;
use crate::token::material::{BadMaterial, HMAC_BYTES, Material, algorithm_name};

/// What a key is for; no key is for two things (RFC 8725 section 3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Purpose {
    /// Session tokens.
    Session,
    /// Checkpoints of the audit log.
    Audit,
    /// Assertions whose public key only upstreams may know.
    Assertion,
    /// Assertions whose public key everybody may know.
    #[serde(rename = "assertion-public")]
    PublicAssertion,
}

/// One key with its name, its purpose and its age.
pub(super) struct Jwk {
    pub(super) kid: String,
    pub(super) purpose: Purpose,
    pub(super) created: Timestamp,
    pub(super) material: Material,
}

/// The file's members. A doubled or unknown one is an error.
#[derive(Default, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Members {
    kty: String,
    kid: String,
    alg: String,
    #[zeroize(skip)]
    purpose: Option<Purpose>,
    /// Seconds since 1970; the newest key of an algorithm signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<i64>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_ops: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dq: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qi: Option<String>,
}

impl Jwk {
    /// A new key. Its name is the thumbprint of its public part, or random when
    /// there is none: the thumbprint of a secret would be a way to test guesses.
    pub(super) fn generate(
        algorithm: TokenAlgorithm,
        purpose: Purpose,
        created: Timestamp,
        entropy: &Entropy,
    ) -> Result<Self, BadMaterial> {
        let material = Material::generate(algorithm, entropy)?;
        let kid = match public_members(&material) {
            Some(public) => URL_SAFE_NO_PAD.encode(Sha256::digest(public.to_string())),
            None => URL_SAFE_NO_PAD.encode(entropy.bytes::<16>()?),
        };
        Ok(Self { kid, purpose, created, material })
    }

    /// Reads a key.
    ///
    /// # Errors
    /// One phrase that names what is wrong, and nothing of the key.
    pub(super) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let members: Members = serde_json::from_slice(json)
            .map_err(|_| "is no JSON Web Key, or has members that are unknown or doubled")?;
        let purpose = members.purpose.ok_or("has no purpose")?;
        if !is_file_name(&members.kid) {
            return Err(
                "has a kid that is empty, too long, or not of letters, digits, '-' and '_'",
            );
        }
        if members.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("is not for signatures");
        }
        let material = material_of(&members)?;
        material.encoding_key().map_err(|_| "has members that do not fit each other")?;
        if purpose == Purpose::Audit && material.algorithm() != TokenAlgorithm::EdDsa {
            return Err("is for the audit log, but no Ed25519 key");
        }
        let assertion = [Purpose::Assertion, Purpose::PublicAssertion].contains(&purpose);
        if assertion && material.algorithm() == TokenAlgorithm::Hs256 {
            return Err(
                "is for assertions, but symmetric; upstream.assertion.secret_file names one",
            );
        }
        let created = Timestamp::from_seconds(members.created.unwrap_or_default());
        Ok(Self { kid: members.kid.clone(), purpose, created, material })
    }

    /// The whole key, secret part included.
    pub(super) fn to_json(&self) -> Result<Secret<Vec<u8>>, BadMaterial> {
        let mut members = members_of(&self.material);
        members.kid.clone_from(&self.kid);
        algorithm_name(self.material.algorithm()).clone_into(&mut members.alg);
        members.purpose = Some(self.purpose);
        members.created = Some(self.created.seconds());
        Ok(Secret::new(serde_json::to_vec(&members)?))
    }

    /// The public part, as a key set holds it; `None` for a symmetric key.
    pub(super) fn to_public(&self) -> Option<serde_json::Value> {
        let mut public = public_members(&self.material)?;
        public["kid"] = self.kid.as_str().into();
        public["alg"] = algorithm_name(self.material.algorithm()).into();
        public["use"] = "sig".into();
        Some(public)
    }
}

fn is_file_name(kid: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=128).contains(&kid.len()) && kid.bytes().all(allowed)
}

/// The required public members in the order of RFC 7638, which is the alphabet's
/// and `serde_json`'s: the thumbprint is the hash of their text.
fn public_members(material: &Material) -> Option<serde_json::Value> {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match material {
        Material::Hmac(_) => None,
        Material::Ed25519 { public, .. } => {
            Some(serde_json::json!({"crv": "Ed25519", "kty": "OKP", "x": text(public)}))
        }
        Material::P256 { x, y, .. } => {
            Some(serde_json::json!({"crv": "P-256", "kty": "EC", "x": text(x), "y": text(y)}))
        }
        Material::Rsa(numbers) => {
            let [n, e, ..] = numbers.each_ref().map(|number| text(number.expose()));
            Some(serde_json::json!({"e": e, "kty": "RSA", "n": n}))
        }
    }
}

#[expect(clippy::many_single_char_names, reason = "the names of RFC 7518 section 6")]
fn members_of(material: &Material) -> Members {
    let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
    let mut members = Members::default();
    let kty = match material {
        Material::Hmac(key) => {
            members.k = text(key.expose());
            "oct"
        }
        Material::Ed25519 { seed, public } => {
            members.crv = Some("Ed25519".to_owned());
            (members.d, members.x) = (text(seed.expose()), text(public));
            "OKP"
        }
        Material::P256 { d, x, y } => {
            members.crv = Some("P-256".to_owned());
            (members.d, members.x, members.y) = (text(d.expose()), text(x), text(y));
            "EC"
        }
        Material::Rsa(numbers) => {
            let [n, e, d, p, q, dp, dq, qi] =
                numbers.each_ref().map(|number| text(number.expose()));
            (members.n, members.e, members.d, members.p) = (n, e, d, p);
            (members.q, members.dp, members.dq, members.qi) = (q, dp, dq, qi);
            "RSA"
        }
    };
    kty.clone_into(&mut members.kty);
    members
}

/// The one place where `alg` is read: it must be the one its key type is for.
fn material_of(members: &Members) -> Result<Material, &'static str> {
    const MISSING: &str = "lacks a member, or has one that is not base64url of the right length";
    let curve = members.crv.as_deref();
    let material = match (members.kty.as_str(), members.alg.as_str(), curve) {
        ("oct", "HS256", None) => bytes(members.k.as_ref())
            .filter(|key| key.expose().len() >= HMAC_BYTES)
            .map(Material::Hmac),
        ("OKP", "EdDSA", Some("Ed25519")) => array(members.d.as_ref())
            .zip(array(members.x.as_ref()))
            .map(|(seed, public)| Material::Ed25519 { seed, public: *public.expose() }),
        ("EC", "ES256", Some("P-256")) => array(members.d.as_ref())
            .zip(array(members.x.as_ref()).zip(array(members.y.as_ref())))
            .map(|(d, (x, y))| Material::P256 { d, x: *x.expose(), y: *y.expose() }),
        ("RSA", "RS256", None) => rsa_numbers(members),
        _ => return Err("has a kty, alg and crv that do not go together here"),
    };
    material.ok_or(MISSING)
}

fn rsa_numbers(members: &Members) -> Option<Material> {
    let texts = [
        &members.n,
        &members.e,
        &members.d,
        &members.p,
        &members.q,
        &members.dp,
        &members.dq,
        &members.qi,
    ];
    let numbers: Option<Vec<_>> = texts
        .into_iter()
        .map(|text| Some(Secret::new(without_zeros(bytes(text.as_ref())?.expose()).to_vec())))
        .collect();
    Some(Material::Rsa(Box::new(numbers?.try_into().ok()?)))
}

fn bytes(text: Option<&String>) -> Option<Secret<Vec<u8>>> {
    URL_SAFE_NO_PAD.decode(text?).ok().map(Secret::new)
}

fn array(text: Option<&String>) -> Option<Secret<[u8; 32]>> {
    let bytes = bytes(text)?;
    bytes.expose().as_slice().try_into().ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::{Jwk, Purpose};
    use crate::ambient::{Entropy, Timestamp};
    use crate::config::TokenAlgorithm;

    const ALGORITHMS: [TokenAlgorithm; 4] = [
        TokenAlgorithm::Hs256,
        TokenAlgorithm::EdDsa,
        TokenAlgorithm::Es256,
        TokenAlgorithm::Rs256,
    ];

    fn key(algorithm: TokenAlgorithm) -> Jwk {
        let created = Timestamp::from_seconds(17);
        Jwk::generate(algorithm, Purpose::Session, created, &Entropy::system()).unwrap()
    }

    #[test]
    fn a_key_of_every_algorithm_reads_back_as_itself() {
        for algorithm in ALGORITHMS {
            let key = key(algorithm);
            let again = Jwk::parse(key.to_json().unwrap().expose()).unwrap();
            assert_eq!(again.kid, key.kid);
            assert_eq!(again.created, Timestamp::from_seconds(17));
            assert_eq!(again.material.algorithm(), algorithm);
            assert_eq!(again.material.fingerprint(), key.material.fingerprint());
        }
    }

    #[test]
    fn a_public_key_holds_no_secret_and_a_symmetric_one_has_none() {
        for algorithm in ALGORITHMS {
            let public = key(algorithm).to_public();
            assert_eq!(public.is_none(), algorithm == TokenAlgorithm::Hs256);
            let public = public.unwrap_or_default();
            for secret in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(public.get(secret).is_none(), "{secret}");
            }
        }
    }

    #[test]
    fn the_name_is_the_thumbprint_of_rfc_8037() {
        let json = br#"{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"a","purpose":"audit",
            "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let key = Jwk::parse(json).unwrap();
        let public = super::public_members(&key.material).unwrap().to_string();
        let hash = <sha2::Sha256 as sha2::Digest>::digest(public);
        assert_eq!(
            base64::Engine::encode(&super::URL_SAFE_NO_PAD, hash),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }

    #[test]
    fn a_broken_key_is_refused() {
        let good = r#"{"kty":"oct","kid":"a","alg":"HS256","purpose":"session","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
        assert!(Jwk::parse(good.as_bytes()).is_ok());
        for (from, to) in [
            (r#""purpose":"session","#, ""),
            ("session", "everything"),
            ("HS256", "RS256"),
            ("HS256", "none"),
            ("session", "audit"),
            ("session", "assertion"),
            ("session", "assertion-public"),
            ("\"oct\"", "\"RSA\""),
            ("\"k\":\"AAAAAAAAAAA", "\"k\":\""),
            ("\"kid\":\"a\"", "\"kid\":\"../a\""),
            ("\"kid\":\"a\"", "\"kid\":\"\""),
            ("\"kid\":\"a\"", "\"kid\":\"a\",\"kid\":\"a\""),
            ("\"kid\":\"a\"", "\"kid\":\"a\",\"x5u\":\"a\""),
            ("\"kid\":\"a\"", "\"kid\":\"a\",\"use\":\"enc\""),
            ("}", ""),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(Jwk::parse(good.replacen(from, to, 1).as_bytes()).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn parts_of_two_keys_are_refused() {
        for algorithm in [TokenAlgorithm::EdDsa, TokenAlgorithm::Es256, TokenAlgorithm::Rs256] {
            let [one, two] = [key(algorithm), key(algorithm)].map(|key| {
                serde_json::from_slice::<serde_json::Value>(key.to_json().unwrap().expose())
                    .unwrap()
            });
            let mut mixed = one;
            mixed["d"] = two["d"].clone();
            assert!(Jwk::parse(mixed.to_string().as_bytes()).is_err());
        }
    }
}
