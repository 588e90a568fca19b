//! How many wrong guesses of a code a day may take, so that guessing succeeds no more
//! often than the configuration allows. Arithmetic alone; docs/access-codes.md
//! derives it, and what counts the guesses is elsewhere.

use std::fmt;
use std::time::Duration;

/// In which time a budget is spent: any 24 hours, not a calendar day.
pub const GUESS_WINDOW: Duration = Duration::from_hours(24);
/// The longest code that can be told over the telephone.
pub const DIGITS_MAX: u8 = 10;
/// Codes of one length that are left out, as everybody tries them first: ten of equal
/// digits, ten runs up and ten down, 0 after 9.
const TRIVIAL: f64 = 30.0;
/// Each length's part of the bound, by how many digits more than the first it has.
const SHARES: [(u8, f64); 3] = [(0, 0.5), (2, 0.25), (4, 0.25)];
/// More than that no budget takes, as each try is kept until it leaves the window.
const TRIES_MAX: u32 = 50_000;
/// One address may spend one part in so many of a budget.
const ADDRESS_PART: u32 = 10;

/// How often guessing may succeed at most: `"1 in 100 per day"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessBound {
    /// Once in so many days.
    pub one_in: u32,
}

impl SuccessBound {
    fn probability(self) -> f64 {
        f64::from(self.one_in).recip()
    }
}

impl fmt::Display for SuccessBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 in {} per day", self.one_in)
    }
}

/// What codes of one length may take in [`GUESS_WINDOW`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuessBudget {
    /// The length of the codes.
    pub digits: u8,
    /// Wrong tries in all.
    pub tries: u32,
    /// Of these, from one address (IPv6: one /64).
    pub per_address: u32,
}

impl GuessBudget {
    /// The budgets of our own codes, one for each length that they may have, from the
    /// first: half of the bound for that, a quarter for each longer one.
    #[must_use]
    pub fn of_lengths(first: u8, alive_max: u32, bound: SuccessBound) -> Vec<Self> {
        let lengths = SHARES.iter().map(|(more, share)| (first.saturating_add(*more), *share));
        lengths
            .filter(|(digits, _)| *digits <= DIGITS_MAX)
            .map(|(digits, share)| {
                let space = space(digits) - TRIVIAL;
                Self::new(digits, tries(space, alive_max, bound.probability() * share))
            })
            .collect()
    }

    /// The budget of somebody else's codes: of one length, trivial ones among them.
    #[must_use]
    pub fn of_backend(digits: u8, alive_max: u32, bound: SuccessBound) -> Self {
        Self::new(digits, tries(space(digits), alive_max, bound.probability()))
    }

    fn new(digits: u8, tries: u32) -> Self {
        Self { digits, tries, per_address: (tries / ADDRESS_PART).max(1) }
    }
}

impl fmt::Display for GuessBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digits, tries, per_address } = self;
        write!(
            f,
            "{digits} digits: {tries} wrong tries a day in all, {per_address} from one address"
        )
    }
}

/// Wrong tries a day that honest people make when `alive_max` codes are alive all day
/// and one in so many is typed wrongly once.
#[must_use]
pub(super) fn honest_errors(alive_max: u32, lifetime: Duration, typo_share: f64) -> f64 {
    let generations = GUESS_WINDOW.as_secs_f64() / lifetime.as_secs_f64();
    typo_share * f64::from(alive_max) * generations
}

/// How many codes a length has.
fn space(digits: u8) -> f64 {
    10_f64.powi(i32::from(digits))
}

/// The most wrong tries among which one would have been right with at most the
/// probability `bound`, when `alive` of `space` codes are right. The n-th of different
/// guesses is right with alive / (space - n + 1), so that all of them are taken to be
/// as likely as the last.
fn tries(space: f64, alive: u32, bound: f64) -> u32 {
    let miss_all = (-bound).ln_1p();
    let most = |space: f64| {
        let alive = f64::from(alive);
        if space <= alive { 0.0 } else { miss_all / (-alive / space).ln_1p() }
    };
    whole(most(space - most(space)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded down and within the bounds just named"
)]
fn whole(number: f64) -> u32 {
    number.floor().clamp(0.0, f64::from(TRIES_MAX)) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{GuessBudget, SuccessBound, honest_errors, tries};

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn one_in_a_hundred_a_day_is_a_hundred_tries_at_six_digits() {
        let budgets = GuessBudget::of_lengths(6, 50, SuccessBound { one_in: 100 });
        let told: Vec<_> = budgets.iter().map(|it| (it.digits, it.tries, it.per_address)).collect();
        assert_eq!(told, [(6, 100, 10), (8, 5_006, 500), (10, 50_000, 5_000)]);
        assert!((honest_errors(50, HOUR, 0.05) - 60.0).abs() < 1e-9);
    }

    #[test]
    fn no_length_goes_beyond_ten_digits() {
        let lengths = |first| {
            let budgets = GuessBudget::of_lengths(first, 50, SuccessBound { one_in: 100 });
            budgets.iter().map(|it| it.digits).collect::<Vec<_>>()
        };
        assert_eq!(lengths(4), [4, 6, 8]);
        assert_eq!(lengths(7), [7, 9]);
        assert_eq!(lengths(10), [10]);
    }

    /// Different guesses among codes that stay, counted out one by one.
    #[test]
    fn the_budget_keeps_the_bound_and_one_try_in_a_hundred_more_would_not() {
        for (space, alive, bound) in
            [(999_970.0, 50, 0.005), (9_970.0, 50, 0.05), (9_970.0, 160, 0.05), (1e6, 500, 0.01)]
        {
            let hit = |guesses: u32| {
                let missed = (0..guesses)
                    .map(|n| 1.0 - f64::from(alive) / (space - f64::from(n)))
                    .product::<f64>();
                1.0 - missed
            };
            let most = tries(space, alive, bound);
            assert!(hit(most) <= bound, "{most} of {space}: {}", hit(most));
            assert!(hit(most + most / 100 + 1) > bound, "{most} of {space} is too strict");
        }
    }

    #[test]
    fn the_table_of_the_documentation_is_what_is_computed() {
        let page = include_str!("../../docs/access-codes.md");
        for digits in 6..=10 {
            for alive in [10, 50, 200, 1000] {
                let cells = [10, 100, 1000].map(|one_in| {
                    let budgets = GuessBudget::of_lengths(digits, alive, SuccessBound { one_in });
                    let tries = budgets[0].tries;
                    let refused = honest_errors(alive, HOUR, 0.05) >= f64::from(tries);
                    if refused { "–".to_owned() } else { tries.to_string() }
                });
                let row = format!("\n| {digits} | {alive} | {} |\n", cells.join(" | "));
                assert!(page.contains(&row), "{row}");
            }
        }
    }

    #[test]
    fn codes_that_fill_their_space_take_no_guess() {
        assert_eq!(tries(100.0, 100, 0.5), 0);
        assert_eq!(tries(100.0, 99, 0.001), 0);
        assert_eq!(GuessBudget::of_backend(6, 50, SuccessBound { one_in: 100 }).tries, 200);
    }
}
