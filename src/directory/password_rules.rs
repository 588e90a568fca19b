//! What a new password must be like before a directory is asked to take it: its
//! length, the lists of those that everybody tries first, and the person's own
//! names (NIST SP 800-63B-4 section 3.1.1.2). `zxcvbn` is named nowhere else, and gets
//! little at a time: whoever asks may make us judge a password.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zxcvbn::matching::Match;
use zxcvbn::matching::patterns::MatchPattern;
use zxcvbn::{Score, zxcvbn};

use crate::config;
use crate::directory::DirectoryError;
use crate::directory::change::{ChangeError, Objection};
use crate::metrics::Metrics;
use crate::secret::Secret;

/// Shorter names would forbid too much.
const NAME_CHARS_MIN: usize = 3;
/// What must be left of a password without its owner's names, and what is long
/// enough to be no mere repetition.
const REST_CHARS_MIN: usize = 8;
/// No word of the lists is longer. What zxcvbn does grows with the square of this.
const LOOKED_AT_CHARS: usize = 24;
/// The signs that zxcvbn reads as letters. It tries all readings, of which there may be
/// hundreds.
const SIGNS: [(char, &str); 12] = [
    ('a', "4@"),
    ('b', "8"),
    ('c', "({[<"),
    ('e', "3"),
    ('g', "69"),
    ('i', "1!|"),
    ('l', "1|7"),
    ('o', "0"),
    ('s', "$5"),
    ('t', "+7"),
    ('x', "%"),
    ('z', "2"),
];
/// Those that stand for two letters.
const AMBIGUOUS: &str = "1|7";
/// The most readings that it is left to try: more than digits alone have.
const READINGS_MAX: usize = 128;

/// The rules of the configuration, and how many passwords are held against them at a time.
pub(super) struct PasswordRules {
    rules: config::PasswordRules,
    turns: Arc<Semaphore>,
    /// How long one waits for its turn.
    patience: Duration,
    metrics: Metrics,
}

impl PasswordRules {
    pub(super) fn new(
        rules: config::PasswordRules,
        (checks, patience): (usize, Duration),
        metrics: &Metrics,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(checks));
        Self { rules, turns, patience, metrics: metrics.clone() }
    }

    /// Judges a new password by itself and against the names of whose it will be, where
    /// nothing else waits.
    ///
    /// # Errors
    /// What is wrong with it; `Unavailable` when too many others are being judged.
    pub(super) async fn judge<'n>(
        &self,
        new: &Secret<String>,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), ChangeError> {
        let (rules, words) = (self.rules, words(names));
        judge_length(rules, new.expose()).map_err(ChangeError::Objected)?;
        let waiting = Arc::clone(&self.turns).acquire_owned();
        let Ok(Ok(turn)) = timeout(self.patience, waiting).await else {
            self.metrics.limit_hits("password_checks").inc();
            return Err(DirectoryError::Timeout.into());
        };
        let new = new.clone();
        let judging = spawn_blocking(move || {
            let judged = judge(rules, new.expose(), &words);
            drop(turn);
            judged
        });
        let judged = judging.await.map_err(|_| DirectoryError::Protocol("a new password"))?;
        judged.map_err(ChangeError::Objected)
    }
}

fn judge_length(rules: config::PasswordRules, password: &str) -> Result<(), Objection> {
    let length = password.chars().count();
    if length < rules.length_min {
        Err(Objection::TooShort)
    } else if length > rules.length_max {
        Err(Objection::TooLong)
    } else {
        Ok(())
    }
}

/// Judges what is of a proper length.
fn judge(rules: config::PasswordRules, password: &str, words: &[String]) -> Result<(), Objection> {
    if is_weak(password, rules.banned_list, rules.score_min) {
        Err(Objection::Common)
    } else if is_little_but_names(password, words) {
        Err(Objection::Name)
    } else {
        Ok(())
    }
}

