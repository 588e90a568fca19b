//! `[token]`, `[throttle]` and `[login_page]`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::kind::{self, Choice, Whole, show_duration};
use super::reader::Reader;
use crate::identity::ClaimTemplates;

/// The claims that only the gateway sets.
pub const FIXED_CLAIMS: [&str; 8] =
    ["sub", "role", "context", "iat", "exp", "sid", "jti", "reference"];

/// The `typ` of every session token, and of nothing else (RFC 8725 section 3.11).
pub const SESSION_TYP: &str = "bindgate-session+jwt";

/// `[token]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// How new tokens are signed.
    pub algorithm: TokenAlgorithm,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
    /// From login to the end of the session, whatever happens.
    pub session_lifetime: Duration,
    /// The longest pause after which a session can be renewed; not below `lifetime`.
    pub idle_timeout: Duration,
    /// How long a replaced token still works once its successor was seen.
    pub replay_grace: Duration,
    /// One JSON Web Key a file; `None` with the memory store, whose keys die with it.
    pub keys_dir: Option<PathBuf>,
    /// Where the client gets its token.
    pub delivery: Delivery,
    /// How old the key that signs may become; `None` means that only operators change it.
    pub rotate_every: Option<Duration>,
    /// How many sessions somebody may have; the oldest ends for one more.
    pub sessions_per_user: Option<usize>,
    /// `[token.claims]`: further claims, for others to read.
    pub claims: ClaimTemplates,
    /// `[token.login_response]`: further members of the login's answer.
    pub login_response: Map<String, Value>,
}

/// How tokens are signed (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// Ed25519.
    EdDsa,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

/// Where the client gets its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In the token cookie.
    Cookie,
    /// In the JSON answer.
    Bearer,
    /// In both.
    Both,
}

impl Delivery {
    /// Whether the token cookie is set.
    #[must_use]
    pub const fn by_cookie(self) -> bool {
        matches!(self, Self::Cookie | Self::Both)
    }

    /// Whether the token stands in the JSON answer.
    #[must_use]
    pub const fn by_answer(self) -> bool {
        matches!(self, Self::Bearer | Self::Both)
    }
}

/// `[throttle]`: failed logins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginThrottle {
    /// Failures of one account.
    pub per_user: Rate,
    /// Failures from one address (IPv6: one /64).
    pub per_address: Rate,
    /// Different accounts failed on from one address.
    pub accounts_per_address: Rate,
    /// When the directory locks an account; as it says itself if there is none.
    pub directory_lockout: Option<Lockout>,
    /// How far below the directory's lock-out we stay.
    pub lockout_margin: u32,
    /// Failures of an account kept for devices that it logged in from.
    pub device_reserve: u32,
    /// Such devices remembered.
    pub devices: u64,
    /// The steps after its arrival at which a login may be refused.
    pub refusal_after: Duration,
    /// Logins under way at one time.
    pub logins: usize,
    /// Accounts and addresses remembered, each; the same for each rule of a route.
    pub entries: usize,
}

/// When a directory locks an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// The wrong password that locks it; 0 when none does.
    pub threshold: u32,
    /// How long the directory counts a wrong password; zero when only a right one
    /// makes it forget.
    pub window: Duration,
}

/// `"5 per 15m"`: at most `count` in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1, at most 1,000,000.
    pub count: u32,
    /// In which time.
    pub window: Duration,
}

/// `[login_page]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginPage {
    /// The page's title and heading.
    pub title: String,
    /// A sentence above the form; may be empty.
    pub notice: String,
}

impl Lockout {
    /// No account is ever locked.
    pub const NEVER: Self = Self { threshold: 0, window: Duration::ZERO };
}

