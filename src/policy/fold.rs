//! How the most careless upstream reads a path segment: without case, and
//! without what follows a `;`. For finding near-misses only; nothing is ever
//! allowed because two texts are alike here.

use std::cmp::Ordering;

/// The careless reading of a segment.
pub(super) fn folded(segment: &str) -> String {
    folded_chars(before_parameters(segment)).collect()
}

/// Compares an already folded name with the careless reading of a segment,
/// without allocating; the order is that of `str`.
pub(super) fn compare(folded: &str, segment: &str) -> Ordering {
    let segment = before_parameters(segment);
    if segment.is_ascii() {
        folded.bytes().cmp(segment.bytes().map(|byte| byte.to_ascii_lowercase()))
    } else {
        folded.chars().cmp(folded_chars(segment))
    }
}

/// Lower, upper and lower again: whichever way an upstream folds, what is alike
/// to it is alike here (`ẞ` and `ß` and `ss`, `ſ` and `s`, the Kelvin sign and `k`).
fn folded_chars(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

fn before_parameters(segment: &str) -> &str {
    segment.split_once(';').map_or(segment, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::proptest;

    use super::{compare, folded};

    #[test]
    fn whatever_some_upstream_takes_for_alike_is_alike() {
        for (one, other) in [
            ("Admin", "aDMIN"),
            ("CAFÉ", "café"),
            ("STRASSE", "straße"),
            ("STRAẞE", "straße"),
            ("u\u{17f}er", "USER"),
            ("\u{212a}ey", "key"),
            ("ΣΟΦΟΣ", "σοφος"),
            ("σοφοσ", "σοφος"),
            ("a;v=1", "A"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        assert_ne!(folded("a"), folded("b"));
    }

    proptest! {
        #[test]
        fn comparing_is_comparing_the_folded(one in "[a-cA-CéÉßſ;]{0,4}", other in "[a-cA-CéÉßſ;]{0,4}") {
            let name = folded(&one);
            assert_eq!(compare(&name, &other), name.cmp(&folded(&other)));
            assert_eq!(compare(&name, &one), Ordering::Equal);
            // Lower and upper case are alike to somebody.
            assert_eq!(folded(&one.to_uppercase()), name);
            assert_eq!(folded(&one.to_lowercase()), name);
        }
    }
}
