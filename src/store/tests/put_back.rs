//! A Redis that comes back as it was earlier, or as nothing, under a store that runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::redis::servers::RedisServer;
use super::redis::settings;
use super::{NOW, WAIT, at};
use crate::ambient::{Clock, Entropy};
use crate::config::Topology;
use crate::metrics::Metrics;
use crate::store::{Expiring, Family, Put, Store};

const CODE: Family = Family::AccessCode;

/// A store on a server, with somebody who hears its news.
async fn followed(server: &RedisServer) -> (Arc<Store>, JoinSet<()>) {
    let kind = settings(Topology::Single, &[server.port]);
    let ambient = (&Clock::manual_at(NOW).0, &Entropy::system());
    let store = Store::open(&kind, WAIT, ambient, &Metrics::new().unwrap()).await.unwrap();
    let (store, mut following) = (Arc::new(store), JoinSet::new());
    let them = Arc::clone(&store);
    following.spawn(async move {
        let mut feed = them.feed().unwrap();
        loop {
            feed.next().await;
        }
    });
    (store, following)
}

async fn until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come to pass");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn hears_anew(store: &Store) {
    let began = Instant::now();
    until(|| store.news_age().is_some_and(|age| age < began.elapsed())).await;
}

async fn put(store: &Store, key: u8) {
    let entry = Expiring { family: CODE, key: [key; 32], value: vec![key], until: at(600) };
    assert_eq!(store.put(entry, NOW, None).await, Ok(Put::Kept));
}

async fn take(store: &Store, key: u8) -> Option<Vec<u8>> {
    store.take(CODE, [key; 32], NOW).await.unwrap()
}

#[tokio::test]
async fn what_was_taken_cannot_be_taken_again_when_redis_is_put_back() {
    let mut server = RedisServer::start(&[]);
    let (store, _following) = followed(&server).await;
    hears_anew(&store).await;
    put(&store, 1).await;
    put(&store, 2).await;
    let backup = server.backup();
    assert_eq!(take(&store, 1).await, Some(vec![1]));
    // At once, before anybody else heard of it, and before it is seen who is back.
    server.restart(Some(&backup));
    let again = loop {
        if let Ok(again) = store.take(CODE, [1; 32], NOW).await {
            break again;
        }
        sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(again, None);
    hears_anew(&store).await;
    assert_eq!(take(&store, 2).await, None, "nor what nobody can tell from it");
    assert_eq!(store.count(CODE, NOW).await, Ok(0));

    // What is taken of others is not counted, and voids no code when it is lost.
    let device = Expiring { family: Family::Device, key: [9; 32], value: vec![9], until: at(600) };
    assert_eq!(store.put(device, NOW, None).await, Ok(Put::Kept));
    put(&store, 3).await;
    let backup = server.backup();
    assert_eq!(store.take(Family::Device, [9; 32], NOW).await, Ok(Some(vec![9])));
    server.restart(Some(&backup));
    hears_anew(&store).await;
    assert_eq!(take(&store, 3).await, Some(vec![3]), "nothing was lost");

    put(&store, 4).await;
    store.void_codes().await.unwrap();
    assert_eq!(take(&store, 4).await, None);
    put(&store, 4).await;
    assert_eq!(take(&store, 4).await, Some(vec![4]));
}
