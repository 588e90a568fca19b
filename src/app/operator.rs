//! What operators' commands do: the sessions and keys that they name, and the
//! record of each. Knows no socket.

use std::borrow::Cow;
use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use crate::admin::control::{Answer, Asked, Command, KeyLine, KeyUse, Purpose, SessionLine, Which};
use crate::admin::telemetry::Readiness;
use crate::ambient::Timestamp;
use crate::app::{assertion_keys, keys};
use crate::audit::{Event, Record};
use crate::config::Publication;
use crate::gateway::Services;
use crate::identity::{SessionId, Subject};
use crate::session::{DroppedKeys, Reason};
use crate::store::{SessionRecord, StoreError};
use crate::token::{AssertionKeyFacts, KeyError, KeyFacts, KeyStage};

/// Why a command was not carried out, or not wholly; operators read it.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the store cannot answer")]
    Store(#[from] StoreError),
    #[error("there is no such session")]
    UnknownSession,
    #[error("{0}")]
    Keys(#[from] KeyError),
    #[error("all old keys are dropped here, but a restart would read one again: {0}")]
    Left(#[source] KeyError),
    #[error("it was done, but could not be recorded in the audit log")]
    Unrecorded,
    #[error("no upstream.assertion is signed with a key pair of ours")]
    NoAssertionKeys,
    #[error("the gateway failed; its log says why")]
    Internal,
}

/// Carries commands out, each to its end, until nobody can give any.
pub(super) async fn obey(
    services: Arc<Services>,
    readiness: Readiness,
    mut commands: mpsc::Receiver<Asked>,
) {
    while let Some(Asked { command, answers }) = commands.recv().await {
        let (services, readiness) = (Arc::clone(&services), readiness.clone());
        tokio::spawn(async move {
            let last = match carry_out((&services, &readiness), command, &answers).await {
                Ok(count) => Answer::Done(count),
                Err(trouble) => Answer::Failed(trouble.to_string()),
            };
            // Whoever asked may be gone.
            let _ = answers.send(last).await;
        });
    }
}

/// Says how many sessions or keys it concerned.
async fn carry_out(
    (services, readiness): (&Arc<Services>, &Readiness),
    command: Command,
    answers: &mpsc::Sender<Answer>,
) -> Result<u64, Trouble> {
    match command {
        Command::Readiness {} => {
            let reasons = readiness.reasons();
            for reason in &reasons {
                let _ = answers.send(Answer::Reason((*reason).to_owned())).await;
            }
            Ok(u64::try_from(reasons.len()).unwrap_or(u64::MAX))
        }
        Command::SessionsList { which } => list(services, &which, answers).await,
        Command::SessionsRevoke { which } => revoke(services, &which, Reason::Operator).await,
        Command::KeysList { purpose: Purpose::Session } => {
            let keys = services.sessions.keys();
            // Keys of our own begin at once; their names tell seconds, perhaps a later one.
            let is_shared = services.sessions.store().is_shared();
            let begun =
                if is_shared { services.clock.now() } else { Timestamp::from_millis(i64::MAX) };
            for key in &keys {
                let _ = answers.send(Answer::Key(key_line(key, begun))).await;
            }
            Ok(u64::try_from(keys.len()).unwrap_or(u64::MAX))
        }
        Command::KeysList { purpose: Purpose::Assertion } => {
            let keys = services.snapshot.load().assertion_keys.facts(services.clock.now());
            for key in &keys {
                let _ = answers.send(Answer::Key(assertion_key_line(key))).await;
            }
            Ok(u64::try_from(keys.len()).unwrap_or(u64::MAX))
        }
        Command::KeysRotate { purpose: Purpose::Session, now } => rotate(services, now).await,
        Command::KeysRotate { purpose: Purpose::Assertion, now } => {
            rotate_assertions(services, now).await
        }
    }
}

async fn list(
    services: &Services,
    which: &Which,
    answers: &mpsc::Sender<Answer>,
) -> Result<u64, Trouble> {
    let mut chosen = Chosen::new(services, which).await?;
    let mut count = 0;
    while let Some(records) = chosen.next().await? {
        for record in &records {
            count += 1;
            if answers.send(Answer::Session(session_line(record))).await.is_err() {
                return Ok(count);
            }
        }
    }
    Ok(count)
}

/// Ends sessions page by page, each page in one step of the store.
async fn revoke(services: &Arc<Services>, which: &Which, reason: Reason) -> Result<u64, Trouble> {
    let mut chosen = Chosen::new(services, which).await?;
    let (mut count, mut recorded) = (0, true);
    while let Some(records) = chosen.next().await? {
        let ended = services.sessions.end_all(records, reason).await?;
        count += u64::try_from(ended.len()).unwrap_or(u64::MAX);
        let mut writing: JoinSet<bool> = JoinSet::new();
        for record in ended {
            let audit = services.audit.clone();
            let entry = revocation(&record, reason);
            writing.spawn(async move { audit.durable(entry).await.is_ok() });
        }
        recorded &= writing.join_all().await.into_iter().all(|written| written);
    }
    tracing::warn!(sessions = count, reason = reason.label(), "sessions were ended by an operator");
    if recorded { Ok(count) } else { Err(Trouble::Unrecorded) }
}

async fn rotate(services: &Arc<Services>, now: bool) -> Result<u64, Trouble> {
    let sessions = &services.sessions;
    let DroppedKeys { events, left } = if now {
        sessions.drop_keys().await?
    } else {
        DroppedKeys { events: sessions.rotate_keys().await?, left: None }
    };
    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
    let recorded = keys::record(services, "session", events, "operator").await;
    if now {
        // Nobody holds a token of theirs any more; their streams end with them.
        revoke(services, &Which::All, Reason::KeysDropped).await?;
    }
    if let Some(error) = left {
        return Err(Trouble::Left(error));
    }
    if recorded { Ok(count) } else { Err(Trouble::Unrecorded) }
}

async fn rotate_assertions(services: &Arc<Services>, now: bool) -> Result<u64, Trouble> {
    let rotating = Arc::clone(services);
    // An RSA key takes its time.
    let rotated = spawn_blocking(move || assertion_keys::rotate(&rotating, now)).await;
    let DroppedKeys { events, left } = rotated.map_err(|_| Trouble::Internal)??;
    if events.is_empty() {
        return Err(Trouble::NoAssertionKeys);
    }
    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
    let recorded = keys::record(services, "assertion", events, "operator").await;
    if let Some(error) = left {
        return Err(Trouble::Left(error));
    }
    if recorded { Ok(count) } else { Err(Trouble::Unrecorded) }
}

/// The sessions that a command names, page by page. Those of a subject come from an
/// index, at once; only then are all read for the directory's name of the account.
struct Chosen<'s> {
    services: &'s Services,
    which: &'s Which,
    /// What need not be looked for, until it was given.
    first: Vec<SessionRecord>,
    /// These were given already.
    given: HashSet<SessionId>,
    after: Option<SessionId>,
    at_end: bool,
}

impl<'s> Chosen<'s> {
    async fn new(services: &'s Services, which: &'s Which) -> Result<Self, Trouble> {
        let first = match which {
            Which::Session(text) => {
                let session = SessionId::parse(text).ok_or(Trouble::UnknownSession)?;
                vec![services.sessions.find(session).await?.ok_or(Trouble::UnknownSession)?]
            }
            Which::User(name) => services.sessions.live_of(&Subject::new(name)).await?,
            Which::All => Vec::new(),
        };
        let given = first.iter().map(|record| record.session).collect();
        let at_end = matches!(which, Which::Session(_));
        Ok(Self { services, which, first, given, after: None, at_end })
    }

    /// The next ones that are live; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<SessionRecord>>, Trouble> {
        if !self.first.is_empty() {
            return Ok(Some(mem::take(&mut self.first)));
        }
        while !self.at_end {
            let mut records = self.services.sessions.page(self.after).await?;
            self.after = records.last().map(|record| record.session);
            self.at_end = self.after.is_none();
            records.retain(|record| {
                self.services.sessions.is_live(record)
                    && is_of(self.which, record)
                    && !self.given.contains(&record.session)
            });
            if !records.is_empty() {
                return Ok(Some(records));
            }
        }
        Ok(None)
    }
}

