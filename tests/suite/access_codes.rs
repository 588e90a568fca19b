//! Access codes over the wire: given out, read out, redeemed once, and what a session of
//! one may do. What guessing may cost is tested beside the code, over many days.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::{Answer, Call, Client, Protocol};
use crate::support::node::node;
use crate::support::setup::Setup;
use crate::support::slapd::PASSWORD;
use crate::support::world::{
    ADMIN, CONTEXT_COOKIE, SUPER_ADMIN, TOKEN_COOKIE, TRACER, World, token_of,
};

/// The step of the schedule on which codes are said not to be good.
const STEP: Duration = Duration::from_millis(250);

/// Two roles give out codes, which open one route.
pub(crate) fn codes(setup: &mut Setup) {
    setup
        .set("access_codes", "enabled", "true")
        .set("access_codes", "issuer_roles", "[\"contact_tracer\", \"admin\"]")
        .set("server", "trusted_proxies", "[\"127.0.0.1/32\"]")
        .more_routes(
            "\n[[route]]\npath = \"/codes/**\"\nroles = [\"access_code\"]\nupstream = \"backend\"\n",
        );
}

/// From an address of its own, as a proxy tells it.
pub(crate) async fn redeem(client: &Client, code: &str, from: u32) -> Answer {
    redemption(client, code, from).send().await
}

fn redemption<'c>(client: &'c Client, code: &str, from: u32) -> Call<'c> {
    let address = std::net::Ipv4Addr::from(0xc633_6400 + from).to_string();
    let call = client.post("/auth/access-codes/redeem").header("x-forwarded-for", address);
    call.json(&json!({ "accessCode": code }))
}

/// Redeems a code so many times at once, each from an address of its own, spread over
/// the gateways of these clients. Every client is one connection that stands before the
/// first is sent: no handshake keeps any of them back.
pub(crate) async fn redeem_at_once(
    clients: &[Client],
    code: &str,
    count: u32,
) -> Vec<(Answer, Duration)> {
    let mut connections = Vec::new();
    for client in clients {
        let client = client.over(Protocol::Http2);
        let connection = client.connect().await.expect("a connection");
        connections.push((client, connection));
    }
    let tries = (0..count).zip(connections.iter().cycle()).map(|(number, (client, connection))| {
        // The winner's cookies are nobody else's.
        let request = redemption(client, code, number).without_cookies().build();
        let mut connection = connection.share().expect("HTTP/2");
        tokio::spawn(async move {
            let began = Instant::now();
            let answer = connection.send(request).await.expect("an answer");
            (answer, began.elapsed())
        })
    });
    let tries = futures_util::future::join_all(tries).await;
    tries.into_iter().map(|tried| tried.expect("no panic")).collect()
}

