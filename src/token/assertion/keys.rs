//! The key pairs that sign assertions, one for each algorithm and for each circle of
//! those who may know the public key. A new key is published before it signs; an old
//! one stays published until the last assertion it signed has ended.

mod rotation;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};

use crate::ambient::{Entropy, Timestamp};
use crate::config::{Assertion, AssertionSignature, Publication, TokenAlgorithm};
use crate::token::LEEWAY;
use crate::token::jwk::{Jwk, Purpose};
use crate::token::keys_dir::{KeyError, KeysDir};
use crate::token::signer::Signer;

pub use rotation::{AssertionKeyFacts, KeyStage, NewAssertionKey};

/// Which key a configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) algorithm: TokenAlgorithm,
    pub(super) publication: Publication,
}

/// What the upstreams of one kind ask for together.
#[derive(Clone, Copy, Default)]
struct Demand {
    /// The longest of theirs.
    publish_ahead: Duration,
}

/// All keys of assertions, as of one start or reload, and as rotated since.
pub struct AssertionKeys {
    /// Oldest first.
    entries: ArcSwap<Vec<Entry>>,
    demands: HashMap<Kind, Demand>,
    has_made: bool,
}

#[derive(Clone)]
struct Entry {
    key: Arc<AssertionKey>,
    /// False for a key whose file is gone: it ends as an older one does.
    is_present: bool,
}

/// One key pair.
pub(super) struct AssertionKey {
    jwk: Jwk,
    kind: Kind,
    public: serde_json::Value,
    pub(super) signer: Signer,
    published_since: Timestamp,
    /// When the last assertion it may have signed ends, in milliseconds since 1970.
    signed_until: AtomicI64,
    /// Whether what it signed must not be sent any more.
    dropped: AtomicBool,
}

impl AssertionKeys {
    /// Reads the keys, and makes those that are asked for and not there. `before` are
    /// those of the last start or reload. Without a folder keys are in memory only.
    ///
    /// # Errors
    /// When a key is broken, cannot be made or written, or is a shared secret too.
    pub fn open(
        dir: Option<&KeysDir>,
        assertions: &[&Assertion],
        before: Option<&Self>,
        now: Timestamp,
        entropy: &Entropy,
    ) -> Result<Self, KeyError> {
        let lifetime = assertions.iter().map(|assertion| assertion.lifetime).max();
        // What an earlier process or configuration signed may still be under way.
        let under_way = now.plus(lifetime.unwrap_or_default());
        let mut entries = Vec::new();
        for jwk in stored(dir, assertions)? {
            let key = if let Some(known) = before.and_then(|before| before.find(&jwk.kid)) {
                known
            } else {
                // At a start, a key's own date says since when it was to be had.
                let since = if before.is_some() { now } else { jwk.created.min(now) };
                Arc::new(AssertionKey::new(jwk, since, under_way)?)
            };
            entries.push(Entry { key, is_present: true });
        }
        if let (None, Some(before)) = (dir, before) {
            entries.extend(before.entries.load().iter().cloned());
        }
        let demands = demands(assertions);
        let mut has_made = false;
        for kind in demands.keys() {
            if entries.iter().any(|entry| entry.is_present && entry.key.kind == *kind) {
                continue;
            }
            let purpose = purpose_of(kind.publication);
            let jwk = Jwk::generate(kind.algorithm, purpose, now, entropy)
                .map_err(|_| KeyError::Generation)?;
            if let Some(dir) = dir {
                dir.write(&jwk)?;
            }
            has_made = true;
            let key = Arc::new(AssertionKey::new(jwk, now, now)?);
            entries.push(Entry { key, is_present: true });
        }
        let keys = Self { entries: ArcSwap::default(), demands, has_made };
        if let Some(before) = before {
            keys.keep_gone(&mut entries, before, under_way, now);
        }
        entries.sort_by(|one, two| one.key.age().cmp(&two.key.age()));
        keys.entries.store(Arc::new(entries));
        Ok(keys)
    }

    /// Keys whose files are gone stay as long as they may be needed.
    fn keep_gone(
        &self,
        entries: &mut Vec<Entry>,
        before: &Self,
        under_way: Timestamp,
        now: Timestamp,
    ) {
        for old in before.entries.load().iter() {
            if entries.iter().any(|entry| entry.key.kid() == old.key.kid()) {
                continue;
            }
            if old.is_present {
                // A worker may sign with it until it has seen the reload.
                old.key.signs_until(under_way);
            }
            let gone = Entry { key: Arc::clone(&old.key), is_present: false };
            if self.is_published(entries, &gone, now) {
                entries.push(gone);
            }
        }
    }

    /// Whether a key was made, as there was none of its kind.
    #[must_use]
    pub const fn has_made(&self) -> bool {
        self.has_made
    }

    /// Whether the folder held the same keys.
    #[must_use]
    pub fn same_keys(&self, other: &Self) -> bool {
        let present = |keys: &Self| -> Vec<String> {
            let entries = keys.entries.load();
            let entries = entries.iter().filter(|entry| entry.is_present);
            entries.map(|entry| entry.key.jwk.kid.clone()).collect()
        };
        present(self) == present(other)
    }

