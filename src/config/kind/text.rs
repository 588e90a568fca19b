//! What is written as text, and the plainest kinds of it.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::{Fault, Kind, Raw};

/// What is written as text.
pub(in crate::config) struct Text<T> {
    pub(in crate::config) allowed: &'static str,
    pub(in crate::config) pattern: Option<&'static str>,
    pub(in crate::config) parse: fn(&str) -> Result<T, Fault>,
    pub(in crate::config) show: fn(&T) -> String,
}

impl<T> Kind for Text<T> {
    type Out = T;

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }

    fn schema(&self) -> Json {
        let mut schema = json!({"type": "string"});
        if let Some(pattern) = self.pattern {
            schema["pattern"] = json!(pattern);
        }
        schema
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<T, Fault> {
        let text = raw.value.as_str().ok_or_else(Fault::default)?;
        (self.parse)(text)
    }

    fn show(&self, value: &T) -> Json {
        json!((self.show)(value))
    }
}

/// Text of one line, not empty.
pub(in crate::config) const fn line() -> Text<String> {
    Text {
        allowed: "text of one line, not empty",
        pattern: None,
        parse: one_line,
        show: String::clone,
    }
}

/// Text of one line, perhaps empty.
pub(in crate::config) const fn notice() -> Text<String> {
    Text {
        allowed: "text of one line; \"\" for none",
        pattern: None,
        parse: |text| if text.is_empty() { Ok(String::new()) } else { one_line(text) },
        show: String::clone,
    }
}

/// A short name for labels: letters, digits, `-`, `_`, `.`, `/` and the like.
pub(in crate::config) const fn label() -> Text<String> {
    Text {
        allowed: "a name of 1 to 64 letters, digits, \"-\", \"_\" and \".\"",
        pattern: Some("^[A-Za-z0-9._-]{1,64}$"),
        parse: |text| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let good = (1..=64).contains(&text.len()) && text.bytes().all(fits);
            if good { Ok(text.to_owned()) } else { Err(Fault::default()) }
        },
        show: String::clone,
    }
}

/// A path in the file system, as written.
pub(in crate::config) const fn file() -> Text<PathBuf> {
    Text {
        allowed: "a path, from the folder of the configuration file",
        pattern: None,
        parse: |text| one_line(text).map(Into::into),
        show: |path| path.display().to_string(),
    }
}

pub(in crate::config) fn one_line(text: &str) -> Result<String, Fault> {
    let good = !text.trim().is_empty() && !text.chars().any(char::is_control);
    if good { Ok(text.to_owned()) } else { Err(Fault::default()) }
}
