//! Assertions: the upstream is told who is calling in words that it can check, and the
//! client's own words never pass for them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bindgate::ambient::{Clock, Entropy};
use tokio::task::JoinSet;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::client::{Client, Protocol, plain_get};
use crate::support::raw::Raw;
use crate::support::setup::{HOST, Setup};
use crate::support::token::{Token, encode};
use crate::support::upstream::Seen;
use crate::support::verifier::Verifier;
use crate::support::websocket;
use crate::support::world::{ADMIN, TOKEN_COOKIE, TRACER, World, token_text};
use crate::support::{eventually, eventually_async};

const AUDIENCE: &str = "https://api.test";
const SECRET: &str = "a secret of more than thirty-two bytes";

/// One line of TOML; `more` is further keys of it.
fn assertion(setup: &mut Setup, deliver: &str, more: &str) {
    setup.set("server", "jwks_listen", "\"127.0.0.1:0\"");
    let text = format!("{{ deliver = \"{deliver}\", audience = \"{AUDIENCE}\"{more} }}");
    setup.upstream("assertion", &text);
}

/// What the upstream found where it looks for the assertion.
#[track_caller]
fn in_cookie<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    let prefix = format!("{name}=");
    let pairs = seen.header("cookie").unwrap_or_default().split("; ");
    let all: Vec<_> = pairs.filter_map(|pair| pair.strip_prefix(&prefix)).collect();
    assert!(all.len() <= 1, "{all:?}");
    all.first().copied()
}

async fn jwks(address: SocketAddr) -> Value {
    let answer = plain_get(address, "/.well-known/jwks.json").await.expect("an answer");
    answer.expect_status(200);
    answer.json()
}

/// What `PyJWT` says of a token, given a key set or a secret.
async fn judged_by_pyjwt(token: &str, algorithm: &str, keys: &Value) -> Value {
    const JUDGE: &str = r#"
import json, sys, jwt
asked = json.load(sys.stdin)
header = jwt.get_unverified_header(asked["token"])
if isinstance(asked["keys"], str):
    key = asked["keys"]
else:
    (jwk,) = [key for key in asked["keys"]["keys"] if key["kid"] == header["kid"]]
    assert jwk["use"] == "sig" and jwk["alg"] == asked["algorithm"], jwk
    key = jwt.PyJWK(jwk).key
claims = jwt.decode(asked["token"], key, algorithms=[asked["algorithm"]],
                    audience=asked["audience"], issuer=asked["issuer"],
                    options={"require": ["iss", "aud", "sub", "exp", "iat"]})
print(json.dumps({"header": header, "claims": claims}))
"#;
    let asked = json!({
        "token": token, "keys": keys, "algorithm": algorithm,
        "audience": AUDIENCE, "issuer": format!("https://{HOST}"),
    });
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", JUDGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 with PyJWT");
    let mut stdin = python.stdin.take().expect("its input");
    stdin.write_all(asked.to_string().as_bytes()).await.expect("written");
    drop(stdin);
    let said = python.wait_with_output().await.expect("its end");
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{algorithm}: {complaint}");
    serde_json::from_slice(&said.stdout).expect("JSON")
}

