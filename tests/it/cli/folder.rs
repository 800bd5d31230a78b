//! A folder of index files is one index for each command.

use std::fs;

use rustix::process::Signal;

use super::declared::write_file;
use super::serve::Node;
use super::*;
use crate::util::scripted::DataSet;
use crate::util::{objects, peers};

/// Two index files in a folder, each of a scan of its own.
pub(super) fn folder() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    for (tree, file) in [("one", "main.db"), ("two", "cold.db")] {
        for number in 0..6 {
            let number = number + if tree == "two" { 6 } else { 0 };
            objects::write(&place.path(format!("{tree}/{number}.dcm")), number / 3, number / 2, number);
        }
        place.run(["scan", "--index", &format!("folder/{file}"), tree]).expect(0);
    }
    place
}

#[test]
fn commands_that_ask_see_all_of_its_files() {
    let place = folder();
    let found = place.run(["find", "--index", "folder", "--level", "IMAGE", "--format", "csv", "SOPInstanceUID"]);
    assert_eq!(found.expect(0).stdout.lines().count(), 1 + 12);
    let status = place.run(["status", "--index", "folder", "--json"]).expect(0).json();
    assert_eq!((status[0]["instances"].as_u64(), status[0]["studies"].as_u64()), (Some(12), Some(4)));
    place.run(["check", "--index", "folder", "--files"]).expect(0);
    place.run(["export", "--index", "folder", "--level", "STUDY", "--out", "studies.csv"]).expect(0);
    assert_eq!(fs::read_to_string(place.path("studies.csv")).unwrap().lines().count(), 1 + 4);
    place.run(["copy", "--index", "folder", "--to", "out", "--by", "hard-link"]).expect(0);
    let listed = place.run(["index", "list", "--index", "folder", "--json"]).expect(0).json();
    let numbers: Vec<_> = listed.iter().map(|file| file["instances"].as_u64()).collect();
    assert_eq!(numbers, [Some(6), Some(6)]);
}

