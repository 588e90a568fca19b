//! What a directory can say of a name and a password, in words that hold for every
//! kind of server. The variants say what has been proved: whoever could not prove
//! the password learns nothing about the account. Knows no protocol.

use std::time::Duration;

const SECONDS_PER_DAY: u64 = 86_400;

/// What a directory said of a name and a password. That it says nothing is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Right, perhaps with a warning.
    Accepted(Option<Notice>),
    /// Right, but no password to go on with.
    ChangeRequired(Change),
    /// Right, but the account is closed to its owner.
    Barred(Bar),
    /// Not right, or said of right and wrong ones alike.
    Rejected(Rejection),
}

/// A warning that came with a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The password is expired, and this many more logins are allowed with it.
    GraceLogins(u32),
    /// The password expires in this time.
    Expiring(Duration),
}

/// Why a password that is right must be changed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is too old, and no grace login is left.
    Expired,
    /// It is new or was reset by somebody else.
    AfterReset,
}

/// Why an account is closed to somebody who knows its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// It is disabled.
    Disabled,
    /// It was made for a time that is over.
    AccountExpired,
    /// Not at this hour.
    NotNow,
    /// Not from this workstation: from us, as the directory sees it.
    NotHere,
    /// Its owner must log in with a smart card.
    SmartCardRequired,
    /// The entry names no usable subject; the log says why.
    NoSubject,
    /// It is an emergency account, and disabled.
    EmergencyDisabled,
}

/// Why a login was rejected. The public is told none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No entry has the name.
    NoSuchUser,
    /// The name names a domain that the directory does not serve.
    OtherDomain,
    /// Several entries have the name.
    Ambiguous,
    /// The password is wrong.
    WrongPassword,
    /// The account is locked.
    Locked,
    /// The account is disabled.
    Disabled,
    /// The account has no password that anybody knows: its owner uses a smart card.
    SmartCardRequired,
    /// The entry went away, has no password, is an alias or may not bind.
    Unbindable,
    /// The password of an emergency account is wrong.
    Emergency,
}

impl Outcome {
    /// Whether whoever asked knows the password.
    pub(super) const fn proves_the_password(&self) -> bool {
        match self {
            Self::Accepted(_) | Self::ChangeRequired(_) | Self::Barred(_) => true,
            Self::Rejected(_) => false,
        }
    }
}

impl Notice {
    /// One word or two for the log and the audit record.
    #[must_use]
    pub fn detail(self) -> String {
        match self {
            Self::GraceLogins(left) => format!("grace_logins_left={left}"),
            Self::Expiring(within) => {
                format!("password_expires_in_days={}", within.as_secs().div_ceil(SECONDS_PER_DAY))
            }
        }
    }
}

impl Change {
    /// The label of metrics and audit records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expired => "password_expired",
            Self::AfterReset => "must_change",
        }
    }
}

impl Bar {
    /// The label of metrics and audit records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::AccountExpired => "account_expired",
            Self::NotNow => "not_now",
            Self::NotHere => "not_here",
            Self::SmartCardRequired => "smart_card_required",
            Self::NoSubject => "no_subject",
            Self::EmergencyDisabled => "break_glass_disabled",
        }
    }
}

impl Rejection {
    /// The label of metrics and audit records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoSuchUser => "no_such_user",
            Self::OtherDomain => "other_domain",
            Self::Ambiguous => "ambiguous",
            Self::WrongPassword => "wrong_password",
            Self::Locked => "locked",
            Self::Disabled => "disabled",
            Self::SmartCardRequired => "smart_card_required",
            Self::Unbindable => "unbindable",
            Self::Emergency => "break_glass_wrong_password",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Notice;

    #[test]
    fn a_day_that_has_begun_counts() {
        let day = Duration::from_hours(24);
        for (within, days) in [(day * 3, 3), (day * 2 + Duration::from_secs(1), 3), (day / 2, 1)] {
            assert_eq!(
                Notice::Expiring(within).detail(),
                format!("password_expires_in_days={days}")
            );
        }
        assert_eq!(Notice::GraceLogins(0).detail(), "grace_logins_left=0");
    }
}