#[tokio::test]
async fn an_assertion_of_each_algorithm_holds_for_pyjwt_with_the_keys_it_fetched() {
    for (algorithm, kty, members) in [
        ("RS256", "RSA", &["n", "e"][..]),
        ("ES256", "EC", &["crv", "x", "y"]),
        ("EdDSA", "OKP", &["crv", "x"]),
    ] {
        let world = World::with(|setup| {
            let more =
                format!(", algorithm = \"{algorithm}\", claims = {{ roles = [\"{{role}}\"] }}");
            assertion(setup, "header:X-Assertion", &more);
        })
        .await;
        let keys = jwks(world.gateway.jwks.expect("a jwks address")).await;
        let key = &keys["keys"][0];
        assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1), "{keys}");
        assert_eq!((&key["kty"], &key["alg"]), (&json!(kty), &json!(algorithm)));
        for member in members.iter().chain(&["kid", "use"]) {
            assert!(key[member].is_string(), "{member}: {key}");
        }
        for secret in ["d", "p", "q", "dp", "dq", "qi", "k", "purpose", "created"] {
            assert!(key.get(secret).is_none(), "{secret}: {key}");
        }
        let alice = world.sign_in(ADMIN).await;
        alice.get("/app/echo").send().await.expect_status(200);
        let seen = world.upstream.last();
        let token = seen.header("x-assertion").expect("an assertion");
        let judged = judged_by_pyjwt(token, algorithm, &keys).await;
        assert_eq!(judged["header"]["typ"], "bindgate-assertion+jwt");
        assert_eq!(judged["claims"]["sub"], ADMIN);
        assert_eq!(judged["claims"]["roles"], json!(["admin"]));
        let claims = Token::parse(token);
        assert_eq!(claims.seconds("exp") - claims.seconds("iat"), 300);

        let stranger = world.client();
        stranger.get("/public/echo").send().await.expect_status(200);
        assert_eq!(world.upstream.last().header("x-assertion"), None, "nobody is nobody");
        let public = stranger.get("/.well-known/jwks.json").send().await;
        assert_eq!(public.json()["keys"], json!([]), "internal keys are not for the public");
    }
}

#[tokio::test]
async fn a_shared_secret_signs_and_is_told_to_nobody() {
    let world = World::with(|setup| {
        setup.write("shared-secret", SECRET);
        assertion(
            setup,
            "bearer",
            ", algorithm = \"HS256\", secret_file = \"shared-secret\", typ = \"JWT\"",
        );
    })
    .await;
    assert_eq!(world.gateway.jwks, None, "there is nothing to publish");
    let alice = world.sign_in(ADMIN).await;
    alice.get("/app/echo").send().await.expect_status(200);
    let seen = world.upstream.last();
    let token = seen.header("authorization").expect("a bearer");
    let token = token.strip_prefix("Bearer ").expect("a bearer");
    let judged = judged_by_pyjwt(token, "HS256", &json!(SECRET)).await;
    assert_eq!(judged["header"], json!({"alg": "HS256", "typ": "JWT"}));
    assert_eq!(judged["claims"]["sub"], ADMIN);
    let public = alice.get("/.well-known/jwks.json").send().await;
    assert_eq!(public.json()["keys"], json!([]));
}

