//! Entries that end by themselves: kept once, taken once, replaced by whoever knows them.

use futures_util::future::join_all;

use super::{NOW, at, stores};
use crate::ambient::Timestamp;
use crate::store::expiring::FAMILIES;
use crate::store::{Expiring, Family, Put};

fn entry(key: u8, until: Timestamp) -> Expiring {
    Expiring { family: Family::AccessCode, key: [key; 32], value: vec![key, 0, 255], until }
}

#[tokio::test]
async fn an_entry_is_kept_once_and_gone_at_its_end() {
    stores(async |store| {
        assert_eq!(store.put(entry(1, at(60)), NOW, None).await, Ok(Put::Kept));
        assert_eq!(store.put(entry(1, at(90)), at(59), None).await, Ok(Put::Exists));
        let get = async |now| store.get(Family::AccessCode, [1; 32], now).await.unwrap();
        assert_eq!(get(at(59)).await, Some(vec![1, 0, 255]), "reading takes nothing away");
        assert_eq!(get(at(59)).await, Some(vec![1, 0, 255]));
        assert_eq!(get(at(60)).await, None);
        assert_eq!(store.take(Family::AccessCode, [1; 32], at(60)).await, Ok(None));
        assert_eq!(store.put(entry(1, at(90)), at(60), None).await, Ok(Put::Kept));
        assert_eq!(get(at(60)).await, Some(vec![1, 0, 255]));
    })
    .await;
}

#[tokio::test]
async fn of_many_who_take_an_entry_at_once_one_gets_it() {
    stores(async |store| {
        store.put(entry(1, at(60)), NOW, None).await.unwrap();
        let takers = (0..100).map(|_| store.take(Family::AccessCode, [1; 32], NOW));
        let taken: Vec<_> =
            join_all(takers).await.into_iter().filter_map(|taken| taken.unwrap()).collect();
        assert_eq!(taken, [vec![1, 0, 255]]);
        assert_eq!(store.get(Family::AccessCode, [1; 32], NOW).await, Ok(None));
        assert_eq!(store.put(entry(1, at(60)), NOW, None).await, Ok(Put::Kept));
    })
    .await;
}

#[tokio::test]
async fn an_entry_is_replaced_only_as_it_was_read() {
    stores(async |store| {
        let with = |value: u8, until| Expiring { value: vec![value], ..entry(1, until) };
        let replace = async |before: Option<u8>, entry, now| {
            store.replace(before.map(|value| vec![value]), entry, now).await.unwrap()
        };
        let get = async |now| store.get(Family::AccessCode, [1; 32], now).await.unwrap();
        assert!(!replace(Some(1), with(2, at(60)), NOW).await, "there is none");
        assert!(replace(None, with(1, at(60)), NOW).await);
        assert!(!replace(None, with(2, at(60)), NOW).await, "there is one");
        assert!(!replace(Some(9), with(2, at(60)), NOW).await, "it is another");
        assert_eq!(get(at(1)).await, Some(vec![1]));
        assert!(replace(Some(1), with(2, at(90)), at(1)).await);
        assert_eq!(get(at(89)).await, Some(vec![2]), "with the new one's end");
        assert_eq!(store.count(Family::AccessCode, at(89)).await, Ok(1));
        assert!(replace(Some(2), with(3, at(30)), at(20)).await);
        assert_eq!(get(at(30)).await, None, "which may be sooner");
        assert!(replace(None, with(4, at(90)), at(30)).await, "what ended is none");
        assert!(replace(Some(4), with(5, at(30)), at(30)).await);
        assert_eq!(get(at(30)).await, None, "gone at once");
        assert_eq!(store.count(Family::AccessCode, at(30)).await, Ok(0));
        let writers = (0..20).map(|value| replace(None, with(value, at(60)), at(30)));
        assert_eq!(join_all(writers).await.into_iter().filter(|done| *done).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn of_many_who_keep_an_entry_at_once_one_does() {
    stores(async |store| {
        let keepers = (0..100).map(|_| store.put(entry(1, at(60)), NOW, None));
        let kept = join_all(keepers).await.into_iter().filter(|put| *put == Ok(Put::Kept));
        assert_eq!(kept.count(), 1);
    })
    .await;
}

#[tokio::test]
async fn the_families_do_not_know_each_other() {
    stores(async |store| {
        for family in FAMILIES {
            let one = Expiring { family, ..entry(1, at(60)) };
            assert_eq!(store.put(one, NOW, Some(1)).await, Ok(Put::Kept));
        }
        store.take(Family::Device, [1; 32], NOW).await.unwrap();
        assert_eq!(store.count(Family::Device, NOW).await, Ok(0));
        assert_eq!(store.count(Family::SpentToken, NOW).await, Ok(1));
        assert!(store.get(Family::SpentToken, [1; 32], NOW).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn no_more_live_entries_are_kept_than_asked_for() {
    stores(async |store| {
        let count = async |now| store.count(Family::AccessCode, now).await.unwrap();
        assert_eq!(store.put(entry(1, at(10)), NOW, Some(2)).await, Ok(Put::Kept));
        assert_eq!(store.put(entry(2, at(60)), NOW, Some(2)).await, Ok(Put::Kept));
        assert_eq!(store.put(entry(3, at(60)), NOW, Some(2)).await, Ok(Put::Full));
        assert_eq!(store.put(entry(2, at(60)), NOW, Some(2)).await, Ok(Put::Exists));
        assert_eq!((count(NOW).await, count(at(9)).await), (2, 2));
        assert_eq!(count(at(10)).await, 1, "what is over does not count");
        assert_eq!(store.put(entry(3, at(60)), at(10), Some(2)).await, Ok(Put::Kept));
        store.take(Family::AccessCode, [2; 32], at(11)).await.unwrap();
        assert_eq!(count(at(11)).await, 1);
        store.sweep(at(60), NOW).await.unwrap();
        assert_eq!(count(at(11)).await, 0, "a sweep forgets what is over");
    })
    .await;
}
