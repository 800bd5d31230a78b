//! Settings from all sources, with the origin of each. The stronger source wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::SettingProblem;
use super::entries::{EntryTable, FileEntry, entry, known_settings};
use super::key::{Key, KeyOf, PEERS, SettingValue, VARIABLE_PREFIX, parse_value};
use super::keys::KEYS;
use crate::config::Origin;
use crate::config::Setting;
use crate::config::entries::ATTRIBUTE_TABLE;
use crate::config::entries::EVENTS_TABLE;
use crate::config::entries::PEER_TABLE;
use crate::config::entries::ROOT_TABLE;
use crate::config::entries::WATCH_TABLE;

/// All settings by dotted name.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    settings: BTreeMap<String, Setting>,
    /// The table of peers, if the file has one.
    peer_table: Option<Vec<FileEntry>>,
    /// The declared attributes, if the file has some.
    attributes: Option<Vec<FileEntry>>,
    /// The watched directories, if the file has some.
    watches: Option<Vec<FileEntry>>,
    roots: Option<Vec<FileEntry>>,
    /// The receivers of events, if the file has some.
    receivers: Option<Vec<FileEntry>>,
}

impl Layers {
    /// Creates the layer of defaults.
    pub(super) fn new() -> Self {
        let settings = KEYS
            .iter()
            .map(|key| (key.path.to_owned(), Setting { value: key.default_value(), origin: Origin::Default }))
            .collect();
        Self { settings, peer_table: None, attributes: None, watches: None, roots: None, receivers: None }
    }

