//! The code itself: drawn uniformly, as it is typed, and as it is told. Knows nothing
//! of who gave it out.

use crate::ambient::{Entropy, EntropyFailed};
use crate::secret::Secret;

/// The longest text that is read as a code: ten digits and what people put between them.
const TYPED_BYTES_MAX: usize = 32;

/// An access code: digits, leading zeros kept. It does not print.
#[derive(Clone, Debug)]
pub struct Code(Secret<String>);

impl Code {
    /// Draws a code of so many digits, each that is not trivial as likely as any other.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn draw(digits: u8, entropy: &Entropy) -> Result<Self, EntropyFailed> {
        let space = 10_u64.saturating_pow(u32::from(digits));
        loop {
            // Uniform by rejection within `below`, and again here.
            let number = entropy.below(space)?;
            let text = format!("{number:0width$}", width = usize::from(digits));
            if !is_trivial(text.as_bytes()) {
                return Ok(Self(Secret::new(text)));
            }
        }
    }

    /// Reads what somebody typed: digits, with spaces and hyphens between them as they
    /// please; `None` for anything else.
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        if typed.len() > TYPED_BYTES_MAX {
            return None;
        }
        let kept = typed.bytes().filter(|byte| !b" -".contains(byte));
        let digits: Option<String> =
            kept.map(|byte| byte.is_ascii_digit().then_some(char::from(byte))).collect();
        digits.filter(|digits| !digits.is_empty()).map(|digits| Self(Secret::new(digits)))
    }

    /// How many digits it has.
    #[must_use]
    pub fn digits(&self) -> usize {
        self.0.expose().len()
    }

    /// The digits, for whoever it is told to.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The digits in groups, as they are read out.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        let digits = self.expose();
        let length = match digits.len() {
            6 | 9 => 3,
            5 | 10 => 5,
            _ => 4,
        };
        let starts = (0..digits.len()).step_by(length);
        starts.map(|at| &digits[at..(at + length).min(digits.len())]).collect()
    }
}

/// Whether everybody would try it first: equal digits, or a straight run up or down,
/// with 0 after 9. There are thirty of each length, and the budgets count without them.
fn is_trivial(digits: &[u8]) -> bool {
    let steps_by = |step: u8| {
        digits.windows(2).all(|pair| match pair {
            [one, next] => (one - b'0' + step) % 10 == next - b'0',
            _ => true,
        })
    };
    steps_by(0) || steps_by(1) || steps_by(9)
}

#[cfg(test)]
mod tests {
    use super::{Code, is_trivial};
    use crate::ambient::Entropy;

    #[test]
    fn thirty_codes_of_each_length_are_trivial() {
        for digits in [4_usize, 5, 6] {
            let all = 0..10_u32.pow(u32::try_from(digits).unwrap());
            let trivial = all.filter(|number| is_trivial(format!("{number:0digits$}").as_bytes()));
            assert_eq!(trivial.count(), 30, "{digits}");
        }
        for text in ["000000", "123456", "890123", "987654", "210987"] {
            assert!(is_trivial(text.as_bytes()), "{text}");
        }
        for text in ["123759", "000001", "121212", "123457"] {
            assert!(!is_trivial(text.as_bytes()), "{text}");
        }
    }

    /// Pearson's statistic over 100 classes, by the first two and the last two digits; it
    /// lies above 160 once in ten thousand draws of this size, and these are always the same.
    #[test]
    fn codes_are_uniform_and_a_seed_reproduces_them() {
        let draws = 50_000_u32;
        let entropy = Entropy::seeded(20_261_125);
        let mut again = Vec::new();
        let mut classes = [[0_u32; 100]; 2];
        for number in 0..draws {
            let code = Code::draw(6, &entropy).unwrap();
            assert_eq!(code.digits(), 6, "leading zeros are kept");
            for (class, part) in classes.iter_mut().zip([&code.expose()[..2], &code.expose()[4..]])
            {
                class[part.parse::<usize>().unwrap()] += 1;
            }
            if number < 100 {
                again.push(code);
            }
        }
        for class in classes {
            let expected = f64::from(draws) / 100.0;
            let statistic: f64 =
                class.iter().map(|seen| (f64::from(*seen) - expected).powi(2) / expected).sum();
            assert!((50.0..160.0).contains(&statistic), "{statistic}");
        }
        let entropy = Entropy::seeded(20_261_125);
        for code in again {
            assert_eq!(Code::draw(6, &entropy).unwrap().expose(), code.expose());
        }
    }

    #[test]
    fn a_code_is_read_however_it_is_grouped() {
        for typed in ["123759", "123 759", "123-759", " 1 2 3 7 5 9 "] {
            assert_eq!(Code::parse(typed).unwrap().expose(), "123759");
        }
        for typed in ["", " - ", "12375a", "１２３７５９", "+12375", &"1 ".repeat(17)] {
            assert!(Code::parse(typed).is_none(), "{typed:?}");
        }
        let groups = |digits: &str| Code::parse(digits).unwrap().groups().join(" ");
        assert_eq!(groups("012345"), "012 345");
        assert_eq!(groups("01234567"), "0123 4567");
        assert_eq!(groups("0123456789"), "01234 56789");
        assert_eq!(groups("0123456"), "0123 456");
        assert_eq!(format!("{:?}", Code::parse("123759").unwrap()), "Code([secret])");
    }
}
