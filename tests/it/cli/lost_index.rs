//! Index and received objects that were moved, lost or restored: a start says so, and `rebuild`
//! indexes again.

use std::fs;

use rustix::process::Signal;

use super::faults::{SUCCESS, associated, indexed, store, uid};
use super::messages::{permit, unprivileged};
use super::serve::Node;
use super::*;

fn stored(place: &Place, more: &[&str], numbers: std::ops::Range<usize>) {
    let node = Node::start(place, more);
    let mut peer = associated(&node);
    for number in numbers {
        assert_eq!(store(&mut peer, number, 1000), SUCCESS);
    }
    peer.release();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

fn uids(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(uid).collect()
}

#[test]
fn index_and_objects_move_together() {
    let place = Place::new();
    stored(&place, &[], 0..3);
    fs::rename(place.path("dcmdex-data"), place.path("moved")).unwrap();
    let settings = "index = \"moved/index.db\"\nstorage = \"moved/objects\"\n";
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    let node = Node::start(&place, &[]);
    let log = node.at_start.clone();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert!(log.iter().any(|line| line.contains("the storage directory has moved")), "{log:#?}");
    // `indexed` also opens each object.
    assert_eq!(indexed(&place), uids(0..3));
    let paths = place.run(["find", "--level", "IMAGE", "--format", "csv", "path"]).expect(0).stdout;
    assert_eq!(paths.matches("/moved/objects/").count(), 3, "{paths}");
    // Only once.
    let node = Node::start(&place, &[]);
    assert!(!node.at_start.iter().any(|line| line.contains("has moved")), "{:#?}", node.at_start);
}

#[test]
fn a_lost_index_is_built_again_from_the_objects() {
    let place = Place::new();
    stored(&place, &[], 0..3);
    fs::rename(place.path("dcmdex-data/index.db"), place.path("away.db")).unwrap();
    let refused = place.run(["serve", "--port", "0"]).expect(2);
    assert!(refused.stderr.contains("`dcmdex rebuild`"), "{refused:?}");
    let rebuilt = place.run(["rebuild"]).expect(0);
    assert!(rebuilt.stdout.starts_with("3 objects of "), "{rebuilt:?}");
    assert_eq!(indexed(&place), uids(0..3));
    // The node goes on with both.
    stored(&place, &[], 3..4);
    assert_eq!(indexed(&place), uids(0..4));
    assert!(place.run(["rebuild"]).expect(0).stdout.starts_with("0 objects of "));
    // A file that is none is told.
    fs::write(place.path("dcmdex-data/objects/1.2.3/1.2.3.4/x.dcm"), "no object").unwrap();
    let told = place.run(["rebuild"]).expect(1).stdout;
    assert!(told.contains("x.dcm: ") && told.contains("1 could not be indexed"), "{told}");
}

#[test]
fn a_received_object_can_leave_the_index() {
    let place = Place::new();
    stored(&place, &[], 0..3);
    let files =
        place.run(["find", "--level", "IMAGE", "--format", "csv", &format!("SOPInstanceUID={}", uid(1)), "path"]);
    let path = files.expect(0).stdout.lines().nth(1).unwrap().split(',').nth(1).unwrap().to_owned();
    fs::remove_file(path).unwrap();
    // Not by itself: a disk that is not mounted must cost nothing.
    assert!(place.run(["rebuild"]).expect(0).stdout.starts_with("0 objects of "));
    assert_eq!(place.run(["check", "--files"]).expect(1).stdout.matches("gone: ").count(), 1);
    let pruned = place.run(["rebuild", "--prune"]).expect(0);
    assert!(pruned.stdout.contains("1 entries whose objects are gone were deleted"), "{pruned:?}");
    assert_eq!(indexed(&place), [uid(0), uid(2)]);
    // Nor when all is gone.
    fs::rename(place.path("dcmdex-data/objects"), place.path("elsewhere")).unwrap();
    fs::create_dir(place.path("dcmdex-data/objects")).unwrap();
    let refused = place.run(["rebuild", "--prune"]).expect(2);
    assert!(refused.stderr.contains("is its disk mounted?"), "{refused:?}");
}

#[test]
fn a_start_tells_of_objects_that_a_restored_index_lacks() {
    let place = Place::new();
    stored(&place, &[], 0..1);
    fs::copy(place.path("dcmdex-data/index.db"), place.path("backup.db")).unwrap();
    stored(&place, &[], 1..4);
    fs::rename(place.path("backup.db"), place.path("dcmdex-data/index.db")).unwrap();
    fs::remove_file(place.path("dcmdex-data/index.db-turn")).unwrap();
    let node = Node::start(&place, &[]);
    let refused = place.run(["rebuild"]).expect(2);
    assert!(refused.stderr.contains("in use by another process"), "{refused:?}");
    let log = node.at_start.clone();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let warning = log.iter().find(|line| line.contains("holds objects that the index lacks"));
    assert!(warning.is_some_and(|line| line.contains("\"objects\":3") && line.contains("dcmdex rebuild")), "{log:#?}");
    assert!(place.run(["rebuild"]).expect(0).stdout.starts_with("3 objects of "));
    assert_eq!(indexed(&place), uids(0..4));
}

#[test]
fn settings_are_sound_only_if_a_node_can_write_where_they_say() {
    let place = Place::new();
    fs::write(place.path("FILE"), "").unwrap();
    for (settings, said) in [
        ("storage = \"FILE\"\n", "is a file, not a directory"),
        ("index = \".\"\n", "is a directory"),
        ("storage = \"FILE/objects\"\n", "cannot be made"),
    ] {
        fs::write(place.path("dcmdex.toml"), settings).unwrap();
        let check = place.run(["config", "check"]).expect(2);
        assert!(check.stdout.contains(said) && check.stderr.contains("would not start"), "{check:?}");
    }
    fs::remove_file(place.path("dcmdex.toml")).unwrap();
    stored(&place, &[], 0..1);
    place.run(["config", "check"]).expect(0);
    for (path, said) in [
        ("dcmdex-data/objects", "the storage directory"),
        ("dcmdex-data/index.db", "the index"),
        ("dcmdex-data", "the directory of the index"),
    ] {
        let path = place.path(path);
        for open in ["dcmdex-data", "dcmdex-data/objects", "dcmdex-data/objects/.incoming"] {
            permit(&place.path(open), 0o777);
        }
        permit(&place.path("dcmdex-data/index.db"), 0o666);
        permit(&path, 0o555);
        let check = run(unprivileged(&place).args(["config", "check"])).expect(2);
        assert!(check.stdout.contains(said) && check.stdout.contains("is not writable for this user"), "{check:?}");
        let started = run(unprivileged(&place).args(["serve", "--port", "0"])).expect(2);
        assert!(started.stderr.contains("is not writable for this user"), "{started:?}");
    }
    permit(&place.path("dcmdex-data"), 0o755);
    // Of two installations.
    fs::write(place.path("dcmdex-data/objects/.index"), "another\n").unwrap();
    let check = place.run(["config", "check"]).expect(2);
    assert!(check.stdout.contains("belongs to another index"), "{check:?}");
}

#[test]
fn the_check_says_what_a_start_would_refuse_and_what_it_would_warn_of() {
    let place = Place::new();
    stored(&place, &[], 0..2);
    let objects = place.path("dcmdex-data/objects");
    // Files that nobody put there by the node.
    fs::write(objects.join("notes.txt"), "").unwrap();
    fs::create_dir_all(objects.join("1.2/1.3")).unwrap();
    fs::write(objects.join("1.2/1.3/1.4.dcm"), "").unwrap();
    let check = place.run(["config", "check"]).expect(0);
    assert!(check.stdout.contains("warning: the index lacks 1 files in "), "{check:?}");
    assert!(check.stdout.contains("; 1 entries of ") && check.stdout.contains("are none of the node"), "{check:?}");
    fs::remove_dir_all(objects.join("1.2")).unwrap();
    fs::remove_file(objects.join("notes.txt")).unwrap();
    assert!(!place.run(["config", "check"]).expect(0).stdout.contains("warning"));

    // Its disk is not mounted.
    fs::rename(&objects, place.path("away")).unwrap();
    fs::create_dir(&objects).unwrap();
    let check = place.run(["config", "check"]).expect(2);
    assert!(check.stdout.contains("is its disk mounted?") && check.stdout.contains("/.index"), "{check:?}");
    assert!(place.run(["serve", "--port", "0"]).expect(2).stderr.contains("is its disk mounted?"));
    fs::remove_dir_all(&objects).unwrap();
    fs::rename(place.path("away"), &objects).unwrap();

    // The index was lost.
    fs::rename(place.path("dcmdex-data/index.db"), place.path("lost.db")).unwrap();
    let check = place.run(["config", "check"]).expect(2);
    assert!(check.stdout.contains("there is no index at ") && check.stdout.contains("`dcmdex rebuild`"), "{check:?}");
}

#[test]
fn a_rebuild_that_is_killed_is_ended_by_the_next_one() {
    const KILLS: u32 = 8;
    let place = Place::new();
    stored(&place, &[], 0..60);
    let all = indexed(&place);
    let lose = || {
        for suffix in ["", "-wal", "-shm", "-turn"] {
            let _there = fs::remove_file(place.path(format!("dcmdex-data/index.db{suffix}")));
        }
    };
    lose();
    let begun = std::time::Instant::now();
    place.run(["rebuild"]).expect(0);
    let whole = begun.elapsed();
    for at in 1..=KILLS {
        lose();
        let mut command = place.command();
        command.arg("rebuild");
        super::backup::killed(command, whole * at / KILLS);
        let sound = place.run(["check"]);
        assert!(sound.code == 0 || sound.stderr.contains("there is no index"), "{sound:?}");
        place.run(["rebuild"]).expect(0);
        assert_eq!(indexed(&place), all);
        place.run(["check", "--orphans"]).expect(0);
    }
}
