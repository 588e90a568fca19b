//! A TCP relay that can be made to fail: between gateway and directory, or between
//! gateway and upstream. What was opened while it was well can be cut later.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the relay does to its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Passes everything.
    Well,
    /// Ends every open connection, and each new one at once.
    Cut,
    /// As `Cut`, but with a reset instead of an end.
    Reset,
    /// Open connections live on; new ones are ended at once.
    NoNewcomers,
    /// Open connections live on; new ones are taken and hear nothing, for good.
    DeafToNewcomers,
    /// Takes connections and bytes, and passes nothing on.
    Stall,
    /// Passes on what clients say, and nothing that the server answers.
    Mute,
    /// Passes this many bytes of the server on a connection, then ends it.
    Truncate(usize),
    /// Inverts the server's byte at this place of each connection.
    Corrupt(usize),
    /// Answers every connection with these bytes instead of the server's.
    Babble(Vec<u8>),
}

/// A running relay; it ends with the value.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    mood: watch::Sender<Mood>,
    ending: watch::Sender<u32>,
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (mood, watching) = watch::channel(Mood::Well);
        let (ending, ended) = watch::channel(0);
        let (opened, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = [&opened, &open].map(Arc::clone);
        let accepting = tokio::spawn(accept(listener, server, (watching, ended), counts));
        Self { address, mood, ending, opened, open, accepting }
    }

    pub(crate) fn becomes(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Ends the connections that are open now, whatever its mood.
    pub(crate) fn end_all(&self) {
        self.ending.send_modify(|times| *times += 1);
    }

    /// How many connections were opened through it.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// How many connections are open through it.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    (mood, ended): (watch::Receiver<Mood>, watch::Receiver<u32>),
    [opened, open]: [Arc<AtomicUsize>; 2],
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                opened.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let relaying = relay(client, server, mood.clone());
                let (open, mut ended) = (Arc::clone(&open), ended.clone());
                connections.spawn(async move {
                    ended.mark_unchanged();
                    tokio::select! {
                        () = relaying => {}
                        _ = ended.changed() => {}
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr, mut mood: watch::Receiver<Mood>) {
    let now = mood.borrow_and_update().clone();
    match now {
        Mood::Cut | Mood::NoNewcomers => return,
        Mood::Reset => return reset(&client),
        Mood::Babble(bytes) => {
            let _ = client.write_all(&bytes).await;
            let mut sink = [0_u8; 4096];
            while matches!(client.read(&mut sink).await, Ok(count) if count > 0) {}
            return;
        }
        Mood::DeafToNewcomers => {
            let mut sink = [0_u8; 4096];
            while matches!(client.read(&mut sink).await, Ok(count) if count > 0) {}
            return;
        }
        Mood::Well | Mood::Stall | Mood::Mute | Mood::Truncate(_) | Mood::Corrupt(_) => {}
    }
    let Ok(mut upstream) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = upstream.split();
        let up = copy(client_read, server_write, mood.clone(), Direction::Up);
        let down = copy(server_read, client_write, mood.clone(), Direction::Down);
        tokio::select! {
            () = async { tokio::join!(up, down); } => return,
            () = ended(&mut mood) => {}
        }
    }
    if *mood.borrow() == Mood::Reset {
        reset(&client);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Resolves when open connections are to end.
async fn ended(mood: &mut watch::Receiver<Mood>) {
    let gone = mood.wait_for(|mood| matches!(mood, Mood::Cut | Mood::Reset)).await.is_err();
    if gone {
        std::future::pending::<()>().await;
    }
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mood: watch::Receiver<Mood>,
    direction: Direction,
) {
    let mut passed = 0_usize;
    let mut buffer = vec![0_u8; 64 * 1024];
    while let Ok(mut count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let lets_through = |mood: &Mood| match mood {
            Mood::Stall => false,
            Mood::Mute => direction == Direction::Up,
            _ => true,
        };
        if mood.wait_for(lets_through).await.is_err() {
            break;
        }
        let now = mood.borrow().clone();
        let mut last = false;
        if direction == Direction::Down {
            match now {
                Mood::Truncate(limit) if passed + count >= limit => {
                    count = limit.saturating_sub(passed);
                    last = true;
                }
                Mood::Corrupt(at) if (passed..passed + count).contains(&at) => {
                    buffer[at - passed] ^= 0xff;
                }
                _ => {}
            }
        }
        passed += count;
        if to.write_all(&buffer[..count]).await.is_err() || last {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Ends a connection with RST: a linger of zero throws the rest away.
fn reset(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_linger(Some(Duration::ZERO));
}
