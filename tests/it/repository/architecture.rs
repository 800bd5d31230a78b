//! Which module may import which. The test enforces the table of docs/architecture.md.
//!
//! It checks imports file by file. It follows a `pub use` to the file that owns the name, so a
//! re-export hides no import. An item under `#[cfg(test)]` is exempt: a test may build its input
//! with any module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files that may export names of another module, with the reason.
const MAY_REEXPORT: &[(&str, &str)] = &[("db/open.rs", "it chooses the engine of the index")];

/// Names of types that each module may have for itself.
const MAY_OCCUR_AGAIN: &[&str] = &["Error", "Options"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the rows of the table of docs/architecture.md: modules, and the modules that they may
/// import.
fn table() -> Vec<(Vec<String>, Vec<String>)> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = text.lines().skip_while(|line| !line.starts_with("| module | may import |")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split('|').collect();
            (names(cells[0]), names(cells[1]))
        })
        .collect()
}

type ModulePath = Vec<String>;

/// A source file: its place in the module tree, and its declarations, exports and imports.
struct Source {
    file: String,
    code: String,
    module: ModulePath,
    /// Modules that it declares in separate files.
    children: BTreeSet<String>,
    /// Names that it exports with `pub use`, with their origins.
    exports: BTreeMap<String, ModulePath>,
    /// Paths that it uses.
    uses: BTreeSet<ModulePath>,
}

impl Source {
    fn new(file: &str, text: &str) -> Self {
        let mut module: ModulePath = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        module.pop_if(|last| *last == "mod" || *last == "lib");
        let code = code(text);
        let tokens = tokens(&code);
        let mut this = Self {
            file: file.to_owned(),
            code,
            module,
            children: BTreeSet::new(),
            exports: BTreeMap::new(),
            uses: BTreeSet::new(),
        };
        for window in tokens.windows(3) {
            if window[0] == "mod" && window[2] == ";" {
                this.children.insert(window[1].clone());
            }
        }
        this.read(&tokens);
        this
    }

    fn read(&mut self, tokens: &[String]) {
        let mut at = 0;
        while at < tokens.len() {
            let before = at.checked_sub(1).map_or("", |before| tokens[before].as_str());
            let after = tokens.get(at + 1).map_or("", String::as_str);
            if tokens[at] == "use" && after != "<" {
                let end = at + tokens[at..].iter().position(|token| token == ";").unwrap_or(tokens.len() - at);
                for (path, name) in expand(&tokens[at + 1..end], &[]) {
                    let Some(path) = self.absolute(&path) else { continue };
                    if before == "pub" || before == ")" {
                        self.exports.insert(name, path);
                    } else {
                        self.uses.insert(path);
                    }
                }
                at = end;
            } else if after == "::" && !["::", ".", "$"].contains(&before) {
                let mut path = vec![tokens[at].clone()];
                while tokens.get(at + 1).is_some_and(|token| token == "::")
                    && tokens.get(at + 2).is_some_and(|token| is_name(token))
                {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                self.uses.extend(self.absolute(&path));
            }
            at += 1;
        }
    }

    /// Returns the path from the root of the crate. `None` for another crate.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let supers = path.iter().take_while(|part| *part == "super").count();
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&self.module, rest].concat()),
            "super" => {
                let up = self.module.len().checked_sub(supers)?;
                Some([&self.module[..up], &path[supers..]].concat())
            }
            child if self.children.contains(child) => Some([&self.module[..], path].concat()),
            _ => None,
        }
    }
}

/// Removes comments and the items of unit tests from a text.
fn code(text: &str) -> String {
    let mut lines = text.lines();
    let mut kept = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            pass_over_item(&mut lines);
        } else {
            kept.push(line.split("//").next().unwrap_or(""));
        }
    }
    kept.join("\n")
}

