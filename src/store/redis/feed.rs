//! The news of revocations and keys, as every gateway reads them: from a stream,
//! with a cursor; and everything anew when the stream or the server is another
//! one. Says how old what was read last is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use redis::Value;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use tokio::time::{Instant, sleep};

use crate::ambient::Timestamp;
use crate::identity::SessionId;
use crate::store::StoreError;
use crate::store::redis::sentinel::Watch;
use crate::store::redis::{LASTING, Redis, number, parsed};

/// How long the server holds back its answer when there are no news.
const BLOCK: Duration = Duration::from_millis(500);
/// How often a sign of life is written, and looked who answers.
const BEAT: Duration = Duration::from_secs(1);
/// Before the next try after a failure.
const PAUSE: Duration = Duration::from_millis(200);
/// News that one answer holds.
const AT_ONCE: usize = 1000;
/// Of a revocation in the stream: the id and its end.
const PACKED: usize = 24;

/// What the feed tells, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// What is known may have gaps: all revocations there are come next.
    Begin,
    /// These sessions are revoked until then.
    Revoked(Vec<(SessionId, Timestamp)>),
    /// All revocations were told since `Begin`. What was known before and was not
    /// among them must be told to the store; the keys must be read.
    Complete,
    /// The keys are others.
    Keys,
}

/// How old what was read last is.
pub(in crate::store) struct Heard {
    since: Instant,
    /// Milliseconds after `since`; 0 before the first time.
    at: AtomicU64,
    max: Duration,
    stopped: AtomicBool,
    /// Redis's clock less ours, in milliseconds.
    ahead: AtomicI64,
    /// The count of starts; 0 while all is being read anew.
    starts: AtomicU64,
}

impl Heard {
    pub(super) fn new(max: Duration) -> Self {
        Self {
            since: Instant::now(),
            at: AtomicU64::new(0),
            max,
            stopped: AtomicBool::new(false),
            ahead: AtomicI64::new(0),
            starts: AtomicU64::new(0),
        }
    }

    /// Whether it is too old to decide by, or nothing was read yet. One look at the
    /// clock and one atomic load.
    pub(in crate::store) fn is_stale(&self) -> bool {
        self.age().is_none_or(|age| age > self.max) || self.stopped.load(Ordering::Relaxed)
    }

    pub(in crate::store) const fn max(&self) -> Duration {
        self.max
    }

    /// `None` before everything was read once.
    pub(in crate::store) fn age(&self) -> Option<Duration> {
        let at = self.at.load(Ordering::Acquire);
        let at = (at > 0).then_some(self.since + Duration::from_millis(at))?;
        Some(at.elapsed())
    }

    /// How far Redis's clock is ahead of ours, in milliseconds.
    pub(in crate::store) fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn starts(&self) -> Option<u64> {
        Some(self.starts.load(Ordering::Acquire)).filter(|starts| *starts > 0)
    }

    fn mark(&self, at: Instant) {
        let after = u64::try_from((at - self.since).as_millis()).unwrap_or(u64::MAX);
        self.at.fetch_max(after.max(1), Ordering::AcqRel);
    }
}

/// Reads the news; there is one of a process.
pub struct Feed<'s> {
    redis: &'s Redis,
    phase: Phase,
    /// The last entry read of the stream.
    cursor: String,
    /// Whose stream and revocations have been read.
    known: Option<Server>,
    /// The connection that the server was asked over.
    generation: u64,
    beat: Instant,
    /// The counts that it told: of starts, and of what was taken.
    starts: u64,
    taken: u64,
    watch: Watch,
    waiting: VecDeque<News>,
    /// As of when all is known that was to be, once what was handed out is done.
    handed_out: Option<Instant>,
    /// How long reading everything took, until the news since then are there.
    took: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    /// Another one after every fail-over and restart.
    replication: String,
    /// Another one after everything was lost.
    born: Vec<u8>,
}

enum Phase {
    Apart,
    /// Since the moment of the cursor.
    Reading {
        after: Option<(SessionId, Timestamp)>,
        server: Server,
        since: Instant,
    },
    Following,
}

impl<'s> Feed<'s> {
    pub(in crate::store) fn new(redis: &'s Redis) -> Self {
        Self {
            redis,
            phase: Phase::Apart,
            cursor: String::new(),
            known: None,
            generation: 0,
            beat: Instant::now(),
            starts: 0,
            taken: 0,
            watch: Watch::new(),
            waiting: VecDeque::new(),
            handed_out: None,
            took: None,
        }
    }

    /// What the last news ask for has been done: as of when they were read, all that
    /// was to be known is known.
    pub fn settle(&mut self) {
        if self.waiting.is_empty()
            && let Some(at) = self.handed_out.take()
        {
            self.redis.heard.mark(at);
        }
    }

