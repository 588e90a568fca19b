//! Promises of sessions, over the memory store unless a restart is part of them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::json;

use super::{
    Admission, Carrier, CheckError, CheckedPair, Guest, Opened, Origin, Person, Presence, Reason,
    RenewError, Renewed, Sessions,
};
use crate::ambient::{Clock, Entropy, ManualTime};
use crate::config::{self, Delivery, TokenAlgorithm};
use crate::identity::{Attributes, ClaimTemplates, Role, SessionId, Subject};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::token::ContextHash;

mod gateways;
mod keys;
mod outage;
mod restart;
mod starts;

const MINUTE: Duration = Duration::from_mins(1);

pub(super) fn token_config(keys_dir: Option<&Path>) -> config::Token {
    config::Token {
        algorithm: TokenAlgorithm::Hs256,
        lifetime: 15 * MINUTE,
        session_lifetime: 12 * 60 * MINUTE,
        idle_timeout: 60 * MINUTE,
        replay_grace: MINUTE,
        keys_dir: keys_dir.map(Path::to_owned),
        delivery: Delivery::Cookie,
        rotate_every: None,
        sessions_per_user: None,
        claims: ClaimTemplates::default(),
        login_response: serde_json::Map::new(),
    }
}

/// Sessions with a governed clock.
struct Fixture {
    sessions: Arc<Sessions>,
    time: ManualTime,
    metrics: Metrics,
}

pub(super) async fn start(
    kind: &config::Store,
    token: &config::Token,
    clock: &Clock,
    metrics: &Metrics,
) -> Arc<Sessions> {
    let store = Store::open(kind, Duration::from_secs(5), (clock, &Entropy::system()), metrics)
        .await
        .unwrap();
    let ambient = (clock.clone(), Entropy::system(), metrics);
    Sessions::start(token, kind, store, ambient).await.unwrap()
}

async fn fixture() -> Fixture {
    let (clock, time) = Clock::manual();
    let metrics = Metrics::new().unwrap();
    let sessions = start(&config::Store::Memory, &token_config(None), &clock, &metrics).await;
    Fixture { sessions, time, metrics }
}

pub(super) async fn login(sessions: &Sessions) -> Opened {
    login_as(sessions, (false, None)).await
}

/// Somebody with a code, whose session and token both live so long.
async fn guest(sessions: &Sessions, lifetime: Duration) -> Opened {
    let guest = Guest { subject: Subject::new("access-code:1"), reference: None, lifetime };
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    sessions.open_for_guest(guest, Origin { address, user_agent: None }).await.unwrap()
}

/// The same, perhaps by an emergency account.
pub(super) async fn login_as(
    sessions: &Sessions,
    (emergency, lifetime_max): (bool, Option<Duration>),
) -> Opened {
    let mut attributes = Attributes::default();
    attributes.add("mail", vec!["zoë@example.org".to_owned()]).unwrap();
    let (subject, role) = (Subject::new("zoë"), Role::new("admin"));
    let account = "uid=zoë".to_owned();
    let stamp = Some("1/a".to_owned());
    let person =
        super::Person { subject, role, account, attributes, stamp, emergency, lifetime_max };
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let origin = Origin { address, user_agent: Some("ä".repeat(500)) };
    sessions.open(sessions.prepare(person, origin).unwrap()).await.unwrap()
}

impl Fixture {
    fn check(&self, opened: &Opened, token: &str) -> CheckedPair {
        let context = Some(opened.context.as_str().as_bytes());
        // These stores answer at once.
        self.sessions.check(token, context).now_or_never().unwrap().unwrap()
    }

    fn cookie(&self, pair: &CheckedPair) -> &'static str {
        name(&self.sessions.admit(pair, Carrier::Cookie, Presence::Active))
    }

    fn bearer(&self, pair: &CheckedPair) -> &'static str {
        name(&self.sessions.admit(pair, Carrier::Authorization, Presence::Active))
    }

    async fn renew(&self, pair: &CheckedPair) -> Renewed {
        self.sessions.renew(pair, Carrier::Cookie, Presence::Active).await.unwrap()
    }

    async fn refused(&self, pair: &CheckedPair, carrier: Carrier) -> RenewError {
        self.sessions.renew(pair, carrier, Presence::Active).await.err().unwrap()
    }
}

