//! Instances leave the index, scans do not bring them back, and an undo does.

use std::fs;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use super::faults::{SUCCESS, associated, indexed, store, uid};
use super::serve::Node;
use super::*;
use crate::util::archives;
use crate::util::objects;

fn store_all(node: &Node, numbers: std::ops::Range<usize>) {
    let mut peer = associated(node);
    for number in numbers {
        assert_eq!(store(&mut peer, number, 1000), SUCCESS);
    }
    peer.release();
}

fn received(place: &Place, numbers: std::ops::Range<usize>) {
    let node = Node::start(place, &[]);
    store_all(&node, numbers);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

fn uids(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(uid).collect()
}

/// Scans a tree of studies `1.2.0` and so on, with four instances each.
fn scanned(place: &Place, files: u32) {
    for file in 0..files {
        objects::write(&place.path(format!("tree/{file}.dcm")), file / 4, file / 2, file);
    }
    place.run(["scan", "tree"]).expect(0);
}

fn instances(place: &Place) -> u64 {
    place.run(["check", "--files"]).expect(0);
    place.run(["status", "--json"]).expect(0).json()[0]["instances"].as_u64().unwrap()
}

/// The file of a received object.
fn object(number: usize) -> String {
    format!("dcmdex-data/objects/1.2.3/1.2.3.4/{}.dcm", uid(number))
}

/// Objects in the trash.
fn in_trash(place: &Place) -> u64 {
    let removals = place.run(["remove", "--list", "--json"]).expect(0).json();
    removals.iter().for_each(|removal| super::scan::assert_documented("removal", removal));
    removals.iter().map(|removal| removal["in_trash"].as_u64().unwrap()).sum()
}

fn what_is_removed_is_said_first_and_comes_back_by_undo(place: Place) {
    received(&place, 0..4);
    let key = format!("SOPInstanceUID={}\\{}", uid(1), uid(2));
    let told = place.run(["remove", &key, "--objects"]).expect(0).stdout;
    assert!(told.starts_with("would remove 2 instances of 1 studies: 2 received objects of "), "{told}");
    assert_eq!(indexed(&place), uids(0..4));
    let done = place.run(["remove", &key, "--objects", "--yes"]).expect(0).stdout;
    assert!(done.contains("2 received objects are in the trash"), "{done}");
    assert_eq!(indexed(&place), [uid(0), uid(3)]);
    assert!(!place.path(object(1)).exists() && in_trash(&place) == 2);
    // Nothing brings them back by itself.
    assert!(place.run(["rebuild"]).expect(0).stdout.starts_with("0 objects of "));
    place.run(["check", "--orphans"]).expect(0);
    assert!(place.run(["remove", "--undo", "1"]).expect(0).stdout.contains("would bring back 2 instances"));
    let undone = place.run(["remove", "--undo", "1", "--yes"]).expect(0).stdout;
    assert!(undone.starts_with("2 received objects and 0 files in place are in the index again"), "{undone}");
    assert_eq!(indexed(&place), uids(0..4));
    assert!(place.run(["remove", "--undo", "1"]).expect(2).stderr.contains("there is no removal 1"));
    assert_eq!(place.run(["remove", "--list"]).expect(0).stdout, "nothing was removed\n");
    // Who wrote down its number does not meet another removal.
    assert!(place.run(["remove", &key, "--yes"]).expect(0).stdout.contains("removal 2"));
    assert!(place.run(["remove", "StudyInstanceUID=9.9"]).expect(1).stdout.contains("nothing matches"));
    assert!(place.run(["remove", "PatientName"]).expect(2).stderr.contains("has no value"));
    // As from a script whose variable is not set.
    for key in ["PatientID=", "StudyInstanceUID= \\"] {
        let refused = place.run(["remove", key, "--yes"]).expect(2).stderr;
        assert!(refused.contains("has an empty value"), "{refused}");
    }
    assert_eq!(indexed(&place), [uid(0), uid(3)]);
    assert!(place.run(["remove"]).code == 2);
}

fn files_in_place_are_never_touched_and_no_scan_brings_them_back(place: Place) {
    scanned(&place, 8);
    let member = objects::file("P1", "1.2.0", "1.2.0.0", "1.2.0.0.77");
    fs::write(place.path("tree/a.tar"), archives::tar(&[("m.dcm", &member)])).unwrap();
    place.run(["scan", "tree"]).expect(0);
    assert_eq!(instances(&place), 9);
    let done =
        place.run(["remove", "StudyInstanceUID=1.2.0", "--objects", "--yes", "--json"]).expect(0).json().remove(0);
    super::scan::assert_documented("removed", &done);
    assert_eq!((&done["instances"], &done["in_place"], &done["objects"]), (&5.into(), &5.into(), &0.into()), "{done}");
    assert!(place.path("tree/0.dcm").exists());
    let rescan = |more: &[&str]| {
        let mut arguments = vec!["scan", "tree", "--json"];
        arguments.extend(more);
        place.run(arguments).expect(0).json().pop().unwrap()
    };
    for more in [&[][..], &["--full"]] {
        let summary = rescan(more);
        assert_eq!(instances(&place), 4, "{summary}");
        assert_eq!(summary["skipped_by_reason"]["removed"], 5, "{summary}");
        let counts = |key: &str| summary[key].as_u64().unwrap();
        let parts = ["indexed", "updated", "unchanged", "skipped", "failed"].map(counts);
        assert_eq!(counts("found"), parts.iter().sum::<u64>(), "{summary}");
    }
    // Nor where a file has moved or was changed.
    fs::create_dir(place.path("tree/moved")).unwrap();
    fs::rename(place.path("tree/0.dcm"), place.path("tree/moved/0.dcm")).unwrap();
    let content = fs::read(place.path("tree/1.dcm")).unwrap();
    fs::write(place.path("tree/1.dcm"), [&content[..], &[0; 2]].concat()).unwrap();
    rescan(&["--prune"]);
    assert_eq!(instances(&place), 4);
    let undone = place.run(["remove", "--undo", "1", "--yes"]).expect(1).stdout;
    // The file that moved is not where it was.
    assert!(undone.contains("a.tar` indexes its members again"), "{undone}");
    place.run(["scan", "tree"]).expect(0);
    assert_eq!(instances(&place), 9);
}

fn a_node_goes_on_while_instances_are_removed_and_takes_them_again(place: Place) {
    let mut node = Node::start(&place, &[]);
    store_all(&node, 0..4);
    let done = place.run(["remove", "StudyInstanceUID=1.2.3", "--objects", "--yes"]).expect(0).stdout;
    assert!(done.contains("the node moves 4 received objects to the trash"), "{done}");
    // One comes again at once, and is stored as a new one.
    store_all(&node, 2..3);
    node.wait_for("removed objects are in the trash");
    assert_eq!(indexed(&place), uids(2..3));
    assert!(!place.path(object(0)).exists() && place.path(object(2)).exists());
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(indexed(&place), uids(0..4));
    store_all(&node, 4..5);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(indexed(&place), uids(0..5));
    place.run(["check", "--orphans"]).expect(0);
}

fn an_instance_that_is_received_again_is_no_longer_removed(place: Place) {
    received(&place, 0..2);
    // The objects stay where they are.
    place.run(["remove", "StudyInstanceUID=1.2.3", "--yes"]).expect(0);
    assert!(place.path(object(0)).exists());
    assert!(place.run(["rebuild"]).expect(0).stdout.starts_with("0 objects of "));
    received(&place, 1..2);
    assert_eq!(indexed(&place), uids(1..2));
    // Undo brings back the other one, and leaves this one as it is.
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(indexed(&place), uids(0..2));
}

#[test]
fn a_lost_index_that_is_built_again_knows_what_was_removed() {
    let place = Place::new();
    received(&place, 0..3);
    place.run(["remove", &format!("SOPInstanceUID={}", uid(0)), "--yes"]).expect(0);
    place.run(["remove", &format!("SOPInstanceUID={}", uid(1)), "--objects", "--yes"]).expect(0);
    for suffix in ["", "-turn"] {
        fs::remove_file(place.path(format!("dcmdex-data/index.db{suffix}"))).unwrap();
    }
    let rebuilt = place.run(["rebuild"]).expect(0).stdout;
    assert!(rebuilt.contains("1 removed objects were left out"), "{rebuilt}");
    assert_eq!(indexed(&place), uids(2..3));
    // The object in its place is removed. It is not one that the index lacks.
    let check = place.run(["check", "--orphans"]).expect(0).stdout;
    assert!(check.contains("objects that the index lacks: 0"), "{check}");
    assert!(place.run(["config", "check"]).expect(0).stdout.lines().all(|line| !line.contains("lacks")));
    let removals = place.run(["remove", "--list", "--json"]).expect(0).json();
    assert_eq!(removals.len(), 2);
    for removal in &removals {
        let number = removal["removal"].to_string();
        place.run(["remove", "--undo", &number, "--yes"]).expect(0);
    }
    // One never left its place, and one comes from the trash.
    assert_eq!(indexed(&place), uids(0..3));
    place.run(["check", "--orphans"]).expect(0);
}

#[test]
fn an_undo_after_the_backup_is_repeated_by_the_rebuild_of_the_restored_index() {
    for more in [&["--yes"][..], &["--objects", "--yes"]] {
        let place = Place::new();
        scanned(&place, 4);
        received(&place, 0..3);
        let removed = format!("SOPInstanceUID={}\\{}\\1.2.0.0.0", uid(0), uid(1));
        place.run(["remove", &removed].iter().chain(more).copied()).expect(0);
        fs::create_dir(place.path("backup")).unwrap();
        place.run(["backup", "backup"]).expect(0);
        place.run(["remove", "--undo", "1", "--yes"]).expect(0);
        assert_eq!(instances(&place), 7);
        // One of them is removed once more, and stays so.
        place.run(["remove", &format!("SOPInstanceUID={}", uid(1)), "--yes"]).expect(0);
        let names = fs::read_dir(place.path("backup")).unwrap().map(|entry| entry.unwrap().path());
        let backup = names.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "db"));
        place.run(["restore", backup.unwrap().to_str().unwrap(), "--yes"]).expect(0);
        assert_eq!(instances(&place), 4);
        if more.contains(&"--objects") {
            let orphans = place.run(["check", "--orphans"]).expect(1).stdout;
            assert!(orphans.contains(&format!("{}.dcm", uid(0))), "{orphans}");
        }
        let rebuilt = place.run(["rebuild"]).expect(0).stdout;
        assert!(rebuilt.contains("removal 1 was undone after this index was saved"), "{rebuilt}");
        assert_eq!((indexed(&place), instances(&place)), (vec![uid(0), uid(2)], 6), "{rebuilt}");
        place.run(["check", "--orphans"]).expect(0);
    }
}

