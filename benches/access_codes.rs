//! A million access codes: whether they are drawn uniformly, whether live ones differ,
//! whether a seed reproduces them, and what drawing and redeeming one costs.
//!
//!     cargo bench --bench access_codes

use std::collections::HashSet;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use bindgate::access_code::{AccessCodes, Code, CodeKeys, Ledger};
use bindgate::ambient::{Clock, Entropy};
use bindgate::config::{self, GuessBudget, Rate};
use bindgate::identity::Subject;
use bindgate::metrics::Metrics;
use bindgate::store::Store;

type Failure = Box<dyn Error>;

const DRAWS: u32 = 1_000_000;
const SEED: u64 = 20_261_125;
/// Codes alive at once, a tenth of all of six digits.
const ALIVE: u32 = 100_000;
/// Classes of the test: three digits of a code.
const CLASSES: usize = 1000;

fn main() -> Result<(), Failure> {
    for digits in [6, 8, 10] {
        draw(digits)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(live())
}

/// Pearson's statistic over the first, the middle and the last three digits. With 999
/// degrees of freedom it has mean 999 and standard deviation 44.7; five of these are
/// allowed either way. Trivial codes are missing, which takes no class more than three of
/// its codes: at six digits 0.3 % of three classes in a thousand, and less at more.
fn draw(digits: u8) -> Result<(), Failure> {
    let (entropy, again) = (Entropy::seeded(SEED), Entropy::seeded(SEED));
    let middle = usize::from(digits) / 2 - 1;
    let places = [0, middle, usize::from(digits) - 3];
    let mut classes = [(); 3].map(|()| vec![0_u32; CLASSES]);
    let began = Instant::now();
    for _ in 0..DRAWS {
        let code = Code::draw(digits, &entropy)?;
        for (class, at) in classes.iter_mut().zip(places) {
            class[code.expose()[at..at + 3].parse::<usize>()?] += 1;
        }
        if Code::draw(digits, &again)?.expose() != code.expose() {
            return Err("a seed does not reproduce its codes".into());
        }
    }
    let nanos = began.elapsed().as_nanos() / u128::from(DRAWS) / 2;
    let expected = f64::from(DRAWS) / 1000.0;
    for (class, at) in classes.iter().zip(places) {
        let deviations = class.iter().map(|seen| (f64::from(*seen) - expected).powi(2) / expected);
        let statistic: f64 = deviations.sum();
        println!("{digits} digits, from digit {}: chi-squared {statistic:.1} of 999", at + 1);
        if !(775.0..1223.0).contains(&statistic) {
            return Err("codes are not drawn uniformly".into());
        }
    }
    println!("{digits} digits: {nanos} ns a draw, {DRAWS} reproduced by their seed");
    Ok(())
}

/// Issues and redeems until there were a million codes.
async fn live() -> Result<(), Failure> {
    let (clock, entropy, metrics) = (Clock::system(), Entropy::system(), Metrics::new()?);
    let memory = config::Store::Memory;
    let store = Store::open(&memory, Duration::ZERO, (&clock, &entropy), &metrics).await?;
    let (store, hour) = (Arc::new(store), Duration::from_hours(1));
    let keys = CodeKeys::open(&store, &entropy).await?;
    let settings = config::AccessCodes {
        lifetime: hour,
        session_lifetime: hour,
        alive_max: ALIVE,
        issuer_roles: Vec::new(),
        per_issuer: Rate { count: ALIVE, window: hour },
        budgets: vec![GuessBudget { digits: 6, tries: 1000, per_address: 1000 }],
    };
    let ledger = Ledger { store, keys, clock, entropy };
    let codes = AccessCodes::new(&settings, &ledger, &metrics);
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (mut issuing, mut redeeming) = (Duration::ZERO, Duration::ZERO);
    for round in 0..DRAWS / ALIVE {
        let mut alive = HashSet::new();
        let began = Instant::now();
        for number in 0..ALIVE {
            // As many as one person gives out.
            let issuer = Subject::new(&format!("issuer {round} {}", number / 100));
            let code = codes.issue(&issuer, None).await?.code;
            if !alive.insert(code.expose().to_owned()) {
                return Err("two live codes are one".into());
            }
        }
        issuing += began.elapsed();
        let began = Instant::now();
        for code in &alive {
            let code = Code::parse(code).ok_or("a code that cannot be read")?;
            codes.redeem(&code, from).await?;
        }
        redeeming += began.elapsed();
    }
    let micros = |time: Duration| time.as_micros() / u128::from(DRAWS);
    println!("{DRAWS} codes, {ALIVE} alive at once: no two of these were one");
    println!("{} µs to give one out, {} µs to redeem it", micros(issuing), micros(redeeming));
    Ok(())
}