pub(super) fn name(admission: &Admission) -> &'static str {
    match admission {
        Admission::Live(_) => "live",
        Admission::RenewInPassing(_) => "renew in passing",
        Admission::RenewFirst => "renew first",
        Admission::Expired => "expired",
        Admission::Ended => "ended",
        Admission::Unknown => "unknown",
        Admission::Stolen => "stolen",
    }
}

#[tokio::test]
async fn a_login_proves_who_logged_in_and_nothing_without_its_cookie() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let other = login(&fixture.sessions).await;
    let token = opened.token.expose();
    let pair = fixture.check(&opened, token);
    let Admission::Live(identity) =
        fixture.sessions.admit(&pair, Carrier::Cookie, Presence::Active)
    else {
        panic!("not live");
    };
    assert_eq!((identity.subject().as_str(), identity.role().as_str()), ("zoë", "admin"));
    assert_eq!(identity.session(), opened.session);
    assert_eq!(identity.expires_at(), opened.expires_at);
    assert_eq!(identity.session_expires_at(), opened.session_expires_at);
    assert!(pair.claims().context == ContextHash::of(opened.context.as_str().as_bytes()));

    let mismatch = async |context: Option<&[u8]>| {
        matches!(fixture.sessions.check(token, context).await, Err(CheckError::ContextMismatch))
    };
    assert!(mismatch(None).await);
    assert!(mismatch(Some(b"")).await);
    assert!(mismatch(Some(other.context.as_str().as_bytes())).await);
    assert!(mismatch(Some(format!("{} ", opened.context.as_str()).as_bytes())).await);
    let forged = format!("{token}x");
    let context = Some(opened.context.as_str().as_bytes());
    assert!(matches!(
        fixture.sessions.check(&forged, context).await,
        Err(CheckError::InvalidToken(_))
    ));
}

#[tokio::test]
async fn every_login_has_its_own_session_and_cookie() {
    let fixture = fixture().await;
    let (one, two) = (login(&fixture.sessions).await, login(&fixture.sessions).await);
    assert_ne!(one.session, two.session);
    assert_ne!(one.context.as_str(), two.context.as_str());
    let kept = fixture.sessions.store().read(one.session).await.unwrap().unwrap();
    assert_eq!(kept.user_agent.map(|agent| agent.len()), Some(256));
}

#[tokio::test]
async fn a_cookie_is_renewed_from_half_its_life_and_a_bearer_never_in_passing() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    fixture.time.advance(7 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "live");
    fixture.time.advance(MINUTE);
    assert_eq!(fixture.cookie(&pair), "renew in passing");
    assert_eq!(fixture.bearer(&pair), "live");
    fixture.time.advance(7 * MINUTE + Duration::from_secs(4));
    assert_eq!(fixture.cookie(&pair), "renew in passing", "within the leeway");
    fixture.time.advance(Duration::from_secs(2));
    assert_eq!(fixture.cookie(&pair), "renew first");
    assert_eq!(fixture.bearer(&pair), "expired");
    let renewed = fixture.renew(&pair).await;
    let next = fixture.check(&opened, renewed.token.expose());
    assert_eq!(fixture.cookie(&next), "live");
    assert_eq!(renewed.identity.subject().as_str(), "zoë");
    assert_eq!(renewed.session_expires_at, opened.session_expires_at);
}

#[tokio::test]
async fn sixteen_parallel_renewals_with_one_token_give_one_successor() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    fixture.time.advance(8 * MINUTE);
    let renewals = join_all((0..16).map(|_| fixture.renew(&pair))).await;
    let first = renewals[0].token.expose();
    assert_ne!(first, opened.token.expose());
    assert!(renewals.iter().all(|renewed| renewed.token.expose() == first));
    // The other fifteen come again with the old token once the successor was seen.
    assert_eq!(fixture.cookie(&fixture.check(&opened, first)), "live");
    assert_eq!(fixture.cookie(&pair), "live");
    assert_eq!(fixture.renew(&pair).await.token.expose(), first);
}