/// Whether a password of at least `REST_CHARS_MIN` is one that others try first: the
/// whole of it, or of what it repeats, is one word of the lists (in any case, reversed,
/// or with the usual signs for letters) or one run of neighbours, if it is `listed` that
/// counts; or has less than a score. One that is longer than all words is so when both
/// of its ends are.
fn is_weak(password: &str, listed: bool, score_min: usize) -> bool {
    let password: Vec<char> = password.chars().collect();
    let unit = repeated(&password);
    if listed && unit.len() < REST_CHARS_MIN {
        return true;
    }
    let is_asked = listed || score_min > 0;
    is_asked
        && ends(unit).all(|end| {
            let found = zxcvbn(&readable(end), &[]);
            let is_listed = || matches!(found.sequence(), [only] if is_common_match(only));
            (listed && is_listed()) || score(found.score()) < score_min
        })
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

const fn score(score: Score) -> usize {
    match score {
        Score::Zero => 0,
        Score::One => 1,
        Score::Two => 2,
        Score::Three => 3,
        _ => 4,
    }
}

/// What a password repeats from its beginning to its end: itself, if nothing shorter.
fn repeated(password: &[char]) -> &[char] {
    let length = password.len();
    let repeats = |size: &usize| {
        let (first, _) = password.split_at(*size);
        length.is_multiple_of(*size) && password.chunks(*size).all(|part| part == first)
    };
    let size = (1..=length / 2).find(repeats).unwrap_or(length);
    password.split_at(size).0
}

/// Beginning and end, as far as they are looked at; the whole, where that is all of it.
fn ends(text: &[char]) -> impl Iterator<Item = &[char]> {
    let rest = text.len().saturating_sub(LOOKED_AT_CHARS);
    let (first, last) = (text.split_at(text.len() - rest).0, text.split_at(rest).1);
    [first].into_iter().chain((rest > 0).then_some(last))
}

/// A text as it is, or with letters for its signs where there are too many ways to read
/// them: no word of the lists has so many signs.
fn readable(text: &[char]) -> String {
    if readings(text) <= READINGS_MAX {
        return text.iter().collect();
    }
    let meant = |sign: &char| SIGNS.iter().find(|(_, signs)| signs.contains(*sign));
    text.iter().map(|char| meant(char).map_or(*char, |(letter, _)| *letter)).collect()
}

/// How many ways there are at most to read a text's signs.
fn readings(text: &[char]) -> usize {
    let weight = |sign: char| match (text.contains(&sign), AMBIGUOUS.contains(sign)) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };
    SIGNS.iter().map(|(_, signs)| signs.chars().map(weight).sum::<usize>().max(1)).product()
}

