//! Promises of keys over time, and of sessions that nobody keeps alive.

use std::sync::Arc;
use std::time::Duration;

use super::{Fixture, MINUTE, fixture, login, start, token_config};
use crate::ambient::{Clock, Entropy, Timestamp};
use crate::config::{self, TokenAlgorithm};
use crate::metrics::Metrics;
use crate::session::{
    Admission, Carrier, CheckError, KeyChange, KeyEvent, Presence, Reason, Sessions,
};
use crate::token::{KeyRing, TokenError};

const HOUR: Duration = Duration::from_hours(1);

async fn tend(sessions: &Sessions) -> Vec<KeyEvent> {
    let mut events = Vec::new();
    sessions.tend_keys(&mut events).await.unwrap();
    events
}

fn changes(events: &[KeyEvent]) -> Vec<KeyChange> {
    events.iter().map(|event| event.change).collect()
}

/// Whether a token still proves anything.
async fn verifies(fixture: &Fixture, opened: &crate::session::Opened) -> bool {
    let context = Some(opened.context.as_str().as_bytes());
    let checked = fixture.sessions.check(opened.token.expose(), context).await;
    !matches!(checked, Err(CheckError::InvalidToken(TokenError::UnknownKey)))
}

#[tokio::test]
async fn an_old_key_is_kept_for_the_last_session_that_can_use_a_token_of_it() {
    let fixture = fixture().await;
    let (busy, idle) = (login(&fixture.sessions).await, login(&fixture.sessions).await);
    let version = fixture.sessions.version();
    assert_eq!(changes(&fixture.sessions.rotate_keys().await.unwrap()), [KeyChange::Made]);
    assert_ne!(fixture.sessions.version(), version, "what was verified is verified again");
    let newer = login(&fixture.sessions).await;
    fixture.time.advance(20 * MINUTE);
    // Everything of the old key has expired by now, but may be renewed.
    let pair = fixture.check(&busy, busy.token.expose());
    assert_eq!(fixture.cookie(&pair), "renew first");
    let renewed = fixture.renew(&pair).await;
    assert!(tend(&fixture.sessions).await.is_empty(), "the successor was not seen yet");
    drop(fixture.check(&busy, renewed.token.expose()));
    let next = fixture.check(&busy, renewed.token.expose());
    assert_eq!(fixture.cookie(&next), "live");
    fixture.sessions.flush().await;
    assert!(tend(&fixture.sessions).await.is_empty(), "the idle one may come back");
    let pair = fixture.check(&idle, idle.token.expose());
    assert_eq!(fixture.cookie(&pair), "renew first");

    fixture.time.advance(2 * HOUR);
    let events = tend(&fixture.sessions).await;
    assert_eq!(changes(&events), [KeyChange::Retired]);
    assert!(!verifies(&fixture, &idle).await && verifies(&fixture, &newer).await);
    assert_eq!(fixture.metrics.keys_held("session").get(), 1);
    assert_eq!(fixture.metrics.key_changes("session", "retired").get(), 1);
}

#[tokio::test]
async fn a_client_that_never_takes_its_successor_keeps_the_key_until_its_session_ends() {
    let fixture = fixture().await;
    let stubborn = login(&fixture.sessions).await;
    fixture.sessions.rotate_keys().await.unwrap();
    for _ in 0..14 {
        fixture.time.advance(50 * MINUTE);
        let pair = fixture.check(&stubborn, stubborn.token.expose());
        assert_eq!(fixture.cookie(&pair), "renew first");
        fixture.renew(&pair).await;
        assert!(tend(&fixture.sessions).await.is_empty());
    }
    fixture.time.advance(50 * MINUTE);
    assert_eq!(changes(&tend(&fixture.sessions).await), [KeyChange::Retired]);
}

#[tokio::test]
async fn a_key_that_is_old_enough_is_followed_by_the_next() {
    let fixture = fixture().await;
    let mut token = token_config(None);
    token.rotate_every = Some(HOUR);
    fixture.sessions.reload(&token).await.unwrap();
    assert!(tend(&fixture.sessions).await.is_empty());
    let opened = login(&fixture.sessions).await;
    fixture.time.advance(HOUR);
    assert_eq!(changes(&tend(&fixture.sessions).await), [KeyChange::Made]);
    assert!(verifies(&fixture, &opened).await);
    assert!(tend(&fixture.sessions).await.is_empty());
    // Faster than sessions end, and still none is kept for ever.
    for _ in 0..24 {
        fixture.time.advance(HOUR);
        tend(&fixture.sessions).await;
    }
    assert!(fixture.sessions.keys().len() <= 3, "{:?}", fixture.sessions.keys());
}

#[tokio::test]
async fn what_was_rotated_is_known_after_a_restart_and_dropped_keys_stay_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let kind = config::Store::Embedded { path: folder.path().join("state.redb") };
    let token = token_config(Some(&folder.path().join("keys")));
    let (clock, time) = Clock::manual();
    let metrics = Metrics::new().unwrap();
    let sessions = start(&kind, &token, &clock, &metrics).await;
    let opened = login(&sessions).await;
    sessions.rotate_keys().await.unwrap();
    let keys = sessions.keys();
    drop(sessions);

    time.advance(MINUTE);
    let sessions = start(&kind, &token, &clock, &metrics).await;
    let seconds = |sessions: &Sessions| -> Vec<_> {
        sessions
            .keys()
            .into_iter()
            .map(|key| (key.kid, key.replaced.map(Timestamp::seconds)))
            .collect()
    };
    let before: Vec<_> =
        keys.into_iter().map(|key| (key.kid, key.replaced.map(Timestamp::seconds))).collect();
    assert_eq!(seconds(&sessions), before);
    let context = Some(opened.context.as_str().as_bytes());
    assert!(sessions.check(opened.token.expose(), context).await.is_ok());
    let dropped = sessions.drop_keys().await.unwrap();
    assert!(dropped.left.is_none());
    assert_eq!(changes(&dropped.events), [KeyChange::Made, KeyChange::Dropped, KeyChange::Dropped]);
    assert!(sessions.check(opened.token.expose(), context).await.is_err());
    drop(sessions);
    let sessions = start(&kind, &token, &clock, &metrics).await;
    assert_eq!(sessions.keys().len(), 1);
    assert!(sessions.check(opened.token.expose(), context).await.is_err());
}

