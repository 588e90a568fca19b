//! Whatever is typed and whatever happens to the directory: the right answer within
//! the deadline, no crash, and recovery without a restart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bindgate::config::LdapTransport;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::support::certs::Authority;
use crate::support::relay::{Mood, Relay};
use crate::support::setup::Setup;
use crate::support::slapd::{FILTER_CHARACTERS, PASSWORD, PEOPLE_WITHOUT_ROLE, Slapd};
use crate::support::upstream::Upstream;
use crate::support::world::{ADMIN, TRACER, World, directory_through, log_in, shared_slapd};
use crate::support::{eventually_async, within};

/// `directory.timeout` in these tests.
const TIMEOUT: &str = "timeout = \"1s\"";
/// Within which every login must be answered then.
const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_was_typed_gets_the_answer_of_the_contract() {
    let world = World::with(|setup| {
        setup.set("throttle", "login_per_address", "\"1000 per 5m\"");
        setup.set("throttle", "login_per_user", "\"1000 per 15m\"");
    })
    .await;
    let long = "x".repeat(10_000);
    let client = world.client();
    for (name, password, status, code) in [
        (TRACER, "wrong", 401, "InvalidCredentials"),
        (TRACER, "Correct horse battery", 401, "InvalidCredentials"),
        (TRACER, "", 401, "InvalidCredentials"),
        ("", PASSWORD, 401, "InvalidCredentials"),
        ("", "", 401, "InvalidCredentials"),
        (" ", PASSWORD, 401, "InvalidCredentials"),
        ("nobody", PASSWORD, 401, "InvalidCredentials"),
        ("car\0ol", PASSWORD, 401, "InvalidCredentials"),
        (TRACER, "correct horse battery\0", 401, "InvalidCredentials"),
        (&long, PASSWORD, 401, "InvalidCredentials"),
        (TRACER, &long, 401, "InvalidCredentials"),
        ("*", PASSWORD, 401, "InvalidCredentials"),
        ("caro*", PASSWORD, 401, "InvalidCredentials"),
        ("carol)(uid=*", PASSWORD, 401, "InvalidCredentials"),
        ("carol)(|(uid=*", PASSWORD, 401, "InvalidCredentials"),
        ("\\63arol", PASSWORD, 401, "InvalidCredentials"),
        ("uid=carol,ou=people,dc=example,dc=org", PASSWORD, 401, "InvalidCredentials"),
        ("twin", PASSWORD, 401, "InvalidCredentials"),
        ("locked", PASSWORD, 401, "InvalidCredentials"),
        ("reset", PASSWORD, 401, "PasswordChangeRequired"),
        ("expired", PASSWORD, 401, "PasswordChangeRequired"),
        (FILTER_CHARACTERS, PASSWORD, 403, "NoRole"),
        (PEOPLE_WITHOUT_ROLE[0], PASSWORD, 403, "NoRole"),
        (PEOPLE_WITHOUT_ROLE[1], PASSWORD, 403, "NoRole"),
        (PEOPLE_WITHOUT_ROLE[0], "wrong", 401, "InvalidCredentials"),
    ] {
        let answer = within(DEADLINE, name, log_in(&client, name, password)).await;
        let found = (answer.status, answer.code());
        assert_eq!((found.0, found.1.as_str()), (status, code), "{name:.40} {password:.40}");
        assert_eq!(answer.json()["error_description"], answer.json()["message"]);
        assert!(client.jar.header().is_none(), "{name:.40}: no cookie for a failure");
    }
    log_in(&client, "CAROL", PASSWORD).await.expect_status(200);
    client.get("/app/echo").send().await.expect_status(200);
    assert_eq!(world.upstream.last().header("x-auth-user"), Some(TRACER), "the entry's spelling");
}

#[tokio::test]
async fn what_is_no_login_is_a_bad_request() {
    let world = World::start().await;
    let client = world.client();
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"{\"username\":\"carol\"}",
        b"{\"username\":1,\"password\":2}",
        b"{\"username\":\"carol\",\"password\":\"\xff\"}",
        b"{\"username\":\"\\ud800\",\"password\":\"x\"}",
    ];
    for body in bodies {
        let call = client.post("/auth/login").own_page();
        let call = call.header("content-type", "application/json").bytes(body);
        call.send().await.expect(400, "BadRequest");
    }
    let form = |body: &'static [u8]| {
        let kind = "application/x-www-form-urlencoded";
        client.post("/auth/login").own_page().header("content-type", kind).bytes(body).send()
    };
    form(b"username=carol&password=\xff").await.expect(400, "BadRequest");
    for body in [
        b"username=carol&password=%FF".as_slice(),
        b"username=%FF&password=x",
        b"username=carol",
        b"username=carol&password=%00",
        b"",
    ] {
        let page = form(body).await;
        page.expect_status(401);
        assert!(page.text().contains("action=\"/auth/login\""), "{}", page.text());
    }
    let asked = [("operation", "user_search")];
    let asked = world.gateway.metrics().await.sum("bindgate_directory_operations_total", &asked);
    assert!(asked < 0.5, "the directory hears of none: {asked}");
    let huge = json!({ "username": "x".repeat(2_000_000), "password": "y" });
    let answer = client.post("/auth/login").own_page().json(&huge).send().await;
    answer.expect(413, "TooLarge");
}

