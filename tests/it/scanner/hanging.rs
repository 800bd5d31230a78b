//! A file or directory that does not answer costs one failure, and the scan goes on.

use super::*;

/// Files and directories that hang until this is dropped.
struct Hanging(Vec<String>);

impl Hanging {
    fn new(archive: &Archive, paths: &[&str]) -> Self {
        let points: Vec<_> = paths.iter().map(|path| archive.fail_point(path)).collect();
        for point in &points {
            fail::cfg(point, "pause").unwrap();
        }
        Self(points)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        for point in &self.0 {
            fail::remove(point);
        }
    }
}

fn with_files(jobs: usize) -> Archive {
    let mut archive = Archive::new();
    archive.options.jobs = Jobs::fixed(jobs);
    archive.options.read_timeout = Duration::from_millis(200);
    for number in 0..30 {
        archive.write(format!("d{}/{number:02}", number / 10), number);
    }
    archive
}

#[test]
fn a_file_that_hangs_is_named_and_all_others_are_read_also_by_one_reader() {
    for jobs in [1, 3] {
        let archive = with_files(jobs);
        let hanging = Hanging::new(&archive, &["d0/04", "d1/17"]);
        let told = archive.scan();
        let failed: Vec<_> = told.events.iter().filter(|event| event.starts_with("failed")).collect();
        assert_eq!(failed, ["failed d0/04 timed-out", "failed d1/17 timed-out"]);
        let mut hangs: Vec<_> = told.events.iter().filter(|event| event.starts_with("hangs")).collect();
        hangs.sort();
        assert_eq!(hangs, ["hangs d0/04", "hangs d1/17"]);
        assert_eq!(told.numbers(), (30, 28, 0, 0, 0, 2));
        archive.assert_failures(&["d0/04 timed-out", "d1/17 timed-out"]);
        // It answers again.
        drop(hanging);
        assert_eq!(archive.scan().numbers(), (30, 2, 0, 28, 0, 0));
        archive.assert_failures(&[]);
    }
}

#[test]
fn what_the_index_has_of_a_file_that_hangs_stays() {
    let mut archive = with_files(2);
    archive.options.vanished = Vanished::Prune;
    archive.scan();
    let hanging = Hanging::new(&archive, &["d0/04", "d1"]);
    let told = archive.scan();
    // A file, and a directory with ten.
    assert_eq!(told.numbers(), (21, 0, 0, 19, 0, 2));
    assert!(told.events.contains(&"failed d0/04 timed-out".to_owned()), "{:?}", told.events);
    assert!(told.events.contains(&"failed d1 timed-out".to_owned()), "{:?}", told.events);
    assert_eq!((told.summary.removed, archive.instances().len()), (0, 30));
    drop(hanging);
    assert_eq!(archive.scan().numbers(), (30, 0, 0, 30, 0, 0));
    archive.assert_failures(&[]);
}

#[test]
fn a_server_that_stops_all_of_many_readers_costs_one_file_of_each() {
    let mut archive = with_files(40);
    archive.options.read_timeout = Duration::from_millis(500);
    let paths: Vec<String> = (100..180).map(|number| format!("hangs/{number}/1")).collect();
    for (number, path) in (100..).zip(&paths) {
        archive.write(path, number);
    }
    let hanging = Hanging::new(&archive, &paths.iter().map(String::as_str).collect::<Vec<_>>());
    let told = archive.scan();
    assert_eq!(told.numbers(), (110, 30, 0, 0, 0, 80));
    // It answers again.
    drop(hanging);
    assert_eq!(archive.scan().numbers(), (110, 80, 0, 30, 0, 0));
    archive.assert_failures(&[]);
}

#[test]
fn storage_that_is_gone_ends_the_scan_with_what_was_done() {
    let mut archive = with_files(4);
    for number in 100..200 {
        archive.write(format!("99/{number}"), number);
    }
    archive.options.read_timeout = Duration::from_millis(250);
    let paths: Vec<String> = (100..200).map(|number| format!("99/{number}")).collect();
    let _hanging = Hanging::new(&archive, &paths.iter().map(String::as_str).collect::<Vec<_>>());
    let writer = Writer::open(archive.index(), WriterOptions::default()).unwrap();
    let handle = writer.handle();
    let target = ScanTarget::Index { known: Reader::open(archive.index()).unwrap(), writer: &handle };
    let roots = Roots::find(&[archive.root()], &archive.options).unwrap();
    let error = scan(&roots, &archive.options, target, &Stop::default(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    drop(handle);
    writer.close().unwrap();
    assert_eq!(archive.instances().len(), 30);
}
