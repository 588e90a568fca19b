//! One try of a password: where it counts, how it waits for others that are under way,
//! and what becomes of it. Knows no names and no addresses but as keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::ambient::next_step;
use crate::config::Lockout;
use crate::store::{AttemptId, Taken, Window, WindowFamily};
use crate::throttle::device::Device;
use crate::throttle::under_way::{Alone, Chance, Place, Try};
use crate::throttle::{Denied, Inner, Key, PER_ADDRESS, Remembering, Throttled};

/// How long a login waits, in all, for tries under way to end: as long as one has at the
/// directory where `directory.timeout` says nothing else, so that these have ended by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// When to come again while tries are still under way.
const SOON: Duration = Duration::from_secs(1);

/// One try, counted as a failure until `succeeded` or `withdraw`; so it stays one
/// when the client hangs up.
#[must_use = "a dropped attempt stays counted as a failure"]
pub struct Attempt {
    pub(super) inner: Arc<Inner>,
    id: AttemptId,
    began: Instant,
    /// How long it waited for others before it counted for its name.
    pub(super) delay: Duration,
    /// How long it may still wait.
    patience: Duration,
    pub(super) device: Device,
    name: Key,
    /// The account behind the name, once the directory has said which it is.
    account: Option<Key>,
    /// Where it counts, and nobody of the same account counted before.
    pub(super) tries: Vec<(Window, Try)>,
    /// The right to go on, where one does at a time.
    alone: Option<Alone>,
}

impl Attempt {
    /// One that counts nowhere yet.
    ///
    /// # Errors
    /// When there is no randomness to tell it from others.
    pub(super) fn new(inner: &Arc<Inner>, device: Device, name: Key) -> Result<Self, Denied> {
        Ok(Self {
            id: inner.entropy.bytes()?,
            began: Instant::now(),
            delay: Duration::ZERO,
            patience: PATIENCE,
            inner: Arc::clone(inner),
            device,
            name,
            account: None,
            tries: Vec::new(),
            alone: None,
        })
    }

