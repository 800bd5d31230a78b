//! Disks that fill up or fail, and nodes that are killed. Every acknowledged object is still there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::Signal;

use super::serve::Node;
use super::*;
use crate::util::disks::Mount;
use crate::util::scripted::{DataSet, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, find_command, store_command};
use crate::util::{http, peers, postgres};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
pub(super) const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
pub(super) const CONTEXTS: &[(&str, &[&str])] =
    &[(SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]), (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN])];

pub(super) const SUCCESS: u16 = 0;
pub(super) const OUT_OF_RESOURCES: u16 = 0xA700;

pub(super) fn uid(number: usize) -> String {
    format!("1.2.3.4.{number}")
}

/// A place whose node makes each object durable by itself. What the arrival journal does about such
/// faults is seen in `cli::journal`.
fn without_journal() -> Place {
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), "[store]\njournal_mib = 0\n").unwrap();
    place
}

/// Stores the instance with this number. Its pixel data have `pixels` bytes.
pub(super) fn store(peer: &mut ScriptedPeer, number: usize, pixels: usize) -> u16 {
    let data_set = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", &uid(number));
    let data_set = data_set.bytes(0x7FE0, 0x0010, &vec![number as u8; pixels]);
    peer.send_message(1, &store_command(7, SECONDARY_CAPTURE, &uid(number)), Some(&data_set.0));
    peer.receive_message().status()
}

/// Returns the number of studies that a query finds. Panics unless the query succeeds.
pub(super) fn studies(peer: &mut ScriptedPeer) -> usize {
    let identifier = DataSet::default().text(0x0008, 0x0052, "STUDY").text(0x0020, 0x000D, "");
    peer.send_message(3, &find_command(9, STUDY_ROOT_FIND), Some(&identifier.0));
    let mut found = 0;
    loop {
        match peer.receive_message().status() {
            0xFF00 | 0xFF01 => found += 1,
            SUCCESS => return found,
            other => panic!("a query ended with {other:04X}"),
        }
    }
}

pub(super) fn associated(node: &Node) -> ScriptedPeer {
    node.associate(CONTEXTS)
}

/// Returns the content of the index by `dcmdex find`, and asserts that `dcmdex check` finds no
/// fault.
pub(super) fn indexed(place: &Place) -> Vec<String> {
    place.run(["check", "--files"]).expect(0);
    let run = run(place.command().args(["find", "--level", "IMAGE", "--format", "csv", "SOPInstanceUID"]));
    let first = run.stdout.lines().filter_map(|line| line.split(',').next());
    let mut uids: Vec<_> = first.filter(|uid| uid.starts_with("1.2.3.4.")).map(str::to_owned).collect();
    uids.sort();
    uids
}

/// Counts the files below a directory, without the marker files.
pub(super) fn files(directory: &Path) -> usize {
    let mut count = 0;
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => left.push(entry.path()),
                false => {
                    count += usize::from(
                        ![".lock", ".index", ".journal", ".storage"].iter().any(|own| entry.file_name() == *own),
                    )
                }
            }
        }
    }
    count
}

/// strace on a running node. Some of the node's system calls fail until it is ended.
pub(super) struct Faults {
    strace: Child,
    /// Output of strace, kept open so that strace can go on writing.
    _messages: BufReader<ChildStderr>,
    calls: PathBuf,
}

impl Faults {
    /// Starts strace and returns once it is in effect.
    ///
    /// `inject` is an expression of strace, which counts the calls of each thread separately. The
    /// program knows files only by their full paths, so each file is listed. With an empty list,
    /// calls on all files fail. `None`, with a message, if strace is missing or not permitted.
    pub(super) fn begin(node: &Node, place: &Place, inject: &str, paths: &[PathBuf]) -> Option<Self> {
        let mut strace = peers::program("/usr/bin/strace")?;
        let calls = place.path("calls");
        strace.args(["-f", "-y", "-p", &node.id().to_string(), "-o"]).arg(&calls);
        strace.args(["-e", &format!("trace={}", inject.split(':').next().unwrap())]);
        strace.args(["-e", &format!("inject={inject}")]);
        for path in paths {
            strace.arg("-P").arg(path);
        }
        let mut strace = strace.stderr(Stdio::piped()).spawn().unwrap();
        let mut messages = BufReader::new(strace.stderr.take().unwrap());
        let mut said = String::new();
        // Of several messages the one about the process: others tell what the paths were taken for.
        while !said.contains(&format!("Process {} attached", node.id())) {
            if messages.read_line(&mut said).unwrap() == 0 {
                strace.wait().unwrap();
                peers::skipped(&format!("strace may not attach to a process here: {said}"));
                return None;
            }
        }
        Some(Self { strace, _messages: messages, calls })
    }

