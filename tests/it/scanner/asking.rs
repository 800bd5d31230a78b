//! Options of a scan: all again, a part, another order, slowly.

use std::fs;
use std::time::{Duration, SystemTime};

use super::*;

fn dump(archive: &Archive) -> String {
    let dump = std::process::Command::new("sqlite3")
        .arg(archive.index())
        .arg(".dump")
        .output()
        .expect("the sqlite3 shell is installed by scripts/peers");
    assert!(dump.status.success());
    String::from_utf8(dump.stdout).unwrap()
}

#[test]
fn all_again_gives_the_same_index() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let paths = [fixtures.join("real"), fixtures.join("archive")];
    let mut archive = Archive::new();
    let first = archive.scan_paths(&paths);
    let before = dump(&archive);
    archive.options.full = true;
    let told = archive.scan_paths(&paths);
    let (found, indexed, _, _, skipped, failed) = first.numbers();
    assert_eq!(told.numbers(), (found, 0, 0, indexed, skipped, failed));
    assert_eq!(told.summary.reread, indexed);
    assert!(told.summary.bytes > 0);
    let after = dump(&archive);
    let differences: Vec<_> = before.lines().zip(after.lines()).filter(|(one, other)| one != other).collect();
    assert_eq!(differences, []);
}

#[test]
fn all_again_corrects_what_changed_in_secret() {
    let mut archive = Archive::new();
    for number in 1..5 {
        archive.write(format!("a/{number}"), number);
    }
    archive.scan();
    let path = archive.path("a/2");
    let time = path.metadata().unwrap().modified().unwrap();
    let size = path.metadata().unwrap().len();
    archive.write("a/2", 9);
    assert_eq!(path.metadata().unwrap().len(), size);
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(archive.scan().numbers(), (4, 0, 0, 4, 0, 0), "size and time do not tell");
    archive.options.full = true;
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.reread), ((4, 0, 1, 3, 0, 0), 3));
    assert_eq!(archive.instances().keys().collect::<Vec<_>>(), ["1.2.1.1.1", "1.2.1.1.3", "1.2.1.1.4", "1.2.1.1.9"]);
    archive.assert_failures(&[]);
}

#[test]
fn what_is_excluded_is_counted_and_not_looked_at_and_what_the_index_knows_of_it_stays() {
    let mut archive = Archive::new();
    archive.options.vanished = Vanished::Prune;
    archive.write("a/1.dcm", 1);
    archive.write("a/2.img", 2);
    archive.write("a/sub/3.dcm", 3);
    archive.write("b/4.dcm", 4);
    archive.scan();
    archive.options.filter = Filter::new(&["*.dcm"], &["b", "a/sub/**"]).unwrap();
    let told = archive.scan();
    assert_eq!(told.events, ["skipped b excluded", "skipped a/2.img excluded", "skipped a/sub/3.dcm excluded"]);
    assert_eq!(told.numbers(), (4, 0, 0, 1, 3, 0));
    // Gone or not: nobody was to look there.
    fs::remove_file(archive.path("a/2.img")).unwrap();
    fs::remove_dir_all(archive.path("b")).unwrap();
    fs::remove_dir_all(archive.path("a/sub")).unwrap();
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.removed, told.summary.missing), ((1, 0, 0, 1, 0, 0), 0, 0));
    assert_eq!(archive.instances().len(), 4);
    archive.options.filter = Filter::default();
    assert_eq!(archive.scan().summary.removed, 3);
}

#[test]
fn the_newest_directories_come_first_when_asked() {
    let mut archive = Archive::new();
    for (number, inside) in ["a/x", "b/y", "c/z"].into_iter().enumerate() {
        archive.write(format!("{inside}/1"), u32::try_from(number).unwrap());
        fs::write(archive.path(inside).join("note"), "no object").unwrap();
    }
    for (seconds, inside) in [(3, "a"), (9, "b"), (5, "c")] {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds);
        fs::File::open(archive.path(inside)).unwrap().set_modified(time).unwrap();
    }
    archive.options.order = WalkOrder::NewestFirst;
    let told = archive.scan();
    assert_eq!(told.events, ["b/y", "c/z", "a/x"].map(|inside| format!("failed {inside}/note not-dicom")));
    assert_eq!(archive.instances().len(), 3);
    archive.assert_failures(&["a/x/note not-dicom", "b/y/note not-dicom", "c/z/note not-dicom"]);
}

#[test]
fn a_scan_that_is_held_back_ends_the_same_and_can_be_stopped() {
    let mut archive = Archive::new();
    for number in 0..40 {
        archive.write(format!("{number}"), number);
    }
    archive.options.throttle = "400/s,1MB/s".parse().unwrap();
    assert_eq!(archive.scan().numbers(), (40, 40, 0, 0, 0, 0));
    // Unchanged files cost nothing: at this rate they would take the rest of the day.
    archive.options.throttle = Rate { files: None, bytes: Some(1) };
    assert_eq!(archive.scan().numbers(), (40, 0, 0, 40, 0, 0));
    archive.options.full = true;
    let stop = Stop::default();
    // Whoever reads a file next would wait for the rest of the day.
    for number in 0..40 {
        let asked = stop.clone();
        fail::cfg_callback(archive.fail_point(&format!("{number}")), move || asked.ask()).unwrap();
    }
    let told = archive.scan_until(&[archive.root()], &stop, |_| {});
    assert!(told.summary.interrupted && told.summary.reread < 40, "{:?}", told.summary);
}
