//! Sessions as operators and limits see them: which there are, and whose.

use crate::ambient::Timestamp;
use crate::identity::{Role, SessionId, Subject};
use crate::session::upkeep::IDLE_MARGIN;
use crate::session::{Reason, Sessions};
use crate::store::{SessionRecord, StoreError};

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The session.
    pub session: SessionId,
    /// Who logged in.
    pub subject: Subject,
    /// In which role.
    pub role: Role,
}

impl Sessions {
    /// The next records after a session, as the store pages them, with the last
    /// activity that this process knows of; none at the end. Some may be over.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn page(&self, after: Option<SessionId>) -> Result<Vec<SessionRecord>, StoreError> {
        let mut records = self.store.page(after).await?;
        for record in &mut records {
            self.refresh(record);
        }
        Ok(records)
    }

    /// The record of one live session.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn find(&self, session: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let record = self.store.read(session).await?.map(|mut record| {
            self.refresh(&mut record);
            record
        });
        Ok(record.filter(|record| self.is_live(record)))
    }

    /// Whether a session can still be used: not revoked, not over, not idle too long.
    #[must_use]
    pub fn is_live(&self, record: &SessionRecord) -> bool {
        let now = self.clock.now();
        !record.is_over(now, self.idle_before(now)) && !self.live.is_revoked(record.session)
    }

    /// Whose session a token belongs to that we signed, expired or not, whatever
    /// came along with it; `None` for everything else.
    #[must_use]
    pub fn owner(&self, token: &str) -> Option<Owner> {
        let claims = self.keys.load().verify(token).ok()?;
        Some(Owner { session: claims.session, subject: claims.subject, role: claims.role })
    }

    /// The records of a subject's live sessions, by an index.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn live_of(&self, subject: &Subject) -> Result<Vec<SessionRecord>, StoreError> {
        let mut records = self.store.of_subject(subject).await?;
        for record in &mut records {
            self.refresh(record);
        }
        records.retain(|record| self.is_live(record));
        Ok(records)
    }

    /// Ends the oldest sessions of a subject that has more than anybody may have.
    /// Answers with what was ended.
    ///
    /// # Errors
    /// When the store cannot answer; then nobody knows how many there are.
    pub async fn keep_to_limit(&self, subject: &Subject) -> Result<Vec<SessionRecord>, StoreError> {
        let Some(max) = self.lifetimes.load().per_user else { return Ok(Vec::new()) };
        let mut records = self.live_of(subject).await?;
        let surplus = records.len().saturating_sub(max);
        // One order for all who count at the same time, so that they end the same ones.
        records.sort_by_key(|record| (record.created, record.session));
        records.truncate(surplus);
        if records.is_empty() {
            Ok(records)
        } else {
            self.end_all(records, Reason::SessionLimit).await
        }
    }

    /// Ends every live session of a subject. Answers with what was ended.
    ///
    /// # Errors
    /// When the store cannot answer; then nobody knows which there are.
    pub async fn end_all_of(
        &self,
        subject: &Subject,
        reason: Reason,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let records = self.store.of_subject(subject).await?;
        if records.is_empty() { Ok(records) } else { self.end_all(records, reason).await }
    }

    /// Since before when a session must have been idle to be over, for sure.
    pub(super) fn idle_before(&self, now: Timestamp) -> Timestamp {
        let idle = self.lifetimes.load().idle.saturating_add(IDLE_MARGIN);
        let idle = i64::try_from(idle.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(now.millis().saturating_sub(idle))
    }

    fn refresh(&self, record: &mut SessionRecord) {
        let seen = self.live.last_activity_of(record.session);
        record.last_activity = record.last_activity.max(seen.unwrap_or(record.last_activity));
    }
}
