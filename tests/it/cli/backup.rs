//! Backups of the index: made beside a node, checked, kept by number, and restored.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::faults::{SUCCESS, associated, indexed, store, uid};
use super::serve::Node;
use super::*;
use crate::util::objects;

/// The backups in a directory, the oldest first.
fn backups(place: &Place, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(place.path(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<_> = names.filter(|name| name.starts_with("dcmdex-") && name.ends_with(".db")).collect();
    found.sort();
    found.into_iter().map(|name| format!("{directory}/{name}")).collect()
}

fn store_all(node: &Node, numbers: std::ops::Range<usize>) {
    let mut peer = associated(node);
    for number in numbers {
        assert_eq!(store(&mut peer, number, 1000), SUCCESS);
    }
    peer.release();
}

fn uids(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(uid).collect()
}

/// Scans a tree of `files` files into the index.
fn scanned(place: &Place, files: u32) {
    for file in 0..files {
        objects::write(&place.path(format!("tree/{}/{file}.dcm", file / 20)), file / 40, file / 20, file);
    }
    place.run(["scan", "tree"]).expect(0);
}

#[test]
fn a_backup_beside_a_node_is_restored_as_the_node_was() {
    let place = Place::new();
    fs::create_dir(place.path("backup")).unwrap();
    let node = Node::start(&place, &[]);
    store_all(&node, 0..3);
    let made = place.run(["backup", "backup"]).expect(0);
    assert!(made.stdout.contains("1 patients, 1 studies, 1 series, 3 instances"), "{made:?}");
    let as_json = place.run(["backup", "second.db", "--json"]).expect(0).json().remove(0);
    super::scan::assert_documented("backup", &as_json);
    let verified = place.run(["backup", "--verify", "second.db", "--json"]).expect(0).json().remove(0);
    super::scan::assert_documented("backup verified", &verified);
    store_all(&node, 3..5);
    let [backup] = backups(&place, "backup").try_into().unwrap();
    let sound = place.run(["backup", "--verify", &backup]).expect(0);
    assert!(sound.stdout.contains(": sound; "), "{sound:?}");
    let status = place.run(["status", "--json"]).expect(0).json().remove(0);
    assert!(status["last_backup_ms"].is_i64(), "{status}");
    // Never over a running node.
    let refused = place.run(["restore", &backup, "--yes"]).expect(2);
    assert!(refused.stderr.contains("is in use"), "{refused:?}");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    // It says what it would do.
    let told = place.run(["restore", &backup]).expect(0).stdout;
    assert!(told.contains("nothing was changed") && told.contains("5 instances") && told.contains("lost:"), "{told}");
    assert_eq!(indexed(&place), uids(0..5));
    let restored = place.run(["restore", &backup, "--yes"]).expect(0).stdout;
    assert!(restored.contains("the former index is "), "{restored}");
    assert_eq!(indexed(&place), uids(0..3));
    // The former index is whole, and the objects that came since are indexed again.
    let aside = restored.lines().last().unwrap().strip_prefix("the former index is ").unwrap();
    let former = place.run(["status", "--index", aside, "--json"]).expect(0).json().remove(0);
    assert_eq!(former["instances"], 5);
    let orphans = place.run(["check", "--orphans"]).expect(1).stdout;
    assert!(orphans.matches("orphan: ").count() == 2 && orphans.contains("lacks: 2; `dcmdex rebuild`"), "{orphans}");
    assert!(place.run(["rebuild"]).expect(0).stdout.starts_with("2 objects of "));
    assert_eq!(indexed(&place), uids(0..5));
    place.run(["check", "--orphans"]).expect(0);
    let node = Node::start(&place, &[]);
    store_all(&node, 5..6);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(indexed(&place), uids(0..6));
}

#[test]
fn an_object_that_was_replaced_since_the_backup_is_at_hand_after_a_rebuild() {
    let place = Place::new();
    fs::create_dir(place.path("backup")).unwrap();
    fs::write(place.path("dcmdex.toml"), "[store]\nduplicates = \"replace\"\n").unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 0, 1000), SUCCESS);
    place.run(["backup", "backup"]).expect(0);
    assert_eq!(store(&mut peer, 0, 2000), SUCCESS);
    peer.release();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let backup = backups(&place, "backup").remove(0);
    place.run(["restore", &backup, "--yes"]).expect(0);
    place.run(["rebuild"]).expect(0);
    let checked = place.run(["check", "--files"]).expect(0).stdout;
    assert_eq!(indexed(&place), uids(0..1), "{checked}");
}