    /// The next news, however long there are none. Whoever asks has done what the last
    /// ones ask for.
    pub async fn next(&mut self) -> News {
        self.settle();
        loop {
            if let Some(news) = self.waiting.pop_front() {
                return news;
            }
            if self.step().await.is_err() {
                self.phase = Phase::Apart;
                self.redis.listening.drop_connection().await;
                sleep(PAUSE).await;
            }
        }
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        match std::mem::replace(&mut self.phase, Phase::Apart) {
            Phase::Apart => self.meet().await,
            Phase::Reading { after, server, since } => {
                let page = self.redis.revocations(after).await?;
                let Some(last) = page.last() else {
                    self.known = Some(server);
                    self.phase = Phase::Following;
                    self.waiting.push_back(News::Complete);
                    // What came since may be told by the stream alone.
                    self.handed_out = Some(since);
                    self.took = Some(since.elapsed());
                    return Ok(());
                };
                self.phase = Phase::Reading { after: Some(*last), server, since };
                self.waiting.push_back(News::Revoked(page));
                Ok(())
            }
            Phase::Following => self.listen().await,
        }
    }

    /// Finds out who answers, and whether the cursor is worth anything there.
    async fn meet(&mut self) -> Result<(), StoreError> {
        let server = self.beat().await?;
        if self.known.take_if(|known| *known != server).is_some() {
            // Asked again over connections of which none leads to the one before.
            self.redis.leave().await;
            return Ok(());
        }
        let news = self.redis.common("news");
        let ends = async |command: &str, [from, to]: [&str; 2]| {
            let mut range = redis::cmd(command);
            range.arg(&news).arg(from).arg(to).arg("COUNT").arg(1);
            let reply = self.redis.listening.command(&range, &news, Duration::ZERO).await?;
            let reply: StreamRangeReply = parsed(reply)?;
            let id = reply.ids.into_iter().next().map_or_else(|| "0-0".to_owned(), |id| id.id);
            Ok::<String, StoreError>(id)
        };
        let (since, first) = (Instant::now(), ends("XRANGE", ["-", "+"]).await?);
        let last = ends("XREVRANGE", ["+", "-"]).await?;
        self.generation = self.redis.listening.generation();
        let holds = |id: &str| place(&first) <= place(id) && place(id) <= place(&last);
        if self.known.as_ref() == Some(&server) && holds(&self.cursor) {
            self.phase = Phase::Following;
        } else {
            let known = self.redis.taken.load(Ordering::Acquire);
            if self.taken < known {
                self.redis.void_codes(known).await?;
            }
            tracing::info!("reading all revocations from Redis");
            self.cursor = last;
            self.phase = Phase::Reading { after: None, server, since };
            self.redis.heard.starts.store(0, Ordering::Release);
            self.waiting.push_back(News::Begin);
        }
        Ok(())
    }

    /// Waits for news, and now and then makes sure of who tells them.
    async fn listen(&mut self) -> Result<(), StoreError> {
        if self.is_elsewhere().await {
            // The server before may go on for itself, and has nothing more to say here.
            self.known = None;
            self.redis.leave().await;
            return Ok(());
        }
        if self.beat.elapsed() >= BEAT {
            let server = self.beat().await?;
            if self.known.as_ref() != Some(&server) {
                tracing::warn!("Redis failed over, was restarted or lost everything");
                return Err(StoreError::Unavailable);
            }
            self.redis.heard.starts.store(self.starts, Ordering::Release);
            self.redis.taken.fetch_max(self.taken, Ordering::AcqRel);
        }
        let (entries, is_whole) = self.read().await?;
        // A full answer says that there are more: what there is now is not known yet.
        let at = (entries.len() < AT_ONCE).then(Instant::now);
        if self.redis.listening.generation() != self.generation {
            return Err(StoreError::Unavailable);
        }
        if !is_whole {
            self.lose();
            return Ok(());
        }
        self.phase = Phase::Following;
        self.took = None;
        let (mut revoked, mut keys) = (Vec::new(), false);
        for entry in entries {
            keys |= entry.map.contains_key("k");
            if let Some(Value::BulkString(packed)) = entry.map.get("r") {
                revoked.extend(unpacked(packed));
            }
            self.cursor = entry.id;
        }
        if !revoked.is_empty() {
            self.waiting.push_back(News::Revoked(revoked));
        }
        if keys {
            self.waiting.push_back(News::Keys);
        }
        self.handed_out = at;
        self.settle();
        Ok(())
    }

