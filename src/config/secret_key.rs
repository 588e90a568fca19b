//! Secrets: each key has a twin that names a file, so that the configuration
//! itself can be read by others.

use figment::value::Value;

use super::declaration::Declaration;
use super::document::read_bounded;
use super::kind::{self, Kind as _};
use super::reader::Reader;
use crate::secret::Secret;

impl Reader<'_> {
    /// A secret that must be there beside what was read before it, inline or by the
    /// file that its twin names.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        twin: &'static str,
        doc: &'static str,
    ) -> Option<Secret<String>> {
        let twin_doc = "The file that holds it instead; a line end after it does not count.";
        self.declare(key, doc, || Declaration::secret(twin));
        self.declare(twin, twin_doc, || Declaration::key(&kind::file(), false, None));
        match (self.value(key), self.value(twin)) {
            (Some(inline), Some(by_file)) => {
                let environment = |value| self.document().is_from_environment(value);
                match (environment(inline), environment(by_file)) {
                    (true, false) => self.inline_secret(key, inline),
                    (false, true) => self.secret_file(twin),
                    _ => {
                        let found = format!("both {key} and {twin}");
                        self.problem(key, found, "one of them".to_owned());
                        None
                    }
                }
            }
            (Some(inline), None) => self.inline_secret(key, inline),
            (None, Some(_)) => self.secret_file(twin),
            (None, None) => {
                if self.is_missing(twin) {
                    self.problem(twin, "nothing", format!("{}, or {key}", kind::file().allowed()));
                }
                None
            }
        }
    }

    /// A secret that may be left out, inline or by the file that its twin names.
    pub(super) fn optional_secret(
        &mut self,
        key: &'static str,
        twin: &'static str,
        doc: &'static str,
    ) -> Option<Secret<String>> {
        if self.given(key) || self.given(twin) {
            return self.secret(key, twin, doc);
        }
        let twin_doc = "The file that holds it instead; a line end after it does not count.";
        self.declare(key, doc, || Declaration::secret(twin));
        self.declare(twin, twin_doc, || Declaration::key(&kind::file(), false, None));
        None
    }

    /// A secret that only a file holds; `None` when it is left out or wrong.
    pub(super) fn secret_in_file(
        &mut self,
        key: &'static str,
        doc: &'static str,
    ) -> Option<Secret<String>> {
        self.declare(key, doc, || Declaration::key(&kind::file(), false, None));
        self.given(key).then(|| self.secret_file(key)).flatten()
    }

    fn inline_secret(&mut self, key: &'static str, value: &Value) -> Option<Secret<String>> {
        let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
            self.problem(key, "no text", "the secret as text, not empty".to_owned());
            return None;
        };
        if self.document().world_readable && !self.document().is_from_environment(value) {
            let found = "a secret in a file that everybody on the machine may read";
            self.problem(key, found, format!("{key}_file, or a file of mode 0640 or less"));
            return None;
        }
        Some(Secret::new(text.to_owned()))
    }

    fn secret_file(&mut self, twin: &'static str) -> Option<Secret<String>> {
        let path = self.parse(twin, &kind::file())?;
        let path = self.resolve(&path);
        let read = read_bounded(&path)
            .map_err(|cause| format!("{}, which cannot be read ({cause})", path.display()));
        let text = read.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| "a file that is not UTF-8".to_owned())
        });
        let text = match text {
            Ok(text) => Secret::new(text),
            Err(found) => {
                self.problem(twin, found, "a readable file with one line".to_owned());
                return None;
            }
        };
        if self.is_readable_by_everybody(&path) {
            self.note(twin, "everybody on the machine may read this file");
        }
        let line = text.expose().strip_suffix('\n').unwrap_or(text.expose());
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            self.problem(twin, "an empty file", "a file with one line".to_owned());
            return None;
        }
        // Taken as it stands it would be refused, and an account perhaps locked for it.
        if line.contains(['\n', '\r', '\0']) {
            let found = "a file with more than one line, or with a NUL";
            self.problem(twin, found, "a file with one line".to_owned());
            return None;
        }
        Some(Secret::new(line.to_owned()))
    }
}
