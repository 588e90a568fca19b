//! The searches of one login once its entry is found, and those of the same name's last
//! login, which are sent ahead, beside the search for the entry. Questions are remembered
//! and never answers: a role is read anew at every login, only sooner. Knows no accounts
//! and no roles.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use ldap3::Scope;
use tokio::sync::OnceCell;

use crate::directory::connection::{Found, Search};
use crate::directory::filter::Filter;
use crate::directory::pool::Pool;
use crate::directory::{DirectoryError, Operation};
use crate::metrics::{IntCounter, Metrics};

/// Most searches sent ahead for one login; who needs more has none sent.
const SEARCHES_MAX: usize = 8;
/// Most bytes of names and filters remembered for one login.
const BYTES_MAX: usize = 4096;

/// What the last logins searched for, by the name as folded.
pub(super) struct LastSearches {
    names_max: usize,
    full: IntCounter,
    by_name: Mutex<HashMap<String, Vec<Question>>>,
}

/// A search without its answer.
#[derive(Clone, PartialEq)]
struct Question {
    operation: Operation,
    base: String,
    scope: Scope,
    filter: Filter,
    attributes: Vec<String>,
    entries_max: usize,
}

/// The searches of one login.
pub(super) struct Searches<'p> {
    pool: &'p Pool,
    ahead: Vec<(Question, OnceCell<Found>)>,
    /// Those that were needed.
    made: Mutex<Vec<Question>>,
    is_over: AtomicBool,
}

impl LastSearches {
    /// Remembers so many names at most.
    pub(super) fn new(names_max: usize, metrics: &Metrics) -> Self {
        let full = metrics.limit_hits("directory_searches_ahead");
        Self { names_max, full, by_name: Mutex::default() }
    }

    /// The searches of a login with that name.
    pub(super) fn begin<'p>(&self, name: &str, pool: &'p Pool) -> Searches<'p> {
        let last = self.by_name().get(name).cloned().unwrap_or_default();
        let ahead = last.into_iter().map(|question| (question, OnceCell::new())).collect();
        Searches { ahead, ..Searches::plain(pool) }
    }

    /// Remembers what a login with that name searched for. Meant for who has proved a
    /// password: nobody else adds names.
    pub(super) fn remember(&self, name: String, searches: Searches<'_>) {
        let made = searches.made.into_inner().unwrap_or_else(PoisonError::into_inner);
        let bytes = made.iter().map(Question::bytes).sum::<usize>();
        let mut by_name = self.by_name();
        if made.len() > SEARCHES_MAX || bytes > BYTES_MAX || self.names_max == 0 {
            by_name.remove(&name);
            return;
        }
        if by_name.len() >= self.names_max && !by_name.contains_key(&name) {
            // Any of them: its next login finds out again.
            if let Some(other) = by_name.keys().next().cloned() {
                by_name.remove(&other);
            }
            self.full.inc();
        }
        by_name.insert(name, made);
    }

    /// The name leads to nobody, or to nobody who may log in.
    pub(super) fn forget(&self, name: &str) {
        self.by_name().remove(name);
    }

    fn by_name(&self) -> MutexGuard<'_, HashMap<String, Vec<Question>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    fn of(search: &Search<'_>) -> Self {
        Self {
            operation: search.operation,
            base: search.base.to_owned(),
            scope: search.scope,
            filter: search.filter.clone(),
            attributes: search.attributes.iter().map(|&name| name.to_owned()).collect(),
            entries_max: search.entries_max,
        }
    }

    async fn ask(&self, pool: &Pool) -> Result<Found, DirectoryError> {
        let attributes: Vec<_> = self.attributes.iter().map(String::as_str).collect();
        let search = Search {
            operation: self.operation,
            base: &self.base,
            scope: self.scope,
            filter: &self.filter,
            attributes: &attributes,
            entries_max: self.entries_max,
        };
        pool.search_ahead(search).await
    }

    fn bytes(&self) -> usize {
        self.base.len() + self.filter.to_string().len()
    }
}

