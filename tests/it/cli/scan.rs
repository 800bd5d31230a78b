//! `dcmdex scan` and `dcmdex status`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::*;

/// Reads the tables of docs/json.md: heading, key, type.
fn documented() -> BTreeMap<String, BTreeMap<String, String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md")).unwrap();
    let mut tables = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            heading = title.trim_matches('`').to_owned();
        } else if !heading.is_empty() && line.starts_with("| `") {
            let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let table: &mut BTreeMap<_, _> = tables.entry(heading.clone()).or_default();
            table.insert(cells[1].to_owned(), cells[2].to_owned());
        }
    }
    tables
}

/// Asserts that an object has exactly the keys of its table, with their types.
#[track_caller]
pub(super) fn assert_documented(heading: &str, object: &Value) {
    let table = &documented()[heading];
    let mut keys: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.remove("path_hex");
    assert_eq!(keys, table.keys().map(String::as_str).collect(), "{heading}");
    for (key, kind) in table {
        let value = &object[key];
        let fits = kind.split(" or ").any(|kind| match kind {
            "text" => value.is_string(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "null" => value.is_null(),
            other => panic!("what is {other}?"),
        });
        assert!(fits, "{heading}: `{key}` is {value}, documented as {kind}");
    }
}

#[track_caller]
fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("`{key}` in {object}"))
}

/// Returns the column `reading` of the table of the real files, by file.
fn readings() -> BTreeMap<String, String> {
    let text = fs::read_to_string(fixtures("real/README.md")).unwrap();
    let mut rows = text.lines().skip_while(|line| !line.starts_with("| file |"));
    let column = rows.next().unwrap().split('|').position(|title| title.trim() == "reading").unwrap();
    rows.skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            (cells[1].to_owned(), cells[column].to_owned())
        })
        .collect()
}

#[test]
fn every_real_file_is_indexed_or_named_once_with_a_reason() {
    let place = Place::new();
    let root = fixtures("real");
    let run = place.run(["scan", "--json", "--index", "x.db", &root]).expect(1);
    assert!(run.stderr.is_empty(), "{run:?}");
    let mut events = run.json();
    let summary = events.pop().unwrap();
    let mut named: BTreeMap<String, (String, String)> = BTreeMap::new();
    for event in events.iter().skip(1).filter(|event| event["event"] != "progress") {
        let path = event["path"].as_str().unwrap().strip_prefix(&root).unwrap().trim_start_matches('/').to_owned();
        let what = event["event"].as_str().unwrap().to_owned();
        let reason = event["reason"].as_str().unwrap_or_default().to_owned();
        let twice = named.insert(path.clone(), (what, reason));
        assert_eq!(twice, None, "{path}");
    }
    let mut instances = 0;
    for (file, reading) in &readings() {
        let told = named.remove(file);
        let told = told.as_ref().map(|(what, reason)| (what.as_str(), reason.as_str()));
        let fits = match (reading.as_str(), told) {
            ("instance", None) => true,
            // Cut after what is indexed: it is indexed, with or without a fault; cut before:
            // reported.
            ("damaged", None | Some(("faults" | "failed", _))) => true,
            ("incomplete", Some(("failed", "missing-uid"))) => true,
            ("dicomdir", Some(("skipped", "dicomdir"))) => true,
            ("other", Some(("failed", "not-dicom"))) => true,
            // No object itself, and yet one when it is inflated.
            ("other", None) if file == "odd/zipMR.gz" => true,
            _ => false,
        };
        assert!(fits, "{file} is {reading} and was told as {told:?}");
        instances += u64::from(!matches!(told, Some(("failed" | "skipped", _))));
    }
    // What DICOMDIRs list and is not there: files that were not copied along.
    let missing = named.extract_if(.., |file, _| file.contains("!/"));
    let missing = missing.filter(|(_, (what, _))| what == "failed").count() as u64;
    // What else lies there is text.
    assert!(named.keys().all(|file| file.ends_with(".md") || file.ends_with(".txt")), "{named:?}");
    assert!(named.values().all(|told| *told == ("failed".to_owned(), "not-dicom".to_owned())));
    assert_eq!(number(&summary, "indexed"), instances);
    assert_eq!(number(&summary, "found"), readings().len() as u64 + named.len() as u64 + missing);
}