    /// Ends strace. Returns the number of calls that failed.
    pub(super) fn end(mut self) -> usize {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.strace), Signal::TERM).unwrap();
        self.strace.wait().unwrap();
        fs::read_to_string(&self.calls).unwrap().matches("(INJECTED)").count()
    }
}

/// Paths to which the bytes of this test's objects are written. The first part of a name is the
/// number of the object since the start.
fn object_files(place: &Place, numbers: Range<usize>) -> Vec<PathBuf> {
    let incoming = place.path("dcmdex-data/objects/.incoming");
    let names = |number: usize| [format!("{number},1.2.3,1.2.3.4,{}", uid(number)), format!("{number}.part")];
    numbers.flat_map(names).map(|name| incoming.join(name)).collect()
}

fn index_files(place: &Place) -> Vec<PathBuf> {
    ["dcmdex-data/index.db", "dcmdex-data/index.db-wal"].map(|path| place.path(path)).into()
}

/// Number of objects that a test sends before, during and after the faults.
const BEFORE: usize = 3;
const DURING: usize = 8;
const AFTER: usize = 4;

/// Sends objects while calls fail, then more afterwards, then kills the node. Asserts that every
/// acknowledged object is there.
///
/// Returns the number of failed calls and the statuses of that time. `None` if no call can be made
/// to fail.
fn under_faults(inject: &str, paths: impl Fn(&Place) -> Vec<PathBuf>) -> Option<(usize, Vec<u16>)> {
    let place = without_journal();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    let mut acknowledged = Vec::new();
    let mut send = |peer: &mut ScriptedPeer, number: usize| {
        // Every fourth one is longer than what is written at a time.
        let status = store(peer, number, if number % 4 == 3 { 600_000 } else { 3_000 });
        assert!([SUCCESS, OUT_OF_RESOURCES].contains(&status), "{inject}: {status:04X}");
        if status == SUCCESS {
            acknowledged.push(uid(number));
        }
        assert!(studies(peer) <= 1);
        status
    };
    for number in 0..BEFORE {
        assert_eq!(send(&mut peer, number), SUCCESS, "{inject}");
    }
    let faults = Faults::begin(&node, &place, inject, &paths(&place))?;
    let during = (BEFORE..BEFORE + DURING).map(|number| send(&mut peer, number)).collect();
    let failed = faults.end();
    for number in BEFORE + DURING..BEFORE + DURING + AFTER {
        assert_eq!(send(&mut peer, number), SUCCESS, "{inject}: it does not go on after the faults");
    }
    drop(peer);
    node.kill();
    // A start settles what the killed node left.
    assert_eq!(Node::start(&place, &[]).stop(Signal::TERM).0, Some(0));
    let indexed = indexed(&place);
    acknowledged.sort();
    // Not more either: what was refused is not kept behind the sender's back.
    assert_eq!(indexed, acknowledged, "{inject}");
    assert_eq!(files(&place.path("dcmdex-data/objects")), indexed.len(), "{inject}");
    Some((failed, during))
}

/// A fault: the calls, the error, and the files that it affects.
type Fault = (&'static str, &'static str, fn(&Place) -> Vec<PathBuf>);

const EVERYWHERE: fn(&Place) -> Vec<PathBuf> = |_| Vec::new();
const OBJECTS: fn(&Place) -> Vec<PathBuf> = |place| object_files(place, BEFORE..BEFORE + DURING);
const SERIES: fn(&Place) -> Vec<PathBuf> = |place| vec![place.path("dcmdex-data/objects/1.2.3/1.2.3.4")];