#[test]
fn what_came_again_after_a_removal_survives_the_loss_of_the_index() {
    for more in [&["--yes"][..], &["--objects", "--yes"]] {
        let place = Place::new();
        received(&place, 0..3);
        place.run(["remove", "StudyInstanceUID=1.2.3"].iter().chain(more).copied()).expect(0);
        received(&place, 1..2);
        assert_eq!(indexed(&place), uids(1..2));
        for suffix in ["", "-turn"] {
            fs::remove_file(place.path(format!("dcmdex-data/index.db{suffix}"))).unwrap();
        }
        let rebuilt = place.run(["rebuild"]).expect(0).stdout;
        assert_eq!(indexed(&place), uids(1..2), "{rebuilt}");
    }
}

#[test]
fn a_removed_object_stays_out_if_another_one_of_its_instance_came_and_the_index_was_lost() {
    for is_lost_first in [true, false] {
        let place = Place::new();
        received(&place, 0..1);
        place.run(["remove", &format!("SOPInstanceUID={}", uid(0)), "--yes"]).expect(0);
        let lose = || {
            for suffix in ["", "-turn"] {
                fs::remove_file(place.path(format!("dcmdex-data/index.db{suffix}"))).unwrap();
            }
            assert!(place.run(["rebuild"]).expect(0).stdout.contains("1 removed objects were left out"));
        };
        if is_lost_first {
            lose();
        }
        let node = Node::start(&place, &[]);
        assert_eq!(store(&mut associated(&node), 0, 2000), SUCCESS);
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
        if !is_lost_first {
            lose();
        }
        place.run(["check", "--orphans"]).expect(0);
        assert!(place.run(["rebuild"]).expect(0).stdout.starts_with("0 objects of "));
        let copies = || place.run(["status", "--json"]).expect(0).json()[0]["copies"].as_u64();
        assert_eq!((indexed(&place), copies()), (uids(0..1), Some(0)));
        place.run(["remove", "--undo", "1", "--yes"]).expect(0);
        assert_eq!((indexed(&place), copies()), (uids(0..1), Some(1)));
    }
}

