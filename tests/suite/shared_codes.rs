//! Access codes on three gateways and one Redis: a code is redeemed once, and guesses
//! count, wherever they are tried.

use crate::access_codes::{codes, issue, one_won, other, redeem, redeem_at_once};
use crate::support::client::Client;
use crate::support::redis::RedisServer;
use crate::support::several::{Several, be_that_user, url, user_without};
use crate::support::slapd::PASSWORD;
use crate::support::world::{TRACER, log_in};

async fn three(redis: &RedisServer, bound: &str) -> Several {
    let (urls, bound) = (url(redis.port), format!("\"{bound}\""));
    Several::start(3, |_, setup| {
        codes(setup);
        setup.set("store", "urls", &urls).set("access_codes", "success_probability", &bound);
    })
    .await
}

fn clients(all: &Several) -> Vec<Client> {
    all.gateways.iter().map(crate::support::gateway::Gateway::client).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_redemptions_at_once_on_three_gateways_one_succeeds() {
    let redis = RedisServer::start(&[]);
    let all = three(&redis, "1 in 2 per day").await;
    let carol = all.sign_in(TRACER).await;
    for gateway in 0..3 {
        let code = issue(&all.at(gateway, &carol)).await;
        one_won(&redeem_at_once(&clients(&all), &code, 200).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_at_three_gateways_spend_one_budget_and_no_longer_code() {
    let redis = RedisServer::start(&[]);
    let all = three(&redis, "1 in 100 per day").await;
    let carol = all.sign_in(TRACER).await;
    let early = issue(&carol).await;
    // Of 110 wrong ones 100 are let through, whoever comes first.
    let answers = redeem_at_once(&clients(&all), &other(&early), 110).await;
    let with = |status: u16| answers.iter().filter(|(answer, _)| answer.status == status).count();
    assert_eq!((with(403), with(429)), (100, 10));
    for client in clients(&all) {
        redeem(&client, &early, 111).await.expect(429, "TooManyAttempts");
    }
    let longer = issue(&all.at(1, &carol)).await;
    assert_eq!(longer.len(), 8);
    let patient = all.gateways[2].client();
    redeem(&patient, &longer, 112).await.expect_status(200);
    for gateway in 0..3 {
        all.at(gateway, &patient).get("/codes/echo").send().await.expect_status(200);
    }
}

/// It reaches Redis, but may not read the revocations, as when it has not read all yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_may_miss_revocations_spends_no_code() {
    let redis = RedisServer::start(&[&user_without("zrange")]);
    let urls = url(redis.port);
    let all = Several::start(2, |number, setup| {
        codes(setup);
        setup.set("store", "urls", &urls);
        if number == 1 {
            be_that_user(setup);
        }
    })
    .await;
    let code = issue(&all.sign_in(TRACER).await).await;
    let there = all.gateways[1].client();
    log_in(&there, TRACER, PASSWORD).await.expect(503, "StoreUnavailable");
    redeem(&there, &code, 1).await.expect(503, "StoreUnavailable");
    redeem(&all.gateways[0].client(), &code, 1).await.expect_status(200);
}
