//! How many failures an account has, and for whom: less than would make the
//! directory lock it. Pure; knows no store.

use std::time::Duration;

use crate::config::{self, Lockout};
use crate::store::{Counting, Window, WindowFamily};

/// The limit of one account, as metrics and audit name it.
pub(super) const PER_USER: &str = "login_per_user";
/// The same where the directory's lock-out makes it less.
const LOCKOUT_GUARD: &str = "lockout_guard";
/// How long we count where the directory forgets only with a right password.
const LONG: Duration = Duration::from_hours(24);

/// The failures that an account may have. Strangers' stop at theirs; known devices
/// may make all of them. So no stranger takes what is kept for the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of those whose device nobody knows.
    pub strangers: u32,
    /// Of all together.
    pub all: u32,
    /// For how long one counts.
    pub window: Duration,
    counting: Counting,
    /// The key of the limit, for metric and audit.
    pub rule: &'static str,
}

impl Share {
    /// What the limits leave where the directory locks accounts so, as far as that is known.
    #[must_use]
    pub fn of(config: &config::LoginThrottle, lockout: Option<Lockout>) -> Self {
        let (configured, reserve) = (config.per_user, config.device_reserve);
        let Some(lockout) = lockout.filter(|lockout| lockout.threshold > 0) else {
            return Self {
                strangers: configured.count,
                all: configured.count.saturating_add(reserve),
                window: configured.window,
                counting: Counting::Sliding,
                rule: PER_USER,
            };
        };
        let most = most(lockout.threshold, config.lockout_margin);
        let reserve = reserve.min(most / 2);
        let strangers = configured.count.min(most - reserve);
        let counted = if lockout.window.is_zero() { LONG } else { lockout.window };
        Self {
            strangers,
            all: strangers + reserve,
            window: configured.window.max(counted),
            // A directory may begin to forget only when there was no failure for a time.
            counting: Counting::Renewed,
            rule: if strangers < configured.count { LOCKOUT_GUARD } else { PER_USER },
        }
    }

    /// The window of an account under this key.
    pub(super) const fn window(
        &self,
        family: WindowFamily,
        key: [u8; 32],
        is_known: bool,
    ) -> Window {
        Window {
            family,
            key,
            count: if is_known { self.all } else { self.strangers },
            length: self.window,
            counting: self.counting,
        }
    }
}

/// The most failures below a threshold: by the margin where that leaves two, so that
/// there is one for known devices; else by one. A directory that locks at the first
/// wrong password cannot be guarded: nobody could log in at all.
fn most(threshold: u32, margin: u32) -> u32 {
    let below = threshold.saturating_sub(1);
    threshold.saturating_sub(margin).max(2).min(below).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONG, Share};
    use crate::config::{Lockout, LoginThrottle, Rate};
    use crate::store::Counting;

    const MINUTE: Duration = Duration::from_mins(1);

    fn share(lockout: Option<(u32, Duration)>) -> Share {
        let rate = |count| Rate { count, window: 15 * MINUTE };
        let config = LoginThrottle {
            per_user: rate(5),
            per_address: rate(30),
            accounts_per_address: rate(20),
            directory_lockout: None,
            lockout_margin: 2,
            device_reserve: 2,
            devices: 10,
            refusal_after: Duration::from_millis(500),
            logins: 100,
            entries: 10,
        };
        Share::of(&config, lockout.map(|(threshold, window)| Lockout { threshold, window }))
    }

    #[test]
    fn strangers_and_known_devices_together_stay_below_every_lockout() {
        for (threshold, strangers, all) in [
            (1, 1, 1), // Not to be guarded.
            (2, 1, 1),
            (3, 1, 2),
            (4, 1, 2),
            (5, 2, 3),
            (6, 2, 4),
            (8, 4, 6),
            (10, 5, 7),
            (50, 5, 7),
        ] {
            let share = share(Some((threshold, MINUTE)));
            assert_eq!((share.strangers, share.all), (strangers, all), "{threshold}");
            assert!(share.all < threshold || threshold == 1);
            let guarded = strangers < 5;
            assert_eq!(share.rule, if guarded { "lockout_guard" } else { "login_per_user" });
        }
        for none in [None, Some((0, MINUTE))] {
            assert_eq!((share(none).strangers, share(none).all), (5, 7));
            assert_eq!(share(none).counting, Counting::Sliding);
        }
    }

    #[test]
    fn the_longer_window_holds_and_begins_anew_with_every_failure() {
        for (window, expected) in
            [(MINUTE, 15 * MINUTE), (30 * MINUTE, 30 * MINUTE), (Duration::ZERO, LONG)]
        {
            let share = share(Some((10, window)));
            assert_eq!((share.window, share.counting), (expected, Counting::Renewed));
        }
    }
}
