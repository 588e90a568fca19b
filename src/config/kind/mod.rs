//! Kinds of values: what may stand at a key, how it is read, how its default is
//! shown and how the JSON Schema says it. Knows no key.

mod claims;
mod directory;
mod guess;
mod http;
mod measure;
mod net;
mod route;
mod text;
mod users;

pub(super) use claims::{Claims, Members};
pub(super) use directory::{attribute, distinguished_name, filter, role_name};
pub(super) use guess::{Fraction, failure_test, success_bound};
pub(super) use http::{
    HeaderMapKind, cookie_name, deliver, header_name, hsts, method, overriding_header,
    permissions_policy, token_type, upstream_header,
};
pub(super) use measure::{duration, rate, seconds, show_duration, size, throttle_rule};
pub(super) use net::{
    DirectoryUrl, RedisUrl, calling_origin, directory_url, dns_server, host_name, network, origin,
    origin_host, redis_url, socket_address, upstream_url,
};
pub(super) use route::{auth_prefix, login_alias, route_path};
pub(super) use text::{Text, file, label, line, notice, one_line};
pub(super) use users::{AttributeTable, password_hash, user_name};

use figment::value::Value;
use serde_json::{Value as Json, json};

use super::problem::Expected;

/// A value as found, before it is judged.
pub(super) struct Raw<'a> {
    pub(super) value: &'a Value,
    /// The environment knows only text: numbers and lists are read out of it.
    pub(super) from_environment: bool,
}

/// Why a value is refused; what is left out is said by its kind.
#[derive(Debug, Default)]
pub(super) struct Fault {
    pub(super) found: Option<String>,
    pub(super) expected: Option<Expected>,
}

impl Fault {
    /// Refused with a sharper word on what is allowed.
    pub(super) fn allowed(what: impl Into<String>) -> Self {
        Self { found: None, expected: Some(Expected::Allowed(what.into())) }
    }

    /// Known, but not built yet.
    pub(super) const fn unbuilt(capability: &'static str) -> Self {
        Self { found: None, expected: Some(Expected::Unbuilt(capability)) }
    }

    /// The same, with other words on what was found.
    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }
}

/// One kind of value.
pub(super) trait Kind {
    /// What it becomes.
    type Out;
    /// What is allowed, for problems and for the documentation.
    fn allowed(&self) -> String;
    /// The same as JSON Schema.
    fn schema(&self) -> Json;
    /// Reads it.
    fn parse(&self, raw: &Raw<'_>) -> Result<Self::Out, Fault>;
    /// Writes it as the configuration file would.
    fn show(&self, value: &Self::Out) -> Json;
}

/// `true` or `false`.
pub(super) struct Boolean;

impl Kind for Boolean {
    type Out = bool;

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn schema(&self) -> Json {
        json!({"type": "boolean"})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<bool, Fault> {
        match raw.value {
            Value::Bool(_, value) => Ok(*value),
            Value::String(_, text) if raw.from_environment => {
                text.parse().map_err(|_| Fault::default())
            }
            _ => Err(Fault::default()),
        }
    }

    fn show(&self, value: &bool) -> Json {
        json!(value)
    }
}

/// A whole number within bounds, both included.
pub(super) struct Whole {
    pub(super) min: usize,
    pub(super) max: usize,
}

impl Kind for Whole {
    type Out = usize;

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn schema(&self) -> Json {
        json!({"type": "integer", "minimum": self.min, "maximum": self.max})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<usize, Fault> {
        let number = match raw.value {
            Value::String(_, text) if raw.from_environment => text.parse().ok(),
            Value::Num(_, number) if number.to_f64().is_none() => {
                raw.value.to_i128().and_then(|number| usize::try_from(number).ok())
            }
            _ => None,
        };
        let within = number.filter(|number| (self.min..=self.max).contains(number));
        within.ok_or_else(Fault::default)
    }

    fn show(&self, value: &usize) -> Json {
        json!(value)
    }
}

/// One of a few words; some may be known but not built yet.
pub(super) struct Choice<T: 'static> {
    pub(super) built: &'static [(&'static str, T)],
    pub(super) unbuilt: &'static [(&'static str, &'static str)],
}

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Out = T;

    fn allowed(&self) -> String {
        let words: Vec<String> = self.built.iter().map(|(word, _)| format!("{word:?}")).collect();
        words.join(", ")
    }

    fn schema(&self) -> Json {
        json!({"enum": self.built.iter().map(|(word, _)| *word).collect::<Vec<_>>()})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<T, Fault> {
        let found = raw.value.as_str().ok_or_else(Fault::default)?;
        if let Some((_, value)) = self.built.iter().find(|(word, _)| *word == found) {
            return Ok(*value);
        }
        match self.unbuilt.iter().find(|(word, _)| *word == found) {
            Some((_, capability)) => Err(Fault::unbuilt(capability)),
            None => Err(Fault::default()),
        }
    }

    fn show(&self, value: &T) -> Json {
        json!(self.built.iter().find(|(_, known)| known == value).map(|(word, _)| *word))
    }
}

