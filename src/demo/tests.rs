//! The demonstration as another LDAP implementation sees it, and its end.

use std::sync::Arc;

use ldap3::{LdapConnAsync, LdapConnSettings, Scope, SearchEntry};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{AUTHORITY, BIND_PASSWORD, Demo, people};
use crate::ambient::{Clock, Entropy};

async fn started() -> Demo {
    let listen = "127.0.0.1:0".parse().unwrap();
    Demo::start(listen, &Entropy::system(), &Clock::system()).await.unwrap()
}

/// A connection of another LDAP implementation, which trusts only the demo's authority.
async fn connected(demo: &Demo, host: &str) -> ldap3::Ldap {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(demo.folder.path().join(AUTHORITY)).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let url = format!("ldaps://{host}:{}", demo.directory.address().port());
    let settings = LdapConnSettings::new().set_config(Arc::new(tls));
    let (connection, ldap) = LdapConnAsync::with_settings(settings, &url).await.unwrap();
    ldap3::drive!(connection);
    ldap
}

#[tokio::test]
async fn another_implementation_logs_everybody_in_over_tls() {
    let demo = started().await;
    let password = std::fs::read_to_string(demo.folder.path().join(BIND_PASSWORD)).unwrap();
    let mut service = connected(&demo, "127.0.0.1").await;
    service.simple_bind(people::SERVICE, &password).await.unwrap().success().unwrap();
    for user in super::USERS {
        let filter = format!("(&(uid={})(objectClass=inetOrgPerson))", user.name);
        let found = service.search(people::PEOPLE, Scope::Subtree, &filter, vec!["uid"]).await;
        let (entries, _) = found.unwrap().success().unwrap();
        let [entry] = entries.try_into().unwrap();
        let entry = SearchEntry::construct(entry);
        assert_eq!(entry.attrs["uid"], [user.name]);

        let mut person = connected(&demo, "localhost").await;
        let refused = person.simple_bind(&entry.dn, "wrong").await.unwrap();
        assert_eq!(refused.rc, 49);
        person.simple_bind(&entry.dn, user.password).await.unwrap().success().unwrap();
        person.unbind().await.unwrap();
    }
}

#[tokio::test]
async fn groups_are_found_by_member_one_step_at_a_time() {
    let demo = started().await;
    let password = std::fs::read_to_string(demo.folder.path().join(BIND_PASSWORD)).unwrap();
    let mut service = connected(&demo, "127.0.0.1").await;
    service.simple_bind(people::SERVICE, &password).await.unwrap().success().unwrap();
    let mut member = format!("uid=cora,{}", people::PEOPLE);
    for expected in ["cn=field_team,", "cn=contact_tracers,"] {
        let filter = format!("(member={member})");
        let found = service.search(people::GROUPS, Scope::Subtree, &filter, vec!["1.1"]).await;
        let (entries, _) = found.unwrap().success().unwrap();
        let [entry] = entries.try_into().unwrap();
        member = SearchEntry::construct(entry).dn;
        assert!(member.starts_with(expected), "{member}");
    }
}

#[tokio::test]
async fn everything_ends_with_the_demonstration() {
    let demo = started().await;
    let (folder, address) = (demo.folder.path().to_owned(), demo.directory.address());
    assert!(demo.configuration().starts_with(&folder));
    drop(demo);
    assert!(!folder.exists());
    // The listener's task ends as soon as the runtime gets to it.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
