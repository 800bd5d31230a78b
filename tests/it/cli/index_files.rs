//! A node uses only the index that it opened. It refuses files that do not fit, and it overwrites
//! nothing.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::faults::{OUT_OF_RESOURCES, STUDY_ROOT_FIND, SUCCESS, associated, indexed, store, studies, uid};
use super::serve::Node;
use super::*;
use crate::util::scripted::{DataSet, find_command};

/// Unable to process: the index could not answer.
const INDEX_FAILED: u16 = 0xC002;

fn index(place: &Place, suffix: &str) -> PathBuf {
    place.path(format!("dcmdex-data/index.db{suffix}"))
}

/// Returns the message of a start that is refused.
#[track_caller]
fn refused(place: &Place) -> String {
    place.run(["serve", "--port", "0"]).expect(2).stderr
}

fn started(place: &Place) -> Node {
    Node::start(place, &[])
}

#[track_caller]
fn stopped(node: Node) {
    let (code, log) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log:#?}");
}

/// Stores instances with these numbers. Each must be acknowledged.
fn stored(node: &Node, numbers: std::ops::Range<usize>) {
    let mut peer = associated(node);
    for number in numbers {
        assert_eq!(store(&mut peer, number, 10), SUCCESS);
    }
    peer.release();
}

fn query(node: &Node) -> u16 {
    let mut peer = associated(node);
    let identifier = DataSet::default().text(0x0008, 0x0052, "STUDY").text(0x0020, 0x000D, "");
    peer.send_message(3, &find_command(9, STUDY_ROOT_FIND), Some(&identifier.0));
    peer.receive_message().status()
}

/// Runs a statement in the sqlite3 shell.
pub(super) fn sqlite(index: &std::path::Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg(index).arg(sql).output().expect("sqlite3 is installed by scripts/peers");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nothing_is_acknowledged_while_the_index_is_gone_and_it_goes_on_when_it_is_back() {
    for suffix in ["", "-shm"] {
        let place = Place::new();
        let mut node = started(&place);
        stored(&node, 0..2);
        fs::rename(index(&place, suffix), place.path("away")).unwrap();
        let mut peers = [associated(&node), associated(&node)];
        for (number, peer) in peers.iter_mut().enumerate() {
            for more in 0..3 {
                assert_eq!(store(peer, 10 + 3 * number + more, 10), OUT_OF_RESOURCES, "{suffix}");
            }
        }
        assert_eq!(query(&node), INDEX_FAILED, "{suffix}");
        let said = node.wait_for("nothing more is stored");
        assert_eq!(said["level"], "ERROR");
        assert!(said["error"].as_str().unwrap().contains("is no longer the file that was opened"), "{said}");
        fs::rename(place.path("away"), index(&place, suffix)).unwrap();
        assert_eq!(store(&mut peers[0], 20, 10), SUCCESS, "{suffix}");
        assert_eq!(studies(&mut peers[0]), 1);
        drop(peers);
        let (code, log) = node.stop(Signal::TERM);
        assert_eq!(code, Some(0));
        // Once, and not for each object, association or query.
        assert!(!log.iter().any(|line| line.contains("\"ERROR\"")), "{log:#?}");
        assert_eq!(indexed(&place).into_iter().filter(|known| *known == uid(20)).count(), 1);
    }
}

#[test]
fn a_backup_that_takes_the_place_of_the_index_under_a_node_is_not_touched() {
    let place = Place::new();
    let node = started(&place);
    stored(&node, 0..2);
    sqlite(&index(&place, ""), &format!(".backup {}", place.path("backup.db").display()));
    stored(&node, 2..4);
    let backup = fs::read(place.path("backup.db")).unwrap();
    let same = |place: &Place| assert!(fs::read(index(place, "")).unwrap() == backup);
    fs::rename(place.path("backup.db"), index(&place, "")).unwrap();
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 4, 10), OUT_OF_RESOURCES);
    assert_eq!(query(&node), INDEX_FAILED);
    same(&place);
    node.kill();
    same(&place);
    // Its log still lies there, and is that of the other file.
    for command in [&["serve", "--port", "0"][..], &["status"], &["check"], &["find"], &["scan", "."]] {
        let said = run(place.command().args(command)).expect(2).stderr;
        assert!(said.contains("was written for another file than") && said.contains("move the log away"), "{said}");
        same(&place);
    }
    fs::rename(index(&place, "-wal"), place.path("old-wal")).unwrap();
    fs::remove_file(index(&place, "-shm")).unwrap();
    let node = started(&place);
    stored(&node, 4..5);
    stopped(node);
    let known =
        run(place.command().args(["find", "--level", "IMAGE", "--format", "csv", "SOPInstanceUID"])).expect(0).stdout;
    assert_eq!([0, 1, 4].map(|number| known.contains(&uid(number))), [true; 3], "{known}");
}