#[tokio::test]
async fn too_many_failures_of_one_account_lock_nobody_else_out() {
    let world = World::start().await;
    let client = world.client();
    for _ in 0..5 {
        log_in(&client, "nina", "wrong").await.expect(401, "InvalidCredentials");
    }
    let answer = log_in(&client, "nina", PASSWORD).await;
    answer.expect(429, "TooManyAttempts");
    let wait: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=900).contains(&wait), "{wait}");
    log_in(&client, "NINA ", PASSWORD).await.expect(429, "TooManyAttempts");
    log_in(&client, TRACER, PASSWORD).await.expect_status(200);
    world.gateway.counted("bindgate_throttled_total", &[], 2.0).await;
}

#[tokio::test]
async fn an_address_with_too_many_failures_waits_and_successes_do_not_count() {
    let world = World::with(|setup| {
        setup.set("throttle", "login_per_address", "\"6 per 5m\"");
    })
    .await;
    let client = world.client();
    for _ in 0..10 {
        log_in(&client.stranger(), TRACER, PASSWORD).await.expect_status(200);
    }
    for count in 0..6 {
        log_in(&client, &format!("nobody{count}"), "x").await.expect(401, "InvalidCredentials");
    }
    let answer = log_in(&client, ADMIN, PASSWORD).await;
    answer.expect(429, "TooManyAttempts");
    assert!(answer.header("retry-after").is_some());
}

/// A gateway whose directory is behind a relay.
async fn behind_a_relay(transport: LdapTransport) -> (World, Relay) {
    behind_a_relay_with(transport, |_| {}).await
}

async fn behind_a_relay_with(
    transport: LdapTransport,
    change: impl FnOnce(&mut Setup),
) -> (World, Relay) {
    let slapd = shared_slapd();
    let server = SocketAddr::from(([127, 0, 0, 1], slapd.port(transport)));
    let relay = Relay::to(server).await;
    let directory = directory_through(&slapd, transport, relay.address);
    let directory = directory.replace("timeout = \"5s\"", TIMEOUT);
    assert!(directory.contains(TIMEOUT));
    let world = World::with(|setup| {
        setup.directory(&directory);
        setup.set("throttle", "login_per_address", "\"1000 per 5m\"");
        change(setup);
    })
    .await;
    (world, relay)
}

#[tokio::test]
async fn a_password_that_was_not_sent_counts_against_nobody() {
    let (world, relay) = behind_a_relay_with(LdapTransport::Tls, |setup| {
        // A stranger has one try.
        setup.set("throttle", "directory_lockout", "\"3 per 30m\"");
    })
    .await;
    world.gateway.readiness(200).await;
    // The search is answered, and no connection to bind on comes about.
    relay.becomes(Mood::DeafToNewcomers);
    for _ in 0..2 {
        let answer = log_in(&world.client(), TRACER, PASSWORD).await;
        answer.expect(503, "DirectoryUnavailable");
    }
    relay.becomes(Mood::Well);
    log_in(&world.client(), TRACER, PASSWORD).await.expect_status(200);
}

#[tokio::test]
async fn a_reload_while_the_directory_is_silent_forgets_nothing_of_its_lockout() {
    let (world, relay) = behind_a_relay_with(LdapTransport::Tls, |_| {}).await;
    let threshold =
        async || world.gateway.metrics().await.sum("bindgate_directory_lockout_threshold", &[]);
    let read = eventually_async("it is read", async || {
        let threshold = threshold().await;
        (threshold > 0.5).then_some(threshold)
    })
    .await;
    relay.becomes(Mood::Stall);
    world.gateway.signal("HUP");
    world.gateway.logged("lock-out was not read; what is known holds").await;
    assert!((threshold().await - read).abs() < 0.1);
}

