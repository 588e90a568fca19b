//! How far a shared store has come, as it is noted beside the keys.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{start, token_config};
use crate::ambient::Clock;
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::store::tests::redis::single;

/// Does what is given while somebody follows the news.
async fn following(sessions: &Sessions, done: impl Future<Output = ()>) {
    let mut follower = sessions.follower().unwrap();
    let follow = async {
        loop {
            follower.step().await;
        }
    };
    tokio::select! {
        () = follow => {},
        within = timeout(Duration::from_secs(20), done) => within.unwrap(),
    }
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn started(folder: &Path) -> Arc<Sessions> {
    let keys = token_config(Some(&folder.join("keys")));
    start(&single(), &keys, &Clock::system(), &Metrics::new().unwrap()).await
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_stops_no_news_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = started(folder.path()).await;
    let in_the_way = folder.path().join("keys/.starts.new");
    fs::create_dir(&in_the_way).unwrap();
    following(&sessions, async {
        until(|| !sessions.is_stale() && sessions.store().starts_heard().is_some()).await;
        for _ in 0..2 {
            assert!(sessions.note_starts().await.is_err());
        }
        fs::remove_dir(&in_the_way).unwrap();
        sessions.note_starts().await.unwrap();
        let noted = fs::read_to_string(folder.path().join("keys/starts")).unwrap();
        let noted = noted.split_whitespace().next().and_then(|noted| noted.parse().ok());
        assert_eq!(noted, sessions.store().starts_heard());
    })
    .await;
}

#[tokio::test]
async fn a_count_of_another_store_says_nothing_of_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys/starts");
    let settled = async |sessions: &Sessions| {
        following(sessions, until(|| sessions.store().starts_heard().is_some())).await;
    };
    let replaced = |metrics: &Metrics| metrics.keys_replaced().get();
    for (note, is_behind) in
        [("1000 embedded\n", false), ("1000 redis elsewhere\n", false), ("1000\n", true)]
    {
        fs::create_dir_all(folder.path().join("keys")).unwrap();
        let metrics = Metrics::new().unwrap();
        let keys = token_config(Some(&folder.path().join("keys")));
        let sessions = start(&single(), &keys, &Clock::system(), &metrics).await;
        fs::write(&file, note).unwrap();
        settled(&sessions).await;
        assert_eq!(replaced(&metrics) > 0, is_behind, "{note}");
        let noted = fs::read_to_string(&file).unwrap();
        assert!(noted.trim_end().ends_with(&sessions.store().name()), "{noted}");
    }
}
