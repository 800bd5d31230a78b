//! Files of the node are accessible to its user and group only, whatever the umask. Its locks are
//! accessible to its user only.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::Signal;

use super::faults::{SUCCESS, associated, store};
use super::serve::Node;
use super::*;

/// Returns every file and directory below, with its permissions. Files that the test made are left
/// out.
fn modes(directory: &Path) -> Vec<(String, bool, u32)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        let metadata = fs::metadata(&next).unwrap();
        found.push((next.display().to_string(), metadata.is_dir(), metadata.mode() & 0o7777));
        if metadata.is_dir() {
            left.extend(fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[track_caller]
fn are_for_us_alone(directory: &Path) -> usize {
    let modes = modes(directory);
    for (path, is_directory, mode) in &modes {
        let is_lock = path.ends_with("-turn") || path.ends_with(".lock");
        let most = match (is_directory, is_lock) {
            (true, _) => 0o750,
            (false, true) => 0o600,
            (false, false) => 0o640,
        };
        assert_eq!(mode & !most, 0, "{path}: {mode:o}");
    }
    modes.len()
}

#[test]
fn no_file_of_the_node_can_be_read_or_locked_by_others_whatever_the_umask() {
    for umask in ["0", "022", "077"] {
        let place = Place::new();
        let program = env!("CARGO_BIN_EXE_dcmdex");
        let with_umask = |arguments: &str| {
            let mut command = place.command();
            let mut shell = Command::new("/bin/sh");
            shell.current_dir(command.get_current_dir().unwrap());
            for (name, _) in command.get_envs() {
                shell.env_remove(name);
            }
            shell.arg("-c").arg(format!("umask {umask}; exec {program} {arguments}"));
            command = shell;
            command
        };
        let node = Node::start_with(&mut with_umask("serve --port 0"));
        let mut peer = associated(&node);
        assert_eq!(store(&mut peer, 1, 1000), SUCCESS);
        // While it runs there are a log and shared memory, and an object has two names.
        let running = are_for_us_alone(&place.path("dcmdex-data"));
        assert!(running >= 10, "{running}");
        drop(peer);
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
        let scan = run(&mut with_umask(&format!("scan --index new/scanned.db {}", fixtures("archive")))).expect(1);
        drop(scan);
        are_for_us_alone(&place.path("new"));
        run(&mut with_umask("index freeze new/scanned.db")).expect(0);
        assert_eq!(are_for_us_alone(&place.path("new")), 3, "directory, index, and what says that it is frozen");
    }
}

#[test]
fn files_of_an_older_version_are_closed_to_others_at_the_next_start() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    assert_eq!(store(&mut associated(&node), 1, 1000), SUCCESS);
    node.kill();
    let data = place.path("dcmdex-data");
    for file in ["index.db", "index.db-wal", "index.db-shm", "index.db-turn", "objects/.lock"] {
        fs::set_permissions(data.join(file), fs::Permissions::from_mode(0o666)).unwrap();
    }
    for directory in ["objects", "objects/.incoming"] {
        fs::set_permissions(data.join(directory), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let node = Node::start(&place, &[]);
    are_for_us_alone(&data);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

/// The names of folders are Patient IDs.
#[test]
fn folders_in_a_destination_that_everybody_may_enter_are_closed_to_others() {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    for (arguments, out) in [
        (&["copy", "Modality=*", "--to", "out"][..], "out"),
        (&["copy", "Modality=*", "--dicomdir", "--to", "media"], "media"),
        (&["export", "--level", "STUDY", "--partition-by", "study-year", "--out", "parts/studies"], "parts"),
    ] {
        fs::create_dir(place.path(out)).unwrap();
        fs::set_permissions(place.path(out), fs::Permissions::from_mode(0o755)).unwrap();
        let done = place.run([arguments, &["--index", "x.db"]].concat());
        assert!(done.code < 2, "{done:?}");
        let mut found = 0;
        for below in fs::read_dir(place.path(out)).unwrap() {
            found += are_for_us_alone(&below.unwrap().path());
        }
        assert!(found > 2, "{out}: {found}");
    }
}
