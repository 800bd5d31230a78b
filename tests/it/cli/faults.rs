//! Disks that fill up or fail, and nodes that are killed: what was acknowledged is there.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::serve::Node;
use super::*;
use crate::util::peers;
use crate::util::scripted::{DataSet, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, find_command, store_command};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const CONTEXTS: &[(&str, &[&str])] =
    &[(SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]), (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN])];

const SUCCESS: u16 = 0;
const OUT_OF_RESOURCES: u16 = 0xA700;

fn uid(number: usize) -> String {
    format!("1.2.3.4.{number}")
}

/// Stores the instance with this number, and so many bytes of pixels.
fn store(peer: &mut ScriptedPeer, number: usize, pixels: usize) -> u16 {
    let data_set = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", &uid(number));
    let data_set = data_set.bytes(0x7FE0, 0x0010, &vec![number as u8; pixels]);
    peer.send_message(1, &store_command(7, SECONDARY_CAPTURE, &uid(number)), Some(&data_set.0));
    peer.receive_message().status()
}

/// How many studies a query finds; panics unless it succeeds.
fn studies(peer: &mut ScriptedPeer) -> usize {
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

fn associated(node: &Node) -> ScriptedPeer {
    ScriptedPeer::associated(([127, 0, 0, 1], node.port).into(), CONTEXTS)
}

/// What the index has, by `dcmdex find`, and that `dcmdex check` finds nothing wrong.
fn indexed(place: &Place) -> Vec<String> {
    place.run(["check", "--files"]).expect(0);
    let run = run(place.command().args(["find", "--level", "IMAGE", "--format", "csv", "SOPInstanceUID"]));
    let first = run.stdout.lines().filter_map(|line| line.split(',').next());
    let mut uids: Vec<_> = first.filter(|uid| uid.starts_with("1.2.3.4.")).map(str::to_owned).collect();
    uids.sort();
    uids
}

/// Files below a directory, without the lock.
fn files(directory: &Path) -> usize {
    let mut count = 0;
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => left.push(entry.path()),
                false => count += usize::from(entry.file_name() != ".lock"),
            }
        }
    }
    count
}

#[test]
fn a_failed_write_or_sync_is_never_acknowledged_and_the_next_one_may_succeed() {
    // The n-th call of each kind fails, for several n: of objects, of directories, of the index and of its log.
    for (calls, error) in [("fsync,fdatasync", "EIO"), ("write,pwrite64,writev", "ENOSPC"), ("linkat,link", "EIO")] {
        for nth in [1, 2, 3, 5, 8, 13] {
            let Some(mut strace) = peers::program("/usr/bin/strace") else { return };
            let place = Place::new();
            // Made before, so that only the life of the node is tried.
            assert_eq!(Node::start(&place, &[]).stop(rustix::process::Signal::TERM).0, Some(0));
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
            strace.args(["-e", &format!("inject={calls}:error={error}:when={nth}")]);
            // Of writes only those to files below the storage directory and to the index: sockets and the log are not disks.
            if calls.starts_with("write") {
                for inside in ["dcmdex-data/index.db", "dcmdex-data/index.db-wal"] {
                    strace.args(["-P".as_ref(), place.path(inside).as_os_str()]);
                }
            }
            strace.arg(env!("CARGO_BIN_EXE_dcmdex")).args(["serve", "--port", "0"]).current_dir(place.path(""));
            let Some(node) = Node::try_start(&mut strace) else {
                // The fault came before the node was there: it said so and ended.
                continue;
            };
            let mut peer = associated(&node);
            let mut acknowledged = Vec::new();
            for number in 0..20 {
                match store(&mut peer, number, 3_000) {
                    SUCCESS => acknowledged.push(uid(number)),
                    OUT_OF_RESOURCES => {}
                    other => panic!("{calls} {error} {nth}: {other:04X}"),
                }
                assert!(studies(&mut peer) <= 1);
            }
            // strace counts for each thread.
            assert!(acknowledged.len() >= 10, "{calls} {error} {nth}: {acknowledged:?}");
            drop(peer);
            node.kill();
            // A start settles what the killed node left.
            assert_eq!(Node::start(&place, &[]).stop(rustix::process::Signal::TERM).0, Some(0));
            let indexed = indexed(&place);
            for uid in &acknowledged {
                assert!(indexed.contains(uid), "{calls} {error} {nth}: {uid} is lost; {indexed:?}");
            }
            assert_eq!(files(&place.path("dcmdex-data/objects")), indexed.len(), "{calls} {error} {nth}");
        }
    }
}

/// A file system of its own below a test's place, gone when dropped. `None`, and said so, where it cannot be mounted.
struct Mount(std::path::PathBuf);

