//! The control socket: what operators tell the running gateway. One JSON object a
//! line each way; one command a connection, from the same user or root only. What
//! a command does is decided elsewhere.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

/// Commands at a time; further ones wait.
const CONNECTIONS_MAX: usize = 8;
/// Longest command, in bytes.
pub const COMMAND_BYTES_MAX: u64 = 4096;
/// For a command to come, and for each line of its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines of an answer that may wait for their reader.
const QUEUE: usize = 64;
/// Permission bits that let group or everybody else change a folder.
const OTHERS_WRITE: u32 = 0o022;

/// What an operator may tell the gateway: a closed set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// List sessions.
    SessionsList {
        /// Which.
        which: Which,
    },
    /// End sessions.
    SessionsRevoke {
        /// Which.
        which: Which,
    },
    /// List keys.
    KeysList {
        /// What they are for.
        purpose: Purpose,
    },
    /// Let a new key sign.
    KeysRotate {
        /// What it is for.
        purpose: Purpose,
        /// Whether the old keys are dropped at once.
        now: bool,
    },
    /// Say why no login or request would be served.
    Readiness {},
}

/// Which sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// Every one.
    All,
    /// Those of a user, by subject or by the directory's name of the account.
    User(String),
    /// The one of this id.
    Session(String),
}

/// What keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Session tokens.
    Session,
    /// Assertions for upstreams.
    Assertion,
}

/// One line of an answer; `Done` or `Failed` is the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A session.
    Session(SessionLine),
    /// A key.
    Key(KeyLine),
    /// Why the gateway is not ready, one line of `/readyz`.
    Reason(String),
    /// It was done, to so many.
    Done(u64),
    /// It was not done, or not wholly; one sentence.
    Failed(String),
}

/// One session; times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLine {
    /// Its id.
    pub session: String,
    /// Who logged in.
    pub subject: String,
    /// In which role.
    pub role: String,
    /// When it began.
    pub began: String,
    /// The last activity known.
    pub last_seen: String,
    /// Where the login came from.
    pub address: String,
    /// What the login came with.
    pub user_agent: Option<String>,
}

/// One key; times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLine {
    /// Its name.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: String,
    /// When it was made.
    pub created: String,
    /// What it does.
    pub usage: KeyUse,
}

/// What a key does; times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUse {
    /// It signs.
    Signs,
    /// It only verifies, since then.
    Verifies(String),
    /// It is published, and signs from then on.
    SignsFrom(String),
    /// It is published, as what it signed may be under way.
    Published,
    /// Nothing asks for it.
    Unused,
}

/// A command and where its answer goes. It is carried out to its end, whether
/// anybody still listens or not.
pub struct Asked {
    /// What is asked.
    pub command: Command,
    /// Takes the answer, line by line.
    pub answers: mpsc::Sender<Answer>,
}

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could put a socket of theirs there.
    #[error("{path}: other users may write to this folder; `chmod go-w {path}` closes it")]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Something is there that is no socket.
    #[error("{path}: is there already, and is no socket")]
    Occupied {
        /// The socket's path.
        path: PathBuf,
    },
    /// Another process answers there.
    #[error("{path}: another process listens there")]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
}

/// The bound socket. Its file goes with it, unless another has taken its place.
pub struct Control {
    listener: UnixListener,
    file: SocketFile,
}

struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Who made it: the user that we run as.
    owner: u32,
}