#[tokio::test]
async fn a_replaced_token_used_after_the_grace_ends_the_session_as_stolen() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let renewed = fixture.renew(&pair).await;
    let next = fixture.check(&opened, renewed.token.expose());
    fixture.time.advance(5 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "live", "a successor never seen replaces nothing");
    assert_eq!(fixture.cookie(&next), "live");
    fixture.time.advance(MINUTE);
    assert_eq!(fixture.cookie(&pair), "live", "within the grace");
    fixture.time.advance(Duration::from_millis(1));
    assert_eq!(fixture.cookie(&pair), "stolen");
    assert_eq!(fixture.cookie(&pair), "ended");
    assert_eq!(fixture.cookie(&next), "ended");
    assert_eq!(fixture.sessions.end(opened.session, Reason::Stolen).await, Ok(true));
    assert_eq!(fixture.metrics.sessions_revoked("stolen").get(), 1);
}

#[tokio::test]
async fn a_replaced_token_renewed_after_the_grace_ends_the_session_as_stolen() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let renewed = fixture.renew(&pair).await;
    let next = fixture.check(&opened, renewed.token.expose());
    assert_eq!(fixture.cookie(&next), "live");
    fixture.time.advance(2 * MINUTE);
    assert_eq!(fixture.refused(&pair, Carrier::Cookie).await, RenewError::Stolen);
    assert_eq!(fixture.refused(&next, Carrier::Cookie).await, RenewError::Ended);
    assert!(fixture.sessions.store().read(opened.session).await.unwrap().is_none());
    assert_eq!(fixture.metrics.sessions_revoked("stolen").get(), 1);
}

#[tokio::test]
async fn a_replaced_bearer_works_until_its_own_end_and_is_no_theft() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let renewed = fixture.renew(&pair).await;
    let next = fixture.check(&opened, renewed.token.expose());
    assert_eq!(fixture.bearer(&next), "live");
    fixture.time.advance(14 * MINUTE);
    assert_eq!(fixture.bearer(&pair), "live");
    let again =
        fixture.sessions.renew(&pair, Carrier::Authorization, Presence::Active).await.unwrap();
    assert!(again.expires_at > renewed.expires_at);
    fixture.time.advance(2 * MINUTE);
    assert_eq!(fixture.bearer(&pair), "expired");
    assert_eq!(fixture.refused(&pair, Carrier::Authorization).await, RenewError::Expired);
    assert!(fixture.sessions.renew(&next, Carrier::Authorization, Presence::Active).await.is_ok());
}

#[tokio::test]
async fn a_successor_that_nobody_saw_is_given_again_with_new_dates_when_it_got_old() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let lost = fixture.renew(&pair).await;
    fixture.time.advance(10 * MINUTE);
    let again = fixture.renew(&pair).await;
    assert_ne!(again.token.expose(), lost.token.expose());
    fixture.time.advance(20 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "renew first", "as often as it is lost");
    let third = fixture.renew(&pair).await;
    let next = fixture.check(&opened, third.token.expose());
    assert_eq!(fixture.cookie(&next), "live");
    let late = fixture.check(&opened, lost.token.expose());
    assert_eq!(fixture.cookie(&late), "renew first", "a late copy of the successor is no theft");
}

#[tokio::test]
async fn an_idle_session_ends_and_activity_keeps_it_until_its_lifetime() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let mut pair = fixture.check(&opened, opened.token.expose());
    for _ in 0..12 {
        fixture.time.advance(59 * MINUTE);
        assert_eq!(fixture.cookie(&pair), "renew first");
        let renewed = fixture.renew(&pair).await;
        assert!(renewed.expires_at <= opened.session_expires_at);
        pair = fixture.check(&opened, renewed.token.expose());
    }
    assert_eq!(fixture.cookie(&pair), "live", "nothing is won by renewing before the end");
    fixture.time.advance(12 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "ended");
    assert_eq!(fixture.refused(&pair, Carrier::Cookie).await, RenewError::Ended);

    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    fixture.time.advance(60 * MINUTE + Duration::from_millis(1));
    assert_eq!(fixture.cookie(&pair), "ended");
    assert_eq!(fixture.refused(&pair, Carrier::Cookie).await, RenewError::Ended);
}