#[test]
fn what_replaced_an_object_since_the_backup_answers_whatever_name_it_has() {
    for replacements in 1..=3 {
        let place = Place::new();
        fs::create_dir(place.path("backup")).unwrap();
        fs::write(place.path("dcmdex.toml"), "[store]\nduplicates = \"replace\"\n").unwrap();
        let node = Node::start(&place, &[]);
        let mut peer = associated(&node);
        assert_eq!(store(&mut peer, 0, 1000), SUCCESS);
        assert_eq!(store(&mut peer, 1, 1000), SUCCESS);
        place.run(["backup", "backup", "--objects", "copy"]).expect(0);
        for number in 1..=replacements {
            assert_eq!(store(&mut peer, 0, 1000 + 2 * number), SUCCESS);
        }
        peer.release();
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
        let backup = backups(&place, "backup").remove(0);
        for with_objects in [false, true] {
            let objects: &[&str] = if with_objects { &["--objects"] } else { &[] };
            place.run([&["restore", &backup, "--yes"], objects].concat()).expect(0);
            place.run(["rebuild"]).expect(0);
            place.run(["check", "--files", "--orphans"]).expect(0);
            assert_eq!(indexed(&place), uids(0..2));
            let paths = place.run(["find", "--paths0", &format!("SOPInstanceUID={}", uid(0))]).stdout;
            let length = fs::metadata(paths.trim_end_matches('\0')).unwrap().len();
            let other = format!("dcmdex-data/objects/1.2.3/1.2.3.4/{}.dcm", uid(1));
            let of_other = fs::metadata(place.path(&other)).unwrap().len();
            assert_eq!(length, of_other + 2 * replacements as u64, "{replacements} {with_objects}");
            assert_eq!(super::faults::files(&place.path("dcmdex-data/objects")), 2);
        }
    }
}

#[test]
fn what_was_received_again_after_a_backup_that_lacks_it_is_indexed_by_a_rebuild() {
    let place = Place::new();
    fs::create_dir(place.path("backup")).unwrap();
    let node = Node::start(&place, &[]);
    store_all(&node, 0..3);
    place.run(["remove", &format!("SOPInstanceUID={}", uid(0)), "--yes"]).expect(0);
    place.run(["remove", &format!("SOPInstanceUID={}", uid(1)), "--yes"]).expect(0);
    place.run(["backup", "backup"]).expect(0);
    // Its file is still in its place.
    store_all(&node, 0..1);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let backup = backups(&place, "backup").remove(0);
    place.run(["restore", &backup, "--yes"]).expect(0);
    assert_eq!(indexed(&place), uids(2..3));
    let missed = place.run(["check", "--orphans"]).expect(1).stdout;
    assert!(missed.contains("objects that the index lacks: 1"), "{missed}");
    for told in ["1 objects", "0 objects"] {
        let rebuilt = place.run(["rebuild"]).expect(0).stdout;
        assert!(rebuilt.starts_with(told), "{rebuilt}");
        assert_eq!(indexed(&place), [uid(0), uid(2)]);
    }
    place.run(["check", "--files", "--orphans"]).expect(0);
    place.run(["remove", "--undo", "2", "--yes"]).expect(0);
    assert_eq!(indexed(&place), uids(0..3));
}

#[test]
fn a_restored_index_does_not_meet_the_log_of_the_former_one() {
    let place = Place::new();
    fs::create_dir(place.path("backup")).unwrap();
    let node = Node::start(&place, &[]);
    store_all(&node, 0..2);
    place.run(["backup", "backup"]).expect(0);
    store_all(&node, 2..4);
    node.kill();
    assert!(place.path("dcmdex-data/index.db-wal").exists());
    let backup = backups(&place, "backup").remove(0);
    let restored = place.run(["restore", &backup, "--yes"]).expect(0).stdout;
    assert_eq!(indexed(&place), uids(0..2));
    let aside = restored.lines().last().unwrap().strip_prefix("the former index is ").unwrap();
    // What was only in the log is in the index that was kept.
    let former = place.run(["status", "--index", aside, "--json"]).expect(0).json().remove(0);
    assert_eq!(former["instances"], 4);
}