    /// Adds the settings of a file. They override earlier ones.
    pub(super) fn add_file(&mut self, path: &Path, text: &str, problems: &mut Vec<SettingProblem>) {
        let at = |offset: usize| Origin::File {
            path: path.to_owned(),
            line: 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count(),
        };
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let message = match error.message() {
                    "duplicate key" => duplicate_key(text, start, &at),
                    message => message.to_owned(),
                };
                problems.push(SettingProblem { origin: at(start), message });
                return;
            }
        };
        for (name, value) in document.get_ref() {
            if name.get_ref() == PEER_TABLE.name {
                self.peer_table = entries(&PEER_TABLE, value, at(name.span().start), &at, problems);
                continue;
            }
            if name.get_ref() == PEERS && matches!(value.get_ref(), DeValue::Array(_)) {
                let message = "`[[peers]]` is no table: write [[peer]] for a peer that may associate, or [peers] with \
                               AET = \"HOST:PORT\" for destinations"
                    .to_owned();
                problems.push(SettingProblem { origin: at(name.span().start), message });
                continue;
            }
            if name.get_ref() == ATTRIBUTE_TABLE.name {
                self.attributes = entries(&ATTRIBUTE_TABLE, value, at(name.span().start), &at, problems);
                continue;
            }
            if name.get_ref() == WATCH_TABLE.name {
                self.watches = entries(&WATCH_TABLE, value, at(name.span().start), &at, problems);
                continue;
            }
            if name.get_ref() == ROOT_TABLE.name {
                self.roots = entries(&ROOT_TABLE, value, at(name.span().start), &at, problems);
                continue;
            }
            if name.get_ref() == EVENTS_TABLE.name {
                self.receivers = entries(&EVENTS_TABLE, value, at(name.span().start), &at, problems);
                continue;
            }
            match value.get_ref() {
                DeValue::Table(table) => {
                    for (inner, value) in table {
                        let path = format!("{}.{}", name.get_ref(), inner.get_ref());
                        self.add(&path, plain(value.get_ref()), at(inner.span().start), problems);
                    }
                    let is_section = name.get_ref() == PEERS
                        || KEYS.iter().any(|key| {
                            key.path.strip_prefix(name.get_ref().as_ref()).is_some_and(|rest| rest.starts_with('.'))
                        });
                    if !is_section && table.is_empty() {
                        self.add(name.get_ref(), None, at(name.span().start), problems);
                    }
                }
                other => self.add(name.get_ref(), plain(other), at(name.span().start), problems),
            }
        }
    }

    /// Returns the declared attributes as written in the file.
    pub(super) fn attributes(&self) -> &[FileEntry] {
        self.attributes.as_deref().unwrap_or_default()
    }

    /// Returns the watched directories as written in the file.
    pub(super) fn watches(&self) -> &[FileEntry] {
        self.watches.as_deref().unwrap_or_default()
    }

    /// Returns the roots as written in the file.
    pub(super) fn roots(&self) -> &[FileEntry] {
        self.roots.as_deref().unwrap_or_default()
    }

    /// Returns the receivers of events as written in the file.
    pub(super) fn receivers(&self) -> &[FileEntry] {
        self.receivers.as_deref().unwrap_or_default()
    }

    /// Returns the table of peers as written in the file. `None` if there is none.
    pub(super) fn peer_table(&self) -> Option<&[FileEntry]> {
        self.peer_table.as_deref()
    }

    /// Adds the settings of our environment variables. They override earlier ones.
    ///
    /// A variable may have our prefix but resemble no setting. It then belongs to other software,
    /// since container platforms name variables after services. Such variables are returned for a
    /// warning.
    pub(super) fn add_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        problems: &mut Vec<SettingProblem>,
    ) -> Vec<String> {
        let mut strange = Vec::new();
        let mut ours: Vec<_> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX) && name != super::CONFIG_VARIABLE)
            .collect();
        ours.sort();
        for (name, value) in ours {
            let origin = Origin::Environment(name.clone());
            let rest = &name[VARIABLE_PREFIX.len()..];
            let path = match rest.split_once("__") {
                // AE titles keep their case.
                Some((table, ae_title)) if table.eq_ignore_ascii_case(PEERS) => format!("{PEERS}.{ae_title}"),
                _ => rest.to_ascii_lowercase().replace("__", "."),
            };
            let Ok(value) = value.into_string() else {
                problems.push(SettingProblem { origin, message: "its value is not valid UTF-8".to_owned() });
                continue;
            };
            let value = if path.starts_with("peers.") {
                Some(Value::String(value))
            } else if let Some(key) = Key::by_path(&path) {
                read_as(&value, &key.default_value())
            } else if suggestion(&path).is_some() {
                None
            } else {
                strange.push(name);
                continue;
            };
            match value {
                Some(value) => self.add(&path, Some(value), origin, problems),
                None if Key::by_path(&path).is_none() => self.add(&path, None, origin, problems),
                None => problems.push(SettingProblem { origin, message: wrong_type(&path) }),
            }
        }
        strange
    }

    /// Adds the setting of a command line option. It overrides earlier ones.
    pub(super) fn add_flag(&mut self, path: &str, value: Value, flag: &str, problems: &mut Vec<SettingProblem>) {
        self.add(path, Some(value), Origin::Flag(flag.to_owned()), problems);
    }

    fn add(&mut self, path: &str, value: Option<Value>, origin: Origin, problems: &mut Vec<SettingProblem>) {
        let is_peer = path.strip_prefix(PEERS).is_some_and(|rest| rest.starts_with('.'));
        let expected = if is_peer {
            Value::String(String::new())
        } else if let Some(key) = Key::by_path(path) {
            key.default_value()
        } else {
            let near = suggestion(path).map(|name| format!("; did you mean `{name}`?"));
            let hint = near.or_else(|| beside(path)).unwrap_or_default();
            problems.push(SettingProblem { origin, message: format!("unknown setting `{path}`{hint}") });
            return;
        };
        match value {
            Some(value) if value.same_type(&expected) => {
                self.settings.insert(path.to_owned(), Setting { value, origin });
            }
            _ => problems.push(SettingProblem { origin, message: wrong_type(path) }),
        }
    }

    /// Returns all settings with their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.settings.iter().map(|(path, setting)| (path.as_str(), setting))
    }

    /// Returns a setting of the table.
    ///
    /// # Panics
    /// Panics if the table does not have the setting.
    pub(super) fn setting(&self, path: &str) -> &Setting {
        self.settings.get(path).expect("only names of the table are asked for, and each has a default")
    }

    /// Returns the effective value of a setting.
    ///
    /// # Panics
    /// Panics if the value has another type. Each source is checked against the type of the
    /// default.
    pub(super) fn value<T: SettingValue>(&self, key: KeyOf<T>) -> T::Read<'_> {
        T::read(&self.setting(key.path()).value).expect("the layers only take values of the default's type")
    }
}

/// The message for a key that stands a second time at this place of the file.
fn duplicate_key(text: &str, start: usize, at: &impl Fn(usize) -> Origin) -> String {
    let line_of = |place: usize| text.get(..place).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = text.get(line_of(start)..).unwrap_or_default();
    let key = line.split(['=', '\n']).next().unwrap_or_default().trim();
    let before = text.get(..line_of(start)).unwrap_or_default();
    // Within the same table: after the last line that begins one. A table itself may be the key.
    let from = match key.starts_with('[') {
        true => 0,
        false => before.rfind("\n[").map_or(0, |at| at + 1),
    };
    let mut place = from;
    for earlier in before.get(from..).unwrap_or_default().split_inclusive('\n') {
        if earlier.split('=').next().unwrap_or_default().trim() == key
            && let Origin::File { line, .. } = at(place)
        {
            return format!("`{key}` is set twice, first in line {line}");
        }
        place += earlier.len();
    }
    format!("`{key}` is set twice")
}

