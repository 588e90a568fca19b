//! `[store]`: what outlives the process, and where.

use std::path::PathBuf;

use super::kind::{self, Choice};
use super::reader::Reader;
use super::redis::RedisStore;

/// `[store]`: what outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A file of our own.
    Embedded {
        /// Where it lies.
        path: PathBuf,
    },
    /// Redis, which several gateways share.
    Redis(Box<RedisStore>),
    /// Nothing outlives the process.
    Memory,
}

impl Store {
    /// Reads `[store]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let kind = r.required(
            "kind",
            Choice {
                built: &[
                    ("embedded", StoreKind::Embedded),
                    ("redis", StoreKind::Redis),
                    ("memory", StoreKind::Memory),
                ],
                unbuilt: &[],
            },
            "Where sessions and revocations are kept: in a file, in Redis, which several gateways \
             share, or in memory only.",
        );
        let path = r.optional(
            "path",
            kind::file(),
            "The embedded store's file, made at the first start; required with kind = \
             \"embedded\".",
        );
        let redis = RedisStore::read(r, kind == Some(StoreKind::Redis));
        let kind = kind?;
        if kind != StoreKind::Embedded && r.given("path") {
            r.note("path", "used with kind = \"embedded\" only");
        }
        if kind != StoreKind::Redis {
            for key in RedisStore::KEYS.into_iter().filter(|key| r.given(key)).collect::<Vec<_>>() {
                r.note(key, "used with kind = \"redis\" only");
            }
        }
        match kind {
            StoreKind::Memory => {
                r.note("kind", "\"memory\": a restart ends all sessions");
                Some(Self::Memory)
            }
            StoreKind::Redis => redis.map(Box::new).map(Self::Redis),
            StoreKind::Embedded => {
                if !r.given("path") {
                    r.problem("path", "nothing", "the path of the store's file".to_owned());
                }
                let path = r.resolve(&path?);
                if path.parent().is_some_and(|folder| !r.folder_exists(folder)) {
                    r.note("path", "its folder does not exist yet");
                }
                Some(Self::Embedded { path })
            }
        }
    }

    /// Whether nothing outlives the process.
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        matches!(self, Self::Memory)
    }
}

/// The values of `store.kind`.
#[derive(Clone, Copy, PartialEq)]
enum StoreKind {
    Embedded,
    Redis,
    Memory,
}
