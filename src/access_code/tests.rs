//! Codes over every kind of store, with a clock that the test moves.

mod attacker;
mod site;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;

use super::{Budget, BudgetError, Code, IssueError, Ledger, RedeemError, Redeemed};
use crate::config::{GuessBudget, Rate, SuccessBound};
use crate::identity::{Reference, Subject};
use crate::secret::Secret;
use crate::store::{Family, SecretName};

use self::site::{HOUR, KINDS, address, settings, site, zoe};

/// A code of so many digits that is not alive: only for sites where few are.
fn wrong(digits: usize) -> Code {
    Code::parse(&"0".repeat(digits)).unwrap()
}

fn outcome(result: &Result<Redeemed, RedeemError>) -> &'static str {
    match result {
        Ok(_) => "redeemed",
        Err(RedeemError::Invalid(outcome)) => outcome,
        Err(RedeemError::Spent { .. }) => "spent",
        Err(_) => "broken",
    }
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_before_its_end() {
    for kind in KINDS {
        let site = site(kind, &settings(6, 50, 100)).await;
        let reference = Reference::parse("case 17");
        let issued = site.gateways[0].issue(&zoe(), reference.clone()).await.unwrap();
        assert_eq!(issued.code.digits(), 6);
        let redeemed = site.redeem(&issued.code, 1).await.unwrap();
        assert_eq!(redeemed.reference, reference);
        assert_eq!(redeemed.subject, issued.subject);
        assert!(redeemed.subject.as_str().starts_with("access-code:"));
        assert_eq!(outcome(&site.redeem(&issued.code, 2).await), "wrong", "spent");
        let late = site.issue().await;
        site.time.advance(HOUR);
        assert_eq!(outcome(&site.redeem(&late.code, 3).await), "expired");
        assert_eq!(outcome(&site.redeem(&wrong(6), 4).await), "wrong");
        let counted = ["issued", "redeemed", "wrong", "expired"].map(|event| site.events(event));
        assert_eq!(counted, [2, 1, 2, 1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_redeem_one_code_at_once_exactly_one_wins() {
    for kind in KINDS {
        let site = Arc::new(site(kind, &settings(6, 50, 2)).await);
        let code = site.issue().await.code;
        let tries = (0..200).map(|number| {
            let (site, code) = (Arc::clone(&site), code.clone());
            tokio::spawn(async move { outcome(&site.redeem(&code, number).await) })
        });
        let outcomes = futures_util::future::join_all(tries).await;
        let of = |wanted| outcomes.iter().filter(|it| *it.as_ref().unwrap() == wanted).count();
        assert_eq!((of("redeemed"), of("wrong")), (1, 199), "{kind}");
        assert_eq!((site.events("redeemed"), site.events("wrong")), (1, 199), "{kind}");
    }
}

/// The guards of backends' own codes, one on each gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_of_one_name_let_through_at_once_what_one_budget_has() {
    for kind in KINDS {
        let site = site(kind, &settings(6, 50, 100)).await;
        let limit = GuessBudget::of_backend(6, 50, SuccessBound { one_in: 100 });
        let guard = |gateway: &super::AccessCodes| {
            Arc::new(Budget::new("guard", limit, gateway.ledger.clone()))
        };
        let guards = site.gateways.each_ref().map(guard);
        let tries = (0..300).map(|number| {
            let guard = Arc::clone(&guards[usize::try_from(number % 3).unwrap()]);
            tokio::spawn(async move { guard.reserve(address(number)).await })
        });
        let (mut through, mut refused) = (Vec::new(), 0);
        for reserved in futures_util::future::join_all(tries).await {
            match reserved.unwrap() {
                Ok(counted) => through.push(counted),
                Err(BudgetError::Spent { .. }) => refused += 1,
                Err(error) => panic!("{kind}: {error}"),
            }
        }
        assert_eq!((through.len(), refused), (200, 100), "{kind}");
        assert_eq!(guards[1].spent().await, Ok(200), "{kind}");
        // What was right may be tried again, at any of them.
        through.pop().unwrap().give_back().await.unwrap();
        assert!(guards[2].reserve(address(300)).await.is_ok(), "{kind}");
        assert!(guards[0].reserve(address(301)).await.is_err(), "{kind}");
    }
}

#[tokio::test]
async fn live_codes_differ_and_there_are_no_more_than_may_be() {
    // Half of all codes of four digits: every other draw is of a live one.
    let mut settings = settings(4, 200, 2);
    settings.alive_max = 5_000;
    let site = site("memory", &settings).await;
    let mut codes = std::collections::HashSet::new();
    for _ in 0..settings.alive_max {
        assert!(codes.insert(site.issue().await.code.expose().to_owned()));
    }
    let refused = site.gateways[1].issue(&zoe(), None).await;
    let rule = "access_codes.alive_max";
    assert!(matches!(refused, Err(IssueError::TooMany { rule: it, .. }) if it == rule));
    site.time.advance(HOUR);
    site.issue().await;
}

#[tokio::test]
async fn an_issuer_gives_out_no_more_than_may_be_and_takes_back_only_his_own() {
    for kind in KINDS {
        let mut settings = settings(6, 50, 100);
        settings.per_issuer = Rate { count: 3, window: HOUR };
        let site = site(kind, &settings).await;
        for _ in 0..2 {
            site.issue().await;
        }
        let issued = site.issue().await;
        let refused = site.gateways[1].issue(&zoe(), None).await;
        let Err(IssueError::TooMany { rule, retry_after }) = refused else { panic!("{kind}") };
        assert_eq!((rule, retry_after), ("access_codes.per_issuer", HOUR));
        let other = Subject::new("alice");
        site.gateways[2].issue(&other, None).await.unwrap();

        let by_other = site.gateways[1].revoke(&issued.code, &other).await;
        assert!(matches!(by_other, Err(RedeemError::Invalid("wrong"))));
        assert_eq!(site.gateways[1].revoke(&issued.code, &zoe()).await.unwrap(), issued.subject);
        let again = site.gateways[1].revoke(&issued.code, &zoe()).await;
        assert!(matches!(again, Err(RedeemError::Invalid("wrong"))));
        assert_eq!(outcome(&site.redeem(&issued.code, 1).await), "wrong", "taken back, not late");
        site.time.advance(HOUR);
        site.issue().await;
    }
}

/// 100 wrong tries a day at six digits: then longer codes go on being given out and
/// redeemed.
#[tokio::test]
async fn whoever_spends_the_budget_of_six_digits_does_not_stop_longer_codes() {
    for kind in KINDS {
        let site = site(kind, &settings(6, 50, 100)).await;
        let early = site.issue().await;
        for number in 0..49 {
            assert_eq!(outcome(&site.redeem(&wrong(6), number).await), "wrong");
        }
        assert_eq!(site.issue().await.code.digits(), 6, "not half of it yet");
        for number in 49..100 {
            assert_eq!(outcome(&site.redeem(&wrong(6), number).await), "wrong");
        }
        let Err(RedeemError::Spent { retry_after }) = site.redeem(&wrong(6), 100).await else {
            panic!("{kind}: no more than a hundred");
        };
        assert_eq!(retry_after, Duration::from_hours(24));
        // Not the right code either, or guessing would go on.
        assert_eq!(outcome(&site.redeem(&early.code, 101).await), "spent");
        let longer = site.issue().await;
        assert_eq!(longer.code.digits(), 8);
        assert_eq!(outcome(&site.redeem(&longer.code, 100).await), "redeemed");
        site.gateways[0].tell().await.unwrap();
        let left = |digits: &str| site.metrics.access_code_budget_left(digits).get();
        assert_eq!((left("6"), left("8"), left("10")), (0, 5_006, 50_000));
        assert_eq!(site.metrics.access_codes_alive().get(), 2);
        site.time.advance(Duration::from_hours(24));
        assert_eq!(site.issue().await.code.digits(), 6);
    }
}

#[tokio::test]
async fn one_address_spends_a_small_part_and_right_codes_cost_nothing() {
    for kind in KINDS {
        let site = site(kind, &settings(6, 50, 100)).await;
        for _ in 0..40 {
            let code = site.issue().await.code;
            assert_eq!(outcome(&site.redeem(&code, 3).await), "redeemed");
        }
        for _ in 0..10 {
            assert_eq!(outcome(&site.redeem(&wrong(6), 3).await), "wrong");
        }
        assert_eq!(outcome(&site.redeem(&wrong(6), 3).await), "spent");
        assert_eq!(outcome(&site.redeem(&wrong(6), 6).await), "wrong", "another address");
        assert_eq!(outcome(&site.redeem(&wrong(8), 3).await), "wrong", "another length");
        assert_eq!(outcome(&site.redeem(&wrong(5), 3).await), "wrong", "that no code has");
        // IPv6 counts by /64.
        let v6 =
            |last: u16| IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        for last in 0..10 {
            let tried = site.gateways[0].redeem(&wrong(6), v6(last)).await;
            assert_eq!(outcome(&tried), "wrong");
        }
        assert_eq!(outcome(&site.gateways[1].redeem(&wrong(6), v6(10)).await), "spent");
    }
}

#[tokio::test]
async fn codes_are_kept_under_a_key_that_serves_nothing_else() {
    for kind in KINDS {
        let site = site(kind, &settings(6, 50, 100)).await;
        let issued = site.issue().await;
        // As another gateway finds it.
        let Ledger { store, clock, .. } = &site.gateways[1].ledger;
        let mut found = Vec::new();
        for name in [SecretName::AccessCode, SecretName::Names, SecretName::Device] {
            let secret = store.secret(name, Secret::new([7; 32])).await.unwrap();
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
            let tag = hmac::sign(&key, issued.code.expose().as_bytes());
            let key = tag.as_ref().try_into().unwrap();
            let value = store.get(Family::AccessCode, key, clock.now()).await.unwrap();
            found.push(value.is_some());
            let text = String::from_utf8(value.unwrap_or_default()).unwrap();
            assert!(!text.contains(issued.code.expose()), "{kind}: {text}");
        }
        assert_eq!(found, [true, false, false], "{kind}");
        assert_eq!(store.count(Family::AccessCode, clock.now()).await, Ok(1), "{kind}");
    }
}
