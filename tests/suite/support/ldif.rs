//! An LDIF text on its way into one of the LDAP tools. Knows no server.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Hands the text to `ldapmodify` or its like; what it says when it refuses.
pub(crate) fn apply(tool: &mut Command, ldif: &str) -> Result<(), String> {
    let mut child = tool
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ldap-utils is installed (.ci/setup)");
    child.stdin.take().expect("piped").write_all(ldif.as_bytes()).expect("ldapmodify reads");
    let output = child.wait_with_output().expect("ldapmodify ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}
