//! The audit file: opened, locked, appended to, and resumed in the middle of a
//! line after a failed write. Knows lines only by their ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::audit::chain::{CHECKPOINT, Head, Line, Torn, hash};

/// The last record of a file must end within so many bytes of its end.
const TAIL_BYTES_MAX: u64 = 1 << 20;
/// How every line begins.
const LINE_BEGIN: &[u8] = b"{\"seq\":";
/// What a buffer keeps of its memory once it is empty.
const KEPT_BYTES: usize = 1 << 20;

/// The audit file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened or read.
    #[error("audit file {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Another process writes it.
    #[error("audit file {0}: another process is writing it")]
    InUse(PathBuf),
    /// It holds something else, and a record after that would prove nothing.
    #[error("audit file {0}: its end is no audit record; move the file away")]
    NotAnAuditLog(PathBuf),
    /// The disk is full in the middle of a line.
    #[error("the audit file ends in half a line until its disk takes the rest; then reload again")]
    HalfWritten,
    /// The writer's thread could not be started.
    #[error("the audit thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// The audit log is closed.
    #[error("the audit log is closed")]
    Closed,
}

/// What an opened file ends with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing is in it.
    Empty,
    /// The chain goes on from here.
    Record {
        head: Head,
        /// Whether the last record is a checkpoint.
        signed: bool,
        /// What stands after the last record.
        torn: Option<Torn>,
    },
}

/// An open audit file and the bytes that it has not taken yet.
pub(super) struct Sink {
    file: File,
    regular: bool,
    pending: Vec<u8>,
    written: usize,
}

impl Sink {
    /// Opens the file for appending, made with mode 0600 if it is not there.
    pub(super) fn open(path: &Path) -> Result<(Self, End), AuditError> {
        let failed = |cause| AuditError::File { path: path.to_owned(), cause };
        // Opening a pipe that nobody reads would hang.
        if path.metadata().is_ok_and(|data| data.file_type().is_fifo()) {
            return Err(failed(io::Error::new(
                ErrorKind::InvalidInput,
                "a pipe cannot be audited",
            )));
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let regular = file.metadata().map_err(failed)?.is_file();
        if !regular {
            return Ok((Self::new(file, false), End::Empty));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AuditError::InUse(path.to_owned())),
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        let mut sink = Self::new(file, true);
        let end = sink.read_end(path)?;
        if end == End::Empty {
            // A new file must outlive a power cut by its name too; some file systems cannot promise it.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
        }
        Ok((sink, end))
    }

    fn new(file: File, regular: bool) -> Self {
        Self { file, regular, pending: Vec::new(), written: 0 }
    }

    /// Finds the last record, and what a process that was killed left after it.
    fn read_end(&mut self, path: &Path) -> Result<End, AuditError> {
        let failed = |cause| AuditError::File { path: path.to_owned(), cause };
        let length = self.file.metadata().map_err(failed)?.len();
        if length == 0 {
            return Ok(End::Empty);
        }
        let begin = length.saturating_sub(TAIL_BYTES_MAX);
        self.file.seek(SeekFrom::Start(begin)).map_err(failed)?;
        let mut tail = Vec::new();
        (&self.file).take(TAIL_BYTES_MAX).read_to_end(&mut tail).map_err(failed)?;
        let end = end_of(&tail).ok_or_else(|| AuditError::NotAnAuditLog(path.to_owned()))?;
        if tail.last() != Some(&b'\n') {
            self.pending.push(b'\n');
        }
        Ok(end)
    }

    /// Where lines to be written are appended.
    pub(super) const fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// How many bytes wait to be written.
    pub(super) fn backlog(&self) -> usize {
        self.pending.len() - self.written
    }

    /// Writes what is pending. After an error the next call resumes at the very
    /// byte where this one stopped, so that a full disk tears no line.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.backlog() > 0 {
            match self.file.write(&self.pending[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.pending.clear();
        self.pending.shrink_to(KEPT_BYTES);
        self.written = 0;
        Ok(())
    }

    /// Has what was written put on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        // A device such as /dev/stdout has no disk.
        if self.regular { self.file.sync_data() } else { Ok(()) }
    }

    /// Whether `path` is this very file still.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let (Ok(mine), Ok(there)) = (self.file.metadata(), path.metadata()) else { return false };
        (mine.dev(), mine.ino()) == (there.dev(), there.ino())
    }

