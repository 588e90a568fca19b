//! Servers that misbehave at each step of a login: the answer comes within the
//! deadline, the process lives, and the next login works.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bindgate::ambient::Entropy;
use bindgate::config;
use bindgate::config::{LdapServer, LdapTransport, RoleMapping};
use bindgate::directory::{Directory, DirectoryError, Rejection, VerifyError};
use bindgate::identity::Role;
use bindgate::metrics::Metrics;
use bindgate::secret::Secret;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{directory, login};
use crate::support::eventually;
use crate::support::slapd::PASSWORD;
use crate::support::users::{Person, users_toml};
use crate::support::world::{World, log_in};

const ALICE: &[u8] = b"uid=alice,ou=people,dc=x";
const SUCCESS: &[u8] = b"\x0a\x01\x00\x04\x00\x04\x00";
const INVALID_CREDENTIALS: &[u8] = b"\x0a\x01\x31\x04\x00\x04\x00";
const BIND_ANSWER: u8 = 0x61;
const ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const REFERENCE: u8 = 0x73;
const DEADLINE: Duration = Duration::from_secs(1);

/// The request at which the server begins to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    ServiceBind,
    /// Of what the directory says of its lock-out.
    PolicySearch,
    UserSearch,
    UserBind,
    GroupSearch,
}

const STEPS: [Step; 4] = [Step::ServiceBind, Step::UserSearch, Step::UserBind, Step::GroupSearch];

/// How it misbehaves.
#[derive(Clone, Copy, Debug)]
enum Trick {
    Silence,
    HangUp,
    Garbage,
    HalfAMessage,
    Trickle,
    NestedDeeply,
    LongMessage,
    EmptyMessage,
    AnswerToAnotherOperation,
    TextThatIsNone,
    EntriesWithoutEnd,
    /// Answers with this result code.
    Says(u8),
    /// Honest, but slow.
    Late,
}

const TRICKS: [Trick; 13] = [
    Trick::Silence,
    Trick::HangUp,
    Trick::Garbage,
    Trick::HalfAMessage,
    Trick::Trickle,
    Trick::NestedDeeply,
    Trick::LongMessage,
    Trick::EmptyMessage,
    Trick::AnswerToAnotherOperation,
    Trick::TextThatIsNone,
    Trick::EntriesWithoutEnd,
    Trick::Says(51),
    Trick::Says(52),
];

/// A server that knows alice, an admin, and misbehaves as long as it is told to.
struct Hostile {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    step: Step,
    trick: Trick,
    hostile: AtomicBool,
    /// No password is right.
    rejects: AtomicBool,
    user_binds: AtomicUsize,
    group_searches: AtomicUsize,
}

