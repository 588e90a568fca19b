//! Tokens that came where others may have read them: in a query, or in clear. What
//! verifies ends its session; what does not ends nobody's.

use crate::gateway::Gateway;
use crate::gateway::exchange::Exchange;
use crate::refusal::Refusal;
use crate::session::{Owner, Reason};
use crate::wire::query;

/// The parameter in which tokens travel where no header can be set (RFC 6750 section 2.3).
pub(super) const ACCESS_TOKEN: &str = "access_token";
/// Tokens of one request that are looked at.
const TOKENS_MAX: usize = 16;

impl Gateway {
    /// Refuses a request whose query holds a token of ours, and ends its session:
    /// queries stand in histories, logs and `Referer`.
    ///
    /// # Errors
    /// `BadRequest` when there is one.
    pub(super) async fn refuse_token_in(
        &self,
        query: Option<&str>,
        exchange: &Exchange,
    ) -> Result<(), Refusal> {
        let Some(query) = query else { return Ok(()) };
        let sessions = &self.services().sessions;
        let ours: Vec<_> = query::values(query, ACCESS_TOKEN)
            .filter(|value| sessions.is_ours(value))
            .take(TOKENS_MAX)
            .collect();
        if ours.is_empty() {
            return Ok(());
        }
        self.end_exposed(exchange, "https", ours.iter().map(|token| token.as_bytes())).await;
        Err(Refusal::BadRequest { reason: "A token must not stand in the query." })
    }

    /// Ends the sessions of those tokens among these that we signed, expired or not.
    pub(super) async fn end_exposed<'t>(
        &self,
        exchange: &Exchange,
        listener: &'static str,
        tokens: impl Iterator<Item = &'t [u8]>,
    ) {
        let services = self.services();
        let mut owners: Vec<Owner> = Vec::new();
        for token in tokens.filter_map(|token| std::str::from_utf8(token).ok()).take(TOKENS_MAX) {
            let owner = services.sessions.owner(token);
            owners.extend(owner.filter(|owner| !owners.contains(owner)));
        }
        let result = if owners.is_empty() { "unverified" } else { "revoked" };
        services.metrics.credentials_exposed(listener, result).inc();
        for Owner { session, subject, role } in &owners {
            let ended = self.end_session(exchange, (*session, subject, role), Reason::Exposed);
            if let Err(refusal) = ended.await {
                // It has ended here; store and audit log get it as soon as they can.
                tracing::error!(%session, cause = refusal.facts().code, "an exposed session's end");
            }
        }
    }
}
