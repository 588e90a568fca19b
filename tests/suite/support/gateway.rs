//! A running gateway: the real binary as an operator starts it, or the same parts in
//! this process when a test must move the clock.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;

use bindgate::ambient::{Clock, Entropy, ManualTime};
use bindgate::app::{Ambient, App};
use bindgate::config::Config;
use tokio::sync::mpsc;

use super::client::{Answer, Client, Jar, Protocol, plain_get};
use super::metrics::Samples;
use super::setup::{HOST, Setup};
use super::{PATIENCE, eventually, eventually_async, within};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_bindgate");

/// One gateway and the files it was started from; killed with the value.
pub(crate) struct Gateway {
    pub(crate) https: SocketAddr,
    pub(crate) telemetry: SocketAddr,
    /// The plain HTTP listener, where one is configured.
    pub(crate) http: Option<SocketAddr>,
    /// Where the keys of internal assertions are told, if there are any.
    pub(crate) jwks: Option<SocketAddr>,
    pub(crate) setup: Setup,
    running: Running,
}

enum Running {
    Process(Child),
    /// Ends when it is dropped.
    Inside(Arc<App>),
    Ended,
}

impl Gateway {
    /// The real binary, waited for until it says that it is ready.
    pub(crate) async fn start(setup: Setup) -> Self {
        setup.save();
        let (child, [https, telemetry], [http, jwks]) = launch(&setup).await;
        Self { https, telemetry, http, jwks, setup, running: Running::Process(child) }
    }

    /// The same in this process, with a clock that only the test moves.
    pub(crate) async fn start_inside(setup: Setup) -> (Self, ManualTime) {
        setup.save();
        let (clock, time) = Clock::manual();
        let loaded = Config::load(&setup.config_file());
        let loaded = loaded.unwrap_or_else(|problems| panic!("configuration: {problems}"));
        let ambient = Ambient { clock, entropy: Entropy::system() };
        let starting = tokio::task::spawn_blocking(move || App::start(loaded.config, &ambient));
        let app = starting.await.expect("the start does not panic").expect("a gateway");
        let (https, telemetry) = (app.https(), app.telemetry());
        let (http, jwks) = (app.http(), app.jwks());
        let running = Running::Inside(Arc::new(app));
        (Self { https, telemetry, http, jwks, setup, running }, time)
    }

    /// Applies the configuration as it now stands, in this process.
    pub(crate) async fn reload_inside(&self) {
        let Running::Inside(app) = &self.running else { panic!("it runs elsewhere") };
        self.setup.save();
        let loaded = Config::load(&self.setup.config_file());
        let loaded = loaded.unwrap_or_else(|problems| panic!("configuration: {problems}"));
        let app = Arc::clone(app);
        let reloading = tokio::task::spawn_blocking(move || app.reload(loaded.config));
        reloading.await.expect("the reload does not panic").expect("it applies");
    }

