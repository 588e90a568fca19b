//! Redis fails over while people log in and out: no revocation that was answered is
//! ever undone, nothing is redeemed twice, and a lost record only shortens a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bindgate::ambient::{Clock, Entropy};
use bindgate::config::Config;
use bindgate::metrics::Metrics;
use bindgate::store::{Expiring, Family, Put, Store};
use tokio::time::{Instant, sleep};

use crate::support::client::Client;
use crate::support::eventually_async;
use crate::support::redis::{Cluster, MASTER, RedisServer, Sentinels};
use crate::support::several::Several;
use crate::support::slapd::PASSWORD;
use crate::support::world::{ADMIN, TRACER, log_in};

fn urls(servers: &[RedisServer]) -> String {
    let all = servers.iter().map(|server| format!("\"redis://127.0.0.1:{}\"", server.port));
    format!("[{}]", all.collect::<Vec<_>>().join(", "))
}

async fn gateways(topology: &str, urls: &str) -> Several {
    Several::start(2, |_, setup| {
        setup.set("store", "topology", &format!("\"{topology}\"")).set("store", "urls", urls);
        setup.set("throttle", "login_per_user", "\"100000 per 15m\"");
        setup.set("throttle", "login_per_address", "\"100000 per 15m\"");
        if topology == "sentinel" {
            setup.set("store", "sentinel_master", &format!("\"{MASTER}\""));
        }
    })
    .await
}

/// Logs in and out for a while, beside requests of somebody who stays; answers with
/// those whose logout was answered.
async fn log_in_and_out(all: &Several, stays: &Client, until: Instant) -> Vec<Client> {
    let mut ended = Vec::new();
    while Instant::now() < until {
        let client = all.gateways[0].client();
        if log_in(&client, ADMIN, PASSWORD).await.status == 200 {
            let kept = client.copy();
            if client.post("/auth/logout").own_page().send().await.status == 204 {
                let answer = kept.copy().get("/app/echo").send().await;
                answer.expect(401, "SessionRevoked");
                ended.push(kept);
            }
        } else {
            sleep(Duration::from_millis(50)).await;
        }
        for gateway in 0..2 {
            all.at(gateway, stays).get("/app/echo").send().await.expect_status(200);
        }
    }
    ended
}

