//! `dcmdex check`.

use std::fs;
use std::time::{Duration, SystemTime};

use super::*;
use crate::util::archives::{Keep, Zip};
use crate::util::objects;
use dcmdex::db::Arrivals;

#[test]
fn a_sound_index_and_files_that_are_there_end_with_0() {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(0);
    assert_eq!(
        run.stdout,
        "the index agrees with itself; conflicts in the archive: 0\n\
         files: 34 as the index says, 0 changed, 0 gone, 0 not accessible\n"
    );
}

#[test]
fn conflicts_are_listed_and_are_no_fault_of_the_index() {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("real")]).expect(1);
    let run = place.run(["check", "--index", "x.db"]).expect(0);
    assert_eq!(run.stdout.matches("instance-with-other-content: /").count(), 10, "{run:?}");
    assert!(run.stdout.ends_with("conflicts in the archive: 10 (instance-with-other-content 10)\n"), "{run:?}");
    let run = place.run(["check", "--index", "x.db", "--limit", "3"]).expect(0);
    assert_eq!(run.stdout.matches("instance-with-other-content: /").count(), 3, "{run:?}");
    assert!(run.stdout.ends_with("(instance-with-other-content 10)\n3 of them are listed\n"), "{run:?}");
}

#[test]
fn what_a_check_finds_can_be_read_by_programs() {
    let place = Place::new();
    fs::create_dir_all(place.path("tree")).unwrap();
    fs::copy(fixtures("real/modalities/CT_small.dcm"), place.path("tree/1")).unwrap();
    place.run(["scan", "--index", "x.db", "tree", &fixtures("real")]).expect(1);
    fs::remove_file(place.path("tree/1")).unwrap();
    let run = place.run(["check", "--index", "x.db", "--files", "--json", "--limit", "2"]).expect(1);
    let lines: Vec<serde_json::Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["conflict", "conflict", "file", "summary"]);
    for (heading, line) in ["conflict", "conflict", "file", "check summary"].into_iter().zip(&lines) {
        super::scan::assert_documented(heading, line);
    }
    assert_eq!(lines[2]["problem"], "gone");
    assert_eq!((&lines[3]["files_gone"], &lines[3]["conflicts_listed"]), (&1.into(), &2.into()));
}

#[test]
fn files_that_changed_or_went_are_named() {
    let place = Place::new();
    fs::create_dir_all(place.path("tree/a")).unwrap();
    for name in ["1", "2", "3"] {
        fs::copy(fixtures("real/modalities/CT_small.dcm"), place.path("tree/a").join(name)).unwrap();
    }
    place.run(["scan", "--index", "x.db", "tree"]).expect(0);
    place.run(["check", "--index", "x.db", "--files"]).expect(0);
    fs::remove_file(place.path("tree/a/1")).unwrap();
    fs::write(place.path("tree/a/2"), "shorter").unwrap();
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(1);
    let path = |name: &str| place.path("tree/a").join(name).display().to_string();
    assert!(run.stdout.contains(&format!("gone: {}\nchanged (no instance): {}\n", path("1"), path("2"))), "{run:?}");
    assert!(run.stdout.ends_with("files: 1 as the index says, 1 changed, 1 gone, 0 not accessible\n"), "{run:?}");
    // Without --files nobody looks.
    place.run(["check", "--index", "x.db"]).expect(0);
}

