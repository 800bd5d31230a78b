//! The table of all settings in docs/settings.md.

use std::fmt::Write as _;

use super::keys::{KEYS, Key};

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
