//! What a policy's entry says of a lock-out, in the words of each kind of directory.
//! Knows not where policies are.

use std::time::Duration;

use crate::config::Lockout;
use crate::directory::entry::Entry;

/// Whether 389-ds heeds policies of single accounts at all.
const OWN_POLICIES: &str = "nsslapd-pwpolicy-local";
/// What 389-ds does by a policy that says that it locks, but not when.
const DEFAULT_389: Lockout = Lockout { threshold: 3, window: Duration::from_mins(10) };
/// What a policy says, in the words of each kind.
pub(super) const POLICY: [&str; 12] = [
    "lockoutThreshold",
    "lockOutObservationWindow",
    "msDS-LockoutThreshold",
    "msDS-LockoutObservationWindow",
    "pwdLockout",
    "pwdMaxFailure",
    "pwdFailureCountInterval",
    "passwordLockout",
    "passwordMaxFailure",
    "passwordResetFailureCount",
    OWN_POLICIES,
    // Every policy of ppolicy has it.
    "pwdAttribute",
];
const TICKS_PER_SECOND: u64 = 10_000_000;

/// What the directory says of all accounts.
#[derive(Clone, Copy, Default)]
pub(super) struct General {
    /// What holds for accounts without a policy of their own.
    pub(super) lockout: Option<Lockout>,
    /// Whether policies of single accounts, though there, do not count.
    pub(super) is_for_all: bool,
}

/// What the entry of the policy for all says, if it was to be seen.
pub(super) fn general(policy: Option<Entry>) -> General {
    policy.map_or_else(General::default, |policy| General {
        lockout: lockout(&policy),
        is_for_all: policy.text(OWN_POLICIES).is_some_and(|it| it.eq_ignore_ascii_case("off")),
    })
}

/// What an account's own policy says: where nothing of a lock-out, though it can be seen,
/// there is none.
pub(super) fn own_lockout(policy: &Entry) -> Option<Lockout> {
    lockout(policy).or_else(|| policy.text(POLICY[11]).map(|_| Lockout::NEVER))
}

/// What a policy's entry says; `None` when it says nothing of a lock-out.
pub(super) fn lockout(policy: &Entry) -> Option<Lockout> {
    let whole = |name: &str| policy.number(name).and_then(|number| u32::try_from(number).ok());
    for [threshold, window] in [[POLICY[0], POLICY[1]], [POLICY[2], POLICY[3]]] {
        if let Some(threshold) = whole(threshold) {
            // Intervals are negative, in steps of 100 ns.
            let ticks = policy.number(window).map_or(0, i64::unsigned_abs);
            return Some(Lockout {
                threshold,
                window: Duration::from_secs(ticks / TICKS_PER_SECOND),
            });
        }
    }
    for [locks, threshold, window] in
        [[POLICY[4], POLICY[5], POLICY[6]], [POLICY[7], POLICY[8], POLICY[9]]]
    {
        let said = policy.text(locks);
        let says = |text: &str| said.is_some_and(|it| it.eq_ignore_ascii_case(text));
        let (threshold, window) = (whole(threshold), whole(window));
        // 389-ds, which knows both names of each, says on where others say TRUE.
        let default = if says("on") { DEFAULT_389 } else { Lockout::NEVER };
        if says("false") || says("off") {
            return Some(Lockout::NEVER);
        }
        // Whether it locks may be hidden where the number is not: then it does.
        if said.is_some() || threshold.is_some() {
            return Some(Lockout {
                threshold: threshold.unwrap_or(default.threshold),
                window: window.map_or(default.window, |it| Duration::from_secs(it.into())),
            });
        }
    }
    None
}

/// Both at once: the lower threshold, the longer window.
pub(super) fn stricter(one: Lockout, other: Lockout) -> Lockout {
    match (one.threshold, other.threshold) {
        (0, _) => other,
        (_, 0) => one,
        (a, b) => Lockout {
            threshold: a.min(b),
            window: match (one.window, other.window) {
                (Duration::ZERO, _) | (_, Duration::ZERO) => Duration::ZERO,
                (a, b) => a.max(b),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ldap3::asn1::{PL, StructureTag, TagClass};

    use super::{general, lockout};
    use crate::config::Lockout;
    use crate::directory::entry::Entry;

    fn policy(said: &[(&str, &str)]) -> Entry {
        let tag = |payload| StructureTag { class: TagClass::Universal, id: 4, payload };
        let text = |text: &str| tag(PL::P(text.as_bytes().to_vec()));
        let attribute = |(name, value): &(&str, &str)| {
            tag(PL::C(vec![text(name), tag(PL::C(vec![text(value)]))]))
        };
        let attributes = said.iter().map(attribute).collect();
        Entry::parse(tag(PL::C(vec![text("cn=policy"), tag(PL::C(attributes))]))).unwrap()
    }

    #[test]
    fn a_policy_locks_unless_it_says_that_it_does_not() {
        for (said, expected) in [
            (vec![], None),
            (vec![("cn", "policy")], None),
            (
                vec![("lockoutThreshold", "0"), ("lockOutObservationWindow", "-18000000000")],
                Some((0, 1800)),
            ),
            (
                vec![("lockoutThreshold", "5"), ("lockOutObservationWindow", "-18000000000")],
                Some((5, 1800)),
            ),
            (vec![("msDS-LockoutThreshold", "3")], Some((3, 0))),
            (vec![("pwdLockout", "FALSE"), ("pwdMaxFailure", "3")], Some((0, 0))),
            (vec![("pwdLockout", "TRUE")], Some((0, 0))),
            (vec![("pwdMaxFailure", "3"), ("pwdFailureCountInterval", "60")], Some((3, 60))),
            (vec![("passwordLockout", "off"), ("passwordMaxFailure", "3")], Some((0, 0))),
            (vec![("passwordLockout", "on")], Some((3, 600))),
            (vec![("pwdLockout", "on")], Some((3, 600))),
            (vec![("passwordMaxFailure", "8"), ("passwordResetFailureCount", "0")], Some((8, 0))),
        ] {
            let expected = expected.map(|(threshold, seconds)| Lockout {
                threshold,
                window: Duration::from_secs(seconds),
            });
            assert_eq!(lockout(&policy(&said)), expected, "{said:?}");
        }
    }

    #[test]
    fn own_policies_count_unless_the_server_says_that_they_do_not() {
        for (said, is_for_all) in [(None, false), (Some("on"), false), (Some("OFF"), true)] {
            let said: Vec<_> =
                said.map(|said| ("nsslapd-pwpolicy-local", said)).into_iter().collect();
            assert_eq!(general(Some(policy(&said))).is_for_all, is_for_all, "{said:?}");
        }
        assert!(!general(None).is_for_all);
    }
}
