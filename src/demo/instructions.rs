//! What the demonstration tells whoever started it: users, passwords, the URL to
//! open, and lines to paste into a shell.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::people::{DemoUser, PEOPLE, USERS};

/// The text; every line that is not indented can be pasted.
pub(super) fn instructions(
    folder: &Path,
    host: &str,
    https: SocketAddr,
    directory: SocketAddr,
) -> String {
    let origin = format!("https://{host}:{}", https.port());
    let file = |name: &str| shell_quoted(&folder.join(name).to_string_lossy());
    let (authority, jar) = (file(super::AUTHORITY), file("cookies"));
    let (code, phone) = (file("code"), file("phone"));
    let curl = format!("curl -sS --cacert {authority}");
    let [ada, _, cora, _] = USERS;

    let mut text = format!(
        "\n  Open {origin}/ in a browser. It warns once: the certificate is a throw-away one.\n\n"
    );
    text.push_str(&users());
    text.push_str("\n  Or paste these lines into another shell:\n\n");
    let body = format!(r#"{{"username":"{}","password":"{}"}}"#, cora.name, cora.password);
    let stolen =
        format!(r#"-b "__Host-bindgate-token=$(awk '/bindgate-token/ {{print $7}}' {jar})""#);
    for (what, command) in [
        (
            "log in as cora; the cookies go into a file",
            format!(
                "{curl} -c {jar} -H 'Content-Type: application/json' -d '{body}' {origin}/auth/login"
            ),
        ),
        ("a request arrives with her identity", format!("{curl} -b {jar} {origin}/hello")),
        ("the same without cookies is refused", format!("{curl} {origin}/hello")),
        (
            "a stolen token is refused without the cookie that it is bound to",
            format!("{curl} {stolen} {origin}/hello"),
        ),
        (
            "forged headers do not arrive, in no spelling",
            format!(
                "{curl} -b {jar} -H 'X-Auth-User: mallory' -H 'x_auth_role: super_admin' {origin}/hello"
            ),
        ),
        ("her role may not do everything", format!("{curl} -b {jar} {origin}/admin/")),
        (
            "she gives out an access code, to be read out over the telephone",
            format!(
                "{curl} -b {jar} -X POST -H 'X-Requested-With: XMLHttpRequest' {origin}/auth/access-codes | tee {code}"
            ),
        ),
        (
            "whoever types it gets a session of its own, once",
            format!(
                "{curl} -c {phone} -H 'Content-Type: application/json' -d @{code} {origin}/auth/access-codes/redeem"
            ),
        ),
        (
            "which opens what is meant for codes, and nothing else",
            format!("{curl} -b {phone} {origin}/codes/"),
        ),
        (
            "log out; it answers 204",
            format!("{curl} -b {jar} -o /dev/null -w '%{{http_code}}' {origin}/auth/logout"),
        ),
        ("the same cookies are worth nothing now", format!("{curl} -b {jar} {origin}/hello")),
    ] {
        // `echo`, as not every answer ends with a line end.
        let _ = writeln!(text, "# {what}\n{command}; echo");
    }
    let _ = write!(
        text,
        "# the directory is a real one, if ldap-utils is installed\n\
         LDAPTLS_CACERT={authority} ldapwhoami -x -H ldaps://{directory} -D uid={},{PEOPLE} -w {}\n\n  \
         Everything lies in {folder} and goes when you press Ctrl-C.\n",
        ada.name,
        ada.password,
        folder = folder.display(),
    );
    text
}

/// Who can log in.
fn users() -> String {
    let mut text = format!("  {:<8}{:<16}role\n", "user", "password");
    for DemoUser { name, password, role } in &USERS {
        let role = role.unwrap_or("none: the login is refused");
        let _ = writeln!(text, "  {name:<8}{password:<16}{role}");
    }
    text
}

/// A word that a shell reads as it is.
fn shell_quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{instructions, shell_quoted};

    #[test]
    fn the_lines_name_the_address_as_bound_and_the_users() {
        let (https, ldaps) =
            ("127.0.0.1:41443".parse().unwrap(), "127.0.0.1:1636".parse().unwrap());
        let text = instructions(Path::new("/tmp/demo"), "localhost", https, ldaps);
        assert!(text.contains("Open https://localhost:41443/ "));
        assert!(text.contains("ada-lantern") && text.contains("ldaps://127.0.0.1:1636"));
        assert!(text.contains(
            r#"curl -sS --cacert /tmp/demo/ca.pem -c /tmp/demo/cookies -H 'Content-Type: application/json' -d '{"username":"cora","password":"cora-harbour"}' https://localhost:41443/auth/login; echo"#
        ));
        assert!(text.contains(r#"token=$(awk '/bindgate-token/ {print $7}' /tmp/demo/cookies)" "#));
    }

    #[test]
    fn a_word_is_quoted_only_when_a_shell_would_read_it_otherwise() {
        assert_eq!(shell_quoted("/tmp/a-b_c.d"), "/tmp/a-b_c.d");
        assert_eq!(shell_quoted("/tmp/it's"), r"'/tmp/it'\''s'");
    }
}