#[test]
fn a_lost_or_damaged_index_is_restored() {
    let place = Place::new();
    scanned(&place, 60);
    fs::create_dir(place.path("backup")).unwrap();
    place.run(["backup", "backup"]).expect(0);
    let backup = backups(&place, "backup").remove(0);
    let index = place.path("dcmdex-data/index.db");
    let mut bytes = fs::read(&index).unwrap();
    let at = bytes.len() / 2;
    bytes[at..at + 9000].fill(0xA5);
    bytes[100..2000].fill(0x5A);
    fs::write(&index, &bytes).unwrap();
    assert_eq!(place.run(["check"]).code, 2);
    let told = place.run(["restore", &backup]).expect(0).stdout;
    assert!(told.contains("it cannot be read") && told.contains("and is kept"), "{told}");
    let restored = place.run(["restore", &backup, "--yes"]).expect(0).stdout;
    place.run(["check", "--files"]).expect(0);
    let aside = restored.lines().last().unwrap().strip_prefix("the former index is ").unwrap();
    assert_eq!(fs::read(aside).unwrap(), bytes, "a damaged index is kept as it was");
    fs::remove_file(&index).unwrap();
    place.run(["restore", &backup, "--yes"]).expect(0);
    place.run(["check", "--files"]).expect(0);
    // Also in a new place.
    place.run(["restore", &backup, "--yes", "--index", "elsewhere/index.db"]).expect(0);
    place.run(["check", "--files", "--index", "elsewhere/index.db"]).expect(0);
}

