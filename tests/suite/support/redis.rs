//! Real Redis servers on loopback: one, a primary with replicas and sentinels, or a
//! cluster. They end with the process that started them, however that ends. Also
//! used by the tests beside the store's code, so it names nothing of this crate.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

/// How long servers may take to come up, and to agree with each other.
const PATIENCE: Duration = Duration::from_mins(1);
/// A shell that ends the server when its input ends, as it does with this process.
const KEEPER: &str = r#""$@" >/dev/null 2>&1 & server=$!; read end; kill -9 $server; wait $server"#;
/// The name that sentinels know the primary by.
pub const MASTER: &str = "main";

/// One server; dropping it kills it.
pub struct RedisServer {
    keeper: Child,
    program: &'static str,
    /// Where it listens.
    pub port: u16,
    folder: TempDir,
}

impl RedisServer {
    /// A server that keeps nothing on disk.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_at(free_port(), settings)
    }

    /// One at a port.
    pub fn start_at(port: u16, settings: &[&str]) -> Self {
        let text = format!("port {port}\nbind 127.0.0.1\nsave \"\"\nrepl-diskless-sync-delay 0\n");
        Self::run("redis-server", port, &(text + &settings.join("\n")))
    }

    fn run(program: &'static str, port: u16, settings: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("conf"), settings).expect("a file");
        let server = Self { keeper: keeper(program, &folder), program, port, folder };
        server.is_up();
        server
    }

    fn is_up(&self) {
        let complaint = format!("{} does not come up", self.program);
        until(&complaint, || {
            self.asked("PING").is_some_and(|answer| !answer.starts_with("-LOADING"))
        });
    }

    /// What it would load at a start, as of now.
    pub fn backup(&self) -> Vec<u8> {
        let saved = self.asked("SAVE").expect("an answer");
        assert!(saved.starts_with("+OK"), "{saved}");
        std::fs::read(self.dump()).expect("a backup")
    }

    /// Kills it and starts it again: empty, or with what a backup holds.
    pub fn restart(&mut self, backup: Option<&[u8]>) {
        self.kill();
        let _ = std::fs::remove_file(self.dump());
        if let Some(backup) = backup {
            std::fs::write(self.dump(), backup).expect("a file");
        }
        self.keeper = keeper(self.program, &self.folder);
        self.is_up();
    }

    fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }

    /// What it answers to an inline command; `None` when it does not.
    pub fn asked(&self, command: &str) -> Option<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = vec![0; 65_536];
        let length = stream.read(&mut answer).ok().filter(|length| *length > 0)?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A primary, two replicas and three sentinels.
pub struct Sentinels {
    /// The primary first.
    pub servers: Vec<RedisServer>,
    /// Those who know which it is.
    pub sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts them, and waits until they know each other.
    pub fn start() -> Self {
        let mut servers = vec![RedisServer::start(&[])];
        let primary = servers[0].port;
        let replica = format!("replicaof 127.0.0.1 {primary}");
        servers.extend((0..2).map(|_| RedisServer::start(&[&replica])));
        until("the replicas do not follow", || {
            let info = servers[0].asked("INFO replication").unwrap_or_default();
            info.matches("state=online").count() == 2
        });
        let settings = |port: u16| {
            format!(
                "port {port}\nbind 127.0.0.1\n\
                 sentinel monitor {MASTER} 127.0.0.1 {primary} 2\n\
                 sentinel down-after-milliseconds {MASTER} 1000\n\
                 sentinel failover-timeout {MASTER} 4000\n"
            )
        };
        let sentinels: Vec<_> = (0..3)
            .map(|_| {
                let port = free_port();
                RedisServer::run("redis-sentinel", port, &settings(port))
            })
            .collect();
        until("the sentinels do not know each other", || {
            sentinels.iter().all(|sentinel| {
                let known =
                    sentinel.asked(&format!("SENTINEL MASTER {MASTER}")).unwrap_or_default();
                let field = |name: &str| {
                    let mut lines = known.lines().skip_while(move |line| *line != name);
                    lines.nth(2).map(str::to_owned)
                };
                field("num-other-sentinels").as_deref() == Some("2")
                    && field("num-slaves").as_deref() == Some("2")
            })
        });
        Self { servers, sentinels }
    }
}

/// Three primaries with a replica each.
pub struct Cluster {
    /// The nodes; nobody knows which are primaries.
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Starts it, and waits until it serves.
    pub fn start() -> Self {
        let nodes: Vec<_> = (0..6)
            .map(|_| {
                let bus = format!("cluster-port {}", free_port());
                RedisServer::start(&["cluster-enabled yes", "cluster-node-timeout 1000", &bus])
            })
            .collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create", "--cluster-replicas", "1", "--cluster-yes"]);
        create.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        let created = create.output().expect("redis-cli");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        until("the cluster does not serve", || {
            nodes.iter().all(|node| {
                let info = node.asked("CLUSTER INFO").unwrap_or_default();
                let follows = node.asked("INFO replication").unwrap_or_default();
                info.contains("cluster_state:ok")
                    && (follows.contains("state=online")
                        || follows.contains("master_link_status:up"))
            })
        });
        Self { nodes }
    }

    /// The primary that holds a key.
    pub fn primary_of(&mut self, key: &str) -> &mut RedisServer {
        let slot = self.nodes[0].asked(&format!("CLUSTER KEYSLOT {key}")).expect("a slot");
        let slot: u32 = slot.trim().trim_start_matches(':').parse().expect("a number");
        let nodes = self.nodes[0].asked("CLUSTER NODES").expect("its nodes");
        let holds = |line: &&str| {
            line.contains("master")
                && line.split(' ').skip(8).any(|range| {
                    let (from, to) = range.split_once('-').unwrap_or((range, range));
                    let within = from.parse::<u32>().ok().zip(to.trim().parse::<u32>().ok());
                    within.is_some_and(|(from, to)| from <= slot && slot <= to)
                })
        };
        let line = nodes.lines().find(holds).expect("a primary").to_owned();
        let at = |node: &&mut RedisServer| line.contains(&format!(":{}@", node.port));
        self.nodes.iter_mut().find(at).expect("a node of ours")
    }
}

fn keeper(program: &str, folder: &TempDir) -> Child {
    Command::new("sh")
        .args(["-c", KEEPER, "keeper", program, "conf"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

fn until(complaint: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{complaint}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
