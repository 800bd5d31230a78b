//! Tables that a file may have any number of, `[[peer]]` and `[[attribute]]`: their entries as they stand in the file.

use std::collections::BTreeMap;

use toml::Value;

use super::Problem;
use super::keys::parse_value;
use super::layers::{Origin, Setting};

/// One key of an entry.
#[derive(Debug)]
pub(super) struct EntryKey {
    /// Its name.
    pub(super) name: &'static str,
    /// A value, as written in TOML.
    pub(super) example: &'static str,
    /// What it is, and what leaving it out means.
    pub(super) help: &'static str,
}

impl EntryKey {
    fn has_type_of(&self, value: &Value) -> bool {
        parse_value(self.example).is_some_and(|example| example.same_type(value))
    }
}

/// A table of entries: what may stand in it, and how messages call it.
#[derive(Debug)]
pub(super) struct EntryTable {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// The keys of an entry, in the order of the shipped example.
    pub(super) keys: &'static [EntryKey],
    /// One entry, with its article.
    pub(super) one: &'static str,
    /// How the table is written.
    pub(super) form: &'static str,
}

/// An entry as it stands in the file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) fields: BTreeMap<String, Setting>,
}

impl Entry {
    /// Its fields in the order of the keys.
    pub(super) fn in_order<'a>(&'a self, table: &'static EntryTable) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        table.keys.iter().filter_map(|key| Some((key.name, self.fields.get(key.name)?)))
    }
}

/// Takes the fields of an entry that have a known name and the right type.
pub(super) fn entry(
    table: &EntryTable,
    origin: Origin,
    fields: impl IntoIterator<Item = (String, Option<Value>, Origin)>,
    problems: &mut Vec<Problem>,
) -> Entry {
    let mut known = BTreeMap::new();
    for (name, value, origin) in fields {
        let Some(key) = table.keys.iter().find(|key| key.name == name) else {
            let near = table.keys.iter().map(|key| (strsim::damerau_levenshtein(&name, key.name), key.name)).min();
            let hint = near.filter(|(distance, _)| *distance <= 2).map(|(_, name)| format!("; did you mean `{name}`?"));
            let hint = hint.unwrap_or_default();
            problems.push(Problem { origin, message: format!("unknown setting `{name}` of {}{hint}", table.one) });
            continue;
        };
        match value {
            Some(value) if key.has_type_of(&value) => {
                known.insert(name, Setting { value, origin });
            }
            _ => problems.push(Problem { origin, message: format!("`{name}` is written as in {}", key.example) }),
        }
    }
    Entry { origin, fields: known }
}
