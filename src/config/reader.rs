//! Reads tables key by key. The call that reads a key is the one place that
//! declares it: the same calls give the problems, the JSON Schema and the list of
//! keys. Knows no section.

#![expect(clippy::needless_pass_by_value, reason = "a declaration reads better without `&`")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};
use serde_json::Value as Json;

use super::declaration::{Declaration, Declared};
use super::document::Document;
use super::kind::{Fault, Kind, Raw, describe};
use super::problem::{Expected, Problem};
use super::suggestion::nearest;

/// What reading brought to light.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
    /// Filled only while the keys are described.
    pub(super) declared: Vec<Declared>,
    describing: bool,
}

impl Findings {
    /// Findings of a run that describes the keys instead of judging a document.
    pub(super) fn describing() -> Self {
        Self { describing: true, ..Self::default() }
    }
}

/// Whether a key or a section may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It must be there.
    Required,
    /// It may be left out.
    Optional,
}

/// One table while it is read.
pub(super) struct Reader<'a> {
    document: &'a Document,
    table: Option<&'a Dict>,
    /// The table's name with a dot behind it; empty for the outermost.
    prefix: String,
    row: Option<String>,
    known: Vec<&'static str>,
    findings: &'a mut Findings,
    problems_before: usize,
}

impl<'a> Reader<'a> {
    /// Reads the outermost table; unknown keys are found at its end.
    pub(super) fn read_root<T>(
        document: &'a Document,
        findings: &'a mut Findings,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        let mut reader = Reader {
            document,
            table: (!findings.describing).then(|| document.root()),
            prefix: String::new(),
            row: None,
            known: Vec::new(),
            problems_before: findings.problems.len(),
            findings,
        };
        let value = read(&mut reader);
        reader.refuse_unknown();
        value
    }

    /// A key that must be there; `None` when it is missing or wrong.
    pub(super) fn required<K: Kind>(
        &mut self,
        key: &'static str,
        kind: K,
        doc: &'static str,
    ) -> Option<K::Out> {
        self.declare(key, doc, || Declaration::key(&kind, true, None));
        let parsed = self.parse(key, &kind);
        if self.is_missing(key) {
            self.problem(key, "nothing", kind.allowed());
        }
        parsed
    }

    /// A key with a default.
    pub(super) fn or<K: Kind>(
        &mut self,
        key: &'static str,
        kind: K,
        default: K::Out,
        doc: &'static str,
    ) -> K::Out {
        self.declare(key, doc, || Declaration::key(&kind, false, Some(kind.show(&default))));
        self.parse(key, &kind).unwrap_or(default)
    }

    /// A key that is off when it is left out.
    pub(super) fn optional<K: Kind>(
        &mut self,
        key: &'static str,
        kind: K,
        doc: &'static str,
    ) -> Option<K::Out> {
        self.declare(key, doc, || Declaration::key(&kind, false, None));
        self.parse(key, &kind)
    }

    /// A key that is known but that this version cannot serve.
    pub(super) fn unbuilt(&mut self, key: &'static str, capability: &'static str) {
        self.declare(key, capability, || Declaration::Unbuilt);
        if self.value(key).is_some() {
            self.record(key, "a value".to_owned(), Expected::Unbuilt(capability));
        }
    }

    /// A table within this one. An optional one that is left out is read as an
    /// empty one: its keys have defaults.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        presence: Presence,
        doc: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        self.declare(key, doc, || Declaration::Section(presence));
        let empty = Dict::new();
        let table = match self.value(key) {
            Some(Value::Dict(_, table)) => table,
            Some(other) => {
                self.problem(key, describe(other), "a table".to_owned());
                return None;
            }
            None if presence == Presence::Required && self.table.is_some() => {
                self.problem(key, "nothing", format!("a table, [{}{key}]", self.prefix));
                return None;
            }
            None => &empty,
        };
        let table = (!self.findings.describing).then_some(table);
        Some(self.descend(key, table, self.row.clone(), read))
    }

    /// A table that switches a capability on; `None` when it is left out.
    pub(super) fn switch<T>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        if !self.given(key) && !self.findings.describing {
            self.known.push(key);
            return None;
        }
        self.section(key, Presence::Optional, doc, read)
    }

    /// Tables of one name, `[[route]]` say, at least one; wrong ones are `None`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        mut read: impl FnMut(&mut Reader<'_>) -> Option<T>,
    ) -> Vec<Option<T>> {
        self.declare(key, doc, || Declaration::Tables);
        let name = format!("[[{}{key}]]", self.prefix);
        if self.findings.describing {
            self.descend(key, None, None, read);
            return Vec::new();
        }
        let rows = self.rows(key);
        if rows.is_empty() && self.table.is_some() {
            let found = self.value(key).map_or_else(|| "nothing".to_owned(), describe);
            self.problem(key, found, format!("at least one table {name}"));
        }
        let mut values = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let place = Some(format!("{name} no. {}", index + 1));
            let Some(table) = row.as_dict() else {
                self.problem(key, describe(row), "tables".to_owned());
                values.push(None);
                continue;
            };
            values.push(self.descend(key, Some(table), place, &mut read));
        }
        values
    }

    /// The text at one key of every row of a list of tables, as it stands there.
    pub(super) fn texts(&self, tables: &str, key: &str) -> Vec<Option<String>> {
        texts_of(&self.rows(tables), key)
    }

    /// The same for a list of tables within a section.
    pub(super) fn texts_within(
        &self,
        section: &str,
        tables: &str,
        key: &str,
    ) -> Vec<Option<String>> {
        let value = self.value(section).and_then(|section| section.as_dict()?.get(tables));
        value.map(|value| texts_of(&self.rows_of(value), key)).unwrap_or_default()
    }

    /// The text at a key of a section, as it stands there.
    pub(super) fn text_within(&self, section: &str, key: &str) -> Option<String> {
        self.value(section)?.as_dict()?.get(key)?.as_str().map(str::to_owned)
    }

    /// Whether the document says something at this key.
    pub(super) fn given(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Whether a table is read that does not say anything at this key.
    pub(super) fn is_missing(&self, key: &str) -> bool {
        self.table.is_some_and(|table| !table.contains_key(key))
    }

    /// Whether nothing in this table was wrong so far: the moment for checks that
    /// compare its values.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.problems.len() == self.problems_before && self.table.is_some()
    }

    /// A path as written, from the folder of the configuration file.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.document.resolve(path)
    }

    /// The document that is read.
    pub(super) fn document(&self) -> &'a Document {
        self.document
    }

    /// Something is wrong with a key of this table.
    pub(super) fn problem(&mut self, key: &str, found: impl Into<String>, allowed: String) {
        self.record(key, found.into(), Expected::Allowed(allowed));
    }

    /// A value of a key is known, but this version cannot serve it.
    pub(super) fn refuse_unbuilt(&mut self, key: &str, found: String, capability: &'static str) {
        self.record(key, found, Expected::Unbuilt(capability));
    }

    /// Whether a folder is there; the empty path is the folder we are in.
    pub(super) fn folder_exists(&self, folder: &Path) -> bool {
        self.findings.describing || folder.as_os_str().is_empty() || folder.is_dir()
    }

    /// Whether everybody on the machine may read a file.
    pub(super) fn is_readable_by_everybody(&self, file: &Path) -> bool {
        let metadata = fs::metadata(self.resolve(file));
        metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
    }

    /// Something is wrong with a key of a row of tables; rows count from 0.
    pub(super) fn problem_in(&mut self, at: (&str, usize, &str), found: String, allowed: String) {
        let (tables, index, key) = at;
        let rows = self.rows(tables);
        let value = rows.get(index).and_then(|row| row.as_dict()?.get(key));
        let source = value.map_or_else(|| self.source(tables), |it| self.document.source_of(it));
        let row = Some(format!("[[{}{tables}]] no. {}", self.prefix, index + 1));
        let key = format!("{}{tables}.{key}", self.prefix);
        let expected = Expected::Allowed(allowed);
        self.findings.problems.push(Problem { source, key, row, found, expected });
    }

    /// Something is allowed, but risky.
    pub(super) fn note(&mut self, key: &str, text: &str) {
        let row = self.row.as_ref().map(|row| format!(" in {row}")).unwrap_or_default();
        let line = format!("{}: {}{key}{row}: {text}", self.source(key), self.prefix);
        self.findings.notes.push(line);
    }

    /// Declares a key of this table.
    pub(super) fn declare(
        &mut self,
        key: &'static str,
        doc: &'static str,
        what: impl FnOnce() -> Declaration,
    ) {
        self.known.push(key);
        if self.findings.describing {
            let path = format!("{}{key}", self.prefix);
            self.findings.declared.push(Declared { path, doc, what: what() });
        }
    }

    fn descend<T>(
        &mut self,
        key: &'static str,
        table: Option<&Dict>,
        row: Option<String>,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> T {
        let mut reader = Reader {
            document: self.document,
            table,
            prefix: format!("{}{key}.", self.prefix),
            row,
            known: Vec::new(),
            problems_before: self.findings.problems.len(),
            findings: self.findings,
        };
        let value = read(&mut reader);
        reader.refuse_unknown();
        value
    }

    fn refuse_unknown(&mut self) {
        let Some(table) = self.table else { return };
        let known = std::mem::take(&mut self.known);
        for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
            let allowed = match nearest(key, &known) {
                Some(near) => format!("{}{near}, perhaps?", self.prefix),
                None => known.join(", "),
            };
            self.problem(key, "an unknown key", allowed);
        }
    }

    /// What the document says at this key.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.table?.get(key)
    }

    fn rows(&self, key: &str) -> Vec<Value> {
        self.value(key).map(|value| self.rows_of(value)).unwrap_or_default()
    }

    fn rows_of(&self, value: &Value) -> Vec<Value> {
        let parsed: Value = match value {
            // The environment may replace a whole list of tables.
            Value::String(_, text) if self.document.is_from_environment(value) => {
                let Ok(parsed) = text.parse();
                parsed
            }
            other => other.clone(),
        };
        parsed.into_array().unwrap_or_default()
    }

    /// Reads a key by its kind; `None` when it is left out or wrong.
    pub(super) fn parse<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<K::Out> {
        let value = self.value(key)?;
        let from_environment = self.document.is_from_environment(value);
        match kind.parse(&Raw { value, from_environment }) {
            Ok(parsed) => Some(parsed),
            Err(Fault { found, expected }) => {
                let found = found.unwrap_or_else(|| describe(value));
                let expected = expected.unwrap_or_else(|| Expected::Allowed(kind.allowed()));
                self.record(key, found, expected);
                None
            }
        }
    }

    fn record(&mut self, key: &str, found: String, expected: Expected) {
        let (source, row) = (self.source(key), self.row.clone());
        let key = format!("{}{key}", self.prefix);
        self.findings.problems.push(Problem { source, key, row, found, expected });
    }

    fn source(&self, key: &str) -> String {
        let value = self.value(key);
        value.map_or_else(|| self.document.name.clone(), |value| self.document.source_of(value))
    }
}

fn texts_of(rows: &[Value], key: &str) -> Vec<Option<String>> {
    let text = |row: &Value| row.as_dict()?.get(key)?.as_str().map(str::to_owned);
    rows.iter().map(text).collect()
}

/// A default as the documentation shows it.
pub(super) fn default_text(default: &Json) -> String {
    match default {
        Json::Array(items) if items.is_empty() => "[]".to_owned(),
        other => other.to_string(),
    }
}