const FAULTS: [Fault; 9] = [
    ("fsync,fdatasync", "EIO", EVERYWHERE),
    ("fsync,fdatasync", "EIO", OBJECTS),
    ("fsync,fdatasync", "EIO", SERIES),
    ("fsync,fdatasync", "EIO", index_files),
    ("write,writev", "EIO", OBJECTS),
    ("write,writev", "ENOSPC", OBJECTS),
    ("write,pwrite64,writev", "EIO", index_files),
    ("write,pwrite64,writev", "ENOSPC", index_files),
    ("linkat,link", "EIO", EVERYWHERE),
];

#[test]
fn while_writing_or_synchronising_fails_nothing_is_acknowledged() {
    // Not that it is lost: after a kill the pages of the system are still there. That nobody is
    // told it were safe.
    for (calls, error, paths) in FAULTS {
        let Some((failed, answers)) = under_faults(&format!("{calls}:error={error}:when=1+"), paths) else { return };
        assert!(failed >= DURING, "{calls} {error}: {failed} calls failed");
        assert_eq!(answers, [OUT_OF_RESOURCES; DURING], "{calls} {error}");
    }
}

#[test]
fn a_write_or_sync_that_fails_once_costs_one_object() {
    let mut ran = 0;
    for (calls, error, paths) in FAULTS {
        // Each thread has its n-th call: of writes to the objects there may be fewer.
        for nth in [1, 2, 3] {
            let inject = format!("{calls}:error={error}:when={nth}");
            let Some((failed, answers)) = under_faults(&inject, paths) else { return };
            let refused = answers.iter().filter(|status| **status == OUT_OF_RESOURCES).count();
            assert!(refused <= failed, "{inject}: {failed} calls failed, {answers:04X?}");
            assert!(failed == 0 || refused > 0, "{inject}: {failed} calls failed, {answers:04X?}");
            ran += usize::from(failed > 0);
        }
    }
    assert!(ran >= 2 * FAULTS.len(), "only {ran} met a fault");
}

#[test]
fn a_full_disk_for_objects_refuses_them_until_there_is_room_again() {
    let place = Place::new();
    let Some(_disk) = Mount::tmpfs(&place.path("objects"), "3m") else { return };
    // No floor: the disk itself says no.
    fs::write(place.path("dcmdex.toml"), "storage = \"objects/kept\"\n[store]\njournal_mib = 0\nmin_free_mib = 0\n")
        .unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    let statuses: Vec<_> = (0..10).map(|number| store(&mut peer, number, 600_000)).collect();
    let stored = statuses.iter().filter(|status| **status == SUCCESS).count();
    assert!((3..=5).contains(&stored), "{statuses:04X?}");
    assert!(statuses.iter().all(|status| [SUCCESS, OUT_OF_RESOURCES].contains(status)), "{statuses:04X?}");
    assert_eq!(studies(&mut peer), 1);
    // Small ones may still fit, and no part of a large one is in the way.
    assert_eq!(store(&mut peer, 100, 100), SUCCESS);
    // Room again: an object goes, as an operator would make it.
    fs::remove_file(place.path("objects/kept/1.2.3/1.2.3.4/1.2.3.4.0.dcm")).unwrap();
    assert_eq!(store(&mut peer, 50, 500_000), SUCCESS);
    drop(peer);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(files(&place.path("objects/kept")), stored + 1);
}

#[test]
fn a_full_disk_for_the_index_refuses_objects_until_there_is_room_again() {
    let place = Place::new();
    let Some(disk) = Mount::tmpfs(&place.path("index"), "4m") else { return };
    // No floor: the disk itself says no.
    let settings = "index = \"index/index.db\"\nstorage = \"objects\"\n[store]\nmin_free_mib = 0\n";
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    refuses_while_full(Node::start(&place, &[]), &place, &place.path("index"));
    drop(disk);
}

#[test]
fn a_disk_without_free_inodes_is_named_as_the_reason() {
    let place = Place::new();
    let Some(_disk) = Mount::tmpfs(&place.path("objects"), "8m,nr_inodes=40") else { return };
    let settings = "storage = \"objects/kept\"\n[store]\njournal_mib = 0\nmin_free_mib = 0\n";
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    let node = Node::start(&place, &[]);
    let fillers = (0..).take_while(|number| fs::write(place.path(format!("objects/{number}")), "").is_ok());
    assert!(fillers.count() < 40);
    assert_eq!(store(&mut associated(&node), 1, 1000), OUT_OF_RESOURCES);
    let told = place.run(["status", "--check"]).expect(2).stdout;
    assert!(told.contains("the disk of received objects takes no files: no inode is free"), "{told}");
}