#[test]
fn a_backup_that_lies_is_refused_with_the_reason() {
    let place = Place::new();
    scanned(&place, 40);
    place.run(["backup", "one.db"]).expect(0);
    let (copy, manifest) = (fs::read(place.path("one.db")).unwrap(), fs::read(place.path("one.json")).unwrap());
    let changed = |key: &str, value: Value| {
        let mut changed: Value = serde_json::from_slice(&manifest).unwrap();
        changed[key] = value;
        fs::write(place.path("one.json"), changed.to_string()).unwrap();
    };
    let refused = |reason: &str| {
        let verified = place.run(["backup", "--verify", "one.db"]).expect(1);
        assert!(verified.stdout.contains("NOT SOUND") && verified.stdout.contains(reason), "{verified:?}");
        let restored = place.run(["restore", "one.db", "--yes"]).expect(2);
        assert!(restored.stderr.contains(reason), "{restored:?}");
    };
    changed("schema_version", 99.into());
    refused("use the newer program");
    changed("format", 99.into());
    refused("this program knows format 1");
    changed("instances", 41.into());
    refused("does not hold what its manifest says");
    changed("xxh3_128", "0".repeat(32).into());
    refused("checksum");
    changed("size_bytes", 1.into());
    refused("its manifest says 1");
    fs::write(place.path("one.json"), "no manifest").unwrap();
    refused("is none");
    fs::remove_file(place.path("one.json")).unwrap();
    refused("cannot be read");
    fs::write(place.path("one.json"), &manifest).unwrap();
    let mut damaged = copy.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(place.path("one.db"), &damaged).unwrap();
    refused("was damaged or changed");
    fs::write(place.path("one.db"), &copy[..copy.len() - 1]).unwrap();
    refused("bytes");
    fs::write(place.path("one.db"), &copy).unwrap();
    place.run(["backup", "--verify", "one.db"]).expect(0);
    // The index is as it was, and nothing is left beside it.
    place.run(["check", "--files"]).expect(0);
    let names = fs::read_dir(place.path("dcmdex-data")).unwrap().map(|entry| entry.unwrap().file_name());
    let strange: Vec<_> = names.filter(|name| name.to_string_lossy().contains("rest")).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn so_many_backups_are_kept_and_no_file_is_replaced() {
    let place = Place::new();
    scanned(&place, 20);
    fs::create_dir(place.path("backup")).unwrap();
    for _ in 0..4 {
        place.run(["backup", "backup", "--keep", "2"]).expect(0);
    }
    let kept = backups(&place, "backup");
    assert_eq!(kept.len(), 2);
    assert!(place.run(["backup", "--verify", "backup"]).expect(0).stdout.matches(": sound; ").count() == 2);
    let entries = fs::read_dir(place.path("backup")).unwrap().count();
    assert_eq!(entries, 5, "two copies, two manifests and the lock");
    let refused = place.run(["backup", &kept[0]]).expect(2);
    assert!(refused.stderr.contains("never replaces a file"), "{refused:?}");
    for nowhere in ["new", "not/mounted"] {
        let refused = place.run(["backup", nowhere]).expect(2);
        assert!(refused.stderr.contains(&format!("{nowhere}: is its disk mounted?")), "{refused:?}");
        assert!(!place.path(nowhere).exists());
    }
    place.run(["backup", "new", "--make-directory"]).expect(0);
    assert_eq!(backups(&place, "new").len(), 1);
    // What a killed backup left goes with the next one.
    fs::write(place.path("backup/.dcmdex-part-x.db"), "part").unwrap();
    fs::write(place.path("backup/dcmdex-20200101T000000.000Z.json"), "{}").unwrap();
    place.run(["backup", "backup", "--keep", "2"]).expect(0);
    assert_eq!(fs::read_dir(place.path("backup")).unwrap().count(), 5);
}

#[test]
fn without_received_objects_none_are_missed_and_none_are_backed_up() {
    let place = Place::new();
    scanned(&place, 20);
    fs::create_dir(place.path("backup")).unwrap();
    let checked = place.run(["check", "--orphans"]).expect(0);
    assert!(checked.stdout.contains("objects that the index lacks: 0"), "{checked:?}");
    place.run(["backup", "backup", "--objects", "copy"]).expect(0);
    place.run(["backup", "--verify", "backup"]).expect(0);
    // Those that were received do not lie where the settings say.
    let node = Node::start(&place, &[]);
    store_all(&node, 0..1);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    for arguments in [&["check", "--orphans"][..], &["backup", "backup", "--objects", "copy"]] {
        let refused = place.run(arguments.iter().copied().chain(["--storage", "elsewhere"])).expect(2);
        assert!(refused.stderr.contains("is its disk mounted?"), "{refused:?}");
    }
}

#[test]
fn objects_are_linked_or_copied_once_and_come_back() {
    for how in ["hard-links", "copy"] {
        let place = Place::new();
        fs::create_dir(place.path("backup")).unwrap();
        let node = Node::start(&place, &[]);
        store_all(&node, 0..3);
        place.run(["backup", "backup", "--objects", how]).expect(0);
        store_all(&node, 3..4);
        let second = place.run(["backup", "backup", "--objects", how]).expect(0).stdout;
        assert!(second.contains("4 objects of ") && second.contains(", 1 of them new"), "{second}");
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
        let inside = format!("1.2.3/1.2.3.4/{}.dcm", uid(0));
        let inode = |path: String| fs::metadata(place.path(path)).unwrap().ino();
        let is_linked = inode(format!("dcmdex-data/objects/{inside}")) == inode(format!("backup/objects/{inside}"));
        assert_eq!(is_linked, how == "hard-links");
        // All is lost but the backup.
        fs::remove_dir_all(place.path("dcmdex-data")).unwrap();
        let newest = backups(&place, "backup").pop().unwrap();
        let restored = place.run(["restore", &newest, "--objects", "--yes"]).expect(0).stdout;
        assert!(restored.contains("4 objects were brought back"), "{restored}");
        assert_eq!(indexed(&place), uids(0..4));
    }
}

#[test]
fn removed_objects_of_a_backup_come_back_into_the_trash() {
    let place = Place::new();
    fs::create_dir(place.path("backup")).unwrap();
    let node = Node::start(&place, &[]);
    store_all(&node, 0..4);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["backup", "backup", "--objects", "copy"]).expect(0);
    let key = |number: usize| format!("SOPInstanceUID={}", uid(number));
    place.run(["remove", &key(0), "--objects", "--yes"]).expect(0);
    place.run(["remove", &key(1), "--objects", "--no-undo", "--yes"]).expect(0);
    place.run(["remove", &key(2), "--yes"]).expect(0);
    place.run(["backup", "backup", "--objects", "copy"]).expect(0);
    fs::remove_dir_all(place.path("dcmdex-data")).unwrap();
    let newest = backups(&place, "backup").pop().unwrap();
    let restored = place.run(["restore", &newest, "--objects", "--yes"]).expect(0).stdout;
    assert!(restored.contains("2 objects were brought back"), "{restored}");
    assert!(restored.contains("1 removed objects are in the trash again"), "{restored}");
    assert!(restored.contains("1 objects were left out"), "{restored}");
    // Nothing is between the objects that the index does not know.
    assert_eq!(place.run(["check", "--orphans"]).expect(0).stderr, "");
    let (code, log) = Node::start(&place, &[]).stop(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(!log.iter().any(|line| line.contains("that the index lacks")), "{log:#?}");
    // An index that is made anew leaves out what was removed.
    fs::rename(place.path("dcmdex-data/index.db"), place.path("lost.db")).unwrap();
    place.run(["rebuild"]).expect(0);
    assert_eq!(indexed(&place), [uid(3)]);
    fs::rename(place.path("lost.db"), place.path("dcmdex-data/index.db")).unwrap();
    place.run(["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(indexed(&place), [uid(0), uid(3)]);
}

#[test]
fn what_was_removed_after_the_backup_stays_removed() {
    let place = Place::new();
    fs::create_dir(place.path("backup")).unwrap();
    let node = Node::start(&place, &[]);
    store_all(&node, 0..6);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["backup", "backup", "--objects", "copy"]).expect(0);
    let key = |number: usize| format!("SOPInstanceUID={}", uid(number));
    place.run(["remove", &key(0), "--objects", "--no-undo", "--yes"]).expect(0);
    place.run(["remove", &key(1), "--objects", "--yes"]).expect(0);
    // These objects stay in their places, and one of them is received again.
    place.run(["remove", &format!("{}\\{}", key(4), uid(5)), "--yes"]).expect(0);
    let node = Node::start(&place, &[]);
    store_all(&node, 5..6);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let object = |number| place.path(format!("dcmdex-data/objects/1.2.3/1.2.3.4/{}.dcm", uid(number)));
    fs::remove_file(object(2)).unwrap();
    let backup = backups(&place, "backup").remove(0);
    let restored = place.run(["restore", &backup, "--objects", "--yes"]).expect(0).stdout;
    assert!(restored.contains("1 objects were brought back"), "{restored}");
    assert!(restored.contains("2 objects were left out"), "{restored}");
    assert!(restored.contains("3 instances were removed after this index was saved"), "{restored}");
    assert_eq!([0, 1, 2, 3, 4].map(|number| object(number).exists()), [false, false, true, true, true]);
    let left = [uid(2), uid(3), uid(5)];
    assert_eq!(indexed(&place), left);
    place.run(["rebuild"]).expect(0);
    place.run(["check", "--orphans"]).expect(0);
    assert_eq!(indexed(&place), left);
    place.run(["remove", "--undo", "2", "--yes"]).expect(0);
    place.run(["remove", "--undo", "3", "--yes"]).expect(0);
    assert_eq!(indexed(&place), uids(1..6));
}

#[test]
fn an_object_of_a_backup_that_is_not_what_the_index_says_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path("backup")).unwrap();
    let node = Node::start(&place, &[]);
    store_all(&node, 0..4);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["backup", "backup", "--objects", "copy"]).expect(0);
    fs::remove_dir_all(place.path("dcmdex-data")).unwrap();
    let object = |number| place.path(format!("backup/objects/1.2.3/1.2.3.4/{}.dcm", uid(number)));
    let mut bytes = fs::read(object(0)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(object(0), &bytes).unwrap();
    fs::write(object(1), "junk").unwrap();
    fs::write(object(2), &bytes[..bytes.len() - 2]).unwrap();
    let backup = backups(&place, "backup").remove(0);
    let restored = place.run(["restore", &backup, "--objects", "--yes"]).expect(1).stdout;
    assert!(
        restored.contains("1 objects were brought back") && restored.contains("3 objects were refused"),
        "{restored}"
    );
    for (number, reason) in [(0, "its checksum is not"), (1, ""), (2, "bytes, and the index says")] {
        let line = restored.lines().find(|line| line.starts_with("refused: ") && line.contains(&uid(number)));
        assert!(line.is_some_and(|line| line.contains(reason)), "{number}: {restored}");
        assert!(!place.path(format!("dcmdex-data/objects/1.2.3/1.2.3.4/{}.dcm", uid(number))).exists());
    }
}

