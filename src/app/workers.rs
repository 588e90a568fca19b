//! The worker threads: each with its listeners, its runtime and its gateway.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, LocalOptions};

use crate::app::{AppError, failed};
use crate::config;
use crate::gateway::{Gateway, PlainHttp, Services};
use crate::server::{self, Bound, ServerShared};

/// The bound listeners of all workers.
pub(super) struct Listeners {
    https: Bound,
    http: Bound,
}

/// Where a worker says whether it could start.
type Ready = mpsc::Sender<Result<(), AppError>>;

/// The listeners of one worker.
struct Own {
    https: Vec<TcpListener>,
    http: Vec<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration names, once a worker.
    pub(super) fn bind(server: &config::Server) -> Result<Self, AppError> {
        let workers = if server.workers == 0 {
            thread::available_parallelism().map_err(failed("server.workers"))?.get()
        } else {
            server.workers
        };
        let https = server::bind(&server.listen, workers).map_err(failed("server.listen"))?;
        let plain: Vec<SocketAddr> = server.plain_http_listen.into_iter().collect();
        let http = server::bind(&plain, workers).map_err(failed("server.plain_http_listen"))?;
        Ok(Self { https, http })
    }

    /// The https addresses, as bound.
    pub(super) fn https(&self) -> Vec<SocketAddr> {
        self.https.addresses.clone()
    }

    /// The plain address, as bound, if there is one.
    pub(super) fn http(&self) -> Option<SocketAddr> {
        self.http.addresses.first().copied()
    }

    /// Starts one thread a worker, and waits until each has its runtime and its gateway:
    /// a listener that nobody serves would let its clients hang.
    pub(super) fn serve(
        self,
        services: &Arc<Services>,
        shared: &ServerShared,
    ) -> Result<Vec<JoinHandle<()>>, AppError> {
        let own = self.https.workers.into_iter().zip(self.http.workers);
        let (ready, started) = mpsc::channel();
        let start = |(number, (https, http))| {
            let (services, shared, ready) = (Arc::clone(services), shared.clone(), ready.clone());
            let run = move || run(Own { https, http }, services, shared, &ready);
            thread::Builder::new().name(format!("worker-{number}")).spawn(run)
        };
        let threads: Vec<JoinHandle<()>> =
            own.enumerate().map(start).collect::<Result<_, _>>().map_err(failed("workers"))?;
        drop(ready);
        for _ in &threads {
            started.recv().map_err(failed("workers"))??;
        }
        Ok(threads)
    }
}

/// Serves until the drain is over; says first whether it can.
fn run(own: Own, services: Arc<Services>, shared: ServerShared, ready: &Ready) {
    let made = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(failed("worker runtime"))
        .and_then(|runtime| Ok((runtime, Gateway::new(services).map_err(failed("worker"))?)));
    let (runtime, gateway) = match made {
        Ok(made) => made,
        Err(error) => {
            // Whoever started us waits for this word.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let gateway = Rc::new(gateway);
    let plain = Rc::new(PlainHttp::new(Rc::clone(&gateway)));
    runtime.block_on(async {
        let Own { https, http } = own;
        let http = server::serve_plain(http, plain, shared.clone());
        tokio::join!(server::serve(https, gateway, shared), http);
    });
}
