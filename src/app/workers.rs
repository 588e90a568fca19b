//! The worker threads: each with its listeners, its runtime and its gateway.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
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

    /// Starts one thread a worker.
    pub(super) fn serve(
        self,
        services: &Arc<Services>,
        shared: &ServerShared,
    ) -> Result<Vec<JoinHandle<()>>, AppError> {
        let own = self.https.workers.into_iter().zip(self.http.workers);
        let start = |(number, (https, http))| {
            let (services, shared) = (Arc::clone(services), shared.clone());
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                if let Err(error) = run(Own { https, http }, services, shared) {
                    tracing::error!(%error, "a worker could not start");
                }
            })
        };
        own.enumerate().map(start).collect::<Result<_, _>>().map_err(failed("workers"))
    }
}

fn run(own: Own, services: Arc<Services>, shared: ServerShared) -> Result<(), AppError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(failed("worker runtime"))?;
    let gateway = Rc::new(Gateway::new(services).map_err(failed("worker"))?);
    let plain = Rc::new(PlainHttp::new(Rc::clone(&gateway)));
    runtime.block_on(async {
        let Own { https, http } = own;
        let http = server::serve_plain(http, plain, shared.clone());
        tokio::join!(server::serve(https, gateway, shared), http);
    });
    Ok(())
}
