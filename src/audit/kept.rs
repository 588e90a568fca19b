//! A checkpoint on its own: whether a key signed it, and the one that was kept
//! away from the log to compare with. Opens nothing.

use crate::audit::chain::{BEFORE_SIGNATURE, CHECKPOINT, Line};
use crate::audit::key::VerifyKey;

/// The checkpoint kept elsewhere cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// It is not a checkpoint line.
    #[error("not a checkpoint line of an audit log")]
    NotACheckpoint,
    /// The key did not sign it.
    #[error("the key given did not sign this checkpoint")]
    NotSigned,
}

/// A checkpoint kept away from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The checkpoint's number.
    pub seq: u64,
    /// The whole line.
    pub(super) line: Vec<u8>,
}

impl Kept {
    /// From the line of the audit file, or the line of the JSON log that holds it.
    ///
    /// # Errors
    /// When it is no checkpoint, or not signed by one of `keys` (if there are any).
    pub fn parse(text: &str, keys: &[VerifyKey]) -> Result<Self, KeptError> {
        let log: serde_json::Value =
            serde_json::from_str(text).map_err(|_| KeptError::NotACheckpoint)?;
        let inner = log["checkpoint"].as_str().or_else(|| log["fields"]["checkpoint"].as_str());
        let line = inner.unwrap_or(text).trim().as_bytes().to_owned();
        let parsed = Line::parse(&line)
            .filter(|parsed| parsed.event == CHECKPOINT)
            .ok_or(KeptError::NotACheckpoint)?;
        if !keys.is_empty() && signature_holds(&parsed, &line, keys).is_err() {
            return Err(KeptError::NotSigned);
        }
        Ok(Self { seq: parsed.seq, line })
    }
}

/// Whether one of the keys signed this checkpoint line, exactly as it stands.
pub(super) fn signature_holds(
    parsed: &Line,
    line: &[u8],
    keys: &[VerifyKey],
) -> Result<(), String> {
    let kid = parsed.kid.as_deref().unwrap_or_default();
    let mut named = keys.iter().filter(|key| key.kid() == kid).peekable();
    if named.peek().is_none() {
        return Err(format!("it is signed by the key \"{}\", which was not given", printable(kid)));
    }
    let signature = parsed.signature.as_deref().unwrap_or_default();
    // Signed are the bytes before the member, and nothing but the signature may follow.
    let end = [BEFORE_SIGNATURE, signature.as_bytes(), b"\"}"].concat();
    match line.strip_suffix(end.as_slice()) {
        Some(signed) if named.any(|key| key.holds(signed, signature)) => Ok(()),
        _ => Err("its signature does not hold: it, or a record since the checkpoint before, \
                  is not what was signed"
            .to_owned()),
    }
}

/// Text of a log that may have been altered, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(64).collect()
}