/// The undo had moved an object to its place when it was killed, and had not stored its row.
fn an_undo_that_was_killed_between_object_and_row_is_finished_by_the_next(place: Place) {
    received(&place, 0..3);
    place.run(["remove", "StudyInstanceUID=1.2.3", "--objects", "--yes"]).expect(0);
    let mut trashed = place.path("dcmdex-data/objects/.trash");
    while trashed.is_dir() {
        let inside = fs::read_dir(&trashed).unwrap().map(|entry| entry.unwrap().path());
        trashed = inside.filter(|path| path.file_name().is_some_and(|name| name != "removed.txt")).min().unwrap();
    }
    fs::create_dir_all(place.path(object(0)).parent().unwrap()).unwrap();
    fs::rename(&trashed, place.path(object(0)).with_file_name(trashed.file_name().unwrap())).unwrap();
    let undone = place.run(["remove", "--undo", "1", "--yes"]).expect(0).stdout;
    assert!(undone.starts_with("3 received objects"), "{undone}");
    assert_eq!(indexed(&place), uids(0..3));
    place.run(["check", "--files", "--orphans"]).expect(0);
}

/// As after a restore of a backup that has no objects of the trash.
fn files_in_place_come_back_with_the_objects_of_their_instances(place: Place) {
    received(&place, 0..1);
    fs::create_dir(place.path("tree")).unwrap();
    fs::copy(place.path(object(0)), place.path("tree/0.dcm")).unwrap();
    place.run(["scan", "tree"]).expect(0);
    let copies = || place.run(["status", "--json"]).expect(0).json()[0]["copies"].as_u64();
    assert_eq!(copies(), Some(1));
    place.run(["remove", &format!("SOPInstanceUID={}", uid(0)), "--objects", "--yes"]).expect(0);
    let undone = place.run(["remove", "--undo", "1", "--yes"]).expect(0).stdout;
    assert!(undone.contains("1 received objects and 1 files in place are in the index again"), "{undone}");
    assert_eq!((indexed(&place), copies()), (uids(0..1), Some(1)));
}

