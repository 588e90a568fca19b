//! What an entry says of its account without a bind: disabled, or over. That it is
//! locked for a while because somebody guessed does not end what its owner began.

use crate::ambient::Timestamp;
use crate::directory::account::{self, Account};
use crate::directory::entry::Entry;
use crate::directory::outcome::{Bar, Outcome};

/// 389-ds.
const ACCOUNT_LOCK: &str = "nsAccountLock";
/// OpenLDAP's ppolicy, three.
const LOCKED_SINCE: &str = "pwdAccountLockedTime";
const STARTS: &str = "pwdStartTime";
const ENDS: &str = "pwdEndTime";
/// What is read where the directory is not Active Directory.
pub(super) const ATTRIBUTES: [&str; 4] = [ACCOUNT_LOCK, LOCKED_SINCE, STARTS, ENDS];

/// `pwdAccountLockedTime` of an account that an administrator locked for good.
const FOR_GOOD: &str = "000001010000Z";

/// The state of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It may be used.
    Open,
    /// It is disabled.
    Disabled,
    /// Its time is over, or has not begun.
    Expired,
}

impl State {
    /// Of an entry of Active Directory; `now` is the domain's own time.
    pub(super) fn of_active_directory(entry: &Entry, now: Option<i64>) -> Self {
        match Account::read(entry).judge(Outcome::Accepted(None), now) {
            Outcome::Barred(Bar::Disabled) => Self::Disabled,
            Outcome::Barred(Bar::AccountExpired) => Self::Expired,
            _ => Self::Open,
        }
    }

    /// Of an entry elsewhere; `now` is our time, as these servers tell none.
    pub(super) fn of_entry(entry: &Entry, now: Timestamp) -> Self {
        let is_locked = entry.text(ACCOUNT_LOCK).is_some_and(|it| it.eq_ignore_ascii_case("true"));
        if is_locked || entry.text(LOCKED_SINCE) == Some(FOR_GOOD) {
            return Self::Disabled;
        }
        let moment = |name| entry.text(name).and_then(account::parse_time);
        let now = account::time_of(now);
        let is_over = moment(ENDS).is_some_and(|end| end <= now);
        let is_early = moment(STARTS).is_some_and(|start| start > now);
        if is_over || is_early { Self::Expired } else { Self::Open }
    }
}
