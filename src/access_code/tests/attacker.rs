//! Somebody with ten thousand addresses guesses for a thousand days, at three gateways
//! on one store, as well as anybody could: each length's budget is spent while as many
//! codes of that length are alive as may be.

use std::collections::HashSet;
use std::time::Duration;

use super::{Code, Site, outcome, settings, site, zoe};
use crate::ambient::Entropy;
use crate::config::{self, GuessBudget};

const ADDRESSES: u32 = 10_000;
/// Codes of four, six and eight digits: the budgets are small enough to be spent try by
/// try, and the arithmetic is that of every length.
const DIGITS: u8 = 4;
const ALIVE: u32 = 160;
/// Codes of eight digits are worth a hundredth of those of six; nobody gets through all
/// of their budget in this test.
const TRIES_AT_EIGHT: u32 = 100;
/// With one in ten a day, 100 hits in 1,000 days; four standard deviations more is 140.
const HITS_MAX: u32 = 140;

struct Attacker {
    entropy: Entropy,
    address: u32,
    hits: u32,
}

impl Attacker {
    /// Guesses until the budget is spent, or so often; each time from the next address, and
    /// never the same code twice.
    async fn spend(&mut self, site: &Site, digits: u8, most: u32) {
        let mut guessed = HashSet::new();
        for _ in 0..most {
            if self.has_won() {
                return;
            }
            let guess = loop {
                let code = Code::draw(digits, &self.entropy).unwrap();
                if guessed.insert(code.expose().to_owned()) {
                    break code;
                }
            };
            self.address = (self.address + 1) % ADDRESSES;
            match outcome(&site.redeem(&guess, self.address).await) {
                "redeemed" => self.hits += 1,
                "spent" => return,
                _ => {}
            }
        }
    }

    fn has_won(&self) -> bool {
        self.hits > HITS_MAX
    }
}

/// As many codes as may be alive, all of the present length.
async fn fill(site: &Site, digits: usize) {
    for number in 0..ALIVE {
        let gateway = &site.gateways[usize::try_from(number % 3).unwrap()];
        let issued = gateway.issue(&zoe(), None).await.unwrap();
        assert_eq!(issued.code.digits(), digits);
    }
}

/// The hits of so many days; no more are waited for than say that the bound is broken.
async fn attack(site: &Site, days: u32) -> u32 {
    let mut attacker = Attacker { entropy: Entropy::seeded(20), address: 0, hits: 0 };
    let hours = |hours: u64| Duration::from_hours(hours);
    for _ in 0..days {
        fill(site, 4).await;
        attacker.spend(site, 4, ADDRESSES).await;
        if attacker.has_won() {
            break;
        }
        site.time.advance(hours(1));
        fill(site, 6).await;
        attacker.spend(site, 6, ADDRESSES).await;
        site.time.advance(hours(1));
        fill(site, 8).await;
        attacker.spend(site, 8, TRIES_AT_EIGHT).await;
        site.time.advance(hours(24));
    }
    attacker.hits
}

fn bounded() -> config::AccessCodes {
    settings(DIGITS, ALIVE, 10)
}

#[tokio::test]
async fn an_attacker_with_ten_thousand_addresses_stays_within_the_bound() {
    let hits = attack(&site("memory", &bounded()).await, 1000).await;
    assert!((20..=HITS_MAX).contains(&hits), "{hits} hits in 1,000 days");
}

#[tokio::test]
async fn without_the_common_budget_the_same_attacker_breaks_the_bound() {
    let mut settings = bounded();
    let unlimited = |budget: &GuessBudget| GuessBudget { tries: u32::MAX, ..*budget };
    settings.budgets = settings.budgets.iter().map(unlimited).collect();
    let hits = attack(&site("memory", &settings).await, 1000).await;
    assert!(hits > HITS_MAX, "{hits} hits");
}