#[tokio::test]
async fn an_own_policy_that_cannot_be_read_is_taken_for_a_strict_one() {
    let slapd = Slapd::start();
    slapd.ldapmodify(
        "dn: cn=default,ou=policies,dc=example,dc=org\nchangetype: modify\n\
         replace: pwdMaxFailure\npwdMaxFailure: 50\n\n\
         dn: uid=carol,ou=people,dc=example,dc=org\nchangetype: modify\n\
         add: pwdPolicySubentry\npwdPolicySubentry: cn=hidden,ou=policies,dc=example,dc=org\n",
    );
    for (stated, binds) in [(None, 1.0), (Some("\"50 per 15m\""), 7.0)] {
        let world = World::with(|setup| {
            setup.directory(&slapd.toml(LdapTransport::Tls));
            // Nothing else holds them back.
            setup.set("throttle", "login_per_user", "\"500 per 15m\"");
            if let Some(stated) = stated {
                setup.set("throttle", "directory_lockout", stated);
            }
        })
        .await;
        for _ in 0..7 {
            log_in(&world.client(), "carol", "wrong").await.expect(401, "InvalidCredentials");
        }
        let asked = [("operation", "user_bind")];
        let asked =
            world.gateway.metrics().await.sum("bindgate_directory_operations_total", &asked);
        assert!((asked - binds).abs() < 0.1, "{stated:?}: {asked}");
    }
}

/// A login that must say that the directory cannot answer, in time, and then, when the
/// directory is well again, one that works without a restart.
async fn says_so_and_recovers(world: &World, relay: &Relay, mood: Mood) {
    let client = world.client();
    relay.becomes(mood.clone());
    let what = format!("{mood:?}");
    let answer = within(DEADLINE, &what, log_in(&client, TRACER, PASSWORD)).await;
    answer.expect(503, "DirectoryUnavailable");
    assert!(answer.header("retry-after").is_some(), "{what}");
    assert!(client.jar.header().is_none(), "{what}");
    relay.becomes(Mood::Well);
    eventually_async(&format!("recovery after {what}"), async || {
        let answer = within(DEADLINE, &what, log_in(&client.stranger(), TRACER, PASSWORD)).await;
        match answer.status {
            200 => Some(()),
            503 => None,
            status => panic!("{status} after {what}: {:?}", answer.body),
        }
    })
    .await;
}

