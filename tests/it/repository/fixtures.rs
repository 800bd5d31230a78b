//! The bundled fixtures match their tables. A changed byte, a missing file or an unlisted file
//! fails the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::util::peers;

/// One row of a fixture table.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    bytes: u64,
    sha256: String,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Reads the Markdown table in `readme` that starts with a column `file`. The keys are paths
/// relative to the directory of the readme.
fn listed(readme: &Path) -> BTreeMap<String, Listed> {
    let text = fs::read_to_string(readme).unwrap();
    let mut rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| file |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let head = rows.next().expect("a table with a column `file`");
    let column = |name: &str| head.iter().position(|title| *title == name).unwrap();
    let (file, bytes, sha256) = (column("file"), column("bytes"), column("sha256"));
    rows.skip(1) // the dashes
        .map(|row| {
            let listed = Listed { bytes: row[bytes].parse().unwrap(), sha256: row[sha256].to_owned() };
            (row[file].to_owned(), listed)
        })
        .collect()
}

/// Returns the files under `root`, by relative path with `/` between the parts.
fn present(root: &Path) -> BTreeMap<String, Listed> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let content = fs::read(&path).unwrap();
            let name: Vec<_> =
                path.strip_prefix(root).unwrap().components().map(|part| part.as_os_str().to_str().unwrap()).collect();
            let sha256 = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            let bytes = content.len() as u64;
            found.insert(name.join("/"), Listed { bytes, sha256 });
        }
    }
    found
}

#[test]
fn real_files_are_those_of_their_table() {
    let root = fixtures().join("real");
    let mut present = present(&root);
    for not_data in ["README.md", "LICENSE-pydicom.txt", "LICENSE-pydicom-data.txt"] {
        assert!(present.remove(not_data).is_some(), "{not_data} is missing");
    }
    assert_eq!(present.len(), 91);
    assert_eq!(present, listed(&root.join("README.md")));
}

#[test]
fn the_archive_is_that_of_its_table() {
    let root = fixtures();
    let listed = listed(&root.join("README.md"));
    assert_eq!(listed.len(), 39);
    assert_eq!(present(&root.join("archive")), listed);
}

#[test]
fn the_archive_is_what_its_generator_writes() {
    let out = tempfile::tempdir().unwrap();
    let script = fixtures().join("generate_archive.py");
    let Some(mut generate) = peers::python_peer(script) else {
        return;
    };
    peers::run(generate.arg("--out").arg(out.path())).expect_success();
    assert_eq!(present(out.path()), present(&fixtures().join("archive")));
}
