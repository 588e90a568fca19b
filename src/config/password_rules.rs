//! `[directory.password_rules]`: what a new password must be like before the
//! directory is asked to take it.

use super::kind::{Boolean, Whole};
use super::reader::Reader;

/// The length that NIST SP 800-63B-4 section 3.1.1.2 demands of a password that is
/// the only factor.
const LENGTH_MIN: usize = 15;
/// The fewest characters that it allows anywhere, and the fewest that it wants to be
/// accepted as the most.
const LENGTH_MIN_BOUNDS: Whole = Whole { min: 8, max: 64 };
/// Active Directory takes no more, and in UTF-8 more would not be credentials.
const LENGTH_MAX: usize = 256;

/// `[directory.password_rules]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordRules {
    /// Fewest characters.
    pub length_min: usize,
    /// Most characters.
    pub length_max: usize,
    /// Whether passwords that everybody tries first are refused.
    pub banned_list: bool,
    /// The least of zxcvbn's scores, 0 to 4; 0 asks for none.
    pub score_min: usize,
}

impl Default for PasswordRules {
    fn default() -> Self {
        Self { length_min: LENGTH_MIN, length_max: LENGTH_MAX, banned_list: true, score_min: 0 }
    }
}

impl PasswordRules {
    /// Reads `[directory.password_rules]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let usual = Self::default();
        let length_min = r.or(
            "length_min",
            LENGTH_MIN_BOUNDS,
            usual.length_min,
            "Fewest characters of a new password.",
        );
        let length_max = r.or(
            "length_max",
            Whole { min: LENGTH_MIN_BOUNDS.max, max: LENGTH_MAX },
            usual.length_max,
            "Most characters of a new password.",
        );
        let banned_list = r.or(
            "banned_list",
            Boolean,
            usual.banned_list,
            "Whether words of zxcvbn's lists, runs and repetitions are refused.",
        );
        let score_min = r.or(
            "score_min",
            Whole { min: 0, max: 4 },
            usual.score_min,
            "The least of zxcvbn's scores (0 to 4) that a new password needs.",
        );
        Self { length_min, length_max, banned_list, score_min }
    }
}
