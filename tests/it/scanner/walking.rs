//! Every entry of a tree is accounted for.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::Barrier;

use dcmdex::scanner::{BeforeListing, Error, Roots, UNIT_FILES};

use super::*;

#[test]
fn what_is_not_a_file_or_is_litter_is_skipped_with_its_reason_and_never_opened() {
    let archive = Archive::new();
    archive.write("a/1", 1);
    archive.write("a/._1", 2);
    archive.write("a/Thumbs.db", 3);
    archive.write("__MACOSX/1", 4);
    rustix::fs::mkfifoat(rustix::fs::CWD, archive.path("a/fifo"), rustix::fs::Mode::RWXU).unwrap();
    let _socket = UnixListener::bind(archive.path("a/socket")).unwrap();
    symlink(archive.path("a"), archive.path("b")).unwrap();
    symlink(archive.root(), archive.path("a/loop")).unwrap();
    symlink("nowhere", archive.path("a/broken")).unwrap();
    symlink("itself", archive.path("a/itself")).unwrap();
    fs::write(archive.path("a/empty"), "").unwrap();
    fs::write(archive.path("notes.txt"), "no object, but long enough to look like something").unwrap();

    let told = archive.scan();
    assert_eq!(
        told.events,
        [
            "skipped __MACOSX macos-litter",
            "skipped b directory-link",
            "failed notes.txt not-dicom",
            "skipped a/._1 macos-litter",
            "skipped a/Thumbs.db windows-litter",
            "skipped a/fifo special-file",
            "skipped a/socket special-file",
            "skipped a/loop directory-link",
            "failed a/broken broken-link",
            "failed a/empty empty",
            "failed a/itself unreadable",
        ]
    );
    assert_eq!(told.numbers(), (12, 1, 0, 0, 7, 4));
    archive.assert_failures(&["notes.txt not-dicom", "a/broken broken-link", "a/empty empty", "a/itself unreadable"]);
}

#[test]
fn a_link_to_a_file_is_a_place_of_its_object() {
    let archive = Archive::new();
    archive.write("annex/x", 1);
    symlink("annex/x", archive.path("1.dcm")).unwrap();
    let told = archive.scan();
    assert_eq!(told.numbers(), (2, 2, 0, 0, 0, 0));
    assert_eq!(told.summary.copies, 1);
    assert_eq!(archive.instances()["1.2.1.1.1"], ["1.dcm", "annex/x"].map(PathBuf::from));
}

#[test]
fn names_of_any_bytes_and_of_any_length_are_kept() {
    let archive = Archive::new();
    let odd = Path::new(OsStr::from_bytes(b"caf\xe9/\xff\x01 \n.dcm"));
    archive.write(odd, 1);
    let long = "x".repeat(255);
    archive.write(&long, 2);
    assert_eq!(archive.scan().numbers(), (2, 2, 0, 0, 0, 0));
    let instances = archive.instances();
    assert_eq!(instances["1.2.1.1.1"], [odd]);
    assert_eq!(instances["1.2.1.1.2"], [PathBuf::from(long)]);
    assert_eq!(archive.scan().numbers(), (2, 0, 0, 2, 0, 0));
}

#[test]
fn a_directory_deeper_than_the_system_can_name_is_a_failure_and_its_neighbours_are_read() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let archive = Archive::new();
    archive.write("b/1", 1);
    let name = "d".repeat(250);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = openat(CWD, archive.root(), flags, Mode::empty()).unwrap();
    for _ in 0..20 {
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    let told = archive.scan();
    assert_eq!(told.numbers(), (2, 1, 0, 0, 0, 1));
    assert!(told.events[0].starts_with("failed dddd") && told.events[0].ends_with(" unreadable-directory"));
    // Such a path cannot be removed by its name either.
    for _ in 0..20 {
        let deepest = archive.path(format!("{name}/{name}"));
        if deepest.exists() {
            fs::rename(&deepest, archive.path("next")).unwrap();
            fs::remove_dir(archive.path(&name)).unwrap();
            fs::rename(archive.path("next"), archive.path(&name)).unwrap();
        }
    }
}

