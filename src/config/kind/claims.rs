//! Tables of JSON values: literal ones, and claims, in whose texts something is
//! filled in.

use figment::value::Value;
use serde_json::{Map, Value as Json, json};

use super::{Fault, Kind, Raw};
use crate::identity::ClaimTemplates;

/// A table of claims.
pub(in crate::config) struct Claims {
    /// Those that only the gateway sets.
    pub(in crate::config) reserved: &'static [&'static str],
}

impl Kind for Claims {
    type Out = ClaimTemplates;

    fn allowed(&self) -> String {
        let reserved = self.reserved.join(", ");
        format!(
            "a table of values; texts may hold {{sub}}, {{role}}, {{sid}} and {{attr:NAME}}; not \
             {reserved}"
        )
    }

    fn schema(&self) -> Json {
        json!({"type": "object", "propertyNames": {"not": {"enum": self.reserved}}})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<ClaimTemplates, Fault> {
        ClaimTemplates::parse(&table(raw)?, self.reserved)
            .map_err(|error| Fault::default().found(error.to_string()))
    }

    /// Shown for the default alone, which is none.
    fn show(&self, _: &ClaimTemplates) -> Json {
        json!({})
    }
}

/// A table of members of an answer.
pub(in crate::config) struct Members {
    /// Those that only the gateway sets.
    pub(in crate::config) reserved: &'static [&'static str],
}

impl Kind for Members {
    type Out = Map<String, Json>;

    fn allowed(&self) -> String {
        format!("a table of values; not {}", self.reserved.join(", "))
    }

    fn schema(&self) -> Json {
        json!({"type": "object", "propertyNames": {"not": {"enum": self.reserved}}})
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Self::Out, Fault> {
        let members = table(raw)?;
        match members.keys().find(|name| self.reserved.contains(&name.as_str())) {
            Some(name) => Err(Fault::default().found(format!("{name:?}"))),
            None => Ok(members),
        }
    }

    fn show(&self, value: &Self::Out) -> Json {
        json!(value)
    }
}

fn table(raw: &Raw<'_>) -> Result<Map<String, Json>, Fault> {
    let parsed;
    let value = match raw.value {
        Value::String(_, text) if raw.from_environment => {
            let Ok(value) = text.parse::<Value>();
            parsed = value;
            &parsed
        }
        value => value,
    };
    match as_json(value) {
        Some(Json::Object(members)) => Ok(members),
        _ => Err(Fault::default()),
    }
}

/// `None` for a number that JSON does not have.
fn as_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::String(_, text) => text.as_str().into(),
        Value::Char(_, letter) => letter.to_string().into(),
        Value::Bool(_, value) => (*value).into(),
        Value::Num(_, number) => match number.to_f64() {
            Some(number) => serde_json::Number::from_f64(number)?.into(),
            None => i64::try_from(value.to_i128()?).ok()?.into(),
        },
        Value::Empty(..) => return None,
        Value::Dict(_, members) => {
            let members = members.iter().map(|(name, value)| Some((name.clone(), as_json(value)?)));
            Json::Object(members.collect::<Option<Map<_, _>>>()?)
        }
        Value::Array(_, items) => Json::Array(items.iter().map(as_json).collect::<Option<_>>()?),
    })
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format as _, Toml};
    use figment::value::{Dict, Value};
    use serde_json::json;

    use super::{Claims, Members, as_json};
    use crate::config::kind::{Kind as _, Raw};

    #[test]
    fn toml_becomes_the_same_json() {
        let toml = "a = [1, -2, 1.5, true, \"x\"]\n[b]\n\"https://c\" = { d = [[]] }\n";
        let value = Value::from(Toml::from_str::<Dict>(toml).unwrap());
        assert_eq!(
            as_json(&value).unwrap(),
            json!({"a": [1, -2, 1.5, true, "x"], "b": {"https://c": {"d": [[]]}}})
        );
        let value = Value::from(Toml::from_str::<Dict>("a = nan").unwrap());
        assert_eq!(as_json(&value), None);
    }

    #[test]
    fn members_are_literal_and_leave_the_fixed_ones_alone() {
        let read = |toml: &str| {
            let value = Value::from(Toml::from_str::<Dict>(toml).unwrap());
            let raw = Raw { value: &value, from_environment: false };
            Members { reserved: &["id"] }.parse(&raw).map_err(|fault| fault.found)
        };
        assert_eq!(read("key = \"{sub}\"").unwrap()["key"], json!("{sub}"));
        assert_eq!(read("id = 1").unwrap_err().unwrap(), "\"id\"");
        let text = Value::from("{key=\"k\"}");
        let raw = Raw { value: &text, from_environment: true };
        let members = Members { reserved: &[] }.parse(&raw).unwrap();
        assert_eq!(members["key"], json!("k"), "from the environment too");
    }

    #[test]
    fn fixed_claims_and_unknown_placeholders_are_refused() {
        let read = |toml: &str| {
            let value = Value::from(Toml::from_str::<Dict>(toml).unwrap());
            let raw = Raw { value: &value, from_environment: false };
            Claims { reserved: &["exp"] }.parse(&raw).map(drop).map_err(|fault| fault.found)
        };
        assert!(read("roles = [\"{role}\"]").is_ok());
        assert!(read("exp = 1").unwrap_err().unwrap().contains("exp"));
        assert!(read("a = \"{user}\"").unwrap_err().unwrap().contains("{user}"));
    }
}