/// Reads a table of entries. `None` if it is not written as such a table.
fn entries(
    table: &EntryTable,
    value: &toml::Spanned<DeValue<'_>>,
    origin: Origin,
    at: &impl Fn(usize) -> Origin,
    problems: &mut Vec<SettingProblem>,
) -> Option<Vec<FileEntry>> {
    let form = |origin| SettingProblem { origin, message: table.form.to_owned() };
    let DeValue::Array(array) = value.get_ref() else {
        problems.push(form(origin));
        return None;
    };
    let mut entries = Vec::with_capacity(array.len());
    for value in array {
        let DeValue::Table(fields) = value.get_ref() else {
            problems.push(form(at(value.span().start)));
            continue;
        };
        let fields = fields
            .iter()
            .map(|(name, value)| (name.get_ref().clone().into_owned(), plain(value.get_ref()), at(name.span().start)));
        entries.push(entry(table, at(value.span().start), fields, problems));
    }
    Some(entries)
}

/// Returns the name that was probably meant.
fn suggestion(path: &str) -> Option<&'static str> {
    let whole = KEYS.iter().map(|key| (strsim::damerau_levenshtein(path, key.path), key.path));
    // Example: `jobs = 4` instead of `scan.jobs`.
    let last = path.rsplit('.').next().unwrap_or(path);
    let part = KEYS.iter().filter_map(|key| {
        let name = key.path.rsplit('.').next()?;
        (name == last).then_some((1, key.path))
    });
    let (distance, name) = whole.chain(part).min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + path.len() / 6).then_some(name)
}

/// The settings of the table that an unknown name is in.
fn beside(path: &str) -> Option<String> {
    let (table, _) = path.rsplit_once('.')?;
    let mut names = KEYS.iter().filter_map(|key| key.path.strip_prefix(table)?.strip_prefix('.')).peekable();
    names.peek()?;
    Some(format!("; {}", known_settings(names)))
}

/// Parses the text of a variable as a value of the same type as `like`. Commas separate the items
/// of a list.
fn read_as(text: &str, like: &Value) -> Option<Value> {
    match like {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Boolean(_) => match text {
            "1" => Some(Value::Boolean(true)),
            "0" => Some(Value::Boolean(false)),
            _ => parse_value(text),
        },
        Value::Array(_) => Some(Value::Array(
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| part.to_owned().into()).collect(),
        )),
        Value::Integer(_) | Value::Float(_) | Value::Datetime(_) | Value::Table(_) => parse_value(text.trim()),
    }
    .filter(|value| value.same_type(like))
}

