//! The records of sessions and the revocations: kept, decided on, paged through. Knows
//! nothing of when a session ends.

use crate::ambient::Timestamp;
use crate::identity::{SessionId, Subject};
use crate::store::{Kind, Seen, SessionRecord, Store, StoreError};

/// Records that one page holds.
pub const PAGE: usize = 256;
/// Revocations that one page holds.
pub const REVOCATIONS_PAGE: usize = 65_536;

impl Store {
    /// Keeps a new session.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn create(&self, record: SessionRecord) -> Result<(), StoreError> {
        self.counted(
            "create",
            match &self.kind {
                Kind::Memory(memory) => memory.create(record),
                Kind::Embedded(embedded) => embedded.create(record).await,
                Kind::Redis(redis) => redis.create(record).await,
            },
        )
    }

    /// A session's record; `None` when there is none, or no more.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn read(&self, session: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.counted(
            "read",
            match &self.kind {
                Kind::Memory(memory) => memory.read(session),
                Kind::Embedded(embedded) => embedded.read(session),
                Kind::Redis(redis) => redis.read(session).await,
            },
        )
    }

    /// Decides on a session's record and keeps what the decision made of it, in
    /// one step that no other can come between. `None` when there is no record.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn update<A: Send + 'static>(
        &self,
        session: SessionId,
        decide: impl Fn(&mut SessionRecord) -> A + Send + 'static,
    ) -> Result<Option<A>, StoreError> {
        self.counted(
            "update",
            match &self.kind {
                Kind::Memory(memory) => memory.update(session, decide),
                Kind::Embedded(embedded) => embedded.update(session, decide).await,
                Kind::Redis(redis) => redis.update(session, decide).await,
            },
        )
    }

    /// Keeps what was seen of sessions since; those without a record are skipped.
    /// Answers with the records as they then are, where others change them, too.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn note(&self, seen: Vec<Seen>) -> Result<Vec<SessionRecord>, StoreError> {
        self.counted(
            "note",
            match &self.kind {
                Kind::Memory(memory) => memory.note(&seen).map(|()| Vec::new()),
                Kind::Embedded(embedded) => embedded.note(seen).await.map(|()| Vec::new()),
                Kind::Redis(redis) => redis.note(&seen).await,
            },
        )
    }

    /// Ends a session: drops its record and remembers the revocation until `until`.
    /// Says whether there was a record.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn revoke(&self, session: SessionId, until: Timestamp) -> Result<bool, StoreError> {
        self.counted(
            "revoke",
            match &self.kind {
                Kind::Memory(memory) => memory.revoke(session, until),
                Kind::Embedded(embedded) => embedded.revoke(session, until).await,
                Kind::Redis(redis) => redis
                    .revoke_all(&[(session, until)])
                    .await
                    .map(|had_record| !had_record.is_empty()),
            },
        )
    }

    /// Ends several sessions in one step; answers with the records that there were.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn revoke_all(
        &self,
        ended: Vec<(SessionId, Timestamp)>,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.counted(
            "revoke",
            match &self.kind {
                Kind::Memory(memory) => memory.revoke_all(&ended),
                Kind::Embedded(embedded) => embedded.revoke_all(ended).await,
                Kind::Redis(redis) => redis.revoke_all(&ended).await,
            },
        )
    }

    /// The next records after a session, in the order of their ids: at most
    /// [`PAGE`], none at the end.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn page(&self, after: Option<SessionId>) -> Result<Vec<SessionRecord>, StoreError> {
        self.counted(
            "page",
            match &self.kind {
                Kind::Memory(memory) => memory.page(after),
                Kind::Embedded(embedded) => embedded.page(after),
                Kind::Redis(redis) => redis.page(after).await,
            },
        )
    }

    /// The records of one subject.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn of_subject(&self, subject: &Subject) -> Result<Vec<SessionRecord>, StoreError> {
        self.counted(
            "of_subject",
            match &self.kind {
                Kind::Memory(memory) => memory.of_subject(subject),
                Kind::Embedded(embedded) => embedded.of_subject(subject),
                Kind::Redis(redis) => redis.of_subject(subject).await,
            },
        )
    }

    /// The next revocations after one of them, in an order of the store's own, and
    /// until when they are remembered: at most [`REVOCATIONS_PAGE`], none at the end.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn revocations(
        &self,
        after: Option<(SessionId, Timestamp)>,
    ) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
        let after_session = after.map(|(session, _)| session);
        self.counted(
            "revocations",
            match &self.kind {
                Kind::Memory(memory) => memory.revocations(after_session),
                Kind::Embedded(embedded) => embedded.revocations(after_session),
                Kind::Redis(redis) => redis.revocations(after).await,
            },
        )
    }
}
