//! The logins under way, and when those that are refused are answered. Whatever way
//! a login took to its refusal, the answer comes at one of a few moments after its
//! arrival; so many may wait and no more. Knows neither names nor passwords.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::schedule::{Schedule, Timer};
use crate::refusal::Refusal;
use crate::wire::client::AddressKey;

/// One address may have this part of all logins that are under way.
const ADDRESS_PART: usize = 8;

/// What a try of a password that led to nothing says to its client.
pub(super) trait Refused: From<Refusal> {
    /// With which answer.
    fn refusal(&self) -> Refusal;
}

impl Refused for Refusal {
    fn refusal(&self) -> Refusal {
        *self
    }
}

/// The result of a login that began then, a refusal at its time. One that is decided by
/// the name as typed and the address alone, before anybody is looked up, tells nothing
/// of an account and need not wait. It may come after waiting for other tries of that
/// name or address, which end for those who wait when they succeed, or else when their
/// own refusal is due: when they were judged shows in neither.
pub(super) async fn level<T, E: Refused>(
    (schedule, timer): (Schedule, &Timer),
    began: Instant,
    result: Result<T, E>,
) -> Result<T, E> {
    if let Err(refused) = &result
        && !matches!(refused.refusal(), Refusal::TooManyAttempts { .. } | Refusal::Overloaded)
    {
        schedule.keep(timer, began).await;
    }
    result
}

/// The logins under way, over all workers.
#[derive(Clone, Debug, Default)]
pub struct Logins(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<AddressKey, usize>,
}

/// A login's place; given back when both the client that waits and the work that is done
/// for it have dropped theirs. So it is held when the client hangs up meanwhile.
#[derive(Debug)]
pub(super) struct Place {
    logins: Logins,
    address: AddressKey,
    began: Mutex<Instant>,
}

impl Logins {
    /// One more of this address, of at most `most`.
    ///
    /// # Errors
    /// When there is no place: said at arrival, before anybody is looked up.
    pub(super) fn enter(&self, address: IpAddr, most: usize) -> Result<Place, Refusal> {
        let address = AddressKey::of(address);
        let mut counts = self.counts();
        let of_address = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.all >= most || of_address >= most.div_ceil(ADDRESS_PART) {
            return Err(Refusal::Overloaded);
        }
        counts.all += 1;
        counts.by_address.insert(address, of_address + 1);
        drop(counts);
        Ok(Place { logins: self.clone(), address, began: Mutex::new(Instant::now()) })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// From when on the time of a refusal counts.
    pub(super) fn began(&self) -> Instant {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The login waited for so long for others' tries to end, which is no time of its own:
    /// else others could let it begin just before a step, and see by the step of its
    /// answer what it took from there.
    pub(super) fn put_off(&self, delay: Duration) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) += delay;
    }

    /// Work that holds it to its end.
    pub(super) async fn held_by<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        let done = work.await;
        drop(self);
        done
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.logins.counts();
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{Logins, Schedule, Timer, level};
    use crate::refusal::Refusal;

    const STEP: Duration = Duration::from_millis(500);

    /// When a login that took so long is answered.
    async fn answered(took: Duration, result: Result<(), Refusal>) -> Duration {
        let began = Instant::now();
        sleep(took).await;
        assert_eq!(level((Schedule::every(STEP), &Timer::here()), began, result).await, result);
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_comes_at_the_next_step_whatever_it_took() {
        for (took, expected) in
            [(0, 500), (1, 500), (499, 500), (501, 1000), (1700, 2000), (4999, 5000)]
        {
            for refusal in [
                Refusal::InvalidCredentials,
                Refusal::PasswordChangeRequired,
                Refusal::NoRole,
                Refusal::DirectoryUnavailable,
            ] {
                let took = Duration::from_millis(took);
                let answered = answered(took, Err(refusal)).await;
                assert_eq!(answered, Duration::from_millis(expected), "{took:?} {refusal:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_decided_without_looking_anybody_up_and_a_success_do_not_wait() {
        let retry_after = Duration::from_secs(9);
        for result in
            [Ok(()), Err(Refusal::TooManyAttempts { retry_after }), Err(Refusal::Overloaded)]
        {
            assert_eq!(answered(STEP / 5, result).await, STEP / 5, "{result:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_refusal_begins_when_the_login_was_counted() {
        for (waited, took) in [(0, 20), (480, 20), (495, 20), (1700, 499)] {
            let (waited, took) = (Duration::from_millis(waited), Duration::from_millis(took));
            let place = Logins::default().enter(IpAddr::from([192, 0, 2, 1]), 1).unwrap();
            let came = Instant::now();
            sleep(waited).await;
            place.put_off(waited);
            sleep(took).await;
            let refused = Err::<(), _>(Refusal::InvalidCredentials);
            assert_eq!(
                level((Schedule::every(STEP), &Timer::here()), place.began(), refused).await,
                refused
            );
            assert_eq!(came.elapsed(), waited + STEP, "{waited:?}");
        }
    }

    #[test]
    fn places_are_bounded_in_all_and_for_each_address() {
        let logins = Logins::default();
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut places = Vec::new();
        for last in 0..8 {
            for _ in 0..2 {
                places.push(logins.enter(address(last), 16).unwrap());
            }
            assert_eq!(logins.enter(address(last), 16).err(), Some(Refusal::Overloaded));
        }
        assert_eq!(logins.enter(address(99), 16).err(), Some(Refusal::Overloaded));
        places.pop();
        places.push(logins.enter(address(99), 16).unwrap());
        drop(places);
        assert!(logins.counts().by_address.is_empty());
        assert_eq!(logins.counts().all, 0);
        assert!(logins.enter(address(1), 1).is_ok(), "one place is one place");
    }
}
