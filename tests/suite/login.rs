//! A person in a real directory logs in, and the backend is told who is calling.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bindgate::config::LdapTransport;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use crate::support::slapd::{PASSWORD, PEOPLE_WITH_ROLES};
use crate::support::token::session_key;
use crate::support::upstream::sha256_hex;
use crate::support::world::{
    ADMIN, CONTEXT_COOKIE, TOKEN_COOKIE, TRACER, World, context_of, log_in, shared_slapd, token_of,
    token_text,
};

/// Verifies a token with a second implementation and the key as it lies on disk.
/// For asymmetric keys it is given the public half alone.
const SECOND_IMPLEMENTATION: &str = r#"
import json, sys, jwt
key = json.load(open(sys.argv[1]))
token = sys.stdin.read()
if key["kty"] != "oct":
    for private in ("d", "p", "q", "dp", "dq", "qi"):
        key.pop(private, None)
header = jwt.get_unverified_header(token)
assert header["kid"] == key["kid"], (header, key["kid"])
claims = jwt.decode(token, jwt.PyJWK(key).key, algorithms=[key["alg"]],
    options={"require": ["sub", "role", "context", "iat", "exp"]})
print(json.dumps({"header": header, "claims": claims}))
"#;

async fn everybody_gets_the_role_of_the_directory(transport: LdapTransport) {
    let world = World::with(|setup| {
        setup.directory(&shared_slapd().toml(transport));
    })
    .await;
    for (name, role) in PEOPLE_WITH_ROLES {
        let client = world.client();
        let answer = log_in(&client, name, PASSWORD).await;
        answer.expect_status(200);
        assert_eq!(answer.json(), json!({ "id": name, "role": role, "expires_in": 900 }));

        client.get("/app/echo?x=1").send().await.expect_status(200);
        let seen = world.upstream.last();
        assert_eq!(seen.readable_as("X-Auth-User"), [("X-Auth-User", name)]);
        assert_eq!(seen.readable_as("X-Auth-Role"), [("X-Auth-Role", role)]);
        assert_eq!(seen.target, "/app/echo?x=1");
        assert!(seen.all("cookie").is_empty(), "our cookies stay here: {seen:?}");
        assert!(seen.all("authorization").is_empty(), "the token stays here: {seen:?}");

        let token = token_of(&client);
        assert_eq!((token.claim("sub"), token.claim("role")), (name, role));
        assert_eq!(token.claim("context"), sha256_hex(context_of(&client).as_bytes()));
        assert_eq!(token.seconds("exp") - token.seconds("iat"), 900);
        assert_eq!(token.header["typ"], "bindgate-session+jwt");
        assert!(!token.claim("sid").is_empty() && !token.claim("jti").is_empty());
    }
}

#[tokio::test]
async fn each_role_logs_in_over_ldaps() {
    everybody_gets_the_role_of_the_directory(LdapTransport::Tls).await;
}

#[tokio::test]
async fn each_role_logs_in_over_start_tls() {
    everybody_gets_the_role_of_the_directory(LdapTransport::StartTls).await;
}

#[tokio::test]
async fn a_second_implementation_verifies_the_token_with_the_key_on_disk() {
    for algorithm in ["HS256", "EdDSA", "ES256", "RS256"] {
        let world = World::with(|setup| {
            setup.set("token", "algorithm", &format!("{algorithm:?}"));
        })
        .await;
        let client = world.sign_in(ADMIN).await;
        let (file, key) = session_key(&world.gateway.setup.path("keys"));
        assert_eq!(key["alg"], algorithm);
        let read = verify_elsewhere(&file, &token_text(&client));
        assert_eq!(read["header"]["alg"], algorithm);
        assert_eq!(read["claims"]["sub"], ADMIN);
        assert_eq!(read["claims"]["role"], "admin");
        assert_eq!(read["claims"]["context"], sha256_hex(context_of(&client).as_bytes()));
        client.get("/app/echo").send().await.expect_status(200);
    }
}

