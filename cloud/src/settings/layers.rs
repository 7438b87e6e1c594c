//! Flags before the environment, before the file, before the defaults.
//!
//! Every layer is laid over a table of the defaults, and the settings are read from the table; beside
//! each value stands where it came from. A layer with a mistake is left out, so that the mistakes of
//! the others are found in the same run.

use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{Finding, Origin, Settings};

/// What the variables of the environment begin with.
pub const PREFIX: &str = "OUTRIGGER_CLOUD_";
/// The variable that names the file.
pub const FILE_VARIABLE: &str = "OUTRIGGER_CLOUD_CONFIG";
/// The file's name in the data folder.
pub const FILE_NAME: &str = "cloud.toml";
/// Variables that others gave a name, and what they mean here.
const ALIASES: [(&str, &str); 1] = [("RUST_LOG", "log.filter")];

/// A value from the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// Its name, with the dashes.
    pub flag: &'static str,
    /// `section.key`.
    pub key: &'static str,
    /// What it says.
    pub value: Value,
}

/// What settings are made from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that the command line names.
    pub file: Option<PathBuf>,
    /// The command line.
    pub flags: Vec<Flag>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// One value that holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effective {
    /// `section.key`.
    pub key: String,
    /// The value.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// Settings that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Every value, with its origin.
    pub values: Vec<Effective>,
}

/// The table while layers are laid over it.
struct Pile {
    table: Table,
    origins: BTreeMap<String, Origin>,
    findings: Vec<Finding>,
}

/// Reads all layers.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Finding>> {
    let table = Table::try_from(Settings::default()).unwrap_or_default();
    let mut pile = Pile { table, origins: BTreeMap::new(), findings: Vec::new() };
    let said = variables(&sources.environment);
    let file = find_file(sources, &said);
    if let Some(path) = &file {
        pile.lay_file(path);
    }
    for (variable, text) in said {
        pile.lay_variable(&variable, &text);
    }
    for flag in &sources.flags {
        let origin = Origin::Flag { flag: flag.flag };
        pile.lay(flag.key, flag.value.clone(), origin);
    }
    pile.finish(file)
}

/// Ours, and those that have a meaning here; ours last, so that they hold.
fn variables(environment: &[(OsString, OsString)]) -> Vec<(String, String)> {
    let text = |(name, value): &(OsString, OsString)| {
        Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()))
    };
    let mut said: Vec<_> = environment.iter().filter_map(text).collect();
    said.retain(|(name, _)| name.starts_with(PREFIX) || alias(name).is_some());
    said.sort_by_key(|(name, _)| (alias(name).is_none(), name.clone()));
    said
}

fn alias(variable: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(name, _)| *name == variable).map(|(_, key)| *key)
}

/// The named file; else the one in the data folder, where there is one.
fn find_file(sources: &Sources, said: &[(String, String)]) -> Option<PathBuf> {
    let variable = |wanted: &str| {
        let found = said.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| PathBuf::from(value))
    };
    let named = sources.file.clone().or_else(|| variable(FILE_VARIABLE));
    named.or_else(|| {
        let flag = sources.flags.iter().find(|flag| flag.key == "server.data_dir");
        let flag = flag.and_then(|flag| flag.value.as_str()).map(PathBuf::from);
        let folder = flag.or_else(|| variable("OUTRIGGER_CLOUD_SERVER_DATA_DIR"))?;
        Some(folder.join(FILE_NAME)).filter(|path| path.exists())
    })
}

