//! What every kind of store promises. A further kind is one more line in `stores`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Issued, News, Replaced, SecretName, Seen, SessionRecord, Store};
use crate::ambient::{Clock, Entropy, Timestamp};
use crate::config;
use crate::identity::{Attributes, Role, SessionId, Subject};
use crate::metrics::Metrics;
use crate::secret::Secret;

const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);
const WAIT: Duration = Duration::from_secs(5);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(NOW.seconds() + seconds)
}

pub(super) fn session(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

pub(super) fn record(number: u8) -> SessionRecord {
    SessionRecord {
        session: session(number),
        subject: Subject::new("zoë"),
        role: Role::new("admin"),
        account: "uid=zoë,dc=example,dc=org".to_owned(),
        attributes: Attributes::default(),
        stamp: Some("pwdLastSet=1/objectGUID=2".to_owned()),
        emergency: number == 7,
        created: NOW,
        end: at(3600),
        last_activity: NOW,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        user_agent: Some("a \"browser\"".to_owned()),
        issued: Issued {
            generation: 1,
            nonce: [number; 12],
            issued_at: NOW.seconds(),
            expires_at: at(900).seconds(),
        },
        newest_seen: 0,
        replaced: Vec::new(),
    }
}

fn fresh(byte: u8) -> Secret<[u8; 32]> {
    Secret::new([byte; 32])
}

async fn stores(test: impl AsyncFn(&Store)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let kinds = [config::Store::Memory, config::Store::Embedded { path }];
    for kind in kinds.into_iter().chain(redis::all()) {
        let metrics = Metrics::new().unwrap();
        let ambient = (&Clock::manual_at(NOW).0, &Entropy::system());
        let store = Store::open(&kind, WAIT, ambient, &metrics).await.unwrap();
        hear(&store).await;
        test(&store).await;
    }
}

/// Reads the news until they are fresh.
pub(crate) async fn hear(store: &Store) {
    let Some(mut feed) = store.feed() else { return };
    while feed.next().await != News::Complete {}
    feed.settle();
}

#[tokio::test]
async fn a_session_reads_back_as_it_was_created() {
    stores(async |store| {
        assert_eq!(store.read(session(1)).await.unwrap(), None);
        store.create(record(1)).await.unwrap();
        store.create(record(2)).await.unwrap();
        assert_eq!(store.read(session(1)).await.unwrap(), Some(record(1)));
        assert_eq!(store.read(session(2)).await.unwrap(), Some(record(2)));
    })
    .await;
}

#[tokio::test]
async fn a_decision_keeps_what_it_changed_and_answers() {
    stores(async |store| {
        store.create(record(1)).await.unwrap();
        let decide = |record: &mut SessionRecord| {
            record.newest_seen += 1;
            record.newest_seen
        };
        assert_eq!(store.update(session(1), decide).await, Ok(Some(1)));
        assert_eq!(store.update(session(1), decide).await, Ok(Some(2)));
        assert_eq!(store.update(session(2), decide).await, Ok(None));
        assert_eq!(store.read(session(1)).await.unwrap().unwrap().newest_seen, 2);
        assert_eq!(store.read(session(2)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn decisions_on_one_session_do_not_come_between_each_other() {
    stores(async |store| {
        store.create(record(1)).await.unwrap();
        let decide = |record: &mut SessionRecord| {
            let before = record.newest_seen;
            std::thread::yield_now();
            record.newest_seen = before + 1;
        };
        let all = (0..100).map(|_| store.update(session(1), decide));
        futures_util::future::join_all(all).await.into_iter().for_each(|done| {
            assert_eq!(done, Ok(Some(())));
        });
        assert_eq!(store.read(session(1)).await.unwrap().unwrap().newest_seen, 100);
    })
    .await;
}

#[tokio::test]
async fn what_was_seen_is_added_and_never_undone() {
    stores(async |store| {
        store.create(record(1)).await.unwrap();
        let seen = |seconds, newest_seen, since| Seen {
            session: session(1),
            last_activity: at(seconds),
            newest_seen,
            replaced: vec![Replaced { generation: newest_seen - 1, since }],
        };
        let unknown = Seen { session: session(9), ..seen(9, 9, 9) };
        store.note(vec![seen(20, 3, 7), unknown, seen(10, 2, 5), seen(15, 3, 8)]).await.unwrap();
        let kept = store.read(session(1)).await.unwrap().unwrap();
        assert_eq!((kept.last_activity, kept.newest_seen), (at(20), 3));
        let replaced: Vec<_> =
            kept.replaced.iter().map(|one| (one.generation, one.since)).collect();
        assert_eq!(replaced, [(1, 5), (2, 7)]);
        assert_eq!(store.read(session(9)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_revocation_ends_a_session_once_and_is_remembered_until_its_time() {
    stores(async |store| {
        store.create(record(1)).await.unwrap();
        assert_eq!(store.revoke(session(1), at(100)).await, Ok(true));
        assert_eq!(store.revoke(session(1), at(100)).await, Ok(false));
        assert_eq!(store.revoke(session(2), at(50)).await, Ok(false), "also without a record");
        assert_eq!(store.read(session(1)).await.unwrap(), None);
        let mut revoked = store.revocations(None).await.unwrap();
        assert_eq!(store.revocations(Some(revoked[0])).await.unwrap(), revoked[1..]);
        assert_eq!(store.revocations(Some(revoked[1])).await.unwrap(), []);
        revoked.sort();
        assert_eq!(revoked, [(session(1), at(100)), (session(2), at(50))]);
        store.sweep(at(50), NOW).await.unwrap();
        assert_eq!(store.revocations(None).await.unwrap(), [(session(1), at(100))]);
        store.sweep(at(100), NOW).await.unwrap();
        assert_eq!(store.revocations(None).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn several_sessions_end_in_one_step() {
    stores(async |store| {
        store.create(record(1)).await.unwrap();
        store.create(record(2)).await.unwrap();
        let ended = vec![(session(1), at(100)), (session(3), at(50)), (session(2), at(100))];
        assert_eq!(store.revoke_all(ended).await.unwrap(), [session(1), session(2)]);
        assert_eq!(store.revocations(None).await.unwrap().len(), 3);
        assert_eq!(store.page(None).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn pages_hold_every_session_once() {
    stores(async |store| {
        let ids = (0..=u8::MAX).chain([0]).enumerate();
        for (number, byte) in ids {
            let mut id = [byte; 16];
            id[15] = u8::from(number > 255);
            store
                .create(SessionRecord { session: SessionId::from_bytes(id), ..record(byte) })
                .await
                .unwrap();
        }
        let first = store.page(None).await.unwrap();
        assert_eq!(first.len(), super::PAGE);
        let second = store.page(first.last().map(|record| record.session)).await.unwrap();
        let third = store.page(second.last().map(|record| record.session)).await.unwrap();
        assert!(!second.is_empty() && third.is_empty());
        let mut all: Vec<_> = first.iter().chain(&second).map(|record| record.session).collect();
        assert!(all.is_sorted());
        all.dedup();
        assert_eq!(all.len(), first.len() + second.len());
    })
    .await;
}

#[tokio::test]
async fn the_sessions_of_a_subject_are_found_until_they_are_over() {
    stores(async |store| {
        let of = |number: u8, subject: &str| SessionRecord {
            subject: Subject::new(subject),
            end: at(i64::from(number) * 10),
            ..record(number)
        };
        for (number, subject) in [(1, "zoë"), (2, "zo"), (3, "zoë"), (4, "zoë")] {
            store.create(of(number, subject)).await.unwrap();
        }
        let found = async |subject: &str| -> Vec<_> {
            let records = store.of_subject(&Subject::new(subject)).await.unwrap();
            records.iter().map(|record| record.session).collect()
        };
        assert_eq!(found("zoë").await, [session(1), session(3), session(4)]);
        assert_eq!(found("zo").await, [session(2)]);
        assert_eq!(found("z").await, []);
        store.revoke(session(3), at(100)).await.unwrap();
        assert_eq!(found("zoë").await, [session(1), session(4)]);
        store.sweep(at(20), NOW).await.unwrap();
        assert_eq!(found("zoë").await, [session(4)]);
        assert_eq!(found("zo").await, []);
    })
    .await;
}

#[tokio::test]
async fn a_sweep_forgets_ended_and_idle_sessions_and_counts_the_rest() {
    stores(async |store| {
        let mut ended = record(1);
        ended.end = at(10);
        let mut active = record(3);
        active.last_activity = at(8);
        for record in [ended, record(2), active] {
            store.create(record).await.unwrap();
        }
        assert_eq!(store.sweep(at(9), NOW).await, Ok(3));
        assert_eq!(store.sweep(at(10), NOW).await, Ok(2));
        assert_eq!(store.sweep(at(10), at(5)).await, Ok(1));
        assert!(store.read(session(3)).await.unwrap().is_some());
    })
    .await;
}

/// By its clock everybody is idle; Redis has one of its own, which no test governs here.
#[tokio::test]
async fn a_gateway_whose_clock_is_hours_ahead_takes_nobody_for_idle() {
    const HOUR: Duration = Duration::from_hours(1);
    let metrics = Metrics::new().unwrap();
    let clock = Clock::system();
    let ambient = (&clock, &Entropy::system());
    let store = Store::open(&redis::single(), WAIT, ambient, &metrics).await.unwrap();
    hear(&store).await;
    let now = clock.now();
    let long_ago = Timestamp::from_millis(now.millis() - 61 * 60 * 1000);
    for (number, last_activity) in [(1, now), (2, long_ago)] {
        let record = SessionRecord { last_activity, end: now.plus(12 * HOUR), ..record(number) };
        store.create(record).await.unwrap();
    }
    assert_eq!(store.sweep(now.plus(2 * HOUR), now.plus(HOUR)).await, Ok(1), "but who is");
    assert!(store.read(session(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn starts_and_key_are_kept() {
    stores(async |store| {
        assert_eq!(store.starts().await, Ok(None));
        store.set_starts(7).await.unwrap();
        assert_eq!(store.starts().await, Ok(Some(7)));

        let first = *store.secret(SecretName::Names, fresh(1)).await.unwrap().expose();
        assert!(first == [1; 32] || store.is_shared(), "the one given, or one for all");
        let again = *store.secret(SecretName::Names, fresh(2)).await.unwrap().expose();
        assert_eq!(again, first, "the first one stays");
        let mut all = vec![first];
        for name in [SecretName::PasswordChange, SecretName::Device, SecretName::AccessCode] {
            let key = *store
                .secret(name, fresh(u8::try_from(all.len()).unwrap() + 2))
                .await
                .unwrap()
                .expose();
            assert!(!all.contains(&key), "each name has one of its own");
            all.push(key);
        }
        assert!(store.is_up());
    })
    .await;
}

mod attempts;
mod expiring;
mod news;
mod put_back;
pub(crate) mod redis;