#[test]
fn the_archive_gives_the_figures_of_its_description() {
    let place = Place::new();
    // fixtures/README.md: 39 files, four patients, six studies, 32 whole instances, a copy, and odd
    // ones of which one is cut after its UIDs.
    let run = place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    for line in [
        "failed: {}/odd/cut-before-the-uids.dcm: truncated (",
        "failed: {}/odd/empty.dcm: empty\n",
        "failed: {}/odd/no-sop-instance-uid.dcm: missing-uid (no SOPInstanceUID before (7FE0,0010), where reading ends)\n",
        "failed: {}/odd/notes.txt: not-dicom (",
        "found 39 files in 16 directories, ",
        "\n  indexed              34  copies 1, conflicts 0; with faults 1: truncated 1\n",
        "\n  skipped               1  macos-litter 1\n",
        "\n  failed                4  empty 1, missing-uid 1, not-dicom 1, truncated 1\n",
    ] {
        let line = line.replace("{}", &fixtures("archive"));
        assert_eq!(run.stdout.matches(&line).count(), 1, "{line}\n{run:#?}");
    }
    let status = place.run(["status", "--json", "--index", "x.db"]).expect(0).json().remove(0);
    let counts = ["patients", "studies", "instances", "copies", "failed"].map(|key| number(&status, key));
    assert_eq!(counts, [4, 6, 33, 1, 4]);
    let text = place.run(["status", "--index", "x.db"]).expect(0).stdout;
    assert!(text.contains("\n  instances                33\n"), "{text}");
    assert!(text.contains(&format!("{}: found 39, indexed 34, failed 4", fixtures("archive"))), "{text}");
}

#[test]
fn json_is_what_its_documentation_says() {
    let place = Place::new();
    // A file that no DICOMDIR of its folder lists.
    fs::create_dir(place.path("cd")).unwrap();
    fs::copy(fixtures("real/fileset/DICOMDIR-empty.dcm"), place.path("cd/DICOMDIR")).unwrap();
    fs::copy(fixtures("real/modalities/CT_small.dcm"), place.path("cd/1")).unwrap();
    let arguments = ["scan", "--json", "--index", "x.db", &fixtures("archive"), &fixtures("real"), "cd"];
    let run = place.run(arguments).expect(1);
    let mut seen = BTreeSet::new();
    for event in run.json() {
        let name = event["event"].as_str().unwrap();
        seen.insert(name.to_owned());
        assert_documented(name, &event);
    }
    seen.remove("progress");
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["failed", "faults", "skipped", "started", "summary", "unlisted"]);
    let dry = place.run(["scan", "--json", "--dry-run", "--index", "x.db", &fixtures("archive")]).expect(1);
    assert_documented("summary", dry.json().last().unwrap());
    let status = place.run(["status", "--json", "--index", "x.db"]).expect(0).json().remove(0);
    assert_documented("status", &status);
    assert_documented("scan", &status["scans"][0]);
    let mut summary = run.json().pop().unwrap();
    summary.as_object_mut().unwrap().remove("event");
    assert_eq!(status["scans"][0]["summary"], summary);
    // Every reason that the program gave is explained.
    let explained = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md")).unwrap();
    for table in ["skipped_by_reason", "failed_by_reason"] {
        for reason in summary[table].as_object().unwrap().keys() {
            assert!(explained.contains(&format!("`{reason}`")), "{reason}");
        }
    }
}

#[test]
fn the_sums_add_up_in_every_scan() {
    let place = Place::new();
    let add_up = |summary: &Value| {
        let parts = ["indexed", "updated", "unchanged", "skipped", "failed"].map(|key| number(summary, key));
        assert_eq!(number(summary, "found"), parts.iter().sum::<u64>(), "{summary}");
        for kind in ["skipped", "failed"] {
            let reasons = summary[format!("{kind}_by_reason")].as_object().unwrap();
            assert_eq!(number(summary, kind), reasons.values().map(|count| count.as_u64().unwrap()).sum::<u64>());
        }
        parts
    };
    let scan = |more: &[&str]| {
        let run = run(place.command().args(["scan", "--json", "--index", "x.db", &fixtures("")]).args(more)).expect(1);
        add_up(run.json().last().unwrap())
    };
    let dry = scan(&["--dry-run"]);
    assert!(!place.path("x.db").exists());
    let first = scan(&[]);
    assert_eq!(dry, first);
    let [indexed, _, _, skipped, failed] = first;
    assert_eq!(scan(&[]), [0, 0, indexed, skipped, failed]);
    assert_eq!(scan(&["--dry-run"]), [0, 0, indexed, skipped, failed]);
}

