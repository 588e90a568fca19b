//! Lower layers never name higher ones; the domain knows no HTTP, the server no users,
//! the upstream no sessions. Read from the `crate::…` paths in `src/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the bottom to the top. A module may name those of lower rows and
/// itself, never one of its own row.
const LAYERS: &[&[&str]] = &[
    &["ambient", "dn", "refusal", "secret"],
    &["identity"],
    &["config"],
    &["logging", "metrics"],
    &["audit", "wire"],
    &["store"],
    &["directory", "policy", "throttle", "token"],
    &["access_code", "session"],
    &["server", "upstream"],
    &["admin", "gateway"],
    &["app"],
    &["demo"],
    &["cli"],
    &["main"],
];

/// Modules that must not know others, though the order alone would let them.
const BLIND: &[(&str, &[&str])] = &[
    ("server", &["identity", "directory", "token", "store", "session", "throttle", "policy"]),
    ("upstream", &["identity", "directory", "token", "store", "session", "throttle", "policy"]),
    ("admin", &["directory", "token", "store", "session", "policy", "identity"]),
    ("wire", &["identity", "audit"]),
    ("directory", &["wire"]),
    ("store", &["wire"]),
    ("throttle", &["wire"]),
    ("token", &["wire"]),
    ("session", &["wire"]),
    ("access_code", &["wire"]),
];

/// The domain: none of it knows HTTP.
const WITHOUT_HTTP: &[&str] =
    &["access_code", "identity", "directory", "token", "store", "session", "throttle"];

/// Outside crates that have one home, so that replacing one touches one folder.
const HOMES: &[(&str, &[&str])] = &[
    ("jsonwebtoken", &["token"]),
    ("redb", &["store"]),
    ("redis", &["store"]),
    ("rand", &["ambient"]),
    ("prometheus", &["metrics", "admin"]),
    ("figment", &["config"]),
];

/// A source file, the top-level module it belongs to, and its lines of code.
struct Source {
    path: PathBuf,
    module: String,
    lines: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 10, "the sources are where this test looks for them");
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root).expect("below src");
            let first = below.components().next().expect("a name");
            let module = Path::new(first.as_os_str()).file_stem().expect("a name");
            let text = fs::read_to_string(&path).expect("a source file");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            found.push(Source {
                module: module.to_str().expect("UTF-8").to_owned(),
                lines: code.map(str::to_owned).collect(),
                path: path.clone(),
            });
        }
    }
}

/// The modules that this line names by `crate::`.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").filter_map(|(at, found)| {
        let rest = &line[at + found.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        Some(&rest[..end.unwrap_or(rest.len())]).filter(|name| !name.is_empty())
    })
}

fn ranks() -> BTreeMap<&'static str, usize> {
    let rows = LAYERS.iter().enumerate();
    rows.flat_map(|(rank, row)| row.iter().map(move |module| (*module, rank))).collect()
}

#[test]
fn lower_layers_never_name_higher_ones() {
    let ranks = ranks();
    for source in sources().iter().filter(|source| source.module != "lib") {
        let own = source.module.as_str();
        let rank = ranks.get(own).unwrap_or_else(|| panic!("{own} has no place in the layers"));
        for line in &source.lines {
            for other in named(line).filter(|other| *other != own) {
                let below = ranks.get(other).is_some_and(|other| other < rank);
                assert!(below, "{}: {own} names {other}: {line}", source.path.display());
            }
        }
    }
}

#[test]
fn blind_modules_stay_blind() {
    for source in sources() {
        let hidden = BLIND.iter().filter(|(module, _)| *module == source.module);
        let hidden: BTreeSet<&str> =
            hidden.flat_map(|(_, others)| others.iter().copied()).collect();
        for line in &source.lines {
            for other in named(line) {
                assert!(!hidden.contains(other), "{}: {line}", source.path.display());
            }
        }
    }
}

#[test]
fn the_domain_knows_no_http_and_outside_crates_have_one_home() {
    for source in sources().iter().filter(|source| !source.path.ends_with("tests.rs")) {
        let module = source.module.as_str();
        // Tests beside the code may borrow what the code itself may not.
        let product = source.lines.iter().take_while(|line| *line != "#[cfg(test)]");
        for line in product.map(|line| line.trim_start()) {
            let uses = |name: &str| {
                line.starts_with(&format!("use {name}::"))
                    || line.starts_with(&format!("use {name};"))
            };
            let at = source.path.display();
            if WITHOUT_HTTP.contains(&module) {
                let http =
                    ["http", "hyper", "http_body", "http_body_util"].iter().any(|name| uses(name));
                assert!(!http, "{at} knows HTTP: {line}");
            }
            for (name, homes) in HOMES {
                assert!(!uses(name) || homes.contains(&module), "{at}: {name} lives elsewhere");
            }
        }
    }
}

#[test]
fn every_edge_can_be_searched_for() {
    for source in sources() {
        for line in &source.lines {
            assert!(!line.contains("crate::{"), "{}: {line}", source.path.display());
            assert!(!line.contains("super::super"), "{}: {line}", source.path.display());
        }
    }
}
