//! Each example of docs/cookbook.md runs as it stands there.

use std::fs;

use super::*;
use crate::util::objects;
use crate::util::peers;

/// An example: its language and its text.
struct Example {
    language: String,
    text: String,
    line: usize,
}

/// Returns the code blocks of the cookbook.
fn examples() -> Vec<Example> {
    let cookbook = fs::read_to_string(format!("{}/docs/cookbook.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut examples: Vec<Example> = Vec::new();
    let mut is_open = false;
    for (at, line) in cookbook.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            is_open = !is_open;
            if is_open {
                examples.push(Example { language: language.to_owned(), text: String::new(), line: at + 1 });
            }
        } else if is_open {
            let example = examples.last_mut().unwrap();
            example.text.push_str(line);
            example.text.push('\n');
        }
    }
    assert!(!is_open && examples.len() > 15, "{}", examples.len());
    examples
}

/// An archive that was read with a declared attribute.
fn place() -> Place {
    let place = Place::new();
    let declared = "[[attribute]]\npath = \"SliceThickness\"\nlevel = \"SERIES\"\n";
    fs::write(place.path("dcmdex.toml"), declared).unwrap();
    place.run(["scan", "--index", "archive.db", &fixtures("archive")]).expect(1);
    place
}

/// Runs an example. `None` if what it needs is not installed.
fn run_example(place: &Place, example: &Example) -> Option<Run> {
    let mut command = match example.language.as_str() {
        "sh" => {
            let programs = Path::new(env!("CARGO_BIN_EXE_dcmdex")).parent().unwrap();
            let mut command = place.command_of("bash");
            command.args(["-euo", "pipefail", "-c", &format!("PATH={programs:?}:$PATH\n{}", example.text)]);
            command
        }
        "sql" => {
            let mut command = peers::program("/usr/bin/sqlite3")?;
            command.current_dir(place.path("")).args(["-bail", "-readonly", "archive.db", &example.text]);
            command
        }
        "python" => {
            let script = place.path("example.py");
            fs::write(&script, &example.text).unwrap();
            let mut command = peers::python_peer(&script)?;
            command.current_dir(place.path(""));
            command
        }
        // The settings of this test declare it already.
        "toml" => return None,
        other => panic!("docs/cookbook.md, line {}: no examples in `{other}`", example.line),
    };
    Some(run(&mut command))
}

#[test]
fn every_example_of_the_cookbook_runs() {
    let place = place();
    for example in examples() {
        let Some(run) = run_example(&place, &example) else { continue };
        assert_eq!(run.code, 0, "docs/cookbook.md, line {}: {run:#?}", example.line);
        // The fixtures have no conflicts, and nothing came by C-STORE.
        let may_be_empty = ["> s", "--since", "FROM arrivals", "FROM declared_values", "since="]
            .iter()
            .any(|part| example.text.contains(part));
        assert!(may_be_empty || !run.stdout.is_empty(), "docs/cookbook.md, line {}: {run:#?}", example.line);
    }
}

#[test]
fn the_views_for_people_have_what_their_names_say() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    let file = |name: &str, content_date: &str| {
        let bytes = objects::file_with(3, &[(0x0008, 0x0023, b"DA", content_date)]);
        fs::write(place.path("archive").join(name), bytes).unwrap();
    };
    file("1.dcm", "20240101");
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    file("2.dcm", "20240101");
    file("3.dcm", "20240102");
    fs::write(place.path("archive/4.dcm"), [&[0; 128][..], b"DICM\x02\0"].concat()).unwrap();
    place.run(["scan", "--index", "x.db", "archive"]);
    let Some(mut sqlite) = peers::program("/usr/bin/sqlite3") else { return };
    let answers = run(sqlite.current_dir(place.path("")).args([
        "-readonly",
        "x.db",
        "SELECT patient_id, sop_instance_uid, substr(path, -5) FROM files;
         SELECT differs, substr(path, -5), sop_instance_uid FROM copies ORDER BY 2;
         SELECT kind, sop_instance_uid, substr(path, -5) FROM conflicts;
         SELECT substr(path, -5) FROM failed_files;
         SELECT arrival, number_of_studies, number_of_series, number_of_instances FROM arrivals;",
    ]));
    let expected = [
        "P1|1.2.3.1.1|1.dcm",
        "0|2.dcm|1.2.3.1.1",
        "1|3.dcm|1.2.3.1.1",
        "instance-with-other-content|1.2.3.1.1|3.dcm",
        "4.dcm",
        "scan|1|1|1",
    ];
    assert_eq!(answers.stdout.lines().collect::<Vec<_>>(), expected, "{answers:?}");
}