impl Mount {
    fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "dcmdex-test"]).arg(at);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !mounted {
            peers::skipped("a tmpfs cannot be mounted here: root is needed");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// An ext4 file system in a file, which becomes read-only at the first error, as is usual.
    fn ext4(at: &Path, image: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        fs::File::create(image).unwrap().set_len(16 << 20).unwrap();
        let quiet = |command: &mut Command| command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        let made = quiet(Command::new("mkfs.ext4").arg("-q").arg(image))
            && quiet(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(image).arg(at));
        if !made {
            peers::skipped("an ext4 file system cannot be mounted here: root, mkfs.ext4 and a loop device are needed");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Makes the kernel meet an error on it.
    fn fail(&self) {
        let source = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.0).output().unwrap();
        let device = String::from_utf8(source.stdout).unwrap();
        let device = device.trim().rsplit('/').next().unwrap();
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "test").unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: what a failed test left open goes with it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_for_objects_refuses_them_until_there_is_room_again() {
    let place = Place::new();
    let Some(_disk) = Mount::tmpfs(&place.path("objects"), "3m") else { return };
    // No floor: the disk itself says no.
    fs::write(place.path("dcmdex.toml"), "storage = \"objects/kept\"\n[store]\nmin_free_mib = 0\n").unwrap();
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
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
    assert_eq!(files(&place.path("objects/kept")), stored + 1);
}

#[test]
fn a_full_disk_for_the_index_refuses_objects_until_there_is_room_again() {
    let place = Place::new();
    let Some(disk) = Mount::tmpfs(&place.path("index"), "1m") else { return };
    fs::write(place.path("dcmdex.toml"), "index = \"index/index.db\"\nstorage = \"objects\"\n").unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    let filler = place.path("index/filler");
    let free = rustix::fs::statvfs(place.path("index")).unwrap();
    fs::write(&filler, vec![0; usize::try_from(free.f_bavail * free.f_frsize).unwrap()]).unwrap();
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
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
    assert_eq!(files(&place.path("objects")), acknowledged + 1);
    drop(disk);
}

#[test]
fn a_disk_that_becomes_read_only_refuses_objects_and_queries_go_on() {
    let place = Place::new();
    let Some(disk) = Mount::ext4(&place.path("objects"), &place.path("image")) else { return };
    fs::write(place.path("dcmdex.toml"), "storage = \"objects/kept\"\n[store]\nmin_free_mib = 0\n").unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 1, 1000), SUCCESS);
    disk.fail();
    for number in 2..5 {
        assert_eq!(store(&mut peer, number, 1000), OUT_OF_RESOURCES);
        assert_eq!(studies(&mut peer), 1);
    }
    drop(peer);
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
    assert_eq!(indexed(&place), [uid(1)]);
}

#[test]
fn below_the_floor_nothing_more_is_taken() {
    let place = Place::new();
    let Some(_disk) = Mount::tmpfs(&place.path("objects"), "4m") else { return };
    // The floor is at most a twentieth: some 200 KB here.
    fs::write(place.path("dcmdex.toml"), "storage = \"objects/kept\"\n[store]\nmin_free_mib = 256\n").unwrap();
    let node = Node::start(&place, &[]);
    let mut peer = associated(&node);
    fs::write(place.path("objects/filler"), vec![0; 4_050_000]).unwrap();
    assert_eq!(store(&mut peer, 1, 1000), OUT_OF_RESOURCES);
    assert_eq!(studies(&mut peer), 0);
    drop(peer);
    assert_eq!(node.stop(rustix::process::Signal::TERM).0, Some(0));
}

/// Runs bench/reliability.py for a few rounds; for many it is run by itself (docs/reliability.md).
fn rounds(how: &str, rounds: &str) {
    let Some(mut python) = peers::program("/usr/bin/python3") else { return };
    let place = Place::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/reliability.py");
    python.arg(script).arg(how).arg("--work").arg(place.path("work")).arg("--rounds").arg(rounds);
    let run = peers::run(python.env("DCMDEX_BINARY", env!("CARGO_BIN_EXE_dcmdex")).env("PYTHONDONTWRITEBYTECODE", "1"));
    let said = run.expect_success();
    let last = said.lines().find(|line| line.starts_with("rounds=")).map(|_| said.lines().last().unwrap_or_default());
    for nothing in ["missing=0", "short=0", "partial=0", "orphans=0"] {
        assert!(last.is_some_and(|line| line.contains(nothing)), "{nothing}: {said}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed() {
    rounds("kill", "4");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let place = Place::new();
    // Whether this machine can: root, and a loop device.
    if Mount::ext4(&place.path("mount"), &place.path("image")).is_none() {
        return;
    }
    rounds("powercut", "2");
}
