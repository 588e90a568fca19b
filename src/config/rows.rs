//! Lists of tables such as `[[route]]`: rows read one by one, counted from 1 in
//! messages, and looked into by the checks that compare rows.

use figment::value::Value;

use super::declaration::Declaration;
use super::kind::describe;
use super::problem::{Expected, Problem};
use super::reader::Reader;

impl Reader<'_> {
    /// Tables of one name, `[[route]]` say, at least one; wrong ones are `None`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        mut read: impl FnMut(&mut Reader<'_>) -> Option<T>,
    ) -> Vec<Option<T>> {
        self.declare(key, doc, || Declaration::Tables);
        let name = format!("[[{}{key}]]", self.prefix());
        if self.is_describing() {
            self.descend(key, None, None, read);
            return Vec::new();
        }
        let rows = self.rows(key);
        if rows.is_empty() && self.is_reading() {
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

    /// Something is wrong with a key of a row of tables; rows count from 0.
    pub(super) fn problem_in(&mut self, at: (&str, usize, &str), found: String, allowed: String) {
        let (tables, index, key) = at;
        let rows = self.rows(tables);
        let value = rows.get(index).and_then(|row| row.as_dict()?.get(key));
        let source = value.map_or_else(|| self.source(tables), |it| self.document().source_of(it));
        let row = Some(format!("[[{}{tables}]] no. {}", self.prefix(), index + 1));
        let key = format!("{}{tables}.{key}", self.prefix());
        let expected = Expected::Allowed(allowed);
        self.push(Problem { source, key, row, found, expected });
    }

    fn rows(&self, key: &str) -> Vec<Value> {
        self.value(key).map(|value| self.rows_of(value)).unwrap_or_default()
    }

    fn rows_of(&self, value: &Value) -> Vec<Value> {
        let parsed: Value = match value {
            // The environment may replace a whole list of tables.
            Value::String(_, text) if self.document().is_from_environment(value) => {
                let Ok(parsed) = text.parse();
                parsed
            }
            other => other.clone(),
        };
        parsed.into_array().unwrap_or_default()
    }
}

fn texts_of(rows: &[Value], key: &str) -> Vec<Option<String>> {
    let text = |row: &Value| row.as_dict()?.get(key)?.as_str().map(str::to_owned);
    rows.iter().map(text).collect()
}