#[test]
fn objects_that_no_backup_names_go_with_the_last_one_that_did() {
    let place = Place::new();
    fs::create_dir(place.path("backup")).unwrap();
    let node = Node::start(&place, &[]);
    store_all(&node, 0..2);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    place.run(["backup", "backup", "--objects", "copy", "--keep", "2"]).expect(0);
    let inside = format!("1.2.3/1.2.3.4/{}.dcm", uid(0));
    fs::remove_file(place.path(format!("dcmdex-data/objects/{inside}"))).unwrap();
    place.run(["rebuild", "--prune"]).expect(0);
    for left in [true, false] {
        place.run(["backup", "backup", "--objects", "copy", "--keep", "2"]).expect(0);
        assert_eq!(place.path(format!("backup/objects/{inside}")).exists(), left);
    }
    assert!(place.path(format!("backup/objects/1.2.3/1.2.3.4/{}.dcm", uid(1))).exists());
}

#[test]
fn a_destination_that_cannot_take_the_backup_leaves_the_index_as_it_was() {
    let place = Place::new();
    scanned(&place, 100);
    let Some(full) = crate::util::disks::Mount::of_bytes(256 * 1024) else { return };
    let refused = run(place.command().arg("backup").arg(full.path())).expect(2);
    assert!(refused.stderr.contains("could not copy the index to"), "{refused:?}");
    assert_eq!(
        fs::read_dir(full.path())
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().contains(".db") || name.to_string_lossy().contains("part")
            })
            .count(),
        0
    );
    full.make_read_only();
    let refused = run(place.command().arg("backup").arg(full.path())).expect(2);
    assert!(refused.stderr.contains("cannot write in"), "{refused:?}");
    place.run(["check", "--files"]).expect(0);
}

