//! What the token is good for that comes with the answer that a password must be changed.

use std::time::Duration;

use futures_util::future::join_all;

use super::{NEW, RESET, WRONG, by_token, change_token, expect_outcomes, newcomer};
use crate::support::slapd::PASSWORD;
use crate::support::world::{TOKEN_COOKIE, TRACER, World, shared_slapd, token_text};

#[tokio::test]
async fn a_change_token_works_once_however_many_use_it_at_once() {
    let world = World::start().await;
    newcomer(&shared_slapd(), "olga", RESET);
    let client = world.client();
    let token = change_token(&client, "olga").await;
    let news: Vec<String> = (0..4).map(|place| format!("quite another secret {place}")).collect();
    let answers = join_all(news.iter().map(|new| {
        let (client, token) = (world.client(), token.clone());
        async move { by_token(&client, &token, PASSWORD, new).await.status }
    }))
    .await;
    let accepted: Vec<_> = (0..4).filter(|place| answers[*place] == 200).collect();
    assert_eq!(accepted.len(), 1, "{answers:?}");
    by_token(&client, &token, &news[accepted[0]], NEW).await.expect(401, "InvalidToken");
}

#[tokio::test]
async fn a_change_token_is_of_use_for_ten_minutes() {
    let (world, time) = World::with_time(|_| {}).await;
    newcomer(&shared_slapd(), "tilda", RESET);
    let client = world.client();
    let token = change_token(&client, "tilda").await;
    time.advance(Duration::from_secs(601));
    by_token(&client, &token, PASSWORD, NEW).await.expect(401, "TokenExpired");
    let token = change_token(&client, "tilda").await;
    by_token(&client, &token, PASSWORD, NEW).await.expect_status(200);
}

#[tokio::test]
async fn a_change_token_passes_for_no_session_and_a_session_for_no_change_token() {
    let world = World::start().await;
    newcomer(&shared_slapd(), "vera", RESET);
    let client = world.client();
    let token = change_token(&client, "vera").await;
    client.get("/app/echo").bearer(&token).send().await.expect(401, "InvalidToken");
    client.get("/auth/session").bearer(&token).send().await.expect(401, "InvalidToken");
    client.get("/public/echo").bearer(&token).send().await.expect_status(200);
    assert!(world.upstream.last().all("authorization").is_empty(), "it is not forwarded");
    let at = format!("/public/echo?access_token={token}");
    client.get(&at).send().await.expect(400, "BadRequest");
    let carol = world.sign_in(TRACER).await;
    let session = token_text(&carol);
    let answer = by_token(&world.client(), &session, PASSWORD, NEW).await;
    answer.expect(401, "InvalidToken");
    let thief = world.client();
    thief.jar.set(TOKEN_COOKIE, &token);
    thief.get("/app/echo").send().await.expect(401, "InvalidToken");
    for forged in ["", "x", "a.b.c", &token[..token.len() - 1]] {
        by_token(&client, forged, PASSWORD, NEW).await.expect(401, "InvalidToken");
    }
    by_token(&client, &token, PASSWORD, NEW).await.expect_status(200);
}

#[tokio::test]
async fn a_change_token_is_for_the_account_that_it_was_issued_for() {
    let world = World::start().await;
    newcomer(&shared_slapd(), "ines", RESET);
    let client = world.client();
    let token = change_token(&client, "ines").await;
    let renamed = |from: &str, to: &str| {
        let people = "ou=people,dc=example,dc=org";
        shared_slapd().ldapmodify(&format!(
            "dn: {from},{people}\nchangetype: modrdn\nnewrdn: {to}\ndeleteoldrdn: 0\n"
        ));
    };
    renamed("uid=ines", "cn=Somebody Else");
    by_token(&client, &token, PASSWORD, NEW).await.expect(401, "InvalidToken");
    by_token(&client, &token, WRONG, NEW).await.expect(401, "InvalidToken");
    expect_outcomes(&world, &["token_of_another", "token_of_another"]).await;
    // It was given back, and no password was tried.
    renamed("cn=Somebody Else", "uid=ines");
    by_token(&client, &token, PASSWORD, NEW).await.expect_status(200);
}
