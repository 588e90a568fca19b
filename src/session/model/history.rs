//! Draws the histories, and does each step to the real thing and to the model.

use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};

use super::place::{Kind, Place};
use super::{Held, IDLE, Model};
use crate::ambient::Timestamp;
use crate::session::tests::{login, name};
use crate::session::{Carrier, CheckError, CheckedPair, Opened, Presence, Reason, Sessions};
use crate::store::tests::redis::servers::RedisServer;

#[derive(Clone, Debug)]
enum Step {
    Login,
    /// A request with one of the tokens received so far, by its place from the newest.
    Request {
        token: usize,
        carrier: Carrier,
    },
    Renew {
        token: usize,
        carrier: Carrier,
    },
    Logout,
    /// By an operator.
    Revoke,
    /// Another key signs; or, with `now`, all before it are dropped.
    Rotate {
        now: bool,
    },
    /// What the process does by itself now and then.
    Upkeep,
    Restart,
    /// A restart without the store, or with an older one; or, `through`, a store that
    /// comes back empty while the gateway runs on, if it can.
    StoreLoss {
        restored: bool,
        through: bool,
    },
    Wait {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let carrier = || {
        any::<bool>().prop_map(
            |cookie| {
                if cookie { Carrier::Cookie } else { Carrier::Authorization }
            },
        )
    };
    let seconds = prop_oneof![0_u64..70, 400_u64..1000, 3000_u64..4000, 20_000_u64..50_000];
    let step = prop_oneof![
        2 => Just(Step::Login),
        8 => (0_usize..4, carrier()).prop_map(|(token, carrier)| Step::Request { token, carrier }),
        5 => (0_usize..4, carrier()).prop_map(|(token, carrier)| Step::Renew { token, carrier }),
        1 => Just(Step::Logout),
        1 => Just(Step::Revoke),
        2 => prop_oneof![4 => Just(false), 1 => Just(true)].prop_map(|now| Step::Rotate { now }),
        2 => Just(Step::Upkeep),
        1 => Just(Step::Restart),
        1 => any::<(bool, bool)>()
            .prop_map(|(restored, through)| Step::StoreLoss { restored, through }),
        6 => seconds.prop_map(|seconds| Step::Wait { seconds }),
    ];
    proptest::collection::vec(step, 1..40)
}

fn held(token: &str, generation: usize, (iat, exp): (Timestamp, Timestamp)) -> Held {
    Held { token: token.to_owned(), generation, iat: iat.seconds(), exp: exp.seconds() }
}

struct User {
    opened: Opened,
    tokens: Vec<Held>,
    model: Model,
}

impl User {
    async fn login(sessions: &Sessions, now: i64) -> Self {
        let opened = login(sessions).await;
        let dates = (opened.issued_at, opened.expires_at);
        let tokens = vec![held(opened.token.expose(), 0, dates)];
        let model = Model {
            ended: false,
            end: opened.session_expires_at.seconds(),
            active: now,
            issued: vec![(dates.0.seconds(), dates.1.seconds())],
            replaced: vec![None],
            keyless: false,
        };
        Self { opened, tokens, model }
    }

