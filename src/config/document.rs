//! The text of the configuration: one TOML file with the environment laid over
//! it, every value still knowing where it came from. Knows no key.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use super::problem::{Expected, Problem};
use crate::ambient::Timestamp;

/// What begins the name of an environment variable that overrides a key.
const ENVIRONMENT_PREFIX: &str = "BINDGATE_";
/// The largest configuration file, or file named by it, that is read, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// File and environment, merged but not judged.
pub(super) struct Document {
    root: Dict,
    layers: Figment,
    /// How the file is called in problems.
    pub(super) name: String,
    /// The folder that relative paths start from.
    folder: PathBuf,
    /// Whether everybody on the machine may read the file.
    pub(super) world_readable: bool,
    /// The moment of loading, for certificates.
    pub(super) now: Timestamp,
    /// Variables that look like ours and say nothing.
    pub(super) notes: Vec<String>,
}

/// One layer of the document.
struct Layer {
    metadata: Metadata,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

impl Document {
    /// Reads a file and lays the environment over it.
    pub(super) fn read(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let name = file.display().to_string();
        let unreadable = |cause: io::Error| Problem {
            source: name.clone(),
            key: String::new(),
            row: None,
            found: format!("a file that cannot be read ({cause})"),
            expected: Expected::Allowed("a readable TOML file".to_owned()),
        };
        let text = read_bounded(file).map_err(unreadable)?;
        let text = String::from_utf8(text)
            .map_err(|_| unreadable(io::Error::new(io::ErrorKind::InvalidData, "not UTF-8")))?;
        let mode = fs::metadata(file).map_err(unreadable)?.permissions().mode();
        let mut document = Self::parse(&name, &text, environment, now)?;
        document.world_readable = mode & 0o004 != 0;
        document.folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(document)
    }

    /// Parses TOML text and lays the environment over it.
    pub(super) fn parse(
        name: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let values: Dict = Toml::from_str(text).map_err(|cause| Problem {
            source: name.to_owned(),
            key: String::new(),
            row: None,
            found: format!("what is not TOML: {}", one_line(&cause.to_string())),
            expected: Expected::Allowed("TOML 1.0".to_owned()),
        })?;
        let metadata = Metadata::from(name.to_owned(), Source::File(PathBuf::from(name)));
        let mut layers = Figment::from(Layer { metadata, values });
        let mut notes = Vec::new();
        for (variable, value) in environment {
            let Some(path) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
            if keys.len() < 2 || keys.iter().any(String::is_empty) {
                notes.push(format!(
                    "environment variable {variable}: not read, as an override is called \
                     BINDGATE_SECTION__KEY, with two underscores"
                ));
                continue;
            }
            let source = format!("environment variable {variable}");
            let metadata = Metadata::from(source.clone(), Source::Custom(source));
            layers = layers.merge(Layer { metadata, values: nested(&keys, value) });
        }
        let root = layers.data().ok().and_then(|mut data| data.remove(&Profile::Default));
        Ok(Self {
            root: root.unwrap_or_default(),
            layers,
            name: name.to_owned(),
            folder: PathBuf::new(),
            world_readable: false,
            now,
            notes,
        })
    }

    /// A document that says nothing, for describing the keys.
    pub(super) fn empty() -> Self {
        Self {
            root: Dict::new(),
            layers: Figment::new(),
            name: String::new(),
            folder: PathBuf::new(),
            world_readable: false,
            now: Timestamp::from_seconds(0),
            notes: Vec::new(),
        }
    }

    /// The outermost table.
    pub(super) fn root(&self) -> &Dict {
        &self.root
    }

    /// What said this value: the file's name, or the environment variable.
    pub(super) fn source_of(&self, value: &Value) -> String {
        // A table holds values of many sources, so that only a leaf knows its own.
        let leaf = match value {
            Value::Dict(_, values) => values.values().next().unwrap_or(value),
            other => other,
        };
        let metadata = self.layers.get_metadata(leaf.tag());
        metadata.map_or_else(|| self.name.clone(), |metadata| metadata.name.to_string())
    }

    /// Whether the environment said this value: then it is text, whatever its type.
    pub(super) fn is_from_environment(&self, value: &Value) -> bool {
        let metadata = self.layers.get_metadata(value.tag());
        metadata
            .is_some_and(|metadata| metadata.source.as_ref().is_some_and(|s| s.custom().is_some()))
    }

    /// A path as written, from the folder of the configuration file.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }
}

/// Reads a file that must not be endless.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 4 MiB"));
    }
    fs::read(path)
}

/// `a`, `b` and a value become `{a = {b = value}}`.
fn nested(keys: &[String], value: String) -> Dict {
    let mut values = Value::from(value);
    for key in keys.iter().rev() {
        values = Value::from(Dict::from([(key.clone(), values)]));
    }
    values.into_dict().unwrap_or_default()
}

/// A parser's message of several lines, without its drawing, on one.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let words = lines.filter(|line| !line.is_empty() && !line.contains('|'));
    words.collect::<Vec<_>>().join(": ")
}
