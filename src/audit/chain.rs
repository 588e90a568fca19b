//! The chain: each line holds a running number and the SHA-256 of the line
//! before, and now and then a signed checkpoint. Knows no file and no thread.

use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::digest;
use serde::Deserialize;

use crate::ambient::Timestamp;
use crate::audit::key::CheckpointKey;
use crate::audit::record::{Stamped, number, text};

/// A checkpoint follows at the latest after so many records.
pub(super) const CHECKPOINT_RECORDS: u64 = 1000;
/// A checkpoint follows at the latest after so long, when there is something new to sign.
pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_mins(1);
/// What stands between a checkpoint's signed bytes and its signature.
pub(super) const BEFORE_SIGNATURE: &[u8] = b",\"signature\":\"";

/// The event of a checkpoint line.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The event of the line that vouches for a torn one.
pub(super) const TORN_LINE: &str = "torn_line";
/// The event of a counted line of refusals.
const REFUSALS: &str = "refusals";

/// The SHA-256 of a line, without its line end.
pub(super) type Hash = [u8; 32];

/// The hash of bytes.
pub(super) fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// A hash in lower-case hex.
pub(super) fn hex(hash: &[u8]) -> String {
    hash.iter().fold(String::with_capacity(hash.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The members of a line that the chain consists of.
#[derive(Deserialize)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) prev: String,
    pub(super) time: String,
    pub(super) event: String,
    pub(super) kid: Option<String>,
    pub(super) signature: Option<String>,
    pub(super) torn: Option<String>,
}

impl Line {
    /// A complete line; `None` when it is no record.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let parsed: Self = serde_json::from_slice(line).ok()?;
        (parsed.seq > 0 && parsed.prev.len() == 64).then_some(parsed)
    }
}

/// The end of the chain: what the next line continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The last line's number; 0 before the first.
    pub(super) seq: u64,
    /// The last line's hash; zeros before the first.
    pub(super) hash: Hash,
}

impl Head {
    /// Before the first line.
    pub(super) const BEGINNING: Self = Self { seq: 0, hash: [0; 32] };
}

/// A refusal count: one line for many refusals.
pub(super) struct Counted {
    pub(super) time: Timestamp,
    /// The address or network; `None` when there were too many of them.
    pub(super) client: Option<String>,
    pub(super) count: u64,
}

/// A line that was being written when a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    pub(super) hash: Hash,
    pub(super) bytes: usize,
}

/// Makes the lines.
pub(super) struct Chain {
    key: CheckpointKey,
    head: Head,
    unsigned: u64,
    signed_at: Timestamp,
    /// Checkpoint lines made and not yet taken by `checkpoints`.
    made: Vec<String>,
}

impl Chain {
    pub(super) const fn new(key: CheckpointKey, now: Timestamp) -> Self {
        Self { key, head: Head::BEGINNING, unsigned: 0, signed_at: now, made: Vec::new() }
    }

    /// Goes on from `head` instead; `signed` when the line there is a checkpoint.
    pub(super) fn continue_from(&mut self, head: Head, signed: bool) {
        self.head = head;
        self.unsigned = u64::from(!signed);
    }

    pub(super) fn record(&mut self, out: &mut Vec<u8>, stamped: &Stamped) {
        self.line(out, stamped.time, |line| stamped.write(line));
        self.checkpoint_when_full(out, stamped.time);
    }

    pub(super) fn counted(&mut self, out: &mut Vec<u8>, counted: &Counted) {
        self.line(out, counted.time, |line| {
            text(line, "event", REFUSALS, 64);
            text(line, "outcome", "counted", 64);
            if let Some(client) = &counted.client {
                text(line, "client", client, 64);
            }
            number(line, "count", counted.count);
        });
        self.checkpoint_when_full(out, counted.time);
    }

    /// Vouches for a torn line, which itself stays outside the chain.
    pub(super) fn torn(&mut self, out: &mut Vec<u8>, now: Timestamp, torn: &Torn) {
        self.line(out, now, |line| {
            text(line, "event", TORN_LINE, 64);
            text(line, "torn", &hex(&torn.hash), 64);
            number(line, "bytes", u64::try_from(torn.bytes).unwrap_or(u64::MAX));
        });
    }

    /// A checkpoint, unless the last line is one or there is nothing to sign.
    pub(super) fn checkpoint(&mut self, out: &mut Vec<u8>, now: Timestamp) {
        if self.unsigned > 0 {
            self.sign(out, now);
        }
    }

    /// The first line of a further file, so that even a file that gets no record
    /// says where the chain stands. Nothing before the chain has begun.
    pub(super) fn carry_over(&mut self, out: &mut Vec<u8>, now: Timestamp) {
        if self.head.seq > 0 {
            self.sign(out, now);
        }
    }