/// Keeps entries and takes each from several sides at once, whatever comes; says how
/// many were given out, and fails when one was given out twice.
async fn redeem(store: Arc<Store>, until: Instant) -> usize {
    let mut given = 0;
    let mut number = 0_u64;
    while Instant::now() < until {
        number += 1;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        let now = Clock::system().now();
        let family = Family::AccessCode;
        let until = now.plus(Duration::from_mins(5));
        let entry = Expiring { family, key, value: vec![1], until };
        if store.put(entry, now, None).await != Ok(Put::Kept) {
            sleep(Duration::from_millis(20)).await;
            continue;
        }
        let times = AtomicUsize::new(0);
        for _ in 0..3 {
            let takes = (0..2).map(|_| store.take(family, key, now));
            for taken in futures_util::future::join_all(takes).await {
                if matches!(taken, Ok(Some(_))) {
                    times.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        assert!(times.load(Ordering::Relaxed) <= 1, "redeemed twice");
        given += times.load(Ordering::Relaxed);
    }
    given
}

/// Answered again within `limit` after what `kill` does.
async fn survives(all: &Several, limit: Duration, kill: impl FnOnce()) {
    let config = Config::load(&all.gateways[0].setup.config_file());
    let config = config.unwrap_or_else(|problems| panic!("{problems}")).config.store;
    let ambient = (&Clock::system(), &Entropy::system());
    let metrics = Metrics::new().expect("metrics");
    let store = Store::open(&config, Duration::ZERO, ambient, &metrics).await.expect("a store");
    let until = Instant::now() + Duration::from_secs(20);
    let redeeming = tokio::spawn(redeem(Arc::new(store), until));
    let carol = eventually_async("a login", async || {
        let client = all.gateways[0].client();
        (log_in(&client, TRACER, PASSWORD).await.status == 200).then_some(client)
    })
    .await;
    let mut ended = log_in_and_out(all, &carol, Instant::now() + Duration::from_secs(2)).await;
    let before = ended.len();
    kill();
    let killed = Instant::now();
    while ended.len() == before {
        assert!(killed.elapsed() < limit, "{:?}", killed.elapsed());
        ended
            .extend(log_in_and_out(all, &carol, Instant::now() + Duration::from_millis(100)).await);
    }
    eprintln!("answered again after {:?}", killed.elapsed());
    ended.extend(log_in_and_out(all, &carol, until).await);
    assert!(before > 0 && ended.len() > before, "{before} of {} before", ended.len());
    assert!(redeeming.await.expect("no panic") > 0);
    for gateway in &all.gateways {
        gateway.readiness(200).await;
    }
    for client in &ended {
        for gateway in 0..2 {
            let answer = all.at(gateway, client).get("/app/echo").send().await;
            answer.expect(401, "SessionRevoked");
        }
    }
    // A session that nobody ended goes on, at least until its token expires.
    for gateway in 0..2 {
        all.at(gateway, &carol).get("/app/echo").send().await.expect_status(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_primary_killed_what_the_sentinels_made_of_it_undoes_nothing() {
    let mut redis = Sentinels::start();
    let all = gateways("sentinel", &urls(&redis.sentinels)).await;
    survives(&all, Duration::from_secs(20), || redis.servers[0].kill()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_primary_demoted_what_the_sentinels_made_of_it_undoes_nothing() {
    let redis = Sentinels::start();
    let all = gateways("sentinel", &urls(&redis.sentinels)).await;
    survives(&all, Duration::from_secs(10), || {
        let answer = redis.sentinels[0].asked(&format!("SENTINEL FAILOVER {MASTER}"));
        assert!(answer.is_some_and(|answer| answer.starts_with("+OK")));
    })
    .await;
}

/// What a server answers to a question for a number.
fn number(redis: &RedisServer, question: &str) -> Option<u64> {
    redis.asked(question)?.trim_start_matches(':').trim().parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_goes_on_for_itself_is_left_in_time_and_nothing_is_undone() {
    let redis = Sentinels::start();
    let all = gateways("sentinel", &urls(&redis.sentinels)).await;
    let ended = async || {
        eventually_async("a logout is answered", async || {
            let client = all.gateways[0].client();
            (log_in(&client, ADMIN, PASSWORD).await.status == 200).then_some(())?;
            let kept = client.copy();
            let answer = client.post("/auth/logout").own_page().send().await;
            (answer.status == 204).then_some(kept)
        })
        .await
    };
    let has = |server: &RedisServer, least| {
        let revoked = number(server, "ZCARD {bindgate}:revoked");
        revoked.is_some_and(|revoked| revoked >= least).then_some(())
    };
    let [old, next, _] = &redis.servers[..] else { panic!("three servers") };
    let mut all_ended = vec![ended().await];
    let carol = all.sign_in(TRACER).await;
    eventually_async("it follows", async || has(next, 1)).await;
    // The old one keeps a replica, its connections, and thinks itself the primary.
    next.asked("REPLICAOF NO ONE").expect("an answer");
    for sentinel in &redis.sentinels {
        let port = next.port;
        sentinel.asked(&format!("SENTINEL REMOVE {MASTER}")).expect("an answer");
        let monitor = format!("SENTINEL MONITOR {MASTER} 127.0.0.1 {port} 2");
        assert!(sentinel.asked(&monitor).is_some_and(|answer| answer.starts_with("+OK")));
    }
    let began = Instant::now();
    all_ended.push(ended().await);
    eventually_async("the next one is told", async || has(next, 2)).await;
    for gateway in &all.gateways {
        gateway.logged("the sentinels name another primary").await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let before = number(old, "ZCARD {bindgate}:revoked");
    all_ended.push(ended().await);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(number(old, "ZCARD {bindgate}:revoked"), before, "nobody tells the old one");
    for gateway in 0..2 {
        for client in &all_ended {
            all.answers(gateway, client, (401, "SessionRevoked")).await;
        }
        all.answers(gateway, &carol, (200, "")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_node_of_the_cluster_killed_nothing_is_undone() {
    let mut redis = Cluster::start();
    let all = gateways("cluster", &urls(&redis.nodes)).await;
    survives(&all, Duration::from_secs(20), || redis.primary_of("{bindgate}:revoked").kill()).await;
}
