//! The arrival journal. Whatever of the rest a power cut leaves, all that was acknowledged is there
//! after the next start.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dcmdex::db::{Admin as _, DuplicatePolicy, ReceivePolicy};
use rustix::process::Signal;

use super::faults::{Faults, OUT_OF_RESOURCES, SUCCESS, associated, files, indexed, store, uid};
use super::serve::Node;
use super::*;
use crate::util::node::TestNode;
use crate::util::scripted::ScriptedPeer;

/// The first block of the journal holds its head, and the first group follows.
const FIRST_GROUP: usize = 4096;

/// The directory of the series, below the storage directory.
const SERIES: &str = "1.2.3/1.2.3.4";

/// A node whose journal still has all that was stored.
struct Unsettled {
    node: TestNode,
    peer: ScriptedPeer,
    fail_point: String,
    /// What the node had before anything was stored.
    empty: tempfile::TempDir,
}

impl Unsettled {
    fn start(duplicates: DuplicatePolicy) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), duplicates)
    }

    fn start_in(directory: Arc<tempfile::TempDir>, duplicates: DuplicatePolicy) -> Self {
        let node = TestNode::with(|settings| {
            settings.directory = directory;
            settings.policy = ReceivePolicy { duplicates, ..ReceivePolicy::default() };
            settings.journal_object = 1 << 20;
        });
        let journal = node.storage().canonicalize().unwrap().join(".journal");
        let fail_point = format!("journal settle {}", journal.display());
        fail::cfg(&fail_point, "pause").unwrap();
        let empty = tempfile::tempdir().unwrap();
        copy(node.directory().path(), empty.path());
        let peer = node.associate(super::faults::CONTEXTS);
        Self { node, peer, fail_point, empty }
    }

    /// Stores an object of the instance with this number. Its length tells its content.
    fn store(&mut self, number: usize, pixels: usize) -> u16 {
        store(&mut self.peer, number, pixels)
    }

    /// What [`lose_rows`] goes back to.
    fn remember_rows(&self) {
        copy(self.node.directory().path(), self.empty.path());
    }

    /// Ends the node as a crash does. `lose` changes what is left in the directory of the node. It
    /// is also told where the files are that the node began with.
    fn crash(self, settings: &str, lose: impl FnOnce(&Path, &Path)) -> Place {
        let left = tempfile::tempdir().unwrap();
        copy(self.node.directory().path(), left.path());
        self.crash_with(&left, settings, lose)
    }

    /// The same with what was left at an earlier moment.
    fn crash_with(self, left: &tempfile::TempDir, settings: &str, lose: impl FnOnce(&Path, &Path)) -> Place {
        let Self { node, peer, fail_point, empty } = self;
        fail::remove(fail_point);
        drop(peer);
        let directory = node.directory();
        node.stop();
        for entry in fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        copy(left.path(), directory.path());
        // It says which file the log belongs to, and these are copies.
        fs::remove_file(directory.path().join("index.db-turn")).unwrap();
        lose(directory.path(), empty.path());
        let place = Place { directory: Arc::into_inner(directory).unwrap(), database: None };
        let settings = format!("index = \"index.db\"\nstorage = \"objects\"\n[store]\njournal_mib = 4\n{settings}");
        fs::write(place.path("dcmdex.toml"), settings).unwrap();
        place
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&path, &target);
        } else if !path.starts_with(to) && !from.ends_with(".incoming") {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The index is as it was before anything was stored.
fn lose_rows(left: &Path, empty: &Path) {
    for file in ["index.db", "index.db-wal", "index.db-shm"] {
        fs::remove_file(left.join(file)).unwrap();
        if file != "index.db-shm" {
            fs::copy(empty.join(file), left.join(file)).unwrap();
        }
    }
}

/// One object is gone, one is cut short, one has other bytes at its end, and one has no bytes.
fn lose_objects(left: &Path, _: &Path) {
    for (number, path) in objects_below(&left.join("objects").join(SERIES)).into_iter().enumerate() {
        let bytes = fs::read(&path).unwrap();
        match number % 4 {
            0 => fs::remove_file(path).unwrap(),
            1 => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
            2 => fs::write(path, [&bytes[..bytes.len() - 50], &[0; 50]].concat()).unwrap(),
            _ => fs::write(path, "").unwrap(),
        }
    }
}

fn objects_below(series: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(series).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Number and length of pixel data of all objects in a storage directory.
fn kept(storage: &Path) -> BTreeSet<(u8, usize)> {
    let pixels = |path: PathBuf| {
        let bytes = fs::read(path).unwrap();
        let at = bytes.windows(4).rposition(|tag| tag == [0xE0, 0x7F, 0x10, 0]).unwrap() + 8;
        assert!(bytes[at..].iter().all(|byte| *byte == bytes[at]));
        (bytes[at], bytes.len() - at)
    };
    objects_below(&storage.join(SERIES)).into_iter().map(pixels).collect()
}

/// Starts a node and stops it in order.
fn start_once(place: &Place) -> Vec<String> {
    let node = Node::start(place, &[]);
    let at_start = node.at_start.clone();
    let (code, log) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log:#?}");
    at_start
}

/// Two of the objects are larger than what is written to a file at a time.
fn pixels(number: usize) -> usize {
    if number % 4 == 2 { 300_000 + 2 * number } else { 1000 + 2 * number }
}

#[test]
fn whatever_a_power_cut_takes_all_that_was_acknowledged_is_there_after_the_next_start() {
    let losses: [fn(&Path, &Path); 4] = [
        |_, _| {},
        lose_rows,
        lose_objects,
        |left, empty| {
            lose_rows(left, empty);
            lose_objects(left, empty);
        },
    ];
    for (at, lose) in losses.into_iter().enumerate() {
        let mut node = Unsettled::start(DuplicatePolicy::KeepBoth);
        for number in 1..=9 {
            assert_eq!(node.store(number, pixels(number)), SUCCESS);
        }
        let place = node.crash("", lose);
        // A start that is ended right after it has done its work.
        Node::start(&place, &[]).kill();
        start_once(&place);
        let mut expected: Vec<_> = (1..=9).map(uid).collect();
        expected.sort();
        assert_eq!(indexed(&place), expected, "loss {at}");
        assert_eq!(
            kept(&place.path("objects")),
            (1..=9).map(|number| (number as u8, pixels(number))).collect(),
            "loss {at}"
        );
        assert_eq!(files(&place.path("objects")), 9, "loss {at}");
        // It is empty now.
        let said = start_once(&place).concat();
        assert!(!said.contains("in the arrival journal"), "{said}");
    }
}

#[test]
fn of_different_objects_of_an_instance_the_same_are_there_after_a_power_cut() {
    let policies = [
        ("keep-both", DuplicatePolicy::KeepBoth, [SUCCESS, SUCCESS], [(1, 100), (1, 200)].as_slice()),
        ("keep-first", DuplicatePolicy::KeepFirst, [0x0111, SUCCESS], &[(1, 100)]),
        ("replace", DuplicatePolicy::Replace, [SUCCESS, SUCCESS], &[(1, 100)]),
    ];
    for (name, policy, statuses, expected) in policies {
        for lose in [lose_rows as fn(&Path, &Path), lose_objects] {
            let mut node = Unsettled::start(policy);
            assert_eq!(node.store(1, 100), SUCCESS);
            assert_eq!([node.store(1, 200), node.store(1, 100)], statuses);
            let place = node.crash(&format!("duplicates = \"{name}\""), lose);
            start_once(&place);
            assert_eq!(kept(&place.path("objects")), expected.iter().copied().collect(), "{name}");
            assert_eq!(indexed(&place), [uid(1)], "{name}");
            assert_eq!(files(&place.path("objects")), expected.len(), "{name}");
        }
    }
}

/// A node crashes after one object has replaced another, and is started again. Only the object that
/// replaced the other must be there.
fn assert_replaced_after_crash(lose: impl FnOnce(&Path, &Path)) -> Place {
    let mut node = Unsettled::start(DuplicatePolicy::Replace);
    assert_eq!(node.store(1, 100), SUCCESS);
    // The row of the first one is on the disk, and that of the second one may be.
    node.remember_rows();
    assert_eq!(node.store(1, 200), SUCCESS);
    let place = node.crash("duplicates = \"replace\"", lose);
    start_once(&place);
    assert_eq!(kept(&place.path("objects")), BTreeSet::from([(1, 200)]));
    assert_eq!(indexed(&place), [uid(1)]);
    place
}

#[test]
fn what_replaced_an_older_object_is_there_after_a_power_cut() {
    for lose in [|_: &Path, _: &Path| {}, lose_rows] {
        assert_replaced_after_crash(lose);
    }
}

#[test]
fn a_power_cut_that_takes_back_a_removal_leaves_no_file_that_the_index_does_not_name() {
    // The object that was replaced is there again, or the one that replaced it.
    let second = |left: &Path| objects_below(&left.join("objects").join(SERIES)).remove(0);
    let first_again = |left: &Path, _: &Path| {
        let first = second(left).with_file_name(format!("{}.dcm", uid(1)));
        assert!(!first.exists());
        fs::copy(second(left), first).unwrap();
    };
    for lose in [&first_again as &dyn Fn(&Path, &Path), &lose_rows] {
        let place = assert_replaced_after_crash(lose);
        assert_eq!(files(&place.path("objects")), 1);
    }
}

#[test]
fn entries_are_not_taken_for_those_of_an_earlier_run() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let first = TestNode::with(|settings| settings.directory = Arc::clone(&directory));
    let mut peer = ScriptedPeer::associated(first.address(), super::faults::CONTEXTS);
    (1..=5).for_each(|number| assert_eq!(store(&mut peer, number, 100), SUCCESS));
    // Its journal as it is when nothing in it is needed any more, and nobody has stopped the node.
    let journal = first.storage().join(".journal");
    let first_needed = || u64::from_le_bytes(fs::read(&journal).unwrap()[36..44].try_into().unwrap());
    while first_needed() == 1 {
        std::thread::yield_now();
    }
    let killed = fs::read(&journal).unwrap();
    drop(peer);
    first.stop();
    fs::write(&journal, killed).unwrap();
    let mut node = Unsettled::start_in(directory, DuplicatePolicy::KeepBoth);
    (6..=8).for_each(|number| assert_eq!(node.store(number, 100), SUCCESS));
    let place = node.crash("", lose_rows);
    start_once(&place);
    assert_eq!(indexed(&place).len(), 8);
    assert_eq!(kept(&place.path("objects")).len(), 8);
}

#[test]
fn change_numbers_that_were_seen_are_not_given_again_after_a_power_cut() {
    let mut node = Unsettled::start(DuplicatePolicy::KeepBoth);
    (1..=5).for_each(|number| assert_eq!(node.store(number, 100), SUCCESS));
    let seen = node.node.reader().status().unwrap().last_change;
    let place = node.crash("", lose_rows);
    let node = Node::start(&place, &[]);
    let changes = place.run(["find", "--level", "IMAGE", "--count", &format!("since={seen}")]).expect(0).stdout;
    assert_eq!(changes.trim(), "5");
    node.kill();
}

#[test]
fn a_journal_that_cannot_be_read_keeps_the_node_from_starting_until_it_is_moved_away() {
    for (at, said) in [(FIRST_GROUP + 100, "damaged (group 1 cannot be read)"), (8, "has version"), (0, "damaged")] {
        let mut node = Unsettled::start(DuplicatePolicy::KeepBoth);
        (1..=3).for_each(|number| assert_eq!(node.store(number, 100), SUCCESS));
        let place = node.crash("", lose_rows);
        let journal = place.path("objects/.journal");
        let mut bytes = fs::read(&journal).unwrap();
        bytes[at] ^= 0xFF;
        fs::write(&journal, bytes).unwrap();
        let refused = place.run(["serve", "--port", "0"]).expect(2).stderr;
        assert!(
            refused.contains("objects/.journal") && refused.contains(said) && refused.contains("hint"),
            "{refused}"
        );
        fs::rename(&journal, place.path("moved-away")).unwrap();
        start_once(&place);
        assert!(journal.exists());
    }
}

#[test]
fn the_journal_of_another_index_is_refused() {
    let mut node = Unsettled::start(DuplicatePolicy::KeepBoth);
    assert_eq!(node.store(1, 100), SUCCESS);
    let place = node.crash("", |_, _| {});
    let other = Place::new();
    fs::write(other.path("dcmdex.toml"), "[store]\njournal_mib = 4\n").unwrap();
    start_once(&other);
    fs::copy(place.path("objects/.journal"), other.path("dcmdex-data/objects/.journal")).unwrap();
    let refused = other.run(["serve", "--port", "0"]).expect(2).stderr;
    assert!(refused.contains("belongs to another index"), "{refused}");
}

#[test]
fn rebuild_takes_what_is_in_the_journal() {
    let mut node = Unsettled::start(DuplicatePolicy::KeepBoth);
    (1..=4).for_each(|number| assert_eq!(node.store(number, 100), SUCCESS));
    let place = node.crash("", lose_objects);
    for file in ["index.db", "index.db-wal", "index.db-shm"] {
        fs::remove_file(place.path(file)).unwrap();
    }
    place.run(["rebuild"]).expect(0);
    assert_eq!(indexed(&place).len(), 4);
    assert_eq!(kept(&place.path("objects")).len(), 4);
}

#[test]
fn what_was_removed_does_not_come_back_out_of_the_journal() {
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), "[store]\njournal_mib = 4\n").unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    assert_eq!([store(&mut peer, 1, 100), store(&mut peer, 2, 100)], [SUCCESS; 2]);
    place.run(["remove", &format!("SOPInstanceUID={}", uid(1)), "--yes"]).expect(0);
    node.kill();
    let node = Node::start(&place, &[]);
    // And what is received again after that is there.
    let mut peer = associated(&node);
    place.run(["remove", &format!("SOPInstanceUID={}", uid(2)), "--yes"]).expect(0);
    assert_eq!(store(&mut peer, 2, 200), SUCCESS);
    node.kill();
    start_once(&place);
    assert_eq!(indexed(&place), [uid(2)]);
}

