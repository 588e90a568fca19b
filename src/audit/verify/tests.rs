//! What verification must notice, and what it must not claim.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use crate::ambient::Timestamp;
use crate::audit::chain::{Chain, Torn, hash};
use crate::audit::kept::{Kept, KeptError};
use crate::audit::key::{CheckpointKey, VerifyKey};
use crate::audit::record::{Event, Record, Stamped};
use crate::audit::verify::{Outcome, Place, verify};
use crate::secret::Secret;

fn key(seed: u8) -> CheckpointKey {
    CheckpointKey::from_seed("audit-1", &Secret::new([seed; 32])).unwrap()
}

fn chain() -> Chain {
    Chain::new(key(7), Timestamp::from_millis(0))
}

fn keys() -> [VerifyKey; 1] {
    [key(7).public()]
}

fn add(chain: &mut Chain, out: &mut Vec<u8>, count: usize) {
    for _ in 0..count {
        let record = Record::new(Event::Request, "allow");
        chain.record(out, &Stamped { time: Timestamp::from_millis(0), record });
    }
}

/// Records 1 to 5, checkpoint 6, records 7 to 9, checkpoint 10.
fn log() -> Vec<u8> {
    let (mut chain, mut out) = (chain(), Vec::new());
    for count in [5, 3] {
        add(&mut chain, &mut out, count);
        chain.checkpoint(&mut out, Timestamp::from_millis(0));
    }
    out
}

fn line(log: &[u8], number: usize) -> Vec<u8> {
    log.split_inclusive(|byte| *byte == b'\n').nth(number - 1).unwrap().to_vec()
}

fn without(log: &[u8], number: usize) -> Vec<u8> {
    let lines = log.split_inclusive(|byte| *byte == b'\n').enumerate();
    lines.filter(|(at, _)| at + 1 != number).flat_map(|(_, line)| line.to_vec()).collect()
}

fn with_key(files: &[&[u8]]) -> Outcome {
    verify(&keys(), None, files)
}

fn bad_line(outcome: &Outcome) -> Option<u64> {
    outcome.bad.as_ref().map(|bad| bad.place.line)
}

#[test]
fn a_log_is_proved_up_to_its_last_checkpoint_and_no_further() {
    let (mut chain, mut out) = (chain(), Vec::new());
    add(&mut chain, &mut out, 5);
    chain.checkpoint(&mut out, Timestamp::from_millis(0));
    add(&mut chain, &mut out, 2);
    let outcome = with_key(&[&out]);
    assert_eq!((outcome.first, outcome.last, &outcome.bad), (Some(1), Some(8), &None));
    assert_eq!(outcome.proved.unwrap().seq, 6);
}

#[test]
fn without_a_key_nothing_is_proved_but_the_chain() {
    let outcome = verify(&[], None, &[&log()]);
    assert_eq!((outcome.last, outcome.proved, outcome.bad), (Some(10), None, None));
}

#[test]
fn a_missing_record_is_named() {
    let outcome = with_key(&[&without(&log(), 3)]);
    let bad = outcome.bad.unwrap();
    assert_eq!((bad.seq, bad.place), (3, Place { file: 0, line: 3 }));
    assert!(bad.reason.contains("missing"), "{}", bad.reason);
}

#[test]
fn a_chain_made_anew_does_not_pass_for_the_signed_one() {
    let mut forged = Chain::new(key(8), Timestamp::from_millis(0));
    let mut out = Vec::new();
    add(&mut forged, &mut out, 3);
    forged.checkpoint(&mut out, Timestamp::from_millis(0));
    assert_eq!(bad_line(&with_key(&[&out])), Some(4));
    assert_eq!(verify(&[], None, &[&out]).bad, None, "the chain alone is whole");
    // The old checkpoint put behind altered records.
    let mut moved = chain();
    let mut out = Vec::new();
    let record = Record::new(Event::Login, "forged");
    moved.record(&mut out, &Stamped { time: Timestamp::from_millis(0), record });
    add(&mut moved, &mut out, 4);
    out.extend_from_slice(&line(&log(), 6));
    assert!(with_key(&[&out]).bad.is_some());
}

