//! The keys of assertions in the course of time: new ones, the end of old ones, and
//! what an operator is told of each. Deletes no key that nothing has taken the place of.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{AssertionKey, AssertionKeys, Entry, Kind, purpose_of};
use crate::ambient::{Entropy, Timestamp};
use crate::config::Publication;
use crate::token::jwk::Jwk;
use crate::token::keys_dir::{KeyError, KeysDir};
use crate::token::material::algorithm_name;

/// A new key, to be held by every set of keys that there is.
pub struct NewAssertionKey(Arc<AssertionKey>);

/// One key, as told to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionKeyFacts {
    /// Its name.
    pub kid: String,
    /// Its algorithm's name in JOSE.
    pub algorithm: &'static str,
    /// Who may know its public half.
    pub publication: Publication,
    /// When it was made.
    pub created: Timestamp,
    /// What it does.
    pub stage: KeyStage,
}

/// What a key of assertions does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStage {
    /// It is published, and signs from then on.
    SignsFrom(Timestamp),
    /// It signs.
    Signs,
    /// It is published, as what it signed may be under way.
    Published,
    /// The configuration asks for none of its kind, or its successor has taken over.
    Unused,
}

impl NewAssertionKey {
    /// Its name.
    #[must_use]
    pub fn kid(&self) -> &str {
        self.0.kid()
    }
}

impl AssertionKeys {
    /// Makes and writes a key of each kind that the configuration asks for. Nothing
    /// signs with them before they are adopted.
    ///
    /// # Errors
    /// When one cannot be made or written; those before it stay in the folder then.
    pub fn make_next(
        &self,
        dir: Option<&KeysDir>,
        now: Timestamp,
        entropy: &Entropy,
    ) -> Result<Vec<NewAssertionKey>, KeyError> {
        let make = |kind: &Kind| {
            let purpose = purpose_of(kind.publication);
            let jwk = Jwk::generate(kind.algorithm, purpose, now, entropy)
                .map_err(|_| KeyError::Generation)?;
            if let Some(dir) = dir {
                dir.write(&jwk)?;
            }
            Ok(NewAssertionKey(Arc::new(AssertionKey::new(jwk, now, now)?)))
        };
        self.demands.keys().map(make).collect()
    }

    /// Publishes new keys; they sign when that was long enough ago. Those that are
    /// held already stay as they are.
    pub fn adopt(&self, new: &[NewAssertionKey]) {
        self.entries.rcu(|entries| {
            let mut all = Vec::clone(entries);
            for NewAssertionKey(key) in new {
                if !all.iter().any(|entry| entry.key.kid() == key.kid()) {
                    all.push(Entry { key: Arc::clone(key), is_present: true });
                }
            }
            all.sort_by(|one, two| one.key.age().cmp(&two.key.age()));
            all
        });
    }

    /// Drops every key whose kind one of these takes over at once: what it signed is
    /// sent no more, and it is no longer published. Answers with what was dropped.
    pub fn drop_all_but(&self, new: &[NewAssertionKey]) -> Vec<String> {
        let is_new = |entry: &Entry| new.iter().any(|it| it.kid() == entry.key.kid());
        let is_kept =
            |entry: &Entry| is_new(entry) || !new.iter().any(|it| it.0.kind == entry.key.kind);
        let before = self.entries.rcu(|entries| {
            entries.iter().filter(|entry| is_kept(entry)).cloned().collect::<Vec<_>>()
        });
        let dropped = before.iter().filter(|entry| !is_kept(entry));
        dropped
            .map(|entry| {
                entry.key.dropped.store(true, Ordering::Release);
                entry.key.kid().to_owned()
            })
            .collect()
    }

    /// Deletes the keys that have a successor and of which nothing is under way any
    /// more, and names them.
    ///
    /// # Errors
    /// When a file cannot be deleted; it is tried again the next time.
    pub fn retire(&self, dir: Option<&KeysDir>, now: Timestamp) -> Result<Vec<String>, KeyError> {
        let entries = self.entries.load_full();
        let mut retired = Vec::new();
        for entry in entries.iter() {
            let is_asked_for = self.demands.contains_key(&entry.key.kind);
            if !is_asked_for || self.is_published(&entries, entry, now) {
                continue;
            }
            if let (Some(dir), true) = (dir, entry.is_present) {
                delete(dir, entry.key.kid())?;
            }
            retired.push(entry.key.kid().to_owned());
        }
        if !retired.is_empty() {
            self.entries.rcu(|entries| {
                let is_left = |entry: &&Entry| retired.iter().all(|kid| kid != entry.key.kid());
                entries.iter().filter(is_left).cloned().collect::<Vec<_>>()
            });
        }
        Ok(retired)
    }

    /// Every key, oldest first.
    #[must_use]
    pub fn facts(&self, now: Timestamp) -> Vec<AssertionKeyFacts> {
        let entries = self.entries.load_full();
        let facts = entries.iter().map(|entry| AssertionKeyFacts {
            kid: entry.key.kid().to_owned(),
            algorithm: algorithm_name(entry.key.kind.algorithm),
            publication: entry.key.kind.publication,
            created: entry.key.jwk.created,
            stage: self.stage(&entries, entry, now),
        });
        facts.collect()
    }

    fn stage(&self, entries: &[Entry], entry: &Entry, now: Timestamp) -> KeyStage {
        let key = &entry.key;
        let Some(demand) = self.demands.get(&key.kind) else { return KeyStage::Unused };
        let signs = self.signing(key.kind, demand.publish_ahead, now);
        if signs.is_some_and(|signs| Arc::ptr_eq(&signs, key)) {
            return KeyStage::Signs;
        }
        if entry.is_present && !entry.is_ready(demand.publish_ahead, now) {
            return KeyStage::SignsFrom(key.published_since.plus(demand.publish_ahead));
        }
        if self.is_published(entries, entry, now) { KeyStage::Published } else { KeyStage::Unused }
    }
}

/// A key's file may be gone already, by another's hand.
pub(super) fn delete(dir: &KeysDir, kid: &str) -> Result<(), KeyError> {
    match dir.remove(kid) {
        Err(KeyError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

impl KeysDir {
    /// Deletes the files of keys that were dropped; says why one is left.
    #[must_use]
    pub fn delete_dropped(&self, kids: &[String]) -> Option<KeyError> {
        // Each is tried, whatever became of the others.
        let results: Vec<_> = kids.iter().map(|kid| delete(self, kid)).collect();
        results.into_iter().find_map(Result::err)
    }
}
