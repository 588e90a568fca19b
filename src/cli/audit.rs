//! `bindgate audit verify`: reads the files, has them verified, and says in plain
//! words what is proved, what is not, and which record is bad.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::audit::{
    Kept, KeptError, KeyError, LINE_BYTES_MAX, Outcome, Place, Verifier, VerifyKey,
};
use crate::cli::{AuditVerify, serve};
use crate::config::Config;
use crate::token;

/// A key file is no longer than this.
const KEY_BYTES_MAX: u64 = 1 << 20;

/// Nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The key file holds no key of an audit log.
    #[error("{path}: {cause}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: KeyError,
    },
    /// The value of `--checkpoint` cannot be used.
    #[error("--checkpoint: {0}")]
    Kept(#[from] KeptError),
    /// The answer could not be printed.
    #[error("{0}")]
    Print(#[source] io::Error),
}

/// Verifies the files that the arguments name.
pub(super) fn run(args: &AuditVerify) -> ExitCode {
    let keys = match keys(args) {
        Ok(keys) => keys,
        Err(code) => return code,
    };
    let verified = verify(&keys, args.checkpoint.as_deref(), &args.files, &mut io::stdout().lock());
    match verified {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => serve::fail(&error),
    }
}

/// The keys to trust: from a file, from the gateway's own folder, or none.
fn keys(args: &AuditVerify) -> Result<Vec<VerifyKey>, ExitCode> {
    if let Some(file) = &args.public_key {
        return public_keys(file).map_err(|error| serve::fail(&error));
    }
    let Some(file) = &args.config else { return Ok(Vec::new()) };
    let loaded = Config::load(file).map_err(|problems| serve::fail(&problems))?;
    let Some(dir) = loaded.config.token.keys_dir else {
        return Err(serve::fail(&"this configuration keeps no keys (token.keys_dir)"));
    };
    let keys = token::audit_public_keys(&dir).map_err(|error| serve::fail(&error))?;
    Ok(keys.into_iter().map(|(kid, x)| VerifyKey::new(kid, x)).collect())
}

/// The keys in the file of `--public-key`: a JSON Web Key, a set of them, or a
/// private key file of `keys_dir` whose purpose is `audit`.
///
/// # Errors
/// When it cannot be read or holds no such key.
pub fn public_keys(path: &Path) -> Result<Vec<VerifyKey>, VerifyError> {
    let failed = |cause| VerifyError::File { path: path.to_owned(), cause };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > KEY_BYTES_MAX {
        return Err(VerifyError::Key { path: path.to_owned(), cause: KeyError::NotAKey });
    }
    let text = fs::read(path).map_err(failed)?;
    VerifyKey::parse(&text).map_err(|cause| VerifyError::Key { path: path.to_owned(), cause })
}

/// Verifies the files, in order of rotation, and prints the findings. Without
/// keys only the chain is verified. The result says whether all is well: exit
/// code 0, else 1.
///
/// # Errors
/// When a file or the checkpoint cannot be used at all: exit code 1 too.
pub fn verify(
    keys: &[VerifyKey],
    checkpoint: Option<&str>,
    files: &[PathBuf],
    out: &mut impl Write,
) -> Result<bool, VerifyError> {
    let kept = checkpoint.map(|text| Kept::parse(text, keys)).transpose()?;
    let mut verifier = Verifier::new(keys, kept.as_ref());
    for (number, path) in files.iter().enumerate() {
        let goes_on = read(&mut verifier, number, path)
            .map_err(|cause| VerifyError::File { path: path.to_owned(), cause })?;
        if !goes_on {
            break;
        }
    }
    let findings = Findings { outcome: verifier.finish(), kept, keyed: !keys.is_empty(), files };
    findings.print(out).map_err(VerifyError::Print)?;
    Ok(findings.is_well())
}

/// Feeds one file to the verifier, line by line, so that its size does not matter.
fn read(verifier: &mut Verifier<'_>, file: usize, path: &Path) -> io::Result<bool> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        if reader.by_ref().take(limit + 2).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let whole = text.strip_suffix(b"\n");
        if !verifier.line(Place { file, line }, whole.unwrap_or(&text), whole.is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// All that there is to say.
struct Findings<'a> {
    outcome: Outcome,
    kept: Option<Kept>,
    keyed: bool,
    files: &'a [PathBuf],
}

impl Findings<'_> {
    fn is_well(&self) -> bool {
        let kept_holds = self.kept.is_none() || self.outcome.kept_found;
        self.outcome.bad.is_none() && self.outcome.last.is_some() && kept_holds
    }

    fn at(&self, place: Place) -> String {
        let file = self.files.get(place.file).map(|path| path.display().to_string());
        format!("{}:{}", file.unwrap_or_default(), place.line)
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.beginning(out)?;
        self.proof(out)?;
        for torn in &self.outcome.torn {
            let (at, bytes) = (self.at(torn.place), torn.bytes);
            if torn.last {
                writeln!(
                    out,
                    "torn: {at}: the last line is torn ({bytes} bytes, no line end): the process ended while it wrote it"
                )?;
            } else {
                writeln!(
                    out,
                    "torn: {at}: a line was torn ({bytes} bytes); the record after it vouches for what is left of it"
                )?;
            }
        }
        self.kept(out)?;
        if let Some(bad) = &self.outcome.bad {
            let at = self.at(bad.place);
            writeln!(out, "bad: {at}: record {}: {}", bad.seq, bad.reason)?;
        }
        Ok(())
    }

    fn beginning(&self, out: &mut impl Write) -> io::Result<()> {
        match self.outcome.first {
            None if self.outcome.bad.is_some() => Ok(()),
            None => writeln!(out, "empty: there is no record to verify"),
            Some(1) => writeln!(out, "begins: at record 1, the beginning of the chain"),
            Some(first) => writeln!(
                out,
                "begins: at record {first}; the {} before it are not in these files and not verified",
                first - 1
            ),
        }
    }

    fn proof(&self, out: &mut impl Write) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.outcome.first, self.outcome.last) else {
            return Ok(());
        };
        let Some(proved) = &self.outcome.proved else {
            return if self.keyed {
                writeln!(
                    out,
                    "unproved: records {first} to {last}: the chain is whole, but no checkpoint proves it"
                )
            } else {
                writeln!(
                    out,
                    "chain: records {first} to {last} each hold the hash of the one before; without a key this proves only the chain, which whoever can write the file could have made anew"
                )
            };
        };
        writeln!(
            out,
            "proved: records {first} to {} are unaltered, by the checkpoint of {} signed with key {}",
            proved.seq, proved.time, proved.kid
        )?;
        if proved.seq < last {
            let from = proved.seq + 1;
            writeln!(out, "unproved: records {from} to {last}: no checkpoint follows them yet")?;
        }
        Ok(())
    }

    fn kept(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let seq = kept.seq;
        if self.outcome.kept_found {
            return writeln!(
                out,
                "kept: the checkpoint kept elsewhere is record {seq}: nothing was cut off before it"
            );
        }
        match (self.outcome.first, self.outcome.last) {
            (Some(first), _) if seq < first => {
                writeln!(
                    out,
                    "bad: the checkpoint kept elsewhere is record {seq}, but these files begin at record {first}"
                )
            }
            (_, last) => {
                let last = last.unwrap_or(0);
                writeln!(
                    out,
                    "bad: records {} to {seq} were cut off: the checkpoint kept elsewhere is record {seq}",
                    last + 1
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::{VerifyError, public_keys, verify};
    use crate::ambient::Clock;
    use crate::audit::{Audit, AuditKeys, CheckpointKey, Event, Record};
    use crate::config::{LogFormat, LogLevel, Telemetry};
    use crate::metrics::Metrics;
    use crate::secret::Secret;

    fn key() -> CheckpointKey {
        CheckpointKey::from_seed("audit-1", &Secret::new([7; 32])).unwrap()
    }

    /// A folder with `old.jsonl` (records 1-3) and `audit.jsonl` (4-7), each ending in a checkpoint.
    async fn logs() -> (TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old.jsonl"), folder.path().join("audit.jsonl"));
        let telemetry = Telemetry {
            listen: "127.0.0.1:0".parse().unwrap(),
            log_format: LogFormat::Json,
            log_level: LogLevel::Info,
            audit_file: Some(new.clone()),
            audit_requests: true,
            audit_required: true,
            control_socket: None,
        };
        let keys = AuditKeys { checkpoint: key(), login_names: Secret::new([9; 32]) };
        let metrics = Metrics::new().unwrap();
        let audit = Audit::open(&telemetry, keys, Clock::system(), &metrics).unwrap();
        for turn in 0..2 {
            for _ in 0..2 {
                audit.durable(Record::new(Event::Login, "success")).await.unwrap();
            }
            if turn == 0 {
                fs::rename(&new, &old).unwrap();
                audit.reload(&telemetry).await.unwrap();
            }
        }
        audit.close().await;
        (folder, old, new)
    }

    fn said(keyed: bool, checkpoint: Option<&str>, files: &[PathBuf]) -> (bool, String) {
        let keys = if keyed { vec![key().public()] } else { Vec::new() };
        let mut out = Vec::new();
        let well = verify(&keys, checkpoint, files, &mut out).unwrap();
        (well, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn rotated_files_in_order_are_proved_to_their_end() {
        let (_folder, old, new) = logs().await;
        let (well, text) = said(true, None, &[old.clone(), new.clone()]);
        assert!(well, "{text}");
        assert!(text.contains("proved: records 1 to 7 are unaltered"), "{text}");
        let (well, text) = said(true, None, std::slice::from_ref(&new));
        assert!(well && text.contains("begins: at record 4"), "{text}");
        let (well, text) = said(true, None, &[new, old]);
        assert!(!well && text.contains("bad: "), "{text}");
    }

    #[tokio::test]
    async fn without_a_key_it_says_that_only_the_chain_is_proved() {
        let (_folder, old, _) = logs().await;
        let (well, text) = said(false, None, &[old]);
        assert!(well && text.contains("proves only the chain"), "{text}");
        assert!(!text.contains("proved:"), "{text}");
    }

    #[tokio::test]
    async fn an_altered_record_is_named_with_file_and_line() {
        let (_folder, old, new) = logs().await;
        let text = fs::read_to_string(&new).unwrap().replacen("success", "succesz", 1);
        fs::write(&new, text).unwrap();
        let (well, text) = said(true, None, &[old, new.clone()]);
        assert!(!well);
        assert!(text.contains(&format!("bad: {}:2: record 5: ", new.display())), "{text}");
        assert!(text.contains("proved: records 1 to 4"), "{text}");
    }

    #[tokio::test]
    async fn a_cut_tail_is_noticed_only_with_the_checkpoint_kept_elsewhere() {
        let (_folder, old, new) = logs().await;
        let whole = fs::read_to_string(&new).unwrap();
        let kept = whole.lines().last().unwrap().to_owned();
        let files = [old, new.clone()];
        let (well, text) = said(true, Some(&kept), &files);
        assert!(well && text.contains("nothing was cut off before it"), "{text}");
        fs::write(&new, "").unwrap();
        assert!(said(true, None, &files).0);
        let (well, text) = said(true, Some(&kept), &files);
        assert!(!well && text.contains("records 4 to 7 were cut off"), "{text}");
    }

    #[tokio::test]
    async fn a_torn_last_line_is_reported_as_such() {
        let (_folder, old, _) = logs().await;
        let text = fs::read(&old).unwrap();
        fs::write(&old, &text[..text.len() - 9]).unwrap();
        let (well, text) = said(true, None, &[old]);
        assert!(well && text.contains("the last line is torn"), "{text}");
        assert!(text.contains("unproved: records 1 to 2"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_or_is_empty_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        fs::write(&empty, "").unwrap();
        assert!(!said(false, None, std::slice::from_ref(&empty)).0);
        let missing = [folder.path().join("missing")];
        let result = verify(&[], None, &missing, &mut Vec::new());
        assert!(matches!(result, Err(VerifyError::File { .. })));
        assert!(matches!(public_keys(&empty), Err(VerifyError::Key { .. })));
        fs::write(&empty, key().public().to_jwk()).unwrap();
        assert_eq!(public_keys(&empty).unwrap(), [key().public()]);
    }
}