impl Pile {
    fn lay_file(&mut self, path: &Path) {
        let whole = || Origin::File { path: path.to_owned(), line: None };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let hint = "name another with --config FILE";
                return self.find(whole(), None, format!("cannot read the file: {error}"), hint);
            }
        };
        if let Err(error) = toml::from_str::<Settings>(&text) {
            let line = error.span().map(|span| line_of(&text, &span));
            let origin = Origin::File { path: path.to_owned(), line };
            let hint = "cloud/packaging/cloud.toml shows every setting";
            return self.find(origin, None, error.message().to_owned(), hint);
        }
        let table: Table = toml::from_str(&text).unwrap_or_default();
        let lines = DeTable::parse(&text).map(|parsed| lines(&text, &parsed.into_inner()));
        let lines = lines.unwrap_or_default();
        for (key, value) in flatten(&table) {
            let line = lines.get(&key).copied();
            put(&mut self.table, &key, value);
            self.origins.insert(key, Origin::File { path: path.to_owned(), line });
        }
    }

    fn lay_variable(&mut self, variable: &str, text: &str) {
        if variable == FILE_VARIABLE {
            return;
        }
        let origin = Origin::Environment { variable: variable.to_owned() };
        let name = variable.strip_prefix(PREFIX).unwrap_or_default().to_lowercase();
        let key = alias(variable).map_or_else(|| self.key_of(&name), str::to_owned);
        match get(&self.table, &key) {
            Some(now) => {
                let value = value_like(now, text);
                self.lay(&key, value, origin);
            }
            None => {
                let hint = format!("variables are named {PREFIX}SECTION_KEY");
                self.find(origin, None, format!("there is no setting {key}"), &hint);
            }
        }
    }

    /// `section_key` as `section.key`; sections may have an underscore in their own name.
    fn key_of(&self, name: &str) -> String {
        let splits = name.match_indices('_').map(|(at, _)| name.split_at(at));
        let keys = splits.map(|(section, key)| format!("{section}.{}", &key[1..]));
        let mut keys: Vec<_> = keys.collect();
        let known = keys.iter().position(|key| get(&self.table, key).is_some());
        if keys.is_empty() { name.to_owned() } else { keys.swap_remove(known.unwrap_or(0)) }
    }

    /// Lays one value, unless the settings cannot be read with it.
    fn lay(&mut self, key: &str, value: Value, origin: Origin) {
        let mut table = self.table.clone();
        put(&mut table, key, value);
        match table.clone().try_into::<Settings>() {
            Ok(_) => {
                self.table = table;
                self.origins.insert(key.to_owned(), origin);
            }
            Err(error) => {
                self.find(origin, Some(key.to_owned()), error.message().to_owned(), "");
            }
        }
    }

    fn find(&mut self, origin: Origin, key: Option<String>, error: String, hint: &str) {
        self.findings.push(Finding { origin, key, error, hint: hint.to_owned() });
    }

    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, Vec<Finding>> {
        let settings = match self.table.clone().try_into::<Settings>() {
            Ok(settings) => settings,
            Err(error) => {
                // Only a fault of this program: each layer was tried before it was laid.
                self.find(Origin::Default, None, error.message().to_owned(), "");
                return Err(self.findings);
            }
        };
        for objection in settings.objections() {
            let origin = self.origin(objection.key);
            self.find(origin, Some(objection.key.into()), objection.error, &objection.hint);
        }
        if !self.findings.is_empty() {
            return Err(self.findings);
        }
        let values = flatten(&self.table).into_iter();
        let values = values.map(|(key, value)| Effective { origin: self.origin(&key), key, value });
        let values = values.collect();
        Ok(Loaded { settings, file, values })
    }
}

/// A text as a value of the kind that stands there now. Lists may be written with commas.
fn value_like(now: &Value, text: &str) -> Value {
    let parsed = || -> Option<Value> {
        let mut table: Table = toml::from_str(&format!("value = {text}")).ok()?;
        table.remove("value")
    };
    match now {
        Value::String(_) => text.into(),
        Value::Array(_) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(Value::from).collect())
        }
        _ => parsed().unwrap_or_else(|| text.into()),
    }
}

/// The section whose tables bear names that a person chose, with dots in them perhaps: it is one value.
const NAMED: &str = "models";

/// The leaves of a table, by their whole names.
pub(super) fn flatten(table: &Table) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) if name != NAMED => {
                let inner = flatten(inner).into_iter();
                leaves.extend(inner.map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            leaf => drop(leaves.insert(name.clone(), leaf.clone())),
        }
    }
    leaves
}

fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key).filter(|value| key == NAMED || !value.is_table()),
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
    }
}

fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The line of every leaf.
fn lines(text: &str, table: &DeTable<'_>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (name, value) in table {
        match value.get_ref() {
            DeValue::Table(inner) if name.get_ref() != NAMED => {
                let inner = lines(text, inner).into_iter();
                found.extend(inner.map(|(key, line)| (format!("{}.{key}", name.get_ref()), line)));
            }
            _ => drop(found.insert(name.get_ref().to_string(), line_of(text, &name.span()))),
        }
    }
    found
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
