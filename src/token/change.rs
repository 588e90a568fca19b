//! The token that lets somebody change a password whose login said that it must be
//! changed: of a type and a key of its own, short-lived, and bound to nothing but an
//! account. It proves no session, and a session's token proves nothing here. That it
//! is used once is for the store to hold.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ambient::{Entropy, Timestamp};
use crate::secret::Secret;
use crate::token::TokenError;
use crate::token::header;
use crate::token::ring::LEEWAY;
use crate::token::signer::Signer;

/// The `typ` of these tokens, and of nothing else (RFC 8725 section 3.11).
pub(super) const TYP: &str = "bindgate-password-change+jwt";
const ALGORITHM: &str = "HS256";

/// Whose password may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeTicket {
    /// The directory's own name of the account.
    pub account: String,
    /// The login name that led to it, as it was typed.
    pub name: String,
    /// The token's `exp`.
    pub expires_at: Timestamp,
    id: [u8; 16],
}

impl ChangeTicket {
    /// What the store knows the token by, once it is spent.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        Sha256::digest(self.id).into()
    }
}

/// Why a token does not let anybody change a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeTokenError {
    /// It is not ours, or not of this kind.
    #[error("the token is no token for a change of password")]
    Invalid,
    /// It was, for a while.
    #[error("the token has expired")]
    Expired,
}

/// Issues and checks these tokens.
pub struct ChangeTokens {
    signer: Signer,
    decoding: DecodingKey,
    validation: Validation,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    account: String,
    name: String,
    iat: i64,
    exp: i64,
    jti: String,
}

impl ChangeTokens {
    /// How long a token lives.
    pub const LIFETIME: Duration = Duration::from_mins(10);

    /// With the key that all gateways of one store share.
    #[must_use]
    pub fn new(key: &Secret<[u8; 32]>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are checked against our own clock; all claims are demanded by their type.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Self {
            signer: Signer::hmac(key.expose()),
            decoding: DecodingKey::from_secret(key.expose()),
            validation,
        }
    }

    /// A token for an account and the name that led to it.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn issue(
        &self,
        (account, name): (&str, &str),
        now: Timestamp,
        entropy: &Entropy,
    ) -> Result<Secret<String>, TokenError> {
        let id: [u8; 16] = entropy.bytes().map_err(|_| TokenError::Signing)?;
        let claims = Wire {
            account: account.to_owned(),
            name: name.to_owned(),
            iat: now.seconds(),
            exp: now.plus(Self::LIFETIME).seconds(),
            jti: URL_SAFE_NO_PAD.encode(id),
        };
        let header = Header { alg: ALGORITHM.to_owned(), typ: TYP.to_owned() };
        tracing::debug!("a change token was made");
        self.signer.sign(&header, &claims).map(Secret::new)
    }

    /// Checks everything of a token but that it was not used before.
    ///
    /// # Errors
    /// When it does not hold, or no more.
    pub fn check(&self, token: &str, now: Timestamp) -> Result<ChangeTicket, ChangeTokenError> {
        let invalid = ChangeTokenError::Invalid;
        let header = header::decode(token).ok_or(invalid)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| invalid)?;
        if header.typ != TYP || header.alg != ALGORITHM {
            return Err(invalid);
        }
        let claims = jsonwebtoken::decode::<Wire>(token, &self.decoding, &self.validation)
            .map_err(|_| invalid)?
            .claims;
        let issued_at = Timestamp::from_seconds(claims.iat);
        let expires_at = Timestamp::from_seconds(claims.exp);
        if issued_at > now.plus(LEEWAY) || expires_at <= issued_at {
            return Err(invalid);
        }
        if expires_at <= now {
            return Err(ChangeTokenError::Expired);
        }
        let id = URL_SAFE_NO_PAD.decode(&claims.jti).ok().and_then(|id| id.try_into().ok());
        let Wire { account, name, .. } = claims;
        Ok(ChangeTicket { account, name, expires_at, id: id.ok_or(invalid)? })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::{ChangeTicket, ChangeTokenError, ChangeTokens};
    use crate::ambient::{Entropy, Timestamp};
    use crate::secret::Secret;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn tokens(key: u8) -> ChangeTokens {
        ChangeTokens::new(&Secret::new([key; 32]))
    }

    fn issued() -> String {
        let (account, entropy) = ("uid=alice,dc=example", Entropy::seeded(1));
        tokens(1).issue((account, " Alice"), NOW, &entropy).unwrap().expose().clone()
    }

    fn after(seconds: u64) -> Result<ChangeTicket, ChangeTokenError> {
        tokens(1).check(&issued(), NOW.plus(Duration::from_secs(seconds)))
    }

    #[test]
    fn a_change_token_names_its_account_and_lives_ten_minutes() {
        let ticket = after(599).unwrap();
        assert_eq!(ticket.account, "uid=alice,dc=example");
        assert_eq!(ticket.name, " Alice");
        assert_eq!(ticket.key(), after(0).unwrap().key());
        assert_eq!(after(600), Err(ChangeTokenError::Expired));
        let entropy = Entropy::seeded(2);
        let other = tokens(1).issue(("uid=alice,dc=example", " Alice"), NOW, &entropy).unwrap();
        assert_ne!(tokens(1).check(other.expose(), NOW).unwrap().key(), ticket.key());
    }

    #[test]
    fn what_another_key_signed_or_what_was_altered_is_no_change_token() {
        let token = issued();
        assert_eq!(tokens(2).check(&token, NOW), Err(ChangeTokenError::Invalid));
        let parts: Vec<&str> = token.split('.').collect();
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        let forged = URL_SAFE_NO_PAD.encode(claims.replace("alice", "admin"));
        let header = |json: &str| URL_SAFE_NO_PAD.encode(json);
        for token in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!(
                "{}.{}.",
                header(r#"{"alg":"none","typ":"bindgate-password-change+jwt"}"#),
                parts[1]
            ),
            format!(
                "{}.{}.{}",
                header(r#"{"alg":"HS256","typ":"bindgate-session+jwt"}"#),
                parts[1],
                parts[2]
            ),
            format!("{token}."),
        ] {
            assert_eq!(tokens(1).check(&token, NOW), Err(ChangeTokenError::Invalid), "{token}");
        }
    }

    /// Even of the same key: the type alone keeps them apart.
    #[test]
    fn a_change_token_is_no_session_token_and_a_session_token_none_of_these() {
        use crate::config::TokenAlgorithm;
        use crate::identity::{Role, SessionId, Subject};
        use crate::token::{Claims, ContextCookie, KeyRing, KeySource, TokenError, TokenId};

        let entropy = Entropy::seeded(3);
        let ring = KeyRing::open(&KeySource::Memory, TokenAlgorithm::Hs256, NOW, &entropy).unwrap();
        assert_eq!(ring.check(&issued(), NOW), Err(TokenError::Malformed));
        let claims = Claims {
            subject: Subject::new("alice"),
            role: Role::new("admin"),
            context: ContextCookie::fresh(&entropy).unwrap().hash(),
            issued_at: NOW,
            expires_at: NOW.plus(Duration::from_mins(1)),
            session: SessionId::fresh(&entropy).unwrap(),
            id: TokenId::fresh(1, &entropy).unwrap(),
            reference: None,
        };
        let session = ring.sign(&claims, serde_json::Map::new()).unwrap();
        assert_eq!(tokens(1).check(session.expose(), NOW), Err(ChangeTokenError::Invalid));
        assert!(crate::token::is_ours(&issued()), "it is never forwarded");
    }
}
