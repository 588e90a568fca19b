//! A relay between us and a directory server that lets a login come to one step and
//! then strikes: everything through it suffers until it is told to stop.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The step at which it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// Nothing has been said on a new connection.
    BeforeTls,
    /// The client has said hello, and is to be answered.
    InHandshake,
    /// The search is on its way to the server.
    BeforeSearch,
    /// The search is answered; a connection for the bind is being opened.
    AfterSearch,
    /// The bind is on its way to the server.
    BeforeBind,
    /// The bind has reached the server, and is to be answered.
    AfterBind,
    /// The bind is answered; what comes next suffers.
    AfterAnswer,
    /// What was asked after the bind, on its connection, has reached the server, and is to
    /// be answered.
    AfterChange,
    /// The same of what was asked on the connection of the search, which its length tells
    /// from a further search.
    AfterServiceChange,
}

/// More bytes than a search has for what a login needs to know, and fewer than a change to
/// a long password.
const CHANGE_BYTES_MIN: usize = 400;

pub(crate) const POINTS: [Point; 7] = [
    Point::BeforeTls,
    Point::InHandshake,
    Point::BeforeSearch,
    Point::AfterSearch,
    Point::BeforeBind,
    Point::AfterBind,
    Point::AfterAnswer,
];

/// What it does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Ends every connection, and each new one.
    Cut,
    /// Passes nothing on.
    Stall,
    /// As `Cut`, with a reset.
    Reset,
    /// Passes half of what the server says next, then ends.
    Truncate,
    /// Inverts a byte of all that the server says.
    Corrupt,
}

pub(crate) const FAULTS: [Fault; 5] =
    [Fault::Cut, Fault::Stall, Fault::Reset, Fault::Truncate, Fault::Corrupt];

/// A running relay; it ends with the value.
pub(crate) struct Saboteur {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    plan: Mutex<Plan>,
    /// The fault that everything suffers now, and how often all were ended.
    now: watch::Sender<(Option<Fault>, u64)>,
    open: AtomicUsize,
}

/// What it waits for.
#[derive(Default)]
struct Plan {
    strike: Option<(Point, Fault)>,
    /// The connection on which something was said first, which is the search.
    service: Option<usize>,
    /// How often something was said on another.
    said: usize,
}

impl Saboteur {
    /// At the server's own address, which its certificate names.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((server.ip(), 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (now, _) = watch::channel((None, 0));
        let shared = Arc::new(Shared { plan: Mutex::default(), now, open: AtomicUsize::new(0) });
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Strikes as soon as a login comes to that point.
    pub(crate) fn strikes(&self, point: Point, fault: Fault) {
        let mut plan = self.shared.plan();
        *plan = Plan { strike: Some((point, fault)), ..Plan::default() };
        match point {
            Point::BeforeTls => {
                plan.strike = None;
                // They are ended, so that the login needs new ones, which suffer.
                self.shared
                    .now
                    .send_modify(|(now, ended)| (*now, *ended) = (Some(fault), *ended + 1));
            }
            Point::InHandshake => self.shared.end_all(None),
            _ => {}
        }
    }

    /// Ends what has suffered, and passes everything from now on.
    pub(crate) fn stops(&self) {
        *self.shared.plan() = Plan::default();
        self.shared.end_all(None);
    }

    /// How many connections are open through it.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_all(&self, now: Option<Fault>) {
        self.now.send_modify(|state| *state = (now, state.1 + 1));
    }

    fn strike(&self, plan: &mut Plan, fault: Fault) {
        *plan = Plan::default();
        self.now.send_modify(|state| state.0 = Some(fault));
    }

    /// A connection is opened.
    fn opened(&self) {
        let mut plan = self.plan();
        if let (Some((Point::AfterSearch, fault)), Some(_)) = (plan.strike, plan.service) {
            self.strike(&mut plan, fault);
        }
    }

    /// The client says something; true when it has to be passed on whatever comes then.
    fn client_says(&self, connection: usize, length: usize) -> bool {
        let mut plan = self.plan();
        let Some((point, fault)) = plan.strike else { return false };
        let is_bind = *plan.service.get_or_insert(connection) != connection;
        plan.said += usize::from(is_bind);
        match point {
            Point::BeforeSearch => self.strike(&mut plan, fault),
            Point::BeforeBind if is_bind => self.strike(&mut plan, fault),
            Point::InHandshake => {
                self.strike(&mut plan, fault);
                return true;
            }
            Point::AfterChange if is_bind && plan.said == 2 => {
                self.strike(&mut plan, fault);
                return true;
            }
            Point::AfterServiceChange
                if !is_bind && plan.said > 0 && length >= CHANGE_BYTES_MIN =>
            {
                self.strike(&mut plan, fault);
                return true;
            }
            Point::AfterBind if is_bind => {
                self.strike(&mut plan, fault);
                return true;
            }
            _ => {}
        }
        false
    }

    /// The server's words were passed on.
    fn server_said(&self, connection: usize) {
        let mut plan = self.plan();
        let Some((Point::AfterAnswer, fault)) = plan.strike else { return };
        if plan.service.is_some_and(|service| service != connection) {
            self.strike(&mut plan, fault);
        }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                number += 1;
                shared.opened();
                shared.open.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    relay(client, server, number, &shared).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr, number: usize, shared: &Shared) {
    let mut now = shared.now.subscribe();
    let (_, born) = *now.borrow_and_update();
    let Ok(mut upstream) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let (mut up, mut down) = (vec![0_u8; 64 * 1024], vec![0_u8; 64 * 1024]);
    loop {
        let (fault, ended) = *now.borrow_and_update();
        if ended != born || fault == Some(Fault::Cut) {
            return;
        }
        if fault == Some(Fault::Reset) {
            // A linger of zero throws the rest away.
            let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
            return;
        }
        if fault == Some(Fault::Stall) {
            // Somebody who hangs up is noticed even when nothing is passed.
            if is_gone(&client) {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), now.changed()).await;
            continue;
        }
        tokio::select! {
            biased;
            changed = now.changed() => if changed.is_err() { return },
            count = client.read(&mut up) => {
                let Ok(count @ 1..) = count else { return };
                let must_pass = shared.client_says(number, count);
                // What was struck on its way does not arrive.
                let struck = shared.now.borrow().0;
                let lost = matches!(struck, Some(Fault::Cut | Fault::Reset | Fault::Stall));
                if (must_pass || !lost) && upstream.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            count = upstream.read(&mut down) => {
                let Ok(count @ 1..) = count else { return };
                if !pass_down(&mut client, &mut down[..count], fault).await {
                    return;
                }
                shared.server_said(number);
            }
        }
    }
}

/// False when the connection has to end.
async fn pass_down(client: &mut TcpStream, said: &mut [u8], fault: Option<Fault>) -> bool {
    let half = said.len() / 2;
    match fault {
        Some(Fault::Truncate) => {
            let _ = client.write_all(&said[..half]).await;
            let _ = client.shutdown().await;
            false
        }
        Some(Fault::Corrupt) => {
            said[half] ^= 0xff;
            client.write_all(said).await.is_ok()
        }
        _ => client.write_all(said).await.is_ok(),
    }
}

/// Whether the other side has closed and nothing is left to read.
fn is_gone(client: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    matches!(socket2::SockRef::from(client).peek(&mut byte), Ok(0))
}
