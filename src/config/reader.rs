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

    /// A key that must be there, but only beside what was read before it: where it
    /// stands alone, as for an editor, it may be left out.
    pub(super) fn required_here<K: Kind>(
        &mut self,
        key: &'static str,
        kind: K,
        doc: &'static str,
    ) -> Option<K::Out> {
        let allowed = kind.allowed();
        let parsed = self.optional(key, kind, doc);
        if self.is_missing(key) {
            self.problem(key, "nothing", allowed);
        }
        parsed
    }

    /// A key that is known, but has no place beside what was read before it.
    pub(super) fn refuse_foreign(&mut self, key: &'static str, allowed: &str) {
        self.known.push(key);
        if self.given(key) {
            self.problem(key, "a value", allowed.to_owned());
        }
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

    /// Reads a table within this one, and refuses what it does not know.
    pub(super) fn descend<T>(
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

    /// What says a key, with the tables around it from here on: the file's name, or
    /// the environment variable.
    pub(super) fn source(&self, path: &str) -> String {
        let mut parts = path.split('.');
        let first = parts.next().and_then(|key| self.value(key));
        let value = parts.try_fold(first, |value, key| Some(value?.as_dict()?.get(key)));
        let value = value.flatten();
        value.map_or_else(|| self.document.name.clone(), |value| self.document.source_of(value))
    }

    /// Puts a problem beside the others.
    pub(super) fn push(&mut self, problem: Problem) {
        self.findings.problems.push(problem);
    }

    /// The table's name with a dot behind it; empty for the outermost.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a document is judged.
    pub(super) fn is_reading(&self) -> bool {
        self.table.is_some()
    }

    /// Whether keys are described.
    pub(super) fn is_describing(&self) -> bool {
        self.findings.describing
    }
}

/// A default as the documentation shows it.
pub(super) fn default_text(default: &Json) -> String {
    match default {
        Json::Array(items) if items.is_empty() => "[]".to_owned(),
        other => other.to_string(),
    }
}
