//! What every kind of store promises of counted windows.

use std::time::Duration;

use super::{NOW, at, stores};
use crate::store::{Counting, Taken, Window, WindowFamily};

fn window(key: u8, (count, seconds): (u32, u64), counting: Counting) -> Window {
    let length = Duration::from_secs(seconds);
    Window { family: WindowFamily::Account, key: [key; 32], count, length, counting }
}

const COUNTED: Taken = Taken::Counted { before: 0 };
/// Its member was in already.
const AGAIN: Taken = Taken::Counted { before: 1 };

const fn full(index: usize, seconds: u64) -> Taken {
    Taken::Full { index, wait: Duration::from_secs(seconds) }
}

#[tokio::test]
async fn an_attempt_counts_in_every_window_or_in_none() {
    stores(async |store| {
        let narrow = window(1, (1, 10), Counting::Sliding);
        let wide =
            Window { family: WindowFamily::Address, ..window(2, (3, 60), Counting::Sliding) };
        let count = async |id: u8, windows: &[Window], seconds| {
            store.count_attempt([id; 16], windows, at(seconds)).await.unwrap()
        };
        assert_eq!(count(1, &[wide, narrow], 0).await, COUNTED);
        assert_eq!(count(2, &[wide, narrow], 4).await, full(1, 6));
        assert_eq!(store.attempts(&wide, at(4)).await, Ok(1));
        assert_eq!(count(3, &[wide], 5).await, COUNTED);
        assert_eq!(count(4, &[wide], 6).await, COUNTED);
        assert_eq!(count(5, &[narrow, wide], 7).await, full(1, 53), "the longer wait");
        assert_eq!(count(5, &[narrow, wide], 60).await, COUNTED);
        assert_eq!(store.attempts(&wide, at(64)).await, Ok(3));
        assert_eq!(store.attempts(&wide, at(65)).await, Ok(2));
        // The same key in another family is another window.
        let code = Window { family: WindowFamily::Code, ..narrow };
        assert_eq!(store.attempts(&code, at(60)).await, Ok(0));
    })
    .await;
}

#[tokio::test]
async fn what_is_given_back_no_longer_counts() {
    stores(async |store| {
        let one = window(1, (2, 10), Counting::Sliding);
        let windows = [one, window(2, (9, 10), Counting::Sliding)];
        for id in [1, 2] {
            let taken = store.count_attempt([id; 16], &windows, NOW).await;
            assert_eq!(taken, Ok(COUNTED));
        }
        store.give_back([1; 16], &windows, at(1)).await.unwrap();
        store.give_back([7; 16], &windows, at(1)).await.unwrap();
        assert_eq!(store.attempts(&windows[1], at(1)).await, Ok(1));
        let taken = store.count_attempt([3; 16], &windows, at(1)).await;
        assert_eq!(taken, Ok(COUNTED));
        let taken = store.count_attempt([4; 16], &windows, at(1)).await;
        assert_eq!(taken, Ok(full(0, 9)));
    })
    .await;
}

#[tokio::test]
async fn a_renewed_window_ends_only_after_a_pause() {
    stores(async |store| {
        let one = window(1, (3, 10), Counting::Renewed);
        let count = async |id: u8, seconds| {
            store.count_attempt([id; 16], &[one], at(seconds)).await.unwrap()
        };
        for id in [0_u8, 1, 2] {
            assert_eq!(count(id, 9 * i64::from(id)).await, COUNTED);
        }
        assert_eq!(count(3, 20).await, full(0, 8), "ten seconds after the last");
        store.give_back([2; 16], &[one], at(18)).await.unwrap();
        assert_eq!(store.attempts(&one, at(18)).await, Ok(2));
        assert_eq!(store.attempts(&one, at(19)).await, Ok(0), "all at once");
        assert_eq!(count(4, 19).await, COUNTED);
    })
    .await;
}

#[tokio::test]
async fn who_was_in_before_is_told_and_not_given_back_by_a_later_attempt() {
    stores(async |store| {
        let member = |member: u8| window(1, (9, 10), Counting::Distinct([member; 16]));
        let windows = |name: u8| [window(2, (9, 10), Counting::Sliding), member(name)];
        let first = store.count_attempt([1; 16], &windows(1), NOW).await.unwrap();
        assert_eq!(first.own(&windows(1)), windows(1));
        let second = store.count_attempt([2; 16], &windows(1), at(1)).await.unwrap();
        assert_eq!(second, Taken::Counted { before: 0b10 });
        assert_eq!(second.own(&windows(1)), windows(1)[..1]);
        store.give_back([2; 16], &second.own(&windows(1)), at(1)).await.unwrap();
        assert_eq!(store.attempts(&member(9), at(1)).await, Ok(1), "the first one's");
        assert_eq!(store.attempts(&windows(1)[0], at(1)).await, Ok(1));
        let other = store.count_attempt([3; 16], &windows(2), at(1)).await.unwrap();
        assert_eq!(other, COUNTED);
    })
    .await;
}

#[tokio::test]
async fn a_member_counts_once_in_a_window_of_members() {
    stores(async |store| {
        let of = |member: u8| window(1, (2, 10), Counting::Distinct([member; 16]));
        let count = async |id: u8, member, seconds| {
            store.count_attempt([id; 16], &[of(member)], at(seconds)).await.unwrap()
        };
        assert_eq!(count(1, 1, 0).await, COUNTED);
        assert_eq!(count(2, 2, 1).await, COUNTED);
        assert_eq!(count(3, 3, 2).await, full(0, 8));
        assert_eq!(count(4, 1, 6).await, AGAIN, "it is in already");
        assert_eq!(store.attempts(&of(9), at(6)).await, Ok(2));
        assert_eq!(count(5, 3, 11).await, COUNTED, "the second left");
        assert_eq!(count(6, 2, 15).await, full(0, 1), "the first was renewed");
        store.give_back([8; 16], &[of(3)], at(15)).await.unwrap();
        assert_eq!(count(6, 2, 15).await, COUNTED);
    })
    .await;
}
