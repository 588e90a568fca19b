//! Redis comes back as it was earlier, from a backup: who was logged out stays so,
//! and a key that was dropped signs and verifies nothing, whether gateways ran
//! through it or started afterwards.

use crate::support::client::Client;
use crate::support::eventually_async;
use crate::support::redis::RedisServer;
use crate::support::several::{Several, url};
use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, TRACER, log_in};

const REVOKED: (u16, &str) = (401, "SessionRevoked");
const DEAD: (u16, &str) = (401, "InvalidToken");
const SERVED: (u16, &str) = (200, "");
const GATEWAYS: usize = 2;

async fn gateways(redis: &RedisServer) -> Several {
    let urls = url(redis.port);
    Several::start(GATEWAYS, |_, setup| {
        setup.control_socket().set("store", "urls", &urls);
    })
    .await
}

/// Logs out for good, and keeps what the browser had.
async fn ended(client: &Client) -> Client {
    let kept = client.copy();
    client.post("/auth/logout").own_page().send().await.expect_status(204);
    kept
}

/// What Redis answers to a question for a number.
fn number(redis: &RedisServer, question: &str) -> Option<u64> {
    let answer = redis.asked(question)?;
    answer.lines().last()?.trim_start_matches(':').trim().parse().ok()
}

async fn expect(all: &Several, client: &Client, (status, code): (u16, &str)) {
    for gateway in 0..GATEWAYS {
        let answer = all.at(gateway, client).get("/app/echo").send().await;
        if code.is_empty() {
            answer.expect_status(status);
        } else {
            answer.expect(status, code);
        }
    }
}

async fn keys_replaced(all: &Several) -> f64 {
    let mut sum = 0.0;
    for gateway in &all.gateways {
        sum += gateway.metrics().await.sum("bindgate_keys_replaced_total", &[]);
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_run_tell_an_older_redis_whom_they_ended() {
    let mut redis = RedisServer::start(&[]);
    let mut all = gateways(&redis).await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    let starts = number(&redis, "GET {bindgate}:starts").expect("a count");
    let backup = redis.backup();
    let alice = ended(&alice).await;
    all.answers(1, &alice, REVOKED).await;
    redis.restart(Some(&backup));
    // Its revocation, and both gateways anew.
    let healed = starts + 1 + u64::try_from(GATEWAYS).expect("few");
    eventually_async("Redis is told", async || {
        number(&redis, "GET {bindgate}:starts").filter(|starts| *starts >= healed)
    })
    .await;
    assert_eq!(number(&redis, "ZCARD {bindgate}:revoked"), Some(1));
    expect(&all, &alice, REVOKED).await;
    expect(&all, &carol, SERVED).await;
    let listed = all.gateways[0].command("sessions list").await.text;
    assert!(listed.ends_with("\n1 session\n"), "{listed}");
    // Also those who know nothing of their own.
    all.gateways[1].kill();
    all.gateways[1].restart().await;
    expect(&all, &alice, REVOKED).await;
    expect(&all, &carol, SERVED).await;
    assert!(keys_replaced(&all).await < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_dropped_do_not_come_back_with_an_older_redis() {
    let mut redis = RedisServer::start(&[]);
    let all = gateways(&redis).await;
    let alice = all.sign_in(ADMIN).await;
    let backup = redis.backup();
    assert_eq!(all.gateways[0].command("keys rotate --now").await.code, Some(0));
    all.answers(1, &alice, DEAD).await;
    let carol = all.sign_in(TRACER).await;
    for gateway in 0..GATEWAYS {
        all.answers(gateway, &carol, SERVED).await;
    }
    redis.restart(Some(&backup));
    // Neither the keys of before nor those that the backup does not hold.
    for gateway in 0..GATEWAYS {
        all.answers(gateway, &carol, DEAD).await;
    }
    expect(&all, &alice, DEAD).await;
    let again = all.sign_in(ADMIN).await;
    for gateway in 0..GATEWAYS {
        all.answers(gateway, &again, SERVED).await;
    }
    expect(&all, &alice, DEAD).await;
    let replaced = keys_replaced(&all).await;
    assert!((0.5..1.5).contains(&replaced), "by one for all: {replaced}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_start_with_an_older_redis_let_nobody_of_before_in() {
    let mut redis = RedisServer::start(&[]);
    let mut all = gateways(&redis).await;
    let (alice, carol) = (all.sign_in(ADMIN).await, all.sign_in(TRACER).await);
    let backup = redis.backup();
    let alice = ended(&alice).await;
    let starts = number(&redis, "GET {bindgate}:starts");
    eventually_async("the gateways note how far Redis has come", async || {
        let noted = all.gateways.iter().all(|gateway| {
            let noted = std::fs::read_to_string(gateway.setup.path("keys").join("starts"));
            noted
                .is_ok_and(|noted| noted.split(' ').next().and_then(|it| it.parse().ok()) == starts)
        });
        noted.then_some(())
    })
    .await;
    for gateway in &mut all.gateways {
        gateway.kill();
    }
    redis.restart(Some(&backup));
    for gateway in &mut all.gateways {
        gateway.restart().await;
        gateway.readiness(200).await;
    }
    expect(&all, &alice, DEAD).await;
    expect(&all, &carol, DEAD).await;
    log_in(&all.gateways[1].client(), TRACER, PASSWORD).await.expect_status(200);
    assert!(keys_replaced(&all).await > 0.5);
}