    /// The key to sign with: the newest that was published long enough; while there
    /// is none, the one that signed before, or else the only one there is.
    pub(super) fn signing(
        &self,
        kind: Kind,
        publish_ahead: Duration,
        now: Timestamp,
    ) -> Option<Arc<AssertionKey>> {
        let entries = self.entries.load();
        let mut of_kind = entries.iter().filter(|entry| entry.key.kind == kind);
        let ready = of_kind.clone().rfind(|entry| entry.is_ready(publish_ahead, now));
        let gone = of_kind.clone().rfind(|entry| !entry.is_present);
        ready.or(gone).or_else(|| of_kind.next()).map(|entry| Arc::clone(&entry.key))
    }

    /// The key set (RFC 7517 section 5) of one circle, its members alone.
    #[must_use]
    pub fn public(&self, publication: Publication, now: Timestamp) -> Vec<serde_json::Value> {
        let entries = self.entries.load();
        let told = entries.iter().filter(|entry| {
            entry.key.kind.publication == publication && self.is_published(&entries, entry, now)
        });
        told.map(|entry| entry.key.public.clone()).collect()
    }

    /// Until another has signed long enough in its stead that nothing of its own is
    /// under way.
    fn is_published(&self, entries: &[Entry], entry: &Entry, now: Timestamp) -> bool {
        let key = &entry.key;
        let is_replaced = || {
            self.demands.get(&key.kind).is_none_or(|demand| {
                entries.iter().any(|other| {
                    other.key.kind == key.kind
                        && other.is_ready(demand.publish_ahead, now)
                        && (!entry.is_present || other.key.age() > key.age())
                })
            })
        };
        let signed_until = Timestamp::from_millis(key.signed_until.load(Ordering::Relaxed));
        now < signed_until.plus(LEEWAY) || !is_replaced()
    }

    #[cfg(test)]
    pub(super) fn entries_len(&self) -> usize {
        self.entries.load().len()
    }

    fn find(&self, kid: &str) -> Option<Arc<AssertionKey>> {
        let entries = self.entries.load();
        let found = entries.iter().find(|entry| entry.key.jwk.kid == kid);
        found.map(|entry| Arc::clone(&entry.key))
    }
}

impl Entry {
    fn is_ready(&self, publish_ahead: Duration, now: Timestamp) -> bool {
        self.is_present && self.key.published_since.plus(publish_ahead) <= now
    }
}

impl AssertionKey {
    fn new(
        jwk: Jwk,
        published_since: Timestamp,
        signed_until: Timestamp,
    ) -> Result<Self, KeyError> {
        let publication = match jwk.purpose {
            Purpose::PublicAssertion => Publication::Public,
            _ => Publication::Internal,
        };
        Ok(Self {
            kind: Kind { algorithm: jwk.material.algorithm(), publication },
            public: jwk.to_public().ok_or(KeyError::Generation)?,
            signer: jwk.material.signer().map_err(|_| KeyError::Generation)?,
            published_since,
            signed_until: AtomicI64::new(signed_until.millis()),
            dropped: AtomicBool::new(false),
            jwk,
        })
    }

    /// Its name.
    pub(super) fn kid(&self) -> &str {
        &self.jwk.kid
    }

    /// Whether what it signed must not be sent any more.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// Notes that it signs something that ends then; said before the signature is given.
    pub(super) fn signs_until(&self, end: Timestamp) {
        self.signed_until.fetch_max(end.millis(), Ordering::Relaxed);
    }

    fn age(&self) -> (Timestamp, &str) {
        (self.jwk.created, &self.jwk.kid)
    }
}

const fn purpose_of(publication: Publication) -> Purpose {
    match publication {
        Publication::Internal => Purpose::Assertion,
        Publication::Public => Purpose::PublicAssertion,
    }
}

fn demands(assertions: &[&Assertion]) -> HashMap<Kind, Demand> {
    let mut demands: HashMap<Kind, Demand> = HashMap::new();
    for assertion in assertions {
        if let AssertionSignature::KeyPair { algorithm, publication } = assertion.signature {
            let demand = demands.entry(Kind { algorithm, publication }).or_default();
            demand.publish_ahead = demand.publish_ahead.max(assertion.publish_ahead);
        }
    }
    demands
}

/// The files of assertions; none of any purpose may hold a secret that is shared.
fn stored(dir: Option<&KeysDir>, assertions: &[&Assertion]) -> Result<Vec<Jwk>, KeyError> {
    let Some(dir) = dir else { return Ok(Vec::new()) };
    let all = dir.read()?;
    for assertion in assertions {
        let AssertionSignature::Shared(secret) = &assertion.signature else { continue };
        let fingerprint: [u8; 32] = Sha256::digest(secret.expose().as_bytes()).into();
        if let Some(jwk) = all.iter().find(|jwk| jwk.material.fingerprint() == fingerprint) {
            return Err(KeyError::Broken {
                path: dir.path().join(format!("{}.jwk", jwk.kid)),
                reason: "holds the secret of an upstream.assertion.secret_file",
            });
        }
    }
    let is_assertion =
        |jwk: &Jwk| [Purpose::Assertion, Purpose::PublicAssertion].contains(&jwk.purpose);
    Ok(all.into_iter().filter(is_assertion).collect())
}
