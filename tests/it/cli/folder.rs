//! A folder of index files is one index for each command.

use std::fs;

use rustix::process::Signal;

use super::serve::Node;
use super::*;
use crate::util::{objects, peers};

/// Two index files in a folder, each of a scan of its own.
fn folder() -> Place {
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
    for command in [&["backup", "copies"][..], &["relocate", "one", "two"]] {
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
