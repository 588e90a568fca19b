//! What a new password must be like before a directory is asked to take it: its
//! length, the lists of those that everybody tries first, and the person's own
//! names (NIST SP 800-63B-4 section 3.1.1.2). `zxcvbn` is named nowhere else.

use zxcvbn::matching::Match;
use zxcvbn::matching::patterns::MatchPattern;
use zxcvbn::{Score, zxcvbn};

use crate::config;
use crate::directory::change::Objection;
use crate::secret::Secret;

/// Shorter names would forbid too much.
const NAME_CHARS_MIN: usize = 3;
/// What must be left of a password without its owner's names, and what is long
/// enough to be no mere repetition.
const REST_CHARS_MIN: usize = 8;

/// The rules of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct PasswordRules(config::PasswordRules);

impl PasswordRules {
    pub(super) const fn new(config: config::PasswordRules) -> Self {
        Self(config)
    }

    /// Judges a new password by itself and against the names of whose it will be.
    pub(super) fn judge<'n>(
        &self,
        new: &Secret<String>,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), Objection> {
        let rules = self.0;
        let password = new.expose().as_str();
        let length = password.chars().count();
        if length < rules.length_min {
            return Err(Objection::TooShort);
        }
        if length > rules.length_max {
            return Err(Objection::TooLong);
        }
        if (rules.banned_list && is_common(password)) || score(password) < rules.score_min {
            return Err(Objection::Common);
        }
        if is_little_but_names(password, &words(names)) {
            return Err(Objection::Name);
        }
        Ok(())
    }
}

/// Whether the whole of a password is one word of the lists (in any case, reversed,
/// or with the usual digits for letters), one run of neighbours, or a repetition.
fn is_common(password: &str) -> bool {
    matches!(zxcvbn(password, &[]).sequence(), [only] if is_common_match(only))
}

fn is_common_match(found: &Match) -> bool {
    match &found.pattern {
        MatchPattern::Dictionary(_) | MatchPattern::Sequence(_) | MatchPattern::Spatial(_) => true,
        MatchPattern::Repeat(repeat) => {
            repeat.base_token.chars().count() < REST_CHARS_MIN
                || matches!(&repeat.base_matches[..], [only] if is_common_match(only))
        }
        _ => false,
    }
}

fn score(password: &str) -> usize {
    match zxcvbn(password, &[]).score() {
        Score::Zero => 0,
        Score::One => 1,
        Score::Two => 2,
        Score::Three => 3,
        _ => 4,
    }
}

/// Whether a password is hardly more than its owner's names: what is left without
/// them is short, or something that everybody tries.
fn is_little_but_names(password: &str, words: &[String]) -> bool {
    let plain = folded(password);
    // One digit stands for two letters, so both are tried.
    [plain.clone(), letters_for_digits(&plain, 'i'), letters_for_digits(&plain, 'l')].iter().any(
        |password| {
            let mut rest = password.clone();
            for word in words {
                let reversed: String = word.chars().rev().collect();
                rest = rest.replace(word, "").replace(&reversed, "");
            }
            let is_little = rest.chars().count() < REST_CHARS_MIN || is_common(&rest);
            rest.len() < password.len() && is_little
        },
    )
}

/// The words of these names, folded, the longest first; of an address only what
/// stands before the @.
fn words<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut words = Vec::new();
    for name in names {
        let name = name.split_once('@').map_or(name, |(local, _)| local);
        words.extend(name.split(|char: char| !char.is_alphanumeric()).map(folded));
        words.push(folded(name));
    }
    words.retain(|word| word.chars().count() >= NAME_CHARS_MIN);
    words.sort_unstable_by_key(|word| std::cmp::Reverse(word.len()));
    words.dedup();
    words
}

/// In lower case, without anything but letters and digits.
fn folded(text: &str) -> String {
    text.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn letters_for_digits(text: &str, one: char) -> String {
    let letter = |char| match char {
        '0' => 'o',
        '1' => one,
        '3' => 'e',
        '4' => 'a',
        '5' => 's',
        '7' => 't',
        '8' => 'b',
        other => other,
    };
    text.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::PasswordRules;
    use crate::config;
    use crate::directory::change::Objection;
    use crate::secret::Secret;

    const NAMES: [&str; 4] = ["alice", "Smith, Alice", "alice.smith@example.org", "Al"];

    fn judge(rules: config::PasswordRules, password: &str) -> Result<(), Objection> {
        PasswordRules::new(rules).judge(&Secret::new(password.to_owned()), NAMES)
    }

    fn usual(password: &str) -> Result<(), Objection> {
        judge(config::PasswordRules::default(), password)
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(usual("fourteen chars"), Err(Objection::TooShort));
        assert_eq!(usual("just fifteen ch"), Ok(()));
        assert_eq!(usual("ëëßçñøåæœŧłþðđ"), Err(Objection::TooShort));
        assert_eq!(usual(&"many words make it long ".repeat(11)), Err(Objection::TooLong));
        let short = config::PasswordRules { length_min: 8, ..config::PasswordRules::default() };
        assert_eq!(judge(short, "gr7kq-wz"), Ok(()));
    }

    #[test]
    fn what_everybody_tries_is_refused_in_every_disguise() {
        let short = config::PasswordRules { length_min: 8, ..config::PasswordRules::default() };
        for password in [
            "password",
            "PassWord",
            "p@ssw0rd",
            "drowssap",
            "12345678",
            "qwertyuiop",
            "aaaaaaaaaaaaaaaa",
            "passwordpassword",
            "abcabcabcabcabcabc",
            "abcdefghijklmnop",
        ] {
            assert_eq!(judge(short, password), Err(Objection::Common), "{password}");
            let off = config::PasswordRules { banned_list: false, ..short };
            assert_eq!(judge(off, password), Ok(()), "{password}");
        }
        for password in ["correct horse battery staple", "a wholly new secret", "tr0ub4dor&3-x"] {
            assert_eq!(judge(short, password), Ok(()), "{password}");
        }
    }

    #[test]
    fn a_score_is_asked_for_only_where_it_is_configured() {
        let weak = "password 1234567";
        let strict = config::PasswordRules { score_min: 4, ..config::PasswordRules::default() };
        assert_eq!(usual(weak), Ok(()));
        assert_eq!(judge(strict, weak), Err(Objection::Common));
        assert_eq!(judge(strict, "vextri gompal quoshi dunlek"), Ok(()));
    }

    #[test]
    fn a_password_is_more_than_its_owners_names() {
        for password in [
            "alice alice alice",
            "AliceSmith2026!",
            "4l1c3.sm1th.2026",
            "htimsecila00000",
            "alice-1234567890",
            "smith passwordpassword",
        ] {
            assert_eq!(usual(password), Err(Objection::Name), "{password}");
        }
        for password in ["alice in a far wonderland", "blacksmiths forge iron"] {
            assert_eq!(usual(password), Ok(()), "{password}");
        }
    }

    proptest! {
        #[test]
        fn no_password_and_no_name_panics(password in any::<String>(), name in any::<String>()) {
            let rules = config::PasswordRules { length_min: 8, score_min: 1, ..Default::default() };
            let _ = PasswordRules::new(rules).judge(&Secret::new(password), [name.as_str()]);
        }
    }
}