fn verify_elsewhere(key: &Path, token: &str) -> Value {
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", SECOND_IMPLEMENTATION])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is installed (apt-get install python3-jwt)");
    python.stdin.take().expect("piped").write_all(token.as_bytes()).expect("python reads");
    let output = python.wait_with_output().expect("python ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the second implementation refused: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn keys_on_disk_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::start().await;
    let keys = world.gateway.setup.path("keys");
    let mut purposes = Vec::new();
    for entry in std::fs::read_dir(keys).expect("keys") {
        let entry = entry.expect("an entry");
        if entry.path().extension().is_some_and(|extension| extension == "jwk") {
            let mode = entry.metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
            let text = std::fs::read_to_string(entry.path()).expect("a key");
            let key: Value = serde_json::from_str(&text).expect("a JSON Web Key");
            let stem = entry.path().file_stem().expect("a name").to_owned();
            assert_eq!(Some(key["kid"].as_str().expect("kid")), stem.to_str());
            purposes.push(key["purpose"].as_str().expect("a purpose").to_owned());
        }
    }
    purposes.sort_unstable();
    assert_eq!(purposes, ["audit", "session"]);
}

#[tokio::test]
async fn delivery_decides_where_the_token_goes() {
    for (delivery, in_answer, in_cookie) in
        [("cookie", false, true), ("bearer", true, false), ("both", true, true)]
    {
        let world = World::with(|setup| {
            setup.set("token", "delivery", &format!("{delivery:?}"));
        })
        .await;
        let client = world.client();
        let answer = log_in(&client, TRACER, PASSWORD).await;
        answer.expect_status(200);
        assert_eq!(answer.json().get("token").is_some(), in_answer, "{delivery}");
        assert_eq!(client.jar.get(TOKEN_COOKIE).is_some(), in_cookie, "{delivery}");
        assert!(client.jar.get(CONTEXT_COOKIE).is_some(), "{delivery}: always");
        if in_answer {
            let token = answer.json()["token"].as_str().expect("a token").to_owned();
            client.jar.remove(TOKEN_COOKIE);
            client.get("/app/echo").bearer(&token).send().await.expect_status(200);
            assert!(world.upstream.last().all("authorization").is_empty());
        }
    }
}

#[tokio::test]
async fn a_new_login_ends_the_session_that_the_browser_had() {
    let world = World::start().await;
    let client = world.sign_in(TRACER).await;
    let before = client.copy();
    log_in(&client, ADMIN, PASSWORD).await.expect_status(200);
    assert_ne!(context_of(&client), context_of(&before), "a new context at every login");
    client.get("/admin/echo").send().await.expect_status(200);
    before.get("/app/echo").send().await.expect(401, "SessionRevoked");
}

#[tokio::test]
async fn a_form_logs_in_and_lands_on_a_path_of_our_own() {
    let world = World::start().await;
    for (wanted, lands) in [
        ("/app/echo?tab=2", "/app/echo?tab=2"),
        ("https://evil.example/app", "/"),
        ("//evil.example/app", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
    ] {
        let encoded = percent_encode(wanted.as_bytes(), NON_ALPHANUMERIC);
        let client = world.client();
        let form = format!("username={TRACER}&password=correct+horse+battery&rd={encoded}");
        let answer = client.post("/auth/login").own_page().form(&form).send().await;
        answer.expect_status(303);
        assert_eq!(answer.header("location"), Some(lands), "{wanted}");
        client.get("/app/echo").send().await.expect_status(200);
    }
}

#[tokio::test]
async fn a_wrong_password_in_the_form_shows_the_page_again() {
    let world = World::start().await;
    let client = world.client();
    let form = format!("username={TRACER}&password=wrong&rd=%2Fapp%2Fecho");
    let answer = client.post("/auth/login").own_page().form(&form).send().await;
    answer.expect_status(401);
    assert!(answer.header("content-type").expect("a type").starts_with("text/html"));
    assert!(answer.text().contains("The user name or the password is not right."));
    assert!(answer.text().contains("/app/echo"), "the return path is kept");
    assert!(answer.set_cookies().iter().all(|cookie| !cookie.contains(TOKEN_COOKIE)));
}