    /// Whether the file ends in half a line, so that nothing else may take over.
    pub(super) fn is_mid_line(&self) -> bool {
        self.written > 0 && self.pending[self.written - 1] != b'\n'
    }

    /// The lines that the file has not taken.
    pub(super) fn into_pending(mut self) -> Vec<u8> {
        self.pending.split_off(self.written)
    }
}

/// The last record in the last bytes of a file. `None` when it holds none, yet
/// something else.
fn end_of(tail: &[u8]) -> Option<End> {
    let mut complete = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // Killed between a record's last byte and its line end: that end is all it lacks.
    if let Some(line) = Line::parse(&tail[complete..]) {
        let head = Head { seq: line.seq, hash: hash(&tail[complete..]) };
        return Some(End::Record { head, signed: line.event == CHECKPOINT, torn: None });
    }
    while complete > 0 {
        let before = &tail[..complete - 1];
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if let Some(line) = Line::parse(&before[begin..]) {
            return Some(End::Record {
                head: Head { seq: line.seq, hash: hash(&before[begin..]) },
                signed: line.event == CHECKPOINT && complete == tail.len(),
                torn: torn(&tail[complete..]),
            });
        }
        complete = begin;
    }
    // Killed while writing its first line: nothing of the chain is here yet.
    let begins = tail.starts_with(LINE_BEGIN) || LINE_BEGIN.starts_with(tail);
    let half_a_line = begins && !tail.contains(&b'\n');
    half_a_line.then(|| End::Record { head: Head::BEGINNING, signed: false, torn: torn(tail) })
}

fn torn(region: &[u8]) -> Option<Torn> {
    let region = region.strip_suffix(b"\n").unwrap_or(region);
    (!region.is_empty()).then(|| Torn { hash: hash(region), bytes: region.len() })
}

#[cfg(test)]
impl Sink {
    /// Writes to anything that is a file descriptor.
    pub(super) fn of(file: File) -> Self {
        Self::new(file, false)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{AuditError, End, Sink, end_of};
    use crate::audit::chain::{Head, hash};

    const RECORD: &str = r#"{"seq":7,"prev":"0000000000000000000000000000000000000000000000000000000000000000","time":"","event":"login"}"#;

    fn head() -> Head {
        Head { seq: 7, hash: hash(RECORD.as_bytes()) }
    }

    #[test]
    fn the_end_is_the_last_record_and_what_stands_after_it() {
        let end = |text: String| end_of(text.as_bytes());
        let whole = End::Record { head: head(), signed: false, torn: None };
        assert_eq!(end(format!("{RECORD}\n")), Some(whole));
        for after in ["{\"seq\":8,\"pr", "{\"seq\":8\n", "{\"seq\":8\n{\"se"] {
            let Some(End::Record { head: found, torn: Some(torn), .. }) =
                end(format!("{RECORD}\n{after}"))
            else {
                panic!("{after}");
            };
            assert_eq!(found, head());
            assert_eq!(torn.hash, hash(after.trim_end().as_bytes()));
        }
        assert_eq!(end("hello\nworld\n".to_owned()), None);
        assert_eq!(end("hello".to_owned()), None);
    }

    #[test]
    fn a_record_that_lacks_only_its_line_end_is_whole() {
        let whole = End::Record { head: head(), signed: false, torn: None };
        assert_eq!(end_of(RECORD.as_bytes()), Some(whole));
    }

    #[test]
    fn two_processes_cannot_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let first = Sink::open(&path).unwrap();
        assert!(matches!(Sink::open(&path), Err(AuditError::InUse(_))));
        drop(first);
        assert!(Sink::open(&path).is_ok());
    }

    #[test]
    fn a_file_of_something_else_is_not_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "buy milk\n").unwrap();
        assert!(matches!(Sink::open(&path), Err(AuditError::NotAnAuditLog(_))));
        assert!(matches!(
            Sink::open(Path::new("/nonexistent/audit.jsonl")),
            Err(AuditError::File { .. })
        ));
    }
}
