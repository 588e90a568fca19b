//! Promises of keys and signatures, with the clock in hand.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    AssertionError, AssertionIssuer, AssertionKeys, AssertionMemory, KeyStage, Remembered, Stated,
};
use crate::ambient::{Entropy, Timestamp};
use crate::config::{self, AssertionSignature, Deliver, Publication, TokenAlgorithm};
use crate::identity::{Attributes, ClaimTemplates, Role, SessionId, Subject};
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::token::jwk::{Jwk, Purpose};
use crate::token::keys_dir::KeysDir;

const START: Timestamp = Timestamp::from_seconds(1_790_000_000);
const SESSION: SessionId = SessionId::from_bytes([7; 16]);

fn after(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn pair(algorithm: TokenAlgorithm, publication: Publication) -> config::Assertion {
    with(AssertionSignature::KeyPair { algorithm, publication }, &json!({}))
}

fn with(signature: AssertionSignature, claims: &Value) -> config::Assertion {
    config::Assertion {
        deliver: Deliver::Bearer,
        signature,
        audience: "them".to_owned(),
        issuer: "us".to_owned(),
        lifetime: Duration::from_mins(5),
        typ: "bindgate-assertion+jwt".to_owned(),
        claims: ClaimTemplates::parse(claims.as_object().unwrap(), &[]).unwrap(),
        publish_ahead: Duration::from_mins(1),
    }
}

fn open(
    dir: Option<&KeysDir>,
    assertion: &config::Assertion,
    before: Option<&AssertionKeys>,
    now: Timestamp,
) -> Arc<AssertionKeys> {
    let keys = AssertionKeys::open(dir, &[assertion], before, now, &Entropy::system());
    Arc::new(keys.unwrap())
}

fn issuer(assertion: &config::Assertion, keys: &Arc<AssertionKeys>) -> AssertionIssuer {
    let signed = Metrics::new().unwrap().assertions_signed("backend");
    AssertionIssuer::new("backend", assertion, keys, signed)
}

fn stated() -> Stated {
    let attributes = Some(Arc::new(Attributes::default()));
    Stated { subject: Subject::new("zoë"), role: Role::new("admin"), attributes }
}

async fn text(issuer: &AssertionIssuer, now: Timestamp) -> String {
    let end = now.plus(Duration::from_hours(12));
    let memory = AssertionMemory::default();
    issuer.renew(&memory, &stated(), (SESSION, end), now).await.unwrap().text().expose().clone()
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

fn published(keys: &AssertionKeys, now: Timestamp) -> Vec<String> {
    let keys = keys.public(Publication::Internal, now);
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// The folder of keys, and what it is in.
fn folder() -> (TempDir, KeysDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = KeysDir::open(&folder.path().join("keys")).unwrap();
    (folder, dir)
}

fn put(dir: &KeysDir, created: Timestamp) -> String {
    let (algorithm, entropy) = (TokenAlgorithm::EdDsa, Entropy::system());
    let jwk = Jwk::generate(algorithm, Purpose::Assertion, created, &entropy).unwrap();
    dir.write(&jwk).unwrap();
    jwk.kid
}

#[tokio::test]
async fn the_library_accepts_what_was_signed_with_the_published_key() {
    for algorithm in [TokenAlgorithm::Rs256, TokenAlgorithm::Es256, TokenAlgorithm::EdDsa] {
        let config = pair(algorithm, Publication::Public);
        let keys = open(None, &config, None, START);
        let token = text(&issuer(&config, &keys), START).await;
        assert!(keys.public(Publication::Internal, START).is_empty());
        let [key] = <[Value; 1]>::try_from(keys.public(Publication::Public, START)).unwrap();
        assert_eq!(key["kid"], kid(&token));
        let key: jsonwebtoken::jwk::Jwk = serde_json::from_value(key).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(&key).unwrap();
        let mut rules =
            jsonwebtoken::Validation::new(crate::token::material::jwt_algorithm(algorithm));
        rules.set_audience(&["them"]);
        rules.validate_exp = false;
        let claims = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap().claims;
        assert_eq!(
            claims,
            json!({"iss": "us", "aud": "them", "sub": "zoë",
                "iat": START.seconds(), "exp": START.seconds() + 300})
        );
    }
}

#[tokio::test]
async fn a_new_key_is_published_before_it_signs_and_the_old_one_as_long_as_it_may_be_needed() {
    let (_folder, dir) = folder();
    let config = pair(TokenAlgorithm::EdDsa, Publication::Internal);
    let first = open(Some(&dir), &config, None, START);
    let old = kid(&text(&issuer(&config, &first), START).await);
    assert_eq!(published(&first, START), [old.as_str()], "the only key signs at once");

    let new = put(&dir, after(5));
    let second = open(Some(&dir), &config, Some(&first), after(10));
    let signs = issuer(&config, &second);
    assert_eq!(published(&second, after(10)), [old.clone(), new.clone()]);
    assert_eq!(kid(&text(&signs, after(69)).await), old);
    assert_eq!(kid(&text(&signs, after(70)).await), new);
    assert_eq!(published(&second, after(369)), [old.clone(), new.clone()]);
    assert_eq!(published(&second, after(375)), [new.as_str()], "its last one has ended");

    let restarted = open(Some(&dir), &config, None, after(400));
    assert_eq!(kid(&text(&issuer(&config, &restarted), after(400)).await), new);
    assert_eq!(
        published(&restarted, after(400)).len(),
        2,
        "what was signed before may be under way"
    );
    assert_eq!(published(&restarted, after(706)), [new]);
}

#[tokio::test]
async fn a_key_whose_file_is_gone_ends_as_an_older_one_does() {
    let (_folder, dir) = folder();
    let config = pair(TokenAlgorithm::EdDsa, Publication::Internal);
    let first = open(Some(&dir), &config, None, START);
    let old = published(&first, START).pop().unwrap();
    dir.remove(&old).unwrap();
    let second = open(Some(&dir), &config, Some(&first), after(10));
    let both = published(&second, after(10));
    assert_eq!(both.len(), 2, "another was made");
    let third = open(Some(&dir), &config, Some(&second), after(20));
    let signs = issuer(&config, &third);
    assert_eq!(kid(&text(&signs, after(69)).await), old);
    let new = kid(&text(&signs, after(70)).await);
    assert!(new != old && both.contains(&new));
    assert_eq!(published(&third, after(375)), [new]);
    let fourth = open(Some(&dir), &config, Some(&third), after(400));
    assert_eq!(fourth.entries_len(), 1, "and is forgotten");
}

#[tokio::test]
async fn keys_in_memory_outlive_a_reload() {
    let config = pair(TokenAlgorithm::Es256, Publication::Internal);
    let first = open(None, &config, None, START);
    let second = open(None, &config, Some(&first), after(10));
    assert_eq!(published(&first, after(10)), published(&second, after(10)));
}

#[test]
fn a_secret_that_is_shared_is_no_key_of_ours() {
    let (_folder, dir) = folder();
    let secret = "a".repeat(40);
    let encoded =
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &secret);
    let session =
        json!({"kty": "oct", "kid": "a", "alg": "HS256", "purpose": "session", "k": encoded});
    dir.write(&Jwk::parse(session.to_string().as_bytes()).unwrap()).unwrap();
    let config = with(AssertionSignature::Shared(Secret::new(secret)), &json!({}));
    let refused = AssertionKeys::open(Some(&dir), &[&config], None, START, &Entropy::system());
    assert!(refused.err().unwrap().to_string().contains("secret_file"));
}

#[tokio::test]
async fn what_is_remembered_serves_only_whom_it_states() {
    let config = pair(TokenAlgorithm::EdDsa, Publication::Internal);
    let keys = open(None, &config, None, START);
    let one = issuer(&config, &keys);
    let (memory, session) = (AssertionMemory::default(), (SESSION, after(86_400)));
    let alice = stated();
    let first = one.renew(&memory, &alice, session, START).await.unwrap();
    let again = one.renew(&memory, &alice, session, after(149)).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(matches!(one.look(&memory, &alice, after(149)), Remembered::Fresh(_)));
    let ageing = one.look(&memory, &alice, after(150));
    assert!(matches!(ageing, Remembered::Ageing { renew: true, .. }), "one sees to it");
    let ageing = one.look(&memory, &alice, after(151));
    assert!(matches!(ageing, Remembered::Ageing { renew: false, .. }), "and one alone");
    assert!(matches!(one.look(&memory, &alice, after(225)), Remembered::None), "about to end");

    let promoted = Stated { role: Role::new("super_admin"), ..alice.clone() };
    assert!(matches!(one.look(&memory, &promoted, START), Remembered::None));
    assert!(*first.stated() != promoted && *first.stated() == alice);
    let learned = Stated { attributes: stated().attributes, ..alice.clone() };
    assert!(matches!(one.look(&memory, &learned, START), Remembered::None));

    let mut other = config.clone();
    other.audience = "others".to_owned();
    assert!(matches!(issuer(&other, &keys).look(&memory, &alice, START), Remembered::None));
    let same = issuer(&config, &open(None, &config, Some(&keys), START));
    assert!(matches!(same.look(&memory, &alice, START), Remembered::Fresh(_)), "after a reload");
}

#[tokio::test]
async fn no_assertion_outlives_its_session_or_is_signed_over_and_over_at_its_end() {
    let config = pair(TokenAlgorithm::EdDsa, Publication::Internal);
    let signs = issuer(&config, &open(None, &config, None, START));
    let memory = AssertionMemory::default();
    let session = (SESSION, after(100));
    let last = signs.renew(&memory, &stated(), session, START).await.unwrap();
    let payload = last.text().expose().split('.').nth(1).unwrap().to_owned();
    let payload =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    let claims: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    assert_eq!(claims["exp"], after(100).seconds());
    assert!(last.is_fresh(after(99)));
    assert!(!last.is_fresh(after(100)));
}

#[tokio::test]
async fn attributes_that_are_asked_for_and_not_known_are_not_left_out_silently() {
    let signature = AssertionSignature::Shared(Secret::new("a".repeat(32)));
    let config = with(signature.clone(), &json!({"mail": "{attr:mail}"}));
    let keys = open(None, &config, None, START);
    let unknown = Stated { attributes: None, ..stated() };
    let (memory, session) = (AssertionMemory::default(), (SESSION, after(900)));
    let refused = issuer(&config, &keys).renew(&memory, &unknown, session, START).await;
    assert_eq!(refused.err(), Some(AssertionError::AttributesUnknown));
    let config = with(signature, &json!({"role": "{role}"}));
    assert!(issuer(&config, &keys).renew(&memory, &unknown, session, START).await.is_ok());
}

fn stages(keys: &AssertionKeys, now: Timestamp) -> Vec<KeyStage> {
    keys.facts(now).iter().map(|facts| facts.stage).collect()
}

#[tokio::test]
async fn a_rotated_key_is_published_before_it_signs_and_the_old_one_goes_by_itself() {
    let (_folder, dir) = folder();
    for dir in [Some(&dir), None] {
        let config = pair(TokenAlgorithm::EdDsa, Publication::Internal);
        let keys = open(dir, &config, None, START);
        let signs = issuer(&config, &keys);
        let old = kid(&text(&signs, after(10)).await);
        let new = keys.make_next(dir, after(20), &Entropy::system()).unwrap();
        assert_eq!(published(&keys, after(20)), [old.as_str()], "held by nobody yet");
        keys.adopt(&new);
        keys.adopt(&new);
        let new = new[0].kid().to_owned();
        assert_eq!(published(&keys, after(20)), [old.clone(), new.clone()]);
        assert_eq!(stages(&keys, after(20)), [KeyStage::Signs, KeyStage::SignsFrom(after(80))]);
        assert_eq!(kid(&text(&signs, after(79)).await), old);
        assert_eq!(kid(&text(&signs, after(80)).await), new);
        assert_eq!(stages(&keys, after(80)), [KeyStage::Published, KeyStage::Signs]);
        assert_eq!(keys.retire(dir, after(379)).unwrap(), Vec::<String>::new(), "under way");
        assert_eq!(keys.retire(dir, after(384)).unwrap(), [old.as_str()]);
        assert_eq!(
            keys.retire(dir, after(9000)).unwrap(),
            Vec::<String>::new(),
            "has no successor"
        );
        assert_eq!(published(&keys, after(384)), [new.as_str()]);
        if let Some(dir) = dir {
            let left: Vec<_> = dir.read().unwrap().into_iter().map(|jwk| jwk.kid).collect();
            assert_eq!(left, [new]);
        }
    }
}

#[tokio::test]
async fn dropped_keys_vouch_for_nothing_from_then_on() {
    let (_folder, dir) = folder();
    let config = pair(TokenAlgorithm::EdDsa, Publication::Internal);
    let keys = open(Some(&dir), &config, None, START);
    let signs = issuer(&config, &keys);
    let (memory, session) = (AssertionMemory::default(), (SESSION, after(86_400)));
    let before = signs.renew(&memory, &stated(), session, after(10)).await.unwrap();
    let old = kid(before.text().expose());
    let new = keys.make_next(Some(&dir), after(20), &Entropy::system()).unwrap();
    keys.adopt(&new);
    assert_eq!(keys.drop_all_but(&new), [old.as_str()]);
    assert!(dir.delete_dropped(std::slice::from_ref(&old)).is_none());
    assert!(dir.delete_dropped(&[old]).is_none(), "nor is it there to be dropped again");
    assert_eq!(published(&keys, after(20)), [new[0].kid()]);
    assert!(!before.is_fresh(after(20)), "no worker sends its copy");
    assert!(matches!(signs.look(&memory, &stated(), after(20)), Remembered::None));
    let next = signs.renew(&memory, &stated(), session, after(20)).await.unwrap();
    assert_eq!(kid(next.text().expose()), new[0].kid(), "signs at once");
    assert_eq!(stages(&keys, after(20)), [KeyStage::Signs]);
}

#[test]
fn a_key_that_no_configuration_asks_for_any_more_is_kept() {
    let (_folder, dir) = folder();
    let config = pair(TokenAlgorithm::EdDsa, Publication::Internal);
    let first = open(Some(&dir), &config, None, START);
    let other = pair(TokenAlgorithm::Es256, Publication::Internal);
    let second = open(Some(&dir), &other, Some(&first), after(10));
    assert_eq!(second.retire(Some(&dir), after(9000)).unwrap(), Vec::<String>::new());
    assert_eq!(dir.read().unwrap().len(), 2);
    assert!(stages(&second, after(9000)).contains(&KeyStage::Unused));
}
