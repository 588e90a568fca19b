//! A rule of `route.throttle`.

use std::fmt;

use super::Rate;
use super::kind::show_duration;

/// `"5 per 1m per address"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleRule {
    /// How many in which time.
    pub rate: Rate,
    /// Whose requests are counted together.
    pub scope: ThrottleScope,
}

/// Whose requests a rule counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottleScope {
    /// Those of one address (IPv6: one /64).
    Address,
    /// Those of one user, whatever the session; nobody named, nothing counted.
    User,
    /// Everybody's.
    All,
}

impl ThrottleScope {
    /// As it is written behind the rate.
    pub(super) const WORDS: [(&str, Self); 3] =
        [(" per address", Self::Address), (" per user", Self::User), (" in all", Self::All)];
}

impl fmt::Display for ThrottleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = ThrottleScope::WORDS.iter().find(|(_, scope)| *scope == self.scope);
        let scope = words.map_or("", |(words, _)| words);
        write!(f, "{} per {}{scope}", self.rate.count, show_duration(self.rate.window))
    }
}
