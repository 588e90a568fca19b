//! Nobody locks a person out of the directory through us, nor a person out of us:
//! against real servers that lock accounts.

use std::process::{Command, Stdio};

use bindgate::config::LdapTransport;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::json;
use std::time::Duration;

use crate::support::client::{Answer, Client};
use crate::support::dirsrv::Dirsrv;
use crate::support::eventually_async;
use crate::support::samba::{BASE, Samba};
use crate::support::setup::Setup;
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::world::{DEVICE_COOKIE, World, log_in};

const NEW: &str = "a wholly new secret";
const TRIES: u32 = 1000;
const AT_ONCE: usize = 16;
/// A lock-out of 389-ds, and the right to read it that docs/directories.md names.
const LOCKOUT_OF_389: &str = r#"dn: cn=config
changetype: modify
replace: passwordMaxFailure
passwordMaxFailure: 10
-
replace: passwordResetFailureCount
passwordResetFailureCount: 1800
-
replace: nsslapd-pwpolicy-local
nsslapd-pwpolicy-local: on
-
add: aci
aci: (target = "ldap:///cn=config")(targetattr = "objectClass || passwordLockout || passwordMaxFailure || passwordResetFailureCount || nsslapd-pwpolicy-local")(version 3.0; acl "lock-out"; allow (read, search) userdn = "ldap:///cn=bindgate,ou=services,dc=example,dc=org";)
"#;
/// Two policies of single accounts, as 389-ds's own tools place them.
const POLICIES_OF_389: &str = "dn: cn=nsPwPolicyContainer,ou=people,dc=example,dc=org
changetype: add
objectClass: nsContainer
cn: nsPwPolicyContainer

dn: cn=strict,cn=nsPwPolicyContainer,ou=people,dc=example,dc=org
changetype: add
objectClass: ldapsubentry
objectClass: passwordpolicy
cn: strict
passwordLockout: on

dn: cn=lenient,cn=nsPwPolicyContainer,ou=people,dc=example,dc=org
changetype: add
objectClass: ldapsubentry
objectClass: passwordpolicy
cn: lenient
passwordLockout: on
passwordMaxFailure: 100

dn: uid=nina,ou=people,dc=example,dc=org
changetype: modify
add: pwdPolicySubentry
pwdPolicySubentry: cn=strict,cn=nsPwPolicyContainer,ou=people,dc=example,dc=org

dn: uid=both,ou=people,dc=example,dc=org
changetype: modify
add: pwdPolicySubentry
pwdPolicySubentry: cn=lenient,cn=nsPwPolicyContainer,ou=people,dc=example,dc=org
";

/// Starts a server off the runtime's threads.
async fn started<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(start).await.expect("a server")
}

/// So many failures that only the directory's own limit holds them back.
fn generous(setup: &mut Setup) {
    setup.set("throttle", "login_per_user", "\"500 per 15m\"");
    setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
}

async fn post_from(client: &Client, from: u32, path: &str, body: serde_json::Value) -> Answer {
    let address = format!("10.1.{}.{}", from / 250, 1 + from % 250);
    let call = client.post(path).own_page().header("x-forwarded-for", address);
    call.json(&body).send().await
}

async fn try_from(client: &Client, from: u32, name: &str, password: &str) -> Answer {
    let credentials = json!({ "username": name, "password": password });
    post_from(client, from, "/auth/login", credentials).await
}

async fn change_from(client: &Client, from: u32, name: &str, [old, new]: [&str; 2]) -> Answer {
    let change = json!({ "username": name, "old_password": old, "new_password": new });
    post_from(client, from, "/auth/password", change).await
}

/// A browser in which a person signed in and out again.
async fn known_device(world: &World, name: &str) -> Client {
    let client = world.sign_in(name).await;
    client.post("/auth/logout").own_page().send().await.expect_status(204);
    assert_eq!(client.jar.names(), [DEVICE_COOKIE], "kept at logout");
    client
}

/// What the gateway has read of the directory's lock-out.
async fn read_threshold(world: &World, threshold: u32) {
    eventually_async("the directory's threshold is read", async || {
        let metrics = world.gateway.metrics().await;
        let read = metrics.sum("bindgate_directory_lockout_threshold", &[]);
        ((read - f64::from(threshold)).abs() < 0.1).then_some(())
    })
    .await;
}

