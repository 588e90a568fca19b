//! The services of `tests/safeplaces`, run by Node: what a published backend's own guard
//! makes of the requests that reach it. Each counts what it receives.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::client::plain_get;
use super::{PATIENCE, within};

/// The folder of the services, and of the packages that `.ci/setup` installed for them.
fn folders() -> (PathBuf, PathBuf) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/npm/safeplaces/node_modules");
    assert!(modules.join("guard-v2").exists(), "the services' packages are installed (.ci/setup)");
    (root.join("tests/safeplaces"), modules)
}

/// `node SCRIPT` with the installed packages in reach.
pub(crate) fn node(script: &str) -> Command {
    let (services, modules) = folders();
    let mut command = Command::new("node");
    // Nothing of the machine's own settings, and no proxy between guard and key set.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.arg("--no-warnings").arg(services.join(script)).env("NODE_PATH", modules);
    command
}

/// One running service; killed with the value.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    report: SocketAddr,
    process: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<Value>,
}

impl Service {
    /// Listens, and knows nothing yet: [`Service::configure`] makes it serve.
    pub(crate) async fn start(era: &str) -> Self {
        let mut command = node("service.js");
        command.arg(era).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("node is installed (.ci/setup)");
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().expect("piped");
        let (sender, mut lines) = mpsc::unbounded_channel::<Value>();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // What the era's own code prints is no JSON, and nobody's business.
                if let Ok(value) = serde_json::from_str(&line) {
                    drop(sender.send(value));
                }
            }
        });
        let said = within(PATIENCE, "the service's ports", lines.recv()).await;
        let said = said.expect("the service says its ports");
        let at = |name: &str| {
            let port = said[name].as_u64().and_then(|port| u16::try_from(port).ok());
            SocketAddr::from(([127, 0, 0, 1], port.expect("a port")))
        };
        Self { address: at("port"), report: at("report"), process, stdin, lines }
    }

    /// Gives it its environment, and waits until it serves.
    pub(crate) async fn configure(&mut self, environment: &Value) {
        let stdin = self.stdin.as_mut().expect("configured once");
        writeln!(stdin, "{environment}").expect("the service reads");
        let said = within(PATIENCE, "the service is ready", self.lines.recv()).await;
        assert_eq!(said, Some(json!({ "ready": true })), "it ended: see its errors above");
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything received so far, oldest first: `method`, `url`, `headers` (names and
    /// values in turn), `handled` (what the handler was told, if it ran) and `status`.
    pub(crate) async fn seen(&self) -> Vec<Value> {
        let answer = plain_get(self.report, "/").await.expect("the service reports");
        let Value::Array(seen) = answer.json() else { panic!("a list") };
        seen
    }

    /// The request received last.
    pub(crate) async fn last(&self) -> Value {
        self.seen().await.pop().expect("a request")
    }

    /// Whether its process lives.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.try_wait().expect("a child").is_none()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// All values of a header that the service received, as they came.
pub(crate) fn values(seen: &Value, name: &str) -> Vec<String> {
    let texts: Vec<&str> =
        seen["headers"].as_array().expect("headers").iter().filter_map(Value::as_str).collect();
    let pairs = texts.chunks_exact(2).filter(|pair| pair[0].eq_ignore_ascii_case(name));
    pairs.map(|pair| pair[1].to_owned()).collect()
}
