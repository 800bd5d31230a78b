//! The table of all settings in docs/settings.md.

use std::fmt::Write as _;

use super::key::Key;
use super::keys::KEYS;

/// Returns the table of all settings in Markdown. Each row is a row of [`KEYS`].
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    let mut section = None;
    for key in KEYS {
        let (table, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if section != Some(table) {
            section = Some(table);
            let title = if table.is_empty() { "At the top of the file".to_owned() } else { format!("`[{table}]`") };
            let _ = write!(text, "\n### {title}\n\n");
            text.push_str("| Setting | Default | Values | Meaning | Option |\n|---|---|---|---|---|\n");
        }
        let option = key.flag.map(|flag| format!("`{} {}`", flag.command, flag.option)).unwrap_or_default();
        let (default, unit, meaning) = (key.default, escaped(key.unit), escaped(&meaning(key)));
        let _ = writeln!(text, "| `{name}` | `{default}` | {unit} | {meaning} | {option} |");
    }
    text.push('\n');
    text
}

/// Returns the sections of the conformance statement (PS3.2) about settings: their names in the
/// document, and their texts in Markdown.
#[must_use]
pub fn conformance_sections() -> Vec<(&'static str, String)> {
    const OF_THE_NODE: [&str; 6] = ["ae_title", "bind", "access", "port", "metadata_only", "accept_any_called_ae"];
    let is_in = |key: &Key, tables: &[&str]| key.path.split_once('.').is_some_and(|(table, _)| tables.contains(&table));
    let of_peers =
        |key: &Key| OF_THE_NODE.contains(&key.path) || is_in(key, &["tls", "store", "find", "retrieve", "commitment"]);
    vec![
        ("settings of associations", settings(|key| is_in(key, &["network"]))),
        ("settings that peers notice", settings(of_peers)),
    ]
}

/// Writes some settings with their whole names.
fn settings(is_meant: impl Fn(&Key) -> bool) -> String {
    let mut text = String::from("| Setting | Default | Values | Meaning |\n|---|---|---|---|\n");
    for key in KEYS.iter().filter(|key| is_meant(key)) {
        let (unit, help) = (escaped(key.unit), escaped(key.help));
        let _ = writeln!(text, "| `{}` | `{}` | {unit} | {help} |", key.path, key.default);
    }
    text
}

/// Returns the meaning of a setting, with its costs.
fn meaning(key: &Key) -> String {
    let cost = |label: &str, what: &str| {
        // The cost of a choice begins with the name of the choice.
        let choice = what.split_once(": ").filter(|(name, _)| !name.contains(' '));
        match (what, choice) {
            ("", _) => String::new(),
            (_, Some((name, cost))) => format!(" `{name}`: {cost}."),
            (what, None) => format!(" {label}: {what}."),
        }
    };
    format!("{}{}{}", key.help, cost("Too low", key.too_low), cost("Too high", key.too_high))
}

/// Escapes the characters that mean something in a table of Markdown.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
