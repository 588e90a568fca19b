//! The end of a session before its time. It holds in memory at once, and is
//! answered when it is in the store.

use std::collections::HashSet;
use std::sync::PoisonError;

use crate::ambient::Timestamp;
use crate::identity::SessionId;
use crate::session::Sessions;
use crate::session::renewal::revoked_until;
use crate::store::{SessionRecord, StoreError};

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
    /// A token of it was sent where everybody could read it.
    Exposed,
    /// Its owner has as many newer ones as anybody may have.
    SessionLimit,
    /// An operator dropped the keys of its tokens.
    KeysDropped,
    /// The directory has no such account any more.
    AccountGone,
    /// The directory's account was disabled.
    AccountDisabled,
    /// The time of the directory's account is over.
    AccountExpired,
    /// The password was set anew since the login.
    PasswordChanged,
    /// Its owner has no role any more.
    RoleLost,
    /// Its owner has another role now.
    RoleChanged,
    /// The directory could not be asked about its owner for too long.
    RecheckOverdue,
    /// The directory is back, so that its emergency account is not needed any more.
    DirectoryBack,
    /// Its emergency account is gone, closed, or has another role or password.
    EmergencyOver,
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
            Self::Exposed => "exposed",
            Self::SessionLimit => "session_limit",
            Self::KeysDropped => "keys_dropped",
            Self::AccountGone => "account_gone",
            Self::AccountDisabled => "account_disabled",
            Self::AccountExpired => "account_expired",
            Self::PasswordChanged => "password_changed",
            Self::RoleLost => "role_lost",
            Self::RoleChanged => "role_changed",
            Self::RecheckOverdue => "recheck_overdue",
            Self::DirectoryBack => "directory_back",
            Self::EmergencyOver => "break_glass_over",
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
        let is_known = self.live.end_of(session).is_some() || self.live.is_revoked(session);
        // Not in use; the record tells when it would end.
        let record = if is_known { None } else { self.store.read(session).await.ok().flatten() };
        let until = match record {
            Some(record) => self.revoke_here_until(session, revoked_until(record.end), reason),
            None => self.revoke_here(session, reason),
        };
        self.write_revocation(session, until, reason).await
    }

    /// Ends a session in memory and leaves word for the store. Says until when the
    /// revocation must be remembered.
    pub(super) fn revoke_here(&self, session: SessionId, reason: Reason) -> Timestamp {
        let until = self.live.revoked_until(session).unwrap_or_else(|| {
            let longest = || self.clock.now().plus(self.lifetimes.load().session);
            revoked_until(self.live.end_of(session).unwrap_or_else(longest))
        });
        self.revoke_here_until(session, until, reason)
    }

    fn revoke_here_until(&self, session: SessionId, until: Timestamp, reason: Reason) -> Timestamp {
        self.live.revoke(session, until);
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        unwritten.entry(session).or_insert((until, reason));
        until
    }

    /// Ends the sessions of these records in one step of the store. Answers with
    /// those that were live until now.
    ///
    /// # Errors
    /// As for [`Sessions::end`].
    pub async fn end_all(
        &self,
        records: Vec<SessionRecord>,
        reason: Reason,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let ended: Vec<_> = records
            .iter()
            .map(|SessionRecord { session, end, .. }| {
                (*session, self.revoke_here_until(*session, revoked_until(*end), reason))
            })
            .collect();
        let were_live = self.store.revoke_all(ended).await?;
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        for record in &records {
            unwritten.remove(&record.session);
        }
        drop(unwritten);
        let count = were_live.len();
        self.metrics.sessions_revoked(reason.label()).inc_by(u64::try_from(count).unwrap_or(0));
        self.metrics.sessions_active().sub(i64::try_from(count).unwrap_or(0));
        let were_live: HashSet<SessionId> = were_live.into_iter().collect();
        Ok(records.into_iter().filter(|record| were_live.contains(&record.session)).collect())
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
