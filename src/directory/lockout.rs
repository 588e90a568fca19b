//! When the directory locks an account, as far as the service account may read it:
//! Active Directory's domain and fine-grained policies, and the policies of ppolicy
//! and of 389-ds. Knows nothing of our own limits.

mod policy;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ldap3::Scope;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};

use crate::config::Lockout;
use crate::directory::connection::Search;
use crate::directory::entry::Entry;
use crate::directory::filter::{Attribute, Filter};
use crate::directory::lockout::policy::{General, POLICY, general, lockout, own_lockout, stricter};
use crate::directory::pool::Pool;
use crate::directory::{DirectoryError, Operation};
use crate::dn::Dn;

/// How long what was read holds.
const HOLDS: Duration = Duration::from_mins(5);
/// How long nobody asks again after a failure, lest every login waits for it.
const PAUSE: Duration = Duration::from_secs(10);
/// Policies looked at.
const POLICIES_MAX: usize = 1000;
/// Policies of single accounts remembered.
const OWN_MAX: usize = 256;

const DEFAULT_CONTEXT: &str = "defaultNamingContext";
const NAMING_CONTEXTS: &str = "namingContexts";
const VENDOR: &str = "vendorName";
/// The policy of an account, where it has one of its own.
const OWN_POLICY: [&str; 2] = ["msDS-ResultantPSO", "pwdPolicySubentry"];
/// What is assumed of a policy that cannot be read: a threshold as low as any in use.
const CAUTION: Lockout = Lockout { threshold: 3, window: Duration::from_mins(30) };

/// What came of asking a directory when it locks accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockoutReading {
    /// It did not answer, neither now nor before.
    NotRead,
    /// It lets nothing of it be read.
    Nothing,
    /// This.
    Says(Lockout),
}

impl LockoutReading {
    /// What it says, if anything.
    pub(super) const fn lockout(self) -> Option<Lockout> {
        match self {
            Self::Says(lockout) => Some(lockout),
            Self::NotRead | Self::Nothing => None,
        }
    }
}

/// What is known of a directory's lock-out.
pub(super) struct Lockouts {
    base: Option<Dn>,
    object_class: Attribute,
    is_active: bool,
    /// How long a login may spend on it.
    patience: Duration,
    /// One at a time reads.
    reading: AsyncMutex<()>,
    known: Mutex<Known>,
}

struct Known {
    /// Until when nobody asks again; `None` when nobody has yet.
    holds_until: Option<Instant>,
    /// `None` until it was read.
    general: Option<General>,
    own: HashMap<String, Own>,
}

/// What is known of a policy of single accounts.
#[derive(Clone, Copy)]
struct Own {
    holds_until: Instant,
    /// `None` while it cannot be read.
    lockout: Option<Lockout>,
}

/// What holds for one account.
pub(super) struct Held {
    pub(super) general: Option<Lockout>,
    pub(super) own: Option<Lockout>,
    /// Its own policy cannot be read.
    pub(super) own_is_assumed: bool,
}

/// The policy of one account.
#[derive(Clone, Debug)]
pub(super) struct OwnPolicy {
    /// Its entry.
    pub(super) dn: String,
    /// What it says, as far as it may be read.
    pub(super) lockout: Option<Lockout>,
}

impl Lockouts {
    pub(super) fn new(
        base: &str,
        object_class: Attribute,
        is_active: bool,
        patience: Duration,
    ) -> Self {
        let known = Mutex::new(Known { holds_until: None, general: None, own: HashMap::new() });
        let reading = AsyncMutex::default();
        Self { base: Dn::parse(base), object_class, is_active, patience, reading, known }
    }