/// Converts a value without its position in the text. `None` for types that no setting has.
fn plain(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::String(text.clone().into_owned())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Integer),
        DeValue::Boolean(boolean) => Some(Value::Boolean(*boolean)),
        DeValue::Array(array) => {
            array.iter().map(|value| plain(value.get_ref())).collect::<Option<_>>().map(Value::Array)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn wrong_type(path: &str) -> String {
    let expected = Key::by_path(path).map(Key::default_value).unwrap_or_else(|| Value::String(String::new()));
    let kind = match expected {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of texts",
        Value::Float(_) => "a number",
        Value::Datetime(_) => "a time",
        Value::Table(_) => "a table",
    };
    format!("`{path}` must be {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> (Layers, Vec<String>) {
        let (mut layers, mut problems) = (Layers::new(), Vec::new());
        layers.add_file(Path::new("dcmdex.toml"), text, &mut problems);
        (layers, problems.iter().map(ToString::to_string).collect())
    }

    fn with_environment(name: &str, value: &str) -> (Layers, Vec<String>, Vec<String>) {
        let (mut layers, mut problems) = (Layers::new(), Vec::new());
        let strange = layers.add_environment([(name.into(), value.into())], &mut problems);
        (layers, problems.iter().map(ToString::to_string).collect(), strange)
    }

    #[test]
    fn a_stronger_source_wins_and_is_remembered() {
        let (mut layers, mut problems) = (Layers::new(), Vec::new());
        assert_eq!(layers.setting("port").origin, Origin::Default);
        layers.add_file(Path::new("dcmdex.toml"), "\nport = 1\n", &mut problems);
        assert_eq!(layers.setting("port").origin, Origin::File { path: "dcmdex.toml".into(), line: 2 });
        layers.add_environment([("DCMDEX_PORT".into(), "2".into())], &mut problems);
        assert_eq!(layers.setting("port").value, Value::Integer(2));
        layers.add_flag("port", Value::Integer(3), "--port", &mut problems);
        assert_eq!(layers.setting("port").value, Value::Integer(3));
        assert_eq!(layers.setting("port").origin, Origin::Flag("--port".into()));
        assert!(problems.is_empty());
    }

    #[test]
    fn an_unknown_name_is_told_with_its_line_and_the_likely_one() {
        let (_, problems) = with_file("port = 104\n\n[netwrok]\nmax_associations = 5\n");
        assert_eq!(
            problems,
            ["dcmdex.toml:4: unknown setting `netwrok.max_associations`; did you mean `network.max_associations`?"]
        );
        assert_eq!(
            with_file("aetitle = \"X\"").1,
            ["dcmdex.toml:1: unknown setting `aetitle`; did you mean `ae_title`?"]
        );
        assert_eq!(with_file("jobs = 1").1, ["dcmdex.toml:1: unknown setting `jobs`; did you mean `scan.jobs`?"]);
        assert_eq!(with_file("[colours]").1, ["dcmdex.toml:1: unknown setting `colours`"]);
        let of_a_table = with_file("[event_log]\ncolour = 1").1;
        assert_eq!(of_a_table.len(), 1);
        let start = "dcmdex.toml:2: unknown setting `event_log.colour`; it can be `enabled`, ";
        assert!(of_a_table[0].starts_with(start) && of_a_table[0].contains("`keep_days`"), "{of_a_table:?}");
    }

    #[test]
    fn a_wrong_type_is_told_with_the_right_one() {
        assert_eq!(with_file("port = \"104\"").1, ["dcmdex.toml:1: `port` must be a whole number"]);
        assert_eq!(with_file("[peers]\nA = 1").1, ["dcmdex.toml:2: `peers.A` must be a text"]);
        let (_, problems, _) = with_environment("DCMDEX_METADATA_ONLY", "perhaps");
        assert_eq!(problems, ["environment variable DCMDEX_METADATA_ONLY: `metadata_only` must be true or false"]);
    }

    #[test]
    fn broken_toml_is_told_with_its_line() {
        let (_, problems) = with_file("port = 1\nindex = \n");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("dcmdex.toml:2: "), "{problems:?}");
    }

    #[test]
    fn a_key_that_is_set_twice_is_told_with_its_first_line() {
        assert_eq!(with_file("port = 1\n\nport = 2\n").1, ["dcmdex.toml:3: `port` is set twice, first in line 1"]);
        let text = "port = 1\n[tls]\nport = 1\n# x\nport = 2\n";
        assert_eq!(with_file(text).1, ["dcmdex.toml:5: `port` is set twice, first in line 3"]);
        assert_eq!(with_file("[tls]\n[log]\n[tls]\n").1, ["dcmdex.toml:3: `[tls]` is set twice, first in line 1"]);
    }

    #[test]
    fn the_table_of_peers_is_told_from_the_destinations() {
        let problems = with_file("[[peers]]\nae_title = \"A\"\n").1;
        assert!(problems.len() == 1 && problems[0].contains("write [[peer]]"), "{problems:?}");
    }

    #[test]
    fn an_almost_right_variable_is_an_error_and_a_strange_one_is_not_ours() {
        let (_, problems, strange) = with_environment("DCMDEX_PROT", "1");
        assert_eq!(problems, ["environment variable DCMDEX_PROT: unknown setting `prot`; did you mean `port`?"]);
        assert!(strange.is_empty());
        let (_, problems, strange) = with_environment("DCMDEX_SERVICE_HOST", "10.0.0.1");
        assert!(problems.is_empty());
        assert_eq!(strange, ["DCMDEX_SERVICE_HOST"]);
    }

    #[test]
    fn peers_keep_the_case_of_their_titles() {
        let (layers, problems, _) = with_environment("DCMDEX_PEERS__Archive1", "pacs:104");
        assert!(problems.is_empty());
        assert_eq!(layers.setting("peers.Archive1").value.as_str(), Some("pacs:104"));
    }

    #[test]
    fn lists_in_variables_are_separated_by_commas() {
        let (layers, _, _) =
            with_environment("DCMDEX_NETWORK__PREFERRED_TRANSFER_SYNTAXES", "1.2.840.10008.1.2.1, 1.2");
        let value = &layers.setting("network.preferred_transfer_syntaxes").value;
        assert_eq!(value.as_array().map(Vec::len), Some(2));
    }
}
