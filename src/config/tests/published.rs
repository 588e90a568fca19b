//! What is published about the keys: the example, the documentation, the schema.
//! None of them may forget a key, or name one that the loader does not know.

use std::fmt::Write as _;

use super::Folder;
use crate::config::{Config, KeyDefault, KeyDescription};

const EXAMPLE: &str = include_str!("../../../config/bindgate.example.toml");
const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

/// The example over files that exist; the paths of the example are another machine's.
fn example(folder: &Folder) -> String {
    for name in ["tls.crt", "tls.key"] {
        let text = std::fs::read_to_string(folder.path(name)).unwrap();
        folder.write(&format!("example-{name}"), &text);
    }
    let path = |name: &str| folder.path(name).display().to_string();
    EXAMPLE
        .replace("/etc/bindgate/tls.crt", &path("tls.crt"))
        .replace("/etc/bindgate/tls.key", &path("tls.key"))
        .replace("/etc/bindgate/ldap-ca.pem", &path("tls.crt"))
        .replace("/etc/bindgate/client-ca.pem", &path("tls.crt"))
        .replace("/run/secrets/ldap", &path("secret"))
}

/// Tables that the example leaves out: their being there switches something on.
const OFF: [&str; 1] = ["[directory.break_glass]"];

/// A line that is a key or a table behind its comment sign.
fn uncommented(line: &str) -> Option<&str> {
    let text = line.strip_prefix("# ")?;
    let key = text.split(" = ").next()?;
    let is_name = |name: &str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !name.is_empty() && name.bytes().all(fits)
    };
    (text.starts_with('[') || (text.contains(" = ") && is_name(key))).then_some(text)
}

#[test]
fn the_example_loads() {
    let folder = Folder::new();
    let loaded =
        folder.load(&example(&folder), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.directory.unwrap().roles.len(), 2);
    assert_eq!(loaded.config.routes.len(), 5);
}

#[test]
fn the_safe_places_files_load_without_a_note_on_what_they_risk() {
    let folder = Folder::new();
    folder.write("jwt", "a shared secret of more than 32 bytes\n");
    let path = |name: &str| folder.path(name).display().to_string();
    for text in [
        include_str!("../../../config/safeplaces.toml"),
        include_str!("../../../config/safeplaces-ldap-era.toml"),
    ] {
        let text = text
            .replace("/etc/bindgate/tls.crt", &path("tls.crt"))
            .replace("/etc/bindgate/tls.key", &path("tls.key"))
            .replace("/etc/bindgate/ldap-ca.pem", &path("tls.crt"))
            .replace("/run/secrets/ldap", &path("secret"))
            .replace("/run/secrets/safeplaces-jwt", &path("jwt"))
            .replace("/var/log/bindgate/audit.jsonl", &path("audit.jsonl"))
            .replace("/var/lib/bindgate/state.redb", &path("state.redb"));
        let loaded = folder.load(&text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        // The certificate of this test is for one host alone.
        let told = ["the certificate is not for", "wrong tries a day in all"];
        let notes = loaded.notes.iter().filter(|note| !told.iter().any(|it| note.contains(it)));
        assert_eq!(notes.collect::<Vec<_>>(), Vec::<&String>::new());
        // What stands in comments may be switched on.
        let lines = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|_| is_toml(line)).unwrap_or(line));
        let all = folder.load(&lines.collect::<Vec<_>>().join("\n"), &[]);
        all.unwrap_or_else(|problems| panic!("{problems}"));
    }
}

/// Whether this is a commented line of TOML: a table, or a key and its value.
fn is_toml(line: &str) -> bool {
    uncommented(line).is_some() || line.starts_with("# \"https://")
}

#[test]
fn the_example_shows_the_defaults() {
    let folder = Folder::new();
    let short = example(&folder);
    let optional = [
        "client_ca_file",
        "bind_password",
        "users_file",
        "name",
        "host",
        "secret_file",
        "issuer",
        "plain_http_listen",
        "control_socket",
        "rotate_every",
        "sessions_per_user",
        "directory_lockout",
        "kind",
        "sentinel_master",
        "urls",
        "username",
        "password",
        "password_file",
        "ca_file",
        "encryption_key_file",
    ];
    let mut is_off = false;
    let all_lines = short.lines().map(|line| {
        let text = uncommented(line).unwrap_or(line);
        if text.starts_with('[') {
            is_off = OFF.contains(&text);
        }
        if is_off { line } else { switched_on(line, &optional) }
    });
    let long = all_lines.collect::<Vec<_>>().join("\n");
    let long = folder.load(&long, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let short = folder.load(&short, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(format!("{:#?}", long.config), format!("{:#?}", short.config));
}

/// A line that shows a default, without its comment sign; one that is off as it is.
fn switched_on<'l>(line: &'l str, optional: &[&str]) -> &'l str {
    match uncommented(line) {
        // Its twin is set, or it is off by default.
        Some(text) if optional.iter().any(|key| text.starts_with(&format!("{key} = "))) => line,
        Some(text) => text,
        None => line,
    }
}

