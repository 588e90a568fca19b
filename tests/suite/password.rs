//! Changes of password, at every kind of directory that we say we understand.

pub(crate) mod form;
mod token;
mod unanswered;

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bindgate::config::LdapTransport;
use serde_json::{Value, json};

use self::form::{by_form, expect_form};
use crate::support::client::{Answer, Client};
use crate::support::dirsrv::Dirsrv;
use crate::support::eventually;
use crate::support::samba::{BASE, Samba};
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::world::{TRACER, World, log_in, shared_slapd, token_text};

const NEW: &str = "a wholly new secret";
const NEWER: &str = "yet another secret 7";
const WRONG: &str = "wrong";

/// Adds somebody with more lines of LDIF, whatever the name.
pub(crate) fn newcomer(slapd: &Slapd, name: &str, more: &str) {
    let special = |symbol: char| "\"+,;<=>\\".contains(symbol);
    let escape = |symbol| if special(symbol) { format!("\\{symbol}") } else { symbol.to_string() };
    let rdn: String = name.chars().map(escape).collect();
    let dn = STANDARD.encode(format!("uid={rdn},ou=people,dc=example,dc=org"));
    let name = STANDARD.encode(name);
    slapd.ldapmodify(&format!(
        "dn:: {dn}\nchangetype: add\nobjectClass: inetOrgPerson\nuid:: {name}\nsn:: {name}\n\
         cn: Dr. Gwendolyn Featherstone\nuserPassword: {PASSWORD}\n{more}\n\n\
         dn: cn=contact_tracers,ou=groups,dc=example,dc=org\nchangetype: modify\nadd: member\n\
         member:: {dn}\n"
    ));
}

const RESET: &str = "pwdReset: TRUE";

/// A policy of `OpenLDAP`, for people who name it in `pwdPolicySubentry`.
fn policy(slapd: &Slapd, name: &str, rules: &str) -> String {
    let dn = format!("cn={name},ou=policies,dc=example,dc=org");
    slapd.ldapadd(&format!(
        "dn: {dn}\nobjectClass: device\nobjectClass: pwdPolicy\ncn: {name}\n\
         pwdAttribute: userPassword\n{rules}\n"
    ));
    format!("pwdPolicySubentry: {dn}")
}

async fn post(client: &Client, body: Value) -> Answer {
    client.post("/auth/password").own_page().json(&body).send().await
}

async fn by_token(client: &Client, token: &str, old: &str, new: &str) -> Answer {
    post(client, json!({ "change_token": token, "old_password": old, "new_password": new })).await
}

async fn by_name(client: &Client, name: &str, old: &str, new: &str) -> Answer {
    post(client, json!({ "username": name, "old_password": old, "new_password": new })).await
}

/// Logs in with a password that must be changed.
async fn change_token(client: &Client, name: &str) -> String {
    let answer = log_in(client, name, PASSWORD).await;
    answer.expect(401, "PasswordChangeRequired");
    assert!(answer.set_cookies().is_empty(), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(body["expires_in"], 600);
    assert_eq!(body["error_description"], body["message"]);
    body["change_token"].as_str().expect("a token").to_owned()
}

fn expect_refused(answer: &Answer, reason: &str) {
    answer.expect(422, "PasswordRefused");
    assert_eq!(answer.json()["reason"], reason, "{answer:?}");
    assert!(answer.set_cookies().is_empty(), "{answer:?}");
}

/// From the login that says so to the one that goes well.
async fn walk(world: &World, name: &str, objections: &[(&str, &str)]) {
    let client = world.client();
    let token = change_token(&client, name).await;
    by_token(&client, &token, WRONG, NEW).await.expect(401, "InvalidCredentials");
    for (new, reason) in objections {
        expect_refused(&by_token(&client, &token, PASSWORD, new).await, reason);
    }
    let answer = by_token(&client, &token, PASSWORD, NEW).await;
    answer.expect_status(200);
    assert_eq!(answer.json()["role"], "contact_tracer", "{name}");
    client.get("/app/echo").send().await.expect_status(200);
    by_token(&client, &token, NEW, NEWER).await.expect(401, "InvalidToken");
    let stranger = world.client();
    log_in(&stranger, name, PASSWORD).await.expect(401, "InvalidCredentials");
    log_in(&stranger, name, NEW).await.expect_status(200);
}

fn records(world: &World, event: &str) -> Vec<Value> {
    let audit = fs::read_to_string(world.gateway.setup.audit_file()).expect("the audit log");
    let records = audit.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    records.filter(|record| record["event"] == event).collect()
}

/// In any order: what is refused before the directory is asked is recorded a little later.
async fn expect_outcomes(world: &World, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    eventually(&format!("the records {expected:?}"), || {
        let records = records(world, "password_change");
        let outcomes = records.iter().map(|record| record["outcome"].as_str().expect("text"));
        let mut outcomes: Vec<_> = outcomes.collect();
        outcomes.sort_unstable();
        (outcomes == expected).then_some(())
    })
    .await;
    let mut times: BTreeMap<&str, f64> = BTreeMap::new();
    for outcome in expected {
        *times.entry(outcome).or_default() += 1.0;
    }
    for (outcome, times) in times {
        let labels = [("result", outcome)];
        world.gateway.counted("bindgate_password_changes_total", &labels, times).await;
    }
}

/// Starts a server off the runtime's threads.
async fn started<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(start).await.expect("a server")
}