impl Hostile {
    async fn start(step: Step, trick: Trick) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (hostile, rejects) = (AtomicBool::new(true), AtomicBool::new(false));
        let (user_binds, group_searches) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Shared { step, trick, hostile, rejects, user_binds, group_searches };
        let shared = Arc::new(shared);
        let for_connections = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&for_connections)));
            }
        });
        Self { port, shared, accepting }
    }

    fn config(&self) -> config::Directory {
        config_for(self.port, LdapTransport::Plaintext)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn config_for(port: u16, transport: LdapTransport) -> config::Directory {
    let authority = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
    config::Directory {
        kind: config::DirectoryKind::Ldap,
        users: None,
        password_checks: 4,
        break_glass: None,
        attributes: Vec::new(),
        password_rules: config::PasswordRules::default(),
        discovery: None,
        servers: vec![LdapServer { host: "127.0.0.1".to_owned(), port, transport }],
        authorities: Some(vec![authority.expect("a certificate").cert.der().clone()]),
        bind_dn: "cn=service".to_owned(),
        bind_password: Secret::new("service".to_owned()),
        base_dn: "ou=people,dc=x".to_owned(),
        user_attribute: "uid".to_owned(),
        user_filter: None,
        subject_attribute: "uid".to_owned(),
        group_base_dn: "ou=groups,dc=x".to_owned(),
        nested_groups: true,
        timeout: DEADLINE,
        recheck_interval: Duration::from_mins(5),
        recheck_grace: Duration::from_hours(1),
        bind_connections: 32,
        searches_ahead: 5000,
        idle_timeout: Duration::from_secs(30),
        roles: vec![
            RoleMapping { name: Role::new("super"), group: "cn=super,ou=groups,dc=x".to_owned() },
            RoleMapping { name: Role::new("admin"), group: "cn=admins,ou=groups,dc=x".to_owned() },
        ],
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read_message(&mut stream).await {
        let says = |text: &[u8]| request.windows(text.len()).any(|window| window == text);
        let step = match (operation(&request), says(b"cn=service"), says(b"ou=groups")) {
            (0x60, true, _) => Step::ServiceBind,
            (0x60, false, _) => Step::UserBind,
            (0x63, _, _) if says(b"namingContexts") => Step::PolicySearch,
            (0x63, _, false) => Step::UserSearch,
            (0x63, _, true) => Step::GroupSearch,
            _ => return,
        };
        match step {
            Step::UserBind => drop(shared.user_binds.fetch_add(1, Ordering::SeqCst)),
            Step::GroupSearch => drop(shared.group_searches.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
        let id = message_id(&request);
        let hostile = step == shared.step && shared.hostile.load(Ordering::SeqCst);
        let gone = if hostile {
            misbehave(&mut stream, shared.trick, id, step).await.is_none()
        } else if step == Step::UserBind && shared.rejects.load(Ordering::SeqCst) {
            stream.write_all(&message(id, BIND_ANSWER, INVALID_CREDENTIALS)).await.is_err()
        } else {
            stream.write_all(&honest(id, step)).await.is_err()
        };
        if gone {
            return;
        }
    }
}

fn honest(id: &[u8], step: Step) -> Vec<u8> {
    let done = message(id, SEARCH_DONE, SUCCESS);
    let elsewhere = message(id, REFERENCE, &element(4, b"ldap://elsewhere.example.org/dc=x"));
    match step {
        Step::ServiceBind | Step::UserBind => message(id, BIND_ANSWER, SUCCESS),
        Step::PolicySearch | Step::UserSearch => [entry(id, ALICE), elsewhere, done].concat(),
        Step::GroupSearch => [elsewhere, entry(id, b"cn=Admins,ou=groups,dc=x"), done].concat(),
    }
}

/// `None` when the connection should end.
async fn misbehave(stream: &mut TcpStream, trick: Trick, id: &[u8], step: Step) -> Option<()> {
    let is_bind = matches!(step, Step::ServiceBind | Step::UserBind);
    let bytes = match trick {
        Trick::Silence => Vec::new(),
        Trick::HangUp => return None,
        Trick::Garbage => b"HTTP/1.1 400 Bad Request\r\n\r\n\xff\xff\xff\xff".to_vec(),
        Trick::HalfAMessage => honest(id, step)[..9].to_vec(),
        Trick::Trickle => {
            for byte in honest(id, step).iter().take(14) {
                stream.write_all(&[*byte]).await.ok()?;
                sleep(DEADLINE / 4).await;
            }
            return None;
        }
        Trick::NestedDeeply => message(id, BIND_ANSWER, &nested(100_000)),
        Trick::LongMessage => {
            stream.write_all(b"\x30\x84\x12\x00\x00\x00").await.ok()?;
            loop {
                stream.write_all(&[4; 1 << 13]).await.ok()?;
            }
        }
        Trick::EmptyMessage => b"\x30\x00".to_vec(),
        Trick::AnswerToAnotherOperation if is_bind => entry(id, ALICE),
        Trick::AnswerToAnotherOperation => message(id, BIND_ANSWER, SUCCESS),
        Trick::TextThatIsNone => {
            let operation = if is_bind { BIND_ANSWER } else { SEARCH_DONE };
            message(id, operation, b"\x0a\x01\x00\x04\x01\xff\x04\x01\xfe")
        }
        Trick::Says(code) => {
            let operation = if is_bind { BIND_ANSWER } else { SEARCH_DONE };
            message(id, operation, &[0x0a, 1, code, 4, 0, 4, 0])
        }
        Trick::Late => {
            sleep(DEADLINE / 4).await;
            honest(id, step)
        }
        Trick::EntriesWithoutEnd => loop {
            stream.write_all(&entry(id, ALICE).repeat(100)).await.ok()?;
        },
    };
    stream.write_all(&bytes).await.ok()
}

/// Sequences in sequences, well-formed to the innermost.
fn nested(levels: u32) -> Vec<u8> {
    let header = |inside: u32| [[0x30, 0x84].as_slice(), &(inside * 6).to_be_bytes()].concat();
    (0..levels).rev().flat_map(header).collect()
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    [&[tag, 0x84], length.as_slice(), content].concat()
}

fn message(id: &[u8], operation: u8, content: &[u8]) -> Vec<u8> {
    element(0x30, &[element(2, id), element(operation, content)].concat())
}

fn entry(id: &[u8], dn: &[u8]) -> Vec<u8> {
    let values = element(0x31, &element(4, b"alice"));
    let attribute = element(0x30, &[element(4, b"UID"), values].concat());
    message(id, ENTRY, &[element(4, dn), element(0x30, &attribute)].concat())
}

/// The content of the next message; the library writes lengths below 64 KiB.
async fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    stream.read_u8().await.ok()?;
    let length = match stream.read_u8().await.ok()? {
        0x81 => usize::from(stream.read_u8().await.ok()?),
        0x82 => usize::from(stream.read_u16().await.ok()?),
        short => usize::from(short),
    };
    let mut content = vec![0; length];
    stream.read_exact(&mut content).await.ok()?;
    Some(content)
}

fn message_id(content: &[u8]) -> &[u8] {
    &content[2..2 + usize::from(content[1])]
}

fn operation(content: &[u8]) -> u8 {
    content[2 + usize::from(content[1])]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_does_the_login_ends_and_the_next_one_works() {
    let mut attempts = tokio::task::JoinSet::new();
    for step in STEPS {
        attempts.spawn(async move {
            for trick in TRICKS {
                suffer(step, trick).await;
            }
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        attempt.expect("every trick is survived");
    }
}

async fn suffer(step: Step, trick: Trick) {
    let server = Hostile::start(step, trick).await;
    let directory = directory(&server.config());
    let began = Instant::now();
    let outcome = login(&directory, "alice", PASSWORD).await;
    assert!(began.elapsed() < DEADLINE * 5, "{step:?} {trick:?}: {:?}", began.elapsed());
    let several = matches!((step, trick), (Step::UserSearch, Trick::EntriesWithoutEnd));
    match &outcome {
        Err(VerifyError::Rejected(Rejection::Ambiguous)) if several => {}
        // Somebody has the password, and nobody says that it is right.
        Err(VerifyError::Unjudged(_)) if step == Step::UserBind => {}
        Err(VerifyError::Unavailable(_)) if step != Step::UserBind && !several => {}
        _ => panic!("{step:?} {trick:?}: {outcome:?}"),
    }
    let user_binds = server.shared.user_binds.load(Ordering::SeqCst);
    let expected = usize::from(matches!(step, Step::UserBind | Step::GroupSearch));
    assert_eq!(user_binds, expected, "{step:?} {trick:?}");

    server.shared.hostile.store(false, Ordering::SeqCst);
    let person = login(&directory, "alice", PASSWORD).await;
    let person = person.unwrap_or_else(|error| panic!("{step:?} {trick:?}: {error:?}"));
    assert_eq!((person.subject.as_str(), person.role.as_str()), ("alice", "admin"));
}

#[tokio::test]
async fn a_rejection_is_final_whatever_becomes_of_the_search_beside_the_bind() {
    for (trick, ahead) in TRICKS.into_iter().flat_map(|trick| [(trick, false), (trick, true)]) {
        let server = Hostile::start(Step::GroupSearch, trick).await;
        let directory = directory(&server.config());
        if ahead {
            // From now on it is sent even before the bind.
            server.shared.hostile.store(false, Ordering::SeqCst);
            login(&directory, "alice", PASSWORD).await.expect("right");
            server.shared.hostile.store(true, Ordering::SeqCst);
        }
        server.shared.rejects.store(true, Ordering::SeqCst);
        let outcome = login(&directory, "alice", PASSWORD).await;
        assert!(
            matches!(outcome, Err(VerifyError::Rejected(Rejection::WrongPassword))),
            "{trick:?} {ahead}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_password_ends_the_walk_through_the_groups() {
    for (rejects, searches) in [(false, 2), (true, 1)] {
        // The bind is answered long before the first search is.
        let server = Hostile::start(Step::GroupSearch, Trick::Late).await;
        server.shared.rejects.store(rejects, Ordering::SeqCst);
        let outcome = login(&directory(&server.config()), "alice", PASSWORD).await;
        assert_eq!(outcome.is_err(), rejects, "{outcome:?}");
        assert_eq!(server.shared.group_searches.load(Ordering::SeqCst), searches);
    }
}

#[tokio::test]
async fn what_is_sent_ahead_says_nothing_of_the_server() {
    for trick in [Trick::Silence, Trick::HangUp] {
        let server = Hostile::start(Step::GroupSearch, trick).await;
        server.shared.hostile.store(false, Ordering::SeqCst);
        let directory = directory(&server.config());
        login(&directory, "alice", PASSWORD).await.expect("right");
        server.shared.hostile.store(true, Ordering::SeqCst);
        server.shared.rejects.store(true, Ordering::SeqCst);
        // Two searches ahead fail, and one is made again or still waited for.
        let outcome = login(&directory, "alice", PASSWORD).await;
        assert!(matches!(outcome, Err(VerifyError::Rejected(_))), "{trick:?}: {outcome:?}");
        assert!(directory.is_up() && !directory.is_down(), "{trick:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_fails_at_is_asked_of_the_next_but_no_password_is() {
    let mut attempts = tokio::task::JoinSet::new();
    for step in STEPS {
        attempts.spawn(async move {
            for trick in TRICKS {
                turn_elsewhere(step, trick).await;
            }
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        attempt.expect("every trick is survived");
    }
}

async fn turn_elsewhere(step: Step, trick: Trick) {
    let (bad, good) = (Hostile::start(step, trick).await, Hostile::start(step, trick).await);
    good.shared.hostile.store(false, Ordering::SeqCst);
    let mut config = bad.config();
    config.servers.extend(good.config().servers);
    config.timeout = DEADLINE * 3;
    let directory = directory(&config);
    let outcome = login(&directory, "alice", PASSWORD).await;
    let binds = [&bad, &good].map(|server| server.shared.user_binds.load(Ordering::SeqCst));
    match (step, trick, &outcome) {
        // What could be a bind is never sent twice; nobody knows what became of it.
        (Step::UserBind, _, Err(VerifyError::Unjudged(_))) => assert_eq!(binds, [1, 0]),
        // Too much is an answer too.
        (Step::UserSearch, Trick::EntriesWithoutEnd, Err(VerifyError::Rejected(_))) => {
            assert_eq!(binds, [0, 0]);
        }
        (Step::GroupSearch, Trick::EntriesWithoutEnd, Err(VerifyError::Unavailable(_))) => {
            assert_eq!(binds, [1, 0]);
        }
        (_, _, Ok(person)) if step != Step::UserBind => {
            assert_eq!(person.role.as_str(), "admin");
            assert_eq!(binds[0] + binds[1], 1, "{step:?} {trick:?}");
        }
        _ => panic!("{step:?} {trick:?}: {outcome:?}"),
    }
}

#[tokio::test]
async fn a_server_for_whose_binds_many_wait_is_not_taken_for_a_dead_one() {
    let start = || Hostile::start(Step::UserBind, Trick::Late);
    let (busy, other) = (start().await, start().await);
    let mut config = busy.config();
    config.servers.extend(other.config().servers);
    config.bind_connections = 1;
    let directory = Arc::new(directory(&config));
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let directory = Arc::clone(&directory);
        logins.spawn(async move { login(&directory, "alice", PASSWORD).await });
    }
    let outcomes = logins.join_all().await;
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    // One after the other: some have waited until no time was left, and were not tried.
    let in_vain = |outcome: &&Result<_, _>| {
        matches!(outcome, Err(VerifyError::Unavailable(DirectoryError::Busy)))
    };
    let in_vain = outcomes.iter().filter(in_vain).count();
    let tried = busy.shared.user_binds.load(Ordering::SeqCst);
    assert!(in_vain > 0 && tried + in_vain <= outcomes.len(), "{tried}: {outcomes:?}");
    login(&directory, "alice", PASSWORD).await.expect("it answers");
    assert_eq!(other.shared.user_binds.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_lockout_that_is_never_told_costs_one_login_a_part_of_its_time() {
    let server = Hostile::start(Step::PolicySearch, Trick::Silence).await;
    let metrics = Metrics::new().expect("metrics");
    let directory = Directory::new(&server.config(), &metrics, &Entropy::system());
    let directory = directory.expect("a valid configuration");
    for _ in 0..3 {
        login(&directory, "alice", PASSWORD).await.expect("there is time for the login itself");
    }
    let name = format!("127.0.0.1:{}", server.port);
    assert_eq!(metrics.directory_operations(&name, "policy_search", "timeout").get(), 1);
}

#[tokio::test]
async fn a_lockout_that_nobody_knows_is_warned_of() {
    let server = Hostile::start(Step::UserBind, Trick::Late).await;
    let world = gateway_before(&server).await;
    world.gateway.logged("it is not known when the directory locks accounts").await;
}

#[tokio::test]
async fn nothing_runs_on_after_a_login_that_failed() {
    let running = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = running();
    for step in [Step::ServiceBind, Step::UserSearch, Step::UserBind] {
        for trick in TRICKS {
            let server = Hostile::start(step, trick).await;
            let directory = directory(&server.config());
            assert!(login(&directory, "alice", PASSWORD).await.is_err());
            drop(directory);
            drop(server);
            let what = format!("all tasks have ended after {trick:?} at {step:?}");
            eventually(&what, || (running() == before).then_some(())).await;
        }
    }
}

/// A gateway that asks this server, to which every name is alice's; one is that of an
/// emergency account.
async fn gateway_before(server: &Hostile) -> World {
    let section = format!(
        "[directory]\nkind = \"ldap\"\nurls = [\"ldap://127.0.0.1:{}\"]\nallow_plaintext = true\n\
         bind_dn = \"cn=service\"\nbind_password = \"service\"\nbase_dn = \"ou=people,dc=x\"\n\
         group_base_dn = \"ou=groups,dc=x\"\ntimeout = \"1s\"\n[[directory.role]]\n\
         name = \"admin\"\ngroup = \"cn=admins,ou=groups,dc=x\"\n",
        server.port
    );
    World::with(|setup| {
        setup.write("emergency.toml", &users_toml(&[EMERGENCY]));
        let file = setup.path("emergency.toml").display().to_string();
        let emergency = format!("[directory.break_glass]\nusers_file = {file:?}\n");
        setup.directory(&(section + &emergency));
        setup.routes(
            "[[route]]\npath = \"/app/**\"\naccess = \"authenticated\"\nupstream = \"backend\"\n",
        );
        setup.set("throttle", "login_per_address", "\"100000 per 5m\"");
        setup.set("throttle", "login_per_user", "\"100000 per 5m\"");
        // Thousands are refused, one after the other.
        setup.set("throttle", "refusal_after", "\"1ms\"");
    })
    .await
}

const EMERGENCY: Person<'static> =
    Person { name: "ops", password: "sealed in an envelope", roles: "\"admin\"", more: "" };

#[tokio::test]
async fn an_answer_that_is_no_outage_opens_no_emergency_account() {
    for (step, trick, status) in [
        (Step::UserBind, Trick::Says(80), 503),
        // The password is right, and there are too many groups.
        (Step::GroupSearch, Trick::EntriesWithoutEnd, 503),
        (Step::UserBind, Trick::Says(52), 200),
        (Step::UserBind, Trick::Silence, 200),
    ] {
        let server = Hostile::start(step, trick).await;
        let world = gateway_before(&server).await;
        let client = world.client();
        let reason = "the directory burns";
        let body = json!({
            "username": EMERGENCY.name, "password": EMERGENCY.password, "reason": reason,
        });
        let answer = client.post("/auth/login").own_page().json(&body).send().await;
        assert_eq!(answer.status, status, "{step:?} {trick:?}: {answer:?}");
        let page = world.client().get("/auth/").navigation().send().await;
        let asks = page.text().contains("name=\"reason\"");
        assert_eq!(asks, status == 200, "{step:?} {trick:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_makes_the_gateway_grow() {
    for (step, trick) in [
        (Step::UserSearch, Trick::NestedDeeply),
        (Step::UserSearch, Trick::LongMessage),
        (Step::UserSearch, Trick::EntriesWithoutEnd),
        (Step::UserSearch, Trick::EmptyMessage),
        (Step::UserBind, Trick::NestedDeeply),
        (Step::UserBind, Trick::LongMessage),
        (Step::UserBind, Trick::EntriesWithoutEnd),
        (Step::UserBind, Trick::Garbage),
        (Step::GroupSearch, Trick::EntriesWithoutEnd),
        (Step::GroupSearch, Trick::TextThatIsNone),
    ] {
        let server = Hostile::start(step, trick).await;
        let world = gateway_before(&server).await;
        let client = world.client();
        // What the allocator holds goes up and down by megabytes, so the least held late is
        // compared with the most held early: what each login loses for good lifts both. The
        // allocator takes memory in steps of 4 MiB; 24 KiB a login are two.
        let (mut early, mut late) = (0, u64::MAX);
        for count in 0..600 {
            let answer = log_in(&client, "alice", PASSWORD).await;
            let several = (step, answer.status) == (Step::UserSearch, 401);
            assert!(answer.status == 503 || several, "{step:?} {trick:?}: {answer:?}");
            let held = world.gateway.memory_kib("VmRSS");
            match count {
                0..150 => early = early.max(held),
                150..500 => {}
                _ => late = late.min(held),
            }
        }
        let grown = late.saturating_sub(early);
        assert!(grown < 8 * 1024, "{step:?} {trick:?}: {grown} KiB more than {early} KiB");
        let peak = world.gateway.memory_kib("VmHWM");
        assert!(peak < 256 * 1024, "{step:?} {trick:?}: {peak} KiB at the most");
        assert_eq!(world.gateway.telemetry("/healthz").await.status, 200);
    }
}

/// Accepts, greets with `greeting`, reads on and says no more.
async fn greeter(greeting: Option<&'static [u8]>) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Some(greeting) = greeting {
                let mut request = [0; 16];
                drop(stream.read(&mut request).await);
                drop(stream.write_all(greeting).await);
                open.push(stream);
            }
        }
    });
    (port, accepting)
}

#[tokio::test]
async fn a_server_that_never_starts_tls_is_given_up_in_time() {
    let yes_and_more = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00\x30\x00";
    for greeting in [None, Some(b"".as_slice()), Some(b"\xff\xff\xff\xff"), Some(yes_and_more)] {
        for transport in [LdapTransport::Tls, LdapTransport::StartTls] {
            let (port, accepting) = greeter(greeting).await;
            let directory = directory(&config_for(port, transport));
            let began = Instant::now();
            let outcome = login(&directory, "alice", PASSWORD).await;
            assert!(began.elapsed() < DEADLINE * 5);
            assert!(matches!(outcome, Err(VerifyError::Unavailable(_))), "{outcome:?}");
            accepting.abort();
        }
    }
}

#[tokio::test]
async fn a_server_whose_queue_is_never_emptied_is_given_up_in_time() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    for transport in [LdapTransport::Tls, LdapTransport::StartTls, LdapTransport::Plaintext] {
        let outcome = login(&directory(&config_for(port, transport)), "alice", PASSWORD).await;
        assert!(
            matches!(outcome, Err(VerifyError::Unavailable(DirectoryError::Timeout))),
            "{outcome:?}"
        );
    }
}
