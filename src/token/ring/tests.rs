//! Promises of the key ring, most of them attacks.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, json};

use super::{KeyRing, KeySource, TokenError};
use crate::ambient::{Entropy, Timestamp};
use crate::config::{FIXED_CLAIMS, TokenAlgorithm};
use crate::identity::{ACCESS_CODE_ROLE, Reference, Role, SessionId, Subject};
use crate::token::{Claims, ContextHash, KeysDir, TokenId};

const ALGORITHMS: [TokenAlgorithm; 4] =
    [TokenAlgorithm::Hs256, TokenAlgorithm::EdDsa, TokenAlgorithm::Es256, TokenAlgorithm::Rs256];

const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);

fn ring(algorithm: TokenAlgorithm) -> KeyRing {
    KeyRing::open(&KeySource::Memory, algorithm, NOW, &Entropy::system()).unwrap()
}

fn claims() -> Claims {
    Claims {
        subject: Subject::new("zoë"),
        role: Role::new("admin"),
        context: ContextHash::of(b"cookie"),
        issued_at: NOW,
        expires_at: Timestamp::from_seconds(NOW.seconds() + 900),
        session: SessionId::from_bytes([7; 16]),
        id: TokenId { generation: 3, nonce: [9; 12] },
        reference: None,
    }
}

fn kid(ring: &KeyRing) -> &str {
    &ring.signing.jwk.kid
}