#[tokio::test]
async fn at_openldap_a_password_that_was_reset_or_has_expired_is_changed_by_its_owner() {
    let slapd = started(Slapd::start).await;
    let strict = policy(
        &slapd,
        "strict",
        "pwdMustChange: TRUE\npwdMinLength: 18\npwdCheckQuality: 2\npwdInHistory: 3",
    );
    newcomer(&slapd, "petra", &format!("{RESET}\n{strict}"));
    newcomer(&slapd, "fixed", &policy(&slapd, "fixed", "pwdAllowUserChange: FALSE"));
    slapd.ldapmodify(
        "dn: cn=contact_tracers,ou=groups,dc=example,dc=org\nchangetype: modify\nadd: member\n\
         member: uid=expired,ou=people,dc=example,dc=org\n",
    );
    let toml = slapd.toml(LdapTransport::Tls);
    let world = World::with(|setup| {
        setup.directory(&toml);
    })
    .await;
    let objections = [
        ("short", "too_short"),
        ("aaaaaaaaaaaaaaaaaaaa", "common"),
        ("petra petra petra petra", "name"),
        ("Gwendolyn Featherstone 1", "name"),
        (PASSWORD, "unchanged"),
        ("seventeen letters", "too_short"),
        ("with a NUL\0 within it", "unusable"),
    ];
    walk(&world, "petra", &objections).await;
    walk(&world, "expired", &[]).await;
    let client = world.client();
    by_name(&client, "petra", NEW, NEWER).await.expect_status(200);
    expect_refused(&by_name(&client, "petra", NEWER, NEW).await, "used_before");
    expect_refused(&by_name(&client, "fixed", PASSWORD, NEW).await, "not_allowed");
    by_name(&client, "nobody", PASSWORD, NEW).await.expect(401, "InvalidCredentials");
    by_name(&client, "petra", "", NEW).await.expect(401, "InvalidCredentials");
    let mut outcomes = vec!["wrong_password"];
    outcomes.extend(objections.map(|(_, reason)| reason));
    outcomes.extend(["ok", "token_spent", "wrong_password", "ok", "token_spent"]);
    outcomes.extend(["ok", "used_before", "not_allowed", "no_such_user", "impossible"]);
    expect_outcomes(&world, &outcomes).await;
    let changed = &records(&world, "password_change")[0];
    assert!(changed["subject"].as_str().expect("the account").starts_with("uid=petra,"));
    assert!(changed.get("name_hash").is_none(), "{changed}");
}

#[tokio::test]
async fn at_389_a_password_that_was_reset_is_changed_by_its_owner_and_one_without_grace_is_not() {
    let dirsrv = started(Dirsrv::start).await;
    dirsrv.ldapmodify(
        "dn: cn=config\nchangetype: modify\nreplace: passwordCheckSyntax\npasswordCheckSyntax: on\n\
         -\nreplace: passwordMinLength\npasswordMinLength: 18\n-\nreplace: passwordMinCategories\npasswordMinCategories: 1\n-\nreplace: passwordMinAge\n\
         passwordMinAge: 86400\n\n\
         dn: cn=contact_tracers,ou=groups,dc=example,dc=org\nchangetype: modify\nadd: member\n\
         member: uid=reset,ou=people,dc=example,dc=org\n\
         member: uid=grace,ou=people,dc=example,dc=org\n",
    );
    for (name, attribute, value) in [
        ("reset", "passwordExpirationTime", "19700101000000Z"),
        ("grace", "passwordExpirationTime", "20200101000000Z"),
        ("expired", "passwordExpirationTime", "20200101000000Z"),
        ("expired", "passwordGraceUserTime", "3"),
    ] {
        dirsrv.ldapmodify(&format!(
            "dn: uid={name},ou=people,dc=example,dc=org\nchangetype: modify\n\
             replace: {attribute}\n{attribute}: {value}\n"
        ));
    }
    let toml = dirsrv.toml();
    let world = World::with(|setup| {
        setup.directory(&toml);
    })
    .await;
    walk(&world, "reset", &[("seventeen letters", "too_simple")]).await;
    let client = world.client();
    expect_refused(&by_name(&client, "reset", NEW, NEWER).await, "too_young");
    // A grace login is still a login.
    by_name(&client, "grace", PASSWORD, NEW).await.expect_status(200);
    let token = change_token(&client, "expired").await;
    expect_refused(&by_token(&client, &token, PASSWORD, NEW).await, "not_allowed");
}