impl Control {
    /// Makes the socket, for its owner alone from its first moment on, in place of
    /// one that a dead process left behind. Inside a runtime.
    ///
    /// # Errors
    /// When it cannot be made safely, or another process listens there.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Io { path: path.to_owned(), source };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if fs::metadata(folder).map_err(failed)?.mode() & OTHERS_WRITE != 0 {
            return Err(ControlError::Folder { path: folder.to_owned() });
        }
        refuse_occupied(path)?;
        // Made where nobody else can look, and moved into place when its mode is right.
        let hidden = folder.join(format!(".ctl{}", std::process::id()));
        let inside = hidden.join("s");
        clear(&hidden, &inside);
        DirBuilder::new().mode(0o700).create(&hidden).map_err(failed)?;
        let bound = (|| {
            let listener = UnixListener::bind(&inside)?;
            fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
            let facts = fs::symlink_metadata(&inside)?;
            fs::rename(&inside, path)?;
            let identity = (facts.dev(), facts.ino());
            Ok((listener, SocketFile { path: path.to_owned(), identity, owner: facts.uid() }))
        })();
        clear(&hidden, &inside);
        let (listener, file) = bound.map_err(failed)?;
        Ok(Self { listener, file })
    }

    /// Hands commands over until dropped.
    pub async fn serve(self, commands: mpsc::Sender<Asked>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if !self.file.may_command(&stream) {
                        tracing::warn!("somebody else tried the control socket");
                        continue;
                    }
                    let commands = commands.clone();
                    tokio::spawn(async move {
                        // What goes wrong there concerns only that operator.
                        let _ = converse(stream, &commands).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl SocketFile {
    /// Root and the user that we run as. The file's mode says the same; it may have
    /// been changed.
    fn may_command(&self, stream: &UnixStream) -> bool {
        let peer = stream.peer_cred().map(|peer| peer.uid());
        peer.is_ok_and(|user| user == 0 || user == self.owner)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path).map(|facts| (facts.dev(), facts.ino()));
        if there.is_ok_and(|there| there == self.identity) {
            // A next process replaces what is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Something of ours in the way is removed; nobody else can have made it.
fn clear(hidden: &Path, inside: &Path) {
    let _ = fs::remove_file(inside);
    let _ = fs::remove_dir(hidden);
}

fn refuse_occupied(path: &Path) -> Result<(), ControlError> {
    let path = || path.to_owned();
    match fs::symlink_metadata(path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ControlError::Io { path: path(), source }),
        Ok(facts) if !facts.file_type().is_socket() => {
            return Err(ControlError::Occupied { path: path() });
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path()) {
        Ok(_) => Err(ControlError::InUse { path: path() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(source) => Err(ControlError::Io { path: path(), source }),
    }
}

async fn converse(mut stream: UnixStream, commands: &mpsc::Sender<Asked>) -> io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut line = Vec::new();
    let mut reading = BufReader::new(reading.take(COMMAND_BYTES_MAX));
    timeout(PATIENCE, reading.read_until(b'\n', &mut line)).await??;
    let Ok(command) = serde_json::from_slice(&line) else {
        let sentence = "this gateway does not know that command".to_owned();
        return say(&mut writing, &Answer::Failed(sentence)).await;
    };
    let (answers, mut lines) = mpsc::channel(QUEUE);
    if commands.send(Asked { command, answers }).await.is_err() {
        return say(&mut writing, &Answer::Failed("the gateway is stopping".to_owned())).await;
    }
    while let Some(answer) = lines.recv().await {
        say(&mut writing, &answer).await?;
    }
    Ok(())
}

async fn say(writing: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    timeout(PATIENCE, writing.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::sync::mpsc;

    use super::{Answer, Asked, Command, Control, ControlError, Which};

    /// A socket that answers every command with its name.
    fn serve(path: &Path) -> tokio::task::JoinHandle<()> {
        let control = Control::bind(path).unwrap();
        let (commands, mut asked) = mpsc::channel::<Asked>(1);
        tokio::spawn(async move {
            while let Some(Asked { command, answers }) = asked.recv().await {
                answers.send(Answer::Failed(format!("{command:?}"))).await.unwrap();
                answers.send(Answer::Done(7)).await.unwrap();
            }
        });
        tokio::spawn(control.serve(commands))
    }

    async fn ask(path: &Path, line: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // A command that is too long is not read to its end.
        let _ = stream.write_all(line).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_command_is_handed_over_and_its_answer_comes_back_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let serving = serve(&path);
        let command = Command::SessionsRevoke { which: Which::User("zoë".to_owned()) };
        let line = serde_json::to_string(&command).unwrap() + "\n";
        let answer = ask(&path, line.as_bytes()).await;
        assert!(answer.contains("zoë") && answer.ends_with("{\"done\":7}\n"), "{answer}");
        for wrong in ["\n", "{}\n", "{\"command\":\"stop\"}\n", "[1", &"x".repeat(100_000)] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let _ = stream.write_all(wrong.as_bytes()).await;
            let _ = stream.shutdown().await;
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!(!answer.contains("done"), "{wrong:.20}: {answer}");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_and_goes_with_the_gateway() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let control = Control::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        drop(control);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_process_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let live = Control::bind(&path).unwrap();
        assert!(matches!(Control::bind(&path), Err(ControlError::InUse { .. })));
        // A kill leaves the file behind, and nobody that listens.
        let image = folder.path().join("left.sock");
        fs::hard_link(&path, &image).unwrap();
        drop(live);
        fs::rename(&image, &path).unwrap();
        let next = Control::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(next);
        fs::write(&path, "a file").unwrap();
        assert!(matches!(Control::bind(&path), Err(ControlError::Occupied { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }

    #[tokio::test]
    async fn a_folder_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(Control::bind(&path), Err(ControlError::Folder { .. })));
        let missing = folder.path().join("missing/control.sock");
        assert!(matches!(Control::bind(&missing), Err(ControlError::Io { .. })));
    }
}
