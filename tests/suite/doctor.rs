//! `bindgate doctor` walks the real way and names what is wrong where it is wrong.

mod directory;
mod store;

use std::process::Command;
use std::sync::Arc;

use bindgate::config::LdapTransport;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::certs::{Authority, Issued};
use crate::support::gateway::{BINARY, Said};
use crate::support::setup::Setup;
use crate::support::slapd::Slapd;
use crate::support::upstream::Upstream;
use crate::support::world::{ADMIN, TRACER, World, shared_slapd};

/// Runs the command to its end; what is asked may be in this process.
async fn doctor(setup: &Setup, more: &[&str]) -> Said {
    setup.save();
    let mut command = Command::new(BINARY);
    command.args(["doctor", "--config"]).arg(setup.config_file()).args(more);
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = ran.await.expect("no panic").expect("the binary runs");
    let text = [output.stdout, output.stderr].concat();
    Said { code: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() }
}

impl Said {
    /// Some line has all of these words.
    fn has(&self, words: &[&str]) -> &Self {
        let found = self.text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?}:\n{}", self.text);
        self
    }

    fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }
}

/// A `[directory]` with some text of it replaced.
fn altered(slapd: &Slapd, from: &str, to: &str) -> String {
    let toml = slapd.toml(LdapTransport::Tls);
    assert!(toml.contains(from), "{from}: {toml}");
    toml.replace(from, to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_sound_installation_is_told_with_its_time() {
    let world = World::with(|setup| {
        setup.control_socket();
    })
    .await;
    let setup = &world.gateway.setup;
    let said = doctor(setup, &["--user", ADMIN, "--request", "GET /admin/x"]).await;
    said.ends_with(0);
    for words in [
        ["ok", "check", "good"],
        ["ok", "resolve", "127.0.0.1"],
        ["ok", "connect", "127.0.0.1:"],
        ["ok", "secure", "days left"],
        ["ok", "service bind", "cn=bindgate"],
        ["ok", "base_dn", "found"],
        ["ok", "user_filter", "found"],
        ["ok", "subject_attribute", "found"],
        ["ok", "role.group", "found"],
        ["ok", "lock-out", "at 50 wrong passwords in 900 s; here strangers may fail 5 times"],
        ["ok", "user", "uid=alice"],
        ["ok", "user", "no policy of its own"],
        ["ok", "groups and role", "\"admin\""],
        ["ok", "role admin", "allow: "],
        ["ok", "gateway", "runs and is ready"],
        ["ok", "store", "state.redb"],
        ["ok", "backend", "connect"],
    ] {
        said.has(&words);
    }
    let steps = said.text.lines().filter(|line| line.contains(" ms  ")).count();
    assert_eq!(steps + 1, said.text.lines().count(), "each with its time: {}", said.text);
    said.has(&["0 failed, 0 suspect"]);

    let denied = doctor(setup, &["--user", TRACER, "--request", "GET /admin/x"]).await;
    denied.ends_with(1).has(&["FAILED", "role contact_tracer", "deny: 403 Forbidden"]);
    let all = doctor(setup, &["--request", "GET /admin/x"]).await;
    all.ends_with(0).has(&["role contact_tracer", "deny: "]).has(&["role admin", "allow: "]);
    let odd = doctor(setup, &["--request", "/admin/x"]).await;
    odd.ends_with(1).has(&["FAILED", "GET /path"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_cannot_log_in_is_told_why() {
    let slapd = shared_slapd();
    let upstream = Upstream::start().await;
    let setup = Setup::new(&slapd.toml(LdapTransport::Tls), &upstream.url());
    for (user, words) in [
        ("nobody-at-all", ["FAILED", "search", "no entry"]),
        ("nora", ["FAILED", "groups and role", "NoRole"]),
    ] {
        doctor(&setup, &["--user", user]).await.ends_with(1).has(&words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_match_nothing_is_suspected_aloud() {
    let slapd = shared_slapd();
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(&slapd.toml(LdapTransport::Tls), &upstream.url());
    for (from, to, words) in [
        ("inetOrgPerson", "inetOrgPersn", ["suspect", "user_filter", "matches no entry"]),
        (
            "user_attribute = \"uid\"",
            "user_attribute = \"uidd\"",
            ["suspect", "user_attribute", "is it misspelled?"],
        ),
        (
            "subject_attribute = \"uid\"",
            "subject_attribute = \"employeeKey\"",
            ["suspect", "subject_attribute", "is it misspelled?"],
        ),
        (
            "cn=super_admins,ou=groups",
            "cn=super_admin,ou=groups",
            ["suspect", "role.group", "does not exist"],
        ),
        (
            "group_base_dn = \"ou=groups",
            "group_base_dn = \"ou=people",
            ["suspect", "role.group", "not below group_base_dn"],
        ),
    ] {
        setup.directory(&altered(&slapd, from, to));
        doctor(&setup, &[]).await.ends_with(0).has(&words);
    }
    setup.directory(&slapd.toml(LdapTransport::Tls));
    setup.set("token", "claims", "{ teams = \"{attr:temas}\", name = \"{attr:cn}\" }");
    let said = doctor(&setup, &[]).await;
    said.ends_with(0).has(&["suspect", "claims", "attribute temas: is it misspelled?"]);
    said.has(&["ok", "claims", "found"]);
    for (from, to, words) in [
        ("ou=people,dc=", "ou=peple,dc=", ["FAILED", "base_dn", "does not exist"]),
        ("cn=bindgate,", "cn=bindgat,", ["FAILED", "service bind", "is wrong"]),
    ] {
        setup.directory(&altered(&slapd, from, to));
        doctor(&setup, &[]).await.ends_with(1).has(&words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_down_is_named_and_the_rest_is_looked_at_all_the_same() {
    let mut slapd = Slapd::start();
    slapd.stop();
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(&slapd.toml(LdapTransport::Tls), &upstream.url());
    setup.control_socket();
    let said = doctor(&setup, &["--user", ADMIN, "--request", "GET /admin/x"]).await;
    said.ends_with(1).has(&["FAILED", "connect", "is the server running"]);
    said.has(&["ok", "gateway", "is not running"]).has(&["ok", "backend"]);
    said.has(&["suspect", "policy", "role is not known"]);
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().expect("an address").port();
    let port = slapd.port(LdapTransport::Tls).to_string();
    let toml = slapd.toml(LdapTransport::Tls).replace(&port, &silent.to_string());
    setup.directory(&toml.replace("timeout = \"5s\"", "timeout = \"500ms\""));
    let said = doctor(&setup, &[]).await;
    said.ends_with(1).has(&["FAILED", "secure", "no answer within 500ms", "directory.timeout"]);
    // Nobody listens where nobody may: the discard port of this host.
    setup.upstream("urls", "[\"http://127.0.0.1:9\"]");
    doctor(&setup, &[]).await.ends_with(1).has(&["FAILED", "backend", "upstream.urls"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_kind_is_suspected_and_the_reason_of_what_fails_is_told() {
    let slapd = shared_slapd();
    let upstream = Upstream::start().await;
    let toml = altered(&slapd, "kind = \"ldap\"", "kind = \"active_directory\"");
    let others = ["user_attribute", "group_base_dn", "nested_groups"];
    let fits = |line: &&str| !others.iter().any(|key| line.starts_with(key));
    let toml: String = toml.lines().filter(fits).flat_map(|line| [line, "\n"]).collect();
    let setup = Setup::new(&toml, &upstream.url());
    let said = doctor(&setup, &["--user", ADMIN]).await;
    said.ends_with(1).has(&["suspect", "root entry", "should directory.kind be \"ldap\"?"]);
    said.has(&["FAILED", "user", "search", "cannot make sense of the root entry"]);
}

/// A server that shows this certificate and then hangs up.
async fn shows(issued: &Issued) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::clone(&issued.server_config()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whether the client likes it is what the test is about.
            drop(acceptor.accept(stream).await);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_wrong_is_said_to_be_wrong_in_which_way() {
    let slapd = shared_slapd();
    let upstream = Upstream::start().await;
    let mut setup = Setup::new("", &upstream.url());
    let authority = Authority::new("directory test authority");
    setup.write("directory.pem", authority.pem());
    let own = format!("ldaps://127.0.0.1:{}", slapd.port(LdapTransport::Tls));
    let toml = altered(&slapd, &own, "ldaps://127.0.0.1:PORT").replace(
        &format!("{:?}", slapd.authority_file().display().to_string()),
        &format!("{:?}", setup.path("directory.pem").display().to_string()),
    );
    let stranger = Authority::new("another authority");
    for (issued, words) in [
        (authority.issue_expired(&["127.0.0.1"]), ["FAILED", "secure", "is expired"]),
        (authority.issue(&["elsewhere.test"]), ["FAILED", "secure", "for another name"]),
        (stranger.issue(&["127.0.0.1"]), ["FAILED", "secure", "from an unknown authority"]),
    ] {
        let port = shows(&issued).await;
        setup.directory(&toml.replace("PORT", &port.to_string()));
        doctor(&setup, &[]).await.ends_with(1).has(&words);
    }
    let plain = slapd.port(LdapTransport::StartTls).to_string();
    setup.directory(&toml.replace("PORT", &plain));
    doctor(&setup, &[]).await.ends_with(1).has(&["FAILED", "secure", "plain ldap:// port"]);
}