#[tokio::test]
async fn in_active_directory_a_password_is_changed_by_its_old_one_and_by_no_right_of_ours() {
    let samba = started(Samba::start).await;
    let toml = samba.toml();
    let world = World::with(|setup| {
        setup.directory(&toml);
    })
    .await;
    // The service account may not reset a password; all it has is what everybody has.
    let encoded = |password: &str| {
        let units: Vec<u8> =
            format!("\"{password}\"").encode_utf16().flat_map(u16::to_le_bytes).collect();
        STANDARD.encode(units)
    };
    let entry = format!("dn: CN=reset,OU=people,{BASE}\nchangetype: modify\n");
    let reset = format!("{entry}replace: unicodePwd\nunicodePwd:: {}\n", encoded(NEW));
    let said = samba.ldapmodify_as_service(&reset).expect_err("no right to reset");
    assert!(said.contains("Insufficient access"), "{said}");
    let wrong = format!(
        "{entry}delete: unicodePwd\nunicodePwd:: {}\n-\nadd: unicodePwd\nunicodePwd:: {}\n",
        encoded(WRONG),
        encoded(NEW)
    );
    let said = samba.ldapmodify_as_service(&wrong).expect_err("the old password is the proof");
    assert!(said.contains("00000056"), "{said}");

    walk(&world, "reset", &[("short", "too_short"), (PASSWORD, "unchanged")]).await;
    walk(&world, "expired", &[]).await;
    let client = world.client();
    expect_refused(&by_name(&client, "reset", NEW, NEWER).await, "too_young");
    expect_refused(&by_name(&client, r"ADTEST\carol", PASSWORD, NEW).await, "too_young");
    by_name(&client, "carol", WRONG, NEW).await.expect(401, "InvalidCredentials");
    by_name(&client, "disabled", PASSWORD, NEW).await.expect(403, "AccountUnavailable");
    by_name(&client, "locked", PASSWORD, NEW).await.expect(401, "InvalidCredentials");
}

#[tokio::test]
async fn in_active_directory_no_password_is_changed_in_clear() {
    let samba = started(Samba::start_in_clear).await;
    let urls = format!("\"ldaps://{}\"]", samba.address());
    let clear = format!("\"ldap://{}\"]\nallow_plaintext = true", samba.address());
    let toml = samba.toml().replace(&urls, &clear);
    assert!(toml.contains(&clear), "{toml}");
    let world = World::with(|setup| {
        setup.directory(&toml);
    })
    .await;
    let client = world.client();
    log_in(&client, "sam", PASSWORD).await.expect_status(200);
    expect_refused(&by_name(&client, "sam", PASSWORD, NEW).await, "not_allowed");
    let asked = [("operation", "password_change")];
    let asked = world.gateway.metrics().await.sum("bindgate_directory_operations_total", &asked);
    assert!(asked < 0.5, "neither password was sent: {asked}");
}

#[tokio::test]
async fn a_wrong_old_password_counts_as_a_failed_login() {
    let world = World::with(|setup| {
        setup.set("throttle", "login_per_user", "\"4 per 15m\"");
    })
    .await;
    newcomer(&shared_slapd(), "wilma", RESET);
    let client = world.client();
    let token = change_token(&client, "wilma").await;
    by_token(&client, &token, WRONG, NEW).await.expect(401, "InvalidCredentials");
    by_name(&client, "  WILMA ", WRONG, NEW).await.expect(401, "InvalidCredentials");
    let form = async |old| by_form(&client, "Wilma", [old, NEW, NEW], "/").await;
    expect_form(&form(WRONG).await, 401, "Wilma");
    log_in(&client, "wilma", WRONG).await.expect(401, "InvalidCredentials");
    let answer = by_token(&client, &token, PASSWORD, NEW).await;
    answer.expect(429, "TooManyAttempts");
    assert!(answer.header("retry-after").is_some());
    let page = form(PASSWORD).await;
    expect_form(&page, 429, "Wilma");
    assert!(page.header("retry-after").is_some());
    log_in(&client, "wilma", PASSWORD).await.expect(429, "TooManyAttempts");
    by_name(&client, "invented", WRONG, NEW).await.expect(401, "InvalidCredentials");
}