    /// The news after the cursor, and whether they are all there were. Looked at afterwards,
    /// as the stream only ever loses its beginning: what then holds the entry of the
    /// cursor, or one before, had lost none after it.
    async fn read(&self) -> Result<(Vec<StreamId>, bool), StoreError> {
        let news = self.redis.common("news");
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(AT_ONCE).arg("BLOCK");
        read.arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX));
        read.arg("STREAMS").arg(&news).arg(&self.cursor);
        let mut before = redis::cmd("XREVRANGE");
        before.arg(&news).arg(&self.cursor).arg("-").arg("COUNT").arg(1);
        let replies = self.redis.listening.commands([read, before], &news, BLOCK).await?;
        let [reply, before] = replies;
        let reply: Option<StreamReadReply> = parsed(reply)?;
        let before: StreamRangeReply = parsed(before)?;
        let keys = reply.into_iter().flat_map(|reply| reply.keys);
        Ok((keys.flat_map(|key| key.ids).collect(), !before.ids.is_empty()))
    }

    /// News were gone before they were read: everything is read anew.
    fn lose(&mut self) {
        self.known = None;
        if let Some(took) = self.took.take() {
            tracing::error!(
                duration_ms = took.as_millis(),
                "reading all revocations took longer than Redis keeps news of them: once more"
            );
        } else {
            tracing::warn!("news of revocations were gone before they were read");
        }
    }

    /// Whether sentinels name another primary than the one that somebody here talks to.
    async fn is_elsewhere(&mut self) -> bool {
        let Some(named) = self.watch.named(&self.redis.link).await else { return false };
        for link in [&self.redis.link, &self.redis.durable, &self.redis.listening] {
            if link.leads_elsewhere(&named).await {
                tracing::warn!(named, "the sentinels name another primary of Redis");
                return true;
            }
        }
        false
    }

    /// Writes a sign of life, and says who took it. A primary that was cut off from
    /// its replicas refuses it, if it is told to.
    async fn beat(&mut self) -> Result<Server, StoreError> {
        let lasting = ["born", "alive", "starts", "taken", "keys", "revoked", "news"];
        let keys = lasting.map(|name| self.redis.common(name));
        // Never the same twice, so that a store that lost it is told from the one before.
        let birth: [u8; 16] = self.redis.entropy.bytes().map_err(|_| StoreError::Unavailable)?;
        let args = [number(LASTING), birth.to_vec()];
        let before = self.redis.clock.now();
        let beat = self.redis.link.script(&self.redis.scripts.beat, &keys, &args).await?;
        let (born, time, starts, taken): (Vec<u8>, i64, u64, u64) = parsed(beat)?;
        let after = self.redis.clock.now();
        let ours = i64::midpoint(before.millis(), after.millis());
        self.redis.heard.ahead.store(time.saturating_sub(ours), Ordering::Relaxed);
        let replication = self.redis.look_for_replicas().await?;
        let mut info = redis::cmd("INFO");
        info.arg("replication");
        let key = self.redis.common("");
        let heard: String =
            parsed(self.redis.listening.command(&info, &key, Duration::ZERO).await?)?;
        // A replica tells its primary's, but may be cut off from that one's news.
        let is_primary = heard.contains("role:master");
        if !is_primary || !heard.contains(&format!("master_replid:{replication}")) {
            tracing::warn!("two servers seem to be the primary of Redis");
            self.redis.link.drop_connection().await;
            return Err(StoreError::Unavailable);
        }
        (self.beat, self.starts, self.taken) = (Instant::now(), starts, taken);
        Ok(Server { replication, born })
    }
}

/// The two numbers of an entry's id.
fn place(id: &str) -> (u64, u64) {
    let (millis, number) = id.split_once('-').unwrap_or((id, "0"));
    (millis.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

fn unpacked(packed: &[u8]) -> impl Iterator<Item = (SessionId, Timestamp)> {
    packed.as_chunks::<PACKED>().0.iter().filter_map(|one| {
        let (id, until) = one.split_first_chunk()?;
        let until = i64::from_be_bytes(*until.first_chunk()?);
        Some((SessionId::from_bytes(*id), Timestamp::from_millis(until)))
    })
}

#[cfg(test)]
mod tests {
    use super::{place, unpacked};
    use crate::ambient::Timestamp;
    use crate::identity::SessionId;

    #[test]
    fn ids_of_entries_are_compared_as_numbers() {
        assert!(place("9-2") < place("10-1") && place("10-1") < place("10-12"));
        assert_eq!(place("0-0"), (0, 0));
    }

    #[test]
    fn what_is_packed_is_unpacked_and_half_a_revocation_is_none() {
        let one = [&[7; 16][..], &1_790_000_000_123_i64.to_be_bytes()].concat();
        let two = [&one[..], &one[..20]].concat();
        let until = Timestamp::from_millis(1_790_000_000_123);
        let unpacked: Vec<_> = unpacked(&two).collect();
        assert_eq!(unpacked, [(SessionId::from_bytes([7; 16]), until)]);
    }
}
