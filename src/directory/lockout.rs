//! When the directory locks an account, as far as the service account may read it:
//! Active Directory's domain and fine-grained policies, and the policies of ppolicy
//! and of 389-ds. Knows nothing of our own limits.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ldap3::Scope;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::config::Lockout;
use crate::directory::connection::Search;
use crate::directory::dn::Dn;
use crate::directory::entry::Entry;
use crate::directory::filter::{Attribute, Filter};
use crate::directory::pool::Pool;
use crate::directory::{DirectoryError, Operation};

/// How long what was read holds.
const HOLDS: Duration = Duration::from_mins(5);
/// Policies looked at.
const POLICIES_MAX: usize = 1000;
/// Policies of single accounts remembered.
const OWN_MAX: usize = 256;
const TICKS_PER_SECOND: u64 = 10_000_000;

const DEFAULT_CONTEXT: &str = "defaultNamingContext";
const NAMING_CONTEXTS: &str = "namingContexts";
const VENDOR: &str = "vendorName";
/// The policy of an account, where it has one of its own.
const OWN_POLICY: [&str; 2] = ["msDS-ResultantPSO", "pwdPolicySubentry"];
/// What a policy says, in the words of each kind.
const POLICY: [&str; 10] = [
    "lockoutThreshold",
    "lockOutObservationWindow",
    "msDS-LockoutThreshold",
    "msDS-LockoutObservationWindow",
    "pwdLockout",
    "pwdMaxFailure",
    "pwdFailureCountInterval",
    "passwordLockout",
    "passwordMaxFailure",
    "passwordResetFailureCount",
];

/// What is known of a directory's lock-out.
pub(super) struct Lockouts {
    base: Option<Dn>,
    object_class: Attribute,
    is_active: bool,
    /// One at a time reads.
    reading: AsyncMutex<()>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    read_at: Option<Instant>,
    /// What holds for accounts without a policy of their own.
    general: Option<Lockout>,
    own: HashMap<String, (Instant, Option<Lockout>)>,
}

impl Lockouts {
    pub(super) fn new(base: &str, object_class: Attribute, is_active: bool) -> Self {
        let (reading, known) = Default::default();
        Self { base: Dn::parse(base), object_class, is_active, reading, known }
    }