    /// The pair of one of the tokens; `None` when it rightly does not verify any more.
    async fn check(&self, sessions: &Sessions, token: &Held, now: i64) -> Option<CheckedPair> {
        let context = Some(self.opened.context.as_str().as_bytes());
        match sessions.check(&token.token, context).await {
            Ok(pair) => {
                assert!(!self.model.keyless, "a token of a key that was dropped");
                Some(pair)
            }
            Err(CheckError::InvalidToken(_)) => {
                assert!(self.model.may_be_unknown(token, now), "its key is still needed");
                None
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn token(&self, place: usize) -> &Held {
        &self.tokens[self.tokens.len().saturating_sub(place + 1)]
    }

    async fn request(&mut self, sessions: &Sessions, (token, carrier): (usize, Carrier), now: i64) {
        let held = self.token(token);
        let Some(pair) = self.check(sessions, held, now).await else { return };
        let is = name(&sessions.admit(&pair, carrier, Presence::Active));
        let held = &self.tokens[self.tokens.len().saturating_sub(token + 1)];
        // What is shared is asked at the renewal whether it was idle for too long.
        let is_idle = !self.model.ended && now - self.model.active > IDLE;
        let is_asked = is_idle && sessions.store().is_shared();
        let should = self.model.request(held, carrier, now);
        // A session whose time is over may be forgotten: any refusal is right then.
        let refused = ["ended", "expired", "renew first", "stolen"].contains(&is);
        let forgotten = now >= self.model.end && refused;
        let asked = is_asked && refused;
        self.model.ended |= asked && is == "stolen";
        assert!(is == should || forgotten || asked, "{is} instead of {should}");
    }

    async fn renew(&mut self, sessions: &Sessions, (token, carrier): (usize, Carrier), now: i64) {
        let held = self.token(token);
        let Some(pair) = self.check(sessions, held, now).await else { return };
        let is = sessions.renew(&pair, carrier, Presence::Active).await;
        let held = &self.tokens[self.tokens.len().saturating_sub(token + 1)];
        match (is, self.model.renew(held, carrier, now)) {
            (Ok(is), Ok(generation)) => {
                let dates = (is.issued_at, is.expires_at);
                let given = self::held(is.token.expose(), generation, dates);
                assert_eq!((given.iat, given.exp), self.model.issued[generation]);
                self.tokens.push(given);
            }
            (is, should) => assert_eq!(is.err(), should.err()),
        }
    }

    async fn revoke(&mut self, sessions: &Sessions, now: i64) {
        match sessions.find(self.opened.session).await.unwrap() {
            Some(record) => {
                let ended = sessions.end_all(vec![record], Reason::Operator).await.unwrap();
                assert_eq!(ended.len(), 1);
                self.model.ended = true;
            }
            None => assert!(!self.model.is_live(now), "it was not found"),
        }
    }
}

async fn history(steps: &[Step], kind: Kind<'_>) {
    let mut place = Place::new(kind);
    let mut sessions = place.start().await;
    let mut user = User::login(&sessions, place.now()).await;
    for step in steps {
        let now = place.now();
        match *step {
            Step::Login => user = User::login(&sessions, now).await,
            Step::Request { token, carrier } => {
                user.request(&sessions, (token, carrier), now).await;
            }
            Step::Renew { token, carrier } => user.renew(&sessions, (token, carrier), now).await,
            Step::Logout => {
                sessions.end(user.opened.session, Reason::Logout).await.unwrap();
                user.model.ended = true;
            }
            Step::Revoke => user.revoke(&sessions, now).await,
            Step::Rotate { now: false } => drop(sessions.rotate_keys().await.unwrap()),
            Step::Rotate { now: true } => {
                assert!(sessions.drop_keys().await.unwrap().left.is_none());
                user.model.keyless = true;
            }
            Step::Upkeep => {
                sessions.flush().await;
                sessions.sweep().await;
                sessions.live.sweep(place.clock.now(), 1);
                sessions.tend_keys(&mut Vec::new()).await.unwrap();
            }
            Step::Restart => sessions = place.restart(sessions).await,
            Step::StoreLoss { restored, through } => {
                sessions = place.lose_store(sessions, (restored, through)).await;
                user.model.keyless = true;
            }
            Step::Wait { seconds } => place.time.advance(Duration::from_secs(seconds)),
        }
    }
}

fn histories(kind: Kind<'_>, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |steps: Vec<Step>| {
        runtime.block_on(history(&steps, kind));
        Ok(())
    };
    TestRunner::new(config).run(&steps(), run).unwrap();
}

#[test]
fn every_history_over_the_memory_store_goes_as_the_contract_says() {
    histories(Kind::Memory, 1000);
}

#[test]
fn every_history_over_the_embedded_store_goes_as_the_contract_says() {
    histories(Kind::Embedded, 60);
}

#[test]
fn every_history_over_redis_goes_as_the_contract_says() {
    let server = Mutex::new(RedisServer::start(&[]));
    histories(Kind::Redis(&server), 80);
}
