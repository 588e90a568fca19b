//! A client cannot name itself: whatever spelling of a managed header it sends, on
//! whatever route, over whichever protocol, the upstream reads only what the gateway
//! wrote.

use std::fmt::Write as _;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::support::client::{Client, Protocol};
use crate::support::raw::Raw;
use crate::support::upstream::{Seen, Upstream, fold_name};
use crate::support::world::{ADMIN, SUPER_ADMIN, World};

/// Spellings that have fooled other gateways (security rules 3, 4 and 25).
const SPELLINGS: &[&str] = &[
    "X-Auth-User",
    "x-auth-user",
    "X_Auth_User",
    "X-Auth_User",
    "X.Auth.User",
    "x--auth--user",
    "XAuthUser",
    "-X-Auth-User-",
    "X-Auth-User_",
    "X~Auth'User",
    "X-Auth-Role",
    "x_auth_role",
    "X!Auth#Role",
    "xauthrole",
];

/// What also never passes from a peer that nobody trusts.
const DANGEROUS: &[&str] = &[
    "X-Original-URL",
    "X-Original-URI",
    "X-Rewrite-URL",
    "X_Rewrite_Url",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "Proxy",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "X_Forwarded_Anything",
    "X-Real-IP",
    "True-Client-IP",
    "X-Client-IP",
    "X_Client_IP",
];

const MALLORY: &str = "mallory";

/// Nothing in this request lets anybody believe what the client said of itself.
fn only_the_gateway_speaks(seen: &Seen, subject: Option<(&str, &str)>, sent: &str) {
    let expected = |name: &'static str, value: Option<&'static str>| {
        value.map(|value| vec![(name, value)]).unwrap_or_default()
    };
    let known = |text: &str| match text {
        "alice" => "alice",
        "admin" => "admin",
        "sam" => "sam",
        _ => "super_admin",
    };
    let user = expected("X-Auth-User", subject.map(|(user, _)| known(user)));
    let role = expected("X-Auth-Role", subject.map(|(_, role)| known(role)));
    assert_eq!(seen.readable_as("X-Auth-User"), user, "sent {sent}");
    assert_eq!(seen.readable_as("X-Auth-Role"), role, "sent {sent}");
    for name in DANGEROUS {
        for (_, value) in seen.readable_as(name) {
            assert!(!value.contains(MALLORY), "{name} passed; sent {sent}");
        }
    }
    let ours = ["xforwardedfor", "xforwardedproto", "xforwardedhost"];
    for (name, _) in &seen.headers {
        let folded = fold_name(name);
        let foreign = folded.starts_with("xforwarded") && !ours.contains(&folded.as_str());
        assert!(!foreign, "{name} passed; sent {sent}");
    }
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id"] {
        assert_eq!(seen.readable_as(name).len(), 1, "{name} is ours and single; sent {sent}");
    }
}

/// One request with exactly these header lines, on a connection that stays open.
async fn send_raw(raw: &mut Raw, client: &Client, target: &str, headers: &[(String, String)]) {
    let mut request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n", client.host);
    if let Some(cookies) = client.jar.header() {
        write!(request, "Cookie: {cookies}\r\n").expect("text");
    }
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").expect("text");
    }
    request += "\r\n";
    raw.write(request.as_bytes()).await.expect("written");
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.status, 200, "{headers:?}: {}", answer.head);
}

fn newest(upstream: &Upstream) -> Seen {
    let seen = upstream.last();
    upstream.forget();
    seen
}

#[tokio::test]
async fn a_client_cannot_name_itself_in_any_listed_spelling() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let stranger = world.client();
    for name in SPELLINGS.iter().chain(DANGEROUS) {
        for (client, target, subject) in [
            (&alice, "/app/echo", Some((ADMIN, "admin"))),
            (&alice, "/public/echo", Some((ADMIN, "admin"))),
            (&stranger, "/public/echo", None),
        ] {
            let mut raw = Raw::connect(client).await;
            let forged = ((*name).to_owned(), MALLORY.to_owned());
            let named = ("Connection".to_owned(), format!("keep-alive, {name}, X-Auth-User"));
            for headers in [
                vec![forged.clone()],
                vec![forged.clone(), forged.clone()],
                vec![forged.clone(), named.clone()],
                vec![named, forged.clone(), (forged.0.clone(), String::new())],
            ] {
                send_raw(&mut raw, client, target, &headers).await;
                only_the_gateway_speaks(&newest(&world.upstream), subject, &format!("{headers:?}"));
            }
            let http2 = client.over_http2();
            let call = http2.get(target).header(name, MALLORY).header(name, MALLORY);
            call.send().await.expect_status(200);
            only_the_gateway_speaks(&newest(&world.upstream), subject, &format!("h2 {name}"));
        }
    }
}