fn the_content_that_answered_before_a_removal_answers_after_its_undo(place: Place) {
    let other = Place::new();
    received(&other, 0..1);
    fs::create_dir(place.path("tree")).unwrap();
    fs::copy(other.path(object(0)), place.path("tree/0.dcm")).unwrap();
    place.run(["scan", "tree"]).expect(0);
    let node = Node::start(&place, &[]);
    assert_eq!(store(&mut associated(&node), 0, 2000), SUCCESS);
    assert_eq!(store(&mut associated(&node), 0, 3000), SUCCESS);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let first = || place.run(["find", "--level", "IMAGE", "--format", "csv", "path"]).expect(0).stdout;
    assert!(first().contains("tree/0.dcm"), "{}", first());
    for (number, more) in [("1", &["--yes"][..]), ("2", &["--objects", "--yes"])] {
        place.run(["remove", &format!("SOPInstanceUID={}", uid(0))].iter().chain(more).copied()).expect(0);
        place.run(["remove", "--undo", number, "--yes"]).expect(0);
        assert!(first().contains("tree/0.dcm"), "{more:?}: {}", first());
        assert_eq!(place.run(["status", "--json"]).expect(0).json()[0]["copies"].as_u64(), Some(2));
    }
}

fn an_object_that_the_trash_has_lost_keeps_its_removal(place: Place) {
    received(&place, 0..2);
    place.run(["remove", "StudyInstanceUID=1.2.3", "--objects", "--yes"]).expect(0);
    let mut trashed = fs::read_dir(place.path("dcmdex-data/objects/.trash")).unwrap();
    let series = trashed
        .find_map(|entry| Some(entry.unwrap().path().join("objects/1.2.3/1.2.3.4")).filter(|path| path.exists()));
    let lost = series.unwrap().join(format!("{}.dcm", uid(1)));
    fs::rename(&lost, place.path("away")).unwrap();
    let undone = place.run(["remove", "--undo", "1", "--yes"]).expect(1).stdout;
    assert!(undone.contains("it is not in the trash") && undone.contains("1 could not be brought back"), "{undone}");
    assert_eq!(indexed(&place), uids(0..1));
    // It can come back when its object is there again.
    fs::create_dir_all(lost.parent().unwrap()).unwrap();
    fs::rename(place.path("away"), &lost).unwrap();
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(indexed(&place), uids(0..2));
}

