//! Which names are emergency accounts: whoever knows no password learns it from nothing.

use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::json;
use tokio::time::Instant;

use super::{SECRET, Scene, is_ended, setup};
use crate::support::client::{Answer, Client};
use crate::support::gateway::Gateway;
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::world::{ADMIN, TRACER, log_in};

/// What a client can tell of an answer, but for the time and for what is ever another.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| {
        !["date", "x-request-id", "retry-after", "content-length"].contains(&name.as_str())
    });
    let headers = headers.map(|(name, value)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    (answer.status, headers.collect(), answer.text().to_owned())
}

fn retry_after(answer: &Answer) -> Option<u64> {
    answer.header("retry-after").map(|seconds| seconds.parse().expect("seconds"))
}

/// Tries these names with the same wrong password from one address until one of them is
/// refused, and shows that each answer is the same for all. Says how many tries that took.
async fn are_alike(scene: &Scene, names: &[&str], from: &str, as_form: bool) -> usize {
    let step = Duration::from_secs(1);
    for tries in 0..200 {
        let answers = names.iter().map(|name| async move {
            let (client, began) = (scene.client(), Instant::now());
            let call = client.post("/auth/login").own_page().header("x-forwarded-for", from);
            let answer = if as_form {
                call.navigation().form(&format!("username={name}&password=wrong&reason=x"))
            } else {
                call.json(&json!({ "username": name, "password": "wrong", "reason": "x" }))
            };
            let answer = answer.send().await;
            assert!(client.jar.header().is_none(), "{name}: no cookie");
            assert!(answer.status == 429 || began.elapsed() >= step, "{name}: at a step");
            answer
        });
        let answers = join_all(answers).await;
        // The page has the name as it was typed.
        let of = |place: usize| {
            let (status, headers, text) = told(&answers[place]);
            (status, headers, text.replace(names[place], "NAME"))
        };
        for place in 1..names.len() {
            assert_eq!(of(place), of(0), "{} and {}, try {tries}", names[place], names[0]);
            let waits = [0, place].map(|place| retry_after(&answers[place]));
            let waits = waits.map(|wait| wait.expect("Retry-After"));
            assert!(waits[0].abs_diff(waits[1]) <= 2, "{waits:?}, try {tries}");
        }
        match answers[0].status {
            429 => return tries,
            status => assert_eq!(status, 503, "{}", answers[0].text()),
        }
    }
    panic!("nobody is ever refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_outage_nobody_learns_which_names_are_emergency_accounts() {
    let slapd = Slapd::start();
    let (mut setup, upstream) = setup(&slapd).await;
    setup.set("throttle", "refusal_after", "\"1s\"");
    let gateway = Gateway::start(setup).await;
    gateway.readiness(200).await;
    let mut scene = Scene { gateway, upstream, slapd };
    // Those of a name that is of nobody now, and will be in the outage, and of others.
    let names = ["ops", "nobody", ADMIN];
    let before = names.map(|name| {
        let client = scene.client();
        async move {
            let mut tries = 0;
            while log_in(&client, name, "wrong").await.status == 401 {
                tries += 1;
            }
            tries
        }
    });
    let before = join_all(before).await;
    assert!(
        before.iter().all(|tries| (1..10).contains(tries) && *tries == before[0]),
        "{before:?}"
    );

    scene.directory_goes().await;
    // What was counted before keeps the emergency account from nothing, which shows nothing.
    assert_eq!(are_alike(&scene, &names, "127.0.0.1", false).await, 5);
    assert_eq!(are_alike(&scene, &names, "192.0.2.1", true).await, 5);
    // A colleague's address is as good as any, however many fail there.
    let from_there = async |client: &Client, name: &str, password: &str| {
        let body = json!({ "username": name, "password": password, "reason": "no directory" });
        let call = client.post("/auth/login").own_page().header("x-forwarded-for", "192.0.2.9");
        call.json(&body).send().await
    };
    let colleagues = (0..40).map(|number| format!("colleague{number}"));
    let colleagues = colleagues.map(|name| {
        let client = scene.client();
        async move { from_there(&client, &name, PASSWORD).await.status }
    });
    let ops = scene.client();
    let (colleagues, answer) = join(join_all(colleagues), from_there(&ops, "ops", SECRET)).await;
    answer.expect_status(200);
    assert!(colleagues.iter().all(|status| *status == 503), "{colleagues:?}");
    let wrong = scene.logins("wrong_password").await;
    assert!((wrong - 10.0).abs() < 0.1, "{wrong}");
    // Each name was refused once before, and once from either address; whom a full window
    // led to another answer was not.
    let refused = scene.gateway.metrics().await.sum("bindgate_throttled_total", &[]);
    assert!((refused - 9.0).abs() < 0.1, "{refused}");

    // Nobody is locked out when it is back, for what was tried meanwhile.
    scene.slapd.resume();
    is_ended(&ops).await;
    from_there(&scene.client(), TRACER, PASSWORD).await.expect_status(200);
}
