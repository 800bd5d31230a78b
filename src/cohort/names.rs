//! Names of files made of values that anybody may have written.

use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization as _;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of a part of a path. A number still fits into the 255 bytes of a file system.
const MAX_COMPONENT: usize = 235;

/// Names that Windows keeps for devices, whatever follows after a dot.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul", "conin$", "conout$"];

/// A text as one part of a path that every common file system takes.
///
/// Separators, control characters, characters that Windows forbids and those that change the
/// direction of text become `_`. A dot or space at an end becomes `_` too. An empty text becomes
/// `_`.
#[must_use]
pub fn component(text: &str) -> String {
    // macOS compares the composed form with the decomposed one.
    let mut name: String = text.nfc().map(|letter| if is_forbidden(letter) { '_' } else { letter }).collect();
    if name.len() > MAX_COMPONENT {
        name = shortened(&name);
    }
    if name.ends_with(['.', ' ']) {
        name.pop();
        name.push('_');
    }
    if name.starts_with(' ') {
        name.replace_range(..1, "_");
    }
    // A file that begins with a dot is hidden, and `.` and `..` are no names.
    if name.starts_with('.') {
        name.replace_range(..1, "_");
    }
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let is_port = |port: &str| {
        stem.strip_prefix(port).is_some_and(|number| {
            matches!(number, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
        })
    };
    if DEVICES.contains(&stem.as_str()) || is_port("com") || is_port("lpt") {
        name.insert(0, '_');
    }
    if name.is_empty() { "_".to_owned() } else { name }
}

fn is_forbidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// A long name, cut. What was cut is told by its hash, and the extension stays.
fn shortened(name: &str) -> String {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let extension = if extension.len() <= 8 && !extension.is_empty() { format!(".{extension}") } else { String::new() };
    let hash = format!("~{:016x}", xxh3_128(name.as_bytes()) as u64);
    let room = MAX_COMPONENT - hash.len() - extension.len();
    let mut end = room;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{hash}{extension}", name.get(..end).unwrap_or_default())
}

/// A path with a number before its extension: `a/b~2.dcm`. The number 1 changes nothing.
#[must_use]
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    if number <= 1 {
        return path.to_owned();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}~{number}.{extension}"),
        _ => format!("{name}~{number}"),
    };
    path.with_file_name(name)
}

/// A number for a relative path. Paths that some file system takes for one have one number.
#[must_use]
pub fn path_key(path: &Path) -> u128 {
    let folded: String = path.to_string_lossy().nfd().flat_map(char::to_lowercase).collect();
    xxh3_128(folded.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_becomes_one_name() {
        for (text, name) in [
            ("", "_"),
            (".", "_"),
            ("..", "__"),
            ("a/b\\c", "a_b_c"),
            ("a\0b\nc", "a_b_c"),
            ("Smith^John", "Smith^John"),
            ("nul", "_nul"),
            ("COM1.dcm", "_COM1.dcm"),
            ("con .x", "_con .x"),
            ("common", "common"),
            ("x. ", "x._"),
            ("a:b*c?", "a_b_c_"),
            ("\u{202e}gpj.exe", "_gpj.exe"),
            (".hidden", "_hidden"),
        ] {
            assert_eq!(component(text), name, "{text:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_and_stays_different() {
        let long = |end: &str| component(&format!("{}{end}.dcm", "ä".repeat(300)));
        assert!(long("x").len() <= MAX_COMPONENT && long("x").ends_with(".dcm"));
        assert_ne!(long("x"), long("y"));
    }

    #[test]
    fn names_that_some_file_system_takes_for_one_are_one() {
        let key = |path: &str| path_key(Path::new(path));
        assert_eq!(key("A/b.dcm"), key("a/B.DCM"));
        assert_eq!(key("M\u{fc}"), key("mu\u{308}"));
        assert_ne!(key("a/b"), key("a_b"));
    }

    #[test]
    fn a_number_stands_before_the_extension() {
        let numbered = |path: &str, number| numbered(Path::new(path), number).to_str().unwrap().to_owned();
        assert_eq!(numbered("a/b.dcm", 1), "a/b.dcm");
        assert_eq!(numbered("a/b.dcm", 2), "a/b~2.dcm");
        assert_eq!(numbered("a.b/c", 3), "a.b/c~3");
    }
}
