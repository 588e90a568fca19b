//! Random histories of one user against a model of twenty lines, over both stores.

use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};

use super::tests::{login, name, start, token_config};
use super::{Carrier, Opened, Presence, Reason, RenewError, Sessions};
use crate::ambient::{Clock, Timestamp};
use crate::config;
use crate::metrics::Metrics;

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
    Restart,
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
        1 => Just(Step::Login),
        6 => (0_usize..4, carrier()).prop_map(|(token, carrier)| Step::Request { token, carrier }),
        4 => (0_usize..4, carrier()).prop_map(|(token, carrier)| Step::Renew { token, carrier }),
        1 => Just(Step::Logout),
        1 => Just(Step::Restart),
        5 => seconds.prop_map(|seconds| Step::Wait { seconds }),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What the contract says of one session, in seconds.
struct Model {
    ended: bool,
    end: i64,
    active: i64,
    /// Each generation's newest `iat` and `exp`, from the first.
    issued: Vec<(i64, i64)>,
    /// Since when a generation has been replaced.
    replaced: Vec<Option<i64>>,
}

const LIFETIME: i64 = 15 * 60;
const IDLE: i64 = 60 * 60;
const GRACE: i64 = 60;
const LEEWAY: i64 = 5;

impl Model {
    fn see(&mut self, generation: usize, now: i64) {
        for older in &mut self.replaced[..generation] {
            older.get_or_insert(now);
        }
    }

    fn is_stolen(&self, generation: usize, carrier: Carrier, now: i64) -> bool {
        let replaced = self.replaced[generation];
        carrier == Carrier::Cookie && replaced.is_some_and(|since| now - since > GRACE)
    }

    fn request(&mut self, token: &Held, carrier: Carrier, now: i64) -> &'static str {
        let expired = now >= token.exp + LEEWAY;
        if self.ended {
            return "ended";
        }
        if expired && carrier == Carrier::Authorization {
            return "expired";
        }
        if now >= self.end || expired && now - self.active > IDLE {
            return "ended";
        }
        self.see(token.generation, now);
        if self.is_stolen(token.generation, carrier, now) {
            self.ended = true;
            return "stolen";
        }
        if expired {
            return "renew first";
        }
        self.active = now;
        let past_half = (now - token.iat) * 2 >= token.exp - token.iat;
        let newest = self.replaced[token.generation].is_none();
        let in_passing = carrier == Carrier::Cookie && newest && past_half && token.exp < self.end;
        if in_passing { "renew in passing" } else { "live" }
    }

    /// The generation given and its `iat` and `exp`.
    fn renew(&mut self, token: &Held, carrier: Carrier, now: i64) -> Result<usize, RenewError> {
        if self.ended || now >= self.end || now - self.active > IDLE {
            // A presented token is seen even so.
            self.see(token.generation, now);
            return Err(RenewError::Ended);
        }
        self.see(token.generation, now);
        if self.is_stolen(token.generation, carrier, now) {
            self.ended = true;
            return Err(RenewError::Stolen);
        }
        let replaced = self.replaced[token.generation].is_some();
        if replaced && carrier == Carrier::Authorization && now >= token.exp + LEEWAY {
            return Err(RenewError::Expired);
        }
        self.active = now;
        let newest = self.issued.len() - 1;
        let (iat, exp) = self.issued[newest];
        let fresh = (now - iat) * 2 < exp - iat;
        let dates = (now, (now + LIFETIME).min(self.end));
        if token.generation < newest && fresh {
            return Ok(newest);
        }
        if token.generation < newest && self.replaced[newest - 1].is_none() {
            self.issued[newest] = dates;
            return Ok(newest);
        }
        self.issued.push(dates);
        self.replaced.push(None);
        Ok(newest + 1)
    }
}

/// A token that the user holds.
struct Held {
    token: String,
    generation: usize,
    iat: i64,
    exp: i64,
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
        };
        Self { opened, tokens, model }
    }

    async fn step(&mut self, sessions: &Sessions, step: &Step, now: i64) {
        let context = Some(self.opened.context.as_str().as_bytes());
        match *step {
            Step::Request { token, carrier } => {
                let token = &self.tokens[self.tokens.len().saturating_sub(token + 1)];
                let pair = sessions.check(&token.token, context).await.unwrap();
                let is = name(&sessions.admit(&pair, carrier, Presence::Active));
                let should = self.model.request(token, carrier, now);
                // A session whose time is over may be forgotten: any refusal is right then.
                let forgotten =
                    now >= self.model.end && ["ended", "expired", "renew first"].contains(&is);
                assert!(is == should || forgotten, "{is} instead of {should}");
            }
            Step::Renew { token, carrier } => {
                let token = &self.tokens[self.tokens.len().saturating_sub(token + 1)];
                let pair = sessions.check(&token.token, context).await.unwrap();
                let is = sessions.renew(&pair, carrier, Presence::Active).await;
                match (is, self.model.renew(token, carrier, now)) {
                    (Ok(is), Ok(generation)) => {
                        let dates = (is.issued_at, is.expires_at);
                        let given = held(is.token.expose(), generation, dates);
                        assert_eq!((given.iat, given.exp), self.model.issued[generation]);
                        self.tokens.push(given);
                    }
                    (is, should) => assert_eq!(is.err(), should.err()),
                }
            }
            Step::Logout => {
                sessions.end(self.opened.session, Reason::Logout).await.unwrap();
                self.model.ended = true;
            }
            Step::Login | Step::Restart | Step::Wait { .. } => {}
        }
    }
}

async fn history(steps: &[Step], embedded: bool) {
    let folder = tempfile::tempdir().unwrap();
    let kind = if embedded {
        config::Store::Embedded { path: folder.path().join("state.redb") }
    } else {
        config::Store::Memory
    };
    let keys = folder.path().join("keys");
    let token = token_config(embedded.then_some(keys.as_path()));
    let (clock, time) = Clock::manual();
    // Whole seconds, as the model counts.
    let millis = u64::try_from(clock.now().millis().rem_euclid(1000)).unwrap();
    time.advance(Duration::from_millis(1000 - millis));
    let metrics = Metrics::new().unwrap();
    let mut sessions = start(&kind, &token, &clock, &metrics).await;
    let mut user = User::login(&sessions, clock.now().seconds()).await;
    for step in steps {
        let now = clock.now().seconds();
        match step {
            Step::Login => user = User::login(&sessions, now).await,
            Step::Wait { seconds } => time.advance(Duration::from_secs(*seconds)),
            Step::Restart if embedded => {
                sessions.flush().await;
                drop(sessions);
                sessions = start(&kind, &token, &clock, &metrics).await;
            }
            Step::Restart => sessions.live.sweep(clock.now(), 1),
            other => user.step(&sessions, other, now).await,
        }
    }
}

fn histories(embedded: bool, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |steps: Vec<Step>| {
        runtime.block_on(history(&steps, embedded));
        Ok(())
    };
    TestRunner::new(config).run(&steps(), run).unwrap();
}

#[test]
fn every_history_over_the_memory_store_goes_as_the_contract_says() {
    histories(false, 1000);
}

#[test]
fn every_history_over_the_embedded_store_goes_as_the_contract_says() {
    histories(true, 60);
}
