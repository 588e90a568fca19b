//! What a token says: the contract's claims, further ones that the configuration
//! adds for others to read, and their JSON form.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::ambient::{Entropy, EntropyFailed, Timestamp};
use crate::identity::{Reference, Role, SessionId, Subject};
use crate::token::ContextHash;

/// The claims of one token, as far as we read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`.
    pub subject: Subject,
    /// `role`.
    pub role: Role,
    /// `context`: the hash of the cookie that must come along.
    pub context: ContextHash,
    /// `iat`, whole seconds.
    pub issued_at: Timestamp,
    /// `exp`, whole seconds, later than `iat`.
    pub expires_at: Timestamp,
    /// `sid`.
    pub session: SessionId,
    /// `jti`.
    pub id: TokenId,
    /// `reference`: what an access code was given out with; in no other role's token.
    pub reference: Option<Reference>,
}

/// `jti`: which token of its session this is. The login's is generation 1, each
/// successor's one more; the random part tells apart tokens of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenId {
    /// Counts the tokens of a session, from 1.
    pub generation: u32,
    /// 96 random bits.
    pub nonce: [u8; 12],
}

impl TokenId {
    /// A fresh id of a generation.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn fresh(generation: u32, entropy: &Entropy) -> Result<Self, EntropyFailed> {
        Ok(Self { generation, nonce: entropy.bytes()? })
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, nonce) = text.split_once('.')?;
        let generation = number.parse::<u32>().ok().filter(|number| *number > 0)?;
        let nonce = URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
        let id = Self { generation, nonce };
        // One spelling only: no sign, no leading zeros.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, URL_SAFE_NO_PAD.encode(self.nonce))
    }
}

/// The JSON form. A doubled or missing member is an error; what further members say
/// is for others, and changes nothing here.
#[derive(Serialize, Deserialize)]
pub(super) struct Wire {
    sub: String,
    role: String,
    context: String,
    iat: i64,
    exp: i64,
    sid: String,
    jti: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(flatten)]
    further: Further,
}

/// Members besides ours, each name once; their values are written and never read.
#[derive(Serialize)]
#[serde(transparent)]
struct Further(Map<String, Value>);

impl<'de> Deserialize<'de> for Further {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Further;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("members of different names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Further, A::Error> {
                let mut names = HashSet::new();
                while let Some((name, IgnoredAny)) = members.next_entry::<String, IgnoredAny>()? {
                    if !names.insert(name) {
                        return Err(serde::de::Error::custom("a doubled member"));
                    }
                }
                Ok(Further(Map::new()))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl Wire {
    /// What is signed; `further` has none of our own names, as the loader holds.
    pub(super) fn new(claims: &Claims, further: Map<String, Value>) -> Self {
        Self {
            sub: claims.subject.as_str().to_owned(),
            role: claims.role.as_str().to_owned(),
            context: claims.context.to_hex(),
            iat: claims.issued_at.seconds(),
            exp: claims.expires_at.seconds(),
            sid: claims.session.to_string(),
            jti: claims.id.to_string(),
            reference: claims.reference.as_ref().map(|it| it.as_str().to_owned()),
            further: Further(further),
        }
    }

    /// The claims, if every one of them holds what it must.
    pub(super) fn claims(&self) -> Option<Claims> {
        if self.sub.is_empty() || self.role.is_empty() || self.iat < 0 || self.exp <= self.iat {
            return None;
        }
        let role = Role::new(&self.role);
        let reference = match &self.reference {
            Some(text) if role.is_of_access_code() => Some(Reference::parse(text)?),
            _ => None,
        };
        Some(Claims {
            subject: Subject::new(&self.sub),
            role,
            context: ContextHash::parse(&self.context)?,
            issued_at: Timestamp::from_seconds(self.iat),
            expires_at: Timestamp::from_seconds(self.exp),
            session: SessionId::parse(&self.sid)?,
            id: TokenId::parse(&self.jti)?,
            reference,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TokenId;
    use crate::ambient::Entropy;

    #[test]
    fn a_token_id_has_one_spelling() {
        let id = TokenId::fresh(7, &Entropy::seeded(1)).unwrap();
        let text = id.to_string();
        assert_eq!(TokenId::parse(&text), Some(id));
        for other in [
            format!("0{text}"),
            format!("+{text}"),
            text.replace("7.", "0."),
            text.replace("7.", "4294967296."),
            text.replace("7.", ""),
            format!("{text}A"),
        ] {
            assert_eq!(TokenId::parse(&other), None, "{other}");
        }
    }
}