fn the_trash_is_emptied_by_age_and_then_nothing_comes_back(place: Place) {
    received(&place, 0..2);
    place.run(["remove", "StudyInstanceUID=1.2.3", "--objects", "--yes"]).expect(0);
    let young = place.run(["remove", "--empty", "7", "--yes"]).expect(0).stdout;
    assert!(young.contains("nothing in the trash is that old"), "{young}");
    assert!(place.run(["remove", "--empty", "0"]).expect(0).stdout.contains("would delete 2 objects for good"));
    assert_eq!(in_trash(&place), 2);
    assert!(place.run(["remove", "--empty", "0", "--yes"]).expect(0).stdout.contains("2 objects were deleted"));
    assert_eq!(in_trash(&place), 0);
    let undone = place.run(["remove", "--undo", "1", "--yes"]).expect(0).stdout;
    assert!(undone.starts_with("0 received objects"), "{undone}");
    assert!(
        undone.contains("2 instances are no longer removed, but their objects were deleted for good 20"),
        "{undone}"
    );
    assert!(indexed(&place).is_empty());
    // At once, without a trash.
    received(&place, 0..2);
    let done = place.run(["remove", "StudyInstanceUID=1.2.3", "--objects", "--no-undo", "--yes"]).expect(0).stdout;
    assert!(done.contains("2 received objects were deleted for good") && !done.contains("--undo"), "{done}");
    assert!(!place.path(object(0)).exists() && in_trash(&place) == 0);
}

// The node has the storage directory, so the objects are its work. It never gets to it.
#[test]
fn a_removal_for_good_that_was_cut_off_is_finished_by_the_same_command() {
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), "[store]\njournal_mib = 0\n").unwrap();
    let node = Node::start(&place, &[]);
    store_all(&node, 0..3);
    node.signal(Signal::STOP);
    let remove = ["remove", "StudyInstanceUID=1.2.3", "--objects", "--no-undo", "--yes"];
    let told = place.run(remove).expect(0).stdout;
    assert!(told.contains("the node deletes 3 received objects for good within seconds"), "{told}");
    node.stop(Signal::KILL);
    assert!(place.path(object(0)).exists());
    let told = place.run(remove).expect(0).stdout;
    assert!(told.contains("an earlier removal was not complete") && told.contains("3 received objects were"), "{told}");
    assert!(!place.path(object(0)).exists() && in_trash(&place) == 0);
    assert!(place.run(remove).expect(1).stdout.contains("nothing matches"));
    // A running node does so as well.
    let mut node = Node::start(&place, &[]);
    store_all(&node, 0..2);
    place.run(remove).expect(0);
    node.wait_for("removed objects are in the trash, or deleted for good");
    assert!(!place.path(object(0)).exists() && in_trash(&place) == 0);
}

#[test]
fn objects_that_were_kept_before_metadata_only_go_to_the_trash_too() {
    let place = Place::new();
    received(&place, 0..3);
    fs::write(place.path("dcmdex.toml"), "metadata_only = true\n").unwrap();
    let node = Node::start(&place, &[]);
    for number in 0..2 {
        let done = place.run(["remove", &format!("SOPInstanceUID={}", uid(number)), "--objects", "--yes"]).expect(0);
        assert!(done.stdout.contains("1 received objects are in the trash"), "{done:?}");
        assert!(!place.path(object(number)).exists());
    }
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(indexed(&place), [uid(0), uid(2)]);
    assert!(place.path(object(0)).exists());
    let remove = ["remove", "StudyInstanceUID=1.2.3", "--objects", "--no-undo", "--yes"];
    let done = place.run(remove).expect(0).stdout;
    assert!(done.contains("2 received objects were deleted for good"), "{done}");
    assert!(!place.path(object(0)).exists() && !place.path(object(2)).exists());
    node.stop(Signal::TERM);
    place.run(["check", "--orphans"]).expect(0);
    place.run(["remove", "--undo", "2", "--yes"]).expect(0);
    place.run(["backup", "saved", "--make-directory", "--objects", "copy"]).expect(0);
    fs::remove_file(place.path("dcmdex-data/index.db")).unwrap();
    place.run(["rebuild"]).expect(0);
    assert_eq!(indexed(&place), [uid(1)]);
}

