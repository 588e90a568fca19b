//! Logins a second against a real `OpenLDAP` server, at 1, 16 and 64 clients: by a bare
//! loop over the LDAP library, by our directory layer, and whole ones over HTTPS, with
//! store and audit log in the folder for temporary files, and in memory. All take turns
//! within one run; what is compared are medians of ratios within a round. Prints figures;
//! judges none.
//!
//!     cargo bench --bench logins [-- --rounds 3 --seconds 3]

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on panics")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Scope, SearchOptions, StdStream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use bindgate::ambient::{Clock, Entropy};
use bindgate::app::{Ambient, App};
use bindgate::config::{Config, LdapTransport};
use bindgate::directory::Directory;
use bindgate::identity::Credentials;
use bindgate::metrics::Metrics;
use bindgate::secret::Secret;

#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/suite/support/certs.rs"]
mod certs;
#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/suite/support/setup.rs"]
mod setup;
#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/suite/support/slapd.rs"]
mod slapd;

use crate::certs::client_config;
use crate::setup::{HOST, Setup};
use crate::slapd::{PASSWORD, SERVICE_DN, SERVICE_PASSWORD, Slapd};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error + Send + Sync>;

const CLIENTS: [usize; 3] = [1, 16, 64];
/// A file system in memory, as Linux has it.
const MEMORY: &str = "/dev/shm";
const GROUP: &str = "cn=contact_tracers,ou=groups,dc=example,dc=org";
/// As the directory layer asks for them.
const ATTRIBUTES: [&str; 7] = [
    "uid",
    "pwdLastSet",
    "pwdChangedTime",
    "pwdUpdateTime",
    "objectGUID",
    "nsUniqueId",
    "entryUUID",
];

/// Every client is somebody else, in one group.
fn name(client: usize) -> String {
    format!("client{client:02}")
}

fn dn(client: usize) -> String {
    format!("uid={},ou=people,dc=example,dc=org", name(client))
}

fn add_people(slapd: &Slapd) {
    let people = (0..CLIENTS[2]).map(|client| {
        let (name, dn) = (name(client), dn(client));
        format!(
            "dn: {dn}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n\
             userPassword: {PASSWORD}\n\n"
        )
    });
    slapd.ldapadd(&people.collect::<String>());
    let members = (0..CLIENTS[2]).map(|client| format!("member: {}\n", dn(client)));
    let head = format!("dn: {GROUP}\nchangetype: modify\nadd: member\n");
    slapd.ldapmodify(&(head + &members.collect::<String>()));
}

/// Everything that is measured, side by side.
struct Bench {
    slapd: Slapd,
    directory: Arc<Directory>,
    on_disk: Gateway,
    in_memory: Gateway,
}

/// A whole gateway, as it would be served.
struct Gateway {
    address: SocketAddr,
    connector: TlsConnector,
    _app: App,
    _setup: Setup,
}

fn main() -> Result<(), Failure> {
    let (rounds, seconds) = arguments()?;
    let slapd = Slapd::start();
    add_people(&slapd);
    let mut section = slapd.directory(LdapTransport::Tls);
    section.bind_connections = 64;
    let directory = Directory::new(&section, &Metrics::new()?, &Entropy::system())?;
    let bench = Arc::new(Bench {
        directory: Arc::new(directory),
        on_disk: Gateway::start(&slapd, &std::env::temp_dir())?,
        in_memory: Gateway::start(&slapd, Path::new(MEMORY))?,
        slapd,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        println!("| clients | bare loop | directory layer | whole, on a disk | whole, in memory |");
        println!("|--:|--:|--:|--:|--:|");
        for clients in CLIENTS {
            measure(&bench, clients, rounds, Duration::from_secs(seconds)).await?;
        }
        Ok(())
    })
}

fn arguments() -> Result<(usize, u64), Failure> {
    let (mut rounds, mut seconds) = (3, 3);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--rounds" => rounds = arguments.next().ok_or("a number is missing")?.parse()?,
            "--seconds" => seconds = arguments.next().ok_or("a number is missing")?.parse()?,
            // Cargo adds it.
            "--bench" => {}
            other => return Err(format!("{other} is not known").into()),
        }
    }
    Ok((rounds, seconds))
}