/// Whether a password is hardly more than its owner's names: what is left without
/// them is short, or something that everybody tries.
fn is_little_but_names(password: &str, words: &[String]) -> bool {
    let plain = folded(password);
    // One digit stands for two letters, so both are tried.
    let read = ['i', 'l'].map(|one| letters_for_digits(&plain, one));
    let mut spellings: Vec<String> = [plain].into_iter().chain(read).collect();
    spellings.dedup();
    spellings.iter().any(|password| {
        let mut rest = password.clone();
        for word in words {
            let reversed: String = word.chars().rev().collect();
            rest = rest.replace(word, "").replace(&reversed, "");
        }
        rest.len() < password.len()
            && (rest.chars().count() < REST_CHARS_MIN || is_weak(&rest, true, 0))
    })
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
    use std::time::Duration;

    use futures_util::poll;
    use proptest::prelude::{any, proptest};
    use tokio::time::Instant;

    use super::{
        LOOKED_AT_CHARS, PasswordRules, READINGS_MAX, ends, judge_length, readable, readings,
        repeated, words,
    };
    use crate::config;
    use crate::directory::change::{ChangeError, Objection};
    use crate::directory::{DirectoryError, VerifyError};
    use crate::metrics::Metrics;
    use crate::secret::Secret;

    const NAMES: [&str; 4] = ["alice", "Smith, Alice", "alice.smith@example.org", "Al"];

    fn judge(rules: config::PasswordRules, password: &str) -> Result<(), Objection> {
        judge_length(rules, password)?;
        super::judge(rules, password, &words(NAMES))
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

    #[test]
    fn beyond_the_longest_word_both_ends_are_looked_at() {
        let run: String = ('!'..='~').collect();
        for (password, expected) in [
            (run.as_str(), Err(Objection::Common)),
            ("charadriiformesfamily", Err(Objection::Common)),
            ("ch4r4dr11form3$f4m1ly", Err(Objection::Common)),
            ("verwaltungsgemeinschaft", Err(Objection::Common)),
            (&"quite another ".repeat(4), Ok(())),
            (&"verwaltungsgemeinschaft".repeat(4), Err(Objection::Common)),
            (&format!("{}wolkig bis heiter", "a".repeat(60)), Ok(())),
            (&format!("wolkig bis heiter{}", "a".repeat(60)), Ok(())),
        ] {
            assert_eq!(usual(password), expected, "{password}");
        }
    }

    /// Every sign that stands for a letter.
    const SIGNS_OF_ALL_LETTERS: &str = "4@8({[<369!1|70$5+%2";

    #[test]
    fn a_password_of_signs_is_judged_at_once() {
        let rules = config::PasswordRules { score_min: 1, ..Default::default() };
        let signs = SIGNS_OF_ALL_LETTERS;
        // Not the same again, which would be found to be a repetition.
        let turned = |by| format!("{}{}", &signs[by..], &signs[..by]);
        let long: String = (0..12).map(turned).collect();
        let began = Instant::now();
        for password in [&long, &long[..100], &format!("{signs}th3n4nd1n")] {
            let _ = judge(rules, password);
        }
        // Left to itself, zxcvbn needs seconds for each.
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }

    fn rules(metrics: &Metrics) -> PasswordRules {
        PasswordRules::new(config::PasswordRules::default(), (1, Duration::from_secs(5)), metrics)
    }

    #[tokio::test]
    async fn a_password_is_judged_where_nothing_else_waits() {
        let rules = rules(&Metrics::new().unwrap());
        let new = Secret::new(SIGNS_OF_ALL_LETTERS.repeat(12));
        let mut judging = Box::pin(rules.judge(&new, NAMES));
        assert!(poll!(&mut judging).is_pending(), "it is judged on this thread");
        judging.await.unwrap();
        let short = Secret::new("short".to_owned());
        let judged = rules.judge(&short, NAMES).await;
        assert!(matches!(judged, Err(ChangeError::Objected(Objection::TooShort))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_that_gets_no_turn_in_time_is_not_judged_and_counted() {
        let metrics = Metrics::new().unwrap();
        let rules = rules(&metrics);
        let turn = rules.turns.acquire().await.unwrap();
        let late = rules.judge(&Secret::new("a wholly new secret".to_owned()), NAMES).await;
        let unavailable = VerifyError::Unavailable(DirectoryError::Timeout);
        assert_eq!(late.unwrap_err().to_string(), unavailable.to_string());
        assert_eq!(metrics.limit_hits("password_checks").get(), 1);
        drop(turn);
    }

    proptest! {
        #[test]
        fn what_is_looked_up_is_short_and_has_few_readings(password in ".{0,300}|[!-@\\[{|]{0,60}") {
            let password: Vec<char> = password.chars().collect();
            let unit = repeated(&password);
            assert!(ends(unit).count() <= 2);
            for end in ends(unit) {
                let text: Vec<char> = readable(end).chars().collect();
                assert!(text.len() <= LOOKED_AT_CHARS);
                assert!(readings(&text) <= READINGS_MAX);
            }
        }

        #[test]
        fn no_password_and_no_name_panics(password in any::<String>(), name in any::<String>()) {
            let rules = config::PasswordRules { length_min: 8, score_min: 1, ..Default::default() };
            let _ = super::judge(rules, &password, &words([name.as_str()]));
        }
    }
}