#[tokio::test]
async fn traffic_on_a_stream_counts_as_activity() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let Admission::Live(identity) =
        fixture.sessions.admit(&pair, Carrier::Cookie, Presence::Active)
    else {
        panic!("not live");
    };
    fixture.time.advance(50 * MINUTE);
    identity.touch();
    fixture.time.advance(50 * MINUTE);
    assert_eq!(fixture.cookie(&pair), "renew first");
}

#[tokio::test]
async fn the_end_of_a_session_wakes_its_streams_and_holds_for_every_pair() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let Admission::Live(identity) =
        fixture.sessions.admit(&pair, Carrier::Cookie, Presence::Active)
    else {
        panic!("not live");
    };
    let stream = tokio::spawn({
        let identity = identity.clone();
        async move { identity.ended().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(fixture.metrics.sessions_active().get(), 1);
    assert_eq!(fixture.sessions.end(opened.session, Reason::Logout).await, Ok(true));
    tokio::time::timeout(Duration::from_secs(1), stream).await.unwrap().unwrap();
    identity.ended().await;
    assert_eq!(fixture.cookie(&pair), "ended");
    assert_eq!(fixture.bearer(&fixture.check(&opened, opened.token.expose())), "ended");
    assert_eq!(fixture.sessions.end(opened.session, Reason::Logout).await, Ok(false));
    assert_eq!(fixture.metrics.sessions_revoked("logout").get(), 1);
    assert_eq!(fixture.metrics.sessions_active().get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_does_not_outlive_the_lifetime_of_its_session() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let Admission::Live(identity) =
        fixture.sessions.admit(&pair, Carrier::Cookie, Presence::Active)
    else {
        panic!("not live");
    };
    let before = tokio::time::Instant::now();
    identity.ended().await;
    let lasted = before.elapsed();
    assert!((12 * 60 * MINUTE..12 * 60 * MINUTE + Duration::from_secs(1)).contains(&lasted));
}

#[tokio::test]
async fn ending_an_unknown_session_ends_nobody() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let unknown = SessionId::from_bytes([3; 16]);
    assert_eq!(fixture.sessions.end(unknown, Reason::Operator).await, Ok(false));
    assert_eq!(fixture.cookie(&pair), "live");
}

#[tokio::test]
async fn upkeep_forgets_what_is_over_and_unused_and_nothing_else() {
    let fixture = fixture().await;
    let (used, unused) = (login(&fixture.sessions).await, login(&fixture.sessions).await);
    let revoked = login(&fixture.sessions).await;
    let pair = fixture.check(&used, used.token.expose());
    drop(fixture.check(&unused, unused.token.expose()));
    fixture.sessions.end(revoked.session, Reason::Logout).await.unwrap();
    assert_eq!(fixture.sessions.live.len(), 3);
    let sweep = || fixture.sessions.live.sweep(fixture.sessions.clock.now(), 1);
    sweep();
    assert_eq!(fixture.sessions.live.len(), 2, "used and revoked");
    fixture.time.advance(12 * 60 * MINUTE);
    sweep();
    assert!(pair.live().is_ended(), "its streams are woken");
    fixture.time.advance(59 * MINUTE);
    sweep();
    assert_eq!(
        fixture.sessions.live.len(),
        2,
        "used, and revoked for as long as clocks may be off"
    );
    fixture.time.advance(2 * MINUTE);
    sweep();
    assert_eq!(fixture.sessions.live.len(), 1, "used");
}

#[tokio::test]
async fn a_reload_takes_over_times_and_keys_and_forgets_no_session() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let version = fixture.sessions.version();
    fixture.sessions.reload(&token_config(None)).await.unwrap();
    assert_eq!(fixture.sessions.version(), version, "nothing changed");
    let mut token = token_config(None);
    token.algorithm = TokenAlgorithm::EdDsa;
    token.lifetime = 5 * MINUTE;
    fixture.sessions.reload(&token).await.unwrap();
    assert_ne!(fixture.sessions.version(), version);
    let pair = fixture.check(&opened, opened.token.expose());
    assert_eq!(fixture.cookie(&pair), "live");
    let renewed = fixture.renew(&pair).await;
    assert_eq!(renewed.expires_at.since(renewed.issued_at), 5 * MINUTE);
    assert!(fixture.sessions.is_ours(renewed.token.expose()));
    assert_eq!(fixture.sessions.public_jwks()["keys"].as_array().map(Vec::len), Some(1));
}

/// `[token]` with these further claims.
fn with_claims(claims: &serde_json::Value) -> config::Token {
    let claims = ClaimTemplates::parse(claims.as_object().unwrap(), &config::FIXED_CLAIMS);
    config::Token { claims: claims.unwrap(), ..token_config(None) }
}

/// One claim of a token, as others read it.
fn told(token: &str, name: &str) -> serde_json::Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<serde_json::Value>(&payload).unwrap()[name].clone()
}

