//! `[store]`: what outlives the process, and where.

use std::path::PathBuf;

use super::kind::{self, Choice};
use super::reader::Reader;

/// `[store]`: what outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A file of our own.
    Embedded {
        /// Where it lies.
        path: PathBuf,
    },
    /// Nothing outlives the process.
    Memory,
}

impl Store {
    /// Reads `[store]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let kind = r.required(
            "kind",
            Choice {
                built: &[("embedded", StoreKind::Embedded), ("memory", StoreKind::Memory)],
                unbuilt: &[("redis", "Redis")],
            },
            "Where sessions and revocations are kept: in a file, or in memory only.",
        );
        let path = r.optional(
            "path",
            kind::file(),
            "The embedded store's file, made at the first start; required with kind = \
             \"embedded\".",
        );
        for key in [
            "topology",
            "sentinel_master",
            "urls",
            "username",
            "password",
            "password_file",
            "ca_file",
            "key_prefix",
            "encryption_key_file",
        ] {
            r.unbuilt(key, "Redis");
        }
        r.unbuilt("max_staleness", "revocations shared by several gateways");
        match kind? {
            StoreKind::Memory => {
                r.note("kind", "\"memory\": a restart ends all sessions");
                if r.given("path") {
                    r.note("path", "not used with kind = \"memory\"");
                }
                Some(Self::Memory)
            }
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
}

/// The values of `store.kind`.
#[derive(Clone, Copy, PartialEq)]
enum StoreKind {
    Embedded,
    Memory,
}
