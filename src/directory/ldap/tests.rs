//! What is made of a bind's outcome when the directory says nothing else.

use ldap3::asn1::{PL, StructureTag, TagClass};

use super::LdapDirectory;
use crate::ambient::Entropy;
use crate::config::{DirectoryKind, LdapServer, LdapTransport, sample};
use crate::directory::entry::Entry;
use crate::directory::outcome::{Outcome, Rejection};
use crate::metrics::Metrics;

/// An Active Directory that nobody reaches.
fn unreachable() -> LdapDirectory {
    let mut config = sample::config(Vec::new()).directory.unwrap();
    let (host, transport) = ("127.0.0.1".to_owned(), LdapTransport::Plaintext);
    config.kind = DirectoryKind::ActiveDirectory;
    config.servers = vec![LdapServer { host, port: 1, transport }];
    config.user_attribute = "sAMAccountName".to_owned();
    config.subject_attribute = "objectGUID".to_owned();
    LdapDirectory::new(&config, &Metrics::new().unwrap(), &Entropy::system()).unwrap()
}

fn entry() -> Entry {
    let tag = |payload| StructureTag { class: TagClass::Universal, id: 4, payload };
    let name = tag(PL::P(b"CN=alice,DC=x".to_vec()));
    Entry::parse(tag(PL::C(vec![name, tag(PL::C(Vec::new()))]))).unwrap()
}

#[tokio::test]
async fn what_was_refused_needs_no_further_answer() {
    let directory = unreachable();
    for rejection in [Rejection::WrongPassword, Rejection::Locked, Rejection::Unbindable] {
        let refused = Outcome::Rejected(rejection);
        assert_eq!(directory.in_the_light_of(&entry(), refused).await.unwrap(), refused);
    }
    // Whether an account has ended is told by the domain's time.
    assert!(directory.in_the_light_of(&entry(), Outcome::Accepted(None)).await.is_err());
}
