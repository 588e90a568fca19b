//! A gateway whose clock is off says so, and goes on deciding: with the leeway that
//! tokens have, and no more.

use std::time::Duration;

use crate::support::eventually_async;
use crate::support::redis::RedisServer;
use crate::support::several::{Several, url};
use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, TRACER, log_in};

const METRIC: &str = "bindgate_clock_offset_seconds";
const SERVED: (u16, &str) = (200, "");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_clock_is_two_minutes_off_says_so_and_decides_with_the_leeway() {
    let redis = RedisServer::start(&[]);
    let mut all = Several::on(&redis, 1).await;
    let alice = all.sign_in(ADMIN).await;
    // Its clock stands still from here on, and moves when it is told to.
    let time = all.join_inside(&url(redis.port)).await;
    all.answers(1, &alice, SERVED).await;
    time.advance(Duration::from_mins(2));
    eventually_async("the metric says so", async || {
        let offset = all.gateways[1].metrics().await.sum(METRIC, &[]);
        (-121.0..-60.0).contains(&offset).then_some(())
    })
    .await;
    let right = all.gateways[0].metrics().await.sum(METRIC, &[]);
    assert!(right.abs() < 2.0, "the clock of the other one is right: {right}");

    // Two minutes old in its eyes, and still good.
    all.answers(1, &alice, SERVED).await;
    // From the future in the eyes of the other one, by more than the leeway.
    let carol = all.gateways[1].client();
    log_in(&carol, TRACER, PASSWORD).await.expect_status(200);
    all.answers(1, &carol, SERVED).await;
    all.at(0, &carol).get("/app/echo").send().await.expect(401, "InvalidToken");
    // What is ended is ended on both, whatever their clocks say.
    let kept = alice.copy();
    all.at(1, &alice).post("/auth/logout").own_page().send().await.expect_status(204);
    for gateway in 0..2 {
        let took = all.answers(gateway, &kept, (401, "SessionRevoked")).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
