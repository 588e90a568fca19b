//! Values about guessing: a bound, a share, and what tells a wrong code.

use serde_json::{Value as Json, json};

use super::{Fault, Kind, Raw, Text, Value};
use crate::config::guess_guard::{parse_bound, parse_failure_test};
use crate::config::{FailureTest, SuccessBound};

/// How often guessing may succeed.
pub(in crate::config) const fn success_bound() -> Text<SuccessBound> {
    Text {
        allowed: "a bound such as \"1 in 100 per day\", from 2 to 1000000000",
        pattern: Some("^1 in [1-9][0-9]* per day$"),
        parse: |text| parse_bound(text).ok_or_else(Fault::default),
        show: SuccessBound::to_string,
    }
}

/// What stands in the JSON of an answer.
pub(in crate::config) const fn failure_test() -> Text<FailureTest> {
    Text {
        allowed: "a JSON Pointer, \" = \" and the JSON value that stands there: \"/valid = false\"",
        pattern: Some("^/.* = .+$"),
        parse: |text| parse_failure_test(text).ok_or_else(Fault::default),
        show: |test| format!("{} = {}", test.pointer, test.value),
    }
}

/// A part of a whole: a number from 0 to 1.
pub(in crate::config) struct Fraction;

impl Kind for Fraction {
    type Out = f64;

    fn allowed(&self) -> String {
        "a number from 0 to 1".to_owned()
    }

    fn schema(&self) -> Json {
        json!({"type": "number", "minimum": 0, "maximum": 1})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<f64, Fault> {
        let number = match raw.value {
            Value::String(_, text) if raw.from_environment => text.parse().ok(),
            Value::Num(_, number) => number.to_f64().or_else(|| whole(raw.value.to_i128())),
            _ => None,
        };
        number.filter(|number| (0.0..=1.0).contains(number)).ok_or_else(Fault::default)
    }

    fn show(&self, value: &f64) -> Json {
        json!(value)
    }
}

fn whole(number: Option<i128>) -> Option<f64> {
    number.and_then(|number| u8::try_from(number).ok()).map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::{Fraction, Kind, Raw, Value};

    #[test]
    fn a_fraction_is_a_number_from_0_to_1() {
        let read =
            |value: Value| Fraction.parse(&Raw { value: &value, from_environment: false }).ok();
        assert_eq!(read(Value::from(0.05)), Some(0.05));
        assert_eq!(read(Value::from(0_i64)), Some(0.0));
        assert_eq!(read(Value::from(1_i64)), Some(1.0));
        assert_eq!(read(Value::from(1.5)), None);
        assert_eq!(read(Value::from(-0.1)), None);
        assert_eq!(read(Value::from("0.05")), None);
    }
}
