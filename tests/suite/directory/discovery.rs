//! Servers that DNS names: in its order, anew when it says something new, and as
//! before while it is silent.

use std::net::Ipv4Addr;
use std::time::Duration;

use bindgate::ambient::Entropy;
use bindgate::config;
use bindgate::config::{DirectoryKind, Discovery, LdapTransport};
use bindgate::directory::{Directory, DirectoryError, VerifyError};
use bindgate::metrics::Metrics;
use tokio::time::{Instant, sleep};

use super::login;
use crate::support::dns::Dns;
use crate::support::eventually;
use crate::support::samba::{HOST, Samba};
use crate::support::slapd::{PASSWORD, Slapd};

const CONTROLLERS: &str = "_ldap._tcp.dc._msdcs.example.org.";
const TTL: u32 = 1;

/// A section that finds its servers by this DNS server.
fn through(dns: &Dns, mut config: config::Directory, domain: &str) -> config::Directory {
    config.kind = DirectoryKind::ActiveDirectory;
    config.servers.clear();
    config.discovery = Some(Discovery {
        domain: domain.to_owned(),
        transport: LdapTransport::Tls,
        dns_servers: vec![dns.address],
    });
    config
}

fn prepared(config: &config::Directory) -> (Directory, Metrics) {
    let metrics = Metrics::new().expect("metrics");
    let directory = Directory::new(config, &metrics, &Entropy::system()).expect("valid");
    (directory, metrics)
}

/// Which servers are known, and whether they answer.
fn known(metrics: &Metrics) -> Vec<String> {
    let text = String::from_utf8(metrics.encode().expect("text")).expect("UTF-8");
    let lines = text.lines().filter_map(|line| line.strip_prefix("bindgate_directory_up{server="));
    lines.map(|line| line.replace(['"', '}'], "")).collect()
}

#[tokio::test]
async fn people_log_in_at_the_controllers_that_dns_names() {
    let samba = Samba::start();
    let dns = Dns::start().await;
    let domain = "ad.example.test";
    // As Active Directory publishes itself: with the port that begins in clear.
    let nowhere = "gone.ad.example.test.";
    dns.srv(
        "_ldap._tcp.dc._msdcs.ad.example.test.",
        TTL,
        &[(1, 100, 389, &format!("{HOST}.")), (0, 100, 389, nowhere)],
    );
    dns.address(&format!("{HOST}."), TTL, samba.address());
    let (directory, metrics) = prepared(&through(&dns, samba.directory(), domain));
    let person = login(&directory, "alice", PASSWORD).await.expect("the second is there");
    assert_eq!(person.role.as_str(), "admin");
    let known = known(&metrics);
    assert_eq!(known, [format!("{HOST}:636 1"), "gone.ad.example.test:636 0".to_owned()]);
    assert_eq!(
        dns.asked().first().map(String::as_str),
        Some("_ldap._tcp.dc._msdcs.ad.example.test.")
    );
}

#[tokio::test]
async fn the_list_follows_dns_and_outlives_its_silence() {
    let (first, second) = (Slapd::start(), Slapd::start());
    let ports = [&first, &second].map(|slapd| slapd.port(LdapTransport::Tls));
    let dns = Dns::start().await;
    for host in ["dc1", "dc2", "dc3"] {
        dns.address(&format!("{host}.example.org."), TTL, Ipv4Addr::LOCALHOST);
    }
    dns.srv(
        CONTROLLERS,
        TTL,
        &[(0, 0, ports[0], "dc1.example.org."), (0, 0, ports[0], "dc1.evil.test.")],
    );
    let mut config = through(&dns, first.directory(LdapTransport::Tls), "example.org");
    let other = second.directory(LdapTransport::Tls).authorities;
    config.authorities.get_or_insert_default().extend(other.into_iter().flatten());
    let (directory, metrics) = prepared(&config);
    let becomes = async |what: &str, expected: &[String]| {
        eventually(&format!("{what}: {expected:?}"), || {
            (known(&metrics) == expected).then_some(())
        })
        .await;
    };
    let [dc1, dc2] = [0, 1].map(|place| format!("dc{}.example.org:{} 1", place + 1, ports[place]));
    let observe = async {
        becomes("one server, and none outside the domain", std::slice::from_ref(&dc1)).await;
        // The third has no certificate for its name: it is told nothing.
        let stranger = format!("dc3.example.org:{} 0", ports[1]);
        dns.srv(
            CONTROLLERS,
            TTL,
            &[(0, 0, ports[1], "dc2.example.org."), (1, 0, ports[1], "dc3.example.org.")],
        );
        becomes("others, and the first no longer", &[dc2.clone(), stranger.clone()]).await;
        assert_eq!(second.failed_binds(&config.bind_dn), 0);
        dns.fall_silent();
        sleep(Duration::from_secs(4)).await;
        becomes("as they were", &[dc2.clone(), stranger]).await;
        assert!(directory.is_up());
        dns.srv(CONTROLLERS, TTL, &[]);
        dns.srv("_ldap._tcp.example.org.", TTL, &[(0, 0, ports[0], "DC1.Example.ORG.")]);
        dns.address("dc1.example.org.", TTL, Ipv4Addr::LOCALHOST);
        becomes("those of the domain, where there are no others", &[dc1]).await;
    };
    tokio::select! {
        () = directory.keep_up() => panic!("it never ends"),
        () = observe => {}
    }
}

#[tokio::test]
async fn without_dns_it_starts_and_a_login_is_answered_in_time() {
    let slapd = Slapd::start();
    let dns = Dns::start().await;
    dns.fall_silent();
    let config = through(&dns, slapd.directory(LdapTransport::Tls), "example.org");
    let (directory, _) = prepared(&config);
    let began = Instant::now();
    for _ in 0..2 {
        let outcome = login(&directory, "alice", PASSWORD).await;
        let Err(VerifyError::Unavailable(error)) = outcome else { panic!("{outcome:?}") };
        assert!(matches!(error, DirectoryError::Discovery(_) | DirectoryError::AllDown), "{error}");
    }
    assert!(began.elapsed() < config.timeout, "{:?}", began.elapsed());
    assert!(!directory.is_up());
}