#[tokio::test]
async fn what_a_page_asks_for_by_itself_does_not_keep_a_session_alive() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let mut token = opened.token.expose().clone();
    let mut lasted = Duration::ZERO;
    // Polled every minute, with renewals as a browser takes them.
    loop {
        let pair = fixture.check(&opened, &token);
        match fixture.sessions.admit(&pair, Carrier::Cookie, Presence::Passive) {
            Admission::Live(_) => {}
            Admission::RenewInPassing(_) | Admission::RenewFirst => {
                let renewed =
                    fixture.sessions.renew(&pair, Carrier::Cookie, Presence::Passive).await;
                token.clone_from(renewed.unwrap().token.expose());
            }
            _ => break,
        }
        // What is not in use is forgotten, and must not look active when it comes back.
        drop(pair);
        fixture.sessions.flush().await;
        fixture.sessions.live.sweep(fixture.sessions.clock.now(), 1);
        fixture.time.advance(MINUTE);
        lasted += MINUTE;
    }
    assert!((60 * MINUTE..62 * MINUTE).contains(&lasted), "{lasted:?}");
}

#[tokio::test]
async fn one_session_more_than_allowed_ends_the_oldest() {
    let fixture = fixture().await;
    let mut token = token_config(None);
    token.sessions_per_user = Some(2);
    fixture.sessions.reload(&token).await.unwrap();
    let mut opened = Vec::new();
    for _ in 0..3 {
        opened.push(login(&fixture.sessions).await);
        fixture.time.advance(MINUTE);
    }
    let subject = opened[0].subject.clone();
    let ended = fixture.sessions.keep_to_limit(&subject).await.unwrap();
    assert_eq!(ended.iter().map(|record| record.session).collect::<Vec<_>>(), [opened[0].session]);
    let pair = fixture.check(&opened[0], opened[0].token.expose());
    assert_eq!(fixture.cookie(&pair), "ended");
    assert_eq!(fixture.metrics.sessions_revoked("session_limit").get(), 1);
    assert_eq!(fixture.sessions.keep_to_limit(&subject).await.unwrap(), []);
    // Sessions that are over take nobody's place.
    fixture.time.advance(2 * HOUR);
    let newest = login(&fixture.sessions).await;
    assert_eq!(fixture.sessions.keep_to_limit(&subject).await.unwrap(), []);
    assert!(fixture.sessions.find(newest.session).await.unwrap().is_some());
    assert!(fixture.sessions.find(opened[1].session).await.unwrap().is_none(), "idle too long");
}

#[tokio::test]
async fn several_sessions_end_with_their_streams_and_are_counted_once() {
    let fixture = fixture().await;
    let (one, two) = (login(&fixture.sessions).await, login(&fixture.sessions).await);
    let pair = fixture.check(&one, one.token.expose());
    let Admission::Live(identity) =
        fixture.sessions.admit(&pair, Carrier::Cookie, Presence::Active)
    else {
        panic!("not live");
    };
    let records = fixture.sessions.page(None).await.unwrap();
    assert_eq!(records.len(), 2);
    let ended = fixture.sessions.end_all(records.clone(), Reason::Operator).await.unwrap();
    assert_eq!(ended.len(), 2);
    identity.ended().await;
    assert_eq!(fixture.sessions.end_all(records, Reason::Operator).await.unwrap(), []);
    assert_eq!(fixture.metrics.sessions_revoked("operator").get(), 2);
    assert_eq!(fixture.metrics.sessions_active().get(), 0);
    let pair = fixture.check(&two, two.token.expose());
    assert_eq!(fixture.cookie(&pair), "ended");
}

#[tokio::test]
async fn only_what_we_signed_has_an_owner_expired_or_not() {
    let fixture = fixture().await;
    let opened = login(&fixture.sessions).await;
    let token = opened.token.expose().clone();
    fixture.time.advance(HOUR);
    let owner = fixture.sessions.owner(&token).unwrap();
    assert_eq!((owner.session, owner.subject), (opened.session, opened.subject));
    let mut forged = token.clone();
    forged.pop();
    for other in [forged.as_str(), "", "a.b.c", &token[1..]] {
        assert!(fixture.sessions.owner(other).is_none(), "{other}");
    }
}

#[tokio::test]
async fn keys_that_were_dropped_meanwhile_do_not_come_back_when_another_signs() {
    let Fixture { sessions, .. } = fixture().await;
    let (held, now) = (sessions.keys.load_full(), sessions.clock.now());
    let settled = || held.at(TokenAlgorithm::Hs256, now).unwrap();
    sessions.settle(&held, settled());
    assert!(!Arc::ptr_eq(&held, &sessions.keys.load()), "taken over");
    let held = sessions.keys.load_full();
    sessions.hold(KeyRing::fresh(TokenAlgorithm::Hs256, now, &Entropy::system()).unwrap());
    sessions.settle(&held, settled());
    assert!(!held.same_keys(&sessions.keys.load()));
}