/// Passes over the item that follows, as rustfmt writes it. A block ends at the brace below its
/// first line, and anything else at the end of a statement, a field or an arm.
fn pass_over_item<'t>(lines: &mut impl Iterator<Item = &'t str>) {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = lines.skip_while(|line| line.trim_start().starts_with(['#', '/']));
    let Some(first) = lines.next() else { return };
    let mut is_block = first.ends_with('{');
    if !is_block && first.ends_with([';', ',', '}']) {
        return;
    }
    for line in lines {
        let is_outer = indent(line) == indent(first) && !line.is_empty();
        let is_end = if is_block { is_outer && line.trim_start().starts_with('}') } else { line.ends_with(';') };
        if is_end {
            return;
        }
        is_block |= is_outer && line.ends_with('{');
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Splits code into names, `::`, and single other characters.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Expands a `use` tree into paths, each with the name that it introduces.
fn expand(tree: &[String], prefix: &[String]) -> Vec<(ModulePath, String)> {
    if let Some(open) = tree.iter().position(|token| token == "{") {
        let prefix = [prefix, &tree[..open].iter().filter(|it| *it != "::").cloned().collect::<Vec<_>>()].concat();
        let (mut depth, mut start, mut all) = (0, open + 1, Vec::new());
        for at in open..tree.len() {
            match tree[at].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if (tree[at] == "," && depth == 1) || depth == 0 {
                if start < at {
                    all.extend(expand(&tree[start..at], &prefix));
                }
                start = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
        return all;
    }
    let (path, alias) = match tree.iter().position(|token| token == "as") {
        Some(at) => (&tree[..at], tree.get(at + 1)),
        None => (tree, None),
    };
    let mut path = [prefix, &path.iter().filter(|it| *it != "::").cloned().collect::<Vec<_>>()].concat();
    if path.len() > 1 {
        path.pop_if(|last| *last == "self");
    }
    let name = alias.or(path.last()).cloned().unwrap_or_default();
    vec![(path, name)]
}

/// All files of the library, by place in the module tree.
struct Sources(BTreeMap<ModulePath, Source>);

impl Sources {
    fn of_library() -> Self {
        let src = root().join("src");
        let mut found = BTreeMap::new();
        let mut directories = vec![src.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                let inside = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    directories.push(path);
                } else if inside.ends_with(".rs") && inside != "main.rs" {
                    let source = Source::new(&inside, &fs::read_to_string(&path).unwrap());
                    found.insert(source.module.clone(), source);
                }
            }
        }
        assert!(found.len() > 100, "the sources were not found");
        Self(found)
    }

    /// Returns the file that owns a path. It follows re-exports.
    fn owner(&self, path: &[String]) -> Option<&Source> {
        let mut path = path.to_vec();
        for _ in 0..10 {
            let length = (0..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
            let source = &self.0[&path[..length]];
            match path.get(length).and_then(|name| source.exports.get(name)) {
                Some(target) => path = [target, &path[length + 1..]].concat(),
                None => return Some(source),
            }
        }
        panic!("re-exports lead in a circle: {path:?}")
    }

    /// Returns the files that a file imports.
    fn imports<'s>(&'s self, source: &'s Source) -> impl Iterator<Item = &'s Source> {
        // `super` alone, to name a sibling, is no use of the parent.
        let is_on_the_way = |path: &[String], to: &Source| path == to.module && source.module.starts_with(path);
        source.uses.iter().filter_map(move |path| {
            let to = self.owner(path)?;
            (to.module != source.module && !is_on_the_way(path, to)).then_some(to)
        })
    }

    /// Returns the files that can be reached from a file.
    fn reached_from<'s>(&'s self, start: &'s Source) -> BTreeSet<&'s str> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(source) = next.pop() {
            next.extend(self.imports(source).filter(|to| reached.insert(to.file.as_str())));
        }
        reached
    }
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let sources = Sources::of_library();
    let rows = table();
    let may: BTreeMap<_, _> =
        rows.iter().flat_map(|(modules, may)| modules.iter().map(move |module| (module.as_str(), may))).collect();
    assert!(may.contains_key("model") && may.contains_key("cli"), "the table was not found: {may:?}");
    let mut forbidden = BTreeSet::new();
    for source in sources.0.values() {
        let Some(module) = source.module.first() else { continue };
        let may = may
            .get(module.as_str())
            .unwrap_or_else(|| panic!("module `{module}` is not in the table of docs/architecture.md"));
        for to in sources.imports(source) {
            if let Some(import) = to.module.first()
                && import != module
                && !may.contains(import)
            {
                forbidden.insert(format!("{}: `{module}` imports `{import}` ({})", source.file, to.file));
            }
        }
    }
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

#[test]
fn the_table_allows_only_what_is_used() {
    let sources = Sources::of_library();
    let mut used = BTreeSet::new();
    for source in sources.0.values() {
        let imported = sources.imports(source).filter_map(|to| to.module.first());
        used.extend(imported.filter_map(|to| Some((source.module.first()?.as_str(), to.as_str()))));
    }
    let mut unused = Vec::new();
    for (modules, may) in table() {
        for import in &may {
            if !modules.iter().any(|module| used.contains(&(module.as_str(), import.as_str()))) {
                unused.push(format!("{modules:?} need not import `{import}`"));
            }
        }
    }
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn the_library_page_names_every_module() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let list: String = text.lines().skip_while(|line| !line.contains("# The modules, in reading order")).collect();
    let modules =
        text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    let missing: Vec<_> = modules.filter(|module| !list.contains(&format!("`{module}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_table_runs_downwards() {
    let mut above = BTreeSet::new();
    for (modules, may) in table() {
        for import in may {
            assert!(above.contains(&import), "{modules:?} may import `{import}`, which stands below or nowhere");
        }
        above.extend(modules);
    }
}

#[test]
fn no_files_import_each_other() {
    let sources = Sources::of_library();
    let mut circles = BTreeSet::new();
    for source in sources.0.values() {
        if sources.reached_from(source).contains(source.file.as_str()) {
            let next: BTreeSet<_> = sources
                .imports(source)
                .filter(|to| sources.reached_from(to).contains(source.file.as_str()))
                .map(|to| to.file.as_str())
                .collect();
            circles.insert(format!("{} comes back to itself through {next:?}", source.file));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn each_name_is_exported_by_the_module_that_owns_it() {
    let sources = Sources::of_library();
    let mut foreign = Vec::new();
    for source in sources.0.values().filter(|source| !MAY_REEXPORT.iter().any(|(file, _)| *file == source.file)) {
        for (name, path) in &source.exports {
            if sources.owner(path).is_some_and(|owner| !owner.module.starts_with(&source.module)) {
                foreign.push(format!("{} exports {name} of {}", source.file, path.join("::")));
            }
        }
    }
    assert!(foreign.is_empty(), "{foreign:#?}");
}

#[test]
fn a_type_name_stands_for_one_thing() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in Sources::of_library().0.values() {
        for name in types(&source.code) {
            files.entry(name).or_default().push(source.file.clone());
        }
    }
    files.retain(|name, files| files.len() > 1 && !MAY_OCCUR_AGAIN.contains(&name.as_str()));
    assert!(files.is_empty(), "each name of a type occurs once: {files:#?}");
}

/// Returns the names of the types that a file declares at its top level.
fn types(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines() {
        let words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        if line.starts_with(char::is_whitespace) {
            continue;
        }
        for pair in words.windows(2) {
            let is_type = pair[1].starts_with(|c: char| c.is_ascii_uppercase());
            if is_type && ["struct", "enum", "trait", "type", "union"].contains(&pair[0]) {
                found.push(pair[1].to_owned());
            }
        }
    }
    found
}

#[test]
fn types_are_seen_in_every_form() {
    let code =
        "pub struct A;\npub(in crate::db) enum B<'a> {}\ntype C = u8;\nimpl X {\n    type D = u8;\n}\ntrait E: F {}";
    assert_eq!(types(code), ["A", "B", "C", "E"]);
}

/// Returns the modules that a document names between `tokio is in` and the end of the sentence.
fn homes_of_tokio(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let (_, list) = text.split_once("tokio is in ").unwrap();
    let list = list.split_once('.').unwrap().0;
    list.split('`')
        .skip(1)
        .step_by(2)
        .map(|name| if name == "serve" { "cli::serve" } else { name }.to_owned())
        .collect()
}

#[test]
fn each_driver_stays_in_its_engine_and_tokio_where_the_documents_say() {
    let at_the_rim = homes_of_tokio("docs/architecture.md");
    assert!(at_the_rim.contains("scp") && at_the_rim.contains("cli::serve"), "{at_the_rim:?}");
    assert_eq!(homes_of_tokio("src/lib.rs"), at_the_rim, "src/lib.rs says what docs/architecture.md says");
    let homes = |home: &str| BTreeSet::from([home.to_owned()]);
    let crates = [
        ("rusqlite", homes("db::sqlite")),
        ("tokio_postgres", homes("db::postgres")),
        ("hyper", BTreeSet::from(["web".to_owned(), "events".to_owned()])),
        ("tokio", at_the_rim),
    ];
    let (mut misplaced, mut used) = (Vec::new(), BTreeSet::new());
    for source in Sources::of_library().0.values() {
        let place = source.module.join("::");
        let tokens = tokens(&source.code);
        for (name, homes) in &crates {
            let is_used = tokens.windows(3).any(|it| it[0] != "::" && it[1] == *name && it[2] == "::");
            let home = homes.iter().find(|home| place == **home || place.starts_with(&format!("{home}::")));
            match home {
                Some(home) if is_used => drop(used.insert(format!("{name} {home}"))),
                None if is_used => misplaced.push(format!("{}: `{name}`", source.file)),
                _ => {}
            }
        }
    }
    assert!(misplaced.is_empty(), "{misplaced:#?}");
    for home in &crates.last().unwrap().1 {
        assert!(used.contains(&format!("tokio {home}")), "nothing in `{home}` uses tokio");
    }
}

#[test]
fn what_follows_an_item_of_a_test_is_seen() {
    let text = "struct A;\n#[cfg(test)]\nuse crate::x::{\n    Y,\n};\nenum B {\n    #[cfg(test)]\n    Z,\n    C,\n}\n\
         impl D {\n    #[cfg(test)]\n    #[allow(unused)]\n    fn long(\n        a: u8,\n    ) -> u8 {\n        crate::hidden::f()\n    }\n\n    \
         fn seen() {}\n}\n#[cfg(test)]\nmod tests {\n    fn f() {\n        hidden();\n    }\n}\n\nstruct E;";
    let seen = code(text);
    assert!(!seen.contains("hidden") && !seen.contains('Y') && !seen.contains('Z'), "{seen}");
    assert_eq!(types(&seen), ["A", "B", "E"]);
    assert!(seen.contains("C,") && seen.contains("fn seen() {}"), "{seen}");
}

fn sources(files: &[(&str, &str)]) -> Sources {
    let sources = files.iter().map(|(file, text)| Source::new(file, text));
    Sources(sources.map(|source| (source.module.clone(), source)).collect())
}

fn imports<'s>(sources: &'s Sources, file: &str) -> Vec<&'s str> {
    let source = sources.0.values().find(|source| source.file == file).unwrap();
    sources.imports(source).map(|to| to.file.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn imports_are_seen_in_every_form() {
    let all = sources(&[
        ("lib.rs", "pub mod a; pub mod b; mod c;"),
        ("a/mod.rs", "mod x; pub mod y; pub use x::{Named, y2 as other};"),
        ("a/x.rs", "pub struct Named;"),
        ("a/y.rs", "// use crate::c;\nuse super::x::Named;\n#[cfg(test)]\nmod tests { use crate::b; }"),
        ("b.rs", "use crate::{a::{\n    Named,\n    other,\n}, c};\nfn f() -> impl Fn() + use<> { crate::a::y::g() }"),
        ("c.rs", "fn f() { super::b::f(); super::a::Named; }"),
    ]);
    assert_eq!(imports(&all, "a/y.rs"), ["a/x.rs"]);
    assert_eq!(imports(&all, "b.rs"), ["a/x.rs", "a/y.rs", "c.rs"]);
    assert_eq!(imports(&all, "c.rs"), ["a/x.rs", "b.rs"]);
    let b = all.0.values().find(|source| source.file == "b.rs").unwrap();
    assert!(all.reached_from(b).contains("b.rs"), "b and c import each other");
    let x = all.0.values().find(|source| source.file == "a/x.rs").unwrap();
    assert!(all.reached_from(x).is_empty());
}