#[test]
fn checkpoints_cannot_be_left_out_by_the_thousand() {
    let (mut forged, mut out) = (chain(), Vec::new());
    for _ in 0..1100 {
        add(&mut forged, &mut out, 1);
        forged.continue_from(last_head(&out), true);
    }
    assert_eq!(bad_line(&with_key(&[&out])), Some(1002));
}

fn last_head(out: &[u8]) -> crate::audit::chain::Head {
    let last = out.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap();
    let seq = crate::audit::chain::Line::parse(last).unwrap().seq;
    crate::audit::chain::Head { seq, hash: hash(last) }
}

#[test]
fn files_are_verified_in_order_of_rotation() {
    let whole = log();
    let cut = whole.len() - line(&whole, 10).len() - line(&whole, 9).len();
    let (old, new) = whole.split_at(cut);
    assert_eq!(with_key(&[old, new]), with_key(&[&whole]));
    assert!(with_key(&[new, old]).bad.is_some());
    let outcome = with_key(&[new]);
    assert_eq!((outcome.first, outcome.bad), (Some(9), None));
    assert!(with_key(&[old, old]).bad.unwrap().reason.contains("new chain"));
}

#[test]
fn a_torn_last_line_is_reported_and_the_rest_verified() {
    let mut torn = log();
    torn.truncate(torn.len() - 30);
    let outcome = with_key(&[&torn]);
    assert_eq!((outcome.last, outcome.bad), (Some(9), None));
    assert_eq!(outcome.torn.len(), 1);
    assert!(outcome.torn[0].last);
    assert_eq!(outcome.torn[0].place.line, 10);
}

#[test]
fn a_torn_line_in_the_middle_needs_the_next_record_to_vouch_for_it() {
    let (mut chain, mut out) = (chain(), Vec::new());
    add(&mut chain, &mut out, 2);
    let half = br#"{"seq":3,"pr"#;
    out.extend_from_slice(half);
    out.push(b'\n');
    let unvouched = out.clone();
    chain.torn(&mut out, Timestamp::from_millis(0), &Torn { hash: hash(half), bytes: 12 });
    chain.checkpoint(&mut out, Timestamp::from_millis(0));
    let outcome = with_key(&[&out]);
    assert_eq!((outcome.last, &outcome.bad, outcome.torn.len()), (Some(4), &None, 1));
    let altered = String::from_utf8(out).unwrap().replace("\"pr\n", "\"px\n");
    assert_eq!(bad_line(&with_key(&[altered.as_bytes()])), Some(3));
    assert_eq!(bad_line(&with_key(&[&unvouched])), Some(3));
}

#[test]
fn a_tail_that_was_cut_off_is_noticed_by_a_checkpoint_kept_elsewhere() {
    let whole = log();
    let kept = String::from_utf8(line(&whole, 10)).unwrap();
    let logged = serde_json::json!({"message": "audit checkpoint", "checkpoint": kept});
    for text in [kept.clone(), logged.to_string()] {
        let kept = Kept::parse(&text, &keys()).unwrap();
        assert!(verify(&keys(), Some(&kept), &[&whole]).kept_found);
        let cut = &whole[..whole.len() - line(&whole, 10).len()];
        let outcome = verify(&keys(), Some(&kept), &[cut]);
        assert_eq!((outcome.kept_found, outcome.bad), (false, None));
    }
    let altered = kept.replace("1970", "1971");
    assert_eq!(Kept::parse(&altered, &keys()), Err(KeptError::NotSigned));
    assert_eq!(Kept::parse("{}", &keys()), Err(KeptError::NotACheckpoint));
}

proptest! {
    #[test]
    fn any_altered_byte_has_its_record_named(at in any::<prop::sample::Index>(), mask in 1_u8..) {
        let mut log = log();
        // Without its last line end the file is one with a torn last line.
        let at = at.index(log.len() - 1);
        let number = log[..=at].split_inclusive(|byte| *byte == b'\n').count() as u64;
        log[at] ^= mask;
        let outcome = with_key(&[&log]);
        prop_assert_eq!(bad_line(&outcome), Some(number), "{:?}", outcome);
        prop_assert!(outcome.proved.is_none_or(|proved| proved.seq < number));
    }

    #[test]
    fn no_bytes_make_the_verifier_panic(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
        let mut log = log();
        let at = at.index(log.len());
        log.splice(at..at, bytes);
        let _ = with_key(&[&log]);
    }
}
