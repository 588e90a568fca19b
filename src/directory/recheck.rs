//! How accounts stand whose sessions are live: read again, many in one search. What
//! looks like the end of somebody is believed only where the directory shows that it
//! still lets us see. Knows no sessions.

use std::collections::{BTreeMap, HashMap};

use ldap3::Scope;
use tokio::time::timeout;

use crate::ambient::Timestamp;
use crate::directory::account;
use crate::directory::ahead::Searches;
use crate::directory::connection::Search;
use crate::directory::entry::{self, Entry};
use crate::directory::filter::{Attribute, Filter};
use crate::directory::group::NO_ATTRIBUTES;
use crate::directory::ldap::LdapDirectory;
use crate::directory::membership::Member;
use crate::directory::stamp::{self, Stamp};
use crate::directory::state::{self, State};
use crate::directory::{DirectoryError, Operation};
use crate::dn::Dn;
use crate::identity::{Role, Subject};

/// Accounts in one search; servers return no more than 500 or 1000 entries.
const ACCOUNTS_PER_SEARCH: usize = 200;
/// Entries that one account may stand for, before its search is too large: a subject
/// need not be unique, only a login name.
const ENTRIES_PER_ACCOUNT: usize = 2;
/// So few accounts are asked for their groups one by one, as a login asks.
const FEW: usize = 8;
/// Searches of one recheck that may fail by themselves, before the directory as a
/// whole is taken for failing: enough to find two entries that no search can read.
const FAILURES_MAX: usize = 32;

/// The time for the roles of many, in the times of single searches.
const SEARCHES_FOR_GROUPS: u32 = 10;

/// What a session knows of its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who it is to the upstream.
    pub subject: Subject,
    /// The entry's own normalised DN at login.
    pub account: String,
    /// The role at login.
    pub role: Role,
    /// The stamp at login.
    pub stamp: Option<String>,
}

/// How an account stands, compared with what a session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As at login.
    Unchanged,
    /// No account that may log in has the subject, or another entry has it.
    Gone,
    /// It is disabled.
    Disabled,
    /// It was made for a time that is over.
    Expired,
    /// The password was set since.
    PasswordChanged,
    /// No role fits any more.
    RoleLost,
    /// Another role is the first that fits.
    RoleChanged,
    /// The directory did not say.
    Unknown,
}

/// What a recheck found.
#[derive(Debug)]
pub struct Rechecked {
    /// One for each account asked about, in their order.
    pub standings: Vec<Standing>,
    /// Why some of them are unknown.
    pub error: Option<DirectoryError>,
}

/// What a recheck has learned so far.
struct Progress<'k> {
    known: &'k [Known],
    now: Timestamp,
    standings: Vec<Standing>,
    /// No entry was found for these.
    absent: Vec<usize>,
    /// These told the password's time at login and do not now.
    untold: Vec<usize>,
    /// These stand as before, but for their role.
    members: Vec<(usize, Member)>,
    /// An account was seen, and the time of a password.
    sees_accounts: bool,
    sees_stamps: bool,
    failures: usize,
    /// The last failure of a single search.
    error: Option<DirectoryError>,
}

impl LdapDirectory {
    /// Reads these accounts again. `now` is held against ends of accounts where the
    /// directory tells no time of its own.
    pub(super) async fn recheck(&self, known: &[Known], now: Timestamp) -> Rechecked {
        let mut progress = Progress {
            known,
            now,
            standings: vec![Standing::Unknown; known.len()],
            absent: Vec::new(),
            untold: Vec::new(),
            members: Vec::new(),
            sees_accounts: false,
            sees_stamps: false,
            failures: 0,
            error: None,
        };
        let result = self.recheck_all(&mut progress).await;
        Rechecked { standings: progress.standings, error: result.err().or(progress.error) }
    }

    async fn recheck_all(&self, progress: &mut Progress<'_>) -> Result<(), DirectoryError> {
        let mut places: BTreeMap<&Subject, Vec<usize>> = BTreeMap::new();
        for (place, known) in progress.known.iter().enumerate() {
            places.entry(&known.subject).or_default().push(place);
        }
        let places: Vec<(&Subject, Vec<usize>)> = places.into_iter().collect();
        let domain_time = match &self.active_directory {
            Some(it) => {
                let domain = self.in_time(it.domain(&self.pool)).await?;
                // Were every role's group hidden, everybody would seem to have lost the role.
                if !domain.has_role_groups() {
                    return Err(DirectoryError::Blind("role's group"));
                }
                domain.now()
            }
            None => None,
        };
        let mut waiting: Vec<&[_]> = places.chunks(ACCOUNTS_PER_SEARCH).rev().collect();
        while let Some(some) = waiting.pop() {
            let subjects: Vec<&Subject> = some.iter().map(|(subject, _)| *subject).collect();
            match self.in_time(self.read_accounts(&subjects)).await {
                Ok(entries) => self.compare(some, &entries, domain_time, progress),
                Err(error) => {
                    progress.fail(error)?;
                    // What one odd entry spoils is asked for in two halves.
                    if some.len() > 1 {
                        let (first, second) = some.split_at(some.len() / 2);
                        waiting.extend([second, first]);
                    }
                }
            }
        }
        self.settle_absent(progress).await?;
        self.settle_untold(progress).await?;
        self.settle_roles(progress).await
    }