    /// What to fetch of an entry beside all else.
    pub(super) fn attribute(&self) -> &'static str {
        OWN_POLICY[usize::from(!self.is_active)]
    }

    /// What holds for accounts without a policy of their own, read again when that
    /// was long ago. A directory that does not answer leaves what is known.
    pub(super) async fn general(&self, pool: &Pool) -> Option<Lockout> {
        let _one = self.reading.lock().await;
        if self.known().read_at.is_none_or(|at| at.elapsed() >= HOLDS) {
            match self.read_general(pool).await {
                Ok(general) => {
                    let mut known = self.known();
                    (known.general, known.read_at) = (general, Some(Instant::now()));
                }
                Err(error) => tracing::debug!(%error, "the directory's lock-out was not read"),
            }
        }
        self.known().general
    }

    /// What holds for all, as far as it is known, read now if it never was; and what
    /// an entry's own policy says.
    pub(super) async fn of(&self, entry: &Entry, pool: &Pool) -> [Option<Lockout>; 2] {
        let read_before = self.known().read_at.is_some();
        let general = if read_before { self.known().general } else { self.general(pool).await };
        let own = match entry.text(self.attribute()) {
            Some(policy) => self.own(policy, pool).await,
            None => None,
        };
        [general, own]
    }

    async fn own(&self, policy: &str, pool: &Pool) -> Option<Lockout> {
        let known = self.known().own.get(policy).copied();
        if let Some((_, lockout)) = known.filter(|(at, _)| at.elapsed() < HOLDS) {
            return lockout;
        }
        let read = match self.read(policy, &POLICY, pool).await {
            Ok(entry) => entry.as_ref().and_then(lockout),
            // Not to be told, or not there.
            Err(DirectoryError::Refused { .. }) => None,
            Err(_) => return None,
        };
        if read.is_none() {
            tracing::warn!(policy, "the lock-out of an account's own policy is not readable");
        }
        let mut known = self.known();
        if known.own.len() >= OWN_MAX {
            known.own.clear();
        }
        known.own.insert(policy.to_owned(), (Instant::now(), read));
        read
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_general(&self, pool: &Pool) -> Result<Option<Lockout>, DirectoryError> {
        let wanted = [DEFAULT_CONTEXT, NAMING_CONTEXTS, VENDOR];
        let root = match self.read("", &wanted, pool).await {
            Ok(Some(root)) => root,
            Ok(None) | Err(DirectoryError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let read = if self.is_active {
            let Some(domain) = root.text(DEFAULT_CONTEXT) else { return Ok(None) };
            self.read(domain, &POLICY, pool).await.map(|domain| domain.as_ref().and_then(lockout))
        } else if root.text(VENDOR).is_some_and(|vendor| vendor.contains("389")) {
            let config = self.read("cn=config", &POLICY, pool).await;
            config.map(|config| config.as_ref().and_then(lockout))
        } else {
            self.strictest(&root, pool).await
        };
        match read {
            Err(DirectoryError::Refused { .. }) => Ok(None),
            other => other,
        }
    }

    /// Which policy of ppolicy holds by default stands in the server's configuration
    /// alone; so that none is broken, the strictest of all counts.
    async fn strictest(
        &self,
        root: &Entry,
        pool: &Pool,
    ) -> Result<Option<Lockout>, DirectoryError> {
        let is_ours = |context: &String| {
            let context = Dn::parse(context);
            self.base.as_ref().zip(context).is_some_and(|(base, it)| base.is_within(&it))
        };
        let Some(context) = root.texts(NAMING_CONTEXTS).into_iter().find(is_ours) else {
            return Ok(None);
        };
        let search = Search {
            operation: Operation::PolicySearch,
            base: &context,
            scope: Scope::Subtree,
            filter: &Filter::Equal(self.object_class.clone(), "pwdPolicy".to_owned()),
            attributes: &POLICY,
            entries_max: POLICIES_MAX,
        };
        let policies = pool.search(search).await?.entries;
        Ok(policies.iter().filter_map(lockout).reduce(stricter))
    }

    /// One entry, if it is to be seen.
    async fn read(
        &self,
        dn: &str,
        attributes: &[&str],
        pool: &Pool,
    ) -> Result<Option<Entry>, DirectoryError> {
        let search = Search {
            operation: Operation::PolicySearch,
            base: dn,
            scope: Scope::Base,
            filter: &Filter::Present(self.object_class.clone()),
            attributes,
            entries_max: 1,
        };
        Ok(pool.search(search).await?.entries.into_iter().next())
    }
}

/// Both at once: the lower threshold, the longer window.
fn stricter(one: Lockout, other: Lockout) -> Lockout {
    match (one.threshold, other.threshold) {
        (0, _) => other,
        (_, 0) => one,
        (a, b) => Lockout {
            threshold: a.min(b),
            window: match (one.window, other.window) {
                (Duration::ZERO, _) | (_, Duration::ZERO) => Duration::ZERO,
                (a, b) => a.max(b),
            },
        },
    }
}

/// What a policy's entry says; `None` when it says nothing of a lock-out.
fn lockout(policy: &Entry) -> Option<Lockout> {
    let whole = |name: &str| policy.number(name).and_then(|number| u32::try_from(number).ok());
    for [threshold, window] in [[POLICY[0], POLICY[1]], [POLICY[2], POLICY[3]]] {
        if let Some(threshold) = whole(threshold) {
            // Intervals are negative, in steps of 100 ns.
            let ticks = policy.number(window).map_or(0, i64::unsigned_abs);
            return Some(Lockout {
                threshold,
                window: Duration::from_secs(ticks / TICKS_PER_SECOND),
            });
        }
    }
    for [locks, threshold, window] in
        [[POLICY[4], POLICY[5], POLICY[6]], [POLICY[7], POLICY[8], POLICY[9]]]
    {
        let says = |text: &str| policy.text(locks).is_some_and(|it| it.eq_ignore_ascii_case(text));
        if says("true") || says("on") {
            let window = Duration::from_secs(whole(window).unwrap_or(0).into());
            return Some(Lockout { threshold: whole(threshold).unwrap_or(0), window });
        }
        if whole(threshold).is_some() || policy.text(locks).is_some() {
            return Some(Lockout::NEVER);
        }
    }
    None
}
