//! The known word that a misspelled one was probably meant to be.

/// The nearest of the known words; `None` when none is near.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let ranked = known.iter().map(|candidate| (distance(word, candidate), *candidate));
    let (edits, best) = ranked.min()?;
    // A third of the letters may be wrong, and at least two.
    (edits <= (best.len() / 3).max(2)).then_some(best)
}

/// How many letters must be put in, left out or replaced (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn a_slip_finds_its_word_and_nonsense_finds_none() {
        let known = ["listen", "workers", "public_origin"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("publicorigin", &known), Some("public_origin"));
        assert_eq!(nearest("zzzzzz", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
