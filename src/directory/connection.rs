//! One connection to one server: the guard, and the LDAP library behind it. Knows no
//! accounts and no roles.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use ldap3::controls::RawControl;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchOptions, StdStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::directory::bind::{self, BindAnswer};
use crate::directory::entry::Entry;
use crate::directory::filter::Filter;
use crate::directory::guard;
use crate::directory::meter::Counted;
use crate::directory::{DirectoryError, Operation};
use crate::secret::Secret;

/// Active Directory then answers from its own domain alone and refers to no other.
const DOMAIN_SCOPE: &str = "1.2.840.113556.1.4.1339";
const CODE_SUCCESS: u32 = 0;
const CODE_SIZE_LIMIT_EXCEEDED: u32 = 4;
const CODE_NO_SUCH_OBJECT: u32 = 32;

/// A search.
pub(super) struct Search<'s> {
    pub(super) operation: Operation,
    pub(super) base: &'s str,
    pub(super) scope: Scope,
    pub(super) filter: &'s Filter,
    /// Which attributes to bring; `1.1` alone for none.
    pub(super) attributes: &'s [&'s str],
    /// Most entries to take.
    pub(super) entries_max: usize,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    /// There is more than was asked for or than the server likes to tell.
    pub(super) more: bool,
}

/// A connection; whatever belongs to it ends when it is dropped.
pub(super) struct Connection {
    library: Ldap,
    task: AbortHandle,
    suspect: AtomicBool,
    /// Whether searches are kept to the server's own domain.
    within_domain: bool,
    /// Closed when the connection has ended.
    alive: watch::Receiver<()>,
    /// Counts it as open as long as it lives.
    counted: Option<Counted>,
}

impl Connection {
    /// Speaks LDAP over a stream that is ready for it.
    pub(super) async fn over<S>(
        server: S,
        name: String,
        within_domain: bool,
    ) -> Result<Self, DirectoryError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (library_end, guard_end) = UnixStream::pair().map_err(DirectoryError::Connect)?;
        let library_end = library_end.into_std().map_err(DirectoryError::Connect)?;
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(library_end));
        // The URL only says that the stream is a Unix one.
        let opened = LdapConnAsync::with_settings(settings, "ldapi://x").await;
        let (driver, library) = opened.map_err(|_| DirectoryError::Lost)?;
        let (living, alive) = watch::channel(());
        // One task for both, so that no message wakes a second one. A panic in the driver
        // ends it alone, and with it the connection.
        let task = tokio::spawn(async move {
            let _living = living;
            let mut driving = Box::pin(driver.drive());
            let relaying = async {
                if let Err(ended) = guard::relay(server, guard_end).await {
                    tracing::warn!(server = name, cause = %ended, "directory connection ended");
                }
            };
            tokio::select! {
                // What was said before the end is still understood.
                () = relaying => drop(driving.await),
                _ = &mut driving => {}
            }
        });
        let task = task.abort_handle();
        let suspect = AtomicBool::new(false);
        Ok(Self { library, task, suspect, within_domain, alive, counted: None })
    }

    /// Counts as open from now on until it is dropped.
    pub(super) fn counted(mut self, counted: Counted) -> Self {
        self.counted = Some(counted);
        self
    }

    /// Resolves when the connection has ended; holds nothing of it.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut alive = self.alive.clone();
        async move { while alive.changed().await.is_ok() {} }
    }

    /// False once it ended or an operation on it was left without a proper end.
    pub(super) fn is_usable(&self) -> bool {
        !self.suspect.load(Ordering::Relaxed) && !self.library.clone().is_closed()
    }

    /// The library's handle, for one operation within [`Self::watched`].
    pub(super) fn library(&self) -> Ldap {
        self.library.clone()
    }

    /// Binds, asking for the password policy's state.
    pub(super) async fn bind(
        &self,
        dn: &str,
        password: &Secret<String>,
    ) -> Result<BindAnswer, DirectoryError> {
        let mut library = self.library.clone();
        let work = async {
            library.with_controls(bind::password_policy_request());
            library.simple_bind(dn, password.expose()).await.map_err(|_| DirectoryError::Lost)
        };
        let result = self.watched(work).await?;
        bind::judge(result.rc, &result.text, &result.ctrls)
    }

    /// Searches; references are left out and never followed.
    pub(super) async fn search(&self, search: &Search<'_>) -> Result<Found, DirectoryError> {
        // Boxed, because it is large and wrapped several times.
        let (code, found) = self.watched(Box::pin(self.read_entries(search))).await?;
        match code {
            CODE_SUCCESS => Ok(found),
            CODE_SIZE_LIMIT_EXCEEDED => Ok(Found { more: true, ..found }),
            code => {
                if code != CODE_NO_SUCH_OBJECT {
                    // Perhaps the server no longer knows who we are here.
                    self.suspect.store(true, Ordering::Relaxed);
                }
                Err(DirectoryError::Refused { operation: search.operation, code })
            }
        }
    }

    async fn read_entries(&self, search: &Search<'_>) -> Result<(u32, Found), DirectoryError> {
        let mut library = self.library.clone();
        let limit = i32::try_from(search.entries_max).unwrap_or(i32::MAX);
        library.with_search_options(SearchOptions::new().sizelimit(limit));
        if self.within_domain {
            library.with_controls(vec![RawControl {
                ctype: DOMAIN_SCOPE.to_owned(),
                crit: true,
                val: None,
            }]);
        }
        let filter = search.filter.to_string();
        let attributes = search.attributes.to_vec();
        let stream = library.streaming_search(search.base, search.scope, &filter, attributes);
        let mut stream = stream.await.map_err(lost)?;
        let mut found = Found::default();
        while let Some(item) = stream.next().await.map_err(lost)? {
            if item.is_ref() || item.is_intermediate() {
                continue;
            }
            // Some servers ignore the size limit; an endless answer ends here.
            if found.entries.len() >= search.entries_max {
                self.suspect.store(true, Ordering::Relaxed);
                found.more = true;
                return Ok((CODE_SIZE_LIMIT_EXCEEDED, found));
            }
            let entry = Entry::parse(item.0).ok_or(DirectoryError::Protocol("an entry"))?;
            found.entries.push(entry);
        }
        Ok((stream.finish().await.rc, found))
    }

    /// Runs an operation. When it fails, is dropped half-way or panics (the library
    /// does, on answers of an unexpected shape), nobody uses this connection again.
    pub(super) async fn watched<T>(
        &self,
        work: impl Future<Output = Result<T, DirectoryError>>,
    ) -> Result<T, DirectoryError> {
        let suspicion = Suspicion(&self.suspect);
        let mut work = pin!(work);
        let result = std::future::poll_fn(|context| {
            catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
                .unwrap_or(Poll::Ready(Err(DirectoryError::Lost)))
        })
        .await?;
        std::mem::forget(suspicion);
        Ok(result)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn lost(error: LdapError) -> DirectoryError {
    match error {
        LdapError::FilterParsing => DirectoryError::Protocol("our own filter"),
        _ => DirectoryError::Lost,
    }
}

/// Makes its connection suspect unless it is forgotten.
struct Suspicion<'c>(&'c AtomicBool);

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