#[tokio::test]
async fn what_is_refused_before_the_old_password_is_tried_counts_for_the_address_alone() {
    let world = World::with(|setup| {
        setup.set("server", "trusted_proxies", "[\"127.0.0.1/32\"]");
        setup.set("throttle", "login_per_address", "\"3 per 5m\"");
        setup.set("throttle", "login_per_user", "\"1 per 15m\"");
    })
    .await;
    let client = world.client();
    let change = async |from: &str, new: &str| {
        let body = json!({ "username": TRACER, "old_password": WRONG, "new_password": new });
        let call = client.post("/auth/password").own_page().header("x-forwarded-for", from);
        call.json(&body).send().await
    };
    for (new, reason) in
        [("short", "too_short"), ("aaaaaaaaaaaaaaaaaaaa", "common"), ("carol carol carol", "name")]
    {
        expect_refused(&change("192.0.2.1", new).await, reason);
    }
    change("192.0.2.1", "short").await.expect(429, "TooManyAttempts");
    // The account has not failed yet.
    change("192.0.2.2", NEW).await.expect(401, "InvalidCredentials");
    change("192.0.2.3", NEW).await.expect(429, "TooManyAttempts");
}

#[tokio::test]
async fn a_new_password_means_a_new_session_and_the_end_of_all_others() {
    let world = World::start().await;
    newcomer(&shared_slapd(), "xenia", "");
    let [here, elsewhere] = [world.sign_in("xenia").await, world.sign_in("xenia").await];
    let before = token_text(&here);
    let stolen = here.copy();
    by_name(&here, "xenia", PASSWORD, NEW).await.expect_status(200);
    assert_ne!(token_text(&here), before);
    here.get("/app/echo").send().await.expect_status(200);
    // A renewal looks at the account: the change was this session's own.
    here.post("/auth/refresh").own_page().send().await.expect_status(200);
    for client in [stolen, elsewhere] {
        client.get("/app/echo").send().await.expect(401, "SessionRevoked");
    }
    let ended = records(&world, "revocation");
    let reasons: Vec<_> = ended.iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(reasons, ["password_changed", "password_changed"]);
    assert!(ended.iter().all(|record| record["subject"] == "xenia"), "{ended:?}");
}

#[tokio::test]
async fn a_change_is_refused_to_other_sites_and_to_malformed_requests() {
    let world = World::start().await;
    let client = world.client();
    let body = json!({ "username": TRACER, "old_password": PASSWORD, "new_password": NEW });
    let foreign = client.post("/auth/password").header("origin", "https://evil.example");
    foreign.json(&body).send().await.expect(403, "CsrfRejected");
    let carol = world.sign_in(TRACER).await;
    carol.post("/auth/password").json(&body).send().await.expect(403, "CsrfRejected");
    let both = json!({ "username": "x", "change_token": "x", "old_password": "x",
                       "new_password": "x" });
    let neither = json!({ "old_password": PASSWORD, "new_password": NEW });
    for body in [both, neither, json!({}), json!([])] {
        post(&client, body).await.expect(400, "BadRequest");
    }
    client.get("/auth/password").send().await.expect(405, "MethodNotAllowed");
    let long = json!({ "username": TRACER, "old_password": PASSWORD,
                       "new_password": "x".repeat(20_000) });
    post(&client, long).await.expect(413, "TooLarge");
}

#[tokio::test]
async fn neither_passwords_nor_change_tokens_stand_in_log_metrics_or_audit() {
    let world = World::with(|setup| {
        setup.set("telemetry", "log_level", "\"trace\"");
    })
    .await;
    newcomer(&shared_slapd(), "yara", RESET);
    let client = world.client();
    let token = change_token(&client, "yara").await;
    let tried = "refused secret"; // too short
    expect_refused(&by_token(&client, &token, PASSWORD, tried).await, "too_short");
    by_token(&client, &token, PASSWORD, NEW).await.expect_status(200);
    world.gateway.logged("password changed").await;
    let audit = fs::read_to_string(world.gateway.setup.audit_file()).expect("the audit log");
    let metrics = world.gateway.telemetry("/metrics").await;
    let signature = token.rsplit('.').next().expect("a signature");
    for text in [world.gateway.log().as_str(), &audit, metrics.text()] {
        for secret in [signature, tried, NEW, PASSWORD] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
