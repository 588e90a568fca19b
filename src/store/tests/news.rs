//! News that are gone before they are read, or more than one answer holds.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::redis::servers::RedisServer;
use super::redis::settings;
use super::{NOW, WAIT, at, session};
use crate::ambient::{Clock, Entropy, Timestamp};
use crate::config::{self, Topology};
use crate::identity::SessionId;
use crate::metrics::Metrics;
use crate::store::{Feed, News, Store};

/// Two stores that share a server, and the name of the stream.
async fn two(server: &RedisServer, max_staleness: Duration) -> (Store, Store, String) {
    let mut kind = settings(Topology::Single, &[server.port]);
    let config::Store::Redis(of_redis) = &mut kind else { panic!("Redis") };
    of_redis.max_staleness = max_staleness;
    let stream = format!("{{{}}}:news", of_redis.key_prefix);
    let (clock, entropy) = (Clock::manual_at(NOW).0, Entropy::system());
    let open = async || {
        let metrics = Metrics::new().unwrap();
        Store::open(&kind, WAIT, (&clock, &entropy), &metrics).await.unwrap()
    };
    (open().await, open().await, stream)
}

fn trim(server: &RedisServer, stream: &str) {
    let trimmed = server.asked(&format!("XTRIM {stream} MAXLEN 0")).unwrap();
    assert!(trimmed.starts_with(':') && !trimmed.starts_with(":0"), "{trimmed}");
}

async fn revoke(store: &Store, number: u8) {
    store.revoke(session(number), at(600)).await.unwrap();
}

/// What is told from `Begin` until all was.
async fn everything(feed: &mut Feed<'_>) -> Vec<(SessionId, Timestamp)> {
    let mut all = Vec::new();
    loop {
        match feed.next().await {
            News::Begin => all.clear(),
            News::Revoked(revoked) => all.extend(revoked),
            News::Complete => return all,
            News::Keys => panic!("no keys"),
        }
    }
}

#[tokio::test]
async fn news_that_were_trimmed_unread_lead_to_reading_everything_again() {
    let server = RedisServer::start(&[]);
    let (one, other, stream) = two(&server, Duration::from_secs(5)).await;
    let mut feed = one.feed().unwrap();
    assert_eq!(everything(&mut feed).await, []);
    feed.settle();
    revoke(&other, 1).await;
    assert_eq!(feed.next().await, News::Revoked(vec![(session(1), at(600))]));
    feed.settle();

    let known = Instant::now();
    revoke(&other, 2).await;
    trim(&server, &stream);
    revoke(&other, 3).await;
    assert_eq!(feed.next().await, News::Begin, "and not the one that is left");
    let passed = known.elapsed();
    assert!(one.news_age().unwrap() >= passed, "nothing is known that came since");
    let mut all = everything(&mut feed).await;
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3].map(|number| (session(number), at(600))));

    // Also when none is left at all.
    feed.settle();
    revoke(&other, 4).await;
    trim(&server, &stream);
    assert_eq!(feed.next().await, News::Begin);
    assert_eq!(everything(&mut feed).await.len(), 4);
    feed.settle();
    revoke(&other, 5).await;
    assert_eq!(feed.next().await, News::Revoked(vec![(session(5), at(600))]), "it follows again");
}

#[tokio::test]
async fn a_gateway_that_is_behind_the_news_is_not_fresh() {
    let server = RedisServer::start(&[]);
    let (one, other, _) = two(&server, Duration::from_mins(1)).await;
    let mut feed = one.feed().unwrap();
    everything(&mut feed).await;
    feed.settle();
    let ids = (0..2500_u128).map(|number| SessionId::from_bytes(number.to_be_bytes()));
    let revoking = ids.map(|session| other.revoke(session, at(600)));
    futures_util::future::try_join_all(revoking).await.unwrap();
    let ended = Instant::now();
    for (count, is_last) in [(1000, false), (1000, false), (500, true)] {
        let News::Revoked(revoked) = feed.next().await else { panic!("revocations") };
        assert_eq!(revoked.len(), count);
        feed.settle();
        let since = ended.elapsed();
        assert_eq!(one.news_age().unwrap() < since + Duration::from_millis(1), is_last);
    }
}

#[tokio::test]
async fn reading_everything_counts_as_of_its_beginning_and_without_the_news_since_not_at_all() {
    let server = RedisServer::start(&[]);
    let max = Duration::from_millis(500);
    let (one, other, stream) = two(&server, max).await;
    revoke(&other, 1).await;
    let mut feed = one.feed().unwrap();
    for _ in 0..2 {
        assert_eq!(feed.next().await, News::Begin);
        // So long does it take, and the stream reaches back less far.
        sleep(max).await;
        assert!(!everything(&mut feed).await.is_empty());
        revoke(&other, 2).await;
        trim(&server, &stream);
        feed.settle();
        assert!(one.is_stale());
    }
    everything(&mut feed).await;
    feed.settle();
    assert!(!one.is_stale(), "until it is read in time");
}