#[test]
fn after_a_kill_another_program_may_read_the_index_and_copy_its_log_back() {
    let place = Place::new();
    for round in 0..2 {
        let node = started(&place);
        stored(&node, 2 * round..2 * round + 2);
        node.kill();
        // Closed last, SQLite copies the log back and removes it.
        sqlite(&index(&place, ""), &format!(".backup {}", place.path("backup.db").display()));
        assert!(!index(&place, "-wal").exists());
    }
    place.run(["status"]).expect(0);
    stopped(started(&place));
    assert_eq!(indexed(&place), (0..4).map(uid).collect::<Vec<_>>());
}

#[test]
fn an_orderly_stop_does_not_touch_a_backup_either() {
    let place = Place::new();
    let node = started(&place);
    stored(&node, 0..2);
    sqlite(&index(&place, ""), &format!(".backup {}", place.path("backup.db").display()));
    let backup = fs::read(place.path("backup.db")).unwrap();
    fs::rename(place.path("backup.db"), index(&place, "")).unwrap();
    // Restored together with a log of its own.
    fs::remove_file(index(&place, "-wal")).unwrap();
    fs::write(index(&place, "-wal"), "a log").unwrap();
    let (code, _) = node.stop(Signal::TERM);
    assert_eq!(code, Some(2));
    assert!(fs::read(index(&place, "")).unwrap() == backup);
    assert_eq!(fs::read(index(&place, "-wal")).unwrap(), b"a log");
}

#[test]
fn what_was_acknowledged_is_saved_when_the_log_is_removed_under_a_node() {
    let place = Place::new();
    let mut node = started(&place);
    stored(&node, 0..5);
    fs::remove_file(index(&place, "-wal")).unwrap();
    let said = node.wait_for("nothing more is stored");
    assert!(said["message"].as_str().unwrap().contains("copied into the index"), "{said}");
    assert_eq!(store(&mut associated(&node), 5, 10), OUT_OF_RESOURCES);
    node.kill();
    let node = started(&place);
    stored(&node, 5..6);
    stopped(node);
    assert_eq!(indexed(&place), (0..6).map(uid).collect::<Vec<_>>());
}

#[test]
fn a_log_that_is_gone_after_a_crash_is_missed() {
    let place = Place::new();
    let node = started(&place);
    stored(&node, 0..5);
    node.kill();
    // The log stays for the next start, whoever asks the index in between.
    assert_eq!(indexed(&place).len(), 5);
    fs::rename(index(&place, "-wal"), place.path("log")).unwrap();
    let before = fs::read(index(&place, "")).unwrap();
    let said = refused(&place);
    assert!(said.contains("lacks what was acknowledged last") && said.contains("put the log back"), "{said}");
    assert!(fs::read(index(&place, "")).unwrap() == before);
    fs::rename(place.path("log"), index(&place, "-wal")).unwrap();
    stopped(started(&place));
    assert_eq!(indexed(&place).len(), 5);
    // And as it says, without it.
    let node = started(&place);
    stored(&node, 5..6);
    node.kill();
    fs::remove_file(index(&place, "-wal")).unwrap();
    refused(&place);
    fs::remove_file(index(&place, "-turn")).unwrap();
    stopped(started(&place));
}

#[test]
fn a_node_that_stored_nothing_or_was_asked_meanwhile_starts_again() {
    let place = Place::new();
    for _ in 0..3 {
        // Killed before anything was committed, and after.
        started(&place).kill();
        let node = started(&place);
        stored(&node, 0..1);
        place.run(["status"]).expect(0);
        // A scan empties the log at its end.
        place.run(["scan", &fixtures("archive")]).expect(1);
        stored(&node, 1..2);
        node.kill();
        place.run(["status"]).expect(0);
        stopped(started(&place));
        place.run(["status"]).expect(0);
        // One file, when nobody has it open.
        assert!(!index(&place, "-wal").exists() && !index(&place, "-shm").exists());
    }
}