#[test]
fn what_is_removed_and_corrected_in_another_index_stays_in_that_of_the_node() {
    let place = Place::new();
    received(&place, 0..2);
    fs::create_dir(place.path("archive")).unwrap();
    fs::copy(place.path(object(0)), place.path("archive/0.dcm")).unwrap();
    place.run(["scan", "archive", "--index", "other.db"]).expect(0);
    place.run(["correct", "--index", "other.db", "StudyInstanceUID=1.2.3", "--set", "PatientID=X", "--yes"]).expect(0);
    place.run(["remove", "--index", "other.db", "StudyInstanceUID=1.2.3", "--yes"]).expect(0);
    place.run(["backup", "other-saved.db", "--index", "other.db"]).expect(0);
    for file in ["index.db", "index.db-wal", "index.db-shm"] {
        let _gone = fs::remove_file(place.path("dcmdex-data").join(file));
    }
    place.run(["rebuild"]).expect(0);
    assert_eq!(indexed(&place), uids(0..2));
    assert_eq!(place.run(["find", "--format", "csv", "--level", "IMAGE", "PatientID=X"]).code, 1);
    // Nor does the other one get those of the node.
    place.run(["remove", &format!("SOPInstanceUID={}", uid(1)), "--yes"]).expect(0);
    let told = place.run(["restore", "other-saved.db", "--index", "other.db", "--yes"]).expect(0).stdout;
    assert!(!told.contains("removed"), "{told}");
}

#[test]
fn rules_of_age_and_free_space_choose_whole_studies_the_oldest_first() {
    let place = Place::new();
    received(&place, 0..3);
    // More is free than is asked for.
    let enough =
        place.run(["remove", "StudyDate=*", "--objects", "--no-undo", "--until-free", "1", "--yes"]).expect(0).stdout;
    assert_eq!(enough, "enough is free: nothing has to go\n");
    let all = ["remove", "PatientID=*", "--objects", "--no-undo", "--until-free", "900000T"];
    let told = place.run(all).expect(0).stdout;
    assert!(told.contains("3 instances of 1 studies") && told.contains("DELETED FOR GOOD"), "{told}");
    // A backup by hard links keeps the bytes of each.
    fs::create_dir(place.path("backup")).unwrap();
    place.run(["backup", "backup", "--objects", "hard-links"]).expect(0);
    let told = place.run(all).expect(1).stdout;
    assert!(told.contains("nothing matches\n1 studies are left out: their objects have other names"), "{told}");
    let refused = place.run(["remove", "StudyDate=*", "--objects", "--until-free", "1"]);
    assert!(refused.code == 2 && refused.stderr.contains("--no-undo"), "{refused:?}");
    assert_eq!(indexed(&place), uids(0..3));
}

fn metadata_without_objects_come_back_too(place: Place) {
    let node = Node::start(&place, &["--metadata-only"]);
    store_all(&node, 0..2);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let find = || place.run(["find", "--level", "IMAGE", "--format", "csv", "SOPInstanceUID", "PatientID"]).stdout;
    let before = find();
    let settings = "metadata_only = true\n";
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    place.run(["remove", "StudyInstanceUID=1.2.3", "--yes"]).expect(0);
    assert!(!find().contains("1.2.3.4."));
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(find(), before);
}

