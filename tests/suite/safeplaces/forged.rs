//! What a client sends in place of our statement, and that none of it arrives.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::site::{Mode, Site};
use super::{BACKEND, POINTS, USERS, Who, call, token_cookies};
use crate::support::client::{Protocol, plain_get};
use crate::support::eventually;
use crate::support::node::{Service, node, values};
use crate::support::setup::HOST;
use crate::support::token::Token;
use crate::support::world::TRACER;

/// Tokens that say they were a super admin's, made by somebody who read our key set.
async fn forge(site: &Site) -> Value {
    let keys = match site.gateway.jwks {
        Some(address) => {
            plain_get(address, "/.well-known/jwks.json").await.expect("the key set").json()
        }
        None => json!({ "keys": [null] }),
    };
    let mut process = node("forge.js")
        .env("AUDIENCE", format!("https://api.{HOST}"))
        .env("NAMESPACE", format!("https://{HOST}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node");
    process.stdin.take().expect("piped").write_all(keys.to_string().as_bytes()).expect("it reads");
    let output = process.wait_with_output().expect("it ends");
    serde_json::from_slice(&output.stdout).expect("forged tokens")
}

/// The status of a request that goes past the gateway; `None` when there is no answer.
async fn directly(service: &Service, cookie: &str) -> Option<String> {
    let mut stream = TcpStream::connect(service.address).await.ok()?;
    let request = format!(
        "GET /auth/users/reflect HTTP/1.1\r\nhost: x\r\nx-requested-with: XMLHttpRequest\r\n\
         cookie: {cookie}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1).map(str::to_owned)
}

#[tokio::test]
async fn the_guard_is_as_fragile_as_the_documentation_says() {
    // Else the other tests here would show nothing.
    let mut site = Site::start("v2", Mode::KeySet).await;
    let forged = forge(&site).await;
    let cookie = |name: &str| format!("access_token={}", forged[name].as_str().expect("a token"));
    let status = directly(&site.backend, &cookie("garbage")).await;
    assert_eq!(status.as_deref(), Some("403"));
    let status = directly(&site.backend, &cookie("public_key_as_secret")).await;
    assert_eq!(status.as_deref(), Some("200"), "whoever reads the key set is anyone");
    assert_eq!(directly(&site.backend, &cookie("unknown_kid")).await, None);
    eventually("the guard's process ends", || (!site.backend.is_alive()).then_some(())).await;
}

/// Every way to say a cookie that a parser of cookies may understand.
fn spellings(name: &str, token: &str) -> Vec<Vec<String>> {
    let encoded = token.replace('.', "%2E").replace('-', "%2D");
    vec![
        vec![format!("{name}={token}")],
        vec![format!("{name}=\"{token}\"")],
        vec![format!("{name}={encoded}")],
        vec![format!("{name}=\"{encoded}\"")],
        vec![format!(" {name} = {token}")],
        vec![format!("{name}={token};{name}={token}")],
        vec![format!("a=b; {name}={token}"), format!("{name}=\"{token}\"; c=d")],
        vec![format!("a=\"x; {name}={token}; y\"")],
        vec![format!("{name}=")],
        vec![name.to_owned()],
    ]
}

async fn only_our_statement_arrives(era: &str, mode: Mode) {
    let mut site = Site::start(era, mode).await;
    let forged = forge(&site).await;
    let client = site.sign_in(TRACER).await;
    let jar = client.jar.header().expect("cookies");
    let tokens: Vec<&str> =
        forged.as_object().expect("tokens").values().filter_map(Value::as_str).collect();
    assert_eq!(tokens.len(), if mode == Mode::KeySet { 3 } else { 2 });
    let mut count = 0;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = client.over(protocol);
        for name in ["access_token", "auth_token"] {
            let sent = tokens.iter().flat_map(|token| spellings(name, token));
            for headers in sent {
                // Before our cookies, and behind them.
                let mut call = client.get("/organization").without_cookies();
                for header in &headers {
                    call = call.header("cookie", header);
                }
                call = call.header("cookie", &jar);
                let answer = call.send().await;
                count += 1;
                assert_eq!(answer.status, 200, "{headers:?}: {:?}", answer.body);
                assert_eq!(
                    answer.json(),
                    json!({ "user": TRACER, "role": "contact_tracer" }),
                    "{headers:?}"
                );
                let seen = site.backend.last().await;
                let cookies = token_cookies(&seen);
                let [(name, token)] = cookies.as_slice() else { panic!("{headers:?}: {seen}") };
                assert_eq!(name, "access_token");
                assert_eq!(Token::parse(token).claim("sub"), TRACER);
                for token in &tokens {
                    assert!(!seen.to_string().contains(token), "{headers:?}: {seen}");
                }
            }
        }
    }
    assert_eq!(site.backend.seen().await.len(), count);
    assert!(site.backend.is_alive());
}

#[tokio::test]
async fn only_our_statement_arrives_at_v2_with_our_key_set() {
    only_our_statement_arrives("v2", Mode::KeySet).await;
}

#[tokio::test]
async fn only_our_statement_arrives_at_v2_with_a_shared_secret() {
    only_our_statement_arrives("v2", Mode::Secret).await;
}

#[tokio::test]
async fn only_our_statement_arrives_at_v1_with_our_key_set() {
    only_our_statement_arrives("v1", Mode::KeySet).await;
}

#[tokio::test]
async fn a_header_of_the_clients_does_not_double_the_guards_own() {
    let site = Site::start("v2", Mode::KeySet).await;
    let client = site.sign_in(TRACER).await;
    for value in ["XMLHttpRequest", "nothing", ""] {
        let call = client.get("/organization").header("x-requested-with", value);
        call.header("X-Requested-With", "XMLHttpRequest").send().await.expect_status(200);
        let seen = site.backend.last().await;
        assert_eq!(values(&seen, "x-requested-with"), ["XMLHttpRequest"]);
    }
}

#[tokio::test]
async fn without_a_session_nothing_reaches_a_protected_route() {
    for era in ["v2", "v1"] {
        let mut site = Site::start(era, Mode::KeySet).await;
        let forged = forge(&site).await;
        let mut cookies = vec![None];
        for token in forged.as_object().expect("tokens").values().filter_map(Value::as_str) {
            cookies.push(Some(format!("access_token={token}")));
            cookies.push(Some(format!("auth_token={token}")));
            cookies.push(Some(format!("__Host-bindgate-token={token}; access_token={token}")));
        }
        let protected = BACKEND.iter().chain(&USERS).chain(&POINTS);
        for (method, path, _) in protected.filter(|(_, _, who)| *who != Who::Everybody) {
            for cookie in &cookies {
                let client = site.client();
                for (name, value) in
                    cookie.iter().flat_map(|it| it.split("; ")).filter_map(|it| it.split_once('='))
                {
                    client.jar.set(name, value);
                }
                let answer = call(&client, method, path).await;
                assert_eq!(answer.status, 401, "{method} {path} {cookie:?}");
            }
            // Express would take these for the same.
            for near in [path.to_uppercase(), format!("{path}/")] {
                let answer = call(&site.client(), method, &near).await;
                assert_eq!(answer.status, 404, "{method} {near}");
            }
        }
        assert_eq!(site.backend.seen().await, Vec::<Value>::new());
        assert_eq!(site.translation.seen().await, Vec::<Value>::new());
        assert!(site.backend.is_alive() && site.translation.is_alive());
    }
}
