//! The page on scaling says what its simulation says.

use std::fs;
use std::path::Path;
use std::process::Command;

fn simulated(seed: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/feed/simulate.py");
    let output = Command::new("python3")
        .arg(script)
        .args(["--seed", seed])
        .output()
        .expect("python3 is installed (apt-get install python3)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_page_on_scaling_holds_what_the_simulation_prints() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scaling.md");
    let page = fs::read_to_string(page).expect("the page");
    let printed = simulated("1");
    let tables: Vec<&str> = printed.split("\n\n").map(str::trim).collect();
    assert!(tables.len() >= 4, "{printed}");
    for table in tables {
        assert!(page.contains(table), "benches/feed/simulate.py prints otherwise:\n{table}");
    }
    assert_eq!(simulated("1"), printed, "the same seed, the same tables");
    assert_ne!(simulated("2"), printed, "another seed, other chances");
}
