//! What the directory says of somebody besides subject and role, as far as claims
//! ask for it. Bounded, so that no entry makes a session or a token large. Knows no
//! directory.

use serde::{Deserialize, Serialize};

/// Most attributes kept of one person; also the most that templates may name.
pub const ATTRIBUTES_MAX: usize = 32;
/// Most values of one attribute.
const VALUES_MAX: usize = 128;
/// Most bytes of all names and values together: what is signed travels in a header.
const BYTES_MAX: usize = 4 * 1024;

/// Attributes of one person, each with its values in the directory's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes(Vec<(String, Vec<String>)>);

/// An attribute has more values or bytes than are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an attribute has more values or bytes than are kept of one person")]
pub struct AttributeTooLarge;

impl Attributes {
    /// Keeps an attribute; one without values is none.
    ///
    /// # Errors
    /// When it does not fit: then nothing of it is kept, as a part of a list would
    /// read as the whole.
    pub fn add(&mut self, name: &str, values: Vec<String>) -> Result<(), AttributeTooLarge> {
        if values.is_empty() {
            return Ok(());
        }
        let bytes = |name: &str, values: &[String]| {
            name.len() + values.iter().map(String::len).sum::<usize>()
        };
        let kept: usize = self.0.iter().map(|(name, values)| bytes(name, values)).sum();
        if self.0.len() >= ATTRIBUTES_MAX
            || values.len() > VALUES_MAX
            || kept + bytes(name, &values) > BYTES_MAX
        {
            return Err(AttributeTooLarge);
        }
        self.0.push((name.to_owned(), values));
        Ok(())
    }

    /// The values of an attribute, whatever the case of its name; none when it is not kept.
    #[must_use]
    pub fn values(&self, name: &str) -> &[String] {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(&[], |(_, values)| values)
    }

    /// Whether nothing is kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{ATTRIBUTES_MAX, AttributeTooLarge, Attributes, BYTES_MAX, VALUES_MAX};

    #[test]
    fn an_attribute_is_found_in_any_case_and_missing_ones_have_no_values() {
        let mut attributes = Attributes::default();
        attributes.add("mail", vec!["a@example.org".to_owned()]).unwrap();
        attributes.add("cn", Vec::new()).unwrap();
        assert_eq!(attributes.values("MAIL"), ["a@example.org"]);
        assert!(attributes.values("cn").is_empty());
        assert!(attributes.values("sn").is_empty());
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let mut attributes = Attributes::default();
        let many = vec!["x".to_owned(); VALUES_MAX + 1];
        assert_eq!(attributes.add("memberOf", many), Err(AttributeTooLarge));
        assert_eq!(
            attributes.add("jpegPhoto", vec!["x".repeat(BYTES_MAX)]),
            Err(AttributeTooLarge)
        );
        assert!(attributes.is_empty());
        for number in 0..ATTRIBUTES_MAX {
            attributes.add(&format!("a{number}"), vec!["x".to_owned()]).unwrap();
        }
        assert_eq!(attributes.add("one-more", vec!["x".to_owned()]), Err(AttributeTooLarge));
    }
}