/// A managed name with other letters' case and with anything between its letters.
fn spelling() -> impl Strategy<Value = String> {
    let separators = "!#$%&'*+-.^_`|~";
    let name = select(vec!["xauthuser", "xauthrole", "xforwardedfor", "xrequestid", "proxy"]);
    let noise = proptest::collection::vec(
        (any::<bool>(), subsequence(separators.chars().collect::<Vec<_>>(), 0..3)),
        16,
    );
    (name, noise).prop_map(|(name, noise)| {
        let mut spelled = String::new();
        for (letter, (upper, between)) in name.chars().zip(noise) {
            spelled.extend(between);
            spelled.push(if upper { letter.to_ascii_uppercase() } else { letter });
        }
        spelled
    })
}

fn header_set() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = select(vec![MALLORY, "", "mallory, alice", "mallory\tx", "\"mallory\""]);
    let forged = (spelling(), value).prop_map(|(name, value)| (name, value.to_owned()));
    let named =
        spelling().prop_map(|name| ("Connection".to_owned(), format!("{name}, keep-alive")));
    let honest = Just(("X-Harmless".to_owned(), "1".to_owned()));
    proptest::collection::vec(prop_oneof![6 => forged, 1 => named, 1 => honest], 1..8)
}

async fn no_set_of_headers_names_anybody(protocol: Protocol) {
    let world = World::start().await;
    let sam = world.sign_in(SUPER_ADMIN).await.over(protocol);
    let stranger = world.client().over(protocol);
    let mut runner = TestRunner::deterministic();
    let cases = [
        (&sam, "/super/echo", Some((SUPER_ADMIN, "super_admin"))),
        (&stranger, "/public/echo", None),
    ];
    for (client, target, subject) in cases {
        let mut connection = client.connect().await.expect("a connection");
        let mut raw = (protocol == Protocol::Http1).then_some(Raw::connect(client).await);
        for _ in 0..200 {
            let headers = header_set().new_tree(&mut runner).expect("a case").current();
            if let Some(raw) = &mut raw {
                send_raw(raw, client, target, &headers).await;
            } else {
                let mut call = client.get(target);
                for (name, value) in &headers {
                    // HTTP/2 itself refuses `Connection`; everything else may come.
                    if name != "Connection" {
                        call = call.header(&name.to_ascii_lowercase(), value);
                    }
                }
                let answer = connection.send(call.build()).await.expect("an answer");
                answer.expect_status(200);
            }
            only_the_gateway_speaks(&newest(&world.upstream), subject, &format!("{headers:?}"));
        }
    }
}

#[tokio::test]
async fn no_set_of_headers_names_anybody_over_http1() {
    no_set_of_headers_names_anybody(Protocol::Http1).await;
}

#[tokio::test]
async fn no_set_of_headers_names_anybody_over_http2() {
    no_set_of_headers_names_anybody(Protocol::Http2).await;
}

#[tokio::test]
async fn a_trailer_cannot_name_anybody_either() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let mut raw = Raw::connect(&alice).await;
    let request = format!(
        "POST /app/echo HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nOrigin: https://{}\r\n\
         Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum, X-Auth-User, X_Auth_Role\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-Auth-User: mallory\r\nX_Auth_Role: super_admin\r\n\r\n",
        alice.host,
        alice.jar.header().expect("cookies"),
        alice.host,
    );
    raw.write(request.as_bytes()).await.expect("written");
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    let seen = world.upstream.last();
    only_the_gateway_speaks(&seen, Some((ADMIN, "admin")), "trailers");
    let sums = seen.readable_as("X-Sum");
    assert!(sums.iter().any(|(_, value)| *value == "7"), "an honest trailer passes: {seen:?}");
}

