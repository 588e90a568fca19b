//! Claims from configuration: JSON values whose texts may hold `{sub}`, `{role}`,
//! `{sid}` and `{attr:NAME}`, filled in for one session. Knows no token.

use serde_json::{Map, Value};

use crate::identity::{Attributes, Role, SessionId, Subject};

/// Attributes that never leave the directory, whoever asks for them.
const SECRET_ATTRIBUTES: [&str; 7] = [
    "userpassword",
    "2.5.4.35",
    "unicodepwd",
    "1.2.840.113556.1.4.90",
    "authpassword",
    "sambantpassword",
    "krbprincipalkey",
];

/// Further claims, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimTemplates(Vec<(String, Template)>);

/// One value, its placeholders found.
#[derive(Clone, Debug, PartialEq)]
enum Template {
    /// Nothing in it is filled in.
    Literal(Value),
    Text(Vec<Piece>),
    List(Vec<Template>),
    Object(Vec<(String, Template)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Subject,
    Role,
    Session,
    Attribute(String),
}

/// What placeholders are filled in with.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// `{sub}`
    pub subject: &'f Subject,
    /// `{role}`
    pub role: &'f Role,
    /// `{sid}`
    pub session: SessionId,
    /// `{attr:NAME}`
    pub attributes: &'f Attributes,
}

/// Why a template is none; a phrase for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` or `}` that belong to no placeholder.
    #[error("{0:?}: {{ and }} stand around sub, role, sid or attr:NAME; doubled they are literal")]
    Placeholder(String),
    /// A name that no attribute has, or one that holds secrets.
    #[error("{0:?}: no attribute that may be told")]
    Attribute(String),
    /// A claim that only the gateway sets.
    #[error("{0:?}: a claim that the gateway sets itself")]
    Reserved(String),
}

