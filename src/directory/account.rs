//! What an entry of Active Directory says of its account, beside what the bind
//! says: `userAccountControl`, `accountExpires`, `pwdLastSet`. Knows no connection.

use std::time::Duration;

use crate::ambient::Timestamp;
use crate::directory::entry::Entry;
use crate::directory::outcome::{Bar, Change, Notice, Outcome, Rejection};

const CONTROL: &str = "userAccountControl";
const ACCOUNT_EXPIRES: &str = "accountExpires";
const PASSWORD_SET: &str = "pwdLastSet";
const PASSWORD_EXPIRES: &str = "msDS-UserPasswordExpiryTimeComputed";
/// What is read of an account with its entry.
pub(super) const ATTRIBUTES: [&str; 4] = [CONTROL, ACCOUNT_EXPIRES, PASSWORD_SET, PASSWORD_EXPIRES];

const DISABLED: i64 = 0x2;
const PASSWORD_NOT_REQUIRED: i64 = 0x20;
const PASSWORD_NEVER_EXPIRES: i64 = 0x1_0000;
const SMART_CARD_REQUIRED: i64 = 0x4_0000;
/// `accountExpires` and others, for "never"; 0 says the same.
const NEVER: i64 = i64::MAX;
const TICKS_PER_SECOND: u64 = 10_000_000;
const TICKS_PER_MILLISECOND: i64 = 10_000;
/// From the beginning of 1601.
const MILLIS_BEFORE_1970: i64 = 11_644_473_600_000;
/// How long before its end a password is warned of.
const WARN_WITHIN: Duration = Duration::from_hours(14 * 24);

/// The state of one account; times as Active Directory counts them, in steps of
/// 100 ns since 1601. What cannot be read is as if it were not said: the bind judges.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    control: i64,
    expires: Option<i64>,
    password_set: Option<i64>,
    password_expires: Option<i64>,
}

impl Account {
    pub(super) fn read(entry: &Entry) -> Self {
        let moment = |name| entry.number(name).filter(|at| !matches!(*at, 0 | NEVER));
        Self {
            control: entry.number(CONTROL).unwrap_or_default(),
            expires: moment(ACCOUNT_EXPIRES),
            password_set: entry.number(PASSWORD_SET),
            password_expires: moment(PASSWORD_EXPIRES),
        }
    }

    /// The outcome of a bind in the light of the entry. `now` is the directory's own
    /// time: our clock is never compared with its.
    pub(super) fn judge(&self, outcome: Outcome, now: Option<i64>) -> Outcome {
        match outcome {
            Outcome::Accepted(notice) => self.judge_accepted(notice, now),
            // A password that nobody knows was set with the flag.
            Outcome::Rejected(Rejection::WrongPassword) if self.has(SMART_CARD_REQUIRED) => {
                Outcome::Rejected(Rejection::SmartCardRequired)
            }
            other => other,
        }
    }

    /// Whether the account may have an empty password; we never try one.
    pub(super) const fn needs_no_password(&self) -> bool {
        self.has(PASSWORD_NOT_REQUIRED)
    }

    fn judge_accepted(&self, notice: Option<Notice>, now: Option<i64>) -> Outcome {
        let is_over = |end: i64| now.is_some_and(|now| end <= now);
        if self.has(DISABLED) {
            return Outcome::Barred(Bar::Disabled);
        }
        if self.expires.is_some_and(is_over) {
            return Outcome::Barred(Bar::AccountExpired);
        }
        if self.has(SMART_CARD_REQUIRED) {
            return Outcome::Barred(Bar::SmartCardRequired);
        }
        if self.password_set == Some(0) && !self.has(PASSWORD_NEVER_EXPIRES) {
            return Outcome::ChangeRequired(Change::AfterReset);
        }
        let left = self.password_expires.zip(now).and_then(|(end, now)| end.checked_sub(now));
        let left = left.and_then(|ticks| u64::try_from(ticks).ok());
        let left = left.map(|ticks| Duration::from_secs(ticks / TICKS_PER_SECOND));
        let warning = left.filter(|left| *left <= WARN_WITHIN).map(Notice::Expiring);
        Outcome::Accepted(notice.or(warning))
    }

