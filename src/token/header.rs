//! A token's JOSE header: read strictly when it is to be verified, and leniently
//! when it only decides whether a value is ours and must not be forwarded.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

pub(super) use crate::config::SESSION_TYP as TYP;
use crate::token::change;

/// Longest token looked at, in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Exactly these members, each once: `crit`, `jwk`, `x5u` and kin are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header<'a> {
    #[serde(borrow)]
    pub(super) alg: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kid: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) typ: Cow<'a, str>,
}

/// The decoded header of a token of three parts; `None` for anything else.
pub(super) fn decode(token: &str) -> Option<Vec<u8>> {
    if token.len() > TOKEN_BYTES_MAX || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return None;
    }
    URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()
}

/// Whether a Bearer value claims to be a token of ours that no upstream may see, of a
/// session or for a change of password, valid or not.
/// Such a value is judged here and never forwarded. Errs towards ours: any one
/// `typ` of several counts, in any case, with or without `application/`.
#[must_use]
pub fn is_ours(bearer: &str) -> bool {
    let header = bearer.split('.').next().unwrap_or_default().trim_end_matches('=');
    URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|json| serde_json::from_slice::<ClaimsToBeOurs>(&json).ok())
        .is_some_and(|header| header.0)
}

struct ClaimsToBeOurs(bool);

impl<'de> Deserialize<'de> for ClaimsToBeOurs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = ClaimsToBeOurs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JOSE header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut ours = false;
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    if name == "typ" {
                        let typ = map.next_value::<serde_json::Value>()?;
                        ours |= typ.as_str().is_some_and(names_our_typ);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(ClaimsToBeOurs(ours))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn names_our_typ(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    [TYP, change::TYP].contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::is_ours;

    #[test]
    fn a_bearer_with_our_typ_is_ours_however_broken_the_rest() {
        for (header, ours) in [
            (r#"{"alg":"HS256","kid":"k","typ":"bindgate-session+jwt"}"#, true),
            (r#"{"typ":"bindgate-session+jwt","typ":"JWT"}"#, true),
            (r#"{"typ":"JWT","typ":"Application/Bindgate-Session+JWT"}"#, true),
            (r#"{"typ":"bindgate-session\u002bjwt","alg":"none"}"#, true),
            (r#"{"alg":"HS256","typ":"bindgate-password-change+jwt"}"#, true),
            (r#"{"alg":"HS256","typ":"JWT"}"#, false),
            (r#"{"alg":"HS256","typ":7}"#, false),
            (r#"{"alg":"HS256","nested":{"typ":"bindgate-session+jwt"}}"#, false),
            ("[]", false),
            ("", false),
        ] {
            let encoded = URL_SAFE_NO_PAD.encode(header);
            assert_eq!(is_ours(&format!("{encoded}.e30.x")), ours, "{header}");
            assert_eq!(is_ours(&encoded), ours, "{header} alone");
        }
        assert!(!is_ours("an-opaque-token"));
        assert!(!is_ours(""));
    }
}
