//! The commented example file that `dcmdex config init` writes.

use std::fmt::Write as _;

use super::entries::EntryTable;
use super::key::PEERS;
use super::keys::KEYS;
use crate::config::entries::ATTRIBUTE_TABLE;
use crate::config::entries::EVENTS_TABLE;
use crate::config::entries::PEER_TABLE;
use crate::config::entries::ROOT_TABLE;
use crate::config::entries::WATCH_TABLE;

/// Maximum width of a comment line.
const WIDTH: usize = 100;

/// Settings whose lines are commented out.
///
/// In a file, a relative path is relative to the file. So the default in a file means another place
/// than the default without it. Beside a file in `/etc`, for example, a service cannot write.
const COMMENTED: [&str; 2] = ["index", "storage"];

/// Settings that the example does not set to their defaults. A file written by hand in a hurry
/// needs no end line, but a carefully made one should have it.
const SET: [(&str, &str); 1] = [("require_end", "true")];

/// Returns a `dcmdex.toml` with every setting, its default, and the cost of a value that is too low
/// or too high. The settings of `SET` differ from their defaults.
#[must_use]
pub fn example() -> String {
    let mut text = String::new();
    comment(
        &mut text,
        "Settings of dcmdex. Every value here is the default, so a missing line changes nothing. A command line option \
         overrides a variable (DCMDEX_PORT, DCMDEX_SCAN__JOBS), and a variable overrides this file. An unknown name is an \
         error. `dcmdex config check` checks this file. `dcmdex config show` prints the effective values and the origin of \
         each.",
    );
    let mut section = "";
    for key in KEYS {
        let (table, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if table != section {
            if section.is_empty() {
                attributes(&mut text);
                watches(&mut text);
                roots(&mut text);
                receivers(&mut text);
                peers(&mut text);
            }
            section = table;
            let _ = write!(text, "\n[{table}]\n");
        }
        text.push('\n');
        comment(&mut text, key.help);
        comment(&mut text, &format!("Unit: {}.", key.unit));
        cost(&mut text, "Too low", key.too_low);
        cost(&mut text, "Too high", key.too_high);
        let sign = if COMMENTED.contains(&key.path) { "# " } else { "" };
        let value = SET.iter().find(|(path, _)| *path == key.path).map_or(key.default, |(_, value)| value);
        let _ = writeln!(text, "{sign}{name} = {value}");
    }
    text.push_str("\n# end\n");
    text
}

fn peers(text: &mut String) {
    let _ = write!(text, "\n[{PEERS}]\n\n");
    comment(
        text,
        "Destinations of C-MOVE: AE titles of other nodes, each with \"HOST:PORT\". The option --peer AET=HOST:PORT \
         adds one. This table does not say who may call. The next table does.",
    );
    text.push_str("# ARCHIVE = \"pacs.example.org:104\"\n\n");
    comment(
        text,
        "The table of peers: one [[peer]] for each node that may associate. If there is an entry, all other nodes are \
         rejected (calling AE title not recognized). SIGHUP reads the table again.",
    );
    entry(text, &PEER_TABLE);
}

fn watches(text: &mut String) {
    text.push('\n');
    comment(
        text,
        "Watched directories, one [[watch]] for each. `serve` looks at them again and again, so that the index stays \
         current. SIGHUP reads the table again.",
    );
    entry(text, &WATCH_TABLE);
}

fn roots(text: &mut String) {
    text.push('\n');
    comment(
        text,
        "Roots of an index in a database, one [[root]] for each. The index keeps files below a root relative to it, so that \
         each node may have the directory at a place of its own (docs/sites.md).",
    );
    entry(text, &ROOT_TABLE);
}

fn receivers(text: &mut String) {
    text.push('\n');
    comment(
        text,
        "Receivers of events, one [[events]] for each: programs that the node tells of complete studies and more \
         (docs/events.md).",
    );
    entry(text, &EVENTS_TABLE);
}

fn attributes(text: &mut String) {
    text.push('\n');
    comment(
        text,
        "Declared attributes, one [[attribute]] for each. The index keeps, matches and returns them in addition to the \
         attributes of its table (docs/conformance.md). The next scan of a directory reads objects again that were \
         indexed before. It first reports how long that takes.",
    );
    entry(text, &ATTRIBUTE_TABLE);
}

/// Writes an entry of a table, commented out.
fn entry(text: &mut String, table: &EntryTable) {
    let _ = writeln!(text, "#\n# [[{}]]", table.name);
    for key in table.keys {
        lines(text, "# #", key.help);
        let _ = writeln!(text, "# {} = {}", key.name, key.example);
    }
}

/// Writes the cost of a value. If the setting is a choice, the text begins with the name of the
/// value, which replaces the label.
fn cost(text: &mut String, label: &str, what: &str) {
    let names_a_choice = what.split_once(": ").is_some_and(|(name, _)| !name.contains(' '));
    if names_a_choice {
        comment(text, &format!("{what}."));
    } else if !what.is_empty() {
        comment(text, &format!("{label}: {what}."));
    }
}

/// Writes text as comment lines that break between words.
fn comment(text: &mut String, sentence: &str) {
    lines(text, "#", sentence);
}

fn lines(text: &mut String, prefix: &str, sentence: &str) {
    let mut line = prefix.to_owned();
    for word in sentence.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = prefix.to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::layers::Layers;
    use crate::config::setting::Origin;
    use crate::config::{Config, Sources};

    #[test]
    fn the_example_sets_every_setting_to_its_default() {
        let (mut layers, mut problems) = (Layers::new(), Vec::new());
        let text = example().replace("\n# index = ", "\nindex = ").replace("\n# storage = ", "\nstorage = ");
        layers.add_file(Path::new("dcmdex.toml"), &text, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        for key in KEYS {
            let setting = layers.setting(key.path);
            let is_set = SET.iter().any(|(path, _)| *path == key.path);
            assert_eq!(setting.value == key.default_value(), !is_set, "{}", key.path);
            assert!(matches!(setting.origin, Origin::File { .. }), "{} is not in the example", key.path);
        }
    }

    #[test]
    fn the_example_changes_nothing_wherever_it_lies() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dcmdex.toml");
        std::fs::write(&file, example()).unwrap();
        let load = |file| Config::load(&Sources { file, ..Sources::default() }, Path::new("/nowhere")).unwrap();
        let (with, without) = (load(Some(file)), load(None));
        assert_eq!((&with.index, &with.storage), (&without.index, &without.storage));
        let values = |config: &Config| -> Vec<_> {
            let others = config.settings().filter(|(path, _)| SET.iter().all(|(set, _)| set != path));
            others.map(|(path, setting)| (path.to_owned(), setting.value.clone())).collect()
        };
        assert_eq!(values(&with), values(&without));
    }

    #[test]
    fn the_commented_peer_is_one() {
        let text = example().replace("# ARCHIVE", "ARCHIVE");
        let (mut layers, mut problems) = (Layers::new(), Vec::new());
        layers.add_file(Path::new("dcmdex.toml"), &text, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(
            layers.setting("peers.ARCHIVE").value.as_str().unwrap().parse::<crate::model::peer::PeerAddress>().is_ok()
        );
    }

    #[test]
    fn the_commented_table_of_peers_is_one() {
        let text = example();
        let table = text.split_once("# [[peer]]").unwrap().1.split("\n[").next().unwrap();
        let table: String = table.lines().map(|line| line.strip_prefix("# ").unwrap_or("").to_owned() + "\n").collect();
        let (mut layers, mut problems) = (Layers::new(), Vec::new());
        layers.add_file(Path::new("dcmdex.toml"), &format!("[[peer]]\n{table}"), &mut problems);
        let peers = crate::config::peers::peers(&layers, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!((peers.table.map(|table| table.len()), peers.destinations.len()), (Some(1), 1));
    }

    #[test]
    fn the_commented_attribute_can_be_declared() {
        let text = example();
        let from = text.find("# [[attribute]]").unwrap();
        let lines = text[from..].lines().take_while(|line| line.starts_with('#'));
        let text: String = lines.map(|line| format!("{}\n", &line[2..])).collect();
        let (mut layers, mut problems) = (Layers::new(), Vec::new());
        layers.add_file(Path::new("dcmdex.toml"), &text, &mut problems);
        let declared = crate::config::attributes::declared(&layers, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(declared.attributes().len(), 1);
    }

    #[test]
    fn the_commented_watch_is_one() {
        let text = example();
        let from = text.find("# [[watch]]").unwrap();
        let lines = text[from..].lines().take_while(|line| line.starts_with('#'));
        let text: String = lines.map(|line| format!("{}\n", &line[2..])).collect();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dcmdex.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&Sources { file: Some(file), ..Sources::default() }, Path::new("/nowhere")).unwrap();
        assert_eq!(config.watches.len(), 1);
        assert_eq!(config.watches[0].plan.to_string(), "every 15m and at 02:00");
    }

    #[test]
    fn comments_stay_within_their_width() {
        assert!(example().lines().all(|line| line.len() <= WIDTH), "{}", example());
    }
}