#[test]
fn a_path_that_is_not_there_is_told_and_nothing_is_done() {
    let place = Place::new();
    let run = place.run(["scan", "--index", "x.db", &fixtures("archive"), "nowhere"]).expect(2);
    assert!(run.stdout.is_empty());
    assert!(run.stderr.starts_with("error: cannot scan nowhere: "), "{run:?}");
    assert!(!place.path("x.db").exists());
}

#[test]
fn what_is_no_index_is_left_alone() {
    let place = Place::new();
    fs::write(place.path("x.db"), "somebody's notes, and quite a lot of them; no index at all").unwrap();
    let before = fs::read(place.path("x.db")).unwrap();
    for arguments in [&["scan", "--index", "x.db", "."][..], &["status", "--index", "x.db"]] {
        let run = run(place.command().args(arguments)).expect(2);
        assert!(run.stderr.contains("x.db") && run.stdout.is_empty(), "{run:?}");
    }
    assert_eq!(fs::read(place.path("x.db")).unwrap(), before);
    let missing = place.run(["status", "--index", "y.db"]).expect(2);
    assert!(missing.stderr.contains("there is no index at"), "{missing:?}");
}

#[test]
fn a_clean_archive_ends_with_0_and_the_default_index() {
    let place = Place::new();
    let run = place.run(["scan", &fixtures("real/modalities"), &fixtures("real/charsets")]).expect(0);
    assert!(!run.stdout.contains("failed:"), "{run:?}");
    assert!(place.path("dcmdex-data/index.db").exists());
    assert_eq!(number(&place.run(["status", "--json"]).expect(0).json()[0], "failed"), 0);
}

#[test]
fn names_that_are_not_utf8_are_told_without_loss() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree").join(OsStr::from_bytes(b"M\xfcller\n.txt")), "no object").unwrap();
    let run = place.run(["scan", "--json", "--index", "x.db", "tree"]).expect(1);
    let event = run.json().into_iter().find(|event| event["event"] == "failed").unwrap();
    assert!(event["path"].as_str().unwrap().ends_with("/tree/M\u{fffd}ller\n.txt"), "{event}");
    assert!(event["path_hex"].as_str().unwrap().ends_with("2f747265652f4dfc6c6c65720a2e747874"), "{event}");
    let text = place.run(["scan", "--index", "x.db", "tree"]).expect(1).stdout;
    assert!(text.contains("/tree/M\\xfcller\\n.txt: not-dicom"), "{text}");
}

#[test]
fn a_signal_ends_a_scan_in_order_with_its_progress_kept() {
    use std::io::Read;
    let place = Place::new();
    // A report that is longer than what a pipe holds, and that nobody reads: there the signal finds
    // the scan waiting.
    fs::create_dir(place.path("tree")).unwrap();
    for number in 0..3000 {
        fs::write(place.path(format!("tree/{number:04}{}", "x".repeat(200))), "no object").unwrap();
    }
    let mut command = place.command();
    command.args(["scan", "--json", "--index", "x.db", "--jobs", "1", "tree"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut first = [0; 1];
    output.read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let summary: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["event"], &summary["interrupted"]), (&"summary".into(), &true.into()));
    let done = number(&summary, "failed");
    assert!(done < 3000, "the signal came too late to stop anything");
    let status = place.run(["status", "--json", "--index", "x.db"]).expect(0).json().remove(0);
    assert_eq!(number(&status, "failed"), done);
    let again = place.run(["scan", "--json", "--index", "x.db", "tree"]).expect(1);
    assert_eq!(number(again.json().last().unwrap(), "failed"), 3000);
}

#[test]
fn quiet_means_no_line_for_each_file_and_the_summary_stays() {
    let place = Place::new();
    let run = place.run(["scan", "--index", "x.db", "-q", &fixtures("archive")]).expect(1);
    assert!(!run.stdout.contains("failed: "), "{run:?}");
    assert!(run.stdout.contains("failed                4") && run.stderr.is_empty(), "{run:?}");
    let run = place.run(["scan", "--index", "x.db", "--full", &fixtures("archive")]).expect(1);
    assert_eq!(run.stdout.matches("failed: ").count(), 4, "{run:?}");
}

#[test]
fn a_path_that_stands_for_a_root_in_a_database_is_refused() {
    let place = Place::new();
    let told = place.run(["scan", "--index", "a.db", "--prune-emptied", "/@ct/1"]).expect(2).stderr;
    assert!(told.contains("cannot scan /@ct/1: names that begin with @ at the top"), "{told}");
}