fn is_of(which: &Which, record: &SessionRecord) -> bool {
    match which {
        Which::All | Which::Session(_) => true,
        Which::User(name) => record.subject.as_str() == name || record.account == *name,
    }
}

fn revocation(record: &SessionRecord, reason: Reason) -> Record {
    let mut entry = Record::new(Event::Revocation, reason.label());
    entry.subject = Some(record.subject.shared());
    entry.role = Some(record.role.shared());
    entry.session = Some(*record.session.as_bytes());
    entry.detail = Some(Cow::Borrowed("control socket"));
    entry
}

fn session_line(record: &SessionRecord) -> SessionLine {
    SessionLine {
        session: record.session.to_string(),
        subject: record.subject.to_string(),
        role: record.role.to_string(),
        began: record.created.rfc3339(),
        last_seen: record.last_activity.rfc3339(),
        address: record.address.to_canonical().to_string(),
        user_agent: record.user_agent.clone(),
    }
}

fn key_line(facts: &KeyFacts, begun: Timestamp) -> KeyLine {
    // One for later, which other gateways must hold before it signs.
    let usage = if facts.created > begun {
        KeyUse::SignsFrom(facts.created.rfc3339())
    } else {
        facts.replaced.map_or(KeyUse::Signs, |since| KeyUse::Verifies(since.rfc3339()))
    };
    KeyLine {
        kid: facts.kid.clone(),
        algorithm: facts.algorithm.to_owned(),
        created: facts.created.rfc3339(),
        usage,
    }
}

fn assertion_key_line(facts: &AssertionKeyFacts) -> KeyLine {
    let circle = match facts.publication {
        Publication::Public => "public",
        Publication::Internal => "internal",
    };
    KeyLine {
        kid: facts.kid.clone(),
        algorithm: format!("{} {circle}", facts.algorithm),
        created: facts.created.rfc3339(),
        usage: match facts.stage {
            KeyStage::Signs => KeyUse::Signs,
            KeyStage::SignsFrom(from) => KeyUse::SignsFrom(from.rfc3339()),
            KeyStage::Published => KeyUse::Published,
            KeyStage::Unused => KeyUse::Unused,
        },
    }
}