    /// Starts the binary again from the same files, after it ended or was killed.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let (child, [https, telemetry], [http, jwks]) = launch(&self.setup).await;
        (self.https, self.telemetry, self.http, self.jwks) = (https, telemetry, http, jwks);
        self.running = Running::Process(child);
    }

    /// A browser without cookies, over HTTP/1.1.
    pub(crate) fn client(&self) -> Client {
        let pem = self.setup.authority.pem();
        Client {
            address: self.https,
            host: HOST.to_owned(),
            protocol: Protocol::Http1,
            jar: Jar::default(),
            http1: super::certs::client_config(pem, &["http/1.1"]),
            http2: super::certs::client_config(pem, &["h2"]),
        }
    }

    /// One page of the telemetry listener.
    pub(crate) async fn telemetry(&self, path: &str) -> Answer {
        plain_get(self.telemetry, path).await.expect("telemetry answers")
    }

    pub(crate) async fn metrics(&self) -> Samples {
        let answer = self.telemetry("/metrics").await;
        answer.expect_status(200);
        Samples::parse(answer.text())
    }

    /// Waits until this sum is that number, and fails at once when it is more.
    pub(crate) async fn counted(&self, name: &str, labels: &[(&str, &str)], count: f64) {
        let what = format!("{name}{labels:?} = {count}");
        eventually_async(&what, async || {
            let sum = self.metrics().await.sum(name, labels);
            assert!(sum < count + 0.5, "{what}, but it is {sum}");
            (sum > count - 0.5).then_some(())
        })
        .await;
    }

    /// Waits until this sum is that number or more.
    pub(crate) async fn counted_at_least(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        let what = format!("{name}{labels:?} >= {least}");
        eventually_async(&what, async || {
            (self.metrics().await.sum(name, labels) >= least).then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` has this status, and returns its text.
    pub(crate) async fn readiness(&self, status: u16) -> String {
        eventually_async(&format!("/readyz {status}"), async || {
            let answer = plain_get(self.telemetry, "/readyz").await.ok()?;
            (answer.status == status).then(|| answer.text().to_owned())
        })
        .await
    }

    /// Everything the process has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.setup.path("gateway.log")).unwrap_or_default()
    }

    /// Waits until the log holds this text.
    pub(crate) async fn logged(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || self.log().contains(text).then_some(()))
            .await;
    }

    /// Sends a signal, named as `kill` names it.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill").success(), "kill -{name} {pid}");
    }

    /// Ends it without warning, as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Running::Process(child) = &mut self.running {
            drop(child.kill());
            drop(child.wait());
        }
        self.running = Running::Ended;
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let Running::Process(child) = &mut self.running else { panic!("no process runs") };
        let status = eventually("the process ends", || child.try_wait().expect("a child")).await;
        self.running = Running::Ended;
        status
    }

    /// A number of kibibytes from `/proc/PID/status`, such as `VmHWM`.
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.expect("a line of that name").trim().trim_end_matches(" kB");
        number.parse().expect("a number")
    }

    pub(crate) fn pid(&self) -> u32 {
        let Running::Process(child) = &self.running else { panic!("no process runs") };
        child.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                eprintln!("gateway: {line}");
            }
        }
    }
}

/// What a command said, and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Gateway {
    /// Runs a command of the binary with this gateway's configuration.
    pub(crate) async fn command(&self, arguments: &str) -> Said {
        let config = self.setup.config_file();
        let mut all: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        all.extend(["--config".to_owned(), config.to_str().expect("UTF-8").to_owned()]);
        // A gateway inside this process must be able to answer meanwhile.
        let ran = tokio::task::spawn_blocking(move || {
            run(&all.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let output = ran.await.expect("no panic");
        let text = [output.stdout, output.stderr].concat();
        Said { code: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// Runs the binary to its end with these arguments.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

async fn launch(setup: &Setup) -> (Child, [SocketAddr; 2], [Option<SocketAddr>; 2]) {
    let log = File::create(setup.path("gateway.log")).expect("a log file");
    let mut child = with_many_descriptors(BINARY)
        .args(["serve", "--config"])
        .arg(setup.config_file())
        .envs(setup.variables().iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the binary starts");
    let ready = within(PATIENCE, "the ready line", ready_line(&mut child)).await;
    let Some(line) = ready else {
        let log = fs::read_to_string(setup.path("gateway.log")).unwrap_or_default();
        panic!("the gateway ended before it was ready:\n{log}\n{}", setup.toml());
    };
    let address = |key: &str| named_address(&line, key).unwrap_or_else(|| panic!("{key}: {line}"));
    let optional = ["http", "jwks"].map(|key| named_address(&line, key));
    (child, [address("https"), address("telemetry")], optional)
}

/// The address that `bindgate ready …` gives for this key.
pub(crate) fn named_address(line: &str, key: &str) -> Option<SocketAddr> {
    let values = line.split_whitespace().filter_map(|word| word.split_once('='));
    let mut fitting = values.filter(|(found, _)| *found == key);
    fitting.next()?.1.split(',').next()?.parse().ok()
}

/// The first line of stdout that says ready; the rest is read and thrown away.
async fn ready_line(child: &mut Child) -> Option<String> {
    let stdout = child.stdout.take().expect("stdout is piped");
    let (sender, mut lines) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens any more once the line was found.
            drop(sender.send(line));
        }
    });
    loop {
        let line = lines.recv().await?;
        if line.starts_with("bindgate ready ") {
            return Some(line);
        }
    }
}

/// A command that may open as many files as the system lets it.
fn with_many_descriptors(program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$@\"", "sh", program]);
    command
}