#[tokio::test]
async fn further_claims_are_filled_in_at_login_and_at_each_renewal() {
    let (clock, time) = Clock::manual();
    let metrics = Metrics::new().unwrap();
    let claims =
        json!({"https://example.org/roles": ["{role}"], "mail": "{attr:mail}", "s": "{sid}"});
    let sessions = start(&config::Store::Memory, &with_claims(&claims), &clock, &metrics).await;
    let mut attributes = Attributes::default();
    attributes.add("mail", vec!["zoe@example.org".to_owned()]).unwrap();
    let person = Person {
        subject: Subject::new("zoë"),
        role: Role::new("admin"),
        account: "uid=zoë".to_owned(),
        attributes,
        stamp: None,
        emergency: false,
        lifetime_max: None,
    };
    let origin = Origin { address: IpAddr::V4(Ipv4Addr::LOCALHOST), user_agent: None };
    let opened = sessions.open(sessions.prepare(person, origin).unwrap()).await.unwrap();
    let fixture = Fixture { sessions, time, metrics };
    let pair = fixture.check(&opened, opened.token.expose());
    fixture.time.advance(10 * MINUTE);
    let renewed = fixture.renew(&pair).await;
    for token in [&opened.token, &renewed.token] {
        assert_eq!(told(token.expose(), "https://example.org/roles"), json!(["admin"]));
        assert_eq!(told(token.expose(), "mail"), json!("zoe@example.org"));
        assert_eq!(told(token.expose(), "s"), json!(opened.session.to_string()));
    }
    let other = with_claims(&json!({"subject": "{sub} by {attr:mail}"}));
    fixture.sessions.reload(&other).await.unwrap();
    let pair = fixture.check(&opened, renewed.token.expose());
    fixture.time.advance(10 * MINUTE);
    let renewed = fixture.renew(&pair).await;
    assert_eq!(told(renewed.token.expose(), "subject"), json!("zoë by zoe@example.org"));
    assert!(told(renewed.token.expose(), "mail").is_null());
}

#[test]
fn a_revocation_is_not_missed_by_a_check_that_runs_at_the_same_time() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = runtime.block_on(fixture());
    for _ in 0..300 {
        let opened = runtime.block_on(login(&fixture.sessions));
        std::thread::scope(|scope| {
            let checking = scope.spawn(|| fixture.check(&opened, opened.token.expose()));
            runtime.block_on(fixture.sessions.end(opened.session, Reason::Logout)).unwrap();
            let pair = checking.join().unwrap();
            assert_eq!(fixture.cookie(&pair), "ended");
        });
    }
}

#[tokio::test]
async fn slow_work_can_be_handed_to_another_runtime() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let pair = fixture.check(&opened, opened.token.expose());
    let sessions = Arc::clone(&fixture.sessions);
    let upkeep = tokio::spawn(Arc::clone(&sessions).run());
    let renewed =
        tokio::spawn(async move { sessions.renew(&pair, Carrier::Cookie, Presence::Active).await });
    assert!(renewed.await.unwrap().is_ok());
    let sessions = Arc::clone(&fixture.sessions);
    let opened = tokio::spawn(async move { login(&sessions).await }).await.unwrap();
    let sessions = Arc::clone(&fixture.sessions);
    let ended = tokio::spawn(async move { sessions.end(opened.session, Reason::NewLogin).await });
    assert_eq!(ended.await.unwrap(), Ok(true));
    upkeep.abort();
}
