//! A process that waits for the index uses the file that takes its place.

use std::path::PathBuf;
use std::thread;

use dcmdex::db::open::{IndexHold, freeze};
use rustix::fs::inotify;
use rustix::process::Signal;

use super::faults::{SUCCESS, associated, store};
use super::serve::Node;
use super::*;
use crate::util::objects;

fn index(place: &Place) -> PathBuf {
    place.path("dcmdex-data/index.db")
}

/// An index of three studies, and three more files.
fn filled() -> Place {
    let place = Place::new();
    for number in 0..6 {
        objects::write(&place.path(format!("{}/{number}.dcm", if number < 3 { "one" } else { "more" })), number, 0, 0);
    }
    place.run(["scan", "one"]).expect(0);
    place
}

fn studies(place: &Place) -> usize {
    place.run(["check"]).expect(0);
    let found = place.run(["find", "--level", "STUDY", "--format", "csv", "StudyInstanceUID"]);
    found.stdout.lines().skip(1).count()
}

/// Does something that opens the index. When the index has been opened, `exchange` is done, and the
/// other one goes on.
fn while_waiting<T: Send>(place: &Place, opens: impl FnOnce() -> T + Send, exchange: impl FnOnce()) -> T {
    let opened = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&opened, index(place), inotify::WatchFlags::OPEN).unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(opens);
        rustix::io::read(&opened, &mut [0; 4096]).unwrap();
        exchange();
        other.join().unwrap()
    })
}

/// Puts a copy in the place of the index while another process waits for it.
fn exchanged_during<T: Send>(place: &Place, opens: impl FnOnce() -> T + Send) -> T {
    let hold = IndexHold::take(&index(place)).unwrap();
    let copy = place.path("copy.db");
    hold.copy_to(&copy).unwrap();
    while_waiting(place, opens, || drop(hold.replace_with(&copy, ".before").unwrap()))
}

#[test]
fn a_command_that_writes() {
    let commands = [
        (&["scan", "more"][..], 6),
        (&["remove", "StudyInstanceUID=1.2.0", "--yes"], 2),
        (&["correct", "PatientID=P1", "--set", "PatientSex=O", "--yes"], 3),
    ];
    for (command, expected) in commands {
        let place = filled();
        exchanged_during(&place, || place.run(command.iter().copied())).expect(0);
        assert_eq!(studies(&place), expected, "{command:?}");
        let corrections = place.run(["correct", "--list", "--json"]).expect(0).json();
        assert_eq!(corrections.len(), usize::from(command.contains(&"correct")), "{command:?}");
    }
}

#[test]
fn a_node_that_ends_well_or_is_killed() {
    for is_killed in [false, true] {
        let place = filled();
        let node = exchanged_during(&place, || Node::start(&place, &[]));
        let mut peer = associated(&node);
        for number in 0..3 {
            assert_eq!(store(&mut peer, number, 10), SUCCESS);
        }
        peer.release();
        match is_killed {
            true => node.kill(),
            false => assert_eq!(node.stop(Signal::TERM).0, Some(0)),
        }
        let status = place.run(["status", "--json"]).expect(0).json();
        assert_eq!(status[0]["instances"], 6, "killed: {is_killed}");
        place.run(["check"]).expect(0);
    }
}

/// It would write a file whose checksum was noted already.
#[test]
fn a_command_that_writes_an_index_that_is_frozen_meanwhile() {
    let place = filled();
    let path = index(&place);
    let hold = IndexHold::take(&path).unwrap();
    let refused = while_waiting(
        &place,
        || place.run(["scan", "more"]),
        || {
            drop(hold);
            // The other one may be first.
            while freeze(&path, 5).is_err() {}
        },
    );
    let expected = if refused.code == 0 { 6 } else { 3 };
    assert!(refused.code == 0 || refused.stderr.contains("is frozen"), "{refused:?}");
    assert_eq!(studies(&place), expected);
    assert!(place.run(["index", "verify", "dcmdex-data/index.db"]).expect(0).stdout.contains("sound"));
}