/// Starts a command and kills it after a part of the time that it takes.
pub(super) fn killed(mut command: Command, after: std::time::Duration) {
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    let _ended = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_killed_backup_or_restore_leaves_the_old_state_or_the_new_one() {
    const KILLS: u32 = 12;
    let place = Place::new();
    scanned(&place, 400);
    fs::create_dir(place.path("backup")).unwrap();
    let begun = std::time::Instant::now();
    place.run(["backup", "backup"]).expect(0);
    let whole = begun.elapsed();
    for at in 0..KILLS {
        let mut command = place.command();
        command.args(["backup", "backup"]);
        killed(command, whole * at / KILLS);
        place.run(["backup", "--verify", "backup"]).expect(0);
    }
    let first = backups(&place, "backup").remove(0);
    for file in 400..420 {
        objects::write(&place.path(format!("tree/{}/{file}.dcm", file / 20)), file / 40, file / 20, file);
    }
    place.run(["scan", "tree"]).expect(0);
    place.run(["backup", "second.db"]).expect(0);
    let begun = std::time::Instant::now();
    place.run(["restore", &first, "--yes"]).expect(0);
    let whole = begun.elapsed();
    for at in 0..KILLS {
        let mut command = place.command();
        command.args(["restore", if at % 2 == 0 { "second.db" } else { &first }, "--yes"]);
        killed(command, whole * at / KILLS);
        place.run(["check", "--files"]).expect(0);
        let instances = place.run(["status", "--json"]).expect(0).json()[0]["instances"].clone();
        assert!(instances == 400 || instances == 420, "{instances}");
    }
    place.run(["restore", "second.db", "--yes"]).expect(0);
    assert_eq!(place.run(["status", "--json"]).expect(0).json()[0]["instances"], 420);
}