#[test]
fn an_index_on_a_full_disk_of_its_own_is_named_as_the_reason() {
    let place = Place::new();
    let Some(_disk) = Mount::tmpfs(&place.path("index"), "8m") else { return };
    let settings = "index = \"index/index.db\"\nstorage = \"objects\"\n[store]\njournal_mib = 0\nmin_free_mib = 256\n";
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    let mut node = Node::start(&place, &[]);
    let _full = fs::write(place.path("index/filler"), vec![0; 8 << 20]);
    assert_eq!(store(&mut associated(&node), 1, 1000), OUT_OF_RESOURCES);
    let line = node.wait_for("a request could not be served");
    assert!(line.to_string().contains("on the disk of the index"), "{line}");
    let told = place.run(["status", "--check"]).expect(2).stdout;
    assert!(told.contains("MiB are free for the index, so objects are refused"), "{told}");
}

#[test]
fn a_command_that_finds_no_room_beside_the_index_says_so() {
    let place = Place::new();
    let Some(disk) = Mount::tmpfs(&place.path("disk"), "2m") else { return };
    place.run(["scan", "--index", "disk/index.db", &fixtures("archive")]);
    let _full = fs::write(disk.path().join("filler"), vec![0; 4 << 20]);
    for command in [&["find", "--index", "disk/index.db"][..], &["check", "--index", "disk/index.db"]] {
        let full = place.run(command.iter().copied()).expect(2);
        assert!(full.stderr.contains("no space left for the index"), "{full:?}");
    }
}

#[test]
fn a_full_disk_leaves_no_part_of_a_settings_file_or_of_a_key() {
    let place = Place::new();
    let Some(disk) = Mount::tmpfs(&place.path("disk"), "1m") else { return };
    fs::write(place.path("orthanc.json"), "{}").unwrap();
    let commands = [
        &["config", "init", "disk/new"][..],
        &["config", "import", "orthanc.json", "disk/new"],
        &["export", "--index", "index.db", "--pseudonymise", "disk/new"],
    ];
    place.run(["scan", "--index", "index.db", &fixtures("archive")]);
    for command in commands {
        let _full = fs::write(disk.path().join("filler"), vec![0; 2 << 20]);
        let full = place.run(command.iter().copied()).expect(2);
        assert!(full.stderr.contains("No space left on device"), "{full:?}");
        fs::remove_file(disk.path().join("filler")).unwrap();
        assert_eq!(files(disk.path()), 0, "{command:?}");
        assert!(place.run(command.iter().copied()).code < 2);
        fs::remove_file(disk.path().join("new")).unwrap();
    }
}

#[test]
fn a_full_disk_of_the_database_server_refuses_objects_until_there_is_room_again() {
    let (place, server) = (Place::new(), postgres::PostgresServer::start(&["fsync=on"]));
    let disk = server.directory().join("disk");
    let Some(_mount) = Mount::tmpfs(&disk, "24m") else { return };
    let index = server.database_in(&disk);
    let node = Node::start(&place, &["--index", index.to_str().unwrap(), "--storage", "objects"]);
    refuses_while_full(node, &place, &disk);
}

/// Stores objects until the disk of the index is full, and one more when there is room.
fn refuses_while_full(node: Node, place: &Place, disk: &Path) {
    let mut peer = associated(&node);
    let filler = disk.join("filler");
    let free = rustix::fs::statvfs(disk).unwrap();
    fs::write(&filler, vec![0; usize::try_from(free.f_bavail * free.f_frsize - (64 << 10)).unwrap()]).unwrap();
    let mut acknowledged = 0;
    let refused = (0..2000).position(|number| match store(&mut peer, number, 100) {
        SUCCESS => {
            acknowledged += 1;
            false
        }
        OUT_OF_RESOURCES => true,
        other => panic!("{other:04X}"),
    });
    assert!(refused.is_some(), "the index disk never got full");
    assert!(studies(&mut peer) <= 1);
    fs::remove_file(filler).unwrap();
    assert_eq!(store(&mut peer, 5000, 100), SUCCESS);
    drop(peer);
    let stopped = node.stop(Signal::TERM);
    assert_eq!(stopped.0, Some(0), "{stopped:?}");
    assert_eq!(files(&place.path("objects")), acknowledged + 1);
}

