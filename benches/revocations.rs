//! What ten million live revocations and a million sessions cost: memory, look-ups,
//! the start, and what a sweep does to logins meanwhile. Prints figures; judges none.
//!
//!     cargo bench --bench revocations
//!     cargo bench --bench revocations -- --state FILE     makes the store there, if it is not, and keeps it

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use bindgate::ambient::{Clock, Entropy, Timestamp};
use bindgate::config;
use bindgate::identity::{Attributes, Role, SessionId, Subject};
use bindgate::metrics::Metrics;
use bindgate::session::Revoked;
use bindgate::store::{Issued, REVOCATIONS_PAGE, SessionRecord, Store, StoreError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error>;

/// Look-ups that are timed together.
const LOOKS: u64 = 1_000_000;
/// Sessions created at once while the store is filled.
const CREATED_AT_ONCE: usize = 256;
/// Revocations written at once.
const REVOKED_AT_ONCE: usize = 16_384;
/// Sets the numbers of live sessions apart from those of revoked ones.
const SESSIONS: u64 = 1 << 40;
/// A pause between two logins, so that they meet every part of a sweep.
const LOGIN_PAUSE: Duration = Duration::from_millis(5);

struct Asked {
    revocations: u64,
    sessions: u64,
    state: Option<PathBuf>,
}

fn main() -> Result<(), Failure> {
    let asked = Asked::from_arguments()?;
    let now = Clock::system().now();
    println!("{} revocations, {} sessions", asked.revocations, asked.sessions);
    in_memory(&asked, now);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(in_a_file(&asked, now))
}

impl Asked {
    fn from_arguments() -> Result<Self, Failure> {
        let mut asked = Self { revocations: 10_000_000, sessions: 1_000_000, state: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or("a value is missing");
            match name.as_str() {
                "--revocations" => asked.revocations = value()?.parse()?,
                "--sessions" => asked.sessions = value()?.parse()?,
                "--state" => asked.state = Some(value()?.into()),
                // What cargo says to every benchmark.
                "--bench" => {}
                other => return Err(format!("{other} is not known").into()),
            }
        }
        Ok(asked)
    }
}

/// The set that every process holds, filled page by page in no order.
fn in_memory(asked: &Asked, now: Timestamp) {
    let revoked = Revoked::default();
    let (few, many) = (1000, asked.revocations);
    let until = |number| ends(now, number);
    revoked.extend((0..few).map(|number| (session(number), until(number))));
    tell_looks("of a thousand", &revoked, few);

    let before = resident_kib();
    let began = on_cpu();
    let mut from = few;
    while from < many {
        let to = many.min(from + REVOCATIONS_PAGE as u64);
        revoked.extend((from..to).map(|number| (session(number), until(number))));
        from = to;
    }
    let took = on_cpu().saturating_sub(began);
    let grown = resident_kib().saturating_sub(before);
    println!("filled in {took:.1?}: {} MiB, {} bytes each", grown / 1024, grown * 1024 / many);
    tell_looks("of all", &revoked, many);

    // As when a gateway reads all of them once more from a store that others share.
    let before = resident_kib();
    let mut tally = revoked.tally();
    let each = timed(many, |number| assert!(tally.tell(session(number), until(number))));
    let grown = resident_kib().saturating_sub(before);
    let (bits, left) = (tally.size() / 1024, tally.left());
    println!("told once more: {each} ns each, {bits} KiB of bits, {grown} KiB in all, {left} left");
    drop(tally);

    let singles = 100_000;
    let each = timed(singles, |number| revoked.insert(session(many + number), until(number)));
    println!("one more: {each} ns");
    let took = timed(600, |_| revoked.sweep(now, 60)) / 1000;
    println!("one of sixty turns of a sweep that finds nothing: {took} us");
    let took = timed(1, |_| revoked.sweep(now.plus(Duration::from_hours(6)), 1)) / 1_000_000;
    println!("a sweep of all in one: {took} ms, {} left", revoked.len());
}

fn tell_looks(what: &str, revoked: &Revoked, count: u64) {
    let scattered = |number: u64| mixed(number) % count;
    let known = timed(LOOKS, |number| assert!(revoked.contains(session(scattered(number)))));
    let unknown = timed(LOOKS, |number| assert!(!revoked.contains(session(!scattered(number)))));
    let nothing = timed(LOOKS, |number| {
        black_box(session(scattered(number)));
    });
    let (known, unknown) = (known.saturating_sub(nothing), unknown.saturating_sub(nothing));
    println!("a look-up {what}: {known} ns when revoked, {unknown} ns when not");
}

/// The embedded store: filled, opened again, read, swept.
async fn in_a_file(asked: &Asked, now: Timestamp) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = asked.state.clone().unwrap_or_else(|| folder.path().join("state.redb"));
    if !path.exists() {
        fill(asked, &path, now).await?;
    }
    println!("the file: {} MiB", std::fs::metadata(&path)?.len() >> 20);

    let (before, cpu) = (resident_kib(), process_cpu());
    let began = Instant::now();
    let store = Arc::new(open(&path, now).await?);
    let opened = began.elapsed();
    let (revoked, mut after) = (Revoked::default(), None);
    loop {
        let page = store.revocations(after).await?;
        let Some(last) = page.last() else { break };
        after = Some(*last);
        revoked.extend(page);
    }
    let read = began.elapsed().saturating_sub(opened);
    let grown = resident_kib().saturating_sub(before) / 1024;
    let cpu = process_cpu().saturating_sub(cpu);
    println!(
        "opened in {opened:.1?}, revocations read in {read:.1?}: {grown} MiB more; {cpu:.1?} of CPU"
    );

    let began = Instant::now();
    let page = store.page(Some(session(1))).await?;
    println!("a page of {} sessions: {:.1?}", page.len(), began.elapsed());
    let quiet = async {
        sleep(Duration::from_secs(2)).await;
        Ok(0)
    };
    tell_logins("with nothing else", &store, now, quiet).await?;
    let sweep = |now| {
        let store = Arc::clone(&store);
        async move { store.sweep(now, Timestamp::from_millis(0)).await }
    };
    tell_logins("during a turn of a sweep that finds nothing", &store, now, sweep(now)).await?;
    let later = now.plus(Duration::from_hours(1));
    tell_logins("during a turn that removes one in twelve", &store, now, sweep(later)).await
}

