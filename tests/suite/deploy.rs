//! What is shipped beside the binary passes the checks of those who made the formats.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::gateway::BINARY;

#[test]
fn the_systemd_unit_is_valid_and_hardened() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bindgate.service");
    let text = fs::read_to_string(unit).expect("the unit");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bindgate.service");
    // The verifier insists that the command is there.
    fs::write(&file, text.replace("/usr/bin/bindgate", BINARY)).expect("a copy");
    for arguments in [&["verify"][..], &["security", "--offline=true", "--threshold=20"]] {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&file)
            .output()
            .expect("systemd-analyze is installed (apt-get install systemd)");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}