/// Of so many, one opened a session, and all others were refused, on the schedule.
pub(crate) fn one_won(tries: &[(Answer, Duration)]) {
    let (mut won, mut refused) = (0, 0);
    for (answer, took) in tries {
        match (answer.status, answer.code().as_str()) {
            (200, _) => won += 1,
            (403, "InvalidAccessCode") => {
                assert!(*took >= STEP, "{took:?}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((won, refused), (1, tries.len() - 1));
}

pub(crate) async fn issue(issuer: &Client) -> String {
    let answer = issuer.post("/auth/access-codes").own_page().send().await;
    answer.expect_status(201);
    assert_eq!(answer.json()["expires_in"], 3600);
    answer.json()["accessCode"].as_str().expect("a code").to_owned()
}

/// A code of as many digits that is not this one.
pub(crate) fn other(code: &str) -> String {
    let last = if code.ends_with('7') { "8" } else { "7" };
    format!("{}{last}", &code[..code.len() - 1])
}

#[tokio::test]
async fn a_code_opens_the_routes_of_its_role_once_and_no_other() {
    let world = World::with(codes).await;
    let carol = world.sign_in(TRACER).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let wanted = carol.post("/auth/access-codes").own_page();
        let answer = wanted.json(&json!({ "reference": "case 17" })).send().await;
        answer.expect_status(201);
        let code = answer.json()["accessCode"].as_str().expect("a code").to_owned();
        assert!(code.len() == 6 && code.bytes().all(|digit| digit.is_ascii_digit()), "{code}");

        let phone = world.client().over(protocol);
        let answer = redeem(&phone, &format!("{} {}", &code[..3], &code[3..]), 1).await;
        answer.expect_status(200);
        let told = answer.json();
        let id = told["id"].as_str().expect("an id").to_owned();
        assert!(id.starts_with("access-code:"), "{id}");
        let expected = json!({
            "id": id, "role": "access_code", "expires_in": 900, "reference": "case 17",
        });
        assert_eq!(told, expected);
        let token = token_of(&phone);
        assert_eq!((token.claim("sub"), token.claim("role")), (id.as_str(), "access_code"));
        assert_eq!(token.seconds("exp") - token.seconds("iat"), 900);

        phone.get("/codes/echo").send().await.expect_status(200);
        let seen = world.upstream.last();
        assert_eq!(seen.readable_as("X-Auth-User"), [("X-Auth-User", id.as_str())]);
        assert_eq!(seen.readable_as("X-Auth-Role"), [("X-Auth-Role", "access_code")]);
        assert_eq!(seen.readable_as("X-Auth-Reference"), [("X-Auth-Reference", "case 17")]);
        phone.get("/auth/session").send().await.expect_status(200);
        for path in ["/app/echo", "/admin/echo", "/cases/1"] {
            phone.get(path).send().await.expect(403, "Forbidden");
        }
        phone.post("/auth/access-codes").own_page().send().await.expect(403, "Forbidden");
        phone.post("/auth/refresh").own_page().send().await.expect(403, "Forbidden");
        redeem(&world.client(), &code, 2).await.expect(403, "InvalidAccessCode");
        // Whoever logs out needs another code.
        phone.copy().post("/auth/logout").own_page().send().await.expect_status(204);
        phone.get("/codes/echo").send().await.expect(401, "SessionRevoked");
    }
    carol.get("/codes/echo").send().await.expect(403, "Forbidden");
}

#[tokio::test]
async fn the_session_of_a_code_is_not_renewed_and_ends_with_its_token() {
    let (world, time) = World::with_time(codes).await;
    let carol = world.sign_in(TRACER).await;
    let phone = world.client();
    redeem(&phone, &issue(&carol).await, 1).await.expect_status(200);
    // A person's token would be renewed in passing by now.
    time.advance(Duration::from_mins(14));
    let answer = phone.get("/codes/echo").send().await;
    answer.expect_status(200);
    assert_eq!(answer.cookie(TOKEN_COOKIE), None);
    time.advance(Duration::from_mins(2));
    phone.get("/codes/echo").send().await.expect(401, "TokenExpired");
    phone.post("/auth/refresh").own_page().send().await.expect(401, "TokenExpired");
    let code = issue(&carol).await;
    time.advance(Duration::from_hours(1));
    redeem(&world.client(), &code, 1).await.expect(403, "InvalidAccessCode");
}

#[tokio::test]
async fn codes_are_refused_for_every_reason_that_the_contract_names() {
    let world = World::with(|setup| {
        codes(setup);
        setup.set("access_codes", "alive_max", "3");
        // Whatever is typed wrongly in this test is not too much.
        setup.set("access_codes", "success_probability", "\"1 in 10 per day\"");
    })
    .await;
    let [carol, alice, sam] = [TRACER, ADMIN, SUPER_ADMIN].map(|name| world.sign_in(name));
    let (carol, alice, sam) = (carol.await, alice.await, sam.await);
    let nobody = world.client();
    let path = "/auth/access-codes";
    nobody.post(path).own_page().send().await.expect(401, "Unauthenticated");
    sam.post(path).own_page().send().await.expect(403, "Forbidden");
    carol.post(path).send().await.expect(403, "CsrfRejected");
    let elsewhere = ("origin", "https://evil.example");
    carol.post(path).header(elsewhere.0, elsewhere.1).send().await.expect(403, "CsrfRejected");
    for body in
        ["{", "[]", "{\"reference\": 7}", "{\"reference\": \"\"}", "{\"reference\":\"a\\nb\"}"]
    {
        let call = carol.post(path).own_page().header("content-type", "application/json");
        call.bytes(body).send().await.expect(400, "BadRequest");
    }
    let long = json!({ "reference": "x".repeat(5000) });
    carol.post(path).own_page().json(&long).send().await.expect(413, "TooLarge");

    let code = issue(&carol).await;
    for other_path in ["/auth/access-codes/redeem", "/auth/access-codes/revoke"] {
        let answer = nobody.get(other_path).send().await;
        answer.expect(405, "MethodNotAllowed");
        assert_eq!(answer.header("allow"), Some("POST"));
        for body in ["", "{}", "{\"accessCode\": 123456}"] {
            let call = carol.post(other_path).own_page();
            let call = call.header("content-type", "application/json");
            call.bytes(body).send().await.expect(400, "BadRequest");
        }
    }
    let call = nobody.post("/auth/access-codes/redeem").header(elsewhere.0, elsewhere.1);
    call.json(&json!({ "accessCode": code })).send().await.expect(403, "CsrfRejected");
    for wrong in [other(&code).as_str(), "no digits", "", "1234", "12345678901234567890"] {
        let began = Instant::now();
        let answer = redeem(&nobody, wrong, 3).await;
        assert!(began.elapsed() >= STEP, "{wrong}: on the schedule");
        answer.expect(403, "InvalidAccessCode");
        assert!(answer.set_cookies().is_empty());
        assert_eq!(answer.json()["error_description"], answer.json()["message"]);
    }

    let revoke = async |client: &Client, code: &str| {
        let call = client.post("/auth/access-codes/revoke").own_page();
        let began = Instant::now();
        let answer = call.json(&json!({ "accessCode": code })).send().await;
        assert!(answer.status != 403 || began.elapsed() >= STEP, "{code}: on the schedule");
        answer
    };
    revoke(&carol, "no digits").await.expect(403, "InvalidAccessCode");
    revoke(&nobody, &code).await.expect(401, "Unauthenticated");
    revoke(&alice, &code).await.expect(403, "InvalidAccessCode");
    revoke(&carol, &code).await.expect_status(204);
    revoke(&carol, &code).await.expect(403, "InvalidAccessCode");
    redeem(&nobody, &code, 4).await.expect(403, "InvalidAccessCode");

    for _ in 0..3 {
        issue(&alice).await;
    }
    let answer = carol.post(path).own_page().send().await;
    answer.expect(429, "TooManyAttempts");
    assert_eq!(answer.header("retry-after"), Some("60"));
}

#[tokio::test]
async fn a_code_stands_in_no_log_record_or_metric_and_what_happened_to_it_does() {
    let world = World::with(codes).await;
    let carol = world.sign_in(TRACER).await;
    let (spent, revoked) = (issue(&carol).await, issue(&carol).await);
    let wrong = other(&spent);
    redeem(&world.client(), &wrong, 5).await.expect(403, "InvalidAccessCode");
    let answer = redeem(&world.client(), &spent, 6).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let call = carol.post("/auth/access-codes/revoke").own_page();
    call.json(&json!({ "accessCode": revoked })).send().await.expect_status(204);

    let audit = fs::read_to_string(world.gateway.setup.audit_file()).expect("the audit log");
    let records = audit.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let records: Vec<Value> = records.filter(|it: &Value| it["event"] == "access_code").collect();
    let outcomes: Vec<&str> = records.iter().filter_map(|it| it["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["issued", "issued", "wrong", "redeemed", "revoked"]);
    assert_eq!((&records[0]["subject"], &records[0]["detail"]), (&json!(TRACER), &json!(id)));
    assert_eq!(
        (&records[2]["client"], &records[2]["status"]),
        (&json!("198.51.100.5"), &json!(403))
    );
    assert_eq!(records[3]["client"], "198.51.100.6");
    assert_eq!((&records[3]["subject"], &records[3]["role"]), (&json!(id), &json!("access_code")));
    for (event, count) in [("issued", 2.0), ("redeemed", 1.0), ("wrong", 1.0), ("revoked", 1.0)] {
        world.gateway.counted("bindgate_access_codes_total", &[("event", event)], count).await;
    }
    let metrics = world.gateway.telemetry("/metrics").await;
    for code in [spent, revoked, wrong] {
        for text in [&audit, &world.gateway.log(), metrics.text()] {
            // Not within a longer number either way.
            let digits =
                |text: &str| text.split(|c: char| !c.is_ascii_digit()).any(|it| it == code);
            assert!(!digits(text), "{code}");
        }
    }
}

#[tokio::test]
async fn people_ask_for_a_code_on_a_page_of_their_own() {
    let world = World::with(codes).await;
    let stranger = world.client();
    let answer = stranger.get("/auth/access-codes").navigation().send().await;
    answer.expect_status(303);
    let login = "/auth/?rd=%2Fauth%2Faccess-codes";
    assert_eq!(answer.header("location"), Some(login));
    let form =
        format!("username={TRACER}&password={}&rd=%2Fauth%2Faccess-codes", encoded(PASSWORD));
    let answer = stranger.post("/auth/login").own_page().form(&form).send().await;
    assert_eq!(answer.header("location"), Some("/auth/access-codes"));

    let page = stranger.get("/auth/access-codes").navigation().send().await;
    page.expect_status(200);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(
        page.header("content-security-policy").expect("a policy").contains("default-src 'none'")
    );
    assert!(page.text().contains(r#"<form method="post" action="/auth/access-codes">"#));
    assert!(!page.text().contains("class=\"code\""));
    stranger.post("/auth/access-codes").form("").send().await.expect(403, "CsrfRejected");
    let page = stranger.post("/auth/access-codes").own_page().form("").send().await;
    page.expect_status(200);
    assert!(page.text().contains("Good for 60 minutes, until "), "{}", page.text());
    let (_, rest) = page.text().split_once("class=\"code\"").expect("a code");
    let shown = rest.split("</p>").next().expect("its end");
    let code: String = shown.chars().filter(char::is_ascii_digit).collect();
    redeem(&world.client(), &code, 1).await.expect_status(200);

    let sam = world.sign_in(SUPER_ADMIN).await;
    sam.get("/auth/access-codes").navigation().send().await.expect(403, "Forbidden");
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[tokio::test]
async fn no_client_can_send_a_reference_in_any_spelling() {
    let world = World::with(codes).await;
    let carol = world.sign_in(TRACER).await;
    let phone = world.client();
    redeem(&phone, &issue(&carol).await, 1).await.expect_status(200);
    for (client, path) in [(&phone, "/codes/echo"), (&carol, "/app/echo"), (&phone, "/public/echo")]
    {
        for name in ["X-Auth-Reference", "x_auth_reference", "X.Auth-REFERENCE", "xauthreference"] {
            let call = client.get(path).header(name, "case 1").header("connection", name);
            call.send().await.expect_status(200);
            let seen = world.upstream.last();
            assert!(seen.readable_as("X-Auth-Reference").is_empty(), "{path} {name}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn redeeming_ends_the_session_that_the_browser_had() {
    let world = World::with(codes).await;
    let carol = world.sign_in(TRACER).await;
    let code = issue(&carol).await;
    let before = carol.copy();
    let call = carol.post("/auth/access-codes/redeem").json(&json!({ "accessCode": code }));
    call.send().await.expect(403, "CsrfRejected");
    let call = carol.post("/auth/access-codes/redeem").own_page();
    call.json(&json!({ "accessCode": code })).send().await.expect_status(200);
    carol.get("/codes/echo").send().await.expect_status(200);
    before.get("/app/echo").send().await.expect(401, "SessionRevoked");
}

#[tokio::test]
async fn an_operator_ends_the_session_of_a_code_like_any_other() {
    let world = World::with(|setup| {
        codes(setup);
        setup.control_socket();
    })
    .await;
    let carol = world.sign_in(TRACER).await;
    let phone = world.client();
    let answer = redeem(&phone, &issue(&carol).await, 1).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let listed = world.gateway.command(&format!("sessions list --user {id}")).await;
    assert!(listed.text.contains("access_code") && listed.text.ends_with("\n1 session\n"));
    world.gateway.command(&format!("sessions revoke --user {id}")).await;
    phone.get("/codes/echo").send().await.expect(401, "SessionRevoked");
}

/// 199 of them are wrong by the time they are looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_redemptions_at_once_one_succeeds() {
    for kind in ["embedded", "memory"] {
        let world = World::with(|setup| {
            codes(setup);
            setup.set("access_codes", "success_probability", "\"1 in 2 per day\"");
            if kind == "memory" {
                setup.set("store", "kind", "\"memory\"").unset("store", "path");
                setup.unset("token", "keys_dir");
            }
        })
        .await;
        let code = issue(&world.sign_in(TRACER).await).await;
        let clients = [world.client(), world.client()];
        one_won(&redeem_at_once(&clients, &code, 200).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_spends_the_guesses_of_six_digits_does_not_stop_a_longer_code() {
    let world = World::with(codes).await;
    let carol = world.sign_in(TRACER).await;
    let early = issue(&carol).await;
    for (answer, _) in redeem_at_once(&[world.client()], &other(&early), 100).await {
        answer.expect(403, "InvalidAccessCode");
    }
    let answer = redeem(&world.client(), &early, 101).await;
    answer.expect(429, "TooManyAttempts");
    let wait: u64 = answer.header("retry-after").expect("a wait").parse().expect("seconds");
    assert!((23 * 3600..=24 * 3600).contains(&wait), "{wait}");
    let longer = issue(&carol).await;
    assert_eq!(longer.len(), 8);
    let patient = world.client();
    redeem(&patient, &longer, 102).await.expect_status(200);
    patient.get("/codes/echo").send().await.expect_status(200);
}

const DOCUMENT: &str = include_str!("../../docs/access-codes.md");

/// The one block of code in this language.
fn block(language: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let rest = DOCUMENT.split_once(&fence).expect("a block").1;
    rest.split("```").next().expect("its end")
}

/// The documentation's clients, as they stand there, against the real gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_python_and_node_redeem_codes_as_the_documentation_says() {
    let world = World::with(|setup| {
        codes(setup);
        setup.set("server", "public_origin", "\"https://localhost\"");
    })
    .await;
    let setup = &world.gateway.setup;
    setup.write("authority.pem", setup.authority.pem());
    let authority = setup.path("authority.pem");
    let port = world.gateway.https.port();
    let gateway = format!("https://localhost:{port}");
    let mut browser = world.client();
    browser.host = format!("localhost:{port}");
    let browser = browser;
    crate::support::world::log_in(&browser, TRACER, PASSWORD).await.expect_status(200);

    let run = async |mut command: Command| {
        let command_text = format!("{command:?}");
        command
            .env("GATEWAY", &gateway)
            .env("CURL_CA_BUNDLE", &authority)
            .env("SSL_CERT_FILE", &authority)
            .env("NODE_EXTRA_CA_CERTS", &authority)
            .env("NO_PROXY", "localhost")
            .env("no_proxy", "localhost")
            .current_dir(setup.files.path());
        let ran = tokio::task::spawn_blocking(move || command.output());
        let output = ran.await.expect("no panic").expect("it is installed (.ci/setup)");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command_text}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let login = json!({ "username": TRACER, "password": PASSWORD }).to_string();
    setup.write("login.json", &login);
    let script = format!(
        "set -e\ncurl -fsS -o login -c jar -H 'Content-Type: application/json' -d @login.json \
         \"$GATEWAY/auth/login\"\n{}",
        block("sh")
    );
    let mut curl = Command::new("sh");
    curl.args(["-c", &script]);
    let said = run(curl).await;
    assert!(said.contains("\"role\":\"access_code\""), "{said}");
    assert_eq!(world.upstream.seen_at("/codes/").len(), 1);

    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", block("python")]).env("CODE", issue(&browser).await);
    assert_eq!(run(python).await, "access_code\n200\n");

    setup.write("redeem.mjs", block("js"));
    let mut script = node(setup.path("redeem.mjs").to_str().expect("a path"));
    script.env("CODE", issue(&browser).await);
    assert_eq!(run(script).await, "access_code\n200\n");
    assert_eq!(world.upstream.seen_at("/codes/").len(), 3);
}

#[tokio::test]
async fn without_access_codes_their_endpoints_are_not_there_nor_forwarded() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for path in ["/auth/access-codes", "/auth/access-codes/redeem", "/auth/access-codes/revoke"] {
        alice.post(path).own_page().send().await.expect(404, "NoRoute");
    }
    assert!(world.upstream.seen().is_empty());
    assert!(alice.jar.get(CONTEXT_COOKIE).is_some());
}
