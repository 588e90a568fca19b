//! Records of sessions in Redis, in buckets by the first byte of their ids, and
//! the revocations that end them.

use std::fmt::Write as _;
use std::slice::from_ref;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::{join_all, try_join_all};

use crate::ambient::Timestamp;
use crate::identity::{SessionId, Subject};
use crate::store::expiring::FAMILIES;
use crate::store::redis::{LASTING, Redis, number, parsed};
use crate::store::{PAGE, Seen, SessionRecord, StoreError};

/// Revocations that one script reads: it holds up all others.
const REVOCATIONS: i64 = 8192;
/// Sessions that one script removes.
const SWEPT: i64 = 500;
/// Records and revocations that one script changes.
const AT_ONCE: usize = 500;
/// How often a decision is taken anew when another came between.
const TRIES: usize = 500;
/// Buckets that are asked at the same time.
const BUCKETS_AT_ONCE: usize = 32;

impl Redis {
    pub(in crate::store) async fn create(&self, record: SessionRecord) -> Result<(), StoreError> {
        let id = record.session.as_bytes().to_vec();
        let end = number(record.end.millis());
        // First whose it is: an index may name what is not there, never the reverse.
        let args = [number(LASTING), self.time(self.clock.now()), id.clone(), end.clone()];
        self.link.script(&self.scripts.own, &[self.owned(&record.subject)], &args).await?;
        let activity = number(record.last_activity.millis());
        let args = [number(LASTING), id, record.to_bytes(), end, activity];
        self.link.script(&self.scripts.create, &self.bucket_of(record.session), &args).await?;
        Ok(())
    }

    pub(in crate::store) async fn read(
        &self,
        session: SessionId,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let bytes = self.bytes(session).await?;
        Ok(bytes.and_then(|bytes| SessionRecord::from_bytes(session, &bytes)))
    }

    /// Reads, decides, and writes if nobody else wrote meanwhile.
    pub(in crate::store) async fn update<A>(
        &self,
        session: SessionId,
        decide: impl Fn(&mut SessionRecord) -> A,
    ) -> Result<Option<A>, StoreError> {
        let [records, _, ends, active] = self.bucket_of(session);
        let keys = [records, ends, active];
        for _ in 0..TRIES {
            let Some(before) = self.bytes(session).await? else { return Ok(None) };
            let Some(mut record) = SessionRecord::from_bytes(session, &before) else {
                return Ok(None);
            };
            let answer = decide(&mut record);
            let after = record.to_bytes();
            if after == before {
                return Ok(Some(answer));
            }
            let (end, active) = (record.end.millis(), record.last_activity.millis());
            let id = session.as_bytes().to_vec();
            let args = [id, before, after, number(end), number(active)];
            match parsed(self.link.script(&self.scripts.replace, &keys, &args).await?)? {
                1 => return Ok(Some(answer)),
                -1 => return Ok(None),
                _ => {}
            }
        }
        tracing::error!("a session changes faster than a decision on it can be taken");
        Err(StoreError::Unavailable)
    }

    pub(in crate::store) async fn note(
        &self,
        seen: &[Seen],
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let mut records = Vec::with_capacity(seen.len());
        for seen in seen.chunks(AT_ONCE) {
            let notes = seen.iter().map(|seen| {
                self.update(seen.session, |record: &mut SessionRecord| {
                    record.absorb(seen);
                    record.clone()
                })
            });
            records.extend(try_join_all(notes).await?.into_iter().flatten());
        }
        Ok(records)
    }

    /// The revocations first, which a replica holds before the records go.
    pub(in crate::store) async fn revoke_all(
        &self,
        ended: &[(SessionId, Timestamp)],
    ) -> Result<Vec<SessionId>, StoreError> {
        self.remember(ended).await?;
        let removals = ended.iter().map(|(session, _)| self.remove(*session));
        let had_record = try_join_all(removals).await?;
        let sessions = ended.iter().zip(had_record).filter(|(_, had_record)| *had_record);
        Ok(sessions.map(|((session, _), _)| *session).collect())
    }

    /// Remembers revocations; those that are known already cost nothing.
    pub(in crate::store) async fn remember(
        &self,
        ended: &[(SessionId, Timestamp)],
    ) -> Result<(), StoreError> {
        let keys = ["revoked", "news", "starts"].map(|name| self.common(name));
        for ended in ended.chunks(AT_ONCE) {
            let mut args = vec![number(LASTING)];
            for (session, until) in ended {
                let id = session.as_bytes();
                let packed = [&id[..], &until.millis().to_be_bytes()].concat();
                args.extend([id.to_vec(), number(until.millis()), packed]);
            }
            self.durably(&self.scripts.revoke, &keys, &args).await?;
        }
        Ok(())
    }

    async fn remove(&self, session: SessionId) -> Result<bool, StoreError> {
        let id = session.as_bytes().to_vec();
        let bucket = self.bucket_of(session);
        let had = self.link.script(&self.scripts.remove, &bucket, from_ref(&id)).await?;
        let had: Vec<Option<Vec<u8>>> = parsed(had)?;
        let Some(Some(bytes)) = had.into_iter().next() else { return Ok(false) };
        if let Some(record) = SessionRecord::from_bytes(session, &bytes) {
            let owned = self.owned(&record.subject);
            let mut disown = redis::cmd("ZREM");
            disown.arg(&owned).arg(id);
            // An index may name what is not there.
            let _ = self.link.command(&disown, &owned, Duration::ZERO).await;
        }
        Ok(true)
    }