impl Gateway {
    /// With audit log and store in a folder below that one.
    fn start(slapd: &Slapd, folder: &Path) -> Result<Self, Failure> {
        let (setup, config) = gateway_of(slapd, folder)?;
        let ambient = Ambient { clock: Clock::system(), entropy: Entropy::system() };
        let app = App::start(config, &ambient)?;
        Ok(Self {
            address: app.https(),
            connector: TlsConnector::from(client_config(setup.authority.pem(), &["http/1.1"])),
            _app: app,
            _setup: setup,
        })
    }
}

fn gateway_of(slapd: &Slapd, folder: &Path) -> Result<(Setup, Config), Failure> {
    let mut setup = Setup::within(folder, &slapd.toml(LdapTransport::Tls), "http://127.0.0.1:9");
    let section = slapd.toml(LdapTransport::Tls);
    let section = section.replace("timeout = \"5s\"", "timeout = \"5s\"\nbind_connections = 64");
    setup.directory(&section);
    setup.set("telemetry", "log_level", "\"error\"");
    // All come from one address, and each has a place there until it has succeeded: with the
    // limits as they come, twenty would be under way and the others wait for them.
    setup.set("throttle", "login_per_address", "\"100000 per 5m\"");
    setup.set("throttle", "accounts_per_address", "\"100000 per 5m\"");
    setup.save();
    let loaded = Config::load(&setup.config_file()).map_err(|problems| problems.to_string())?;
    Ok((setup, loaded.config))
}

/// One line of the table: logins a second, and the ratios to the bare loop.
async fn measure(
    bench: &Arc<Bench>,
    clients: usize,
    rounds: usize,
    time: Duration,
) -> Result<(), Failure> {
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        rates[0].push(bare(bench, clients, time).await?);
        rates[1].push(layer(bench, clients, time).await?);
        rates[2].push(whole(&bench.on_disk, clients, time).await?);
        rates[3].push(whole(&bench.in_memory, clients, time).await?);
    }
    let ratio = |which: usize| {
        let pairs = rates[which].iter().zip(&rates[0]);
        median(pairs.map(|(rate, bare)| rate / bare).collect())
    };
    let rate = |which: usize| median(rates[which].clone());
    let compared = |which: usize| format!("{:.0} ({:.2})", rate(which), ratio(which));
    let [layer, on_disk, in_memory] = [1, 2, 3].map(compared);
    println!("| {clients} | {:.0} | {layer} | {on_disk} | {in_memory} |", rate(0));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Has every client do the same again and again, and says how often in a second.
