//! The examples of `docs/backends.md`, run as they stand there: each knows who is calling
//! from our assertion, and believes nobody else's.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::node::node;
use crate::support::setup::HOST;
use crate::support::token::{Token, encode, sign};
use crate::support::world::{ADMIN, World};

const DOCUMENT: &str = include_str!("../../docs/backends.md");
const AUDIENCE: &str = "https://api.example.org";

/// The one block of code in this language.
fn block(language: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let mut blocks = DOCUMENT.split(&fence).skip(1);
    let block = blocks.next().and_then(|rest| rest.split("```").next()).expect("a block");
    assert!(blocks.next().is_none(), "one block of {language}");
    block
}

/// A running example; killed with the value.
struct Example {
    address: SocketAddr,
    process: Child,
}

impl Example {
    fn start(mut command: Command, keys: SocketAddr) -> Self {
        let mut process = command
            .env("JWKS_URL", format!("http://{keys}/.well-known/jwks.json"))
            .env("ISSUER", format!("https://{HOST}"))
            .env("AUDIENCE", AUDIENCE)
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example's language is installed (.ci/setup)");
        let stdout = process.stdout.take().expect("piped");
        let line = BufReader::new(stdout).lines().next().expect("a line").expect("text");
        let port = line.strip_prefix("listening on ").and_then(|port| port.parse::<u16>().ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
        Self { address, process }
    }

    /// Past the gateway: the status, and the body after the head.
    async fn directly(&self, headers: &[String]) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let mut lines = vec!["GET / HTTP/1.1", "host: x", "connection: close"];
        lines.extend(headers.iter().map(String::as_str));
        let request = format!("{}\r\n\r\n", lines.join("\r\n"));
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        let status = answer.split(' ').nth(1).expect("a status").to_owned();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status, body.unwrap_or_default())
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn the_example_believes_us_and_nobody_else(command: Command) {
    let assertion = block("toml").split_once("[upstream.assertion]\n").expect("a section").1;
    let (keys, claims) =
        assertion.split_once("[upstream.assertion.claims]\n").expect("a table of claims");
    let inline = |lines: &str| lines.trim().replace('\n', ", ");
    let assertion = format!("{{ {}, claims = {{ {} }} }}", inline(keys), inline(claims));
    let world = World::with(|setup| {
        setup.set("server", "jwks_listen", "\"127.0.0.1:0\"").upstream("assertion", &assertion);
    })
    .await;
    let example = Example::start(command, world.gateway.jwks.expect("a key set"));

    let client = world.sign_in(ADMIN).await;
    client.get("/app/echo").send().await.expect_status(200);
    let seen = world.upstream.last();
    let token = seen.header("x-assertion").expect("an assertion").to_owned();
    let header = |token: &str| format!("X-Assertion: {token}");
    let (status, body) = example.directly(&[header(&token)]).await;
    assert_eq!(status, "200", "{body}");
    let said: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(said, json!({ "user": ADMIN, "role": "admin" }));

    let parsed = Token::parse(&token);
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let none = encode(json!({ "alg": "none" }).to_string());
    let (_, payload) = message.split_once('.').expect("a payload");
    let unverified = [
        vec![],
        vec!["X-Auth-User: root".to_owned()],
        vec![header("")],
        vec![header("garbage")],
        vec![header(&format!("{none}.{payload}."))],
        vec![header(&parsed.clone().with_claim("sub", json!("root")).text())],
        vec![header(&parsed.clone().with_header("kid", json!("unknown")).text())],
        vec![header(&parsed.with_header("alg", json!("HS256")).signed(b"the public key"))],
        vec![header(&sign(message, signature.as_bytes()))],
        vec![header(&token), header(&token)],
    ];
    for headers in unverified {
        assert_eq!(example.directly(&headers).await.0, "401", "{headers:?}");
    }
    // For another service of the same gateway.
    let session = client.jar.get(crate::support::world::TOKEN_COOKIE).expect("a token");
    assert_eq!(example.directly(&[header(&session)]).await.0, "401");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_example_believes_us_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("service.js");
    fs::write(&script, block("js")).expect("a script");
    // A path of its own replaces the folder of the services.
    let command = node(script.to_str().expect("a path"));
    the_example_believes_us_and_nobody_else(command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_believes_us_and_nobody_else() {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", block("python")]).stderr(Stdio::null());
    the_example_believes_us_and_nobody_else(command).await;
}