/// So many wrong passwords, at the login and where passwords are changed, under the names
/// of one person in turn; how many of them were refused as such.
async fn attack(world: &World, names: &[&str], tries: u32) -> usize {
    let client = world.client();
    let tries = (0..tries).zip(names.iter().copied().cycle());
    let tries = stream::iter(tries).map(|(number, name)| {
        let client = client.stranger();
        async move {
            let answer = if number % 2 == 0 {
                try_from(&client, number, name, "wrong").await
            } else {
                change_from(&client, number, name, ["wrong", NEW]).await
            };
            answer.status
        }
    });
    let statuses: Vec<u16> = tries.buffer_unordered(AT_ONCE).collect().await;
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 401).count()
}

/// The attack, and who can log in all the same: the known device, which is handed back.
/// `counted` is how many failures the directory holds against the person.
async fn survive(
    world: &World,
    name: &str,
    threshold: usize,
    counted: impl Fn() -> usize,
) -> Client {
    read_threshold(world, u32::try_from(threshold).expect("small")).await;
    let device = known_device(world, name).await;
    let answered = attack(world, &[name], TRIES).await;
    assert!((1..threshold).contains(&answered), "{answered}");
    let at_directory = counted();
    assert!((1..threshold).contains(&at_directory), "{at_directory} of {threshold}");

    let stranger = world.client();
    let refused = try_from(&stranger, 9000, name, PASSWORD).await;
    refused.expect(429, "TooManyAttempts");
    assert!(refused.header("retry-after").is_some());
    // Of a threshold of three, one try is kept for known devices: none for mistakes.
    if threshold > 3 {
        log_in(&device, name, "mistyped").await.expect(401, "InvalidCredentials");
        assert!(counted() < threshold, "with the mistake on the known device");
    }
    log_in(&device, name, PASSWORD).await.expect_status(200);
    device.get("/app/echo").send().await.expect_status(200);
    assert!(world.upstream.last().all("cookie").is_empty(), "no device cookie goes upstream");

    let held = held(world).await;
    assert!(held >= 900.0, "{held}");
    device
}

/// How many tries were held back for the directory's lock-out.
async fn held(world: &World) -> f64 {
    let metrics = world.gateway.metrics().await;
    metrics.sum("bindgate_throttled_total", &[("rule", "lockout_guard")])
}

