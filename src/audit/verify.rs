//! Verifies an audit log: how far it is proved unaltered, what is unproved, and
//! which record is the first bad one. Reads lines it is given; opens nothing and
//! knows no key but those passed in.

use crate::audit::chain::{CHECKPOINT, CHECKPOINT_RECORDS, Hash, Line, TORN_LINE, hash, hex};
use crate::audit::kept::{Kept, printable, signature_holds};
use crate::audit::key::VerifyKey;

/// Longest line, and longest torn part, that is looked at.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which file, counted from 0 in the order given.
    pub file: usize,
    /// Which line of it, counted from 1.
    pub line: u64,
}

/// The first record that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Where it stands.
    pub place: Place,
    /// Its number, as far as it can be told.
    pub seq: u64,
    /// What is wrong.
    pub reason: String,
}

/// A checkpoint whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// The checkpoint's own number.
    pub seq: u64,
    /// When it was made, RFC 3339.
    pub time: String,
    /// The name of the key that signed it.
    pub kid: String,
}

/// Half a line that a killed process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornPart {
    /// Where it begins.
    pub place: Place,
    /// How long it is.
    pub bytes: usize,
    /// Whether it is the end of the log; otherwise the next record vouches for it.
    pub last: bool,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Number of the first record; `None` when there is none.
    pub first: Option<u64>,
    /// Number of the last good record.
    pub last: Option<u64>,
    /// Up to where the log is proved unaltered; always `None` without a key.
    pub proved: Option<Proved>,
    /// Torn lines.
    pub torn: Vec<TornPart>,
    /// Whether the checkpoint kept elsewhere stands in the log.
    pub kept_found: bool,
    /// The first bad record.
    pub bad: Option<Bad>,
}

/// A record that was read.
#[derive(Clone)]
struct Seen {
    place: Place,
    seq: u64,
    prev: String,
    hash: Hash,
    /// Nothing before it was given, so nothing vouches for its number.
    first: bool,
}

impl Seen {
    fn begins_chain(&self) -> bool {
        self.seq == 1 && self.prev.bytes().all(|byte| byte == b'0')
    }

    fn follows(&self, before: &Self) -> bool {
        before.seq.checked_add(1) == Some(self.seq) && self.prev == hex(&before.hash)
    }
}

/// Verifies line after line.
pub struct Verifier<'k> {
    keys: &'k [VerifyKey],
    kept: Option<&'k Kept>,
    last: Option<Seen>,
    /// Two neighbours that do not fit; the record after them tells which is bad.
    misfit: Option<(Seen, Seen)>,
    /// Lines that are no records, and where they begin.
    torn: Option<(Place, Vec<u8>, bool)>,
    unsigned: u64,
    outcome: Outcome,
}

impl<'k> Verifier<'k> {
    /// Before the first line. Without keys only the chain is verified.
    #[must_use]
    pub fn new(keys: &'k [VerifyKey], kept: Option<&'k Kept>) -> Self {
        Self {
            keys,
            kept,
            last: None,
            misfit: None,
            torn: None,
            unsigned: 0,
            outcome: Outcome::default(),
        }
    }

    /// The next line, without its end; `complete` when it had one. Whether to go on.
    pub fn line(&mut self, place: Place, line: &[u8], complete: bool) -> bool {
        if self.outcome.bad.is_some() {
            return false;
        }
        let parsed = if complete { Line::parse(line) } else { None };
        match parsed {
            Some(parsed) => {
                if let Err(bad) = self.record(place, line, &parsed) {
                    self.outcome.bad = Some(bad);
                }
            }
            None => self.no_record(place, line, complete),
        }
        self.outcome.bad.is_none()
    }

    fn no_record(&mut self, place: Place, line: &[u8], complete: bool) {
        self.resolve_misfit(None);
        let torn = self.torn.get_or_insert_with(|| (place, Vec::new(), true));
        if !torn.1.is_empty() {
            torn.1.push(b'\n');
        }
        torn.1.extend_from_slice(line);
        torn.2 = complete;
        if torn.1.len() > LINE_BYTES_MAX {
            let place = torn.0;
            self.outcome.bad = Some(self.not_a_record(place));
        }
    }

    fn not_a_record(&self, place: Place) -> Bad {
        Bad { place, seq: self.expected(), reason: "it is not a record".to_owned() }
    }

    fn expected(&self) -> u64 {
        self.last.as_ref().map_or(1, |last| last.seq.saturating_add(1))
    }