/// All that the folder answers, with the paths of the objects.
pub(super) fn answers(place: &Place) -> Vec<String> {
    let level = |level| place.run(["export", "--index", "folder", "--level", level, "--format", "ndjson"]).expect(0);
    let all = ["PATIENT", "STUDY", "SERIES", "IMAGE"].map(|name| level(name).stdout).concat();
    let mut lines: Vec<_> = all.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

pub(super) fn instances_of_files(place: &Place) -> Vec<(String, u64)> {
    let listed = place.run(["index", "list", "--index", "folder", "--json"]).expect(0).json();
    let name = |file: &serde_json::Value| file["index"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    listed.iter().map(|file| (name(file), file["instances"].as_u64().unwrap())).collect()
}

#[test]
fn a_file_is_split_and_all_answers_stay() {
    let place = folder();
    // A file of the study that moves has a copy, and another one is gone.
    fs::create_dir(place.path("one/more")).unwrap();
    fs::copy(place.path("one/0.dcm"), place.path("one/more/0.dcm")).unwrap();
    fs::remove_file(place.path("one/2.dcm")).unwrap();
    place.run(["scan", "--index", "folder/main.db", "one"]).expect(0);
    let before = answers(&place);
    let split = ["index", "split", "folder/main.db", "--into", "folder/new.db", "StudyInstanceUID=1.2.0"];
    let split_it = || place.run(split.into_iter().chain(["--yes"]));
    let told = place.run(split).expect(0).stdout;
    assert!(told.contains("1 of 2 studies would go to") && told.contains("nothing was changed"), "{told}");
    assert!(!place.path("folder/new.db").exists());
    let done = split_it().expect(0).stdout;
    let in_files = |names: [(&str, u64); 3]| names.map(|(name, count)| (name.to_owned(), count)).to_vec();
    let parted = in_files([("main.db", 3), ("cold.db", 6), ("new.db", 3)]);
    assert_eq!((answers(&place), instances_of_files(&place)), (before.clone(), parted.clone()));
    // Where the former file is put back, both files have the study. It is answered once.
    let former = Path::new(done.split("the former index is ").nth(1).unwrap().trim());
    fs::rename(former, place.path("folder/main.db")).unwrap();
    assert_eq!(instances_of_files(&place), in_files([("main.db", 6), ("cold.db", 6), ("new.db", 3)]));
    assert_eq!(answers(&place), before);
    // Each of them may have learned something since, so this is no split that was begun.
    let refused = split_it().expect(2).stderr;
    assert!(refused.contains("changed since") && refused.contains("index merge --into"), "{refused}");
    place.run(["index", "merge", "--into", "folder/main.db", "folder/new.db", "--yes"]).expect(0);
    assert_eq!(answers(&place), before);
    split_it().expect(0);
    assert_eq!((answers(&place), instances_of_files(&place)), (before, parted));
    for file in ["folder/main.db", "folder/new.db"] {
        place.run(["check", "--index", file]).expect(0);
    }
    let again = place.run(["scan", "--index", "folder", "--json", "one"]).expect(0).json();
    assert_eq!(again.last().unwrap()["unchanged"], 6, "{again:?}");
    assert!(split_it().expect(1).stdout.contains("none of 1 studies matches"));
}

#[test]
fn a_split_that_cannot_be_is_refused() {
    let place = folder();
    let refused = |arguments: [&str; 4]| {
        let run = place.run(["index", "split"].into_iter().chain(arguments).chain(["--yes"])).expect(2);
        assert_eq!(instances_of_files(&place).iter().map(|(_, count)| count).sum::<u64>(), 12);
        run.stderr
    };
    assert!(
        refused(["folder/main.db", "--into", "folder/cold.db", "StudyInstanceUID=1.2.0"]).contains("other studies")
    );
    assert!(refused(["folder/main.db", "--into", "folder/x.db", "StudyDate="]).contains("all studies match"));
    assert!(refused(["folder/main.db", "--into", "folder/x", "StudyInstanceUID=1.2.0"]).contains("end in .db"));
    // The folder would not answer with it.
    fs::create_dir(place.path("elsewhere")).unwrap();
    let into = |into| refused(["folder/main.db", "--into", into, "StudyInstanceUID=1.2.0"]);
    assert!(into("folder/new").contains("end in .db") && into("elsewhere/new.db").contains("not in the folder"));
    assert!(refused(["folder/no.db", "--into", "folder/x.db", "StudyDate="]).contains("no index file"));
    let node = Node::start(&place, &["--index", "folder"]);
    assert!(refused(["folder/main.db", "--into", "folder/x.db", "StudyInstanceUID=1.2.0"]).contains("in use"));
    drop(node);
    place.run(["index", "freeze", "folder/main.db"]).expect(0);
    assert!(refused(["folder/main.db", "--into", "folder/x.db", "StudyInstanceUID=1.2.0"]).contains("index thaw"));
}

#[test]
fn files_are_merged_and_all_answers_stay() {
    let place = folder();
    // The other file has a part of a study, a copy of an instance, and a file that cannot be read.
    objects::write(&place.path("two/more.dcm"), 0, 0, 90);
    fs::copy(place.path("one/1.dcm"), place.path("two/1.dcm")).unwrap();
    fs::write(place.path("two/broken.dcm"), "DICM, or not").unwrap();
    fs::remove_file(place.path("two/11.dcm")).unwrap();
    place.run(["scan", "--index", "folder/cold.db", "two"]).expect(1);
    let before = answers(&place);
    let failed = || place.run(["status", "--index", "folder", "--json"]).expect(0).json()[0]["failed"].clone();
    let failed_before = failed();
    let merge = ["index", "merge", "--into", "folder/main.db", "folder/cold.db"];
    let merge_it = || place.run(merge.into_iter().chain(["--yes"]));
    let told = place.run(merge).expect(0).stdout;
    assert!(told.contains("3 studies would go to") && told.contains("nothing was changed"), "{told}");
    let done = merge_it().expect(0).stdout;
    let merged = vec![("main.db".to_owned(), 13)];
    assert_eq!((answers(&place), instances_of_files(&place)), (before.clone(), merged.clone()));
    assert_eq!(failed(), failed_before);
    // After a kill before the last step, the other file is still there.
    let former = done.split(" and ").last().unwrap().trim();
    fs::rename(former, place.path("folder/cold.db")).unwrap();
    assert_eq!(answers(&place), before);
    merge_it().expect(0);
    assert_eq!((answers(&place), instances_of_files(&place)), (before, merged));
    place.run(["check", "--index", "folder/main.db"]).expect(0);
    let again = place.run(["scan", "--index", "folder", "--json", "one", "two"]).expect(1).json();
    let summary = again.last().unwrap();
    assert_eq!((summary["unchanged"].as_u64(), summary["indexed"].as_u64()), (Some(13), Some(0)), "{again:?}");
}

#[test]
fn a_merge_that_would_change_answers_is_refused() {
    let place = folder();
    // One instance cannot be of two studies in one file.
    objects::write(&place.path("three/0.dcm"), 0, 0, 0);
    let bytes = fs::read(place.path("three/0.dcm")).unwrap();
    let other = objects::file("P1", "1.2.77", "1.2.77.1", "1.2.0.0.0");
    assert_ne!(bytes, other);
    fs::write(place.path("three/0.dcm"), other).unwrap();
    place.run(["scan", "--index", "folder/third.db", "three"]).expect(0);
    let before = answers(&place);
    let merge = |into, other| place.run(["index", "merge", "--into", into, other, "--yes"]).expect(2).stderr;
    assert!(merge("folder/main.db", "folder/third.db").contains("nothing was changed"));
    assert!(merge("folder/main.db", "folder/main.db").contains("into itself"));
    assert!(merge("folder/main.db", "folder/none.db").contains("no index file"));
    place.run(["correct", "--index", "folder/cold.db", "PatientID=P1", "--set", "PatientSex=O", "--yes"]).expect(0);
    let corrected = merge("folder/main.db", "folder/cold.db");
    assert!(corrected.contains("corrections that the other file does not have"), "{corrected}");
    place.run(["correct", "--index", "folder/cold.db", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(answers(&place), before);
    assert_eq!(instances_of_files(&place).len(), 3);
}

/// Writes an object of a patient below `archive`.
fn write_of(place: &Place, name: &str, [study, series, instance]: [&str; 3], [id, person, born]: [&str; 3]) {
    let object = DataSet::default()
        .uid(0x0008, 0x0016, objects::SOP_CLASS)
        .uid(0x0008, 0x0018, instance)
        .text(0x0008, 0x0060, "CT")
        .text(0x0010, 0x0010, person)
        .text(0x0010, 0x0020, id)
        .text(0x0010, 0x0030, born)
        .uid(0x0020, 0x000D, study)
        .uid(0x0020, 0x000E, series)
        .text(0x0020, 0x0013, if name.contains("other") { "22" } else { "1" });
    write_file(place, name, &object);
}

#[test]
fn patients_without_an_id_have_their_own_studies_where_files_share_one() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    let (gus, diana) = (["", "GAMMA^GUS", ""], ["", "DELTA^DIANA", ""]);
    write_of(&place, "one/1.dcm", ["1.2.1", "1.2.1.1", "1.2.1.1.1"], gus);
    write_of(&place, "two/2.dcm", ["1.2.1", "1.2.1.1", "1.2.1.1.2"], gus);
    write_of(&place, "one/3.dcm", ["1.2.3", "1.2.3.1", "1.2.3.1.1"], diana);
    for (index, tree) in [("folder/main.db", "archive/one"), ("folder/two.db", "archive/two")] {
        place.run(["scan", "--index", index, tree]).expect(0);
    }
    let keys = ["PatientName", "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedInstances"];
    let find = ["find", "--index", "folder", "--level", "PATIENT", "--format", "csv"];
    let found = place.run(find.into_iter().chain(keys)).expect(0).stdout;
    let rows: Vec<&str> = found.lines().skip(1).collect();
    assert_eq!(rows, ["DELTA^DIANA,1,1", "GAMMA^GUS,1,2"]);
}

#[test]
fn contradictions_between_files_are_listed_as_those_of_one_file() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    let (gus, diana) = (["42", "GAMMA^GUS", "19600101"], ["42", "DELTA^DIANA", "19750505"]);
    let (anne, bob) = (["A", "SMITH^ANNE", ""], ["B", "SMITH^ANNE", ""]);
    for (name, uids, patient) in [
        ("one/1.dcm", ["1.2.1", "1.2.1.1", "1.2.1.1.1"], gus),
        ("two/2.dcm", ["1.2.2", "1.2.2.1", "1.2.2.1.1"], diana),
        // An instance with two contents, in a series that both files have.
        ("one/3.dcm", ["1.2.3", "1.2.3.1", "1.2.3.1.1"], anne),
        ("two/3-other.dcm", ["1.2.3", "1.2.3.1", "1.2.3.1.1"], anne),
        // A study with two patients.
        ("two/4.dcm", ["1.2.4", "1.2.4.1", "1.2.4.1.1"], bob),
        ("one/4.dcm", ["1.2.4", "1.2.4.1", "1.2.4.1.2"], anne),
        // A series in two studies.
        ("one/5.dcm", ["1.2.5", "1.2.9.1", "1.2.5.1.1"], anne),
        ("two/6.dcm", ["1.2.6", "1.2.9.1", "1.2.6.1.1"], anne),
    ] {
        write_of(&place, name, uids, patient);
    }
    for (index, tree) in [("folder/main.db", "one"), ("folder/two.db", "two"), ("whole.db", "one"), ("whole.db", "two")]
    {
        place.run(["scan", "--index", index, &format!("archive/{tree}")]).expect(0);
    }
    let told = |index| {
        let counts = place.run(["status", "--index", index, "--json"]).expect(0).json()[0]["conflicts_by_kind"].clone();
        let mut listed = place.run(["check", "--index", index, "--json"]).expect(0).json();
        listed.retain(|line| line["event"] == "conflict");
        (counts, listed)
    };
    let whole = told("whole.db");
    assert_eq!(whole.1.len(), 4, "{whole:?}");
    assert_eq!(told("folder"), whole);
    // What one file contradicts by itself is not listed twice.
    write_of(&place, "one/7.dcm", ["1.2.7", "1.2.7.1", "1.2.7.1.1"], diana);
    write_of(&place, "one/8.dcm", ["1.2.4", "1.2.4.1", "1.2.4.1.3"], bob);
    for index in ["folder/main.db", "whole.db"] {
        place.run(["scan", "--index", index, "archive/one"]).expect(0);
    }
    assert_eq!(told("folder").0, told("whole.db").0);
}

#[test]
fn a_frozen_file_goes_on_answering_and_takes_no_scan() {
    let place = folder();
    let frozen = place.run(["index", "freeze", "folder/cold.db"]).expect(0).stdout;
    assert!(frozen.contains("cold.db: frozen"), "{frozen}");
    let listed = place.run(["index", "list", "--index", "folder"]).expect(0).stdout;
    assert!(listed.contains("cold.db") && listed.contains("; frozen "), "{listed}");
    let studies = place.run(["find", "--index", "folder", "--level", "STUDY", "--format", "csv", "StudyInstanceUID"]);
    assert_eq!(studies.expect(0).stdout.lines().count(), 1 + 4);
    let refused = place.run(["scan", "--index", "folder/cold.db", "two"]).expect(2);
    assert!(refused.stderr.contains("is frozen") && refused.stderr.contains("index thaw"), "{refused:?}");
    assert!(place.run(["index", "verify", "folder/cold.db"]).expect(0).stdout.contains("sound"));
    let mut bytes = fs::read(place.path("folder/cold.db")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(place.path("folder/cold.db"), bytes).unwrap();
    assert!(place.run(["index", "verify", "folder/cold.db"]).expect(1).stdout.contains("NOT SOUND"));
    place.run(["index", "thaw", "folder/cold.db"]).expect(0);
    place.run(["index", "thaw", "folder/cold.db"]).expect(2);
}

#[test]
fn what_needs_one_file_says_which() {
    let place = folder();
    fs::create_dir(place.path("copies")).unwrap();
    // The first removal only asks what would be removed.
    for command in [
        &["backup", "copies"][..],
        &["relocate", "one", "two"],
        &["remove", "PatientID=P1"],
        &["remove", "PatientID=P1", "--yes"],
        &["correct", "--list"],
    ] {
        let refused = place.run([command, &["--index", "folder"]].concat()).expect(2);
        let says = |text| refused.stderr.contains(text);
        assert!(says("needs one file") && says("--index ") && says("folder/main.db"), "{refused:?}");
    }
}

/// The studies that a node answers with.
fn studies_of(node: &Node) -> Option<usize> {
    let mut findscu = peers::dcmtk("findscu")?;
    findscu.args(["-v", "-S", "-aec", "DCMDEX", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID"]);
    let answer = peers::run(findscu.args(["127.0.0.1", &node.port.to_string()])).expect_success();
    let answers = answer.matches("(Pending)").count();
    assert!(answers > 0 || !answer.contains("(Success)"), "{answer}");
    Some(answers)
}

#[test]
fn a_node_stores_in_the_file_that_has_the_study_or_is_named_for_it() {
    let place = folder();
    place.run(["index", "new", "folder/2024.db"]).expect(0);
    place.run(["index", "freeze", "folder/cold.db"]).expect(0);
    let dated = objects::file_with(50, &[(0x0008, 0x0020, b"DA", "20240203")]);
    fs::write(place.path("dated.dcm"), dated).unwrap();
    objects::write(&place.path("known.dcm"), 0, 0, 90);
    objects::write(&place.path("of-cold.dcm"), 2, 3, 91);
    objects::write(&place.path("new.dcm"), 60, 1, 1);
    let node = Node::start(&place, &["--index", "folder"]);
    let Some(mut storescu) = peers::dcmtk("storescu") else { return };
    storescu.current_dir(place.path("")).args(["-aec", "DCMDEX", "127.0.0.1", &node.port.to_string()]);
    peers::run(storescu.args(["dated.dcm", "known.dcm", "of-cold.dcm", "new.dcm"])).expect_success();
    assert_eq!(studies_of(&node), Some(6), "the study of the frozen file once");
    let instances = |file: &str| {
        let status = place.run(["status", "--index", &format!("folder/{file}"), "--json"]).expect(0).json();
        status[0]["instances"].as_u64().unwrap()
    };
    assert_eq!(["main.db", "2024.db", "cold.db"].map(instances), [6 + 3, 1, 6]);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["check", "--index", "folder"]).expect(0);
    // A scan of the same files finds them unchanged, in whichever file they are.
    let again = place.run(["scan", "--index", "folder", "one", "two", "--json"]).expect(0).json();
    assert_eq!(again.last().unwrap()["unchanged"].as_u64(), Some(12));
}

#[test]
fn files_come_and_go_while_a_node_answers() {
    let place = folder();
    place.run(["index", "freeze", "folder/cold.db"]).expect(0);
    fs::create_dir(place.path("shelf")).unwrap();
    let carry = |from: &str, to: &str| {
        for name in ["cold.db-frozen", "cold.db"] {
            fs::rename(place.path(format!("{from}/{name}")), place.path(format!("{to}/{name}"))).unwrap();
        }
    };
    carry("folder", "shelf");
    let node = Node::start(&place, &["--index", "folder"]);
    let Some(before) = studies_of(&node) else { return };
    assert_eq!(before, 2);
    carry("shelf", "folder");
    assert_eq!(studies_of(&node), Some(4));
    carry("folder", "shelf");
    assert_eq!(studies_of(&node), Some(2));
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_thawed_file_is_read_anew_while_a_node_answers() {
    let place = folder();
    place.run(["index", "freeze", "folder/cold.db"]).expect(0);
    let node = Node::start(&place, &["--index", "folder"]);
    let Some(before) = studies_of(&node) else { return };
    assert_eq!(before, 4);
    place.run(["index", "thaw", "folder/cold.db"]).expect(0);
    assert_eq!(studies_of(&node), Some(4));
    for (number, expected) in [(70, 5), (80, 6)] {
        objects::write(&place.path(format!("late/{number}.dcm")), number, number, number);
        place.run(["scan", "--index", "folder/cold.db", "late"]).expect(0);
        assert_eq!(studies_of(&node), Some(expected));
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["index", "freeze", "folder/cold.db"]).expect(0);
    let node = Node::start(&place, &["--index", "folder"]);
    assert_eq!(studies_of(&node), Some(6));
    place.run(["index", "thaw", "folder/cold.db"]).expect(0);
    objects::write(&place.path("late/90.dcm"), 90, 90, 90);
    place.run(["scan", "--index", "folder/cold.db", "late"]).expect(0);
    place.run(["index", "freeze", "folder/cold.db"]).expect(0);
    assert_eq!(studies_of(&node), Some(7), "thawed, written and frozen again between two questions");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_link_to_a_frozen_file_is_frozen_too() {
    let place = folder();
    place.run(["index", "freeze", "folder/cold.db"]).expect(0);
    fs::create_dir(place.path("links")).unwrap();
    std::os::unix::fs::symlink(place.path("folder/cold.db"), place.path("links/cold.db")).unwrap();
    let refused = place.run(["scan", "--index", "links/cold.db", "one"]).expect(2);
    assert!(refused.stderr.contains("is frozen"), "{refused:?}");
    let listed = place.run(["index", "list", "--index", "links/cold.db"]).expect(0).stdout;
    assert!(listed.contains("; frozen "), "{listed}");
    assert_eq!(fs::read_dir(place.path("links")).unwrap().count(), 1, "nothing is made beside the link");
    place.run(["index", "thaw", "links/cold.db"]).expect(0);
    assert!(place.path("links/cold.db").is_symlink());
    place.run(["scan", "--index", "links/cold.db", "one"]).expect(0);
}

#[test]
fn a_file_that_is_gone_and_left_its_log_is_missed() {
    let place = folder();
    place.run(["index", "new", "folder/2024.db"]).expect(0);
    let dated = objects::file_with(50, &[(0x0008, 0x0020, b"DA", "20240203")]);
    fs::write(place.path("dated.dcm"), dated).unwrap();
    let node = Node::start(&place, &["--index", "folder"]);
    let Some(mut storescu) = peers::dcmtk("storescu") else { return };
    storescu.current_dir(place.path("")).args(["-aec", "DCMDEX", "127.0.0.1", &node.port.to_string()]);
    peers::run(storescu.arg("dated.dcm")).expect_success();
    let aside = place.path("2024.db");
    fs::rename(place.path("folder/2024.db"), &aside).unwrap();
    assert_eq!(studies_of(&node), Some(0), "no answer rather than one without its studies");
    node.kill();
    for command in [&["find", "--level", "STUDY"][..], &["scan", "one"]] {
        let refused = place.run([command, &["--index", "folder"]].concat()).expect(2);
        assert!(refused.stderr.contains("2024.db is gone"), "{refused:?}");
    }
    let refused = place.run(["serve", "--index", "folder", "--port", "0"]).expect(2);
    assert!(refused.stderr.contains("2024.db is gone"), "{refused:?}");
    fs::rename(&aside, place.path("folder/2024.db")).unwrap();
    let found = place.run(["find", "--index", "folder", "--level", "STUDY", "--count"]).expect(0);
    assert_eq!(found.stdout, "5\n");
}

#[test]
fn a_link_that_leads_nowhere_is_missed() {
    let place = folder();
    fs::create_dir(place.path("disk")).unwrap();
    place.run(["index", "freeze", "folder/cold.db"]).expect(0);
    for name in ["cold.db", "cold.db-frozen"] {
        fs::rename(place.path(format!("folder/{name}")), place.path(format!("disk/{name}"))).unwrap();
    }
    std::os::unix::fs::symlink(place.path("disk/cold.db"), place.path("folder/cold.db")).unwrap();
    let node = Node::start(&place, &["--index", "folder"]);
    let Some(before) = studies_of(&node) else { return };
    assert_eq!(before, 4);
    fs::rename(place.path("disk"), place.path("unmounted")).unwrap();
    assert_eq!(studies_of(&node), Some(0));
    let refused = place.run(["find", "--index", "folder", "--level", "STUDY"]).expect(2);
    assert!(refused.stderr.contains("cold.db"), "{refused:?}");
    fs::rename(place.path("unmounted"), place.path("disk")).unwrap();
    assert_eq!(studies_of(&node), Some(4));
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}