/// A token with this header and payload, signed by the ring's own key: what only
/// the holder of the key could make, refused all the same.
fn signed(ring: &KeyRing, header: &str, payload: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let algorithm = super::jwt_algorithm(ring.signing.jwk.material.algorithm());
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &ring.signing.encoding, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn good_header(ring: &KeyRing) -> String {
    let alg = super::algorithm_name(ring.signing.jwk.material.algorithm());
    json!({"alg": alg, "kid": kid(ring), "typ": "bindgate-session+jwt"}).to_string()
}

fn good_payload() -> String {
    serde_json::to_string(&super::Wire::new(&claims(), Map::new())).unwrap()
}

#[test]
fn a_token_of_every_algorithm_says_what_was_signed() {
    for algorithm in ALGORITHMS {
        let ring = ring(algorithm);
        let token = ring.sign(&claims(), Map::new()).unwrap();
        assert_eq!(ring.check(token.expose(), NOW).unwrap(), claims(), "{algorithm:?}");
        assert!(crate::token::is_ours(token.expose()));
    }
}

#[test]
fn a_token_holds_exactly_the_promised_members() {
    let ring = ring(TokenAlgorithm::Hs256);
    let token = ring.sign(&claims(), Map::new()).unwrap();
    let part = |index| {
        let part = token.expose().split('.').nth(index).unwrap();
        serde_json::from_slice::<serde_json::Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(part(0), json!({"alg": "HS256", "kid": kid(&ring), "typ": "bindgate-session+jwt"}));
    assert_eq!(
        part(1),
        json!({
            "sub": "zoë", "role": "admin", "context": claims().context.to_hex(),
            "iat": NOW.seconds(), "exp": NOW.seconds() + 900,
            "sid": "BwcHBwcHBwcHBwcHBwcHBw", "jti": "3.CQkJCQkJCQkJCQkJ",
        })
    );
}

#[test]
fn further_claims_are_told_to_others_and_change_nothing_here() {
    for algorithm in ALGORITHMS {
        let ring = ring(algorithm);
        let further = json!({
            "https://example.org/roles": ["admin"],
            "deep": {"sub": "root", "exp": 1},
            "aud": ["someone", "else"], "iss": 7, "nbf": 99_999_999_999_i64, "null": null,
        });
        let further = further.as_object().unwrap();
        let claims = Claims {
            role: Role::new(ACCESS_CODE_ROLE),
            reference: Reference::parse("case 17"),
            ..claims()
        };
        let token = ring.sign(&claims, further.clone()).unwrap();
        assert_eq!(ring.check(token.expose(), NOW).unwrap(), claims);
        let payload = token.expose().split('.').nth(1).unwrap();
        let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
        let told: Map<_, _> = serde_json::from_slice(&payload).unwrap();
        for (name, value) in further {
            assert_eq!(told.get(name), Some(value), "{name}");
        }
        let fixed = told.keys().filter(|name| !further.contains_key(*name));
        let fixed: Vec<&str> = fixed.map(String::as_str).collect();
        let mut expected = FIXED_CLAIMS.to_vec();
        expected.sort_unstable();
        assert_eq!(fixed, expected, "the loader keeps all of these from being further ones");
    }
}

#[test]
fn a_token_that_would_not_be_looked_at_is_not_issued() {
    let ring = ring(TokenAlgorithm::Hs256);
    let mut further = Map::new();
    further.insert("big".to_owned(), "x".repeat(4 * 1024).into());
    let token = ring.sign(&claims(), further.clone()).unwrap();
    assert!(ring.check(token.expose(), NOW).is_ok());
    further.insert("bigger".to_owned(), "x".repeat(4 * 1024).into());
    assert_eq!(ring.sign(&claims(), further).err(), Some(TokenError::TooLong));
}

#[test]
fn a_change_of_any_one_character_is_refused() {
    for algorithm in ALGORITHMS {
        let ring = ring(algorithm);
        let token = ring.sign(&claims(), Map::new()).unwrap();
        let token = token.expose();
        for index in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(ring.check(&changed, NOW).is_err(), "{algorithm:?} {index}");
        }
    }
}

#[test]
fn a_header_with_other_members_is_refused_even_if_signed_by_us() {
    let ring = ring(TokenAlgorithm::Hs256);
    let good = good_header(&ring);
    let payload = good_payload();
    assert!(ring.check(&signed(&ring, &good, &payload), NOW).is_ok());
    let kid = kid(&ring);
    for (header, error) in [
        (good.replace("HS256", "none"), TokenError::WrongAlgorithm),
        (good.replace("HS256", "hs256"), TokenError::WrongAlgorithm),
        (good.replace("HS256", "RS256"), TokenError::WrongAlgorithm),
        (good.replace("bindgate-session+jwt", "JWT"), TokenError::WrongType),
        (good.replace("bindgate-session+jwt", "Bindgate-Session+JWT"), TokenError::WrongType),
        (good.replace(kid, "other"), TokenError::UnknownKey),
        (good.replace(kid, ""), TokenError::UnknownKey),
        (good.replace('}', r#","crit":["exp"]}"#), TokenError::Malformed),
        (good.replace('}', r#","jwk":{"kty":"oct","k":"AA"}}"#), TokenError::Malformed),
        (good.replace('}', r#","x5u":"https://example.org"}"#), TokenError::Malformed),
        (good.replace('}', r#","jku":"https://example.org"}"#), TokenError::Malformed),
        (good.replace('}', r#","typ":"bindgate-session+jwt"}"#), TokenError::Malformed),
        (good.replace('}', r#","alg":"none"}"#), TokenError::Malformed),
        (good.replace('}', r#","b64":false}"#), TokenError::Malformed),
        (format!("{good}{good}"), TokenError::Malformed),
        (r#"{"alg":"HS256","typ":"bindgate-session+jwt"}"#.to_owned(), TokenError::Malformed),
        (format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), TokenError::Malformed),
        ("[]".to_owned(), TokenError::Malformed),
    ] {
        assert_eq!(ring.check(&signed(&ring, &header, &payload), NOW), Err(error), "{header}");
    }
}

#[test]
fn claims_that_are_doubled_missing_or_odd_are_refused_even_if_signed_by_us() {
    let ring = ring(TokenAlgorithm::Hs256);
    let header = good_header(&ring);
    let good = good_payload();
    for (from, to) in [
        ("}", r#","sub":"root"}"#),
        ("}", r#","role":"super_admin"}"#),
        ("}", r#","further":1,"further":1}"#),
        ("}", r#","\u0073ub":"root"}"#),
        (r#""role":"admin","#, ""),
        (r#""role":"admin""#, r#""role":"""#),
        (r#""role":"admin""#, r#""role":["admin"]"#),
        ("zoë", ""),
        ("3.CQ", "0.CQ"),
        ("3.CQ", "03.CQ"),
        ("BwcH", "Bwc"),
        (r#""exp":17900009"#, r#""exp":16900009"#),
        (r#""iat":1790000000"#, r#""iat":"1790000000""#),
        (r#""iat":1790000000"#, r#""iat":1790000000.5"#),
        (r#""iat":1790000000"#, r#""iat":-1"#),
        (r#""iat":1790000000"#, r#""iat":99999999999999999999"#),
    ] {
        assert!(good.contains(from), "{from}");
        let payload = good.replacen(from, to, 1);
        let token = signed(&ring, &header, &payload);
        assert_eq!(ring.check(&token, NOW), Err(TokenError::Forged), "{payload}");
    }
}

#[test]
fn a_token_without_signature_or_of_other_shape_is_refused() {
    let ring = ring(TokenAlgorithm::EdDsa);
    let token = ring.sign(&claims(), Map::new()).unwrap();
    let token = token.expose();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(good_header(&ring).replace("EdDSA", "none"));
    let payload = message.split_once('.').unwrap().1;
    for other in [
        format!("{message}."),
        message.to_owned(),
        format!("{token}."),
        format!("{token}.{signature}"),
        format!(".{token}"),
        format!("{token}="),
        format!(" {token}"),
        format!("{none}.{payload}."),
        String::new(),
        "..".to_owned(),
        "a".repeat(1_000_000),
        format!("{}.{payload}.{signature}", "A".repeat(9000)),
    ] {
        assert!(ring.check(&other, NOW).is_err(), "{other:.40}");
    }
}

#[test]
fn the_public_key_does_not_sign_as_a_secret() {
    for algorithm in [TokenAlgorithm::EdDsa, TokenAlgorithm::Es256, TokenAlgorithm::Rs256] {
        let ring = ring(algorithm);
        let public = ring.public_jwks()["keys"][0].to_string();
        let decoding = &ring.signing.decoding;
        let raw = decoding.try_get_as_bytes().map(<[u8]>::to_vec).unwrap_or_default();
        for secret in [public.as_bytes(), &raw] {
            let message = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(
                    json!({"alg": "HS256", "kid": kid(&ring), "typ": "bindgate-session+jwt"})
                        .to_string()
                ),
                URL_SAFE_NO_PAD.encode(good_payload())
            );
            let key = jsonwebtoken::EncodingKey::from_secret(secret);
            let signature = jsonwebtoken::crypto::sign(
                message.as_bytes(),
                &key,
                jsonwebtoken::Algorithm::HS256,
            )
            .unwrap();
            let token = format!("{message}.{signature}");
            assert_eq!(ring.check(&token, NOW), Err(TokenError::WrongAlgorithm));
        }
    }
}

#[test]
fn another_ring_of_the_same_algorithm_verifies_nothing() {
    for algorithm in ALGORITHMS {
        let token = ring(algorithm).sign(&claims(), Map::new()).unwrap();
        assert_eq!(ring(algorithm).check(token.expose(), NOW), Err(TokenError::UnknownKey));
    }
}

#[test]
fn a_token_from_the_future_is_refused_beyond_the_leeway() {
    let ring = ring(TokenAlgorithm::Hs256);
    let token = ring.sign(&claims(), Map::new()).unwrap();
    let at = |seconds| ring.check(token.expose(), Timestamp::from_seconds(NOW.seconds() + seconds));
    assert!(at(-5).is_ok());
    assert_eq!(at(-6), Err(TokenError::NotYetIssued));
    assert!(at(1_000_000).is_ok(), "exp is not judged here");
}

#[test]
fn keys_are_kept_and_the_newest_of_the_configured_algorithm_signs() {
    let folder = tempfile::tempdir().unwrap();
    let source = KeySource::Dir(KeysDir::open(&folder.path().join("keys")).unwrap());
    let entropy = Entropy::system();
    let later = Timestamp::from_seconds(NOW.seconds() + 60);
    let one = KeyRing::open(&source, TokenAlgorithm::Hs256, NOW, &entropy).unwrap();
    let token = one.sign(&claims(), Map::new()).unwrap();
    let two = KeyRing::open(&source, TokenAlgorithm::Hs256, later, &entropy).unwrap();
    assert!(one.same_keys(&two));
    assert!(two.check(token.expose(), NOW).is_ok());

    let three = two.reopen(&source, TokenAlgorithm::Rs256, later, &entropy).unwrap();
    assert!(!three.same_keys(&two));
    assert_eq!(three.signing.jwk.material.algorithm(), TokenAlgorithm::Rs256);
    assert!(three.check(token.expose(), NOW).is_ok(), "older keys still verify");

    let (four, replaced) =
        KeyRing::replace(&source, TokenAlgorithm::Hs256, later, &entropy).unwrap();
    assert_eq!(replaced, 2);
    assert_eq!(four.check(token.expose(), NOW), Err(TokenError::UnknownKey));
    let five = KeyRing::open(&source, TokenAlgorithm::Hs256, later, &entropy).unwrap();
    assert!(five.same_keys(&four));
}

#[test]
fn keys_in_memory_survive_a_reload_and_a_change_of_algorithm() {
    let one = ring(TokenAlgorithm::Hs256);
    let token = one.sign(&claims(), Map::new()).unwrap();
    let two =
        one.reopen(&KeySource::Memory, TokenAlgorithm::EdDsa, NOW, &Entropy::system()).unwrap();
    assert!(two.check(token.expose(), NOW).is_ok());
    assert_eq!(two.public_jwks()["keys"].as_array().map(Vec::len), Some(1));
}