impl Token {
    /// Reads `[token]`; `in_memory` says that the store is, and the keys with it.
    pub(super) fn read(r: &mut Reader<'_>, in_memory: bool) -> Self {
        let algorithm =
            r.or("algorithm", ALGORITHM, TokenAlgorithm::Hs256, "How tokens are signed.");
        let (lifetime, session_lifetime, idle_timeout) = read_lifetimes(r);
        let replay_grace = r.or(
            "replay_grace",
            kind::duration(true),
            Duration::from_mins(1),
            "How long a replaced token still works once its successor was seen.",
        );
        let keys_dir = r.optional(
            "keys_dir",
            kind::file(),
            "The folder of the keys, made at the first start; required unless store.kind is \
             \"memory\". With \"redis\" session keys are in Redis, and the others here.",
        );
        let delivery = r.or(
            "delivery",
            Choice {
                built: &[
                    ("cookie", Delivery::Cookie),
                    ("bearer", Delivery::Bearer),
                    ("both", Delivery::Both),
                ],
                unbuilt: &[],
            },
            Delivery::Cookie,
            "Where the client gets its token: in the cookie, in the JSON answer, or in both.",
        );
        let (claims, login_response) = read_further(r);
        let rotate_every = r.optional(
            "rotate_every",
            kind::seconds(),
            "After what time a new key signs; not below lifetime.",
        );
        let sessions_per_user = r.optional(
            "sessions_per_user",
            Whole { min: 1, max: 10_000 },
            "How many sessions a user may have; one more ends the oldest.",
        );
        if delivery == Delivery::Both {
            r.note("delivery", "\"both\": scripts of the page can read the token from the answer");
        }
        let keys_dir = match (keys_dir, in_memory) {
            (Some(_), true) => {
                r.note("keys_dir", "not used: with store.kind = \"memory\" keys are in memory too");
                None
            }
            (None, false) if !r.given("keys_dir") => {
                let allowed = "a folder; or store.kind = \"memory\"";
                r.problem("keys_dir", "nothing", allowed.to_owned());
                None
            }
            (keys_dir, _) => keys_dir.map(|path| r.resolve(&path)),
        };
        let token = Self {
            algorithm,
            lifetime,
            session_lifetime,
            idle_timeout,
            replay_grace,
            keys_dir,
            delivery,
            rotate_every,
            sessions_per_user,
            claims,
            login_response,
        };
        token.check_lifetimes(r);
        token
    }

    fn check_lifetimes(&self, r: &mut Reader<'_>) {
        if !r.is_clean() {
            return;
        }
        let (lifetime, session) = (self.lifetime, self.session_lifetime);
        if self.idle_timeout < lifetime {
            let found = format!("{:?}", show_duration(self.idle_timeout));
            let allowed = format!("at least token.lifetime, {:?}", show_duration(lifetime));
            r.problem("idle_timeout", found, allowed);
        }
        if lifetime > session {
            let found = format!("{:?}", show_duration(lifetime));
            let allowed = format!("at most token.session_lifetime, {:?}", show_duration(session));
            r.problem("lifetime", found, allowed);
        }
        if let Some(every) = self.rotate_every.filter(|every| *every < lifetime) {
            let found = format!("{:?}", show_duration(every));
            let allowed = format!("at least token.lifetime, {:?}", show_duration(lifetime));
            r.problem("rotate_every", found, allowed);
        }
        if self.idle_timeout > session {
            r.note("idle_timeout", "without effect, as the session ends before");
        }
        if lifetime > Duration::from_hours(1) {
            r.note("lifetime", "tokens of more than an hour outlive what they were given for");
        }
    }
}

const ALGORITHM: Choice<TokenAlgorithm> = Choice {
    built: &[
        ("HS256", TokenAlgorithm::Hs256),
        ("EdDSA", TokenAlgorithm::EdDsa),
        ("ES256", TokenAlgorithm::Es256),
        ("RS256", TokenAlgorithm::Rs256),
    ],
    unbuilt: &[],
};

fn read_further(r: &mut Reader<'_>) -> (ClaimTemplates, Map<String, Value>) {
    let claims = r.or(
        "claims",
        kind::Claims { reserved: &FIXED_CLAIMS },
        ClaimTemplates::default(),
        "Further claims of the token, for others to read; the gateway never does.",
    );
    let login_response = r.or(
        "login_response",
        kind::Members { reserved: &["id", "role", "expires_in", "token"] },
        Map::new(),
        "Further members of the JSON answer to a login, the same for everybody.",
    );
    (claims, login_response)
}