#[test]
fn an_index_that_is_gone_is_not_made_anew_beside_its_objects() {
    let place = Place::new();
    let node = started(&place);
    stored(&node, 0..3);
    stopped(node);
    fs::rename(index(&place, ""), place.path("away")).unwrap();
    let said = refused(&place);
    assert!(said.contains("there is no index at") && said.contains("Restore the index from a backup"), "{said}");
    assert!(!index(&place, "").exists() && !index(&place, "-wal").exists());
    // One that somebody made meanwhile is not that of the objects.
    place.run(["scan", &fixtures("archive")]).expect(1);
    let said = refused(&place);
    assert!(said.contains("belongs to another index"), "{said}");
    // As the message says, for want of a backup.
    fs::rename(place.path("dcmdex-data/objects"), place.path("old-objects")).unwrap();
    // Three files of the storage directory are no objects.
    assert_eq!(place.run(["scan", "--json", "old-objects"]).expect(1).json().pop().unwrap()["failed"], 3);
    let node = started(&place);
    stored(&node, 3..4);
    stopped(node);
    assert_eq!(indexed(&place), (0..4).map(uid).collect::<Vec<_>>());
    // The backup, with its objects.
    fs::rename(place.path("dcmdex-data"), place.path("anew")).unwrap();
    fs::create_dir(place.path("dcmdex-data")).unwrap();
    fs::rename(place.path("away"), index(&place, "")).unwrap();
    fs::rename(place.path("old-objects"), place.path("dcmdex-data/objects")).unwrap();
    stopped(started(&place));
    assert_eq!(indexed(&place), (0..3).map(uid).collect::<Vec<_>>());
}

#[test]
fn an_index_that_was_removed_under_a_node_that_was_killed_is_missed() {
    let place = Place::new();
    let node = Node::start(&place, &["--metadata-only"]);
    stored(&node, 0..3);
    fs::rename(index(&place, ""), place.path("away")).unwrap();
    node.kill();
    let said = run(place.command().args(["serve", "--port", "0", "--metadata-only"])).expect(2).stderr;
    assert!(said.contains("is gone, and its write-ahead log"), "{said}");
    let said = place.run(["scan", &fixtures("archive")]).expect(2).stderr;
    assert!(said.contains("is gone, and its write-ahead log"), "{said}");
    fs::rename(place.path("away"), index(&place, "")).unwrap();
    stopped(Node::start(&place, &["--metadata-only"]));
    assert_eq!(indexed(&place).len(), 3);
}

#[test]
fn a_storage_directory_without_its_objects_is_refused() {
    let place = Place::new();
    let node = started(&place);
    stored(&node, 0..3);
    stopped(node);
    // As below a disk that is not mounted.
    fs::rename(place.path("dcmdex-data/objects"), place.path("disk")).unwrap();
    fs::create_dir(place.path("dcmdex-data/objects")).unwrap();
    let said = refused(&place);
    assert!(said.contains("is its disk mounted?"), "{said}");
    assert!(!place.path("dcmdex-data/objects/.index").exists());
    // Given up, as the message says.
    let id = said.split("write ").nth(1).unwrap().split(' ').next().unwrap();
    fs::write(place.path("dcmdex-data/objects/.index"), id).unwrap();
    stopped(started(&place));
    // Another place for new objects is none of its business.
    let node = Node::start(&place, &["--storage", "elsewhere"]);
    stored(&node, 3..4);
    stopped(node);
    fs::remove_dir_all(place.path("dcmdex-data/objects")).unwrap();
    fs::rename(place.path("disk"), place.path("dcmdex-data/objects")).unwrap();
    stopped(started(&place));
    assert_eq!(indexed(&place), (0..4).map(uid).collect::<Vec<_>>());
}

#[test]
fn a_storage_directory_of_an_older_version_is_taken_over() {
    let place = Place::new();
    let node = started(&place);
    stored(&node, 0..3);
    stopped(node);
    for file in [".index", ".journal"] {
        fs::remove_file(place.path("dcmdex-data/objects").join(file)).unwrap();
    }
    sqlite(&index(&place, ""), "DELETE FROM index_identity");
    stopped(started(&place));
    assert!(place.path("dcmdex-data/objects/.index").exists());
}