#[test]
fn objects_are_refused_before_the_disk_of_the_index_is_full() {
    let place = Place::new();
    let Some(disk) = Mount::tmpfs(&place.path("index"), "8m") else { return };
    fs::write(place.path("dcmdex.toml"), "index = \"index/index.db\"\nstorage = \"objects\"\n").unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 1, 100), SUCCESS);
    let filler = place.path("index/filler");
    let free = rustix::fs::statvfs(place.path("index")).unwrap();
    // Less than a twentieth of it is left, and room for many rows.
    fs::write(&filler, vec![0; usize::try_from(free.f_bavail * free.f_frsize - (300 << 10)).unwrap()]).unwrap();
    while store(&mut peer, 2, 100) != OUT_OF_RESOURCES {}
    assert_eq!(studies(&mut peer), 1);
    fs::remove_file(filler).unwrap();
    assert_eq!(store(&mut peer, 3, 100), SUCCESS);
    drop(peer);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    drop(disk);
}

#[test]
fn a_disk_that_becomes_read_only_refuses_objects_and_queries_go_on() {
    let place = Place::new();
    let Some(disk) = Mount::ext4(&place.path("objects"), &place.path("image")) else { return };
    fs::write(place.path("dcmdex.toml"), "storage = \"objects/kept\"\n[store]\njournal_mib = 0\nmin_free_mib = 0\n")
        .unwrap();
    let node = Node::start(&place, &["--monitoring-port", "0"]);
    let monitoring = node.listening["monitoring_address"].as_str().unwrap().parse().unwrap();
    let ready = || http::request(monitoring, "GET", "/readyz", &[], b"");
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 1, 1000), SUCCESS);
    assert_eq!(ready().status, 200);
    disk.fail();
    for number in 2..5 {
        assert_eq!(store(&mut peer, number, 1000), OUT_OF_RESOURCES);
        assert_eq!(studies(&mut peer), 1);
    }
    let (answer, told) = (ready(), place.run(["status", "--check"]).expect(2).stdout);
    let why = String::from_utf8(answer.body).unwrap();
    assert!(answer.status == 503 && why.contains("the disk of received objects takes no files"), "{why}");
    assert!(told.contains("the disk of received objects takes no files"), "{told}");
    drop(peer);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(indexed(&place), [uid(1)]);
}

// A disk of the network goes away, and the directory below its mount point is there again. A start
// of the node before the disk was first mounted may have made something in it.
#[test]
fn nothing_is_stored_in_a_directory_that_took_the_place_of_the_storage() {
    for journal in ["journal_mib = 0", "journal_mib = 2"] {
        let place = Place::new();
        fs::write(place.path("dcmdex.toml"), format!("storage = \"objects\"\n[store]\n{journal}\n")).unwrap();
        let node = Node::start(&place, &["--monitoring-port", "0"]);
        let monitoring = node.listening["monitoring_address"].as_str().unwrap().parse().unwrap();
        let mut peer = associated(&node);
        assert_eq!(store(&mut peer, 1, 1000), SUCCESS);
        fs::rename(place.path("objects"), place.path("away")).unwrap();
        fs::create_dir_all(place.path("objects/.incoming")).unwrap();
        fs::write(place.path("objects/.lock"), "").unwrap();
        assert_eq!(store(&mut peer, 2, 1000), OUT_OF_RESOURCES);
        let answer = http::request(monitoring, "GET", "/readyz", &[], b"");
        let why = String::from_utf8(answer.body).unwrap();
        assert!(answer.status == 503 && why.contains("storage directory is not in its place"), "{why}");
        assert_eq!(fs::read_dir(place.path("objects/.incoming")).unwrap().count(), 0);
        fs::remove_dir_all(place.path("objects")).unwrap();
        fs::rename(place.path("away"), place.path("objects")).unwrap();
        assert_eq!(store(&mut peer, 2, 1000), SUCCESS);
        drop(peer);
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
        assert_eq!(indexed(&place), [uid(1), uid(2)]);
    }
}

