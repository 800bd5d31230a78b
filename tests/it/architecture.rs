//! Who may import whom, as docs/architecture.md has it. The table there is the one that is enforced.
//!
//! Unit tests (from `#[cfg(test)]` to the end of a file) are free: a test may make its input with whatever it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The table of docs/architecture.md: module to the modules that it may import.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut table = BTreeMap::new();
    let rows = text.lines().skip_while(|line| !line.starts_with("| module | may import |")).skip(2);
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        for module in names(cells[0]) {
            table.insert(module, names(cells[1]).into_iter().collect());
        }
    }
    assert!(table.contains_key("model") && table.contains_key("cli"), "the table was not found: {table:?}");
    table
}

/// A source file: where it is, its place in the module tree, and its code without comments and unit tests.
struct Source {
    path: PathBuf,
    modules: Vec<String>,
    code: String,
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut found = Vec::new();
    let mut directories = vec![src.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&src).unwrap().with_extension("");
                let mut modules: Vec<_> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                modules.pop_if(|last| last == "mod");
                let code = code(&fs::read_to_string(&path).unwrap());
                found.push(Source { path, modules, code });
            }
        }
    }
    assert!(found.len() > 3);
    found
}

fn code(text: &str) -> String {
    let before_tests = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    before_tests.map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The modules at the root of the crate that `source` names by `crate::x`, `crate::{x::…, y}` or enough `super::`s.
fn imports(source: &Source) -> BTreeSet<String> {
    let compact: String = source.code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for (at, _) in compact.match_indices("crate::") {
        found.extend(heads(&compact[at + "crate::".len()..]));
    }
    let up = "super::".repeat(source.modules.len());
    if !up.is_empty() {
        for (at, _) in compact.match_indices(&up) {
            found.extend(heads(&compact[at + up.len()..]));
        }
    }
    found
}

/// The first names of a path, or of each path in the braces that `text` begins with.
fn heads(text: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = text.strip_prefix('{') else {
        return vec![name(text)];
    };
    let mut depth = 0;
    let mut all = vec![name(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => all.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    all.retain(|name| !name.is_empty()); // after the last comma
    all
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let allowed = allowed();
    let mut forbidden = Vec::new();
    for source in sources() {
        let Some(module) = source.modules.first().filter(|name| *name != "lib" && *name != "main") else {
            continue;
        };
        let may = allowed
            .get(module)
            .unwrap_or_else(|| panic!("module `{module}` is not in the table of docs/architecture.md"));
        for import in imports(&source) {
            if import != *module && allowed.contains_key(&import) && !may.contains(&import) {
                forbidden.push(format!("{}: `{module}` imports `{import}`", source.path.display()));
            }
        }
    }
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

#[test]
fn sql_stays_in_db_and_tokio_at_the_rim() {
    let mut misplaced = Vec::new();
    for source in sources() {
        let place = source.modules.iter().map(String::as_str).collect::<Vec<_>>();
        if source.code.contains("rusqlite::") && !matches!(place[..], ["db", ..]) {
            misplaced.push(format!("{}: rusqlite outside of `db`", source.path.display()));
        }
        let at_the_rim =
            matches!(place[..], ["ul" | "scp" | "web" | "receive" | "deliver" | "shares", ..] | ["cli", "serve", ..]);
        if source.code.contains("tokio::") && !at_the_rim {
            misplaced.push(format!("{}: tokio where files and SQL are", source.path.display()));
        }
    }
    assert!(misplaced.is_empty(), "{misplaced:#?}");
}

#[test]
fn imports_are_seen_in_every_form() {
    let source = Source {
        path: PathBuf::new(),
        modules: vec!["scp".into(), "services".into()],
        code: code(
            "use crate::model::Uid;\nuse crate::{\n    db::{Reader, Writer},\n    qr,\n};\n// use crate::cli;\n\
             fn f() { super::super::store::open(); super::listener::f(); }\n#[cfg(test)]\nmod tests { use crate::web; }",
        ),
    };
    assert_eq!(imports(&source).into_iter().collect::<Vec<_>>(), ["db", "model", "qr", "store"]);
}
