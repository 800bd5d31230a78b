//! Documents: every link has a target, and the glossary stays short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::util::generated::assert_generated;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Markdown file of the repository, without build output.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && !matches!(name.as_str(), "target" | "dcmdex-data") {
                directories.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 10, "{found:?}");
    found.sort();
    found
}

/// Returns the lines of a document outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// Returns the destinations of the inline links (`[text](destination)`) of a document.
fn links(text: &str) -> Vec<String> {
    let whole: String = prose(text).collect::<Vec<_>>().join("\n");
    // Code between back quotes holds no links.
    let without_code: String = whole.split('`').step_by(2).collect();
    let destination = |rest: &str| rest.split_once(')').map(|(link, _)| link.trim().to_owned());
    without_code.split("](").skip(1).filter_map(destination).collect()
}

/// Returns the anchors of the headings of a document, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        prose(text).filter_map(|line| line.strip_prefix('#')).map(|rest| rest.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase();
            kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>()
        })
        .map(|heading| heading.replace(' ', "-"))
        .collect()
}

/// Returns the broken links of the document at `path`.
fn broken(path: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for link in links(text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
        let target = if file.is_empty() { path.to_owned() } else { path.parent().unwrap().join(file) };
        let anchor_missing = |anchor: &str| {
            target.extension().is_some_and(|extension| extension == "md")
                && !anchors(&fs::read_to_string(&target).unwrap()).contains(anchor)
        };
        if !target.exists() || anchor.is_some_and(anchor_missing) {
            broken.push(format!("{}: {link}", path.strip_prefix(root()).unwrap_or(path).display()));
        }
    }
    broken
}

#[test]
fn relative_links_lead_to_a_file_and_a_heading() {
    let broken: Vec<_> = documents().iter().flat_map(|path| broken(path, &fs::read_to_string(path).unwrap())).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn no_link_of_a_packed_document_leads_out_of_the_package() {
    let mut python = Command::new("python3");
    let listed = python.arg(root().join("packaging/package.py")).arg("--documents").output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let package = tempfile::tempdir().unwrap();
    let documents: Vec<&str> = listed.lines().collect();
    for document in &documents {
        let packed = package.path().join(document);
        fs::create_dir_all(packed.parent().unwrap()).unwrap();
        fs::copy(root().join(document), packed).unwrap();
    }
    let packed = documents.iter().map(|document| package.path().join(document));
    let texts = packed.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let broken: Vec<_> = texts.flat_map(|path| broken(&path, &fs::read_to_string(&path).unwrap())).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    for folder in ["docs/adr/", "docs/benchmarks/", "docs/reliability/"] {
        assert!(documents.iter().any(|document| document.starts_with(folder)), "{folder}");
    }
}

#[test]
fn scripts_that_documents_name_are_there() {
    let mut missing = Vec::new();
    let mut named = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        let is_end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-'));
        for word in text.split(is_end).map(|word| word.trim_end_matches('.')) {
            let is_script = word.starts_with("scripts/") || word.starts_with("tools/bench/");
            named += usize::from(is_script);
            if is_script && !root().join(word).exists() {
                missing.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(named > 0);
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_glossary_is_short_and_sorted() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| word | meaning |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let words: Vec<_> = rows.filter_map(|row| row.split('|').nth(1)).map(str::trim).collect();
    assert!((20..=40).contains(&words.len()), "{}", words.len());
    assert!(words.is_sorted(), "{words:?}");
}

#[test]
fn links_and_anchors_are_seen() {
    let text = "# One `x`, two\n[a](#one) [b](Cargo.toml) `[c](nowhere)`\n```\n[d](nowhere)\n```\n## More\n[e](f.md#g)";
    assert_eq!(links(text), ["#one", "Cargo.toml", "f.md#g"]);
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["more", "one-x-two"]);
    let readme = root().join("README.md");
    assert_eq!(
        broken(&readme, "[a](Cargo.toml) [b](nowhere.md) [c](https://example.org/x)"),
        ["README.md: nowhere.md"]
    );
    assert_eq!(broken(&readme, "[a](docs/architecture.md#no-such-heading)").len(), 1);
}

#[test]
fn the_table_of_settings_is_that_of_the_code() {
    assert_generated("docs/settings.md", &[("settings", dcmdex::config::reference())]);
}

/// Returns the code between back quotes in the prose of a document.
fn quoted(text: &str) -> Vec<String> {
    let whole: String = prose(text).collect::<Vec<_>>().join("\n");
    whole.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_manual_names_every_service_that_peers_are_granted() {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let line = text.lines().find(|line| line.starts_with("The services are ")).unwrap();
    let granted: Vec<_> = dcmdex::scp::service_classes().iter().map(|class| class.grant).collect();
    let named = quoted(line);
    assert_eq!(named.iter().map(String::as_str).collect::<BTreeSet<_>>(), granted.into_iter().collect());
}

#[test]
fn no_sentence_of_a_comment_begins_in_the_middle() {
    let mut directories = vec![root().join("src")];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.extend(residues(&text).into_iter().map(|line| format!("{}:{line}", path.display())));
            }
        }
    }
    assert!(found.is_empty(), "a line after a full stop begins in lower case: {found:#?}");
}

/// Returns the numbers of comment lines that begin in lower case after a line that ends with a full
/// stop. They remain where half of a sentence was removed.
fn residues(text: &str) -> Vec<usize> {
    let comment = |line: &str| {
        let line = line.trim_start();
        ["///", "//!", "//"].iter().find_map(|mark| Some((*mark, line.strip_prefix(mark)?.trim().to_owned())))
    };
    let lines: Vec<_> = text.lines().map(comment).collect();
    let is_residue = |pair: &[Option<(&str, String)>]| match pair {
        [Some((mark, before)), Some((same, after))] if mark == same => {
            before.ends_with('.') && !before.ends_with("..") && after.starts_with(|c: char| c.is_ascii_lowercase())
        }
        _ => false,
    };
    lines.windows(2).enumerate().filter(|(_, pair)| is_residue(pair)).map(|(at, _)| at + 2).collect()
}

#[test]
fn halves_of_sentences_are_seen() {
    assert_eq!(residues("/// One.\n/// by two.\nfn f() {}\n// Three\n// four. Five.\n// Six.\n"), [2]);
}

#[test]
fn every_setting_that_a_document_names_exists() {
    use dcmdex::config::{KEYS, Key};

    let tables: BTreeSet<&str> =
        KEYS.iter().filter_map(|key| key.path.split_once('.')).map(|(table, _)| table).collect();
    let mut named = 0;
    // Decisions of the past are not rewritten.
    for document in documents().iter().filter(|path| !path.to_string_lossy().contains("/adr/")) {
        for code in quoted(&fs::read_to_string(document).unwrap()) {
            let word = code.split([' ', '=']).next().unwrap_or_default();
            let Some((table, name)) = word.split_once('.') else { continue };
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            // `find.rs` is a file, and `peers.AET` has no row.
            if !tables.contains(table) || !is_name || matches!(name, "rs" | "py" | "md" | "txt" | "db") {
                continue;
            }
            assert!(Key::by_path(word).is_some(), "{}: there is no setting `{word}`", document.display());
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}
