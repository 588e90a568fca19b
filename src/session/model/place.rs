//! Where a history takes place: the gateway, its clock, its keys and its store, which
//! outlive it or not.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::ambient::{Clock, ManualTime};
use crate::config::{self, Topology};
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::session::tests::{start, token_config};
use crate::store::tests::redis::{servers::RedisServer, settings};

/// How long a gateway may take to hear of a store that is another one.
const PATIENCE: Duration = Duration::from_secs(20);

/// The store of a history.
#[derive(Clone, Copy)]
pub(super) enum Kind<'s> {
    Memory,
    Embedded,
    /// On a server of its own, which each history finds empty.
    Redis(&'s Mutex<RedisServer>),
}

/// The gateway, and what it starts from.
pub(super) struct Place<'s> {
    config: config::Store,
    server: Option<&'s Mutex<RedisServer>>,
    token: config::Token,
    pub(super) clock: Clock,
    pub(super) time: ManualTime,
    metrics: Metrics,
    folder: tempfile::TempDir,
    /// What Redis held at the last restart.
    older: Option<Vec<u8>>,
}

/// A gateway that runs, and follows the news where there are any.
pub(super) struct Running {
    sessions: Arc<Sessions>,
    _following: JoinSet<()>,
}

impl Deref for Running {
    type Target = Sessions;

    fn deref(&self) -> &Sessions {
        &self.sessions
    }
}

impl<'s> Place<'s> {
    pub(super) fn new(kind: Kind<'s>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, time) = Clock::manual();
        // Whole seconds, as the model counts.
        let millis = u64::try_from(clock.now().millis().rem_euclid(1000)).unwrap();
        time.advance(Duration::from_millis(1000 - millis));
        let (config, server) = match kind {
            Kind::Memory => (config::Store::Memory, None),
            Kind::Embedded => {
                (config::Store::Embedded { path: folder.path().join("state.redb") }, None)
            }
            Kind::Redis(server) => {
                let held = server.lock().unwrap();
                held.asked("FLUSHALL").unwrap();
                (settings(Topology::Single, &[held.port]), Some(server))
            }
        };
        let keys = folder.path().join("keys");
        let has_folder = !matches!(kind, Kind::Memory);
        let token = token_config(has_folder.then_some(keys.as_path()));
        let metrics = Metrics::new().unwrap();
        Self { config, server, token, clock, time, metrics, folder, older: None }
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.now().seconds()
    }

    pub(super) async fn start(&self) -> Running {
        let sessions = start(&self.config, &self.token, &self.clock, &self.metrics).await;
        let mut following = JoinSet::new();
        if sessions.store().is_shared() {
            let began = Instant::now();
            let them = Arc::clone(&sessions);
            following.spawn(async move {
                let mut follower = them.follower().unwrap();
                loop {
                    follower.step().await;
                }
            });
            hears_since(&sessions, began).await;
        }
        Running { sessions, _following: following }
    }

    /// As after a clean stop, which leaves a copy of the store for later.
    pub(super) async fn restart(&mut self, running: Running) -> Running {
        if self.token.keys_dir.is_none() {
            running.live.sweep(self.clock.now(), 1);
            return running;
        }
        running.flush().await;
        drop(running);
        if let (Some(server), config::Store::Redis(settings)) = (self.server, &self.config) {
            let server = server.lock().unwrap();
            // Whoever looked after the keys of all would have its turn for a while yet.
            server.asked(&format!("DEL {{{}}}:turn", settings.key_prefix)).unwrap();
            self.older = Some(server.backup());
        } else if let Some(file) = self.file() {
            fs::copy(file, self.older_file()).unwrap();
        }
        self.start().await
    }

    /// A restart without the store, or with an older one; or none, while Redis comes
    /// back empty.
    pub(super) async fn lose_store(
        &self,
        running: Running,
        (restored, through): (bool, bool),
    ) -> Running {
        if through && self.server.is_some() {
            self.revive(None);
            hears_since(&running.sessions, Instant::now()).await;
            return running;
        }
        drop(running);
        self.revive(self.older.as_deref().filter(|_| restored));
        if let Some(file) = self.file() {
            fs::remove_file(file).unwrap();
            if restored && self.older_file().exists() {
                fs::copy(self.older_file(), file).unwrap();
            }
        }
        self.start().await
    }

    /// Has Redis, if that is the store, come back with what a backup holds, or empty.
    fn revive(&self, backup: Option<&[u8]>) {
        if let Some(server) = self.server {
            server.lock().unwrap().restart(backup);
        }
    }

    fn file(&self) -> Option<&Path> {
        if let config::Store::Embedded { path } = &self.config { Some(path) } else { None }
    }

    fn older_file(&self) -> PathBuf {
        self.folder.path().join("older.redb")
    }
}

/// Waits until what was read from the store last is newer than this.
async fn hears_since(sessions: &Sessions, moment: Instant) {
    let store = sessions.store();
    while store.news_age().is_none_or(|age| age >= moment.elapsed()) {
        assert!(moment.elapsed() < PATIENCE, "the store is not heard");
        sleep(Duration::from_millis(1)).await;
    }
}
