//! A second scan reads what has changed, and nothing else.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use dcmdex::scanner::UNIT_FILES;

use super::*;

/// Sets the time of a file to `seconds` after 2001.
fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(978_307_200 + seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn an_unchanged_tree_is_not_read_and_nothing_is_written() {
    let archive = Archive::new();
    archive.write("a/1", 1);
    archive.write("a/2", 2);
    fs::write(archive.path("a/notes.txt"), "no object").unwrap();
    archive.scan();
    let before = fs::read(archive.index()).unwrap();
    let told = archive.scan();
    assert_eq!(told.numbers(), (3, 0, 0, 2, 0, 1));
    assert_eq!(told.events, ["failed a/notes.txt not-dicom"], "known failures are told again");
    assert_eq!(told.summary.bytes, 0, "nothing was opened");
    assert!(fs::read(archive.index()).unwrap() == before, "the index has changed");
}

#[test]
fn a_changed_file_replaces_what_it_was() {
    let archive = Archive::new();
    archive.write("a/1", 1);
    archive.write("a/2", 2);
    archive.scan();
    archive.write("a/1", 3);
    set_time(&archive.path("a/1"), 5);
    let told = archive.scan();
    assert_eq!(told.numbers(), (2, 0, 1, 1, 0, 0));
    let instances = archive.instances();
    assert_eq!(instances.keys().collect::<Vec<_>>(), ["1.2.1.1.2", "1.2.1.1.3"]);
    archive.assert_failures(&[]);
}

#[test]
fn a_change_of_the_time_alone_is_enough() {
    let archive = Archive::new();
    archive.write("1", 1);
    set_time(&archive.path("1"), 0);
    archive.scan();
    set_time(&archive.path("1"), 1);
    assert_eq!(archive.scan().numbers(), (1, 0, 1, 0, 0, 0));
    assert_eq!(archive.scan().numbers(), (1, 0, 0, 1, 0, 0));
}

#[test]
fn what_failed_and_was_mended_is_indexed_and_no_failure_any_more() {
    let archive = Archive::new();
    fs::write(archive.path("1"), "not yet").unwrap();
    archive.scan();
    archive.assert_failures(&["1 not-dicom"]);
    archive.write("1", 1);
    assert_eq!(archive.scan().numbers(), (1, 1, 0, 0, 0, 0));
    archive.assert_failures(&[]);
    fs::write(archive.path("1"), "no more").unwrap();
    assert_eq!(archive.scan().numbers(), (1, 0, 0, 0, 0, 1));
    archive.assert_failures(&["1 not-dicom"]);
    assert!(archive.instances().is_empty());
}

#[test]
fn what_is_gone_is_counted_and_dropped_only_when_asked() {
    let mut archive = Archive::new();
    archive.write("1", 1);
    archive.write("a/2", 2);
    archive.write("a/b/3", 3);
    archive.write("c/4", 4);
    fs::write(archive.path("notes.txt"), "no object").unwrap();
    archive.scan();
    fs::remove_file(archive.path("1")).unwrap();
    fs::remove_file(archive.path("notes.txt")).unwrap();
    fs::remove_dir_all(archive.path("a")).unwrap();

    let told = archive.scan();
    assert_eq!((told.summary.missing, told.summary.removed), (3, 0));
    assert_eq!(archive.instances().len(), 4);
    archive.assert_failures(&[]); // a note about a file that is gone is of no use to anybody

    archive.options.vanished = Vanished::Prune;
    let told = archive.scan();
    assert_eq!((told.summary.missing, told.summary.removed), (0, 3));
    assert_eq!(archive.instances().keys().collect::<Vec<_>>(), ["1.2.1.1.4"]);
    assert_eq!(archive.scan().summary.removed, 0);
    archive.assert_failures(&[]);
}

#[test]
fn a_file_that_moved_is_the_same_instance_in_its_new_place() {
    let mut archive = Archive::new();
    archive.options.vanished = Vanished::Prune;
    archive.write("b/1", 1);
    archive.scan();
    for new in ["a/1", "c/2"] {
        let old = archive.instances()["1.2.1.1.1"][0].clone();
        fs::create_dir_all(archive.path(new).parent().unwrap()).unwrap();
        fs::rename(archive.path(old), archive.path(new)).unwrap();
        let told = archive.scan();
        assert_eq!((told.summary.indexed, told.summary.removed), (1, 1));
        assert_eq!(archive.instances()["1.2.1.1.1"], [PathBuf::from(new)]);
        archive.assert_failures(&[]);
    }
}

#[test]
fn a_root_that_is_scanned_alone_says_nothing_about_its_neighbours() {
    let mut archive = Archive::new();
    archive.options.vanished = Vanished::Prune;
    archive.write("a/1", 1);
    archive.write("a.b/2", 2);
    archive.write("ab/3", 3);
    archive.scan();
    for gone in ["a.b", "ab"] {
        fs::remove_dir_all(archive.path(gone)).unwrap();
    }
    assert_eq!(archive.scan_paths(&[archive.path("a")]).summary.removed, 0);
    assert_eq!(archive.instances().len(), 3);
}

#[test]
fn a_scan_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been() {
    let whole = Archive::new();
    let stopped = Archive::new();
    for archive in [&whole, &stopped] {
        for number in 0..60 {
            archive.write(format!("{:02}/{number:02}", number / 3), number);
        }
        for number in 0..20 {
            fs::write(archive.path(format!("{number:02}/notes.txt")), "no object").unwrap();
        }
    }
    whole.scan();
    let (mut scans, mut indexed) = (0, 0);
    loop {
        let stop = Stop::default();
        let mut failures = 0;
        let told = stopped.scan_until(&[stopped.root()], &stop, |event| {
            // The failures of earlier scans come again; go one further each time.
            failures += u64::from(matches!(event, ScanEvent::Failed { .. }));
            if failures > scans {
                stop.ask();
            }
        });
        told.numbers();
        assert_eq!(told.summary.missing, 0, "what was not looked at is not gone");
        let now = stopped.instances().len();
        assert!(now >= indexed, "progress was lost");
        indexed = now;
        scans += 1;
        if !told.summary.interrupted {
            break;
        }
        assert!(scans < 100);
    }
    assert!(scans > 1);
    assert_eq!(stopped.instances(), whole.instances());
    assert_eq!(stopped.scan().numbers(), (80, 0, 0, 60, 0, 20));
}

#[test]
fn a_dry_run_reports_and_writes_nothing() {
    let archive = Archive::new();
    archive.write("1", 1);
    fs::write(archive.path("notes.txt"), "no object").unwrap();
    let dry = || {
        let known = Reader::open(archive.index()).ok();
        archive.scan_into(ScanTarget::DryRun { known }, &[archive.root()], &Stop::default(), &mut |_| {})
    };
    assert_eq!(dry().numbers(), (2, 1, 0, 0, 0, 1));
    assert!(!archive.index().exists());
    archive.scan();
    archive.write("2", 2);
    let before = fs::read(archive.index()).unwrap();
    assert_eq!(dry().numbers(), (3, 1, 0, 1, 0, 1));
    assert!(fs::read(archive.index()).unwrap() == before);
}

#[test]
fn a_file_that_is_asked_for_beside_its_directory_is_not_missing() {
    let mut archive = Archive::new();
    archive.write("a/1", 1);
    archive.write("a/2", 2);
    archive.options.vanished = Vanished::Prune;
    let paths = [archive.root(), archive.path("a/1")];
    assert_eq!(archive.scan_paths(&paths).numbers(), (2, 2, 0, 0, 0, 0));
    let told = archive.scan_paths(&paths);
    assert_eq!(told.numbers(), (2, 0, 0, 2, 0, 0));
    assert_eq!((told.summary.missing, told.summary.removed), (0, 0));
    assert_eq!(archive.instances().len(), 2);
}

#[test]
fn what_has_been_read_and_would_be_lost_with_the_process_is_bounded() {
    /// Maximum number of files on their way. One transaction is open, and more files wait for the
    /// next one. Readers hand over [`UNIT_FILES`] each, and twelve more units wait.
    const MOST: u64 = 8192 + 4096 + (JOBS as u64 + 12 + 2) * UNIT_FILES as u64;
    const JOBS: usize = 4;
    const FILES: u64 = 30_000;
    let mut archive = Archive::new();
    archive.options.jobs = Jobs::fixed(JOBS);
    for directory in 0..30 {
        for number in 0..FILES as u32 / 30 {
            archive.write(format!("d{directory}/{number}"), directory * 1000 + number);
        }
    }
    drop(Writer::open(archive.index(), WriterOptions::default()).unwrap());
    #[expect(clippy::disallowed_methods, reason = "another program that uses the index")]
    let [other, committed] = [(); 2].map(|()| rusqlite::Connection::open(archive.index()).unwrap());
    // Another program keeps the index to itself at first, so that all that can wait does.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (enough, has_enough) = std::sync::mpsc::channel();
    let counted = Arc::new(Mutex::new((0, 0, committed)));
    let count = Arc::clone(&counted);
    let look = Arc::new(move || {
        let (looked_at, most, committed) = &mut *count.lock().unwrap();
        *looked_at += 1;
        if *looked_at % 500 == 0 {
            let sql = "SELECT ifnull(sum(instance_count), 0) FROM study";
            let safe: i64 = committed.query_row(sql, [], |row| row.get(0)).unwrap();
            *most = u64::max(*most, *looked_at - safe.cast_unsigned());
        }
        if *looked_at == 6000 {
            enough.send(()).unwrap();
        }
    });
    for directory in 0..30 {
        for number in 0..FILES / 30 {
            let look = Arc::clone(&look);
            fail::cfg_callback(archive.fail_point(&format!("d{directory}/{number}")), move || look()).unwrap();
        }
    }
    let released = std::thread::spawn(move || {
        has_enough.recv().unwrap();
        other.execute_batch("ROLLBACK").unwrap();
    });
    assert_eq!(archive.scan().summary.indexed, FILES);
    released.join().unwrap();
    let (looked_at, most, _) = &*counted.lock().unwrap();
    assert_eq!(*looked_at, FILES);
    assert!((6000..=MOST).contains(most), "{most} of at most {MOST}");
}