async fn rate<C, F>(
    time: Duration,
    clients: Vec<C>,
    once: impl Fn(C) -> F + Copy + Send + 'static,
) -> Result<f64, Failure>
where
    C: Send + 'static,
    F: Future<Output = Result<C, Failure>> + Send,
{
    let began = Instant::now();
    let mut running = JoinSet::new();
    for mut client in clients {
        running.spawn(async move {
            let mut done = 0_u32;
            while began.elapsed() < time {
                client = once(client).await?;
                done += 1;
            }
            Ok::<_, Failure>(done)
        });
    }
    let mut done = 0;
    while let Some(count) = running.join_next().await {
        done += count??;
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}

/// The library alone: a shared connection that searches, one for each client that
/// binds; no delay, no deadline, no guard, no account's state, no metrics.
async fn bare(bench: &Arc<Bench>, clients: usize, time: Duration) -> Result<f64, Failure> {
    let mut shared = connect(bench).await?;
    shared.simple_bind(SERVICE_DN, SERVICE_PASSWORD).await?.success()?;
    let mut connections = Vec::new();
    for client in 0..clients {
        connections.push((client, shared.clone(), connect(bench).await?));
    }
    rate(time, connections, |(client, mut shared, mut own)| async move {
        let base = "ou=people,dc=example,dc=org";
        let filter = format!("(&(objectClass=inetOrgPerson)(uid={}))", name(client));
        shared.with_search_options(SearchOptions::new().sizelimit(2));
        let found = shared.search(base, Scope::Subtree, &filter, ATTRIBUTES.to_vec()).await?;
        assert_eq!(found.success()?.0.len(), 1);
        let dn = dn(client);
        own.simple_bind(&dn, PASSWORD).await?.success()?;
        for (member, groups) in [(dn.as_str(), 1), (GROUP, 0)] {
            let base = "ou=groups,dc=example,dc=org";
            let filter = format!("(|(member={member})(uniqueMember={member}))");
            let found = shared.search(base, Scope::Subtree, &filter, vec!["1.1"]).await?;
            assert_eq!(found.success()?.0.len(), groups);
        }
        Ok((client, shared, own))
    })
    .await
}

async fn connect(bench: &Bench) -> Result<Ldap, Failure> {
    let port = bench.slapd.port(LdapTransport::Tls);
    let stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let authority = std::fs::read_to_string(bench.slapd.authority_file())?;
    let settings = LdapConnSettings::new()
        .set_config(client_config(&authority, &[]))
        .set_std_stream(StdStream::Tcp(stream));
    let url = format!("ldaps://127.0.0.1:{port}");
    let (driver, library) = LdapConnAsync::with_settings(settings, &url).await?;
    ldap3::drive!(driver);
    Ok(library)
}

async fn layer(bench: &Arc<Bench>, clients: usize, time: Duration) -> Result<f64, Failure> {
    let directories = (0..clients).map(|client| (client, Arc::clone(&bench.directory)));
    rate(time, directories.collect(), |(client, directory)| async move {
        let password = Secret::new(PASSWORD.to_owned());
        let credentials = Credentials::parse(name(client), password);
        let credentials = credentials.map_err(|_| "impossible credentials")?;
        let person = directory.verify(&credentials).await?;
        assert_eq!(person.role.as_str(), "contact_tracer");
        Ok((client, directory))
    })
    .await
}

/// Somebody's browser: its connection, and the device cookie that it was given, which is
/// all that a browser keeps of a login.
struct Browser {
    client: usize,
    stream: BufReader<TlsStream<TcpStream>>,
    device: String,
}

async fn whole(gateway: &Gateway, clients: usize, time: Duration) -> Result<f64, Failure> {
    let mut browsers = Vec::new();
    for client in 0..clients {
        let stream = TcpStream::connect(gateway.address).await?;
        stream.set_nodelay(true)?;
        let stream = gateway.connector.connect(ServerName::try_from(HOST)?, stream).await?;
        browsers.push(Browser { client, stream: BufReader::new(stream), device: String::new() });
    }
    rate(time, browsers, log_in).await
}

async fn log_in(mut browser: Browser) -> Result<Browser, Failure> {
    let (name, device) = (name(browser.client), &browser.device);
    let body = format!("{{\"username\":\"{name}\",\"password\":\"{PASSWORD}\"}}");
    let request = format!(
        "POST /auth/login HTTP/1.1\r\nhost: {HOST}\r\norigin: https://{HOST}\r\n{device}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    browser.stream.write_all(request.as_bytes()).await?;
    browser.stream.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(browser.stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head.into());
    }
    let value = |name: &str| {
        head.lines().find_map(|line| {
            let (begin, rest) = line.split_at_checked(name.len())?;
            begin.eq_ignore_ascii_case(name).then_some(rest)
        })
    };
    let given = value("set-cookie: __Host-bindgate-device=");
    if let Some(device) = given.and_then(|rest| rest.split(';').next()) {
        browser.device = format!("cookie: __Host-bindgate-device={device}\r\n");
    }
    let length = value("content-length: ").ok_or("no length")?.parse()?;
    let mut body = vec![0; length];
    browser.stream.read_exact(&mut body).await?;
    Ok(browser)
}