fn two_removals_at_once_take_each_instance_once(place: Place) {
    scanned(&place, 200);
    let start = || {
        let mut command = place.command();
        command.args(["remove", "PatientID=P1", "--yes", "--json"]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
    let removed: u64 = both
        .iter()
        .map(|output| {
            assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
            let told: Value = serde_json::from_slice(&output.stdout).unwrap();
            if told["dry_run"] == true { 0 } else { told["instances"].as_u64().unwrap() }
        })
        .sum();
    assert_eq!(removed, 200);
    assert_eq!(instances(&place), 0);
}

#[test]
fn a_removal_or_an_undo_that_is_killed_leaves_whole_studies() {
    const KILLS: u32 = 10;
    let place = Place::new();
    received(&place, 0..40);
    scanned(&place, 400);
    let all = || instances(&place);
    assert_eq!(all(), 440);
    let whole = {
        let begun = std::time::Instant::now();
        place.run(["remove", "PatientID=P1", "--objects", "--yes"]).expect(0);
        let whole = begun.elapsed();
        place.run(["remove", "--undo", "1", "--yes"]).expect(0);
        whole
    };
    assert_eq!(all(), 440);
    for at in 0..KILLS {
        let mut command = place.command();
        command.args(["remove", "PatientID=*", "--objects", "--yes"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * at / KILLS);
        let _ended = child.kill();
        child.wait().unwrap();
        place.run(["check", "--files"]).expect(0);
        let find = ["find", "--format", "csv", "NumberOfStudyRelatedInstances", "StudyInstanceUID"];
        let studies = run(place.command().args(find)).stdout;
        for study in studies.lines().skip(1).filter(|line| !line.is_empty()) {
            // The received study has the UID of one that was scanned.
            let count = if study.ends_with(",1.2.3") { "44," } else { "4," };
            assert!(study.starts_with(count), "part of a study was removed: {study}");
        }
        for removal in place.run(["remove", "--list", "--json"]).expect(0).json() {
            let number = removal["removal"].to_string();
            place.run(["remove", "--undo", &number, "--yes"]).expect(0);
        }
        assert_eq!(all(), 440);
        place.run(["check", "--orphans"]).expect(0);
    }
}

#[test]
fn a_trash_on_another_disk_takes_objects_and_gives_them_back() {
    let place = Place::new();
    received(&place, 0..2);
    let Some(disk) = crate::util::disks::Mount::of_bytes(1024 * 1024) else { return };
    std::os::unix::fs::symlink(disk.path(), place.path("dcmdex-data/objects/.trash")).unwrap();
    place.run(["remove", "StudyInstanceUID=1.2.3", "--objects", "--yes"]).expect(0);
    assert!(!place.path(object(0)).exists() && in_trash(&place) == 2);
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(indexed(&place), uids(0..2));
}

#[test]
fn a_trash_that_is_full_or_read_only_keeps_the_objects_where_they_are() {
    let place = Place::new();
    received(&place, 0..3);
    let Some(disk) = crate::util::disks::Mount::of_bytes(64 * 1024) else { return };
    std::os::unix::fs::symlink(disk.path(), place.path("dcmdex-data/objects/.trash")).unwrap();
    disk.make_read_only();
    let failed = place.run(["remove", "StudyInstanceUID=1.2.3", "--objects", "--yes"]).expect(2);
    assert!(failed.stderr.contains("Read-only file system"), "{failed:?}");
    // They are removed from the index, and all objects are still there.
    assert!((0..3).all(|number| place.path(object(number)).exists()));
    fs::remove_file(place.path("dcmdex-data/objects/.trash")).unwrap();
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(indexed(&place), uids(0..3));
}

on_each_engine!(
    what_is_removed_is_said_first_and_comes_back_by_undo,
    files_in_place_are_never_touched_and_no_scan_brings_them_back,
    a_node_goes_on_while_instances_are_removed_and_takes_them_again,
    an_instance_that_is_received_again_is_no_longer_removed,
    an_undo_that_was_killed_between_object_and_row_is_finished_by_the_next,
    an_object_that_the_trash_has_lost_keeps_its_removal,
    the_content_that_answered_before_a_removal_answers_after_its_undo,
    files_in_place_come_back_with_the_objects_of_their_instances,
    the_trash_is_emptied_by_age_and_then_nothing_comes_back,
    metadata_without_objects_come_back_too,
    two_removals_at_once_take_each_instance_once,
);