impl ClaimTemplates {
    /// Reads the claims; none of them may be one of `reserved`.
    ///
    /// # Errors
    /// The first claim that cannot stand.
    pub fn parse(claims: &Map<String, Value>, reserved: &[&str]) -> Result<Self, TemplateError> {
        let parse = |(name, value): (&String, &Value)| {
            if reserved.contains(&name.as_str()) {
                return Err(TemplateError::Reserved(name.clone()));
            }
            Ok((name.clone(), Template::parse(value)?))
        };
        claims.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The attributes that they ask for, as often as they do.
    #[must_use]
    pub fn attributes(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.0.iter().for_each(|(_, template)| template.collect_attributes(&mut names));
        names
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The claims of one session. One that consists of an attribute alone is left
    /// out when the person does not have it, a text when it has one value, a list
    /// when it has several; in a list each value becomes an element. Within other
    /// text the first value stands, or nothing.
    #[must_use]
    pub fn fill(&self, facts: &Facts<'_>) -> Map<String, Value> {
        fill_members(&self.0, facts)
    }
}

impl Template {
    fn parse(value: &Value) -> Result<Self, TemplateError> {
        match value {
            Value::String(text) => Ok(Self::Text(pieces(text)?)),
            Value::Array(items) => {
                items.iter().map(Self::parse).collect::<Result<_, _>>().map(Self::List)
            }
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| Ok((name.clone(), Self::parse(value)?)))
                .collect::<Result<_, _>>()
                .map(Self::Object),
            literal => Ok(Self::Literal(literal.clone())),
        }
    }

    fn collect_attributes<'t>(&'t self, names: &mut Vec<&'t str>) {
        match self {
            Self::Literal(_) => {}
            Self::Text(pieces) => names.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Attribute(name) => Some(name.as_str()),
                _ => None,
            })),
            Self::List(items) => items.iter().for_each(|item| item.collect_attributes(names)),
            Self::Object(members) => {
                for (_, member) in members {
                    member.collect_attributes(names);
                }
            }
        }
    }

    /// The attribute that is all there is.
    fn as_attribute(&self) -> Option<&str> {
        match self {
            Self::Text(pieces) => match pieces.as_slice() {
                [Piece::Attribute(name)] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// `None` when it is an attribute that the person does not have.
    fn fill(&self, facts: &Facts<'_>) -> Option<Value> {
        if let Some(name) = self.as_attribute() {
            return match facts.attributes.values(name) {
                [] => None,
                [value] => Some(value.as_str().into()),
                values => Some(values.into()),
            };
        }
        Some(match self {
            Self::Literal(value) => value.clone(),
            Self::Text(pieces) => {
                Value::String(pieces.iter().map(|piece| piece.fill(facts)).collect())
            }
            Self::List(items) => Value::Array(fill_items(items, facts)),
            Self::Object(members) => Value::Object(fill_members(members, facts)),
        })
    }
}

fn fill_members(members: &[(String, Template)], facts: &Facts<'_>) -> Map<String, Value> {
    members.iter().filter_map(|(name, value)| Some((name.clone(), value.fill(facts)?))).collect()
}

fn fill_items(items: &[Template], facts: &Facts<'_>) -> Vec<Value> {
    let fill = |item: &Template| match item.as_attribute() {
        Some(name) => {
            facts.attributes.values(name).iter().map(|value| value.as_str().into()).collect()
        }
        None => Vec::from_iter(item.fill(facts)),
    };
    items.iter().flat_map(fill).collect()
}

impl Piece {
    fn parse(placeholder: &str) -> Result<Self, TemplateError> {
        match placeholder {
            "sub" => Ok(Self::Subject),
            "role" => Ok(Self::Role),
            "sid" => Ok(Self::Session),
            other => {
                let name = other.strip_prefix("attr:");
                let name =
                    name.ok_or_else(|| TemplateError::Placeholder(format!("{{{other}}}")))?;
                if name.len() <= 128 && is_told(name) {
                    Ok(Self::Attribute(name.to_owned()))
                } else {
                    Err(TemplateError::Attribute(name.to_owned()))
                }
            }
        }
    }

    fn fill<'f>(&'f self, facts: &Facts<'f>) -> std::borrow::Cow<'f, str> {
        match self {
            Self::Literal(text) => text.as_str().into(),
            Self::Subject => facts.subject.as_str().into(),
            Self::Role => facts.role.as_str().into(),
            Self::Session => facts.session.to_string().into(),
            Self::Attribute(name) => {
                facts.attributes.values(name).first().map(String::as_str).unwrap_or_default().into()
            }
        }
    }
}

/// Whether it is the name or number of an attribute, perhaps with options (RFC 4512
/// section 2.5), and of none that holds secrets.
fn is_told(name: &str) -> bool {
    let mut parts = name.split(';');
    let kind = parts.next().unwrap_or_default();
    let word = |text: &str| {
        let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        letters && !text.is_empty()
    };
    let arc = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits && (text == "0" || !text.starts_with('0'))
    };
    let is_name = kind.starts_with(|first: char| first.is_ascii_alphabetic()) && word(kind);
    let is_number = kind.contains('.') && kind.split('.').all(arc);
    let is_secret = SECRET_ATTRIBUTES.contains(&kind.to_ascii_lowercase().as_str());
    (is_name || is_number) && parts.all(word) && !is_secret
}

/// Splits a text at its placeholders.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let wrong = || TemplateError::Placeholder(text.to_owned());
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let from = &rest[at..];
        if from.starts_with("{{") || from.starts_with("}}") {
            literal.push_str(&from[..1]);
            rest = &from[2..];
            continue;
        }
        let (placeholder, behind) =
            from.strip_prefix('{').and_then(|from| from.split_once('}')).ok_or_else(wrong)?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::parse(placeholder)?);
        rest = behind;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ClaimTemplates, Facts, TemplateError};
    use crate::identity::{Attributes, Role, SessionId, Subject};

    fn templates(claims: &Value) -> Result<ClaimTemplates, TemplateError> {
        ClaimTemplates::parse(claims.as_object().unwrap(), &["sub", "exp"])
    }

    fn filled(claims: &Value) -> Value {
        let mut attributes = Attributes::default();
        attributes.add("mail", vec!["a@example.org".to_owned()]).unwrap();
        attributes.add("team", vec!["red".to_owned(), "blue".to_owned()]).unwrap();
        let facts = Facts {
            subject: &Subject::new("alice \"the\" {role}"),
            role: &Role::new("admin"),
            session: SessionId::from_bytes([0; 16]),
            attributes: &attributes,
        };
        Value::Object(templates(claims).unwrap().fill(&facts))
    }

    #[test]
    fn placeholders_are_filled_in_wherever_a_text_stands() {
        assert_eq!(
            filled(&json!({
                "https://example.org/roles": ["{role}"],
                "who": {"name": "{sub}", "at": ["{sid}", 7, true, 1.5]},
                "url": "https://example.org/{role}/{attr:mail}?{{x}}",
                "plain": "",
            })),
            json!({
                "https://example.org/roles": ["admin"],
                "who": {"name": "alice \"the\" {role}", "at": ["AAAAAAAAAAAAAAAAAAAAAA", 7, true, 1.5]},
                "url": "https://example.org/admin/a@example.org?{x}",
                "plain": "",
            })
        );
    }

    #[test]
    fn an_attribute_alone_is_a_text_a_list_or_left_out() {
        assert_eq!(
            filled(&json!({
                "one": "{attr:Mail}", "several": "{attr:team}", "none": "{attr:sn}",
                "list": ["{attr:team}", "{attr:mail}", "{attr:sn}"],
                "in_text": "{attr:team}/{attr:sn}",
                "object": {"none": "{attr:sn}"},
            })),
            json!({
                "one": "a@example.org", "several": ["red", "blue"],
                "list": ["red", "blue", "a@example.org"],
                "in_text": "red/",
                "object": {},
            })
        );
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        for text in ["{user}", "{", "}", "a{sub", "sub}", "{}", "{ sub }", "{{role}", "{attr}"] {
            let refused = templates(&json!({ "a": [text] }));
            assert!(matches!(refused, Err(TemplateError::Placeholder(_))), "{text}");
        }
        for name in [
            "",
            "a b",
            "userPassword",
            "USERPASSWORD;lang-en",
            "2.5.4.35",
            "(x",
            "-a",
            "a*",
            "1x",
            "a.b",
            "2.05.4",
            "cn;",
            ";lang-en",
        ] {
            let refused = templates(&json!({ "a": {"b": format!("{{attr:{name}}}")} }));
            assert!(matches!(refused, Err(TemplateError::Attribute(_))), "{name}");
        }
        for name in ["mail", "cn;lang-en", "2.5.4.3", "x-y"] {
            assert!(templates(&json!({ "a": format!("{{attr:{name}}}") })).is_ok(), "{name}");
        }
        assert!(matches!(templates(&json!({"exp": 1})), Err(TemplateError::Reserved(_))));
        assert!(templates(&json!({"a": {"exp": 1}})).is_ok(), "only the claims themselves");
    }

    #[test]
    fn the_attributes_asked_for_are_known() {
        let claims = json!({"a": "{attr:mail}", "b": ["x{attr:sn}"], "c": {"d": "{attr:cn}{sub}"}});
        assert_eq!(templates(&claims).unwrap().attributes(), ["mail", "sn", "cn"]);
    }
}
