//! Promises of the set of revoked sessions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};

use super::Revoked;
use crate::ambient::{Entropy, Timestamp};
use crate::identity::SessionId;

const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);

fn at(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

/// Random ids, and such as lie as close together as they can.
fn ids() -> impl Strategy<Value = SessionId> {
    let near = (any::<u8>(), 0_u8..3).prop_map(|(last, first)| {
        let mut id = [0; 16];
        (id[0], id[15]) = (first * 127, last);
        id
    });
    prop_oneof![any::<[u8; 16]>(), near].prop_map(SessionId::from_bytes)
}

#[test]
fn the_set_holds_what_a_map_would() {
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let insertions = (ids(), 1_u64..100);
    let batches = proptest::collection::vec(proptest::collection::vec(insertions, 1..200), 1..20);
    let run = |batches: Vec<Vec<(SessionId, u64)>>| {
        let (revoked, mut map) = (Revoked::default(), HashMap::new());
        for (number, batch) in batches.into_iter().enumerate() {
            for (session, seconds) in &batch {
                let until = map.entry(*session).or_insert(0);
                *until = (*until).max(*seconds);
            }
            let batch = batch.into_iter().map(|(session, seconds)| (session, at(seconds)));
            if number % 2 == 0 {
                revoked.extend(batch);
            } else {
                batch.for_each(|(session, until)| revoked.insert(session, until));
            }
            for (session, seconds) in &map {
                assert_eq!(revoked.until(*session), Some(at(*seconds)));
                let mut other = *session.as_bytes();
                other[15] ^= 0x80;
                let other = SessionId::from_bytes(other);
                assert_eq!(revoked.contains(other), map.contains_key(&other));
            }
        }
        revoked.sweep(at(50), 1);
        map.retain(|_, seconds| *seconds > 50);
        assert_eq!(revoked.len(), map.len());
        assert!(map.keys().all(|session| revoked.contains(*session)));
        Ok(())
    };
    TestRunner::new(config).run(&batches, run).unwrap();
}

#[test]
fn a_sweep_in_turns_reaches_every_shard_once() {
    let entropy = Entropy::seeded(5);
    let revoked = Revoked::default();
    let ids = || SessionId::from_bytes(entropy.bytes().unwrap());
    revoked.extend((0..20_000).map(|number| (ids(), at(if number % 2 == 0 { 10 } else { 90 }))));
    let mut left = revoked.len();
    for _ in 0..60 {
        revoked.sweep(at(10), 60);
        assert!(left - revoked.len() < 500, "a part at a time");
        left = revoked.len();
    }
    assert_eq!(left, 10_000);
    revoked.sweep(at(90), 1);
    assert!(revoked.is_empty());
}

#[test]
fn what_was_not_told_is_left_for_one_bit_each() {
    const COUNT: usize = 100_000;
    let entropy = Entropy::seeded(6);
    let revoked = Revoked::default();
    let ids: Vec<_> = (0..COUNT).map(|_| SessionId::from_bytes(entropy.bytes().unwrap())).collect();
    revoked.extend(ids.iter().map(|id| (*id, at(90))));
    // Among the recent ones too, and one in both parts of its shard.
    revoked.insert(SessionId::from_bytes([9; 16]), at(90));
    revoked.insert(ids[0], at(95));
    let mut tally = revoked.tally();
    assert!(tally.size() <= (COUNT + 2) / 8 + 1024 * 8, "{}", tally.size());
    revoked.insert(SessionId::from_bytes([8; 16]), at(90));
    revoked.sweep(at(90), 1);
    let told = ids.iter().step_by(3);
    assert!(told.clone().all(|id| tally.tell(*id, at(90))));
    assert!(!tally.tell(ids[0], at(96)), "not until then");
    assert!(!tally.tell(SessionId::from_bytes([7; 16]), at(1)), "not at all");
    let told: HashSet<_> = told.copied().collect();
    let mut untold = HashSet::new();
    assert_eq!(tally.left(), COUNT + 1 - told.len());
    loop {
        let some = tally.untold(997);
        if some.is_empty() {
            break;
        }
        assert!(some.len() <= 997);
        for (id, until) in some {
            assert!(until == at(90) && untold.insert(id), "once each");
            tally.tell(id, until);
        }
    }
    let all = ids.iter().copied().chain([SessionId::from_bytes([9; 16])]);
    assert!(all.clone().all(|id| told.contains(&id) != untold.contains(&id)));
    assert_eq!((told.len() + untold.len(), tally.left()), (COUNT + 1, 0));
}

#[test]
fn a_time_is_never_shortened_by_rounding_nor_by_an_earlier_one() {
    let revoked = Revoked::default();
    let id = SessionId::from_bytes([9; 16]);
    revoked.insert(id, Timestamp::from_millis(NOW.millis() + 1));
    assert_eq!(revoked.until(id), Some(at(1)));
    revoked.insert(id, at(0));
    revoked.extend([(id, at(0)), (id, at(1))]);
    assert_eq!(revoked.until(id), Some(at(1)));
    revoked.insert(id, at(7));
    assert_eq!(revoked.until(id), Some(at(7)));
    revoked.insert(id, Timestamp::from_millis(i64::MAX));
    assert!(revoked.contains(id));
    revoked.insert(SessionId::from_bytes([8; 16]), Timestamp::from_millis(-1));
    revoked.sweep(at(0), 1);
    assert_eq!(revoked.len(), 1);
}

#[test]
fn whoever_reads_while_others_write_misses_nothing_that_was_written() {
    const EACH: usize = 20_000;
    let revoked = Arc::new(Revoked::default());
    let written: Vec<Arc<AtomicUsize>> = (0..2).map(|_| Arc::default()).collect();
    let id = |writer: usize, number: usize| {
        // Spread over a few shards only, so that states follow each other quickly.
        let mut id = [0; 16];
        id[0] = u8::try_from(number % 3).unwrap();
        id[1..9]
            .copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        id[15] = u8::try_from(writer).unwrap();
        SessionId::from_bytes(id)
    };
    let write = |writer: usize| {
        let (revoked, written) = (Arc::clone(&revoked), Arc::clone(&written[writer]));
        thread::spawn(move || {
            for number in 0..EACH {
                revoked.insert(id(writer, number), at(60));
                written.store(number + 1, Ordering::Release);
                if number % 1000 == 0 {
                    revoked.sweep(NOW, 1);
                }
            }
        })
    };
    let writers: Vec<_> = (0..2).map(write).collect();
    let mut looked = 0;
    while looked < 2 * EACH {
        looked = 0;
        for (writer, written) in written.iter().enumerate() {
            let count = written.load(Ordering::Acquire);
            for number in (count.saturating_sub(20)..count).chain((0..count).step_by(997)) {
                assert!(revoked.contains(id(writer, number)), "{number} of {count}");
            }
            looked += count;
        }
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(revoked.len(), 2 * EACH);
}