fn may_bind(url: &str, authority: &std::path::Path, dn: &str) -> bool {
    let mut command = Command::new("ldapwhoami");
    command.env("LDAPTLS_CACERT", authority).args(["-x", "-H", url, "-D", dn, "-w", PASSWORD]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("ldap-utils is installed (.ci/setup)").success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_passwords_lock_nobody_out_of_openldap() {
    let slapd = started(Slapd::start).await;
    slapd.ldapmodify(
        "dn: cn=default,ou=policies,dc=example,dc=org\nchangetype: modify\n\
         replace: pwdMaxFailure\npwdMaxFailure: 10\n-\n\
         replace: pwdFailureCountInterval\npwdFailureCountInterval: 1800\n",
    );
    let (world, time) = World::with_time(|setup| {
        setup.directory(&slapd.toml(LdapTransport::Tls));
        generous(setup);
    })
    .await;
    let dn = "uid=carol,ou=people,dc=example,dc=org";
    let device = survive(&world, "carol", 10, || slapd.failed_binds(dn)).await;
    let refused = change_from(&world.client(), 9003, "carol", [PASSWORD, NEW]).await;
    refused.expect(429, "TooManyAttempts");
    change_from(&device, 9004, "carol", [PASSWORD, NEW]).await.expect_status(200);
    change_from(&device, 9004, "carol", [NEW, PASSWORD]).await.expect_status(200);
    let url = format!("ldaps://127.0.0.1:{}", slapd.port(LdapTransport::Tls));
    assert!(may_bind(&url, &slapd.authority_file(), dn), "at the directory itself");

    let wait = try_from(&world.client(), 9001, "carol", PASSWORD).await;
    let wait: u64 = wait.header("retry-after").expect("a time").parse().expect("seconds");
    assert!(wait > 900, "the directory's window is the longer one: {wait}");
    time.advance(Duration::from_secs(wait));
    try_from(&world.client(), 9002, "carol", PASSWORD).await.expect_status(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accounts_own_policy_counts_for_it() {
    let slapd = started(Slapd::start).await;
    slapd.ldapmodify(
        "dn: cn=strict,ou=policies,dc=example,dc=org\nchangetype: add\nobjectClass: device\n\
         objectClass: pwdPolicy\ncn: strict\npwdAttribute: userPassword\npwdLockout: TRUE\n\
         pwdMaxFailure: 4\npwdFailureCountInterval: 600\n\n\
         dn: uid=carol,ou=people,dc=example,dc=org\nchangetype: modify\n\
         add: pwdPolicySubentry\npwdPolicySubentry: cn=strict,ou=policies,dc=example,dc=org\n",
    );
    let world = World::with(|setup| {
        setup.directory(&slapd.toml(LdapTransport::Tls));
        generous(setup);
        // Stated, so that the strictest policy is not taken for everybody's.
        setup.set("throttle", "directory_lockout", "\"50 per 15m\"");
    })
    .await;
    for number in 0..20 {
        // Ever another spelling, so that no limit of the name itself holds.
        let name = format!("carol{}", " ".repeat(usize::try_from(number).expect("small")));
        try_from(&world.client(), number, &name, "wrong").await.expect_status(401);
    }
    let counted = slapd.failed_binds("uid=carol,ou=people,dc=example,dc=org");
    assert!((1..4).contains(&counted), "{counted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_passwords_lock_nobody_out_of_active_directory() {
    let samba = started(Samba::start).await;
    let toml = samba.toml();
    let world = World::with(|setup| {
        setup.directory(&toml);
        generous(setup);
    })
    .await;
    survive(&world, "carol", 50, || samba.bad_password_count("carol")).await;
    assert!(samba.may_bind("carol"), "at the directory itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fine_grained_policy_counts_for_its_people_in_a_domain_that_locks_nobody() {
    let samba = started(Samba::start).await;
    samba.ldapmodify(&format!(
        "dn: {BASE}\nchangetype: modify\nreplace: lockoutThreshold\nlockoutThreshold: 0\n"
    ));
    samba.let_policies_be_read();
    samba.add_fine_grained_policy("strict", "carol", 4);
    let toml = samba.toml();
    let (world, time) = World::with_time(|setup| {
        setup.directory(&toml);
        generous(setup);
    })
    .await;
    read_threshold(&world, 0).await;
    let device = known_device(&world, "carol").await;
    let names = ["carol", r"ADTEST\carol", "carol@ad.example.test", "CAROL@adtest"];
    assert_eq!(attack(&world, &names, 80).await, 80, "as if she were nobody");
    let counted = samba.bad_password_count("carol");
    assert!((1..4).contains(&counted), "{counted}");
    assert!(held(&world).await >= 78.0);
    assert!(samba.may_bind("carol"), "at the directory itself");
    try_from(&world.client(), 9000, "carol", PASSWORD).await.expect(401, "InvalidCredentials");
    log_in(&device, "carol", PASSWORD).await.expect_status(200);

    // No policy of her own, and none for all.
    let before = held(&world).await;
    assert_eq!(attack(&world, &["nina"], 80).await, 80);
    assert!(held(&world).await - before < 0.5);
    assert!(samba.may_bind("nina"), "the domain locks nobody");
    try_from(&world.client(), 9001, "nina", PASSWORD).await.expect_status(200);

    // The window is the policy's, not the shorter one of ours.
    time.advance(Duration::from_mins(25));
    try_from(&world.client(), 9002, "carol", PASSWORD).await.expect(401, "InvalidCredentials");
    time.advance(Duration::from_mins(6));
    try_from(&world.client(), 9003, "carol", PASSWORD).await.expect_status(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_passwords_lock_nobody_out_of_389_where_the_limit_is_read() {
    let dirsrv = started(Dirsrv::start).await;
    dirsrv.ldapmodify(LOCKOUT_OF_389);
    dirsrv.ldapmodify(POLICIES_OF_389);
    let toml = dirsrv.toml();
    let world = async || {
        World::with(|setup| {
            setup.directory(&toml);
            generous(setup);
        })
        .await
    };
    let dn = |name: &str| format!("uid={name},ou=people,dc=example,dc=org");
    let first = world().await;
    survive(&first, "carol", 10, || dirsrv.bad_password_count(&dn("carol"))).await;
    // Her policy says that it locks, and not when: at the third.
    for (number, name) in (0..12).zip(["nina", "nina ", "nina  ", "nina   "].iter().cycle()) {
        try_from(&first.client(), number, name, "wrong").await;
    }
    let counted = dirsrv.bad_password_count(&dn("nina"));
    assert!((1..3).contains(&counted), "{counted}");

    // Policies of single accounts are there and do not count: at the tenth, as for all.
    dirsrv.ldapmodify(
        "dn: cn=config\nchangetype: modify\nreplace: nsslapd-pwpolicy-local\n\
         nsslapd-pwpolicy-local: off\n",
    );
    let second = world().await;
    read_threshold(&second, 10).await;
    attack(&second, &["both", "both ", "both  ", "both   "], 80).await;
    let counted = dirsrv.bad_password_count(&dn("both"));
    assert!((1..10).contains(&counted), "{counted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_passwords_lock_nobody_out_of_389_where_the_limit_is_stated() {
    let (dirsrv, slapd) = tokio::join!(started(Dirsrv::start), started(Slapd::start));
    let url = format!("ldap://127.0.0.1:{}", dirsrv.port());
    let own = format!("ldap://127.0.0.1:{}", slapd.port(LdapTransport::Plaintext));
    let toml = slapd.toml(LdapTransport::Plaintext).replace(&own, &url);
    let toml = toml.replace("start_tls = false", "allow_plaintext = true");
    let world = World::with(|setup| {
        setup.directory(&toml);
        generous(setup);
        setup.set("throttle", "directory_lockout", "\"3 per 10m\"");
    })
    .await;
    let dn = "uid=carol,ou=people,dc=example,dc=org";
    survive(&world, "carol", 3, || dirsrv.bad_password_count(dn)).await;
    assert!(may_bind(&url, &slapd.authority_file(), dn), "at the directory itself");
}

#[tokio::test]
async fn a_directory_that_forgets_with_a_right_password_alone_is_warned_of() {
    let slapd = started(Slapd::start).await;
    slapd.ldapmodify(
        "dn: cn=default,ou=policies,dc=example,dc=org\nchangetype: modify\n\
         replace: pwdFailureCountInterval\npwdFailureCountInterval: 0\n",
    );
    let world = World::with(|setup| {
        setup.directory(&slapd.toml(LdapTransport::Tls));
    })
    .await;
    world.gateway.logged("strangers can lock an account from day to day").await;
}

#[tokio::test]
async fn a_device_cookie_is_for_the_device_alone() {
    let world = World::start().await;
    let client = world.client();
    let answer = log_in(&client, "carol", PASSWORD).await;
    let cookies = answer.set_cookies();
    let cookie = cookies.iter().find(|cookie| cookie.starts_with(DEVICE_COOKIE)).expect("one");
    let (_, attributes) = cookie.split_once(';').expect("attributes");
    assert_eq!(attributes.trim(), "Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=7776000");
    let value = client.jar.get(DEVICE_COOKIE).expect("a value");
    assert_eq!(value.len(), 43, "256 bits as base64url");
    client.post("/auth/logout").own_page().send().await.expect_status(204);
    // It is no session, no credential, and nothing that needs a proof against CSRF.
    client.get("/app/echo").send().await.expect(401, "Unauthenticated");
    let credentials = json!({ "username": "carol", "password": PASSWORD });
    let call = client.post("/auth/login").json(&credentials);
    let again = call.send().await;
    again.expect_status(200);
    let cookies = again.set_cookies();
    assert!(!cookies.iter().any(|cookie| cookie.starts_with(DEVICE_COOKIE)), "kept for a day");
    world.gateway.signal("TERM");
    let state = std::fs::read(world.gateway.setup.path("state.redb")).expect("the store");
    let holds = |bytes: &[u8]| state.windows(bytes.len()).any(|part| part == bytes);
    assert!(!holds(value.as_bytes()), "stored as a keyed hash only");
}

#[tokio::test]
async fn an_address_that_fails_on_many_accounts_waits() {
    let world = World::with(|setup| {
        setup.set("throttle", "accounts_per_address", "\"4 per 10m\"");
    })
    .await;
    let carol = known_device(&world, "carol").await;
    let client = world.client();
    log_in(&client.stranger(), "nina", PASSWORD).await.expect_status(200);
    for number in [0, 1, 2, 3, 0, 1] {
        log_in(&client, &format!("nobody{number}"), "x").await.expect(401, "InvalidCredentials");
    }
    let refused = log_in(&client, "alice", PASSWORD).await;
    refused.expect(429, "TooManyAttempts");
    let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=600).contains(&wait), "{wait}");
    log_in(&carol, "carol", PASSWORD).await.expect_status(200);
    let rule = [("rule", "accounts_per_address")];
    world.gateway.counted("bindgate_throttled_total", &rule, 1.0).await;
}