#[test]
fn another_object_of_the_same_size_and_time_is_found_out() {
    use crate::util::objects;
    let place = Place::new();
    fs::create_dir_all(place.path("tree")).unwrap();
    let path = place.path("tree/1.dcm");
    fs::write(&path, objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1")).unwrap();
    place.run(["scan", "--index", "x.db", "tree"]).expect(0);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.2")).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(1);
    assert!(run.stdout.contains("changed (another SOP Instance UID): "), "{run:?}");
    let told = place.run(["check", "--index", "x.db", "--files", "--json"]).expect(1).json();
    assert_eq!((told[0]["event"].as_str(), told[0]["problem"].as_str()), (Some("file"), Some("changed")));
    assert_eq!(told[0]["path"], path.display().to_string());
    assert_eq!(told[1]["files_changed"], 1);
    assert_eq!(told[1]["findings"], 0);
}

#[test]
fn objects_that_were_received_are_looked_for_as_well() {
    use dcmdex::db::Received;
    use dcmdex::db::open::{Writer, WriterOptions};
    use dcmdex::model::location::{Location, Place as Kind};
    let place = Place::new();
    let location = Location {
        place: Kind::Managed,
        directory: place.path("objects"),
        file_name: "1.dcm".into(),
        size: 7,
        mtime_ms: 0,
    };
    let record = crate::db::record("1.2", "1.2.3", "1.2.3.4", &[]);
    let writer = Writer::open(&place.path("x.db"), WriterOptions::default()).unwrap();
    let (sender, stored) = std::sync::mpsc::channel();
    let on_done = move |result| sender.send(result).unwrap();
    writer.handle().store(Received::new(record, location), Box::new(on_done));
    stored.recv().unwrap().unwrap();
    writer.close().unwrap();
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(1);
    assert!(run.stdout.starts_with(&format!("gone: {}\n", place.path("objects/1.dcm").display())), "{run:?}");
}

#[test]
fn an_index_that_disagrees_with_itself_is_told_and_ends_with_1() {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    let wrong = Command::new("sqlite3")
        .args([&place.path("x.db").display().to_string(), "UPDATE study SET instance_count = 77 WHERE id = 1"])
        .status()
        .expect("the sqlite3 shell is installed by scripts/peers");
    assert!(wrong.success());
    let run = place.run(["check", "--index", "x.db"]).expect(1);
    assert!(run.stdout.contains("instances per study: study 1 says 77"), "{run:?}");
    assert!(run.stdout.contains("the index DISAGREES with itself"), "{run:?}");
}

#[test]
fn members_of_archives_are_opened_too() {
    let place = Place::new();
    let member = |instance: &str| objects::file("P1", "1.2", "1.2.3", instance);
    let write = |instances: [&str; 3]| {
        let [one, two, three] = instances.map(member);
        let zip = Zip::default().with("1", &one, Keep::Stored).with("2", &two, Keep::Deflated);
        let inner = Zip::default().with("3", &three, Keep::Stored).finish();
        fs::write(place.path("whole.zip"), zip.with("inner.zip", &inner, Keep::Stored).finish()).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::options().write(true).open(place.path("whole.zip")).unwrap().set_modified(time).unwrap();
    };
    write(["1.2.3.1", "1.2.3.2", "1.2.3.3"]);
    place.run(["scan", "--index", "x.db", "whole.zip"]).expect(0);
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(0);
    assert!(run.stdout.contains("3"), "{run:?}");
    // The archive looks as it did.
    write(["1.2.3.1", "1.2.3.9", "1.2.3.8"]);
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(1);
    let changed: Vec<_> = run.stdout.lines().filter(|line| line.starts_with("changed")).collect();
    assert_eq!(changed.len(), 2, "{run:?}");
    assert!(changed[0].contains("whole.zip!/2") && changed[1].contains("whole.zip!/inner.zip!/3"), "{changed:?}");
    assert!(changed.iter().all(|line| line.contains("another SOP Instance UID")), "{changed:?}");
    // It has another time.
    fs::write(place.path("whole.zip"), "something else").unwrap();
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(1);
    assert_eq!(run.stdout.lines().filter(|line| line.starts_with("changed: ")).count(), 3, "{run:?}");
    fs::remove_file(place.path("whole.zip")).unwrap();
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(1);
    assert_eq!(run.stdout.lines().filter(|line| line.starts_with("gone: ")).count(), 3, "{run:?}");
}

/// Builds a data set without File Meta Information, in explicit VR.
fn bare(is_big_endian: bool) -> Vec<u8> {
    let number = |number: u16| if is_big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut bytes = Vec::new();
    for (group, element, vr, value) in [
        (0x0008, 0x0016, "UI", "1.2.840.10008.5.1.4.1.1.7\0"),
        (0x0008, 0x0018, "UI", "1.2.3.1\0"),
        (0x0008, 0x0060, "CS", "OT"),
        (0x0010, 0x0020, "LO", "P1"),
        (0x0020, 0x000D, "UI", "1.2\0"),
        (0x0020, 0x000E, "UI", "1.2.3\0"),
    ] {
        bytes.extend(number(group));
        bytes.extend(number(element));
        bytes.extend(vr.bytes());
        bytes.extend(number(value.len() as u16));
        bytes.extend(value.bytes());
    }
    bytes
}

#[test]
fn a_copy_in_another_transfer_syntax_is_a_conflict_and_as_the_index_says() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    fs::write(place.path("archive/little.dcm"), bare(false)).unwrap();
    fs::write(place.path("archive/big.dcm"), bare(true)).unwrap();
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    let run = place.run(["check", "--index", "x.db", "--files"]).expect(0);
    assert!(run.stdout.contains("conflicts in the archive: 1 (instance-with-other-content 1)"), "{run:?}");
    assert!(run.stdout.contains("files: 2 as the index says, 0 changed, 0 gone"), "{run:?}");
}