    /// What to fetch of an entry beside all else.
    pub(super) fn attribute(&self) -> &'static str {
        OWN_POLICY[usize::from(!self.is_active)]
    }

    /// What holds for accounts without a policy of their own, read again when that was
    /// long ago. A directory that does not answer in time leaves what is known.
    pub(super) async fn general(&self, pool: &Pool, within: Duration) -> LockoutReading {
        if timeout(within, self.read_again(pool)).await.is_err() {
            tracing::debug!("the directory's lock-out was not read in time");
        }
        match self.known().general {
            None => LockoutReading::NotRead,
            Some(General { lockout: None, .. }) => LockoutReading::Nothing,
            Some(General { lockout: Some(lockout), .. }) => LockoutReading::Says(lockout),
        }
    }

    async fn read_again(&self, pool: &Pool) {
        let _one = self.reading.lock().await;
        if self.known().holds_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        // Also when this is dropped because no time is left.
        self.known().holds_until = Some(Instant::now() + PAUSE);
        match self.read_general(pool).await {
            Ok(general) => {
                let mut known = self.known();
                known.general = Some(general);
                known.holds_until = Some(Instant::now() + HOLDS);
            }
            Err(error) => tracing::debug!(%error, "the directory's lock-out was not read"),
        }
    }

    /// What holds for all, as far as it is known, read now if it never was; and the
    /// policy that an entry has of its own.
    pub(super) async fn of(
        &self,
        entry: &Entry,
        pool: &Pool,
    ) -> (Option<Lockout>, Option<OwnPolicy>) {
        if self.known().general.is_none() {
            self.general(pool, self.patience).await;
        }
        let General { lockout, is_for_all } = self.known().general.unwrap_or_default();
        let own = match entry.text(self.attribute()).filter(|_| !is_for_all) {
            Some(dn) => Some(OwnPolicy { dn: dn.to_owned(), lockout: self.own(dn, pool).await }),
            None => None,
        };
        (lockout, own)
    }

    /// What holds for an account. An own policy that cannot be read is taken for the
    /// strictest that is known, and for a strict one at that.
    pub(super) async fn held(&self, entry: &Entry, pool: &Pool) -> Held {
        let (general, policy) = self.of(entry, pool).await;
        let Some(policy) = policy else {
            return Held { general, own: None, own_is_assumed: false };
        };
        let assumed = || general.into_iter().chain(self.all_own()).fold(CAUTION, stricter);
        Held {
            general,
            own: Some(policy.lockout.unwrap_or_else(assumed)),
            own_is_assumed: policy.lockout.is_none(),
        }
    }

    /// What an own policy says, read again when that was long ago; `None` when it cannot
    /// be read and never could.
    async fn own(&self, policy: &str, pool: &Pool) -> Option<Lockout> {
        let known = self.known().own.get(policy).copied();
        if let Some(own) = known.filter(|own| Instant::now() < own.holds_until) {
            return own.lockout;
        }
        let before = known.and_then(|own| own.lockout);
        // Also when this is dropped because the login has no time left.
        self.keep_own(policy, PAUSE, before);
        let read = timeout(self.patience, self.read(policy, &POLICY, pool)).await;
        let (holds, read) = match read.unwrap_or(Err(DirectoryError::Timeout)) {
            Ok(entry) => (HOLDS, entry.as_ref().and_then(own_lockout)),
            Err(error) if is_hidden(&error) => (HOLDS, None),
            Err(_) => (PAUSE, before),
        };
        if read.is_none() {
            tracing::warn!(policy, "the lock-out of an account's own policy is not readable");
        }
        self.keep_own(policy, holds, read);
        read
    }

    fn keep_own(&self, policy: &str, holds: Duration, lockout: Option<Lockout>) {
        let mut known = self.known();
        if known.own.len() >= OWN_MAX && !known.own.contains_key(policy) {
            known.own.clear();
        }
        let holds_until = Instant::now() + holds;
        known.own.insert(policy.to_owned(), Own { holds_until, lockout });
    }

    fn all_own(&self) -> Vec<Lockout> {
        self.known().own.values().filter_map(|own| own.lockout).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_general(&self, pool: &Pool) -> Result<General, DirectoryError> {
        let wanted = [DEFAULT_CONTEXT, NAMING_CONTEXTS, VENDOR];
        let root = match self.read("", &wanted, pool).await {
            Ok(Some(root)) => root,
            Ok(None) => return Ok(General::default()),
            Err(error) if is_hidden(&error) => return Ok(General::default()),
            Err(error) => return Err(error),
        };
        let read = if self.is_active {
            let Some(domain) = root.text(DEFAULT_CONTEXT) else { return Ok(General::default()) };
            self.read(domain, &POLICY, pool).await.map(general)
        } else if root.text(VENDOR).is_some_and(|vendor| vendor.contains("389")) {
            self.read("cn=config", &POLICY, pool).await.map(general)
        } else {
            let strictest = self.strictest(&root, pool).await;
            strictest.map(|lockout| General { lockout, is_for_all: false })
        };
        match read {
            Err(error) if is_hidden(&error) => Ok(General::default()),
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

/// Whether an error says that what was asked for is not to be told, or not there; others
/// say nothing of it.
const fn is_hidden(error: &DirectoryError) -> bool {
    matches!(error, DirectoryError::Refused { code: 10 | 16 | 32 | 34 | 50, .. })
}
