//! What every answer tells browsers, and what becomes of what an upstream says itself.

use crate::support::client::Answer;
use crate::support::world::{ADMIN, World};

const HSTS: &str = "strict-transport-security";
const NOSNIFF: &str = "x-content-type-options";
const FRAME: &str = "x-frame-options";
const REFERRER: &str = "referrer-policy";
const PERMISSIONS: &str = "permissions-policy";

const USUAL: [(&str, &str); 5] = [
    (HSTS, "max-age=63072000; includeSubDomains; preload"),
    (NOSNIFF, "nosniff"),
    (FRAME, "DENY"),
    (REFERRER, "strict-origin-when-cross-origin"),
    (
        PERMISSIONS,
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// All values of a header.
fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let values = answer.headers.get_all(name).iter();
    values.map(|value| value.to_str().expect("text")).collect()
}

#[tokio::test]
async fn every_answer_tells_browsers_to_be_careful() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for client in [alice.clone(), alice.over_http2()] {
        for (target, status) in [
            ("/app/echo", 200),
            ("/public/echo", 200),
            ("/super/echo", 403),
            ("/nowhere", 404),
            ("/app/../x", 400),
            ("/auth/session", 200),
            ("/auth/login", 405),
            ("/.well-known/jwks.json", 200),
            ("/app/close", 502),
        ] {
            let answer = client.get(target).send().await;
            answer.expect_status(status);
            for (name, value) in USUAL {
                assert_eq!(all(&answer, name), [value], "{target} {name}");
            }
        }
        let stranger = client.stranger();
        let redirect = stranger.get("/app/echo").navigation().send().await;
        redirect.expect_status(303);
        for (name, value) in USUAL {
            assert_eq!(all(&redirect, name), [value], "{name}");
        }
        let page = stranger.get("/auth/").navigation().send().await;
        page.expect_status(200);
        assert_eq!(all(&page, REFERRER), ["same-origin"], "a page of ours has its own");
        assert_eq!((all(&page, FRAME), all(&page, NOSNIFF)), (vec!["DENY"], vec!["nosniff"]));
        assert_eq!(all(&page, PERMISSIONS), [USUAL[4].1]);
    }
}

#[tokio::test]
async fn what_an_upstream_says_stays_only_where_it_is_stricter() {
    let world = World::start().await;
    let usual = |name: &str| USUAL.iter().find(|(known, _)| *known == name).expect("known").1;
    let permissions = usual(PERMISSIONS);
    let own = format!("{permissions}, fullscreen=*");
    let wider = "camera=(self), geolocation=*";
    let long = "max-age=94608000; includeSubDomains; preload";
    let cases: &[(&str, &[&str], &[&str])] = &[
        (HSTS, &["max-age=60"], &[usual(HSTS)]),
        (HSTS, &["max-age=0"], &[usual(HSTS)]),
        (HSTS, &[long], &[long]),
        (NOSNIFF, &["sniff"], &["nosniff"]),
        (FRAME, &["SAMEORIGIN"], &["DENY"]),
        (FRAME, &["ALLOW-FROM https://evil.example"], &["DENY"]),
        (FRAME, &["deny"], &["deny"]),
        (REFERRER, &["no-referrer"], &["no-referrer"]),
        (REFERRER, &["same-origin"], &["same-origin"]),
        (REFERRER, &["no-referrer, unsafe-url"], &[usual(REFERRER)]),
        (REFERRER, &["unsafe-url", "no-referrer"], &["unsafe-url", "no-referrer"]),
        (REFERRER, &["nonsense"], &[usual(REFERRER)]),
        (PERMISSIONS, &[wider], &[permissions]),
        (PERMISSIONS, &["fullscreen=*"], &[&own]),
        (PERMISSIONS, &["geolocation 'none'"], &[permissions]),
    ];
    for (number, (name, theirs, expected)) in cases.iter().enumerate() {
        let path = format!("/public/case{number}");
        let fields: Vec<String> = theirs.iter().map(|value| format!("{name}: {value}")).collect();
        let fields = fields.join("\r\n");
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 0\r\n\r\n");
        world.upstream.answer(&path, head);
        let answer = world.client().get(&path).send().await;
        assert_eq!(all(&answer, name), *expected, "{name}: {theirs:?}");
    }
}

#[tokio::test]
async fn each_can_be_changed_or_switched_off() {
    let world = World::with(|setup| {
        setup
            .set("headers", "frame_options", "\"SAMEORIGIN\"")
            .set("headers", "referrer_policy", "\"no-referrer\"")
            .set("headers", "permissions_policy", "\"camera=(self)\"");
    })
    .await;
    let stricter = "HTTP/1.1 200 OK\r\nX-Frame-Options: DENY\r\nPermissions-Policy: camera=()\r\n\
                    Referrer-Policy: same-origin\r\nContent-Length: 0\r\n\r\n";
    world.upstream.answer("/public/strict", stricter);
    let client = world.client();
    let plain = client.get("/public/echo").send().await;
    assert_eq!(all(&plain, FRAME), ["SAMEORIGIN"]);
    assert_eq!(all(&plain, PERMISSIONS), ["camera=(self)"]);
    let strict = client.get("/public/strict").send().await;
    assert_eq!((all(&strict, FRAME), all(&strict, PERMISSIONS)), (vec!["DENY"], vec!["camera=()"]));
    assert_eq!(all(&strict, REFERRER), ["no-referrer"]);
    let page = client.get("/auth/").navigation().send().await;
    assert_eq!(all(&page, REFERRER), ["same-origin"], "never no-referrer: the login needs Origin");

    let world = World::with(|setup| {
        for (key, _) in [
            ("hsts", HSTS),
            ("content_type_options", NOSNIFF),
            ("frame_options", FRAME),
            ("referrer_policy", REFERRER),
            ("permissions_policy", PERMISSIONS),
        ] {
            setup.set("headers", key, "\"off\"");
        }
    })
    .await;
    let own = "HTTP/1.1 200 OK\r\nX-Frame-Options: ALLOWALL\r\nReferrer-Policy: unsafe-url\r\n\
               Strict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n";
    world.upstream.answer("/public/own", own);
    let plain = world.client().get("/public/echo").send().await;
    for (name, _) in USUAL {
        assert!(all(&plain, name).is_empty(), "{name}");
    }
    let own = world.client().get("/public/own").send().await;
    assert_eq!((all(&own, FRAME), all(&own, REFERRER)), (vec!["ALLOWALL"], vec!["unsafe-url"]));
    assert_eq!(all(&own, HSTS), ["max-age=1"]);
}