#[test]
fn a_node_does_not_start_on_an_index_that_disagrees_with_itself() {
    for (large, statement, said) in [
        (false, "UPDATE study SET instance_count = 7", "instances per study"),
        (false, "DELETE FROM uid_lookup; DELETE FROM uid_lookup_recent", "look-up by SOP Instance UID"),
        (true, "UPDATE instance_group SET instance_count = 7", "instances per instance_group"),
        (true, "UPDATE study SET series_count = 7", "series and instances per study"),
        (true, "DELETE FROM uid_lookup; DELETE FROM uid_lookup_recent", "look-up by SOP Instance UID"),
    ] {
        let place = Place::new();
        place.run(["scan", &fixtures("archive")]).expect(1);
        if large {
            // More pages than are checked as a whole.
            sqlite(&index(&place, ""), "CREATE TABLE filler AS SELECT zeroblob(16000000)");
        }
        sqlite(&index(&place, ""), statement);
        let refused = refused(&place);
        assert!(refused.contains("is damaged") && refused.contains(said), "{statement}: {refused}");
        assert!(refused.contains("`dcmdex check`"), "{refused}");
        let node = Node::start_with(
            place.command().args(["serve", "--port", "0"]).env("DCMDEX_DATABASE__START_CHECK", "false"),
        );
        stopped(node);
        assert_ne!(place.run(["check"]).code, 0);
    }
}

#[test]
fn damage_that_sqlite_meets_is_told_as_damage_by_every_command() {
    let place = Place::new();
    place.run(["scan", &fixtures("archive")]).expect(1);
    let page: usize = sqlite(&index(&place, ""), "PRAGMA page_size").trim().parse().unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'asserted_values_by_hash'";
    let root: usize = sqlite(&index(&place, ""), root).trim().parse().unwrap();
    let whole = fs::read(index(&place, "")).unwrap();
    let mut bytes = whole.clone();
    // All but the first page, which holds the schema.
    bytes[page..].fill(0x55);
    fs::write(index(&place, ""), &bytes).unwrap();
    for command in [&["serve", "--port", "0"][..], &["status"], &["find"], &["scan", &fixtures("archive")]] {
        let said = run(place.command().args(command)).expect(2).stderr;
        assert!(said.contains("is damaged") && said.contains("restore"), "{command:?}: {said}");
    }
    let check = place.run(["check"]).expect(2);
    assert!(check.stderr.contains("is damaged") && check.stderr.contains("restore"), "{check:?}");
    // One page, which nothing reads at the start.
    bytes = whole;
    let at = (root - 1) * page;
    bytes[at..at + page].fill(0x55);
    fs::write(index(&place, ""), &bytes).unwrap();
    let check = place.run(["check"]);
    assert!(check.code != 0 && check.stdout.contains("sqlite integrity: "), "{check:?}");
    let said = refused(&place);
    assert!(said.contains("is damaged (sqlite integrity: "), "{said}");
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let place = Place::new();
    fs::create_dir(place.path("dcmdex-data")).unwrap();
    sqlite(&index(&place, ""), "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)");
    let before = fs::read(index(&place, "")).unwrap();
    for command in [&["serve", "--port", "0"][..], &["status"], &["find"], &["check"], &["scan", &fixtures("archive")]]
    {
        let said = run(place.command().args(command)).expect(2).stderr;
        assert!(said.contains("is not an index of this program"), "{command:?}: {said}");
    }
    assert!(fs::read(index(&place, "")).unwrap() == before);
}

#[test]
fn what_lies_in_incoming_and_cannot_be_removed_keeps_nobody_from_starting() {
    let place = Place::new();
    stopped(started(&place));
    let incoming = place.path("dcmdex-data/objects/.incoming");
    // Also where the first object would arrive.
    fs::create_dir_all(incoming.join("0.part/inside")).unwrap();
    fs::create_dir(incoming.join("0,1.2.3,1.2.3.4,1.2.3.4.1")).unwrap();
    fs::write(incoming.join("7.part"), "half").unwrap();
    let mut command = place.command();
    command.args(["serve", "--port", "0"]).stderr(Stdio::piped());
    let node = Node::start_with(&mut command);
    assert!(!incoming.join("7.part").exists() && incoming.join("0.part/inside").exists());
    stored(&node, 1..4);
    stopped(node);
    assert_eq!(indexed(&place).len(), 3);
}