    pub(in crate::store) async fn page(
        &self,
        after: Option<SessionId>,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let mut records = Vec::new();
        let mut next = after.map_or(0, |session| usize::from(session.as_bytes()[0]));
        let mut at_once = 1;
        while next < 256 && records.len() < PAGE {
            let buckets = next..(next + at_once).min(256);
            next = buckets.end;
            // Where there is little, more is asked for at a time.
            at_once = (at_once * 2).min(BUCKETS_AT_ONCE);
            let limit = PAGE - records.len();
            let pages = buckets.map(|bucket| self.page_of(bucket, after, limit));
            for page in try_join_all(pages).await? {
                records.extend(page);
            }
        }
        records.truncate(PAGE);
        Ok(records)
    }

    async fn page_of(
        &self,
        bucket: usize,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let [records, order, ..] = self.bucket(bucket);
        let after = after.filter(|session| usize::from(session.as_bytes()[0]) == bucket);
        let from = after.map_or(b"-".to_vec(), |session| [b"(", &session.as_bytes()[..]].concat());
        let args = [from, limit.to_string().into_bytes()];
        let rows = self.link.script(&self.scripts.page, &[records, order], &args).await?;
        let rows: Vec<(Vec<u8>, Vec<u8>)> = parsed(rows)?;
        let record = |(id, bytes): (Vec<u8>, Vec<u8>)| {
            SessionRecord::from_bytes(SessionId::from_bytes(id.try_into().ok()?), &bytes)
        };
        Ok(rows.into_iter().filter_map(record).collect())
    }

    pub(in crate::store) async fn of_subject(
        &self,
        subject: &Subject,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let owned = self.owned(subject);
        let range = redis::cmd("ZRANGE").arg(&owned).arg(0).arg(-1).take();
        let ids: Vec<Vec<u8>> = parsed(self.link.command(&range, &owned, Duration::ZERO).await?)?;
        let ids = ids.into_iter().filter_map(|id| id.try_into().ok().map(SessionId::from_bytes));
        let records = try_join_all(ids.map(|session| self.read(session))).await?;
        let mut records: Vec<_> = records.into_iter().flatten().collect();
        records.retain(|record| record.subject == *subject);
        records.sort_by_key(|record| record.session);
        Ok(records)
    }

    /// In the order of their ends, so that nothing is left out while some end.
    pub(in crate::store) async fn revocations(
        &self,
        after: Option<(SessionId, Timestamp)>,
    ) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
        let mut args = vec![number(REVOCATIONS)];
        if let Some((session, until)) = after {
            args.extend([session.as_bytes().to_vec(), number(until.millis())]);
        }
        let keys = [self.common("revoked")];
        let rows = self.link.script(&self.scripts.revocations, &keys, &args).await?;
        let rows: Vec<(Vec<u8>, f64)> = parsed(rows)?;
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds fit a double")]
        let row = |(id, until): (Vec<u8>, f64)| {
            let session = SessionId::from_bytes(id.try_into().ok()?);
            Some((session, Timestamp::from_millis(until as i64)))
        };
        Ok(rows.into_iter().filter_map(row).collect())
    }

    pub(in crate::store) async fn sweep(
        &self,
        now: Timestamp,
        idle_before: Timestamp,
    ) -> Result<u64, StoreError> {
        let time = self.time(now);
        let keys = [self.common("revoked")];
        self.link.script(&self.scripts.forget, &keys, from_ref(&time)).await?;
        // How long, not since when: that is for Redis's clock to say, too.
        let idle = now.millis().saturating_sub(idle_before.millis());
        let args = [time, number(idle), number(SWEPT)];
        for family in FAMILIES {
            self.count(family, now).await?;
        }
        let mut left = 0;
        let all: Vec<usize> = (0..256).collect();
        for buckets in all.chunks(BUCKETS_AT_ONCE) {
            let sweeps = buckets.iter().map(|bucket| self.sweep_bucket(*bucket, &args));
            for count in join_all(sweeps).await {
                left += count?;
            }
        }
        Ok(left)
    }

    async fn sweep_bucket(&self, bucket: usize, args: &[Vec<u8>]) -> Result<u64, StoreError> {
        let keys = self.bucket(bucket);
        loop {
            let swept = self.link.script(&self.scripts.sweep, &keys, args).await?;
            let (found, left): (i64, u64) = parsed(swept)?;
            if found < SWEPT {
                return Ok(left);
            }
        }
    }

    async fn bytes(&self, session: SessionId) -> Result<Option<Vec<u8>>, StoreError> {
        let [records, ..] = self.bucket_of(session);
        let get = redis::cmd("HGET").arg(&records).arg(&session.as_bytes()[..]).take();
        parsed(self.link.command(&get, &records, Duration::ZERO).await?)
    }

    fn bucket_of(&self, session: SessionId) -> [Vec<u8>; 4] {
        self.bucket(usize::from(session.as_bytes()[0]))
    }

    /// Records, order, ends and activity of a bucket.
    fn bucket(&self, bucket: usize) -> [Vec<u8>; 4] {
        ["records", "order", "ends", "active"]
            .map(|name| format!("{{{}:{bucket:02x}}}:{name}", self.prefix).into_bytes())
    }

    /// The sessions of a subject, whose name stands in no key.
    fn owned(&self, subject: &Subject) -> Vec<u8> {
        let hash = digest(&SHA256, subject.as_str().as_bytes());
        let hash = hash.as_ref().iter().take(16).fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        format!("{{{}:{hash}}}:owned", self.prefix).into_bytes()
    }
}
