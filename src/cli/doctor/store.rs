//! The store, as far as it can be looked at without changing it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::ambient::{Clock, Entropy};
use crate::config::{RedisStore, Store};
use crate::directory::{Finding, Step};
use crate::metrics::Metrics;
use crate::store;
use crate::store::Survey;
use crate::token::LEEWAY;

/// Looks at the store; `tell` is told of each step.
pub(super) async fn examine(config: &Store, metrics: &Metrics, tell: &mut dyn FnMut(Step)) {
    let began = Instant::now();
    let mut note = |tried, finding| {
        let took = began.elapsed();
        tell(Step { place: "store".to_owned(), tried, took, finding });
    };
    match config {
        Store::Memory => {
            note("look", Finding::Suspect("in memory: a restart ends every session".to_owned()));
        }
        Store::Embedded { path } => note("look", embedded(path)),
        Store::Redis(settings) => {
            let survey = match store::survey(settings, &Clock::system()).await {
                Ok(survey) => survey,
                Err(reason) => return note("reach", Finding::Failed(unreachable(&reason))),
            };
            note("reach", reached(&survey));
            note("rights", rights(&survey, settings));
            note("clock", clock(&survey));
            note("keys", keys(config, metrics).await);
        }
    }
}

/// The store's file, which the gateway alone opens: to open it could change it.
fn embedded(path: &Path) -> Finding {
    match fs::metadata(path) {
        Ok(facts) if facts.is_file() => {
            Finding::Fine(format!("{}, {} bytes", path.display(), facts.len()))
        }
        Ok(_) => Finding::Failed(format!("{} is no file", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match path.parent().map(fs::metadata) {
                Some(Ok(folder)) if folder.is_dir() => {
                    Finding::Fine(format!("{} is made at the first start", path.display()))
                }
                _ => Finding::Failed(format!("the folder of {} is not there", path.display())),
            }
        }
        Err(error) => Finding::Failed(format!("{}: {error}", path.display())),
    }
}

fn unreachable(reason: &str) -> String {
    format!(
        "{reason}: look at store.urls, store.username and its password, store.ca_file, and \
         whether the user may run what docs/operations.md lists"
    )
}

fn reached(survey: &Survey) -> Finding {
    let Survey { version, replicas, starts, .. } = survey;
    if survey.is_too_old() {
        return Finding::Failed(format!("Redis {version}: 6.2 or newer is needed"));
    }
    Finding::Fine(format!(
        "Redis {version}, replicas: {replicas}, count of starts, revocations, redemptions and changes of keys: {}",
        starts.unwrap_or_default()
    ))
}

fn rights(survey: &Survey, settings: &RedisStore) -> Finding {
    match &survey.denied {
        None => Finding::Suspect("Redis before 7.0 does not tell what a user may do".to_owned()),
        Some(denied) if denied.is_empty() => Finding::Fine("all that are needed".to_owned()),
        Some(denied) => Finding::Failed(format!(
            "the user may not run {} on keys that begin with {{{prefix}}}: or {{{prefix}: ; \
             docs/operations.md has the whole line",
            denied.join(", "),
            prefix = settings.key_prefix
        )),
    }
}

fn clock(survey: &Survey) -> Finding {
    let ahead = survey.ahead;
    let text = format!("that of Redis is {ahead} ms ahead of this machine's");
    if Duration::from_millis(ahead.unsigned_abs()) > LEEWAY {
        return Finding::Suspect(format!(
            "{text}, more than the {} s that tokens allow for: set the clocks right",
            LEEWAY.as_secs()
        ));
    }
    Finding::Fine(text)
}

/// Whether the signing keys that gateways share can be opened.
async fn keys(config: &Store, metrics: &Metrics) -> Finding {
    let ambient = (&Clock::system(), &Entropy::system());
    let store = match store::Store::open(config, Duration::ZERO, ambient, metrics).await {
        Ok(store) => store,
        Err(error) => return Finding::Failed(error.to_string()),
    };
    match store.shared_keys().await {
        Ok(None) => Finding::Fine("none yet: the first gateway makes them".to_owned()),
        Ok(Some(_)) => Finding::Fine("can be opened".to_owned()),
        Err(_) => Finding::Failed(
            "cannot be opened: have all gateways the same store.encryption_key_file?".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{Survey, clock, reached};
    use crate::directory::Finding;

    #[test]
    fn an_old_redis_fails_and_a_clock_that_is_off_is_suspected() {
        let survey = |version: &str, ahead| Survey {
            version: version.to_owned(),
            replicas: 1,
            starts: Some(3),
            ahead,
            denied: None,
        };
        let fine = "Redis 7.2.4, replicas: 1, count of starts, revocations, redemptions and changes of keys: 3"
            .to_owned();
        assert_eq!(reached(&survey("7.2.4", 0)), Finding::Fine(fine));
        assert!(matches!(reached(&survey("6.0.9", 0)), Finding::Failed(_)));
        for ahead in [0, 5000, -5000] {
            assert!(matches!(clock(&survey("7.2.4", ahead)), Finding::Fine(_)), "{ahead}");
        }
        for ahead in [5001, -5001] {
            assert!(matches!(clock(&survey("7.2.4", ahead)), Finding::Suspect(_)), "{ahead}");
        }
    }
}