    fn sign(&mut self, out: &mut Vec<u8>, now: Timestamp) {
        let begin = out.len();
        let (key, made) = (&self.key, &mut self.made);
        self.head = write_line(out, self.head, now, |line| {
            text(line, "event", CHECKPOINT, 64);
            text(line, "kid", key.kid(), 256);
            let signature = key.sign(&line[begin..]);
            line.extend_from_slice(BEFORE_SIGNATURE);
            line.extend_from_slice(signature.as_bytes());
            line.push(b'"');
        });
        made.push(String::from_utf8_lossy(out[begin..].trim_ascii_end()).into_owned());
        self.unsigned = 0;
        self.signed_at = now;
    }

    /// A checkpoint if the last one is too long ago by the clock.
    pub(super) fn checkpoint_when_due(&mut self, out: &mut Vec<u8>, now: Timestamp) {
        // A clock that was set back must not put the next checkpoint off.
        if now < self.signed_at || now.since(self.signed_at) >= CHECKPOINT_INTERVAL {
            self.checkpoint(out, now);
            self.signed_at = now;
        }
    }

    /// The checkpoint lines made since the last call, for the log.
    pub(super) fn checkpoints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.made)
    }

    fn checkpoint_when_full(&mut self, out: &mut Vec<u8>, now: Timestamp) {
        if self.unsigned >= CHECKPOINT_RECORDS {
            self.checkpoint(out, now);
        }
    }

    fn line(&mut self, out: &mut Vec<u8>, now: Timestamp, members: impl FnOnce(&mut Vec<u8>)) {
        self.head = write_line(out, self.head, now, members);
        self.unsigned += 1;
    }
}

fn write_line(
    out: &mut Vec<u8>,
    head: Head,
    now: Timestamp,
    members: impl FnOnce(&mut Vec<u8>),
) -> Head {
    let (begin, seq) = (out.len(), head.seq + 1);
    out.extend_from_slice(b"{\"seq\":");
    out.extend_from_slice(seq.to_string().as_bytes());
    text(out, "prev", &hex(&head.hash), 64);
    text(out, "time", &now.rfc3339(), 64);
    members(out);
    out.push(b'}');
    let hash = hash(&out[begin..]);
    out.push(b'\n');
    Head { seq, hash }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Chain, Line, hash, hex};
    use crate::ambient::Timestamp;
    use crate::audit::key::CheckpointKey;
    use crate::audit::record::{Event, Record, Stamped};
    use crate::secret::Secret;

    fn chain() -> Chain {
        let key = CheckpointKey::from_seed("k", &Secret::new([7; 32])).unwrap();
        Chain::new(key, Timestamp::from_millis(0))
    }

    fn add(chain: &mut Chain, out: &mut Vec<u8>, millis: i64) {
        let record = Record::new(Event::Request, "allow");
        chain.record(out, &Stamped { time: Timestamp::from_millis(millis), record });
    }

    fn lines(out: &[u8]) -> Vec<&[u8]> {
        out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn each_line_holds_the_next_number_and_the_hash_of_the_one_before() {
        let (mut chain, mut out) = (chain(), Vec::new());
        for _ in 0..3 {
            add(&mut chain, &mut out, 0);
        }
        let mut prev = "0".repeat(64);
        for (number, line) in (1..).zip(lines(&out)) {
            let parsed = Line::parse(line).unwrap();
            assert_eq!((parsed.seq, parsed.prev), (number, prev));
            prev = hex(&hash(line));
        }
    }

    #[test]
    fn a_checkpoint_comes_after_a_thousand_records() {
        let (mut chain, mut out) = (chain(), Vec::new());
        for _ in 0..2500 {
            add(&mut chain, &mut out, 0);
        }
        let signed: Vec<u64> = lines(&out)
            .iter()
            .map(|line| Line::parse(line).unwrap())
            .filter(|line| line.event == "checkpoint")
            .map(|line| line.seq)
            .collect();
        assert_eq!(signed, [1001, 2002]);
        assert_eq!(chain.checkpoints().len(), 2);
    }

    #[test]
    fn a_checkpoint_comes_after_sixty_seconds_and_only_when_there_is_something_new() {
        let (mut chain, mut out) = (chain(), Vec::new());
        let at = Timestamp::from_millis;
        chain.checkpoint_when_due(&mut out, at(0).plus(Duration::from_mins(2)));
        assert!(out.is_empty());
        add(&mut chain, &mut out, 130_000);
        chain.checkpoint_when_due(&mut out, at(179_999));
        assert_eq!(lines(&out).len(), 1);
        chain.checkpoint_when_due(&mut out, at(180_000));
        chain.checkpoint_when_due(&mut out, at(900_000));
        chain.checkpoint(&mut out, at(900_000));
        assert_eq!(lines(&out).len(), 2);
    }

    #[test]
    fn a_clock_set_back_does_not_put_off_the_checkpoint() {
        let (mut chain, mut out) = (chain(), Vec::new());
        chain.checkpoint_when_due(&mut out, Timestamp::from_millis(900_000));
        add(&mut chain, &mut out, 1000);
        chain.checkpoint_when_due(&mut out, Timestamp::from_millis(1000));
        assert_eq!(chain.checkpoints().len(), 1);
    }
}
