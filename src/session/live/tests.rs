//! Promises of the registry when a revocation comes while a session is taken into use.

use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use super::Registry;
use crate::ambient::{Clock, Entropy, Timestamp};
use crate::identity::{Role, SessionId, Subject};
use crate::token::{Claims, ContextCookie, TokenId};

fn claims(session: SessionId, now: Timestamp) -> Claims {
    let context = ContextCookie::fresh(&Entropy::seeded(1)).unwrap();
    Claims {
        subject: Subject::new("zoë"),
        role: Role::new("admin"),
        context: context.hash(),
        issued_at: now,
        expires_at: now.plus(Duration::from_mins(15)),
        session,
        id: TokenId { generation: 1, nonce: [0; 12] },
        reference: None,
    }
}

#[test]
fn a_revocation_at_any_point_of_taking_a_session_into_use_is_not_missed() {
    let now = Clock::system().now();
    let until = now.plus(Duration::from_hours(1));
    let session = SessionId::from_bytes([7; 16]);
    let claims = claims(session, now);

    let before = Registry::default();
    before.revoke(session, until);
    let live = before.live(&claims, || panic!("the store need not be asked"));
    assert!(live.is_ended(), "before it is looked for");

    let between = Registry::default();
    let live = between.live(&claims, || {
        between.revoke(session, until);
        None
    });
    assert!(live.is_ended(), "while the record is read");
    assert!(between.live(&claims, || None).is_ended());

    let between = Registry::default();
    let live = between.live(&claims, || {
        between.revoke_all(&[(session, until)]);
        None
    });
    assert!(live.is_ended(), "with many, while the record is read");

    let after = Registry::default();
    let live = after.live(&claims, || None);
    assert!(!live.is_ended());
    after.revoke(session, until);
    assert!(live.is_ended(), "when it is in use");
    assert_eq!(after.len(), 1);
}

/// Two who take one session into use and one who revokes it, over and over: what
/// anybody holds is ended when the revocation has returned.
#[test]
fn nobody_holds_a_live_session_after_its_revocation_returned() {
    const ROUNDS: u32 = 4000;
    let registry = Arc::new(Registry::default());
    let now = Clock::system().now();
    let barrier = Arc::new(Barrier::new(3));
    let session = |round: u32| {
        let mut id = [0; 16];
        id[4..8].copy_from_slice(&round.to_be_bytes());
        SessionId::from_bytes(id)
    };
    let (held, holders) = mpsc::channel();
    let take = |_| {
        let (registry, barrier, held) = (Arc::clone(&registry), Arc::clone(&barrier), held.clone());
        thread::spawn(move || {
            for round in 0..ROUNDS {
                let claims = claims(session(round), now);
                barrier.wait();
                held.send((round, registry.live(&claims, || None))).unwrap();
                // The revocation of this round has returned.
                barrier.wait();
                assert!(registry.live(&claims, || None).is_ended());
            }
        })
    };
    let takers: Vec<_> = (0..2).map(take).collect();
    drop(held);
    for round in 0..ROUNDS {
        barrier.wait();
        registry.revoke(session(round), now.plus(Duration::from_hours(1)));
        barrier.wait();
    }
    for taker in takers {
        taker.join().unwrap();
    }
    assert!(holders.into_iter().all(|(_, live)| live.is_ended()));
    assert_eq!(registry.in_use.len(), 0);
}
