//! Somebody with ten thousand addresses guesses for a thousand days, at three gateways
//! on one store, in memory and in Redis, as well as anybody could: each length's budget
//! is spent while as many codes of that length are alive as may be.

use std::collections::{BTreeSet, HashSet};

use futures_util::future::join_all;

use super::site::{HOUR, Site, settings, site, zoe};
use super::{Code, outcome};
use crate::ambient::Entropy;
use crate::config::{self, GuessBudget};

const ADDRESSES: u32 = 10_000;
/// Guesses that are under way at once, at all gateways.
const WAVE: u32 = 32;
/// Codes of four, six and eight digits: the budgets are small enough to be spent try by
/// try, and the arithmetic is that of every length.
const DIGITS: [u8; 3] = [4, 6, 8];
const ALIVE: u32 = 80;
/// At one length in one day, whatever is let through: nine in ten of the addresses, and
/// of the codes of four digits.
const TRIES_MAX: u32 = 9_000;
/// Codes of eight digits are worth a hundredth of those of six: nobody gets through all
/// of their budget in this test, and they are guessed at on one day in ten.
const TRIES_AT_EIGHT: u32 = WAVE;
const DAYS_AT_EIGHT: u32 = 10;
/// With one in ten a day, 100 hits in 1,000 days; four standard deviations more is 140.
const HITS_MAX: u32 = 140;

struct Attacker {
    entropy: Entropy,
    address: u32,
    /// The lengths that were given out, and guessed at.
    lengths: BTreeSet<u8>,
    hits: u32,
}

impl Attacker {
    /// Guesses until the budget is spent, or so often; each time from the next address, at
    /// the next gateway, and never the same code twice.
    async fn spend(&mut self, site: &Site, digits: u8) {
        self.lengths.insert(digits);
        let most = if digits == DIGITS[2] { TRIES_AT_EIGHT } else { TRIES_MAX };
        let (mut guessed, mut found, mut wrong) = (HashSet::new(), 0, 0);
        while found + wrong < most {
            let wave: Vec<_> = (0..WAVE).map(|_| self.guess(digits, &mut guessed)).collect();
            let tries = wave.iter().map(|(code, address)| site.redeem(code, *address));
            let mut refused = 0;
            for (tried, (code, _)) in join_all(tries).await.iter().zip(&wave) {
                match outcome(tried) {
                    "redeemed" => found += 1,
                    "wrong" | "expired" => wrong += 1,
                    // Nobody looked: it may be guessed again.
                    "spent" => {
                        guessed.remove(code.expose());
                        refused += 1;
                    }
                    other => panic!("{other}"),
                }
            }
            // What is right gives its try back, so less than all says nothing.
            if refused == WAVE {
                break;
            }
        }
        self.hits += found;
    }

    /// The next guess, and the address that it comes from.
    fn guess(&mut self, digits: u8, guessed: &mut HashSet<String>) -> (Code, u32) {
        self.address = (self.address + 1) % ADDRESSES;
        loop {
            let code = Code::draw(digits, &self.entropy).unwrap();
            if guessed.insert(code.expose().to_owned()) {
                return (code, self.address);
            }
        }
    }

    fn has_won(&self) -> bool {
        self.hits > HITS_MAX
    }
}

/// As many codes as may be alive, all of the present length; says which that is.
async fn fill(site: &Site) -> u8 {
    let tracer = zoe();
    let issued = join_all((0..ALIVE).map(|number| site.gateway(number).issue(&tracer, None))).await;
    let digits: BTreeSet<_> = issued.iter().map(|it| it.as_ref().unwrap().code.digits()).collect();
    assert_eq!(digits.len(), 1);
    u8::try_from(*digits.first().unwrap()).unwrap()
}

/// So many days; no more hits are waited for than say that the bound is broken.
async fn attack(site: &Site, days: u32) -> Attacker {
    let (entropy, lengths) = (Entropy::seeded(20), BTreeSet::new());
    let mut attacker = Attacker { entropy, address: 0, lengths, hits: 0 };
    for day in 0..days {
        let lengths = if day % DAYS_AT_EIGHT == 0 { DIGITS.len() } else { DIGITS.len() - 1 };
        for _ in 0..lengths {
            let digits = fill(site).await;
            attacker.spend(site, digits).await;
            if attacker.has_won() {
                return attacker;
            }
            site.time.advance(HOUR);
        }
        // The first tries leave the window.
        site.time.advance(HOUR * (24 - u32::try_from(lengths).unwrap()));
    }
    attacker
}

fn bounded() -> config::AccessCodes {
    settings(DIGITS[0], ALIVE, 10)
}

/// As [`bounded`], with no budget that all addresses share.
fn unbounded() -> config::AccessCodes {
    let mut settings = bounded();
    let unlimited = |budget: &GuessBudget| GuessBudget { tries: u32::MAX, ..*budget };
    settings.budgets = settings.budgets.iter().map(unlimited).collect();
    settings
}

async fn stays_within(kind: &str) {
    let attacker = attack(&site(kind, &bounded()).await, 1000).await;
    assert!(attacker.lengths.into_iter().eq(DIGITS), "each length was attacked");
    let hits = attacker.hits;
    assert!((20..=HITS_MAX).contains(&hits), "{hits} hits in 1,000 days on {kind}");
}

async fn breaks(kind: &str) {
    let attacker = attack(&site(kind, &unbounded()).await, 1000).await;
    assert!(attacker.has_won(), "{} hits on {kind}", attacker.hits);
}

#[tokio::test]
async fn an_attacker_with_ten_thousand_addresses_stays_within_the_bound() {
    stays_within("memory").await;
}

#[tokio::test]
async fn without_the_common_budget_the_same_attacker_breaks_the_bound() {
    breaks("memory").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_gateways_on_one_redis_the_same_attacker_stays_within_the_bound() {
    stays_within("single").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_too_the_same_attacker_breaks_the_bound_without_the_common_budget() {
    breaks("single").await;
}