    /// The entries of these subjects, of those that may log in at all.
    async fn read_accounts(&self, subjects: &[&Subject]) -> Result<Vec<Entry>, DirectoryError> {
        let attribute = &self.subject_attribute;
        let equal = |subject: &&Subject| entry::conditions(attribute, subject.as_str());
        let any = Filter::Or(subjects.iter().flat_map(equal).collect());
        let configured = self.user_filter.clone().map(Filter::Configured);
        let mut attributes = vec![attribute.as_str()];
        attributes.extend(stamp::ATTRIBUTES);
        if self.active_directory.is_some() {
            attributes.extend(account::ATTRIBUTES);
            attributes.extend(Member::ATTRIBUTES);
        } else {
            attributes.extend(state::ATTRIBUTES);
        }
        let search = Search {
            operation: Operation::Recheck,
            base: &self.base,
            scope: Scope::Subtree,
            filter: &Filter::And(configured.into_iter().chain([any]).collect()),
            attributes: &attributes,
            entries_max: subjects.len() * ENTRIES_PER_ACCOUNT,
        };
        let found = self.pool.search(search).await?;
        if found.more { Err(DirectoryError::TooManyEntries) } else { Ok(found.entries) }
    }

    fn compare(
        &self,
        asked: &[(&Subject, Vec<usize>)],
        entries: &[Entry],
        domain_time: Option<i64>,
        progress: &mut Progress<'_>,
    ) {
        let mut found: HashMap<Subject, Vec<&Entry>> = HashMap::new();
        for entry in entries {
            if let Ok(subject) = entry.subject(self.subject_attribute.as_str()) {
                found.entry(subject).or_default().push(entry);
            }
        }
        progress.sees_accounts |= !entries.is_empty();
        for (subject, places) in asked {
            let entries = found.get(subject).map_or(&[][..], Vec::as_slice);
            for place in places {
                let Some(known) = progress.known.get(*place) else { continue };
                let Some((entry, dn)) = pick(entries, known) else {
                    progress.absent.push(*place);
                    continue;
                };
                let is_active = self.active_directory.is_some();
                let state = match (is_active, domain_time) {
                    (true, time) => State::of_active_directory(entry, time),
                    (false, _) => State::of_entry(entry, progress.now),
                };
                progress.judge(*place, entry, dn, state);
            }
        }
    }

    /// Whom no search found is gone, if any account is seen at all.
    async fn settle_absent(&self, progress: &mut Progress<'_>) -> Result<(), DirectoryError> {
        if progress.absent.is_empty() {
            return Ok(());
        }
        if !progress.sees_accounts && !self.in_time(self.sees_accounts()).await? {
            return Err(DirectoryError::Blind("account"));
        }
        for place in std::mem::take(&mut progress.absent) {
            progress.set(place, Standing::Gone);
        }
        Ok(())
    }

    /// A password's time that is told no more: the password is gone, if anybody's is told.
    async fn settle_untold(&self, progress: &mut Progress<'_>) -> Result<(), DirectoryError> {
        if progress.untold.is_empty() {
            return Ok(());
        }
        if !progress.sees_stamps && !self.in_time(self.sees_stamps()).await? {
            tracing::warn!(
                accounts = progress.untold.len(),
                "the directory no longer tells when passwords were set; changes are not noticed"
            );
            return Ok(());
        }
        for place in std::mem::take(&mut progress.untold) {
            progress.set(place, Standing::PasswordChanged);
        }
        Ok(())
    }

    /// The roles of many are read from their groups; whoever seems to have another one is
    /// asked about alone, as at a login, before that is believed.
    async fn settle_roles(&self, progress: &mut Progress<'_>) -> Result<(), DirectoryError> {
        let mut members = std::mem::take(&mut progress.members);
        members.retain(|(place, _)| progress.is_open(*place));
        let mut sees_members = false;
        if members.len() > FEW {
            let asked: Vec<&Member> = members.iter().map(|(_, member)| member).collect();
            match self.in_times(SEARCHES_FOR_GROUPS, self.roles_of_many(&asked)).await {
                Ok(found) => {
                    sees_members = found.sees_members;
                    let mut roles = found.roles.into_iter();
                    members.retain(|(place, _)| {
                        let role = roles.next().flatten();
                        !progress.holds(*place, role.as_ref())
                    });
                }
                Err(error) => progress.fail(error)?,
            }
        }
        for (place, member) in members {
            match self.in_time(self.role_of(member.dn(), &Searches::plain(&self.pool))).await {
                Ok(role) if progress.holds(place, role) => {}
                Ok(Some(_)) => progress.set(place, Standing::RoleChanged),
                Ok(None) => {
                    // Were all members hidden, nobody would seem to have a role.
                    sees_members = sees_members || self.in_time(self.sees_members()).await?;
                    if !sees_members {
                        return Err(DirectoryError::Blind("group's member"));
                    }
                    progress.set(place, Standing::RoleLost);
                }
                Err(error) => progress.fail(error)?,
            }
        }
        Ok(())
    }