#[test]
fn a_directory_that_may_not_be_read_is_a_failure_until_it_may() {
    use std::os::unix::fs::PermissionsExt;
    let archive = Archive::new();
    archive.write("closed/1", 1);
    archive.write("open/1", 2);
    let allow = |mode| fs::set_permissions(archive.path("closed"), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    if archive.path("closed").read_dir().is_ok() {
        return crate::util::peers::skipped("this user may read everything");
    }
    for _ in 0..2 {
        let told = archive.scan();
        assert_eq!(told.events, ["failed closed unreadable-directory"]);
        assert_eq!(told.numbers().5, 1);
        archive.assert_failures(&["closed/ unreadable-directory"]);
    }
    allow(0o700);
    assert_eq!(archive.scan().numbers(), (2, 1, 0, 1, 0, 0));
    archive.assert_failures(&[]);
}

#[test]
fn paths_that_lie_in_each_other_are_scanned_once() {
    let archive = Archive::new();
    archive.write("a/1", 1);
    archive.write("a/b/2", 2);
    archive.write("a/b/3", 3);
    symlink(archive.path("a"), archive.path("link")).unwrap();
    let paths = ["a/b", "a", "a/b/2", "a/b/../b/2", "link", "link/b"].map(|inside| archive.path(inside));
    let told = archive.scan_paths(&paths);
    assert_eq!(told.numbers(), (3, 3, 0, 0, 0, 0));
    assert_eq!(told.summary.copies, 0);
    assert_eq!(archive.instances()["1.2.1.1.2"], [PathBuf::from("a/b/2")]);
}

#[test]
fn a_path_may_be_a_file_and_is_then_read_whatever_its_name() {
    let archive = Archive::new();
    archive.write("a/._1", 1);
    archive.write("a/2", 2);
    let told = archive.scan_paths(&[archive.path("a/._1")]);
    assert_eq!(told.numbers(), (1, 1, 0, 0, 0, 0));
    // The rest of the directory was not looked at, and nothing in it counts as gone.
    let told = archive.scan_paths(&[archive.path("a/2")]);
    assert_eq!(told.numbers(), (1, 1, 0, 0, 0, 0));
    assert_eq!(told.summary.missing, 0);
}

#[test]
fn a_path_that_is_not_there_is_an_error_before_anything_is_read() {
    let archive = Archive::new();
    archive.write("a", 1);
    let error = Roots::find(&[archive.root(), archive.path("b")], &archive.options).unwrap_err();
    assert!(matches!(&error, Error::Missing { path } if path.ends_with("b")), "{error}");
}

#[test]
fn the_index_and_the_storage_directory_are_the_nodes_own_business() {
    let mut archive = Archive::new();
    archive.options.index = archive.path("index.db");
    archive.options.storage = archive.path("objects");
    archive.write("1", 1);
    archive.write("objects/2", 2);
    let told = archive.scan();
    assert_eq!(told.numbers().1, 1);
    assert!(told.events.iter().all(|event| event.ends_with(" own-files")), "{:?}", told.events);
    assert!(told.events.contains(&"skipped index.db own-files".to_owned()));
    let error = Roots::find(&[archive.path("objects/2")], &archive.options).unwrap_err();
    assert!(matches!(error, Error::OwnStorage { .. }));
}

#[test]
fn a_directory_of_many_units_is_read_to_its_end() {
    let archive = Archive::new();
    let files = u32::try_from(3 * UNIT_FILES + 7).unwrap();
    for number in 0..files {
        archive.write(format!("IM{number:05}"), number);
    }
    let told = archive.scan();
    assert_eq!(told.numbers(), (files.into(), files.into(), 0, 0, 0, 0));
    assert_eq!(told.summary.directories, 1);
    assert_eq!(archive.instances().len(), files as usize);
    assert_eq!(archive.scan().numbers(), (files.into(), 0, 0, files.into(), 0, 0));
}

#[test]
fn neither_the_report_nor_the_index_depends_on_the_number_of_threads() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let paths = [fixtures.join("real"), fixtures.join("archive")];
    let mut results = Vec::new();
    for jobs in [1, 3, 32] {
        let mut archive = Archive::new();
        archive.options.jobs = Jobs::fixed(jobs);
        let told = archive.scan_paths(&paths);
        let index = archive.index().to_owned();
        let dump = std::process::Command::new("sqlite3")
            .arg(&index)
            .arg(".dump")
            .output()
            .expect("the sqlite3 shell is installed by scripts/peers");
        assert!(dump.status.success());
        let dump: Vec<String> = String::from_utf8_lossy(&dump.stdout).lines().map(str::to_owned).collect();
        assert!(dump.len() > 300);
        results.push([told.events, dump]);
    }
    for (one, other) in results[0].iter().zip(&results[1]).chain(results[0].iter().zip(&results[2])) {
        let differences: Vec<_> = one.iter().zip(other).filter(|(one, other)| one != other).take(3).collect();
        assert!(differences.is_empty() && one.len() == other.len(), "{differences:#?}");
    }
}

#[test]
fn several_directories_are_listed_at_a_time() {
    let mut archive = Archive::new();
    for number in 0..4 {
        archive.write(format!("d{number}/file"), number);
    }
    // No directory answers before another one was asked for as well.
    let two = Arc::new(Barrier::new(2));
    let root = archive.root();
    archive.options.before_listing = BeforeListing(Some(Arc::new(move |directory: &Path| {
        if directory != root {
            two.wait();
        }
    })));
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.directories), ((4, 4, 0, 0, 0, 0), 5));
}

#[test]
fn what_is_too_large_to_be_listed_ahead_is_listed_in_its_turn() {
    let mut archive = Archive::new();
    archive.options.jobs = Jobs::fixed(16);
    for number in 0..20 {
        archive.write(format!("a{number:02}/1"), number);
    }
    for directory in ["b1", "b2", "b3"] {
        archive.write(format!("{directory}/below/1"), 100);
        for number in 0..1200 {
            fs::write(archive.path(format!("{directory}/{number:04}")), "").unwrap();
        }
    }
    let listed = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (root, names) = (archive.root(), Arc::clone(&listed));
    archive.options.before_listing = BeforeListing(Some(Arc::new(move |path| {
        names.lock().unwrap().push(path.strip_prefix(&root).unwrap().to_owned());
    })));
    let told = archive.scan();
    assert_eq!(told.numbers(), (20 + 3 * 1201, 23, 0, 0, 0, 3600));
    let failed: Vec<_> = told.events.iter().filter(|event| event.starts_with("failed")).collect();
    assert!(failed.is_sorted() && failed.len() == 3600, "each once, in order");
    let times = |name: &str| listed.lock().unwrap().iter().filter(|path| *path == Path::new(name)).count();
    assert_eq!((times("a19"), times("b1"), times("b3/below")), (1, 2, 1));
}
