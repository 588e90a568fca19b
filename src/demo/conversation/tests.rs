//! What one connection may ask, and what it is answered.

use ldap3_proto::control::LdapControl;
use ldap3_proto::parse_ldap_filter_str;
use ldap3_proto::proto::{
    LdapBindCred, LdapBindRequest, LdapDerefAliases, LdapExtendedRequest, LdapOp, LdapResultCode,
    LdapSearchRequest, LdapSearchScope, OID_WHOAMI,
};

use super::Conversation;
use crate::demo::people;
use crate::demo::tree::Tree;
use crate::secret::Secret;

const ADA: &str = "uid=ada,ou=people,dc=example,dc=org";

fn tree() -> Tree {
    people::tree(Secret::new("service".to_owned())).unwrap()
}

fn bind(dn: &str, password: &str) -> LdapOp {
    let cred = LdapBindCred::Simple(password.to_owned());
    LdapOp::BindRequest(LdapBindRequest { version: 3, dn: dn.to_owned(), cred })
}

fn search(base: &str, sizelimit: i32, attrs: &[&str]) -> LdapOp {
    LdapOp::SearchRequest(LdapSearchRequest {
        base: base.to_owned(),
        scope: if base.is_empty() { LdapSearchScope::Base } else { LdapSearchScope::Subtree },
        aliases: LdapDerefAliases::Never,
        sizelimit,
        timelimit: 0,
        typesonly: false,
        filter: parse_ldap_filter_str("(objectClass=*)").unwrap(),
        attrs: attrs.iter().map(|&name| name.to_owned()).collect(),
    })
}

fn code(answers: &[LdapOp]) -> LdapResultCode {
    match answers.last().unwrap() {
        LdapOp::BindResponse(response) => response.res.code.clone(),
        LdapOp::ExtendedResponse(response) => response.res.code.clone(),
        LdapOp::SearchResultDone(result)
        | LdapOp::DelResponse(result)
        | LdapOp::ModifyResponse(result) => result.code.clone(),
        other => panic!("no result: {other:?}"),
    }
}

fn ask(conversation: &mut Conversation<'_>, op: LdapOp) -> (LdapResultCode, Vec<LdapOp>) {
    let answers = conversation.answer(op, &[]).unwrap();
    (code(&answers), answers)
}

#[test]
fn a_bind_needs_the_right_password_and_never_an_empty_one() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    for (dn, password, expected) in [
        (ADA, "ada-lantern", LdapResultCode::Success),
        ("UID=Ada, OU=People, DC=Example, DC=Org", "ada-lantern", LdapResultCode::Success),
        (people::SERVICE, "service", LdapResultCode::Success),
        ("", "", LdapResultCode::Success),
        (ADA, "ada-lanterm", LdapResultCode::InvalidCredentials),
        (ADA, "", LdapResultCode::UnwillingToPerform),
        ("", "ada-lantern", LdapResultCode::InvalidCredentials),
        ("uid=zoe,ou=people,dc=example,dc=org", "x", LdapResultCode::InvalidCredentials),
        (people::PEOPLE, "x", LdapResultCode::InvalidCredentials),
        ("ada", "ada-lantern", LdapResultCode::InvalidDNSyntax),
    ] {
        assert_eq!(ask(&mut conversation, bind(dn, password)).0, expected, "{dn} {password}");
    }
}

#[test]
fn other_versions_and_methods_of_binding_are_refused() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    let cred = LdapBindCred::Simple("ada-lantern".to_owned());
    let old = LdapOp::BindRequest(LdapBindRequest { version: 2, dn: ADA.to_owned(), cred });
    assert_eq!(ask(&mut conversation, old).0, LdapResultCode::ProtocolError);
    let sasl = LdapBindRequest { version: 3, dn: String::new(), cred: LdapBindCred::Unsupported };
    let (code, _) = ask(&mut conversation, LdapOp::BindRequest(sasl));
    assert_eq!(code, LdapResultCode::AuthMethodNotSupported);
}