    /// Whether the service account sees anybody who may log in.
    async fn sees_accounts(&self) -> Result<bool, DirectoryError> {
        let configured = self.user_filter.clone().map(Filter::Configured);
        let present = Filter::Present(self.subject_attribute.clone());
        self.sees(Filter::And(configured.into_iter().chain([present]).collect())).await
    }

    /// Whether anybody's entry tells when its password was set.
    async fn sees_stamps(&self) -> Result<bool, DirectoryError> {
        let names = stamp::PASSWORD.into_iter().filter_map(Attribute::parse);
        self.sees(Filter::Or(names.map(Filter::Present).collect())).await
    }

    async fn sees(&self, filter: Filter) -> Result<bool, DirectoryError> {
        let search = Search {
            operation: Operation::Recheck,
            base: &self.base,
            scope: Scope::Subtree,
            filter: &filter,
            attributes: NO_ATTRIBUTES,
            entries_max: 1,
        };
        Ok(!self.pool.search(search).await?.entries.is_empty())
    }

    /// No search takes longer than a login may.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        self.in_times(1, work).await
    }

    async fn in_times<T>(
        &self,
        searches: u32,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        let patience = self.timeout.saturating_mul(searches);
        timeout(patience, work).await.unwrap_or(Err(DirectoryError::Timeout))
    }
}

impl Progress<'_> {
    /// What the entry itself says; the role is asked for afterwards.
    fn judge(&mut self, place: usize, entry: &Entry, dn: Dn, state: State) {
        let before = self.known.get(place).and_then(|known| known.stamp.as_deref());
        let before = before.map(Stamp::parse);
        let now = Stamp::read(entry);
        self.sees_stamps |= now.password.is_some();
        let (before_entry, before_password) =
            before.map_or((None, None), |it| (it.entry, Some(it.password)));
        // Of two names for one entry either may be hidden: only both can differ.
        let is_another =
            before_entry.as_ref().zip(now.entry.as_ref()).is_some_and(|(old, new)| old != new);
        let standing = match (state, before_password) {
            _ if is_another => Standing::Gone,
            (State::Disabled, _) => Standing::Disabled,
            (State::Expired, _) => Standing::Expired,
            (State::Open, Some(Some(_))) if now.password.is_none() => {
                self.untold.push(place);
                Standing::Unknown
            }
            (State::Open, Some(before)) if before != now.password => Standing::PasswordChanged,
            (State::Open, _) => Standing::Unknown,
        };
        self.set(place, standing);
        if standing == Standing::Unknown {
            self.members.push((place, Member::read(entry, dn)));
        }
    }

    fn set(&mut self, place: usize, standing: Standing) {
        if let Some(known) = self.standings.get_mut(place) {
            *known = standing;
        }
    }

    fn is_open(&self, place: usize) -> bool {
        self.standings.get(place) == Some(&Standing::Unknown)
    }

    /// Whether a role is the one that is known; then all is as it was.
    fn holds(&mut self, place: usize, role: Option<&Role>) -> bool {
        let same = self.known.get(place).map(|known| &known.role) == role;
        if same {
            self.set(place, Standing::Unchanged);
        }
        same
    }

    /// Takes note that one search failed.
    ///
    /// # Errors
    /// When others would fail too.
    fn fail(&mut self, error: DirectoryError) -> Result<(), DirectoryError> {
        self.failures += 1;
        if error.is_outage() || self.failures > FAILURES_MAX {
            return Err(error);
        }
        tracing::warn!(%error, "a search of the recheck failed");
        self.error = Some(error);
        Ok(())
    }
}

/// The entry of an account: the one that it was, or the only one, which was renamed.
fn pick<'e>(entries: &[&'e Entry], known: &Known) -> Option<(&'e Entry, Dn)> {
    let named = |entry: &&'e Entry| Some((*entry, Dn::parse(&entry.dn)?));
    let same = entries.iter().filter_map(named).find(|(_, dn)| dn.to_string() == known.account);
    same.or_else(|| if let [only] = entries { named(only) } else { None })
}