#[test]
fn after_a_failed_flush_of_the_journal_nothing_old_takes_the_place_of_what_came_later() {
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), "[store]\nduplicates = \"replace\"\njournal_mib = 4\n").unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 1, 100), SUCCESS);
    let journal = place.path("dcmdex-data/objects/.journal");
    let Some(faults) = Faults::begin(&node, &place, "fdatasync:error=EIO:when=1+", &[journal]) else { return };
    assert_eq!(store(&mut peer, 1, 200), OUT_OF_RESOURCES);
    // From now on without the journal.
    assert_eq!(store(&mut peer, 1, 300), SUCCESS);
    assert_eq!(store(&mut peer, 2, 100), SUCCESS);
    assert!(faults.end() > 0);
    drop(peer);
    node.kill();
    start_once(&place);
    assert_eq!(indexed(&place), [uid(1), uid(2)]);
    assert_eq!(kept(&place.path("dcmdex-data/objects")), BTreeSet::from([(1, 300), (2, 100)]));
    assert_eq!(files(&place.path("dcmdex-data/objects")), 2);
}

// A slow disk flushes the journal while the file of the object is written.
#[test]
fn an_object_comes_into_the_journal_while_it_gets_its_place_and_to_the_index_after_both() {
    let mut node = Unsettled::start(DuplicatePolicy::KeepBoth);
    // The first object of a series has its place before.
    assert_eq!(node.store(2, 100), SUCCESS);
    let storage = node.node.storage().canonicalize().unwrap();
    let left = Arc::new(tempfile::tempdir().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let journaled = format!("journal written {}", storage.join(".journal").display());
    fail::cfg_callback(&journaled, move || tell.send(()).unwrap()).unwrap();
    let placing = format!("place {}", storage.display());
    let (told, from, to) = (Mutex::new(told), storage.parent().unwrap().to_owned(), Arc::clone(&left));
    fail::cfg_callback(&placing, move || {
        told.lock().unwrap().recv_timeout(Duration::from_secs(60)).expect("the journal waits for the place");
        copy(&from, to.path());
    })
    .unwrap();
    assert_eq!(node.store(1, 100), SUCCESS);
    assert_eq!(super::faults::studies(&mut node.peer), 1);
    for point in [&placing, &journaled] {
        fail::remove(point);
    }
    // Had the node ended before the object had its place, the next start would give it one.
    assert!(!left.path().join("objects").join(SERIES).join(format!("{}.dcm", uid(1))).exists());
    let place = node.crash_with(&left, "", |_, _| {});
    start_once(&place);
    assert_eq!(indexed(&place), [uid(1), uid(2)]);
    assert_eq!(kept(&place.path("objects")), BTreeSet::from([(1, 100), (2, 100)]));
    assert_eq!(files(&place.path("objects")), 2);
}

/// A node whose next object gets no place, though its first name was free.
fn without_place(duplicates: DuplicatePolicy) -> (Unsettled, String) {
    let mut node = Unsettled::start(duplicates);
    assert_eq!(node.store(2, 100), SUCCESS);
    let placing = format!("place {}", node.node.storage().canonicalize().unwrap().display());
    (node, placing)
}

/// A node that has just refused such an object.
fn with_refused(duplicates: DuplicatePolicy) -> Unsettled {
    let (mut node, placing) = without_place(duplicates);
    fail::cfg(&placing, "return").unwrap();
    assert_eq!(node.store(1, 100), OUT_OF_RESOURCES);
    fail::remove(&placing);
    node
}

#[test]
fn an_object_whose_name_another_program_takes_meanwhile_is_refused_and_harms_nothing() {
    let (mut node, placing) = without_place(DuplicatePolicy::KeepBoth);
    let series = node.node.storage().canonicalize().unwrap().join(SERIES);
    let foreign = series.join(format!("{}.dcm", uid(1)));
    let path = foreign.clone();
    fail::cfg_callback(&placing, move || fs::write(&path, "not ours").unwrap()).unwrap();
    assert_eq!(node.store(1, 100), OUT_OF_RESOURCES);
    fail::remove(&placing);
    assert_eq!(fs::read(&foreign).unwrap(), b"not ours");
    assert_eq!(objects_below(&series).len(), 2);
    // Now its name is known to be taken.
    assert_eq!(node.store(1, 100), SUCCESS);
    let place = node.crash("", lose_rows);
    start_once(&place);
    assert_eq!(indexed(&place), [uid(1), uid(2)]);
    assert_eq!(fs::read(place.path("objects").join(SERIES).join(foreign.file_name().unwrap())).unwrap(), b"not ours");
    assert_eq!(files(&place.path("objects")), 3);
}

#[test]
fn an_object_without_a_place_is_refused_and_does_not_come_out_of_the_journal_later() {
    let mut node = with_refused(DuplicatePolicy::Replace);
    // It is too large for the journal.
    assert_eq!(node.store(1, 2_000_000), SUCCESS);
    let place = node.crash("duplicates = \"replace\"\n", |_, _| {});
    start_once(&place);
    assert_eq!(kept(&place.path("objects")), BTreeSet::from([(1, 2_000_000), (2, 100)]));
    assert_eq!(indexed(&place), [uid(1), uid(2)]);
    assert_eq!(files(&place.path("objects")), 2);
}

// A sender that was told of the failure sends another object of the instance. A power cut takes its
// row.
#[test]
fn an_object_that_was_refused_does_not_come_before_one_that_was_acknowledged() {
    let mut node = with_refused(DuplicatePolicy::KeepFirst);
    node.remember_rows();
    assert_eq!(node.store(1, 300), SUCCESS);
    let place = node.crash("duplicates = \"keep-first\"\n", lose_rows);
    start_once(&place);
    assert_eq!(kept(&place.path("objects")), BTreeSet::from([(1, 300), (2, 100)]));
    assert_eq!(indexed(&place), [uid(1), uid(2)]);
}

// Somebody takes the hidden file for rubbish, or a backup program puts a copy in its place. No
// start would read what is written to it after that.
#[test]
fn a_journal_without_its_name_takes_nothing_and_objects_become_durable_by_themselves() {
    for copied in [false, true] {
        let place = Place::new();
        fs::write(place.path("dcmdex.toml"), "[store]\njournal_mib = 4\n").unwrap();
        let mut node = Node::start(&place, &[]);
        let mut peer = associated(&node);
        assert_eq!(store(&mut peer, 1, 100), SUCCESS);
        let journal = place.path("dcmdex-data/objects/.journal");
        fs::rename(&journal, place.path("away")).unwrap();
        if copied {
            fs::copy(place.path("away"), &journal).unwrap();
        }
        assert_eq!(store(&mut peer, 2, 100), OUT_OF_RESOURCES);
        let line = node.wait_for("the arrival journal cannot be written");
        assert!(!copied || line.to_string().contains("another file has its name"), "{line}");
        assert_eq!([2, 3].map(|number| store(&mut peer, number, 100)), [SUCCESS; 2]);
        drop(peer);
        node.kill();
        start_once(&place);
        assert_eq!(indexed(&place), [uid(1), uid(2), uid(3)]);
    }
}

#[test]
fn what_was_acknowledged_may_use_the_room_that_is_to_stay_free() {
    let mut node = Unsettled::start(DuplicatePolicy::KeepBoth);
    for number in 1..=3 {
        assert_eq!(node.store(number, 1000), SUCCESS);
    }
    let place = node.crash("", |left, empty| {
        lose_rows(left, empty);
        fs::remove_dir_all(left.join("objects").join(SERIES)).unwrap();
        fs::rename(left.join("objects"), left.join("elsewhere")).unwrap();
    });
    let Some(disk) = crate::util::disks::Mount::tmpfs(&place.path("objects"), "8m") else { return };
    copy(&place.path("elsewhere"), disk.path());
    // A twentieth of the disk is to stay free, and less is.
    let filler = disk.path().join("filler");
    let _full = fs::write(&filler, vec![0; 8 << 20]);
    let length = filler.metadata().unwrap().len();
    fs::File::options().write(true).open(&filler).unwrap().set_len(length - 300 * 1024).unwrap();
    let node = Node::start(&place, &[]);
    assert_eq!(indexed(&place), [uid(1), uid(2), uid(3)]);
    assert_eq!(kept(&place.path("objects")).len(), 3);
    assert_eq!(store(&mut associated(&node), 4, 100), OUT_OF_RESOURCES);
    node.stop(Signal::TERM);
}

#[test]
fn without_room_for_a_journal_each_object_is_durable_by_itself() {
    let place = Place::new();
    let Some(_disk) = crate::util::disks::Mount::tmpfs(&place.path("objects"), "3m") else { return };
    let settings = "storage = \"objects/kept\"\n[store]\nmin_free_mib = 0\njournal_mib = 8\n";
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    let node = Node::start(&place, &[]);
    assert!(node.at_start.concat().contains("there is no arrival journal"), "{:?}", node.at_start);
    assert_eq!(store(&mut associated(&node), 1, 100), SUCCESS);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(indexed(&place), [uid(1)]);
}

/// Counts flushes of files whose path ends so, in what `strace -y` wrote.
fn flushes(calls: &str, end: &str) -> usize {
    calls.lines().filter(|line| line.contains("sync(") && line.contains(&format!("{end}>"))).count()
}

#[test]
fn an_object_costs_one_flush_of_the_journal_and_is_found_at_once() {
    const OBJECTS: usize = 20;
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), "[store]\njournal_mib = 16\njournal_object_kib = 1024\n").unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 0, 100), SUCCESS);
    // A sync of another file than these is delayed by nothing, so the expression only counts.
    let Some(counting) = Faults::begin(&node, &place, "fsync,fdatasync:delay_enter=1", &[]) else { return };
    for number in 1..=OBJECTS {
        // A large one is no exception.
        assert_eq!(store(&mut peer, number, if number % 5 == 0 { 700_000 } else { 100 }), SUCCESS);
        assert_eq!(super::faults::studies(&mut peer), 1);
    }
    counting.end();
    let calls = fs::read_to_string(place.path("calls")).unwrap();
    let [journal, log] = ["/.journal", "/index.db-wal"].map(|end| flushes(&calls, end));
    assert!(journal >= OBJECTS, "{calls}");
    // Objects and rows are settled together: one more flush of each file, at most once a second.
    assert!(journal <= OBJECTS + log + 1, "{calls}");
    let all = calls.lines().filter(|line| line.contains("sync(")).count();
    assert_eq!(all, journal + log, "{calls}");
    drop(peer);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}