#[tokio::test]
async fn public_keys_stand_beside_the_session_keys_and_internal_ones_do_not() {
    let world = World::with(|setup| {
        setup.set("token", "algorithm", "\"ES256\"");
        let more = ", algorithm = \"ES256\", publish = \"public\", issuer = \"urn:us\"";
        assertion(setup, "header:X-Assertion", more);
        let second = format!(
            "[[upstream]]\nname = \"second\"\nurls = [\"http://127.0.0.1:9\"]\n\
             [upstream.assertion]\ndeliver = \"bearer\"\naudience = \"{AUDIENCE}\"\n\
             algorithm = \"ES256\"\n"
        );
        setup.more_routes(&second);
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    alice.get("/app/echo").send().await.expect_status(200);
    let seen = world.upstream.last();
    let token = Token::parse(seen.header("x-assertion").expect("an assertion"));
    assert_eq!(token.claims["iss"], "urn:us");
    let public = alice.get("/.well-known/jwks.json").send().await.json();
    let kids = |keys: &Value| -> Vec<String> {
        let keys = keys["keys"].as_array().expect("keys").iter();
        keys.map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
    };
    let session = Token::parse(&token_text(&alice)).header["kid"].as_str().map(str::to_owned);
    let assertion = token.header["kid"].as_str().map(str::to_owned);
    let (public, internal) = (kids(&public), kids(&jwks(world.gateway.jwks.expect("jwks")).await));
    assert_eq!(public.len(), 2);
    assert!(session.is_some_and(|kid| public.contains(&kid)));
    assert!(assertion.is_some_and(|kid| public.contains(&kid)));
    assert_eq!(internal.len(), 1);
    assert!(!public.contains(&internal[0]), "one key a circle: {public:?} {internal:?}");
    for entry in fs::read_dir(world.gateway.setup.path("keys")).expect("keys") {
        let path = entry.expect("an entry").path();
        let mode = fs::metadata(&path).expect("its mode").permissions().mode();
        assert!(path.extension().is_none_or(|it| it != "jwk") || mode & 0o777 == 0o600, "{path:?}");
    }
}

/// Tokens that a client could try to pass for ours.
const FORGED: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImV2aWwifQ.eyJzdWIiOiJtYWxsb3J5In0.evil";

#[tokio::test]
async fn a_clients_own_cookie_never_passes_in_any_spelling_of_any_header() {
    let world = World::with(|setup| {
        setup.upstream("strip_cookies", "[\"auth_token\"]");
        assertion(setup, "cookie:access_token", ", algorithm = \"ES256\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    let ours = alice.jar.header().expect("cookies");
    for sent in [
        vec![format!("access_token={FORGED}")],
        vec![format!("auth_token={FORGED}")],
        vec![format!("access_token={FORGED}; access_token={FORGED}")],
        vec![format!("keep=1; access_token={FORGED}"), format!("access_token={FORGED}; a=b")],
        vec![format!("\"access_token\"={FORGED}"), format!("ACCESS_TOKEN={FORGED}")],
        vec![format!("access%5Ftoken={FORGED}; %61ccess_token={FORGED}")],
        vec![format!("access_token =\"{FORGED}\"; x=\"; access_token={FORGED}; y=\"")],
        vec![format!("x=1, access_token={FORGED}"), format!("x=1 access_token={FORGED}")],
    ] {
        for (client, path, signed_in) in [
            (alice.stranger(), "/app/echo", true),
            (alice.stranger().over(Protocol::Http2), "/app/echo", true),
            (alice.stranger(), "/public/echo", true),
            (alice.stranger(), "/public/echo", false),
        ] {
            world.upstream.forget();
            let mut call = client.get(path);
            if signed_in {
                call = call.header("cookie", &ours);
            }
            for header in &sent {
                call = call.header("cookie", header);
            }
            call.send().await.expect_status(200);
            let seen = world.upstream.last();
            let head = String::from_utf8_lossy(&seen.head).into_owned();
            assert!(!head.contains(FORGED), "{sent:?}: {head}");
            assert!(!head.contains("bindgate-token"), "{head}");
            let token = in_cookie(&seen, "access_token").map(Token::parse);
            let subject = token.map(|token| token.claim("sub").to_owned());
            assert_eq!(subject.as_deref(), signed_in.then_some(ADMIN), "{sent:?}: {head}");
            if sent[0].starts_with("keep=1") {
                assert!(head.contains("keep=1") && head.contains("a=b"), "others stay: {head}");
            }
        }
    }
}

#[tokio::test]
async fn a_clients_own_header_or_bearer_never_passes_nor_its_trailers() {
    for (deliver, name, spellings) in [
        ("header:X-Assertion", "x-assertion", ["X-Assertion", "x_assertion", "X.Assertion"]),
        ("bearer", "authorization", ["Authorization", "author_ization", "Authorization_"]),
    ] {
        let world = World::with(|setup| assertion(setup, deliver, ", algorithm = \"EdDSA\"")).await;
        let alice = world.sign_in(ADMIN).await;
        for spelling in spellings {
            for (client, path) in [(&alice, "/app/echo"), (&world.client(), "/public/echo")] {
                let sent = format!("Basic {FORGED}");
                client.get(path).header(spelling, sent).send().await.expect_status(200);
                let seen = world.upstream.last();
                assert!(!String::from_utf8_lossy(&seen.head).contains(FORGED), "{spelling}");
                let ours = usize::from(path == "/app/echo");
                assert_eq!(seen.readable_as(name).len(), ours, "{spelling}: {seen:?}");
            }
        }
        let mut raw = Raw::connect(&alice).await;
        let request = format!(
            "POST /app/echo HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nOrigin: https://{HOST}\r\n\
             Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 7\r\n{name}: {FORGED}\r\n\r\n",
            alice.jar.header().expect("cookies"),
        );
        raw.write(request.as_bytes()).await.expect("written");
        assert_eq!(raw.answer().await.expect("an answer").status, 200);
        let seen = world.upstream.last();
        assert_eq!(seen.readable_as(name).len(), 1, "{seen:?}");
        assert!(!format!("{:?}", seen.trailers).contains(FORGED));
    }
}

#[tokio::test]
async fn a_websockets_handshake_carries_it() {
    let world = World::with(|setup| assertion(setup, "bearer", ", algorithm = \"ES256\"")).await;
    let alice = world.sign_in(ADMIN).await;
    let origin = format!("https://{HOST}");
    let socket = websocket::open(&alice, "/app/ws", &[("origin", origin.as_str())]).await;
    assert!(socket.is_ok(), "{:?}", socket.err());
    let seen = world.upstream.arrived("/app/ws").await;
    let bearer = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    assert_eq!(Token::parse(bearer.expect("an assertion")).claim("sub"), ADMIN);
}

#[tokio::test]
async fn the_entrys_attributes_are_told_also_after_a_restart() {
    let mut world = World::with(|setup| {
        let claims = "{ name = \"{attr:cn}\", names = [\"{attr:SN}\"], none = \"{attr:title}\", \
                      text = \"{sub}/{attr:sn}/{attr:title}\", session = { id = \"{sid}\" } }";
        let more = format!(", algorithm = \"EdDSA\", claims = {claims}");
        assertion(setup, "header:X-Assertion", &more);
    })
    .await;
    let mut alice = world.sign_in(ADMIN).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        alice.get("/app/echo").send().await.expect_status(200);
        let token = world.upstream.last().header("x-assertion").map(Token::parse);
        let claims = token.expect("an assertion").claims;
        assert!(claims["name"].is_string(), "{claims}");
        assert_eq!(claims["names"].as_array().map(Vec::len), Some(1), "{claims}");
        assert!(claims.get("none").is_none(), "{claims}");
        let surname = claims["names"][0].as_str().expect("a surname");
        assert_eq!(claims["text"], format!("{ADMIN}/{surname}/"));
        assert_eq!(claims["session"]["id"], Token::parse(&token_text(&alice)).claims["sid"]);
        told.push((claims["name"].clone(), claims["names"].clone()));
        world.gateway.restart().await;
        alice.address = world.gateway.https;
    }
    assert_eq!(told[0], told[1]);
}

/// Requests of this client on several connections, so that both workers serve some.
async fn ask_often(client: &Client, times: usize) {
    let mut asking = JoinSet::new();
    for number in 0..10 {
        let client = if number % 2 == 0 { client.clone() } else { client.over_http2() };
        asking.spawn(async move {
            let mut connection = client.connect().await.expect("a connection");
            for _ in 0..times / 10 {
                let answer = connection.send(client.get("/app/echo").build()).await;
                answer.expect("an answer").expect_status(200);
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.expect("every request is answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_signature_serves_a_session_for_half_of_its_life() {
    let (world, time) = World::with_time(|setup| assertion(setup, "bearer", "")).await;
    let signed = async || {
        let metrics = world.gateway.metrics().await;
        metrics.sum("bindgate_assertions_signed_total", &[]).to_string()
    };
    let newest = || {
        let seen = world.upstream.last();
        let bearer = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        Token::parse(bearer.expect("an assertion"))
    };
    let (alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    ask_often(&alice, 1_000).await;
    let first = newest().seconds("iat");
    assert_eq!(signed().await, "1", "one session");
    ask_often(&carol, 100).await;
    assert_eq!(signed().await, "2", "another session");
    world.gateway.reload_inside().await;
    time.advance(Duration::from_secs(149));
    ask_often(&alice, 100).await;
    assert_eq!(signed().await, "2", "a reload that alters nothing costs nothing");
    time.advance(Duration::from_secs(2));
    ask_often(&alice, 1_000).await;
    world.gateway.counted("bindgate_assertions_signed_total", &[], 3.0).await;
    ask_often(&alice, 100).await;
    assert_eq!(signed().await, "3", "one more after half of its life");
    time.advance(Duration::from_secs(299));
    ask_often(&alice, 100).await;
    assert_eq!(signed().await, "4", "one that is about to end is not sent");
    let token = newest();
    assert_eq!(token.seconds("iat"), first + 450, "{:?}", token.claims);
}

/// A new Ed25519 key of purpose assertion, as an operator puts it there.
fn put_key(folder: &Path) -> (String, PathBuf) {
    let seed = Entropy::system().bytes::<32>().expect("randomness");
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a key");
    let kid = encode(&seed[..8]);
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "purpose": "assertion",
        "created": Clock::system().now().seconds() + 1,
        "d": encode(seed), "x": encode(pair.public_key().as_ref()),
    });
    let path = folder.join(format!("{kid}.jwk"));
    let beside = folder.join("new-key");
    fs::write(&beside, key.to_string()).expect("written");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("its mode");
    fs::rename(&beside, &path).expect("its place");
    (kid, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_load_and_not_one_request_is_refused() {
    let verifier = Verifier::start(AUDIENCE, Duration::from_millis(700)).await;
    let url = format!("[\"http://{}\"]", verifier.address);
    let world = World::with(|setup| {
        let more = ", algorithm = \"EdDSA\", lifetime = \"2s\", publish_ahead = \"1s\"";
        assertion(setup, "bearer", more);
        setup.upstream("urls", &url);
    })
    .await;
    let jwks_address = world.gateway.jwks.expect("a jwks address");
    verifier.trusts(jwks_address);
    let alice = world.sign_in(ADMIN).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (alice, stop) = (alice.clone(), Arc::clone(&stop));
        load.spawn(async move {
            let mut connection = alice.connect().await.expect("a connection");
            let mut wrong = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                match connection.send(alice.get("/app/any").build()).await {
                    Ok(answer) if answer.status == 200 => {}
                    other => wrong.push(format!("{other:?}")),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            wrong
        });
    }
    let keys = world.gateway.setup.path("keys");
    let published = async || {
        let keys = jwks(jwks_address).await;
        let kids = keys["keys"].as_array().expect("keys").iter();
        kids.map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect::<Vec<_>>()
    };
    let mut current = published().await;
    assert_eq!(current.len(), 1);
    for removes_the_old in [false, true] {
        let old = current.pop().expect("a key that signs");
        eventually("the old key signs", || (verifier.accepted(&old) > 20).then_some(())).await;
        let (new, _) = put_key(&keys);
        if removes_the_old {
            fs::remove_file(keys.join(format!("{old}.jwk"))).expect("it was there");
        }
        world.gateway.signal("HUP");
        eventually_async("both are published", async || {
            let all = published().await;
            (all.contains(&new) && all.contains(&old)).then_some(())
        })
        .await;
        assert_eq!(verifier.accepted(&new), 0, "published before it signs");
        eventually("the new key signs", || (verifier.accepted(&new) > 20).then_some(())).await;
        eventually_async("the old key is published no longer", async || {
            (published().await == [new.clone()]).then_some(())
        })
        .await;
        let before = verifier.accepted(&new);
        eventually("it goes on", || (verifier.accepted(&new) > before + 20).then_some(())).await;
        current = vec![new];
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(wrong) = load.join_next().await {
        assert_eq!(wrong.expect("no panic"), Vec::<String>::new());
    }
    assert_eq!(verifier.refused(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_rotates_the_keys_of_assertions_and_drops_them_at_once() {
    let verifier = Verifier::start(AUDIENCE, Duration::from_millis(300)).await;
    let url = format!("[\"http://{}\"]", verifier.address);
    let world = World::with(|setup| {
        let more = ", algorithm = \"EdDSA\", lifetime = \"2s\", publish_ahead = \"1s\"";
        assertion(setup, "bearer", more);
        setup.upstream("urls", &url);
        setup.control_socket();
    })
    .await;
    let gateway = &world.gateway;
    verifier.trusts(gateway.jwks.expect("a jwks address"));
    let alice = world.sign_in(ADMIN).await;
    alice.get("/app/any").send().await.expect_status(200);
    let listed = async || {
        let listed = gateway.command("keys list --purpose assertion").await;
        assert_eq!(listed.code, Some(0), "{}", listed.text);
        listed.text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let [old] = <[String; 1]>::try_from(listed().await).expect("one key");
    assert!(old.contains("EdDSA internal") && old.ends_with("signs"), "{old}");
    let old = old.split_whitespace().next().expect("a kid").to_owned();

    let said = gateway.command("keys rotate --purpose assertion").await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(said.text.starts_with("1 new key is published"), "{}", said.text);
    let rows = listed().await;
    assert!(rows[0].ends_with("signs") && rows[1].contains("signs from"), "{rows:?}");
    let new = rows[1].split_whitespace().next().expect("a kid").to_owned();
    // The old file goes when nothing of it is under way; meanwhile nobody is refused.
    eventually_async("the old key is retired", async || {
        alice.get("/app/any").send().await.expect_status(200);
        let rows = listed().await;
        (rows.len() == 1 && rows[0].starts_with(&new) && rows[0].ends_with("signs")).then_some(())
    })
    .await;
    assert!(!gateway.setup.path("keys").join(format!("{old}.jwk")).exists());

    let said = gateway.command("keys rotate --purpose assertion --now").await;
    assert_eq!(said.code, Some(0), "{}", said.text);
    let [last] = <[String; 1]>::try_from(listed().await).expect("one key");
    assert!(!last.starts_with(&new) && last.ends_with("signs"), "{last}");
    assert!(!gateway.setup.path("keys").join(format!("{new}.jwk")).exists());
    let last = last.split_whitespace().next().expect("a kid").to_owned();
    eventually_async("the verifier has the new key", async || {
        alice.get("/app/any").send().await;
        (verifier.accepted(&last) > 0).then_some(())
    })
    .await;
    let log = fs::read_to_string(gateway.setup.audit_file()).expect("the audit log");
    let records = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let changes: Vec<_> = records
        .filter(|record| {
            record["detail"].as_str().is_some_and(|it| it.starts_with("assertion key"))
        })
        .map(|record| record["outcome"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(changes, ["made", "retired", "made", "dropped"]);
}

#[tokio::test]
async fn keys_are_told_until_the_last_request_of_a_drain_was_answered() {
    let mut world =
        World::with(|setup| assertion(setup, "bearer", ", algorithm = \"ES256\"")).await;
    let jwks_address = world.gateway.jwks.expect("a jwks address");
    let alice = world.sign_in(ADMIN).await;
    let held = tokio::spawn({
        let alice = alice.clone();
        async move { alice.get("/app/hold").send().await.status }
    });
    world.upstream.held(1).await;
    world.gateway.signal("TERM");
    world.gateway.readiness(503).await;
    eventually_async("the listeners are closed", async || {
        alice.get("/app/echo").try_send().await.is_err().then_some(())
    })
    .await;
    assert_eq!(jwks(jwks_address).await["keys"].as_array().map(Vec::len), Some(1));
    world.upstream.release();
    assert_eq!(held.await.expect("no panic"), 200);
    assert!(world.gateway.ended().await.success());
}

#[tokio::test]
async fn an_assertion_is_no_session_token() {
    let world = World::with(|setup| {
        assertion(setup, "header:X-Assertion", ", algorithm = \"ES256\", typ = \"JWT\"");
        setup.set("token", "algorithm", "\"ES256\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    alice.get("/app/echo").send().await.expect_status(200);
    let seen = world.upstream.last();
    let assertion = seen.header("x-assertion").expect("an assertion");
    let mallory = alice.copy();
    mallory.jar.set(TOKEN_COOKIE, assertion);
    mallory.get("/app/echo").send().await.expect(401, "InvalidToken");
    mallory.jar.remove(TOKEN_COOKIE);
    mallory.get("/app/echo").bearer(assertion).send().await.expect(401, "InvalidToken");
}