#[test]
fn the_example_names_every_built_key_and_no_other() {
    let mut table = String::new();
    let mut named = Vec::new();
    for line in EXAMPLE.lines() {
        let text = uncommented(line).unwrap_or(line);
        if text.starts_with('[') {
            table = text.trim_matches(['[', ']']).to_owned();
        } else if !text.starts_with('#')
            && let Some((key, _)) = text.split_once(" = ")
        {
            named.push(format!("{table}.{key}"));
        }
    }
    named.sort();
    named.dedup();
    let mut built: Vec<String> = Config::keys()
        .into_iter()
        .filter(|key| key.default != KeyDefault::Unbuilt)
        .map(|key| key.path)
        .collect();
    built.sort();
    assert_eq!(named, built);
}

#[test]
fn the_documentation_has_every_key_in_a_table_of_its_section() {
    let mut documented = String::new();
    for section in DOCUMENTATION.split("\n## ").skip(1) {
        let Some((title, text)) = section.split_once('\n') else { continue };
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        if !rows.is_empty() {
            write!(documented, "## {title}\n{}\n", rows.join("\n")).unwrap();
        }
    }
    let expected = tables();
    assert_eq!(documented, expected, "docs/configuration.md should hold:\n{expected}");
}

/// All tables of the documentation, each below the heading of its section.
fn tables() -> String {
    let keys = Config::keys();
    let (unbuilt, built): (Vec<_>, Vec<_>) =
        keys.iter().partition(|key| key.default == KeyDefault::Unbuilt);
    let mut text = String::new();
    let mut table = "";
    for key in built {
        let (of, name) = key.path.rsplit_once('.').unwrap();
        if of != table {
            table = of;
            write!(
                text,
                "## {}\n| key | type | default | meaning |\n|---|---|---|---|\n",
                title(of)
            )
            .unwrap();
        }
        writeln!(
            text,
            "| `{name}` | {} | {} | {} |",
            cell(&key.allowed),
            default(key),
            cell(key.doc)
        )
        .unwrap();
    }
    text.push_str("## Not built yet\n| key | asks for |\n|---|---|\n");
    for key in unbuilt {
        writeln!(text, "| `{}` | {} |", key.path, cell(key.doc)).unwrap();
    }
    text
}

fn title(table: &str) -> String {
    let rows = ["directory.role", "upstream", "route"].contains(&table);
    if rows { format!("`[[{table}]]`") } else { format!("`[{table}]`") }
}

fn default(key: &KeyDescription) -> String {
    match &key.default {
        KeyDefault::Required => "required".to_owned(),
        KeyDefault::None | KeyDefault::Unbuilt => "none".to_owned(),
        KeyDefault::Value(value) => format!("`{value}`"),
    }
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace("**", "\\*\\*")
}

#[test]
fn the_schema_knows_every_key() {
    let schema = Config::schema();
    for key in Config::keys() {
        let mut at = &schema;
        for part in key.path.split('.') {
            // A list of tables has its rows below `items`.
            at = at.get("items").unwrap_or(at);
            at = &at["properties"][part];
        }
        assert!(at["description"].is_string(), "{}: {at}", key.path);
        assert_eq!(at.get("not").is_some(), key.default == KeyDefault::Unbuilt, "{}", key.path);
    }
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["server"]["properties"]["workers"]["default"], 0);
    let required = &schema["properties"]["server"]["required"];
    assert_eq!(*required, serde_json::json!(["listen", "public_origin", "tls"]));
}

#[test]
fn every_key_is_told_once() {
    let keys = Config::keys();
    let mut paths: Vec<&str> = keys.iter().map(|key| key.path.as_str()).collect();
    paths.sort_unstable();
    let all = paths.len();
    paths.dedup();
    assert_eq!(paths.len(), all);
}
