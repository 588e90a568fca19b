//! What a users file has words for: names, hashes of passwords, attributes.

use figment::value::Value;
use serde_json::{Value as Json, json};

use super::directory::is_attribute;
use super::{Fault, Kind, Raw, Text, one_line};
use crate::identity::{Attributes, PasswordHash};

/// A login name: what somebody types, and who he is to the upstream.
pub(in crate::config) const fn user_name() -> Text<String> {
    Text {
        allowed: "a login name of up to 256 bytes, in one line, without outer or doubled spaces",
        pattern: None,
        parse: |text| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let good = text.len() <= 256 && words.join(" ") == text;
            if good { one_line(text) } else { Err(Fault::default()) }
        },
        show: String::clone,
    }
}

/// The hash of a password; problems never repeat it.
pub(in crate::config) const fn password_hash() -> Text<PasswordHash> {
    Text {
        allowed: PasswordHash::ALLOWED,
        pattern: Some("^\\$argon2id\\$v=19\\$"),
        parse: |text| {
            PasswordHash::parse(text).map_err(|why| Fault::default().found(why.to_string()))
        },
        show: |_| String::new(),
    }
}

/// A table of attributes, each a text or a list of texts.
pub(in crate::config) struct AttributeTable;

impl Kind for AttributeTable {
    type Out = Attributes;

    fn allowed(&self) -> String {
        "a table of attributes, each a text or a list of texts, at most 32 and 4 KiB in all"
            .to_owned()
    }

    fn schema(&self) -> Json {
        json!({"type": "object"})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Attributes, Fault> {
        let table = raw.value.as_dict().ok_or_else(Fault::default)?;
        let mut attributes = Attributes::default();
        for (name, value) in table {
            let found = || Fault::default().found(format!("the attribute {name:?}"));
            let is_new = attributes.values(name).is_empty();
            let values = values(value).filter(|_| is_attribute(name) && is_new);
            let kept = attributes.add(name, values.ok_or_else(found)?);
            kept.map_err(|cause| found().found(format!("{name:?}: {cause}")))?;
        }
        Ok(attributes)
    }

    fn show(&self, _: &Attributes) -> Json {
        json!({})
    }
}

fn values(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(_, values) => {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
        }
        value => value.as_str().map(|text| vec![text.to_owned()]),
    }
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format as _, Toml};
    use figment::value::{Dict, Value};

    use super::{AttributeTable, password_hash, user_name};
    use crate::config::kind::{Kind as _, Raw, read};

    #[test]
    fn a_login_name_is_one_that_can_be_typed() {
        for text in ["alice", "Zoë van der Berg", "a@example.org"] {
            assert_eq!(read(&user_name(), text).unwrap(), text);
        }
        for text in ["", " a", "a ", "a  b", "a\tb", "a\n", "a\0", &"x".repeat(257)] {
            assert!(read(&user_name(), text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_problem_with_a_hash_does_not_repeat_it() {
        let fault = read(&password_hash(), "hunter2").unwrap_err();
        assert_eq!(fault.found.unwrap(), "what is no PHC string");
    }

    #[test]
    fn attributes_are_texts_and_bounded() {
        let read = |toml: &str| {
            let value = Value::from(Toml::from_str::<Dict>(toml).unwrap());
            AttributeTable.parse(&Raw { value: &value, from_environment: false })
        };
        let attributes = read("mail = \"a@example.org\"\nteam = [\"red\", \"blue\"]").unwrap();
        assert_eq!(attributes.values("Mail"), ["a@example.org"]);
        assert_eq!(attributes.values("team"), ["red", "blue"]);
        let long = format!("a = \"{}\"", "x".repeat(5000));
        for toml in ["a = 1", "a = [1]", "\"a b\" = \"x\"", "a = \"x\"\nA = \"y\"", &long] {
            assert!(read(toml).is_err(), "{toml:.20}");
        }
    }
}