async fn fill(asked: &Asked, path: &Path, now: Timestamp) -> Result<(), Failure> {
    let began = Instant::now();
    let store = open(path, now).await?;
    // In the order of their ids, which is quicker than any other; months need not pass here.
    let in_order = |count: u64, salt: u64| {
        let mut numbers: Vec<u64> = (0..count).collect();
        numbers.sort_unstable_by_key(|number| mixed(number ^ salt));
        numbers
    };
    for page in in_order(asked.revocations, 0).chunks(REVOKED_AT_ONCE) {
        let page = page.iter().map(|number| (session(*number), ends(now, *number))).collect();
        store.revoke_all(page).await?;
    }
    let revoked = began.elapsed();
    for page in in_order(asked.sessions, SESSIONS).chunks(CREATED_AT_ONCE) {
        try_join_all(page.iter().map(|number| store.create(record(*number, now)))).await?;
    }
    println!("filled in {revoked:.0?} and {:.0?}", began.elapsed().saturating_sub(revoked));
    Ok(())
}

/// The times of logins one after the other while something else goes on.
async fn tell_logins(
    what: &str,
    store: &Store,
    now: Timestamp,
    meanwhile: impl Future<Output = Result<u64, StoreError>> + Send + 'static,
) -> Result<(), Failure> {
    let began = Instant::now();
    let meanwhile = tokio::spawn(meanwhile);
    let (mut times, mut number) = (Vec::new(), u64::MAX / 2);
    while !meanwhile.is_finished() {
        let began = Instant::now();
        store.create(record(number, now)).await?;
        times.push(began.elapsed());
        number += 1;
        sleep(LOGIN_PAUSE).await;
    }
    let (left, took) = (meanwhile.await??, began.elapsed());
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!(
        "{} logins {what}: median {:.1?}, 99 % {:.1?}, longest {:.1?}; {took:.1?} in all, {left} left",
        times.len(),
        at(50),
        at(99),
        at(100),
    );
    Ok(())
}

async fn open(path: &Path, now: Timestamp) -> Result<Store, Failure> {
    let kind = config::Store::Embedded { path: path.to_owned() };
    let ambient = (&Clock::manual_at(now).0, &Entropy::system());
    Ok(Store::open(&kind, Duration::from_secs(5), ambient, &Metrics::new()?).await?)
}

/// Nanoseconds of this thread's CPU that each of so many calls takes.
fn timed(count: u64, mut call: impl FnMut(u64)) -> u128 {
    let began = on_cpu();
    (0..count).for_each(&mut call);
    on_cpu().saturating_sub(began).as_nanos() / u128::from(count)
}

/// How long this thread has run; other work on the machine does not count.
fn on_cpu() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Ids as random as real ones, known by their number.
fn session(number: u64) -> SessionId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mixed(number).to_be_bytes());
    id[8..].copy_from_slice(&mixed(!number).to_be_bytes());
    SessionId::from_bytes(id)
}

/// A bijection that scatters (the finaliser of `SplitMix64`).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Evenly over the twelve hours of a session.
fn ends(now: Timestamp, number: u64) -> Timestamp {
    now.plus(Duration::from_secs(60 + mixed(number) % (12 * 3600)))
}

fn record(number: u64, now: Timestamp) -> SessionRecord {
    SessionRecord {
        session: session(number ^ SESSIONS),
        subject: Subject::new(&format!("user-{:06}", number % 300_000)),
        role: Role::new("contact_tracer"),
        account: format!("uid=user-{:06},ou=people,dc=example,dc=org", number % 300_000),
        attributes: Attributes::default(),
        stamp: None,
        emergency: false,
        created: now,
        end: now.plus(Duration::from_hours(12)),
        last_activity: now,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101".to_owned()),
        issued: Issued {
            generation: 1,
            nonce: [7; 12],
            issued_at: now.seconds(),
            expires_at: now.seconds() + 900,
        },
        newest_seen: 0,
        replaced: Vec::new(),
    }
}

/// The CPU time of all threads, to a hundredth of a second.
fn process_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks =
        after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.unwrap_or(0)
}
