//! What to think of a directory's lock-out beside our own limits: whether strangers
//! could lock people out of the directory through the gateway. Asks nobody.

use std::time::Duration;

use crate::config::{Lockout, LoginThrottle};
use crate::directory::Finding;
use crate::throttle::Share;

/// Judges what could be read: of all accounts, or, with the name of a policy, of those
/// that it is for.
pub(super) fn judge(
    throttle: &LoginThrottle,
    read: Option<Lockout>,
    policy: Option<&str>,
) -> Finding {
    match (throttle.directory_lockout, read, policy) {
        (_, Some(read), Some(policy)) => compared(throttle, read, policy),
        (Some(_), None, Some(policy)) => Finding::Suspect(format!(
            "what {policy} says of a lock-out cannot be read, so throttle.directory_lockout is \
             taken for it: may the service account read it?"
        )),
        (None, None, Some(policy)) => Finding::Suspect(format!(
            "what {policy} says of a lock-out cannot be read, so it is taken for a strict one, \
             and few wrong passwords keep the person out of here: may the service account read it?"
        )),
        (Some(stated), Some(read), None) if is_less_strict(stated, read) => {
            Finding::Suspect(format!(
                "the directory locks an account {}, but throttle.directory_lockout says {}, which \
                 counts: leave it out",
                told(read),
                told(stated)
            ))
        }
        (Some(stated), ..) => compared(throttle, stated, "throttle.directory_lockout"),
        (None, Some(read), None) => compared(throttle, read, "the directory"),
        (None, None, None) => Finding::Suspect(
            "when the directory locks an account cannot be read: state it in \
             throttle.directory_lockout, or let the service account read it"
                .to_owned(),
        ),
    }
}

/// A lock-out and what we leave of it.
fn compared(throttle: &LoginThrottle, lockout: Lockout, source: &str) -> Finding {
    let Share { strangers, all, window, .. } = Share::of(throttle, Some(lockout));
    let ours = format!(
        "here strangers may fail {strangers} times, with known devices {all}, in {}",
        seconds(window)
    );
    match lockout.threshold {
        0 => Finding::Fine(format!("{source}: no account is locked; {ours}")),
        1 => Finding::Suspect(format!(
            "{source}: an account is locked at the first wrong password, which strangers can do \
             through the gateway as well; let it be two or more"
        )),
        // We forget after a day, whoever guesses from day to day is only counted there.
        _ if lockout.window.is_zero() => Finding::Suspect(format!(
            "{source}: an account is locked {}, as only a right one makes the directory forget \
             them; {ours}, so strangers can lock it from day to day: let the directory forget \
             after a time",
            told(lockout)
        )),
        _ => Finding::Fine(format!("{source}: an account is locked {}; {ours}", told(lockout))),
    }
}

/// Whether an account may be locked before the stated lock-out would have it so.
fn is_less_strict(stated: Lockout, read: Lockout) -> bool {
    let forgets_sooner = match (stated.window.is_zero(), read.window.is_zero()) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => stated.window < read.window,
    };
    read.threshold > 0 && (stated.threshold > read.threshold || forgets_sooner)
}

fn told(lockout: Lockout) -> String {
    let Lockout { threshold, window } = lockout;
    if window.is_zero() {
        format!("at {threshold} wrong passwords, whenever they were")
    } else {
        format!("at {threshold} wrong passwords in {}", seconds(window))
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::judge;
    use crate::config::{Lockout, LoginThrottle, Rate};
    use crate::directory::Finding;

    fn throttle(stated: Option<Lockout>) -> LoginThrottle {
        let rate = |count| Rate { count, window: Duration::from_mins(15) };
        LoginThrottle {
            per_user: rate(5),
            per_address: rate(30),
            accounts_per_address: rate(20),
            directory_lockout: stated,
            lockout_margin: 2,
            device_reserve: 2,
            devices: 10,
            refusal_after: Duration::from_millis(500),
            logins: 100,
            entries: 10,
        }
    }

    /// What is thought of what is stated and what is read, in tries and minutes.
    fn judged(
        stated: Option<(u32, u64)>,
        read: Option<(u32, u64)>,
        policy: Option<&str>,
    ) -> Finding {
        let [stated, read] = [stated, read].map(|it| {
            it.map(|(threshold, minutes)| Lockout {
                threshold,
                window: Duration::from_mins(minutes),
            })
        });
        judge(&throttle(stated), read, policy)
    }

    #[test]
    fn what_lets_strangers_lock_people_out_is_suspected() {
        for (stated, read, policy, expected) in [
            (None, None, None, "cannot be read: state it in throttle.directory_lockout"),
            (None, Some((1, 30)), None, "at the first wrong password"),
            (Some((10, 30)), Some((5, 30)), None, "at 5 wrong passwords in 1800 s, but"),
            (Some((10, 30)), Some((10, 60)), None, "which counts: leave it out"),
            (Some((10, 30)), Some((10, 0)), None, "whenever they were, but"),
            (Some((10, 30)), None, Some("cn=own"), "so throttle.directory_lockout is taken for it"),
            (
                None,
                None,
                Some("cn=own"),
                "cn=own says of a lock-out cannot be read, so it is taken",
            ),
            (None, Some((10, 0)), None, "strangers can lock it from day to day"),
            (Some((50, 30)), Some((3, 0)), Some("cn=own"), "cn=own: an account is locked at 3"),
            (None, Some((1, 30)), Some("cn=own"), "cn=own: an account is locked at the first"),
        ] {
            let Finding::Suspect(text) = judged(stated, read, policy) else {
                panic!("{stated:?} {read:?} {policy:?}");
            };
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn what_does_not_is_told_beside_our_limits() {
        for (stated, read, policy, expected) in [
            (
                None,
                Some((10, 30)),
                None,
                "the directory: an account is locked at 10 wrong passwords in 1800 s; here strangers may fail 5 times, with known devices 7, in 1800 s",
            ),
            (
                None,
                Some((0, 0)),
                None,
                "the directory: no account is locked; here strangers may fail 5 times, with known devices 7, in 900 s",
            ),
            (
                Some((4, 30)),
                None,
                None,
                "throttle.directory_lockout: an account is locked at 4 wrong",
            ),
            (
                Some((4, 30)),
                Some((5, 30)),
                None,
                "throttle.directory_lockout: an account is locked at 4",
            ),
            (
                Some((4, 30)),
                Some((0, 0)),
                None,
                "throttle.directory_lockout: an account is locked at 4",
            ),
            (
                Some((50, 30)),
                Some((3, 10)),
                Some("cn=own"),
                "cn=own: an account is locked at 3 wrong passwords in 600 s; here strangers may fail 1 times",
            ),
        ] {
            let Finding::Fine(text) = judged(stated, read, policy) else {
                panic!("{stated:?} {read:?} {policy:?}");
            };
            assert!(text.starts_with(expected), "{text}");
        }
    }
}
