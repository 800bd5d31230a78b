//! Files on a disk that is not mounted are not treated as deleted.

use std::fs;

use super::*;
use crate::util::disks::Mount;

/// Builds an archive with `files` files in two directories of `disk/`, and one file beside them.
fn with_disk(files: u32) -> Archive {
    let mut archive = Archive::new();
    archive.options.vanished = Vanished::Prune;
    archive.write("here/0", 0);
    for number in 1..=files {
        archive.write(format!("disk/{}/{number}", number % 2), number);
    }
    archive.scan();
    archive
}

fn empty(directory: &Path) {
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(directory).unwrap();
}

/// The availability of all instances, as queries answer it, sorted.
pub(super) fn availability(archive: &Archive) -> Vec<String> {
    let request = crate::db::request(QueryRetrieveLevel::Image, &[AttributeId::InstanceAvailability]);
    let mut found: Vec<String> = crate::db::find(archive.index(), &request).into_iter().flatten().collect();
    found.sort();
    found
}

fn not_pruned(told: &Told) -> Vec<&str> {
    told.events.iter().filter(|event| event.starts_with("not-pruned")).map(String::as_str).collect()
}

#[test]
fn what_is_no_file_any_more_is_gone() {
    let mut archive = Archive::new();
    archive.options.vanished = Vanished::Prune;
    for number in 1..=5 {
        archive.write(number.to_string(), number);
    }
    archive.scan();
    for number in 1..=4 {
        fs::remove_file(archive.path(number.to_string())).unwrap();
    }
    fs::create_dir(archive.path("directory")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(archive.path("1")).unwrap();
    std::os::unix::fs::symlink("directory", archive.path("2")).unwrap();
    std::os::unix::fs::symlink("/dev/null", archive.path("3")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, archive.path("4"), rustix::fs::Mode::RWXU).unwrap();
    archive.scan();
    assert_eq!(archive.instances().len(), 1);
    assert_eq!(archive.scan().summary.missing, 0);
}

/// Trees of git-annex consist of links to files that may lie on a disk of their own.
#[test]
fn links_to_a_disk_that_is_away_keep_their_entries() {
    for vanished in [Vanished::Keep, Vanished::Prune] {
        let mut archive = Archive::new();
        archive.options.vanished = vanished;
        let store = tempfile::tempdir().unwrap();
        let (there, away) = (store.path().join("there"), store.path().join("away"));
        fs::create_dir(&there).unwrap();
        for number in 1..=3 {
            let name = number.to_string();
            archive.write(&name, number);
            fs::rename(archive.path(&name), there.join(&name)).unwrap();
            std::os::unix::fs::symlink(there.join(&name), archive.path(&name)).unwrap();
        }
        archive.scan();
        let before = archive.instances();
        fs::rename(&there, &away).unwrap();
        for _ in 0..2 {
            let told = archive.scan();
            assert_eq!(told.events, ["1", "2", "3"].map(|name| format!("failed {name} broken-link")));
            assert_eq!(archive.instances(), before);
        }
        fs::rename(&away, &there).unwrap();
        let told = archive.scan();
        assert!(told.events.is_empty() && told.summary.unchanged == 3, "{:?}", told.events);
        // A link that is gone is a file that is gone.
        fs::remove_file(archive.path("1")).unwrap();
        archive.scan();
        assert_eq!(archive.instances().len(), if vanished == Vanished::Keep { 3 } else { 2 });
    }
}

#[test]
fn nothing_is_dropped_below_a_root_that_is_empty_unless_that_is_meant() {
    let mut archive = with_disk(3);
    empty(&archive.root());
    for _ in 0..2 {
        let told = archive.scan();
        assert_eq!(not_pruned(&told), ["not-pruned  empty 4"]);
        assert_eq!((told.summary.removed, told.summary.missing, told.summary.not_pruned), (0, 4, 4));
        assert_eq!(archive.instances().len(), 4);
        assert_eq!(availability(&archive), ["UNAVAILABLE"; 4], "kept, and nobody can have it");
    }
    archive.options.vanished = Vanished::Keep;
    let told = archive.scan();
    assert_eq!((told.events.len(), told.summary.missing, told.summary.not_pruned), (0, 4, 0));
    archive.options.vanished = Vanished::PruneEmptied;
    let told = archive.scan();
    assert_eq!((told.events.len(), told.summary.removed, told.summary.missing), (0, 4, 0));
    assert!(archive.instances().is_empty());
    archive.assert_failures(&[]);
}

#[test]
fn what_lies_below_an_emptied_directory_stays_and_the_rest_is_dropped() {
    let mut archive = with_disk(12);
    empty(&archive.path("disk"));
    archive.write("here/new", 99);
    fs::remove_file(archive.path("here/0")).unwrap();
    let told = archive.scan();
    assert_eq!(not_pruned(&told), ["not-pruned disk empty 12"]);
    assert_eq!((told.summary.removed, told.summary.missing), (1, 12));
    assert_eq!(archive.instances().len(), 13);
    archive.assert_failures(&[]);
    // The disk is back, with all but one of its files.
    for number in 1..12 {
        archive.write(format!("disk/{}/{number}", number % 2), number);
    }
    let told = archive.scan();
    assert_eq!((not_pruned(&told).len(), told.summary.removed, told.summary.missing), (0, 1, 0));
    // One that was emptied and is meant to be.
    empty(&archive.path("disk"));
    archive.options.vanished = Vanished::PruneEmptied;
    assert_eq!(archive.scan().summary.removed, 11);
    assert_eq!(archive.instances().len(), 1);
}

#[test]
fn a_directory_that_was_removed_with_its_files_is_no_disk() {
    let archive = with_disk(12);
    fs::remove_dir_all(archive.path("disk")).unwrap();
    let told = archive.scan();
    assert_eq!((not_pruned(&told).len(), told.summary.removed), (0, 12));
    assert_eq!(archive.instances().len(), 1);
}

#[test]
fn an_inbox_from_which_everything_moved_on_is_no_disk() {
    let archive = with_disk(12);
    fs::create_dir(archive.path("archive")).unwrap();
    for inside in ["0", "1"] {
        fs::rename(archive.path("disk").join(inside), archive.path("archive").join(inside)).unwrap();
    }
    let dry = {
        let known = Reader::open(archive.index()).ok();
        archive.scan_into(ScanTarget::DryRun { known }, &[archive.root()], &Stop::default(), &mut |_| {})
    };
    let told = archive.scan();
    assert_eq!((not_pruned(&told).len(), told.summary.removed, told.summary.missing), (0, 12, 0));
    assert_eq!((dry.events, dry.summary.removed), (told.events, 12));
    assert_eq!(archive.instances()["1.2.1.1.4"], [PathBuf::from("archive/0/4")]);
    archive.assert_failures(&[]);
}

#[test]
fn another_disk_in_the_place_of_the_root_is_no_reason_to_drop_the_first() {
    let mut archive = with_disk(2);
    empty(&archive.root());
    archive.write("other/9", 9);
    archive.write("other/8", 8);
    // Once something of the other disk is known, that is no proof that it is the former one.
    for _ in 0..3 {
        let told = archive.scan();
        assert_eq!(not_pruned(&told), ["not-pruned  nothing-known 3"]);
        assert_eq!((told.summary.removed, archive.instances().len()), (0, 5));
    }
    // A part of it, as when a watch looks.
    fs::remove_file(archive.path("other/8")).unwrap();
    assert_eq!(archive.scan_paths(&[archive.path("other")]).summary.removed, 0);
    archive.options.vanished = Vanished::PruneEmptied;
    assert_eq!(archive.scan().summary.removed, 4);
    archive.options.vanished = Vanished::Prune;
    archive.write("other/7", 7);
    archive.scan();
    fs::remove_file(archive.path("other/9")).unwrap();
    let told = archive.scan();
    assert_eq!((not_pruned(&told).len(), told.summary.removed), (0, 1), "nothing is doubted any more");
    archive.assert_failures(&[]);
}

#[test]
fn a_disk_that_is_back_has_its_files_again_and_those_of_the_other_one_stay() {
    for (first, is_mounted) in
        [(Vanished::Prune, true), (Vanished::Keep, true), (Vanished::Prune, false), (Vanished::Keep, false)]
    {
        let case = format!("{first:?}, mounted: {is_mounted}");
        let mut archive = Archive::new();
        let disk = archive.path("disk");
        let put = |archive: &Archive, numbers: std::ops::Range<u32>| {
            let mounted = if is_mounted { Some(Mount::tmpfs(&disk, "3m")?) } else { None };
            numbers.for_each(|number| archive.write(format!("disk/{}/{number}", number / 10), number));
            Some(mounted)
        };
        let remove = |mounted: Option<Mount>| {
            drop(mounted);
            empty(&disk);
        };
        let scan = |archive: &Archive| archive.scan_paths(&[archive.path("disk")]);
        let Some(one) = put(&archive, 10..14) else { return };
        let times: Vec<_> =
            (10..14).map(|it| archive.path(format!("disk/1/{it}")).metadata().unwrap().modified()).collect();
        archive.options.vanished = first;
        scan(&archive);
        remove(one);
        let Some(other) = put(&archive, 20..22) else { return };
        scan(&archive);
        archive.options.vanished = Vanished::Prune;
        for _ in 0..2 {
            let told = scan(&archive);
            assert_eq!(
                (not_pruned(&told), told.summary.removed),
                (vec!["not-pruned disk nothing-known 4"], 0),
                "{case}"
            );
        }
        remove(other);
        let Some(one) = put(&archive, 10..14) else { return };
        for (number, time) in (10..14).zip(times) {
            let file = fs::File::options().write(true).open(archive.path(format!("disk/1/{number}"))).unwrap();
            file.set_modified(time.unwrap()).unwrap();
        }
        for _ in 0..2 {
            let told = scan(&archive);
            assert_eq!(
                (not_pruned(&told), told.summary.removed),
                (vec!["not-pruned disk nothing-known 2"], 0),
                "{case}"
            );
            assert_eq!(availability(&archive)[..4], ["ONLINE"; 4], "{case}");
        }
        archive.options.vanished = Vanished::PruneEmptied;
        assert_eq!((scan(&archive).summary.removed, archive.instances().len()), (2, 4), "{case}");
        archive.assert_failures(&[]);
        drop(one);
    }
}

#[test]
fn a_missing_root_is_an_error_unless_pruning_is_asked_for() {
    let mut archive = with_disk(3);
    fs::rename(archive.path("disk/1/1"), archive.path("1")).unwrap();
    archive.scan();
    let paths = [archive.path("disk"), archive.path("1")];
    fs::remove_dir_all(&paths[0]).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    let error = Roots::find(&paths, &archive.options).unwrap_err().to_string();
    assert!(error.contains("it does not exist"), "{error}");
    archive.options.vanished = Vanished::PruneEmptied;
    let told = archive.scan_paths(&paths);
    assert_eq!((told.numbers(), told.summary.removed), ((0, 0, 0, 0, 0, 0), 3));
    assert_eq!(archive.instances().keys().collect::<Vec<_>>(), ["1.2.1.1.0"]);
    archive.assert_failures(&[]);
}

#[test]
fn what_lies_on_a_disk_that_is_not_mounted_stays() {
    let mut archive = Archive::new();
    archive.options.vanished = Vanished::Prune;
    archive.write("here/0", 0);
    let Some(mounted) = Mount::tmpfs(&archive.path("disk"), "64m") else { return };
    archive.write("disk/1", 1);
    archive.scan();
    let before = fs::read(archive.index()).unwrap();
    archive.scan();
    assert!(fs::read(archive.index()).unwrap() == before, "a second scan wrote something");
    drop(mounted);
    // Something was left in the directory itself: it is not even empty, and knows a name.
    archive.write("disk/1.old", 2);
    let told = archive.scan();
    assert_eq!(not_pruned(&told), ["not-pruned disk not-mounted 1"]);
    for vanished in [Vanished::Keep, Vanished::Prune] {
        archive.options.vanished = vanished;
        let told = archive.scan();
        assert_eq!((told.summary.missing, told.summary.removed), (1, 0));
        assert_eq!(availability(&archive), ["OFFLINE", "OFFLINE", "ONLINE"], "{vanished:?}: the disk may come back");
    }
    // Nor is its being gone, as with an automounter.
    fs::remove_dir_all(archive.path("disk")).unwrap();
    assert_eq!(not_pruned(&archive.scan()), ["not-pruned disk not-mounted 2"]);
    // A root below the mount point.
    archive.write("disk/1", 3);
    let told = archive.scan_paths(&[archive.path("disk")]);
    assert_eq!(not_pruned(&told), ["not-pruned disk not-mounted 1"]);
    archive.options.vanished = Vanished::PruneEmptied;
    assert_eq!(archive.scan().summary.removed, 1);
    archive.options.vanished = Vanished::Prune;
    fs::remove_dir_all(archive.path("disk")).unwrap();
    let told = archive.scan();
    assert_eq!((not_pruned(&told).len(), told.summary.removed), (0, 1), "it is no mount point any more");
    archive.assert_failures(&[]);
}

/// A directory that does something when a scan lists it, until this is dropped.
struct ListedPoint(String);

impl ListedPoint {
    fn new(archive: &Archive, directory: &str, act: impl Fn() + Send + Sync + 'static) -> Self {
        let point = archive.fail_point(directory);
        fail::cfg_callback(&point, act).unwrap();
        Self(point)
    }
}

impl Drop for ListedPoint {
    fn drop(&mut self) {
        fail::remove(&self.0);
    }
}

/// An archive on a disk. A scan has noted one of its files as missing, and it is back.
fn with_file_that_is_back(archive: &mut Archive) {
    archive.options.jobs = Jobs::fixed(1);
    archive.write("here/9", 9);
    archive.write("here/copy", 1);
    for number in 1..=6 {
        archive.write(format!("disk/{}/{number}", number % 3), number);
    }
    archive.scan();
    let away = archive.directory.path().join("5");
    fs::copy(archive.path("disk/2/5"), &away).unwrap();
    fs::remove_file(archive.path("disk/2/5")).unwrap();
    assert_eq!(archive.scan().summary.missing, 1);
    fs::copy(away, archive.path("disk/2/5")).unwrap();
}

#[test]
fn a_disk_that_goes_away_during_the_scan_loses_nothing() {
    for (vanished, root) in [
        (Vanished::Keep, ""),
        (Vanished::Prune, ""),
        (Vanished::PruneEmptied, ""),
        (Vanished::Prune, "disk"),
        (Vanished::PruneEmptied, "disk/1"),
    ] {
        let mut archive = Archive::new();
        let disk = archive.path("disk");
        let Some(mounted) = Mount::tmpfs(&disk, "64m") else { return };
        with_file_that_is_back(&mut archive);
        let before = archive.instances();
        archive.options.vanished = vanished;
        let first = if root == "disk/1" { root } else { "disk/0" };
        let away = ListedPoint::new(&archive, first, move || {
            std::process::Command::new("umount").arg("-l").arg(&disk).status().unwrap();
        });
        let told = archive.scan_paths(&[archive.path(root)]);
        drop(away);
        assert_eq!((told.summary.removed, archive.instances()), (0, before), "{vanished:?} {root} {told:?}");
        // The scan unmounted it.
        std::mem::forget(mounted);
        let states = availability(&archive);
        assert!(states.iter().filter(|state| *state == "OFFLINE").count() >= 4, "{vanished:?} {root} {states:?}");
    }
}

#[test]
fn a_root_that_becomes_another_one_during_the_scan_loses_nothing() {
    for vanished in [Vanished::Keep, Vanished::Prune, Vanished::PruneEmptied] {
        let mut archive = Archive::new();
        with_file_that_is_back(&mut archive);
        let before = archive.instances();
        archive.options.vanished = vanished;
        let (disk, other) = (archive.path("disk"), archive.directory.path().join("other"));
        let mark = format!("file system {}", disk.display());
        let (gone, point) = (disk.clone(), mark.clone());
        let away = ListedPoint::new(&archive, "disk/0", move || {
            fs::rename(&gone, &other).unwrap();
            fs::create_dir(&gone).unwrap();
            fail::cfg(&point, "return").unwrap();
        });
        let told = archive.scan_paths(&[disk]);
        drop(away);
        fail::remove(mark);
        assert_eq!((told.summary.removed, archive.instances()), (0, before), "{vanished:?} {told:?}");
        assert_eq!(availability(&archive).iter().filter(|state| *state == "UNAVAILABLE").count(), 1, "{vanished:?}");
    }
}

#[test]
fn a_disk_that_is_not_mounted_keeps_the_copies_that_it_holds() {
    let mut archive = Archive::new();
    let Some(mounted) = Mount::tmpfs(&archive.path("disk"), "64m") else { return };
    archive.write("disk/1", 1);
    archive.write("here/1", 1);
    archive.scan();
    let before = archive.instances();
    assert_eq!(before["1.2.1.1.1"].len(), 2);
    drop(mounted);
    for vanished in [Vanished::Keep, Vanished::Prune] {
        archive.options.vanished = vanished;
        let told = archive.scan();
        assert_eq!((told.summary.removed, told.summary.missing, archive.instances()), (0, 0, before.clone()));
    }
}