#[test]
fn the_service_account_reads_all_and_a_person_the_own_entry() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    let everything = || search(people::SUFFIX, 0, &["1.1"]);
    let (code, _) = ask(&mut conversation, everything());
    assert_eq!(code, LdapResultCode::InsufficentAccessRights);

    ask(&mut conversation, bind(people::SERVICE, "service"));
    let (code, answers) = ask(&mut conversation, everything());
    assert_eq!((code, answers.len()), (LdapResultCode::Success, 14));

    ask(&mut conversation, bind(ADA, "ada-lantern"));
    assert_eq!(ask(&mut conversation, everything()).0, LdapResultCode::NoSuchObject);
    assert_eq!(ask(&mut conversation, search(ADA, 0, &[])).1.len(), 2);

    ask(&mut conversation, bind(ADA, "wrong"));
    let (code, _) = ask(&mut conversation, everything());
    assert_eq!(code, LdapResultCode::InsufficentAccessRights, "a failed bind leaves nobody bound");
}

#[test]
fn a_size_limit_cuts_the_answer_and_says_so() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    ask(&mut conversation, bind(people::SERVICE, "service"));
    let (code, answers) = ask(&mut conversation, search(people::PEOPLE, 2, &[]));
    assert_eq!((code, answers.len()), (LdapResultCode::SizeLimitExceeded, 3));
    let (code, answers) = ask(&mut conversation, search(people::PEOPLE, 5, &[]));
    assert_eq!((code, answers.len()), (LdapResultCode::Success, 6));
}

#[test]
fn no_password_is_ever_answered() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    ask(&mut conversation, bind(people::SERVICE, "service"));
    let wanted = &["*", "+", "userPassword"];
    let (_, answers) = ask(&mut conversation, search(people::SUFFIX, 0, wanted));
    let text = format!("{answers:?}");
    assert!(text.contains("ada@example.org") && !text.contains("ada-lantern"), "{text}");
    assert!(!text.to_lowercase().contains("userpassword"));
}

#[test]
fn the_root_answers_before_any_bind() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    let (code, answers) = ask(&mut conversation, search("", 0, &["1.1"]));
    assert_eq!((code, answers.len()), (LdapResultCode::Success, 2));
    let (_, answers) = ask(&mut conversation, search("", 0, &["namingContexts"]));
    assert!(format!("{answers:?}").contains("dc=example,dc=org"));
}

#[test]
fn whoami_names_who_is_bound() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    let whoami = || {
        LdapOp::ExtendedRequest(LdapExtendedRequest { name: OID_WHOAMI.to_owned(), value: None })
    };
    let value = |answers: Vec<LdapOp>| match answers.into_iter().next() {
        Some(LdapOp::ExtendedResponse(response)) => response.value,
        _ => None,
    };
    assert_eq!(value(ask(&mut conversation, whoami()).1), Some(Vec::new()));
    ask(&mut conversation, bind(ADA, "ada-lantern"));
    assert_eq!(value(ask(&mut conversation, whoami()).1), Some(format!("dn:{ADA}").into_bytes()));
}

#[test]
fn what_is_not_built_is_refused_in_the_form_of_its_answer() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    let (code, _) = ask(&mut conversation, LdapOp::DelRequest(ADA.to_owned()));
    assert_eq!(code, LdapResultCode::UnwillingToPerform);
    let start_tls = "1.3.6.1.4.1.1466.20037".to_owned();
    let request = LdapExtendedRequest { name: start_tls, value: None };
    let (code, _) = ask(&mut conversation, LdapOp::ExtendedRequest(request));
    assert_eq!(code, LdapResultCode::ProtocolError);
    assert!(conversation.answer(LdapOp::AbandonRequest(1), &[]).unwrap().is_empty());
}

#[test]
fn a_critical_control_is_refused_and_another_ignored() {
    let tree = tree();
    let mut conversation = Conversation::new(&tree);
    let control =
        |criticality| LdapControl::Unknown { oid: "1.2.3.4".to_owned(), criticality, value: None };
    let answers = conversation.answer(search("", 0, &[]), &[control(true)]).unwrap();
    assert_eq!(code(&answers), LdapResultCode::UnavailableCriticalExtension);
    let answers = conversation.answer(search("", 0, &[]), &[control(false)]).unwrap();
    assert_eq!(code(&answers), LdapResultCode::Success);
}