    /// How long it waited for other tries before it counted. That depends on the name as
    /// typed and on the address alone; what an answer's time is measured from must leave
    /// it out, or others could choose with their own tries when this one is late.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        self.delay
    }

    /// Counts the try for the account that the directory found behind the name too: a
    /// directory reads many spellings as one name, and an account may have several names.
    /// `lockout` is what the directory says of this account alone. It may wait as for its
    /// name, which others may then wait for in turn; those who have come this far wait for
    /// nobody, so that each wait has an end.
    ///
    /// # Errors
    /// When the account has failed too often, or the store cannot answer; the
    /// password must not be tried then.
    pub async fn of_account(
        &mut self,
        account: &str,
        lockout: Option<Lockout>,
    ) -> Result<(), Denied> {
        // No typed name holds a NUL: none can stand for somebody else's account.
        let key = self.inner.key(format!("\0{account}").as_bytes());
        let share = self.inner.share(lockout);
        let window = share.window(WindowFamily::Entry, key, self.device.knows_account(&key));
        self.count(&[window], &[share.rule]).await?;
        self.account = Some(key);
        Ok(())
    }

    /// It is somebody else who logs in than the account that was found, which may have been
    /// tried all the same: there the try stays counted, and no device becomes known.
    pub fn leave_account(&mut self) {
        if let Some(account) = self.account.take() {
            self.tries.retain(|(window, _)| window.key != account);
        }
    }

    /// The password was right: this try was no failure. Earlier ones stay counted.
    pub async fn succeeded(self) -> Remembering {
        self.give_back(|_| true).await;
        let Self { inner, device, name, account, .. } = self;
        Remembering { inner, device, name, account }
    }

    /// The password was not right, or must be taken for that: the try stays counted. To
    /// those who wait it is under way until its client may be answered, in steps of
    /// `throttle.refusal_after`, so that they do not learn from it how long the directory
    /// took. At the entry only other spellings of its name wait, which are answered in
    /// steps themselves.
    pub fn failed(mut self) {
        self.tries.retain(|(window, _)| window.family != WindowFamily::Entry);
        let (began, step) = (self.began + self.delay, self.inner.config.load().refusal_after);
        let (tries, answered) = (self.tries, began + next_step(step, began.elapsed()));
        tokio::spawn(async move {
            sleep_until(answered).await;
            drop(tries);
        });
    }

    /// Nobody could judge the password: an outage locks nobody out.
    pub async fn withdraw(self) {
        self.give_back(|_| true).await;
    }

    /// The directory was told the password and did not judge it. It may have counted a
    /// failure, so that the account's stays counted where the directory locks accounts.
    pub async fn unanswered(mut self) {
        let locks = self.inner.lockout().is_none_or(|lockout| lockout.threshold > 0);
        let is_none = |window: &Window| !locks || window.family == WindowFamily::Address;
        self.give_back(is_none).await;
        self.tries.retain(|(window, _)| !is_none(window));
        self.failed();
    }

    /// Counts the try in all of these windows or in none, and says how long it waited for
    /// that. A window may be full of tries that are under way and may turn out to be no
    /// failures: who comes then waits until one has ended, and asks again. Whoever holds
    /// places waits for none but those of a later step of the login, which nobody holds
    /// who waits for these.
    pub(super) async fn count(
        &mut self,
        windows: &[Window],
        rules: &[&'static str],
    ) -> Result<Duration, Denied> {
        let (inner, mut waited) = (Arc::clone(&self.inner), Duration::ZERO);
        let mut turn = None;
        loop {
            let asking = inner.under_way.ask(windows);
            let taken = inner.store.count_attempt(self.id, windows, inner.clock.now()).await?;
            let Taken::Full { index, wait } = taken else {
                self.tries.extend(asking.counted(&taken.own(windows)));
                return Ok(waited);
            };
            let rule = rules.get(index).copied().unwrap_or(PER_ADDRESS);
            let places = windows.get(index).map(|window| window.count);
            let chance = asking.full(index).filter(|it| it.chance() != Chance::None).zip(places);
            let Some((waiting, places)) = chance else {
                return Err(Throttled::by(rule, wait).into());
            };
            let began = Instant::now();
            let has_ended = timeout(self.patience, async {
                if turn.as_ref().is_none_or(|(whose, _)| *whose != index) {
                    // Who waited for one window's turn with another's could do so in a ring.
                    turn = None;
                    turn = Some((index, waiting.turn(places).await));
                }
                waiting.end().await
            });
            let has_ended = has_ended.await;
            self.patience = self.patience.saturating_sub(began.elapsed());
            waited += began.elapsed();
            match has_ended {
                Ok(true) => {}
                Ok(false) => return Err(Throttled::by(rule, wait).into()),
                Err(_) => return Err(Throttled::by(rule, SOON).into()),
            }
        }
    }

    /// Goes on alone of all at a place, as soon as nobody else does.
    ///
    /// # Errors
    /// When that takes too long; nothing is counted then.
    pub(super) async fn alone(mut self, place: Place) -> Result<Self, Denied> {
        let began = Instant::now();
        let Ok(alone) = timeout(self.patience, self.inner.under_way.alone(place)).await else {
            self.withdraw().await;
            return Err(Throttled::by(PER_ADDRESS, SOON).into());
        };
        self.delay += began.elapsed();
        self.alone = Some(alone);
        Ok(self)
    }

    /// A store that cannot answer leaves the try counted: for a time, nothing worse.
    pub(super) async fn give_back(&self, which: impl Fn(&Window) -> bool) {
        let windows = self.tries.iter().map(|(window, _)| *window);
        let windows: Vec<Window> = windows.filter(|it| which(it)).collect();
        let now = self.inner.clock.now();
        if let Err(error) = self.inner.store.give_back(self.id, &windows, now).await {
            tracing::warn!(%error, "a try that was no failure stays counted as one");
        }
    }
}
