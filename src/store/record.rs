//! What is kept of a session, and how it is written down. Knows no rule of
//! renewal; those are in `session`.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ambient::Timestamp;
use crate::identity::{Attributes, Role, SessionId, Subject};

/// Longest user agent kept, in bytes.
pub const USER_AGENT_BYTES_MAX: usize = 256;

/// One live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub session: SessionId,
    /// Who logged in.
    pub subject: Subject,
    /// In which role.
    pub role: Role,
    /// The directory's own name of the account.
    pub account: String,
    /// What claims ask of the directory's entry, as it was at login.
    pub attributes: Attributes,
    /// What the directory told the account and its password by at login; `None` in records
    /// of before there were such, and where it tells nothing.
    pub stamp: Option<String>,
    /// Whether it is of an emergency account, which is over when the directory is back.
    pub emergency: bool,
    /// When it began.
    pub created: Timestamp,
    /// When it ends, whatever happens.
    pub end: Timestamp,
    /// The last request or WebSocket traffic known.
    pub last_activity: Timestamp,
    /// Where the login came from.
    pub address: IpAddr,
    /// What the login came with; at most `USER_AGENT_BYTES_MAX` bytes.
    pub user_agent: Option<String>,
    /// The newest token, to be given again until it was seen.
    pub issued: Issued,
    /// The newest generation that was presented; 0 before the first.
    pub newest_seen: u32,
    /// Older generations and since when they are replaced, oldest first.
    pub replaced: Vec<Replaced>,
}

/// One token of a session, all that tells it from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Its number, from 1.
    pub generation: u32,
    /// The random part of its `jti`.
    pub nonce: [u8; 12],
    /// `iat`, seconds since 1970.
    pub issued_at: i64,
    /// `exp`, seconds since 1970.
    pub expires_at: i64,
}

/// A generation whose successor was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Which.
    pub generation: u32,
    /// When the successor was first seen, milliseconds since 1970.
    pub since: i64,
}

/// What a process saw of a session and has not told the store yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which session.
    pub session: SessionId,
    /// Its last activity.
    pub last_activity: Timestamp,
    /// The newest generation presented.
    pub newest_seen: u32,
    /// Generations replaced.
    pub replaced: Vec<Replaced>,
}

impl SessionRecord {
    /// Adds what was seen; nothing that is known already is undone.
    pub fn absorb(&mut self, seen: &Seen) {
        self.last_activity = self.last_activity.max(seen.last_activity);
        self.newest_seen = self.newest_seen.max(seen.newest_seen);
        for replaced in &seen.replaced {
            if !self.replaced.iter().any(|known| known.generation == replaced.generation) {
                self.replaced.push(*replaced);
            }
        }
        self.replaced.sort_by_key(|replaced| replaced.generation);
    }

    /// Whether the session is over at `now`, or has been idle since before `idle_before`.
    #[must_use]
    pub fn is_over(&self, now: Timestamp, idle_before: Timestamp) -> bool {
        is_over(self.end, self.last_activity, now, idle_before)
    }

    /// The bytes kept: end and last activity first, so that a sweep need not read the rest.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&self.end.millis().to_le_bytes());
        bytes.extend_from_slice(&self.last_activity.millis().to_le_bytes());
        let row = Row {
            subject: self.subject.as_str().into(),
            role: self.role.as_str().into(),
            account: self.account.as_str().into(),
            attributes: Cow::Borrowed(&self.attributes),
            stamp: self.stamp.as_deref().map(Into::into),
            emergency: self.emergency,
            created: self.created.millis(),
            address: self.address,
            user_agent: self.user_agent.as_deref().map(Into::into),
            issued: self.issued,
            newest_seen: self.newest_seen,
            replaced: self.replaced.as_slice().into(),
        };
        // A row of numbers and strings cannot fail to be written; if it did, it would read back as none.
        serde_json::to_writer(&mut bytes, &row).unwrap_or_default();
        bytes
    }

    /// From the bytes kept; `None` if they are none of ours.
    pub(super) fn from_bytes(session: SessionId, bytes: &[u8]) -> Option<Self> {
        let (end, last_activity, json) = split(bytes)?;
        let row: Row<'_> = serde_json::from_slice(json).ok()?;
        Some(Self {
            session,
            subject: Subject::new(&row.subject),
            role: Role::new(&row.role),
            account: row.account.into_owned(),
            attributes: row.attributes.into_owned(),
            stamp: row.stamp.map(Into::into),
            emergency: row.emergency,
            created: Timestamp::from_millis(row.created),
            end,
            last_activity,
            address: row.address,
            user_agent: row.user_agent.map(Into::into),
            issued: row.issued,
            newest_seen: row.newest_seen,
            replaced: row.replaced.into_owned(),
        })
    }
}

/// Whether the session of these bytes is over; so are bytes that are none of ours.
pub(super) fn bytes_are_over(bytes: &[u8], now: Timestamp, idle_before: Timestamp) -> bool {
    split(bytes).is_none_or(|(end, active, _)| is_over(end, active, now, idle_before))
}

fn is_over(end: Timestamp, active: Timestamp, now: Timestamp, idle_before: Timestamp) -> bool {
    end <= now || active < idle_before
}

fn split(bytes: &[u8]) -> Option<(Timestamp, Timestamp, &[u8])> {
    let (end, rest) = bytes.split_first_chunk()?;
    let (last_activity, json) = rest.split_first_chunk()?;
    let time = |bytes: &[u8; 8]| Timestamp::from_millis(i64::from_le_bytes(*bytes));
    Some((time(end), time(last_activity), json))
}

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    subject: Cow<'a, str>,
    role: Cow<'a, str>,
    account: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_empty")]
    attributes: Cow<'a, Attributes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    emergency: bool,
    created: i64,
    address: IpAddr,
    user_agent: Option<Cow<'a, str>>,
    issued: Issued,
    newest_seen: u32,
    replaced: Cow<'a, [Replaced]>,
}

fn is_empty(attributes: &Attributes) -> bool {
    attributes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::SessionRecord;
    use crate::identity::SessionId;

    #[test]
    fn a_record_of_before_there_were_stamps_reads_back_without_one() {
        let mut bytes = [0; 16].to_vec();
        bytes.extend_from_slice(
            br#"{"subject":"a","role":"r","account":"uid=a","created":1,"address":"127.0.0.1",
            "user_agent":null,"newest_seen":0,"replaced":[],"issued":{"generation":1,
            "nonce":[0,0,0,0,0,0,0,0,0,0,0,0],"issued_at":1,"expires_at":2}}"#,
        );
        let record = SessionRecord::from_bytes(SessionId::from_bytes([1; 16]), &bytes).unwrap();
        assert_eq!((record.account.as_str(), &record.stamp), ("uid=a", &None));
        assert!(!record.emergency);
        let stamped = SessionRecord { stamp: Some("1/2".to_owned()), emergency: true, ..record };
        let again = SessionRecord::from_bytes(stamped.session, &stamped.to_bytes());
        assert_eq!(again, Some(stamped));
    }
}