fn read_lifetimes(r: &mut Reader<'_>) -> (Duration, Duration, Duration) {
    // Claims hold whole seconds (RFC 7519 NumericDate).
    let lifetime =
        r.or("lifetime", kind::seconds(), Duration::from_mins(15), "How long a token is valid.");
    let session = r.or(
        "session_lifetime",
        kind::seconds(),
        Duration::from_hours(12),
        "From login to the end of the session, whatever happens.",
    );
    let idle = r.or(
        "idle_timeout",
        kind::seconds(),
        Duration::from_hours(1),
        "The longest pause after which a session goes on; not below lifetime.",
    );
    (lifetime, session, idle)
}

impl LoginThrottle {
    /// Reads `[throttle]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let per_user = r.or(
            "login_per_user",
            kind::rate(),
            Rate { count: 5, window: minutes(15) },
            "Failed logins of one account; fewer when the directory would lock it.",
        );
        let per_address = r.or(
            "login_per_address",
            kind::rate(),
            Rate { count: 30, window: minutes(5) },
            "Failed logins from one address (IPv6: one /64).",
        );
        let accounts_per_address = r.or(
            "accounts_per_address",
            kind::rate(),
            Rate { count: 20, window: minutes(15) },
            "Different accounts that logins failed on from one address.",
        );
        let (directory_lockout, lockout_margin) = read_lockout(r);
        let device_reserve = r.or(
            "device_reserve",
            Whole { min: 0, max: 1000 },
            2,
            "Further failures of an account that only devices may make from which it logged in \
             before.",
        );
        let devices = r.or(
            "devices",
            Whole { min: 0, max: 100_000_000 },
            100_000,
            "How many such devices are remembered, of one account 16 at most; 0 sets no device \
             cookie.",
        );
        let (refusal_after, logins) = read_schedule(r);
        let entries = r.or(
            "entries",
            Whole { min: 1, max: 100_000_000 },
            100_000,
            "How many names as typed, how many accounts, how many addresses, and for each rule of a \
             route how many addresses or users, are remembered.",
        );
        Self {
            per_user,
            per_address,
            accounts_per_address,
            directory_lockout,
            lockout_margin,
            device_reserve: u32::try_from(device_reserve).unwrap_or(u32::MAX),
            devices: u64::try_from(devices).unwrap_or(u64::MAX),
            refusal_after,
            logins,
            entries,
        }
    }
}

fn read_schedule(r: &mut Reader<'_>) -> (Duration, usize) {
    let refusal_after = r.or(
        "refusal_after",
        kind::duration(false),
        Duration::from_millis(500),
        "When a refused login is answered: so long after it arrived, or twice so long, and so on, \
         whatever it took; more than a wrong password takes at the directory.",
    );
    let logins = r.or(
        "logins",
        Whole { min: 1, max: 1_000_000 },
        1000,
        "Logins under way at one time, with those whose answer waits; an eighth of them from one \
         address.",
    );
    (refusal_after, logins)
}

fn read_lockout(r: &mut Reader<'_>) -> (Option<Lockout>, u32) {
    let stated = r.optional(
        "directory_lockout",
        kind::rate(),
        "The wrong passwords that make the directory lock an account, and for how long it counts \
         one; without it they are read from the directory where the service account may.",
    );
    let stated = stated.map(|Rate { count, window }| Lockout { threshold: count, window });
    let margin = r.or(
        "lockout_margin",
        Whole { min: 1, max: 1000 },
        2,
        "How many wrong passwords are left to a person at the directory itself before it locks the \
         account.",
    );
    (stated, u32::try_from(margin).unwrap_or(u32::MAX))
}

impl LoginPage {
    /// Reads `[login_page]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let title = r.or(
            "title",
            kind::line(),
            "Sign in".to_owned(),
            "The login page's title and heading.",
        );
        let notice =
            r.or("notice", kind::notice(), String::new(), "A sentence above the login form.");
        Self { title, notice }
    }
}
