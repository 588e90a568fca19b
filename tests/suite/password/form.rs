//! The page that asks for a new password: its form holds the name and no secret.

use percent_encoding::NON_ALPHANUMERIC;

use super::{NEW, NEWER, RESET, WRONG, by_token, change_token, newcomer};
use crate::support::client::{Answer, Client};
use crate::support::slapd::PASSWORD;
use crate::support::world::{World, shared_slapd};

/// A name of all that a page or a form could take for something of its own.
pub(crate) const ODD_NAME: &str = r#"Zoë  "d'Arc" <b>&amp;+%41=;\ ½"#;

/// As the form posts it.
pub(super) async fn by_form(
    client: &Client,
    name: &str,
    [old, new, again]: [&str; 3],
    rd: &str,
) -> Answer {
    let fields = [
        ("rd", rd),
        ("username", name),
        ("old_password", old),
        ("new_password", new),
        ("new_password_again", again),
    ];
    client.post("/auth/password").own_page().form(&form(&fields)).send().await
}

/// Logs in on the login page.
async fn log_in_by_form(client: &Client, name: &str, rd: &str) -> Answer {
    let fields = [("rd", rd), ("username", name), ("password", PASSWORD)];
    client.post("/auth/login").own_page().form(&form(&fields)).send().await
}

fn form(fields: &[(&str, &str)]) -> String {
    let encoded = |text| percent_encoding::utf8_percent_encode(text, NON_ALPHANUMERIC);
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    fields.collect::<Vec<_>>().join("&")
}

/// The form for a new password with this name in it, and no other secret than the person's.
pub(super) fn expect_form(page: &Answer, status: u16, name: &str) {
    page.expect_status(status);
    let text = page.text();
    assert!(text.contains("action=\"/auth/password\""), "{text}");
    assert_eq!(value(text, "username"), name);
    let (_, form) = text.split_once("<form").expect("a form");
    let fields = form.split(" name=\"").skip(1);
    let names: Vec<_> = fields.filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(names, ["rd", "username", "old_password", "new_password", "new_password_again"]);
    assert!(!text.contains("eyJ"), "every JSON Web Token begins so: {text}");
}

pub(super) fn expect_login_page(page: &Answer, status: u16, name: &str) {
    page.expect_status(status);
    assert!(page.text().contains("action=\"/auth/login\""), "{}", page.text());
    assert_eq!(value(page.text(), "username"), name);
}

/// The value of a field, as a browser reads it.
fn value(page: &str, name: &str) -> String {
    let (_, field) = page.split_once(&format!("name=\"{name}\"")).expect("a field");
    let (_, rest) = field.split_once("value=\"").expect("a value");
    let mut text = rest.split('"').next().expect("its end").to_owned();
    for (escape, symbol) in [("34", "\""), ("39", "'"), ("60", "<"), ("62", ">"), ("38", "&")] {
        text = text.replace(&format!("&#{escape};"), symbol);
    }
    text
}

#[tokio::test]
async fn the_login_page_becomes_the_form_for_a_new_password() {
    let world = World::start().await;
    newcomer(&shared_slapd(), ODD_NAME, RESET);
    let client = world.client();
    // As it was typed, not as it is spelled in the directory.
    let name = format!("  {}", ODD_NAME.to_uppercase());
    let mut page = log_in_by_form(&client, &name, "/app/x").await;
    expect_form(&page, 401, &name);
    assert!(page.header("content-security-policy").is_some());
    assert_eq!(page.header("cache-control"), Some("no-store"));
    for (typed, status, sentence) in [
        ([PASSWORD, NEW, NEWER], 422, "typed differently the second time"),
        ([PASSWORD, "short", "short"], 422, "too short"),
        ([WRONG, NEW, NEW], 401, "not right"),
        (["", NEW, NEW], 401, "not right"),
    ] {
        // What the page says is what a browser posts.
        let (shown, rd) = (value(page.text(), "username"), value(page.text(), "rd"));
        page = by_form(&client, &shown, typed, &rd).await;
        expect_form(&page, status, &name);
        assert!(page.text().contains(sentence), "{sentence}: {}", page.text());
        assert_eq!(value(page.text(), "rd"), "/app/x");
        assert!(!page.text().contains(NEW), "what was typed is not shown: {}", page.text());
    }
    let answer = by_form(&client, &name, [PASSWORD, NEW, NEW], "https://evil.example/").await;
    answer.expect_status(303);
    assert_eq!(answer.header("location"), Some("/"), "never to another origin");
    client.get("/app/echo").send().await.expect_status(200);
    // The form is of no more use than the password that it was shown for.
    let page = by_form(&client.stranger(), &name, [PASSWORD, NEWER, NEWER], "/").await;
    expect_form(&page, 401, &name);
}

#[tokio::test]
async fn no_page_holds_a_change_token_and_for_a_form_none_is_made() {
    let world = World::with(|setup| {
        setup.set("telemetry", "log_level", "\"debug\"");
    })
    .await;
    newcomer(&shared_slapd(), "paula", RESET);
    let (client, name) = (world.client(), "paula");
    expect_form(&log_in_by_form(&client, name, "/").await, 401, name);
    expect_form(&by_form(&client, name, [WRONG, NEW, NEW], "/").await, 401, name);
    let made = || world.gateway.log().matches("a change token was made").count();
    world.gateway.logged("password change refused").await;
    assert_eq!(made(), 0, "{}", world.gateway.log());
    let token = change_token(&client, name).await;
    world.gateway.logged("a change token was made").await;
    assert_eq!(made(), 1);
    // Programs alone have a use for one: to a form it is as if the name were missing.
    let fields = [("change_token", token.as_str()), ("old_password", PASSWORD)];
    let passwords = [("new_password", NEW), ("new_password_again", NEW)];
    let form = form(&[fields, passwords].concat());
    let page = client.post("/auth/password").own_page().form(&form).send().await;
    expect_login_page(&page, 401, "");
    by_token(&client, &token, PASSWORD, NEW).await.expect_status(200);
}
