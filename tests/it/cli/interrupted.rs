//! Writers that are stopped, and processes that wait for them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::faults::{OUT_OF_RESOURCES, SUCCESS, associated, store, uid};
use super::serve::Node;
use super::*;
use crate::util::objects;

/// Number of times that a scan is stopped.
const STOPS: usize = 40;

/// A process that does not outlive the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Gone already when the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stops the scan as Ctrl-Z does. Returns false if the scan is already at its end.
fn stop(scan: &Child) -> bool {
    let pid = Pid::from_child(scan);
    if kill_process(pid, Signal::TSTP).is_err() {
        return false;
    }
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().expect("it waits");
    status.stopped()
}

/// Whether another process can write to the index at once.
fn is_free(index: &Path) -> bool {
    let mut shell = Command::new("sqlite3");
    let output =
        shell.arg(index).arg("BEGIN IMMEDIATE; ROLLBACK").output().expect("sqlite3 is installed by scripts/peers");
    output.status.success()
}

#[test]
fn a_scan_that_is_stopped_by_the_terminal_keeps_nobody_from_writing_and_goes_on() {
    const FILES: u32 = 3000;
    let place = Place::new();
    for file in 0..FILES {
        objects::write(&place.path(format!("tree/{}/{file}.dcm", file / 100)), file / 100, file / 10, file);
    }
    place.run(["scan", "tree/0"]).expect(0);
    let index = place.path("dcmdex-data/index.db");
    let scan = place.command().args(["scan", "--full", "tree"]).stdout(Stdio::null()).spawn().unwrap();
    let mut scan = Ended(scan);
    let scan = &mut scan.0;
    let (mut stops, mut ended) = (0, None);
    while stops < STOPS && ended.is_none() {
        if !stop(scan) {
            // Its end came first, and was waited for.
            ended = Some(());
            break;
        }
        stops += 1;
        assert!(is_free(&index), "stopped in a transaction, after {stops} stops");
        kill_process(Pid::from_child(scan), Signal::CONT).unwrap();
        // Some of its work, as much as a process takes to start.
        is_free(&index);
    }
    if ended.is_none() {
        assert!(scan.wait().unwrap().success());
    }
    assert!(stops > 2, "only {stops} stops");
    let status = place.run(["status", "--json"]).expect(0).json().remove(0);
    assert_eq!(status["instances"], FILES);
    place.run(["check"]).expect(0);
}

/// A process that keeps the index locked until it is dropped, like one that was stopped in a
/// transaction.
struct Locked {
    _shell: Ended,
}

impl Locked {
    fn begin(index: &Path) -> Self {
        let mut shell = Command::new("sqlite3");
        let mut shell = shell.arg(index).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        shell.stdin.as_mut().unwrap().write_all(b".timeout 60000\nBEGIN IMMEDIATE;\n.print locked\n").unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self { _shell: Ended(shell) }
    }
}

#[test]
fn what_another_writer_keeps_from_being_stored_is_refused_together_and_taken_later() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    assert_eq!(store(&mut associated(&node), 0, 10), SUCCESS);
    let locked = Locked::begin(&place.path("dcmdex-data/index.db"));
    // The peers wait for two minutes at most: a minute for the group, and one for each instance of
    // it alone, would take longer.
    let mut peers: Vec<_> = (0..8).map(|_| associated(&node)).collect();
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let stores: Vec<_> =
            peers.iter_mut().zip(1..).map(|(peer, number)| scope.spawn(move || store(peer, number, 10))).collect();
        stores.into_iter().map(|store| store.join().unwrap()).collect()
    });
    drop(peers);
    assert_eq!(statuses, [OUT_OF_RESOURCES; 8]);
    drop(locked);
    for number in 1..=8 {
        assert_eq!(store(&mut associated(&node), number, 10), SUCCESS);
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(super::faults::indexed(&place), (0..=8).map(uid).collect::<Vec<_>>());
}
