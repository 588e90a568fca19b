//! What the loader knows of each key: the JSON Schema and the list of keys are
//! made of it. Filled by the calls that read the keys, so it cannot differ.

use serde_json::{Map, Value as Json, json};

use super::kind::Kind;
use super::reader::{Presence, default_text};

/// One declared key or table.
pub(super) struct Declared {
    /// Its name with all tables around it, such as `server.tls.min_version`.
    pub(super) path: String,
    /// What it does; for an unbuilt key the capability that it asks for.
    pub(super) doc: &'static str,
    pub(super) what: Declaration,
}

/// What stands there.
pub(super) enum Declaration {
    /// A value.
    Key { allowed: String, schema: Json, required: bool, default: Option<Json> },
    /// A secret; its twin names a file instead.
    Secret { twin: &'static str },
    /// A table.
    Section(Presence),
    /// A list of tables.
    Tables,
    /// Known, but not built yet.
    Unbuilt,
}

impl Declaration {
    pub(super) fn key<K: Kind>(kind: &K, required: bool, default: Option<Json>) -> Self {
        Self::Key { allowed: kind.allowed(), schema: kind.schema(), required, default }
    }

    pub(super) const fn secret(twin: &'static str) -> Self {
        Self::Secret { twin }
    }
}

/// One key, as `docs/configuration.md` tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDescription {
    /// Its name with all tables around it, such as `server.tls.min_version`.
    pub path: String,
    /// What may stand there.
    pub allowed: String,
    /// What holds when it is left out, as it would be written.
    pub default: KeyDefault,
    /// What it does; for an unbuilt key the capability that it asks for.
    pub doc: &'static str,
}

/// What holds when a key is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// It must not be left out.
    Required,
    /// Nothing: it is off.
    None,
    /// This value, as TOML writes it.
    Value(String),
    /// It must be left out: what it asks for is not built yet.
    Unbuilt,
}

/// The list of keys, tables left out.
pub(super) fn keys(declared: &[Declared]) -> Vec<KeyDescription> {
    let describe = |declared: &Declared| {
        let (allowed, default) = match &declared.what {
            Declaration::Section(_) | Declaration::Tables => return None,
            Declaration::Unbuilt => (String::new(), KeyDefault::Unbuilt),
            Declaration::Secret { twin } => {
                (format!("text, not empty; or {twin}"), KeyDefault::None)
            }
            Declaration::Key { allowed, required, default, .. } => {
                let default = match default {
                    Some(default) => KeyDefault::Value(default_text(default)),
                    None if *required => KeyDefault::Required,
                    None => KeyDefault::None,
                };
                (allowed.clone(), default)
            }
        };
        Some(KeyDescription { path: declared.path.clone(), allowed, default, doc: declared.doc })
    };
    declared.iter().filter_map(describe).collect()
}

/// The JSON Schema (2020-12) of the whole file.
pub(super) fn schema(declared: &[Declared]) -> Json {
    let mut root = table_schema(declared, "");
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("bindgate configuration");
    root
}

/// The schema of one table; `prefix` is its name with a dot behind it.
fn table_schema(declared: &[Declared], prefix: &str) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut either = Vec::new();
    for entry in declared {
        let Some(name) = entry.path.strip_prefix(prefix).filter(|name| !name.contains('.')) else {
            continue;
        };
        let within = || table_schema(declared, &format!("{}.", entry.path));
        let (mut schema, must) = match &entry.what {
            Declaration::Key { schema, required, default, .. } => {
                let mut schema = schema.clone();
                if let Some(default) = default {
                    schema["default"] = default.clone();
                }
                (schema, *required)
            }
            Declaration::Secret { twin } => {
                // Whether one must be there depends on what else is.
                either.push(json!({"not": {"required": [name, twin]}}));
                (json!({"type": "string", "minLength": 1, "writeOnly": true}), false)
            }
            Declaration::Section(presence) => (within(), *presence == Presence::Required),
            Declaration::Tables => {
                (json!({"type": "array", "minItems": 1, "items": within()}), true)
            }
            Declaration::Unbuilt => (json!({"not": {}}), false),
        };
        let unbuilt = matches!(entry.what, Declaration::Unbuilt);
        let doc = if unbuilt { format!("Not built yet: {}.", entry.doc) } else { entry.doc.into() };
        schema["description"] = json!(doc);
        properties.insert(name.to_owned(), schema);
        if must {
            required.push(name);
        }
    }
    let mut table = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    if !either.is_empty() {
        table["allOf"] = json!(either);
    }
    table
}
