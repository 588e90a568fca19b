//! What is wrong with a configuration, told to the operator: where, which key,
//! what was found, what is allowed. Never holds a secret's text.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the environment variable, that says it (or fails to).
    pub source: String,
    /// The key, as in `docs/configuration.md`; empty when the file as a whole is meant.
    pub key: String,
    /// Which row of a list of tables is meant, such as `[[route]] no. 2`.
    pub row: Option<String>,
    /// What was found.
    pub found: String,
    /// What would be right.
    pub expected: Expected,
}

/// What would be right instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// What is allowed there.
    Allowed(String),
    /// The key is known, but this version cannot do what it asks for.
    Unbuilt(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(f, "{}", self.key)?;
            if let Some(row) = &self.row {
                write!(f, " in {row}")?;
            }
            f.write_str(": ")?;
        }
        write!(f, "found {}; ", self.found)?;
        match &self.expected {
            Expected::Allowed(what) => write!(f, "allowed: {what}"),
            Expected::Unbuilt(capability) => write!(f, "not built yet: {capability}"),
        }
    }
}

/// Everything that is wrong, in the order of the sections; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub(super) problems: Vec<Problem>,
    /// What was noted besides.
    pub(super) notes: Vec<String>,
}

impl Problems {
    /// The problems one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// What is allowed but risky, as far as it could be judged.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}
