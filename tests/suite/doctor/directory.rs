//! What `bindgate doctor` says of several servers, of those that DNS names, of a
//! lock-out, and of emergency accounts.

use bindgate::config::LdapTransport;

use super::doctor;
use crate::support::dns::Dns;
use crate::support::samba::{HOST, Samba};
use crate::support::setup::Setup;
use crate::support::slapd::Slapd;
use crate::support::upstream::Upstream;
use crate::support::users::{Person, users_toml};
use crate::support::world::ADMIN;

const CONTROLLERS: &str = "_ldap._tcp.dc._msdcs.ad.example.test.";
const TTL: u32 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_several_servers_is_walked_and_one_that_is_down_is_named() {
    let (mut first, second) = (Slapd::start(), Slapd::start());
    let upstream = Upstream::start().await;
    let mut setup = Setup::new("", &upstream.url());
    let person = Person { name: "Ops", password: "x", roles: "\"admin\"", more: "" };
    setup.write("emergency.toml", &users_toml(&[person]));
    let file = setup.path("emergency.toml").display().to_string();
    let directory = first.toml_with(&second, &setup.path("both.pem"));
    setup.directory(&format!("{directory}\n[directory.break_glass]\nusers_file = {file:?}\n"));
    let [one, other] = [&first, &second].map(|it| format!(":{} ", it.port(LdapTransport::Tls)));
    let said = doctor(&setup, &["--user", ADMIN]).await;
    said.ends_with(0).has(&["ok", &one, "service bind"]).has(&["ok", &other, "service bind"]);
    said.has(&["ok", "emergency.toml", "1 emergency accounts"]);
    first.stop();
    let said = doctor(&setup, &["--user", ADMIN]).await;
    said.ends_with(1).has(&["FAILED", &one, "connect"]).has(&["ok", &other, "service bind"]);
    said.has(&["ok", "lock-out", "at 50"]).has(&["ok", "groups and role", "\"admin\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lockout_that_cannot_be_read_is_to_be_stated() {
    let slapd = Slapd::start();
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(&slapd.toml(LdapTransport::Tls), &upstream.url());
    setup.set("throttle", "directory_lockout", "\"60 per 15m\"");
    let said = doctor(&setup, &[]).await;
    said.ends_with(0).has(&["suspect", "lock-out", "at 50 wrong passwords", "leave it out"]);
    setup.unset("throttle", "directory_lockout");
    let policy = |line: &str| {
        let dn = "cn=default,ou=policies,dc=example,dc=org";
        slapd.ldapmodify(&format!("dn: {dn}\nchangetype: modify\nreplace: {line}\n"));
    };
    policy("pwdFailureCountInterval\npwdFailureCountInterval: 0");
    let said = doctor(&setup, &[]).await;
    said.ends_with(0).has(&["suspect", "lock-out", "at 50 wrong", "from day to day"]);
    setup.set("throttle", "directory_lockout", "\"60 per 15m\"");
    slapd.ldapmodify("dn: cn=default,ou=policies,dc=example,dc=org\nchangetype: delete\n");
    let said = doctor(&setup, &[]).await;
    said.has(&["ok", "lock-out", "throttle.directory_lockout", "at 60 wrong passwords in 900 s"]);
    setup.unset("throttle", "directory_lockout");
    let said = doctor(&setup, &[]).await;
    said.ends_with(0).has(&["suspect", "lock-out", "state it in throttle.directory_lockout"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_directory_is_found_by_dns_recognised_and_walked() {
    let samba = tokio::task::spawn_blocking(Samba::start).await.expect("a domain controller");
    samba.add_fine_grained_policy("strict", "alice", 4);
    let (upstream, dns) = (Upstream::start().await, Dns::start().await);
    let server = format!("{HOST}.");
    dns.srv(CONTROLLERS, TTL, &[(0, 100, 389, &server)]);
    dns.address(&server, TTL, samba.address());
    let domain = |domain: &str| {
        let urls = format!("urls = [\"ldaps://{}\"]", samba.address());
        let found = format!("urls = [\"ad://{domain}\"]\ndns_servers = [\"{}\"]", dns.address);
        let toml = samba.toml();
        assert!(toml.contains(&urls), "{toml}");
        toml.replace(&urls, &found)
    };
    let mut setup = Setup::new(&domain("ad.example.test"), &upstream.url());
    let said = doctor(&setup, &["--user", "alice"]).await;
    said.has(&["ok", "directory.urls", "ask DNS", HOST]).has(&["ok", HOST, "resolve"]);
    said.has(&["ok", "root entry", "Active Directory"]).has(&["ok", "groups and role"]);
    said.has(&["ok", "lock-out", "at 50 wrong passwords in 1800 s"]);
    said.ends_with(0).has(&["suspect", "user", "lock-out", "CN=strict", "taken for a strict one"]);
    samba.let_policies_be_read();
    let said = doctor(&setup, &["--user", "alice"]).await;
    said.ends_with(0).has(&["ok", "user", "CN=strict", "at 4 wrong passwords in 1800 s"]);

    dns.srv(CONTROLLERS, TTL, &[(0, 100, 389, &server), (1, 100, 389, "dc2.ad.example.test.")]);
    let said = doctor(&setup, &["--user", "alice"]).await;
    said.ends_with(1).has(&["FAILED", "dc2.ad.example.test", "resolve", "but not its address"]);
    said.has(&["ok", "groups and role"]);
    samba.hide_groups_of("alice");
    let said = doctor(&setup, &["--user", "alice"]).await;
    said.has(&["FAILED", "groups and role", "Windows Authorization Access Group"]);
    setup.directory(&domain("elsewhere.test"));
    doctor(&setup, &[]).await.ends_with(1).has(&["FAILED", "ask DNS", "spelled right"]);

    let ldap = samba.toml().replace("\"active_directory\"", "\"ldap\"");
    let base = ldap.lines().find_map(|line| line.strip_prefix("base_dn = ")).expect("a base");
    setup.directory(&ldap.replace(
        "base_dn = ",
        &format!("user_attribute = \"sAMAccountName\"\ngroup_base_dn = {base}\nbase_dn = "),
    ));
    let said = doctor(&setup, &[]).await;
    said.has(&["suspect", "root entry", "directory.kind = \"active_directory\""]);
}
