//! The end of a session before its time. It holds in memory at once, and is
//! answered when it is in the store.

use std::sync::PoisonError;

use crate::ambient::Timestamp;
use crate::identity::SessionId;
use crate::session::Sessions;
use crate::session::renewal::revoked_until;
use crate::store::StoreError;

/// Why a session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its owner logged out.
    Logout,
    /// The same browser logged in anew.
    NewLogin,
    /// A replaced token was used after the grace.
    Stolen,
    /// Its login could not be recorded.
    Unrecorded,
    /// An operator ended it.
    Operator,
}

impl Reason {
    /// The label in metrics and audit records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::NewLogin => "new_login",
            Self::Stolen => "stolen",
            Self::Unrecorded => "unrecorded",
            Self::Operator => "operator",
        }
    }
}

impl Sessions {
    /// Ends a session: here at once, durably before the answer. Only callers that
    /// hold a checked pair of it, or operators, may ask. `false` when it was not
    /// live any more.
    ///
    /// # Errors
    /// When the store cannot answer; the session is ended here all the same, and
    /// the store told as soon as it can be.
    pub async fn end(&self, session: SessionId, reason: Reason) -> Result<bool, StoreError> {
        let until = self.revoke_here(session, reason);
        self.write_revocation(session, until, reason).await
    }

    /// Ends a session in memory and leaves word for the store. Says until when the
    /// revocation must be remembered.
    pub(super) fn revoke_here(&self, session: SessionId, reason: Reason) -> Timestamp {
        let known = self.live.end_of(session).or_else(|| {
            // Not in use; the record tells.
            self.store.read(session).ok().flatten().map(|record| record.end)
        });
        let end = known.unwrap_or_else(|| self.clock.now().plus(self.lifetimes.load().session));
        let until = revoked_until(end);
        self.live.revoke(session, until);
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        unwritten.entry(session).or_insert((until, reason));
        until
    }

    /// Tells the store of a revocation that holds here.
    pub(super) async fn write_revocation(
        &self,
        session: SessionId,
        until: Timestamp,
        reason: Reason,
    ) -> Result<bool, StoreError> {
        let was_live = self.store.revoke(session, until).await?;
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
        if was_live {
            self.metrics.sessions_revoked(reason.label()).inc();
            self.metrics.sessions_active().dec();
        }
        Ok(was_live)
    }
}