/// A list of one kind; in the environment separated by commas.
pub(super) struct List<K> {
    pub(super) of: K,
    pub(super) min: usize,
}

impl<K: Kind> Kind for List<K> {
    type Out = Vec<K::Out>;

    fn allowed(&self) -> String {
        let several = if self.min == 0 { "a list of" } else { "a list, not empty, of" };
        format!("{several}: {}", self.of.allowed())
    }

    fn schema(&self) -> Json {
        json!({"type": "array", "items": self.of.schema(), "minItems": self.min})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Self::Out, Fault> {
        let split;
        let values = match raw.value {
            Value::Array(_, values) => values,
            Value::String(_, text) if raw.from_environment => {
                split = split_list(text);
                &split
            }
            _ => return Err(Fault::default()),
        };
        if values.len() < self.min {
            return Err(Fault::default().found("an empty list"));
        }
        let item = |value| {
            let raw = Raw { value, from_environment: raw.from_environment };
            self.of.parse(&raw).map_err(|mut fault| {
                fault.found.get_or_insert_with(|| describe(value));
                fault
            })
        };
        values.iter().map(item).collect()
    }

    fn show(&self, value: &Self::Out) -> Json {
        json!(value.iter().map(|item| self.of.show(item)).collect::<Vec<_>>())
    }
}

/// A list as the environment writes it: `a, b`, or as TOML does.
fn split_list(text: &str) -> Vec<Value> {
    if text.trim_start().starts_with('[')
        && let Ok(Value::Array(_, values)) = text.parse::<Value>()
    {
        return values;
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(Value::from).collect()
}

/// A value in the words of a problem.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(_, text) if text.chars().count() > 80 => {
            format!("{:?} and so on", text.chars().take(60).collect::<String>())
        }
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, letter) => format!("{letter:?}"),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(..) => match (value.to_i128(), value.to_num().and_then(|n| n.to_f64())) {
            (_, Some(number)) => number.to_string(),
            (Some(number), _) => number.to_string(),
            _ => "a number".to_owned(),
        },
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(_, values) if values.is_empty() => "an empty list".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}

/// Reads text by a kind; the tests of all kinds do.
#[cfg(test)]
pub(super) fn read<K: Kind>(kind: &K, text: &str) -> Result<K::Out, Fault> {
    kind.parse(&Raw { value: &Value::from(text), from_environment: false })
}

#[cfg(test)]
mod tests {
    use super::{Boolean, Choice, Fault, Kind, List, Raw, Value, Whole, describe, line};

    fn environment<K: Kind>(kind: &K, text: &str) -> Result<K::Out, Fault> {
        kind.parse(&Raw { value: &Value::from(text), from_environment: true })
    }

    #[test]
    fn the_environments_text_becomes_numbers_and_lists() {
        assert_eq!(environment(&Whole { min: 1, max: 9 }, "7").unwrap(), 7);
        assert!(environment(&Whole { min: 1, max: 9 }, "10").is_err());
        assert!(environment(&Boolean, "true").unwrap());
        let list = List { of: line(), min: 1 };
        assert_eq!(environment(&list, "a, b").unwrap(), ["a", "b"]);
        assert_eq!(environment(&list, r#"["a:1", "b"]"#).unwrap(), ["a:1", "b"]);
        assert!(environment(&list, "").is_err());
    }

    #[test]
    fn the_files_text_is_no_number() {
        let number = Whole { min: 1, max: 9 };
        assert!(super::read(&number, "7").is_err());
        assert!(super::read(&Boolean, "true").is_err());
        for (value, good) in [(Value::from(9), true), (Value::from(-1), false)] {
            let raw = Raw { value: &value, from_environment: false };
            assert_eq!(number.parse(&raw).is_ok(), good);
        }
        let raw = Raw { value: &Value::from(1.5), from_environment: false };
        assert!(number.parse(&raw).is_err());
    }

    #[test]
    fn a_choice_tells_unbuilt_from_unknown() {
        let choice = Choice { built: &[("a", 1)], unbuilt: &[("b", "the letter b")] };
        assert_eq!(super::read(&choice, "a").unwrap(), 1);
        assert!(super::read(&choice, "b").unwrap_err().expected.is_some());
        assert!(super::read(&choice, "c").unwrap_err().expected.is_none());
    }

    #[test]
    fn what_was_found_is_said_in_short() {
        assert_eq!(describe(&Value::from("x")), "\"x\"");
        assert_eq!(describe(&Value::from(1.5)), "1.5");
        assert_eq!(describe(&Value::from(12)), "12");
        assert!(describe(&Value::from("x".repeat(500))).len() < 90);
    }
}