#[tokio::test]
async fn a_broken_directory_is_said_to_be_broken_and_comes_back_over_ldaps() {
    let (world, relay) = behind_a_relay(LdapTransport::Tls).await;
    let signed_in = world.sign_in(ADMIN).await;
    for mood in [
        Mood::Cut,
        Mood::Reset,
        Mood::Stall,
        Mood::Cut,
        Mood::Babble(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ] {
        // What is already open is cut first, where the mood alone would leave it be.
        if matches!(mood, Mood::Babble(_)) {
            relay.becomes(Mood::Cut);
            eventually_async("the directory is down", async || {
                let sum = world.gateway.metrics().await.sum("bindgate_directory_up", &[]);
                (sum < 0.5).then_some(())
            })
            .await;
        }
        says_so_and_recovers(&world, &relay, mood).await;
        signed_in.get("/admin/echo").send().await.expect_status(200);
    }
}

#[tokio::test]
async fn a_broken_directory_is_said_to_be_broken_and_comes_back_over_start_tls() {
    let (world, relay) = behind_a_relay(LdapTransport::StartTls).await;
    world.sign_in(ADMIN).await;
    for mood in [Mood::Cut, Mood::Stall, Mood::Reset] {
        says_so_and_recovers(&world, &relay, mood).await;
    }
}

#[tokio::test]
async fn a_directory_that_dies_between_search_and_bind_is_no_wrong_password() {
    let (world, relay) = behind_a_relay(LdapTransport::Tls).await;
    world.gateway.readiness(200).await;
    // The service connection lives, so the search works; the bind's connection does not open.
    says_so_and_recovers(&world, &relay, Mood::NoNewcomers).await;
    assert!(relay.opened() > 1);
}

#[tokio::test]
async fn every_byte_of_the_directory_may_be_wrong_or_the_last() {
    let slapd = shared_slapd();
    let server = SocketAddr::from(([127, 0, 0, 1], slapd.port(LdapTransport::Tls)));
    let relay = Relay::to(server).await;
    let directory = directory_through(&slapd, LdapTransport::Tls, relay.address);
    let directory = directory.replace("timeout = \"5s\"", TIMEOUT);
    let world = World::with(|setup| {
        setup.directory(&directory);
        setup.set("throttle", "login_per_address", "\"1000 per 5m\"");
    })
    .await;
    let client = world.client();
    for at in [1, 5, 60, 400, 1200, 1300, 1500, 1900] {
        for mood in [Mood::Truncate(at), Mood::Corrupt(at)] {
            relay.becomes(Mood::Cut);
            relay.becomes(mood.clone());
            let answer =
                within(DEADLINE, "an answer", log_in(&client.stranger(), TRACER, PASSWORD)).await;
            assert!(matches!(answer.status, 200 | 503), "{mood:?}: {answer:?}");
        }
    }
    relay.becomes(Mood::Well);
    eventually_async("recovery", async || {
        let answer = log_in(&client.stranger(), TRACER, PASSWORD).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn readiness_follows_the_directory() {
    let (world, relay) = behind_a_relay(LdapTransport::Tls).await;
    world.gateway.readiness(200).await;
    relay.becomes(Mood::Cut);
    let reasons = world.gateway.readiness(503).await;
    assert!(reasons.contains("directory"), "{reasons}");
    assert_eq!(world.gateway.telemetry("/healthz").await.status, 200);
    relay.becomes(Mood::Well);
    world.gateway.readiness(200).await;
}

#[tokio::test]
async fn a_server_that_is_stopped_and_started_again_needs_no_restart_of_ours() {
    let mut slapd = Slapd::start();
    let directory = slapd.toml(LdapTransport::Tls).replace("timeout = \"5s\"", TIMEOUT);
    let world = World::with(|setup| {
        setup.directory(&directory);
    })
    .await;
    world.sign_in(TRACER).await;
    slapd.stop();
    let answer = within(DEADLINE, "down", log_in(&world.client(), TRACER, PASSWORD)).await;
    answer.expect(503, "DirectoryUnavailable");
    slapd.resume();
    eventually_async("recovery", async || {
        let answer = log_in(&world.client(), TRACER, PASSWORD).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// A TLS server that the gateway trusts, and that says these bytes to whatever it hears.
async fn evil_directory(authority: &Authority, says: Vec<u8>) -> (SocketAddr, JoinHandle<()>) {
    let acceptor = TlsAcceptor::from(authority.issue(&["127.0.0.1"]).server_config());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let says = Arc::new(says);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, says) = (acceptor.clone(), Arc::clone(&says));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut heard = vec![0_u8; 4096];
                while matches!(stream.read(&mut heard).await, Ok(count) if count > 0) {
                    if stream.write_all(&says).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_of_a_directory_crashes_the_gateway() {
    let authority = Authority::new("evil directory");
    let nested: Vec<u8> = [0x30, 0x80].repeat(100_000);
    let deep: Vec<u8> = [0x30, 0x84, 0x7f, 0xff, 0xff, 0xff].repeat(20_000);
    let huge = [&[0x30, 0x84, 0x40, 0, 0, 0][..], &vec![0x41; 8 << 20]].concat();
    for (what, says) in [
        ("nested sequences", nested),
        ("nested long sequences", deep),
        ("an endless message", huge),
        ("an empty message", vec![0x30, 0x00]),
        ("an unknown operation", vec![0x30, 0x05, 0x02, 0x01, 0x01, 0x7f, 0x00]),
        ("nothing that is BER", vec![0xff; 4096]),
        ("text", b"* OK IMAP4rev1\r\n".to_vec()),
        ("silence", Vec::new()),
    ] {
        let (address, task) = evil_directory(&authority, says).await;
        let slapd = shared_slapd();
        let directory = directory_through(&slapd, LdapTransport::Tls, address);
        let directory = directory.replace("timeout = \"5s\"", TIMEOUT);
        let own = format!("{:?}", slapd.authority_file().display().to_string());
        let world = World::with(|setup| {
            setup.write("evil-ca.pem", authority.pem());
            let evil = format!("{:?}", setup.path("evil-ca.pem").display().to_string());
            assert!(directory.contains(&own));
            setup.directory(&directory.replace(&own, &evil));
        })
        .await;
        for _ in 0..3 {
            let answer = within(DEADLINE, what, log_in(&world.client(), TRACER, PASSWORD)).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (503, "DirectoryUnavailable"),
                "{what}"
            );
        }
        assert_eq!(world.gateway.telemetry("/healthz").await.status, 200, "{what}");
        let resident = world.gateway.memory_kib("VmHWM");
        assert!(resident < 200 * 1024, "{what}: {resident} KiB");
        task.abort();
    }
}

#[tokio::test]
async fn a_directory_whose_certificate_is_not_trusted_is_not_asked() {
    let slapd = shared_slapd();
    let own = format!("{:?}", slapd.authority_file().display().to_string());
    let upstream = Upstream::start().await;
    let world = World::with(|setup| {
        setup.write("other-ca.pem", Authority::new("somebody else").pem());
        let other = format!("{:?}", setup.path("other-ca.pem").display().to_string());
        setup.directory(&slapd.toml(LdapTransport::Tls).replace(&own, &other));
        setup.upstream("urls", &format!("[\"{}\"]", upstream.url()));
    })
    .await;
    let answer = log_in(&world.client(), TRACER, PASSWORD).await;
    answer.expect(503, "DirectoryUnavailable");
}