impl<'p> Searches<'p> {
    /// None of them ahead.
    pub(super) fn plain(pool: &'p Pool) -> Self {
        let (ahead, made, is_over) = Default::default();
        Self { pool, ahead, made, is_over }
    }

    /// Sends what is to be sent ahead, and waits for the answers, so that none is broken
    /// off, which would cost others their connection.
    pub(super) async fn send_ahead(&self) {
        let asked = self.ahead.iter().map(async |(question, answer)| {
            // What fails is asked again when it is needed, and then it is told.
            let _ = answer.get_or_try_init(|| question.ask(self.pool)).await;
        });
        join_all(asked).await;
    }

    /// No further one is made: whoever logs in has not proved the password.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Searches as the service account, unless that was done ahead.
    pub(super) async fn search(&self, search: Search<'_>) -> Result<Found, DirectoryError> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(DirectoryError::Needless);
        }
        let question = Question::of(&search);
        let ahead = self.ahead.iter().find(|(ahead, _)| *ahead == question);
        let found = match ahead {
            Some((_, answer)) => answer.get_or_try_init(|| self.pool.search(search)).await?.clone(),
            None => self.pool.search(search).await?,
        };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(question);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use ldap3::Scope;

    use super::{BYTES_MAX, LastSearches, Question, SEARCHES_MAX, Searches};
    use crate::ambient::Entropy;
    use crate::config::{LdapServer, LdapTransport, sample};
    use crate::directory::Operation;
    use crate::directory::filter::{Attribute, Filter};
    use crate::directory::pool::Pool;
    use crate::metrics::Metrics;

    fn searches<'p>(pool: &'p Pool, bases: &[&str]) -> Searches<'p> {
        let searches = Searches::plain(pool);
        for base in bases {
            searches.made.lock().unwrap().push(Question {
                operation: Operation::GroupSearch,
                base: (*base).to_owned(),
                scope: Scope::Base,
                filter: Filter::Present(Attribute::parse("cn").unwrap()),
                attributes: Vec::new(),
                entries_max: 1,
            });
        }
        searches
    }

    #[test]
    fn what_is_remembered_has_its_limits() {
        let metrics = Metrics::new().unwrap();
        let mut config = sample::config(Vec::new()).directory.unwrap();
        let (host, transport) = ("127.0.0.1".to_owned(), LdapTransport::Plaintext);
        config.servers = vec![LdapServer { host, port: 1, transport }];
        let pool = Pool::new(&config, &metrics, &Entropy::system()).unwrap();
        let full = || metrics.limit_hits("directory_searches_ahead").get();

        let last = LastSearches::new(2, &metrics);
        let ahead =
            |last: &LastSearches| ["a", "b", "c"].map(|name| last.begin(name, &pool).ahead.len());
        last.remember("a".to_owned(), searches(&pool, &["dc=x"; 3]));
        last.remember("b".to_owned(), searches(&pool, &["dc=x"; SEARCHES_MAX]));
        assert_eq!((ahead(&last), full()), ([3, SEARCHES_MAX, 0], 0));
        last.remember("a".to_owned(), searches(&pool, &["dc=x"; SEARCHES_MAX + 1]));
        last.remember("b".to_owned(), searches(&pool, &[&"x".repeat(BYTES_MAX)]));
        assert_eq!((ahead(&last), full()), ([0, 0, 0], 0), "too many, too long");
        for name in ["a", "b", "b"] {
            last.remember(name.to_owned(), searches(&pool, &["dc=x"]));
        }
        assert_eq!((ahead(&last), full()), ([1, 1, 0], 0));
        last.remember("c".to_owned(), searches(&pool, &["dc=x"]));
        assert_eq!((ahead(&last)[2], ahead(&last).iter().sum(), full()), (1, 2, 1), "for another");
        last.forget("c");
        assert_eq!((ahead(&last)[2], ahead(&last).iter().sum()), (0, 1));

        let none = LastSearches::new(0, &metrics);
        none.remember("a".to_owned(), searches(&pool, &["dc=x"]));
        assert_eq!((ahead(&none), full()), ([0, 0, 0], 1));
    }
}