#[test]
fn below_the_floor_nothing_more_is_taken() {
    let place = Place::new();
    let Some(_disk) = Mount::tmpfs(&place.path("objects"), "4m") else { return };
    // The floor is at most a twentieth: some 200 KB here.
    fs::write(place.path("dcmdex.toml"), "storage = \"objects/kept\"\n[store]\njournal_mib = 0\nmin_free_mib = 256\n")
        .unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    fs::write(place.path("objects/filler"), vec![0; 4_050_000]).unwrap();
    assert_eq!(store(&mut peer, 1, 1000), OUT_OF_RESOURCES);
    assert_eq!(studies(&mut peer), 0);
    drop(peer);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn objects_over_http_that_a_full_disk_refuses_do_not_fill_the_log() {
    let place = Place::new();
    let Some(_disk) = Mount::tmpfs(&place.path("objects"), "4m") else { return };
    fs::write(place.path("dcmdex.toml"), "storage = \"objects/kept\"\n[store]\njournal_mib = 0\nmin_free_mib = 256\n")
        .unwrap();
    let node = Node::start(&place, &["--http-port", "0"]);
    let address = node.listening["http_address"].as_str().unwrap().parse().unwrap();
    fs::write(place.path("objects/filler"), vec![0; 4_050_000]).unwrap();
    let object = crate::util::objects::file("P1", "1.2.7", "1.2.7.1", "1.2.7.1.1");
    let part = [b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n", &object[..]].concat();
    let body = [&part.repeat(40)[..], b"\r\n--b--"].concat();
    let stow = [("Content-Type", "multipart/related; type=\"application/dicom\"; boundary=b")];
    assert!(http::request(address, "POST", "/dicom-web/studies", &stow, &body).status >= 400);
    let (code, log) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    let lines = log.iter().filter(|line| line.contains("an object that came over HTTP is not stored")).count();
    assert!((1..=10).contains(&lines), "{lines} lines");
}

/// Starts a node with one instance a second time, with failing syncs of one of its files.
fn with_failing_syncs(place: &Place, when: &str, file: &str) -> Option<(Node, ScriptedPeer, Faults)> {
    let node = Node::start(place, &[]);
    assert_eq!(store(&mut associated(&node), 0, 1000), SUCCESS);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let node = Node::start(place, &[]);
    let mut peer = associated(&node);
    // The log begins with a header, which is synchronised before what is written behind it. And
    // whose log it is, is noted once.
    if file == "index.db-wal" {
        assert_eq!(store(&mut peer, 2, 1000), SUCCESS);
    }
    let inject = format!("fsync,fdatasync:error=EIO:when={when}");
    let faults = Faults::begin(&node, place, &inject, &[place.path(format!("dcmdex-data/{file}"))])?;
    Some((node, peer, faults))
}

#[test]
fn an_instance_that_a_failed_commit_left_in_the_index_has_its_object() {
    // SQLite had written all of it when the sync failed, and so had the index when that could not
    // be noted.
    for file in ["index.db-wal", "index.db-turn"] {
        // A new instance, and other content of one that was acknowledged.
        for (policy, number) in [("keep-both", 1), ("replace", 0)] {
            let place = Place::new();
            fs::write(place.path("dcmdex.toml"), format!("[store]\njournal_mib = 0\nduplicates = \"{policy}\"\n"))
                .unwrap();
            let Some((node, mut peer, faults)) = with_failing_syncs(&place, "1+", file) else { return };
            assert_eq!(store(&mut peer, number, 2000), OUT_OF_RESOURCES, "{file} {policy}");
            assert!(faults.end() > 0, "{file}");
            node.kill();
            assert_eq!(Node::start(&place, &[]).stop(Signal::TERM).0, Some(0));
            // None is gone, and there is none that the index does not know.
            let indexed = indexed(&place);
            assert!(indexed.contains(&uid(0)) && indexed.contains(&uid(number)), "{file} {policy}: {indexed:?}");
            assert_eq!(files(&place.path("dcmdex-data/objects")), indexed.len(), "{file} {policy}");
        }
    }
}

#[test]
fn nothing_is_acknowledged_while_it_cannot_be_noted_that_the_log_is_needed() {
    let place = without_journal();
    let Some((_node, mut peer, faults)) = with_failing_syncs(&place, "1+", "index.db-turn") else { return };
    for number in 1..4 {
        assert_eq!(store(&mut peer, number, 1000), OUT_OF_RESOURCES);
    }
    assert!(faults.end() >= 3);
    assert_eq!(store(&mut peer, 4, 1000), SUCCESS);
}

#[test]
fn an_instance_is_there_that_is_sent_again_after_its_commit_failed() {
    for file in ["index.db-wal", "index.db-turn"] {
        let place = without_journal();
        let Some((node, mut peer, faults)) = with_failing_syncs(&place, "1", file) else { return };
        assert_eq!(store(&mut peer, 1, 1000), OUT_OF_RESOURCES, "{file}");
        assert_eq!(faults.end(), 1, "{file}");
        assert_eq!(store(&mut peer, 1, 1000), SUCCESS, "{file}");
        node.kill();
        assert_eq!(Node::start(&place, &[]).stop(Signal::TERM).0, Some(0));
        let indexed = indexed(&place);
        assert!(indexed.contains(&uid(0)) && indexed.contains(&uid(1)), "{file}: {indexed:?}");
        assert_eq!(files(&place.path("dcmdex-data/objects")), indexed.len(), "{file}");
    }
}

/// Runs a script of tools/bench with this program. Returns its last line that begins with `first`.
fn script(name: &str, how: &str, more: &[&str], first: &str) -> Option<String> {
    let mut python = peers::program("/usr/bin/python3")?;
    let place = Place::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/bench").join(name);
    python.arg(script).arg(how).arg("--work").arg(place.path("work")).args(more);
    let run = peers::run(python.env("DCMDEX_BINARY", env!("CARGO_BIN_EXE_dcmdex")).env("PYTHONDONTWRITEBYTECODE", "1"));
    if run.status.code() == Some(77) {
        peers::skipped(&run.stderr);
        return None;
    }
    let said = run.expect_success();
    let last = said.lines().rfind(|line| line.starts_with(first)).unwrap_or_else(|| panic!("{said}"));
    Some(last.to_owned())
}

/// Runs a few rounds of tools/bench/reliability.py. docs/reliability.md says how to run many.
fn rounds(how: &str, rounds: usize, more: &[&str]) {
    let number_of_rounds = rounds.to_string();
    let more = [&["--rounds", &number_of_rounds], more].concat();
    let Some(said) = script("reliability.py", how, &more, "rounds=") else { return };
    let number = |name: &str| -> usize {
        let value = said.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {said}"))
    };
    let faults = ["missing", "missing-later", "short", "partial", "orphans", "doubled", "not-scanned", "check"];
    for nothing in faults.into_iter().chain(["refused-starts", "refused"]) {
        assert_eq!(number(nothing), 0, "{nothing}: {said}");
    }
    // Each round ends after one Success at the earliest.
    assert_eq!(number("rounds"), rounds, "{said}");
    assert!(number("acknowledged") >= rounds, "{said}");
}

/// Whether this machine can cut the power of a disk. This needs root and a loop device.
fn can_cut_power() -> bool {
    let place = Place::new();
    Mount::ext4(&place.path("mount"), &place.path("image")).is_some()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed() {
    rounds("kill", 3, &[]);
    rounds("kill", 2, &["--duplicates", "keep-first"]);
    rounds("kill", 2, &["--duplicates", "replace"]);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed_beside_a_scan_and_while_it_recovers() {
    rounds("kill", 3, &["--scan", "--kill-recovery"]);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    if can_cut_power() {
        rounds("powercut", 2, &[]);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_of_one_of_two_disks_goes() {
    if can_cut_power() {
        rounds("powercut", 2, &["--disks", "2", "--scan", "--kill-recovery"]);
    }
}

/// Kills the node or cuts the power at a few of the moments that tools/bench/kill_points.py knows.
/// docs/reliability.md says how to run all of them.
fn some_kill_points(how: &str, scenarios: &[&str]) {
    let more = [&["--points", "4"], scenarios].concat();
    let Some(said) = script("kill_points.py", how, &more, "all:") else { return };
    assert!(said.ends_with(" 0 faults"), "{said}");
}

#[test]
fn nothing_acknowledged_is_lost_wherever_a_start_or_a_stop_is_killed() {
    some_kill_points("kill", &["first", "recovery", "scan"]);
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes_in_a_start_or_a_stop() {
    if can_cut_power() {
        some_kill_points("powercut", &["first", "recovery"]);
    }
}