#[tokio::test]
async fn each_preset_is_managed_in_every_spelling_too() {
    for (preset, user, groups) in [
        ("remote", "Remote-User", "Remote-Groups"),
        ("forwarded", "X-Forwarded-User", "X-Forwarded-Groups"),
        ("auth_request", "X-Auth-Request-User", "X-Auth-Request-Groups"),
    ] {
        let world = World::with(|setup| {
            setup.set("headers", "preset", &format!("{preset:?}"));
        })
        .await;
        let alice = world.sign_in(ADMIN).await;
        for name in [user.to_owned(), user.replace('-', "_"), user.replace('-', ".")] {
            let call = alice.get("/app/echo").header(&name, MALLORY).header(&name, MALLORY);
            call.send().await.expect_status(200);
            let seen = newest(&world.upstream);
            assert_eq!(seen.readable_as(user), [(user, ADMIN)], "{name}");
            assert_eq!(seen.readable_as(groups), [(groups, "admin")], "{name}");
            let call = world.client();
            call.get("/public/echo").header(&name, MALLORY).send().await.expect_status(200);
            assert!(newest(&world.upstream).readable_as(user).is_empty(), "{name}");
        }
    }
}

#[tokio::test]
async fn forwarded_headers_count_only_from_peers_that_are_trusted() {
    let world = World::start().await;
    let client = world.client();
    let call = client.get("/public/echo").header("x-forwarded-for", "203.0.113.9");
    call.header("x-request-id", "chosen").send().await.expect_status(200);
    let seen = newest(&world.upstream);
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some(client.host.as_str()));
    assert_ne!(seen.header("x-request-id"), Some("chosen"));

    let world = World::with(|setup| {
        setup.set("server", "trusted_proxies", "[\"127.0.0.0/8\"]");
    })
    .await;
    let client = world.client();
    let call = client.get("/public/echo").header("x-forwarded-for", "203.0.113.9");
    call.header("x-request-id", "chosen").send().await.expect_status(200);
    let seen = newest(&world.upstream);
    let addresses = seen.header("x-forwarded-for").expect("addresses");
    assert!(addresses.starts_with("203.0.113.9"), "{addresses}");
    assert_eq!(seen.header("x-request-id"), Some("chosen"));
}

#[tokio::test]
async fn hop_by_hop_headers_end_here_and_the_rest_passes_unchanged() {
    let world = World::start().await;
    let client = world.client();
    let mut raw = Raw::connect(&client).await;
    let headers: Vec<(String, String)> = [
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers, gzip"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("X-Requested-With", "thing"),
        ("X-Bytes", "caf\u{e9}"),
        ("Accept", "a/b"),
        ("Accept", "c/d"),
    ]
    .iter()
    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    .collect();
    send_raw(&mut raw, &client, "/public/echo?q=%zz&r=a+b", &headers).await;
    let seen = newest(&world.upstream);
    for gone in ["x-hop", "keep-alive", "proxy-authorization"] {
        assert!(seen.all(gone).is_empty(), "{gone} passed");
    }
    assert!(seen.all("te").iter().all(|value| *value == "trailers"), "{:?}", seen.all("te"));
    assert_eq!(seen.header("x-requested-with"), Some("thing"));
    assert_eq!(seen.header("x-bytes"), Some("caf\u{e9}"));
    assert_eq!(seen.all("accept"), ["a/b", "c/d"]);
    assert_eq!(seen.target, "/public/echo?q=%zz&r=a+b", "the query passes byte for byte");
}

#[tokio::test]
async fn set_headers_replace_and_strip_cookies_and_strip_headers_remove() {
    let world = World::with(|setup| {
        setup.upstream("set_headers", "{ X-Requested-With = \"XMLHttpRequest\" }");
        setup.upstream("strip_cookies", "[\"auth_token\"]");
    })
    .await;
    let client = world.client();
    let call = client.get("/public/echo").header("x-requested-with", "other");
    let call = call.header("cookie", "theme=dark; auth_token=stolen; lang=\"de\"");
    call.send().await.expect_status(200);
    let seen = newest(&world.upstream);
    assert_eq!(seen.header("x-requested-with"), Some("XMLHttpRequest"));
    assert_eq!(seen.header("cookie"), Some("theme=dark; lang=\"de\""));
}

#[tokio::test]
async fn header_names_reach_an_http1_client_in_title_case() {
    let world = World::start().await;
    let mut raw = Raw::connect(&world.client()).await;
    let request = "GET /public/echo HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    raw.write(request.as_bytes()).await.expect("written");
    let answer = raw.answer().await.expect("an answer");
    assert!(answer.exact_header("Content-Type").is_some(), "{}", answer.head);
    assert!(answer.exact_header("Strict-Transport-Security").is_some(), "{}", answer.head);
    let echoed: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(echoed["method"], "GET");
}