    fn record(&mut self, place: Place, line: &[u8], parsed: &Line) -> Result<(), Bad> {
        let seen = Seen {
            place,
            seq: parsed.seq,
            prev: parsed.prev.clone(),
            hash: hash(line),
            first: self.last.is_none(),
        };
        self.resolve_misfit(Some(&seen));
        if let Some(bad) = self.outcome.bad.take() {
            return Err(bad);
        }
        let bad = |reason: String| Bad { place, seq: parsed.seq, reason };
        self.vouch(parsed)?;
        let signed = self.signature(parsed, line).map_err(bad)?;
        match &self.last {
            Some(last) if !seen.follows(last) => {
                if signed {
                    return Err(blame(last, &seen, Some(true)));
                }
                self.misfit = Some((last.clone(), seen));
                return Ok(());
            }
            None if (seen.seq == 1) != seen.prev.bytes().all(|byte| byte == b'0') => {
                return Err(bad("it neither begins a chain nor continues one".to_owned()));
            }
            _ => {}
        }
        self.kept_matches(parsed.seq, line).map_err(bad)?;
        self.unsigned = if parsed.event == CHECKPOINT { 0 } else { self.unsigned + 1 };
        // A torn line's record may come on top, before the checkpoint of the start.
        if !self.keys.is_empty() && self.unsigned > CHECKPOINT_RECORDS + 1 {
            return Err(bad(format!(
                "no checkpoint stands in the {CHECKPOINT_RECORDS} records before it"
            )));
        }
        if signed {
            self.outcome.proved = Some(Proved {
                seq: parsed.seq,
                time: printable(&parsed.time),
                kid: printable(parsed.kid.as_deref().unwrap_or_default()),
            });
        }
        self.outcome.first.get_or_insert(parsed.seq);
        self.outcome.last = Some(parsed.seq);
        self.last = Some(seen);
        Ok(())
    }

    /// A torn part is accepted only when the record after it holds its hash.
    fn vouch(&mut self, parsed: &Line) -> Result<(), Bad> {
        let Some((place, bytes, _)) = self.torn.take() else { return Ok(()) };
        if parsed.event != TORN_LINE || parsed.torn.as_deref() != Some(&hex(&hash(&bytes))) {
            return Err(self.not_a_record(place));
        }
        self.outcome.torn.push(TornPart { place, bytes: bytes.len(), last: false });
        Ok(())
    }

    /// Whether this is a checkpoint that a given key signed.
    fn signature(&self, parsed: &Line, line: &[u8]) -> Result<bool, String> {
        let checkpoint = parsed.event == CHECKPOINT;
        if checkpoint != parsed.signature.is_some() {
            return Err("a checkpoint and nothing else has a signature".to_owned());
        }
        if !checkpoint || self.keys.is_empty() {
            return Ok(false);
        }
        signature_holds(parsed, line, self.keys).map(|()| true)
    }

    fn kept_matches(&mut self, seq: u64, line: &[u8]) -> Result<(), String> {
        let Some(kept) = self.kept.filter(|kept| kept.seq == seq) else { return Ok(()) };
        if kept.line != line {
            return Err("it is not the checkpoint that was kept elsewhere".to_owned());
        }
        self.outcome.kept_found = true;
        Ok(())
    }

    fn resolve_misfit(&mut self, next: Option<&Seen>) {
        if let Some((before, after)) = self.misfit.take() {
            let vouched = next.map(|next| next.prev == hex(&after.hash));
            self.outcome.bad = Some(blame(&before, &after, vouched));
        }
    }

    /// After the last line.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        if self.outcome.bad.is_none() {
            self.resolve_misfit(None);
        }
        if self.outcome.bad.is_none()
            && let Some((place, bytes, complete)) = self.torn.take()
        {
            if complete {
                // Whoever was killed had not come to the line's end.
                self.outcome.bad = Some(self.not_a_record(place));
            } else {
                self.outcome.torn.push(TornPart { place, bytes: bytes.len(), last: true });
            }
        }
        self.outcome
    }
}

/// Which of two neighbours that do not fit is bad. `vouched`: whether the record
/// after them, or its own signature, holds the second one.
fn blame(before: &Seen, after: &Seen, vouched: Option<bool>) -> Bad {
    let of = |seen: &Seen, reason: String| Bad { place: seen.place, seq: seen.seq, reason };
    let (hash_fits, number) = (after.prev == hex(&before.hash), before.seq.saturating_add(1));
    if after.begins_chain() {
        return of(after, format!("a new chain begins here, where record {number} should be"));
    }
    if vouched == Some(false) || hash_fits {
        return of(after, "it was altered".to_owned());
    }
    if after.seq == number || before.first {
        let doubt = if vouched.is_none() { ", or the one after it was" } else { "" };
        return of(before, format!("it was altered{doubt}: the next one holds another hash"));
    }
    if after.seq > number {
        let missing = format!("it is missing: record {} follows record {}", after.seq, before.seq);
        return Bad { place: after.place, seq: number, reason: missing };
    }
    of(after, format!("it is out of order: it follows record {}", before.seq))
}

/// Verifies whole texts, in order of rotation.
#[must_use]
pub fn verify(keys: &[VerifyKey], kept: Option<&Kept>, files: &[&[u8]]) -> Outcome {
    let mut verifier = Verifier::new(keys, kept);
    for (file, text) in files.iter().enumerate() {
        for (number, line) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
            let place = Place { file, line: number };
            let whole = line.strip_suffix(b"\n");
            if !verifier.line(place, whole.unwrap_or(line), whole.is_some()) {
                return verifier.finish();
            }
        }
    }
    verifier.finish()
}

#[cfg(test)]
mod tests;