    const fn has(&self, flag: i64) -> bool {
        self.control & flag != 0
    }
}

/// The directory's time, from the text of a root DSE's `currentTime`
/// (`20261122051500.0Z`), in steps of 100 ns since 1601.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let digits =
        text.get(..14).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    if !text.ends_with('Z') {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    if year < 1601 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(i64::try_from(TICKS_PER_SECOND).ok()?)
}

/// One of our moments in the same steps.
pub(super) const fn time_of(moment: Timestamp) -> i64 {
    moment.millis().saturating_add(MILLIS_BEFORE_1970).saturating_mul(TICKS_PER_MILLISECOND)
}

/// Days from the beginning of 1601 to the first of a month; the years are counted
/// from March, so that a leap day is the last of its year.
const fn days_before(year: i64, month: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    // 584,694 of these days lie before 1601.
    year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 - 584_694
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Account, parse_time, time_of};
    use crate::ambient::Timestamp;
    use crate::directory::outcome::{Bar, Change, Notice, Outcome, Rejection};

    const NOW: i64 = 134_000_000_000_000_000;
    const DAY: i64 = 864_000_000_000;
    const WRONG: Outcome = Outcome::Rejected(Rejection::WrongPassword);

    #[test]
    fn what_the_entry_says_counts_beside_the_bind() {
        let account = Account { control: 0x200, password_set: Some(1), ..Account::default() };
        let with = |control| Account { control, ..account };
        for (account, outcome) in [
            (account, Outcome::Accepted(None)),
            (with(0x202), Outcome::Barred(Bar::Disabled)),
            (with(0x4_0200), Outcome::Barred(Bar::SmartCardRequired)),
            (Account { expires: Some(NOW), ..account }, Outcome::Barred(Bar::AccountExpired)),
            (Account { expires: Some(NOW + 1), ..account }, Outcome::Accepted(None)),
            (
                Account { password_set: Some(0), ..account },
                Outcome::ChangeRequired(Change::AfterReset),
            ),
            (Account { password_set: Some(0), ..with(0x1_0200) }, Outcome::Accepted(None)),
            (
                Account { password_expires: Some(NOW + 3 * DAY), ..account },
                Outcome::Accepted(Some(Notice::Expiring(Duration::from_hours(72)))),
            ),
            (
                Account { password_expires: Some(NOW + 15 * DAY), ..account },
                Outcome::Accepted(None),
            ),
        ] {
            assert_eq!(account.judge(Outcome::Accepted(None), Some(NOW)), outcome, "{account:?}");
        }
    }

    #[test]
    fn a_wrong_password_stays_wrong_whatever_the_entry_says() {
        for control in [0x200, 0x202] {
            let account = Account { control, expires: Some(1), ..Account::default() };
            assert_eq!(account.judge(WRONG, Some(NOW)), WRONG);
        }
        let account = Account { control: 0x4_0200, ..Account::default() };
        let told = Outcome::Rejected(Rejection::SmartCardRequired);
        assert_eq!(account.judge(WRONG, None), told);
    }

    #[test]
    fn the_directorys_time_is_read() {
        for (text, seconds) in [
            ("16010101000000.0Z", 0),
            ("19700101000000.0Z", 11_644_473_600),
            ("20000301000000Z", 12_596_342_400),
            ("20240229235959.0Z", 13_353_724_799),
            ("20261122051500.0Z", 13_439_798_100),
        ] {
            assert_eq!(parse_time(text), Some(seconds * 10_000_000), "{text}");
            let ours = Timestamp::from_seconds(seconds - 11_644_473_600);
            assert_eq!(time_of(ours), seconds * 10_000_000);
        }
        for text in
            ["", "2026", "20261122051500", "20261322051500.0Z", "2026112205150Z", "ëëëëëëëëZ"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
