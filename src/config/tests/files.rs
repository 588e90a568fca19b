//! Secrets, certificates and keys in files of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::{Folder, SMALL, only, problems, replaced, with};
use crate::ambient::{Clock, Timestamp};

#[test]
fn an_inline_secret_is_refused_in_a_file_that_everybody_may_read() {
    let folder = Folder::new();
    let text = replaced("bind_password_file = \"secret\"", "bind_password = \"hunter2\"");
    assert!(folder.load(&text, &[]).is_ok());
    let open = |name: &str| {
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(0o644)).unwrap();
    };
    open("bindgate.toml");
    let now = Clock::system().now();
    let lines = problems(folder.reload(&[], now));
    only(&lines, &["directory.bind_password", "everybody on the machine may read"]);
    assert!(!lines[0].contains("hunter2"));
    let environment = [("BINDGATE_DIRECTORY__BIND_PASSWORD", "other")];
    assert!(folder.reload(&environment, now).is_ok(), "the environment's is not in the file");

    folder.write("bindgate.toml", SMALL);
    open("bindgate.toml");
    open("secret");
    let notes = folder.reload(&[], now).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("bind_password_file: everybody")), "{notes:?}");
}

#[test]
fn a_secret_is_given_once_and_is_not_empty() {
    let folder = Folder::new();
    let file = "bind_password_file = \"secret\"";
    let both = replaced(file, "bind_password_file = \"secret\"\nbind_password = \"x\"");
    only(&folder.lines(&both), &["directory.bind_password", "one of them"]);
    only(&folder.lines(&replaced(file, "")), &["directory.bind_password_file: found nothing"]);
    only(&folder.lines(&replaced(file, "bind_password = \"\"")), &["not empty"]);
    folder.write("secret", "\n");
    only(&folder.lines(SMALL), &["bind_password_file: found an empty file"]);
    for text in ["one\ntwo\n", "one\n\n", "\none", "a\0b\n"] {
        folder.write("secret", text);
        only(&folder.lines(SMALL), &["bind_password_file", "more than one line", "a NUL"]);
    }
    only(&folder.lines(&replaced("\"secret\"", "\"missing\"")), &["cannot be read"]);
    folder.write("secret", "with space \r\n");
    let config = folder.load(SMALL, &[]).unwrap().config;
    assert_eq!(config.directory.unwrap().bind_password.expose(), "with space ");
}

#[test]
fn broken_certificates_keys_and_authorities_stop_the_start() {
    let folder = Folder::new();
    folder.write("empty", "");
    folder.write("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("cut", "-----BEGIN CERTIFICATE-----\nAAAA");
    let certificate = "certificate_file = \"tls.crt\"";
    let key = "private_key_file = \"tls.key\"";
    for (old, file, word) in [
        (certificate, "missing", "cannot be read"),
        (certificate, "empty", "without a certificate"),
        (certificate, "broken", "cannot be read"),
        (certificate, "cut", "PEM"),
        (certificate, ".", "cannot be read"),
        (key, "empty", "without a private key"),
        (key, "tls.crt", "without a private key"),
        (key, "other.key", "another certificate"),
    ] {
        let name = old.split(' ').next().unwrap();
        let text = replaced(old, &format!("{name} = \"{file}\""));
        only(&folder.lines(&text), &[&format!("server.tls.{name}: "), word]);
    }
    for file in ["missing", "empty", "broken", "cut"] {
        let text = with("[directory]", &format!("ca_file = \"{file}\""));
        only(&folder.lines(&text), &["directory.ca_file"]);
        let text = with("[server.tls]", &format!("client_ca_file = \"{file}\""));
        only(&folder.lines(&text), &["server.tls.client_ca_file"]);
    }
    let text = with("[directory]", "ca_file = \"tls.crt\"");
    assert!(folder.load(&text, &[]).unwrap().config.directory.unwrap().authorities.is_some());
}

#[test]
fn an_ended_certificate_is_noted_not_refused() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["other.example.org".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    folder.write("tls.crt", &params.self_signed(&key).unwrap().pem());
    folder.write("tls.key", &key.serialize_pem());
    let notes = folder.load(SMALL, &[]).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("ended at 2021-01-01T00:00:00")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("not for safeplaces.example.org")), "{notes:?}");
    let notes = folder.reload(&[], Timestamp::from_seconds(0)).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("begins only at 2020-01-01")), "{notes:?}");
}
