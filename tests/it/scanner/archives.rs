//! Members of zip, tar and gzip files.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use dcmdex::archive::limits::{MAX_NAME, MAX_NESTING};
use dcmdex::db::Search;
use dcmdex::model::location::Place;
use dcmdex::store;
use proptest::prelude::*;

use super::pruning::availability;
use super::*;
use crate::util::archives::{End, Keep, Zip, gzip, put_checksum, tar, tar_member};
use crate::util::peers;

const KEEPS: [Keep; 4] = [Keep::Stored, Keep::Deflated, Keep::Streamed, Keep::Zip64];

/// Returns the bytes of instance `1.2.1.1.<number>`. Its pixel data have `pixels` bytes.
fn object(number: u32, pixels: usize) -> Vec<u8> {
    let mut bytes = objects::file("P1", "1.2.1", "1.2.1.1", &format!("1.2.1.1.{number}"));
    if pixels > 0 {
        bytes.extend_from_slice(&[0xE0, 0x7F, 0x10, 0, b'O', b'B', 0, 0]);
        bytes.extend_from_slice(&u32::try_from(pixels).unwrap().to_le_bytes());
        let mut state = number;
        bytes.extend((0..pixels).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 26) as u8
        }));
    }
    bytes
}

// RFC 1952 2.2, and gzip(1) on zeros at the end.
#[test]
fn a_gzip_file_of_several_members_or_with_zeros_at_its_end_has_a_whole_object() {
    let archive = Archive::new();
    let objects: Vec<_> = (1..=4).map(|number| object(number, 20_000)).collect();
    let (first, second) = objects[0].split_at(12_000);
    archive.put("several.dcm.gz", &[gzip(first), gzip(second)].concat());
    archive.put("blocks.dcm.gz", &[gzip(&objects[1]), gzip(b"")].concat());
    archive.put("zeros.dcm.gz", &[gzip(&objects[2]), vec![0; 100]].concat());
    archive.put("cut.dcm.gz", &gzip(&objects[3][..15_000]));
    archive.scan();
    let status = Reader::open(archive.index()).unwrap().status().unwrap();
    assert_eq!((status.instances, status.files_with_faults), (4, 1));
    for (number, object) in (1..=3).zip(&objects) {
        assert!(archive.bytes_of(number) == *object, "{number}");
    }
}

// RFC 1952 2.3.1: the size at the end is that of the last member.
#[test]
fn an_object_in_a_gzip_file_that_does_not_state_its_size_is_the_same_as_in_a_plain_file() {
    let object = object(1, 20_000);
    let (first, second) = object.split_at(18_000);
    let whole = gzip(&object);
    let cases = [
        ("several.dcm.gz", [gzip(first), gzip(second)].concat()),
        ("blocks.dcm.gz", [whole.clone(), gzip(b"")].concat()),
        ("zeros.dcm.gz", [whole.clone(), vec![0; 512]].concat()),
        ("x.tgz", gzip(&tar(&[("1.dcm.gz", &whole)]))),
        ("x.tar", tar(&[("1.dcm.gz", &[gzip(first), gzip(second)].concat())])),
        ("x.zip", Zip::default().with("1.dcm.gz", &whole, Keep::Deflated).finish()),
    ];
    for (name, bytes) in cases {
        let archive = Archive::new();
        archive.put("1.dcm", &object);
        archive.put(name, &bytes);
        let told = archive.scan();
        assert_eq!(told.numbers(), (2, 2, 0, 0, 0, 0), "{name} {told:?}");
        assert_eq!((told.summary.copies, told.summary.conflicts), (1, 0), "{name}");
        let locations = Reader::open(archive.index()).unwrap().locations("1.2.1.1.1").unwrap();
        let sizes: Vec<_> = locations.iter().map(|location| location.size).collect();
        assert_eq!(sizes, [object.len() as u64; 2], "{name}");
    }
}

// RFC 1952 2.2: nothing may follow the members.
#[test]
fn a_gzip_file_that_is_cut_or_followed_by_something_else_is_a_failure_that_says_so() {
    let archive = Archive::new();
    let whole = gzip(&object(1, 20_000));
    archive.put("cut.dcm.gz", &whole[..whole.len() - 6]);
    archive.put("more.dcm.gz", &[whole, b"no gzip".to_vec()].concat());
    assert_eq!(archive.scan().numbers(), (2, 0, 0, 0, 0, 2));
    archive.assert_failures(&["cut.dcm.gz archive-truncated", "more.dcm.gz archive-damaged"]);
    let mut details = Vec::new();
    let mut reader = Reader::open(archive.index()).unwrap();
    reader
        .failures(|failure| {
            details.push(failure.detail.clone());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(details[1].contains("something else follows"), "{details:?}");
}

/// Sets the time of a file to `seconds` after 2001.
fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(978_307_200 + seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

impl Archive {
    fn put(&self, inside: &str, bytes: &[u8]) {
        fs::write(self.path(inside), bytes).unwrap();
    }

    /// Returns the paths of all instances, sorted.
    fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> =
            self.instances().into_values().flatten().map(|path| path.display().to_string()).collect();
        paths.sort();
        paths
    }

    /// Reads the bytes of an instance through its first location.
    fn bytes_of(&self, number: u32) -> Vec<u8> {
        let location = &Reader::open(self.index()).unwrap().locations(&format!("1.2.1.1.{number}")).unwrap()[0];
        let mut object = store::open(location).unwrap().unwrap();
        let length = object.length();
        let mut bytes = Vec::new();
        object.read_to_end(&mut bytes).unwrap();
        assert!(length.is_none_or(|length| length == bytes.len() as u64));
        bytes
    }
}

#[test]
fn members_of_a_zip_are_instances_that_can_be_read_where_they_lie() {
    let archive = Archive::new();
    let mut zip = Zip::default();
    for (number, keep) in (1..).zip(KEEPS) {
        zip.add(format!("a/b/{number}.dcm").as_bytes(), &object(number, 40_000), keep);
    }
    archive.put("x.zip", &zip.finish());
    let told = archive.scan();
    assert_eq!(told.numbers(), (4, 4, 0, 0, 0, 0), "{told:?}");
    assert_eq!((told.summary.archives, told.summary.copies), (1, 0));
    assert_eq!(archive.paths(), ["x.zip!/a/b/1.dcm", "x.zip!/a/b/2.dcm", "x.zip!/a/b/3.dcm", "x.zip!/a/b/4.dcm"]);
    for number in 1..=4 {
        assert!(archive.bytes_of(number) == object(number, 40_000), "{number}");
    }
    archive.assert_failures(&[]);
}

#[test]
fn members_of_a_zip_that_unpacks_itself_are_instances_and_can_be_read() {
    let archive = Archive::new();
    let zip = Zip::default().with("1.dcm", &object(1, 3000), Keep::Deflated).with("2.dcm", &object(2, 0), Keep::Stored);
    archive.put("X.ZIP", &[b"MZ and the rest of the program".repeat(100), zip.finish()].concat());
    assert_eq!(archive.scan().numbers(), (2, 2, 0, 0, 0, 0));
    for (number, pixels) in [(1, 3000), (2, 0)] {
        assert!(archive.bytes_of(number) == object(number, pixels), "{number}");
    }
}

#[test]
fn what_a_member_is_called_does_not_matter_and_what_it_holds_does() {
    let archive = Archive::new();
    let zip = Zip::default()
        .with("folder/", b"", Keep::Stored)
        .with("folder/no extension", &object(1, 0), Keep::Stored)
        .with("folder/readme.txt", b"not an object", Keep::Deflated)
        .with("__MACOSX/folder/._1", b"litter", Keep::Stored)
        .with("empty", b"", Keep::Stored);
    archive.put("called anything", &zip.finish());
    let told = archive.scan();
    assert_eq!(told.numbers(), (4, 1, 0, 0, 1, 2));
    assert_eq!(
        told.events,
        [
            "skipped called anything!/__MACOSX/folder/._1 macos-litter",
            "failed called anything!/folder/readme.txt not-dicom",
            "failed called anything!/empty empty",
        ]
    );
    archive.assert_failures(&["called anything!/empty empty", "called anything!/folder/readme.txt not-dicom"]);
}

#[test]
fn a_preamble_that_looks_like_an_archive_does_not_make_one() {
    let archive = Archive::new();
    for (number, start) in [&b"PK\x03\x04"[..], b"\x1f\x8b\x08", b"II*\0"].into_iter().enumerate() {
        let mut bytes = object(u32::try_from(number).unwrap(), 0);
        bytes[..start.len()].copy_from_slice(start);
        archive.put(&number.to_string(), &bytes);
    }
    let mut like_tar = object(9, 600);
    like_tar[100..108].copy_from_slice(b"0000644\0");
    archive.put("9", &like_tar);
    assert_eq!(archive.scan().numbers(), (4, 4, 0, 0, 0, 0));
    assert_eq!(archive.paths(), ["0", "1", "2", "9"]);
}

#[test]
fn tar_and_compressed_tar_and_compressed_files() {
    let archive = Archive::new();
    let long = format!("{}/4.dcm", "d".repeat(150));
    let mut bytes = tar_member("a/1.dcm", b'0', &object(1, 5000));
    bytes.extend(tar_member("././@LongLink", b'L', format!("{long}\0").as_bytes()));
    bytes.extend(tar_member(&long, b'0', &object(2, 0)));
    bytes.extend(tar_member("pax", b'x', b"32 path=folder/named by pax.dcm\n"));
    bytes.extend(tar_member("short", b'0', &object(3, 0)));
    bytes.extend(tar_member("a", b'5', b""));
    bytes.extend(tar_member("link", b'2', b""));
    bytes.extend(tar_member("fifo", b'6', b""));
    bytes.extend(tar_member("holes", b'S', &object(4, 0)));
    bytes.extend([0; 1024]);
    archive.put("x.tar", &bytes);
    let told = archive.scan();
    assert_eq!(told.numbers(), (6, 3, 0, 0, 2, 1), "{told:?}");
    let paths = ["x.tar!/a/1.dcm".to_owned(), format!("x.tar!/{long}"), "x.tar!/folder/named by pax.dcm".to_owned()];
    assert_eq!(archive.paths(), paths);
    archive.assert_failures(&["x.tar!/holes archive-sparse"]);
    assert!(archive.bytes_of(1) == object(1, 5000) && archive.bytes_of(3) == object(3, 0));

    let archive = Archive::new();
    archive.put("x.tar.gz", &gzip(&tar(&[("1.dcm", &object(1, 100_000)), ("sub/2.dcm", &object(2, 0))])));
    archive.put("3.dcm.gz", &gzip(&object(3, 70_000)));
    archive.put("brain.nii.gz", &gzip(&[7; 1000]));
    let told = archive.scan();
    assert_eq!(told.numbers(), (4, 3, 0, 0, 0, 1), "{told:?}");
    assert_eq!(archive.paths(), ["3.dcm.gz!/3.dcm", "x.tar.gz!/1.dcm", "x.tar.gz!/sub/2.dcm"]);
    archive.assert_failures(&["brain.nii.gz not-dicom"]);
    assert!(archive.bytes_of(1) == object(1, 100_000));
    assert!(archive.bytes_of(2) == object(2, 0));
    assert!(archive.bytes_of(3) == object(3, 70_000));
    assert_eq!(archive.scan().numbers(), (4, 0, 0, 3, 0, 1));
}

// GNU tar: the data of a directory in an incremental backup are the names in it.
#[test]
fn members_of_a_tar_archive_of_an_incremental_backup_are_instances() {
    let folder = tar_member("folder/", b'D', b"Y1.dcm\0Y2.dcm\0\0");
    let bytes = [folder, tar(&[("folder/1.dcm", &object(1, 3000)), ("folder/2.dcm", &object(2, 0))])].concat();
    for (name, bytes) in [("x.tar", bytes.clone()), ("x.tgz", gzip(&bytes))] {
        let archive = Archive::new();
        archive.put(name, &bytes);
        let told = archive.scan();
        assert_eq!(told.numbers(), (2, 2, 0, 0, 0, 0), "{name} {told:?}");
        assert!(archive.bytes_of(1) == object(1, 3000) && archive.bytes_of(2) == object(2, 0), "{name}");
        archive.assert_failures(&[]);
    }
}

#[test]
fn a_folder_whose_sizes_follow_it_in_a_zip_that_is_read_forward_hides_no_member() {
    let mut inner = Zip::default().with("folder/", b"", Keep::Stored);
    // The flag that sizes follow the data, which are none.
    (inner.bytes[6], inner.central[0].flags) = (8, 8);
    inner.bytes.extend_from_slice(b"PK\x07\x08\0\0\0\0\0\0\0\0\0\0\0\0");
    let inner = inner.with("folder/1.dcm", &object(1, 3000), Keep::Streamed).with("2.dcm", &object(2, 0), Keep::Stored);
    let inner = inner.finish();
    let cases = [
        ("x.zip", Zip::default().with("in.zip", &inner, Keep::Deflated).finish()),
        ("x.tgz", gzip(&tar(&[("in.zip", &inner)]))),
    ];
    for (name, bytes) in cases {
        let archive = Archive::new();
        archive.put(name, &bytes);
        let told = archive.scan();
        assert_eq!(told.numbers(), (2, 2, 0, 0, 0, 0), "{name} {told:?}");
        assert!(archive.bytes_of(1) == object(1, 3000) && archive.bytes_of(2) == object(2, 0), "{name}");
        archive.assert_failures(&[]);
    }
}

#[test]
fn archives_in_archives_to_a_depth() {
    let archive = Archive::new();
    for outer in KEEPS {
        let number = KEEPS.iter().position(|&keep| keep == outer).unwrap() as u32 * 10;
        let inner = Zip::default()
            .with("odd!/1.dcm", &object(number, 9000), Keep::Stored)
            .with("2.dcm", &object(number + 1, 9000), Keep::Deflated)
            .with("3.dcm", &object(number + 2, 9000), Keep::Streamed);
        let tarred = tar(&[("5.dcm", &object(number + 4, 9000))]);
        let zip = Zip::default()
            .with("in.zip", &inner.finish(), outer)
            .with("in.tar", &tarred, outer)
            .with("in.tgz", &gzip(&tarred), outer)
            .with("4.dcm", &object(number + 3, 9000), Keep::Stored);
        archive.put(&format!("{number}.zip"), &zip.finish());
    }
    let told = archive.scan();
    assert_eq!(told.numbers(), (24, 24, 0, 0, 0, 0), "{told:?}");
    assert_eq!(told.summary.copies, 4, "the same object in a tar archive and in a compressed one");
    assert!(archive.paths().contains(&"0.zip!/in.zip!/odd!!/1.dcm".to_owned()), "{:?}", archive.paths());
    for number in (0..40).filter(|number| number % 10 < 5) {
        assert!(archive.bytes_of(number) == object(number, 9000), "{number}");
    }

    let archive = Archive::new();
    let mut bytes = Zip::default().with("deep.dcm", &object(1, 0), Keep::Stored).finish();
    for depth in 1..=MAX_NESTING {
        if depth == MAX_NESTING {
            archive.put("allowed.zip", &bytes);
        }
        bytes = Zip::default().with("in.zip", &bytes, Keep::Deflated).finish();
    }
    archive.put("too deep.zip", &bytes);
    let told = archive.scan();
    assert_eq!(told.numbers(), (2, 1, 0, 0, 0, 1), "{told:?}");
    archive.assert_failures(&["too deep.zip!/in.zip!/in.zip!/in.zip archive-nested-too-deep"]);
}

#[test]
fn an_unchanged_archive_is_not_opened_and_nothing_is_written() {
    let archive = Archive::new();
    let mut zip = Zip::default();
    for number in 1..=600 {
        zip.add(format!("{number}.dcm").as_bytes(), &object(number, 0), Keep::Deflated);
    }
    zip.add(b"notes.txt", b"none", Keep::Stored);
    archive.put("x.zip", &zip.finish());
    assert_eq!(archive.scan().numbers(), (601, 600, 0, 0, 0, 1));
    let before = fs::read(archive.index()).unwrap();
    // It would fail if it were read.
    let length = fs::metadata(archive.path("x.zip")).unwrap().len();
    let time = fs::metadata(archive.path("x.zip")).unwrap().modified().unwrap();
    archive.put("x.zip", &vec![0; usize::try_from(length).unwrap()]);
    fs::File::options().write(true).open(archive.path("x.zip")).unwrap().set_modified(time).unwrap();
    let told = archive.scan();
    assert_eq!(told.numbers(), (601, 0, 0, 600, 0, 1));
    assert_eq!(told.events, ["failed x.zip!/notes.txt not-dicom"]);
    assert_eq!((told.summary.bytes, told.summary.archives), (0, 1));
    assert!(fs::read(archive.index()).unwrap() == before, "the index has changed");
}

#[test]
fn a_changed_archive_is_read_again_and_what_it_lost_is_noticed() {
    let mut archive = Archive::new();
    archive.write("stays", 99);
    let zip = |numbers: &[u32]| {
        let mut zip = Zip::default();
        numbers.iter().for_each(|n| zip.add(format!("{n}.dcm").as_bytes(), &object(*n, 0), Keep::Stored));
        zip.finish()
    };
    archive.put("x.zip", &zip(&[1, 2, 3]));
    set_time(&archive.path("x.zip"), 1);
    archive.scan();
    archive.put("x.zip", &zip(&[2, 3, 4, 5]));
    set_time(&archive.path("x.zip"), 2);
    let told = archive.scan();
    assert_eq!(told.numbers(), (5, 2, 2, 1, 0, 0), "{told:?}");
    assert_eq!((told.summary.missing, told.summary.removed), (1, 0));
    assert_eq!(archive.paths().len(), 6);
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.missing), ((5, 0, 0, 5, 0, 0), 1), "what is missing is not unchanged");

    archive.options.vanished = Vanished::Prune;
    set_time(&archive.path("x.zip"), 3);
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.removed), ((5, 0, 4, 1, 0, 0), 1));
    assert_eq!(archive.paths(), ["stays", "x.zip!/2.dcm", "x.zip!/3.dcm", "x.zip!/4.dcm", "x.zip!/5.dcm"]);

    // Moved to another name: the same instances in another place.
    fs::rename(archive.path("x.zip"), archive.path("y.zip")).unwrap();
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.removed), ((5, 4, 0, 1, 0, 0), 4), "{told:?}");
    assert_eq!(archive.paths(), ["stays", "y.zip!/2.dcm", "y.zip!/3.dcm", "y.zip!/4.dcm", "y.zip!/5.dcm"]);

    // No archive any more.
    archive.put("y.zip", &object(7, 0));
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.removed), ((2, 1, 0, 1, 0, 0), 4), "{told:?}");
    assert_eq!(archive.paths(), ["stays", "y.zip"]);
    archive.put("y.zip", &zip(&[1]));
    archive.scan();
    assert_eq!(archive.paths(), ["stays", "y.zip!/1.dcm"]);
    archive.assert_failures(&[]);
}

/// Builds a zip archive of the objects `from` to `from + count`, named by their place, with files
/// that are no objects in the middle.
fn numbered(from: u32, count: u32, texts: u32) -> Vec<u8> {
    let mut zip = Zip::default();
    for at in 0..count {
        if at == count / 2 {
            (0..texts).for_each(|text| zip.add(format!("{text}.txt").as_bytes(), b"no object", Keep::Stored));
        }
        zip.add(format!("{at}.dcm").as_bytes(), &object(from + at, 0), Keep::Stored);
    }
    zip.finish()
}

#[test]
fn an_archive_of_another_size_and_the_same_time_is_read_again() {
    let archive = Archive::new();
    archive.put("x.zip", &numbered(10, 2, 0));
    set_time(&archive.path("x.zip"), 1);
    assert_eq!(archive.scan().numbers(), (2, 2, 0, 0, 0, 0));
    archive.put("x.zip", &numbered(20, 3, 0));
    set_time(&archive.path("x.zip"), 1);
    let told = archive.scan();
    assert_eq!(told.numbers(), (3, 1, 2, 0, 0, 0), "{told:?}");
    let uids: Vec<_> = archive.instances().into_keys().collect();
    assert_eq!(uids, ["1.2.1.1.20", "1.2.1.1.21", "1.2.1.1.22"]);
    assert_eq!(archive.scan().numbers(), (3, 0, 0, 3, 0, 0));
}

#[test]
fn a_scan_that_is_stopped_in_an_archive_of_another_size_reads_the_rest_of_it_later() {
    let archive = Archive::new();
    archive.put("x.zip", &numbered(10_000, 9000, 0));
    set_time(&archive.path("x.zip"), 1);
    assert_eq!(archive.scan().numbers(), (9000, 9000, 0, 0, 0, 0));
    archive.put("x.zip", &numbered(20_000, 9000, 4));
    set_time(&archive.path("x.zip"), 1);
    let stop = Stop::default();
    let told = archive.scan_until(&[archive.root()], &stop, |event| {
        if let ScanEvent::Failed { .. } = event {
            stop.ask();
        }
    });
    assert!(told.summary.interrupted);
    archive.scan();
    let uids: Vec<_> = archive.instances().into_keys().collect();
    assert_eq!(uids, (20_000..29_000).map(|number| format!("1.2.1.1.{number}")).collect::<Vec<_>>());
    assert_eq!(archive.scan().numbers(), (9004, 0, 0, 9000, 0, 4));
}

#[test]
fn a_loose_file_and_a_member_can_be_copies_and_the_one_takes_the_place_of_the_other() {
    let mut archive = Archive::new();
    archive.put("1.dcm", &object(1, 0));
    archive.put("x.zip", &Zip::default().with("a.dcm", &object(1, 0), Keep::Deflated).finish());
    assert_eq!(archive.scan().summary.copies, 1);
    assert_eq!(archive.paths(), ["1.dcm", "x.zip!/a.dcm"]);
    fs::remove_file(archive.path("1.dcm")).unwrap();
    archive.options.vanished = Vanished::Prune;
    archive.scan();
    assert_eq!(archive.paths(), ["x.zip!/a.dcm"]);
    let location = &Reader::open(archive.index()).unwrap().locations("1.2.1.1.1").unwrap()[0];
    assert_eq!((location.place, &location.directory), (Place::Archive, &archive.path("x.zip")));
    assert!(archive.bytes_of(1) == object(1, 0));
}

#[test]
fn a_scan_that_is_stopped_in_an_archive_goes_on_with_what_is_missing() {
    let archive = Archive::new();
    let mut zip = Zip::default();
    for number in 1..=5000 {
        zip.add(format!("{number}.dcm").as_bytes(), &object(number, 0), Keep::Stored);
    }
    for at in 0..4 {
        zip.add(format!("{at}.txt").as_bytes(), b"stop here", Keep::Stored);
    }
    for number in 5001..=9000 {
        zip.add(format!("{number}.dcm").as_bytes(), &object(number, 0), Keep::Stored);
    }
    archive.put("x.zip", &zip.finish());
    let stop = Stop::default();
    let told = archive.scan_until(&[archive.root()], &stop, |event| {
        if let ScanEvent::Failed { .. } = event {
            stop.ask();
        }
    });
    assert!(told.summary.interrupted);
    let first = told.summary.indexed;
    let told = archive.scan();
    assert_eq!(told.summary.found, 9004);
    assert!(told.summary.unchanged >= first && first >= 4000, "{first} {:?}", told.summary);
    assert_eq!(archive.instances().len(), 9000);
    assert_eq!(archive.scan().numbers(), (9004, 0, 0, 9000, 0, 4));
}

#[test]
fn names_are_names_and_never_paths() {
    let archive = Archive::new();
    archive.put("outside.dcm", b"not to be touched");
    let mut zip = Zip::default()
        .with("../outside.dcm", &object(1, 0), Keep::Stored)
        .with("/etc/passwd", &object(2, 0), Keep::Stored)
        .with("nul\0.dcm", &object(3, 0), Keep::Stored)
        .with("", &object(4, 0), Keep::Stored)
        .with("twice", &object(5, 0), Keep::Stored)
        .with("twice", &object(6, 0), Keep::Stored)
        .with(&"long/".repeat(MAX_NAME / 5 + 1), &object(7, 0), Keep::Stored)
        .with(&format!("{}x", "long/".repeat(MAX_NAME / 5 + 1)), &object(7, 0), Keep::Stored);
    zip.add(b"\xFF\xFE.dcm", &object(8, 0), Keep::Stored);
    archive.put("x.zip", &zip.finish());
    let told = archive.scan();
    assert_eq!(told.summary.indexed, 4, "{told:?}");
    assert_eq!(told.summary.failed_by_reason.iter().collect::<Vec<_>>(), [("archive-name", 3), ("not-dicom", 1)]);
    assert_eq!(told.summary.skipped_by_reason.iter().collect::<Vec<_>>(), [("archive-duplicate-name", 1)]);
    let paths = archive.paths();
    assert!(paths.contains(&"x.zip!/../outside.dcm".to_owned()) && paths.contains(&"x.zip!//etc/passwd".to_owned()));
    for number in [1, 2, 6, 8] {
        assert!(archive.bytes_of(number) == object(number, 0), "{number}");
    }
    assert_eq!(fs::read(archive.path("outside.dcm")).unwrap(), b"not to be touched");
    assert_eq!(archive.scan().numbers(), told_again(&told));
}

/// Returns the expected numbers of a second scan without changes.
fn told_again(told: &Told) -> (u64, u64, u64, u64, u64, u64) {
    let Summary { found, indexed, skipped, failed, .. } = told.summary;
    (found, 0, 0, indexed, skipped, failed)
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason() {
    let archive = Archive::new();
    let mut zip = Zip::default()
        .with("encrypted", &object(1, 0), Keep::Stored)
        .with("lzma", &object(2, 0), Keep::Stored)
        .with("two sizes", &object(3, 0), Keep::Stored)
        .with("elsewhere", &object(4, 0), Keep::Stored)
        .with("past the end", &object(5, 0), Keep::Stored)
        .with("damaged", &object(6, 3000), Keep::Deflated)
        .with("good", &object(7, 0), Keep::Stored);
    zip.central[0].flags |= 1;
    zip.central[1].method = 14;
    zip.central[2].size += 1;
    zip.central[3].local += 3;
    zip.central[4].local = 1 << 30;
    let at = usize::try_from(zip.central[5].local).unwrap();
    zip.bytes[at + 37..at + 60].fill(0xFF);
    archive.put("x.zip", &zip.finish());
    archive.put("x.7z", b"7z\xBC\xAF\x27\x1C and more");
    let told = archive.scan();
    assert_eq!(told.numbers(), (8, 1, 0, 0, 0, 7), "{told:?}");
    archive.assert_failures(&[
        "x.7z archive-unsupported",
        "x.zip!/damaged archive-damaged",
        "x.zip!/elsewhere archive-damaged",
        "x.zip!/encrypted archive-encrypted",
        "x.zip!/lzma archive-method",
        "x.zip!/past the end archive-damaged",
        "x.zip!/two sizes archive-damaged",
    ]);
}

#[test]
fn of_a_damaged_archive_what_comes_before_is_kept() {
    let archive = Archive::new();
    let zip = Zip::default()
        .with("1.dcm", &object(1, 3000), Keep::Stored)
        .with("2.dcm", &object(2, 3000), Keep::Streamed)
        .with("3.dcm", &object(3, 3000), Keep::Deflated);
    let cut = zip.bytes.len() - 100;
    archive.put("cut.zip", &zip.bytes[..cut]);
    let tarred = tar(&[("4.dcm", &object(4, 3000)), ("5.dcm", &object(5, 3000))]);
    archive.put("cut.tar", &tarred[..tarred.len() - 2000]);
    let gz = gzip(&tar(&[("6.dcm", &object(6, 200_000)), ("7.dcm", &object(7, 200_000))]));
    archive.put("cut.tgz", &gz[..gz.len() * 3 / 4]);
    let mut overwritten = tar(&[("8.dcm", &object(8, 0)), ("9.dcm", &object(9, 0))]);
    let at = tar_member("8.dcm", b'0', &object(8, 0)).len();
    overwritten[at..at + 512].fill(0x55);
    archive.put("overwritten.tar", &overwritten);
    let told = archive.scan();
    assert_eq!(
        archive.paths(),
        ["cut.tar!/4.dcm", "cut.tgz!/6.dcm", "cut.zip!/1.dcm", "cut.zip!/2.dcm", "overwritten.tar!/8.dcm"]
    );
    archive.assert_failures(&[
        "cut.tar archive-truncated",
        "cut.tgz archive-truncated",
        "cut.zip archive-truncated",
        "overwritten.tar archive-damaged",
    ]);
    assert_eq!(told.numbers(), (9, 5, 0, 0, 0, 4));
    for number in [1, 2, 4, 6, 8] {
        let pixels = [0, 3000, 3000, 0, 3000, 0, 200_000, 0, 0][number as usize];
        assert!(archive.bytes_of(number) == object(number, pixels), "{number}");
    }
    let before = fs::read(archive.index()).unwrap();
    assert_eq!(archive.scan().numbers(), (9, 0, 0, 5, 0, 4));
    assert!(fs::read(archive.index()).unwrap() == before);
}

#[test]
fn bombs_cost_a_failure_and_nothing_else() {
    let archive = Archive::new();
    // Many members in the same bytes.
    let mut overlapping = Zip::default().with("0", &object(1, 2000), Keep::Deflated);
    for number in 1..5000 {
        let mut entry = overlapping.central[0].clone();
        entry.name = number.to_string().into_bytes();
        overlapping.central.push(entry);
    }
    archive.put("overlapping.zip", &overlapping.finish());
    // A claim of more members than could ever be.
    let mut claim = Zip::default().with("1", &object(2, 0), Keep::Zip64).finish();
    let end = claim.len() - 22 - 20 - 56;
    claim[end + 24..end + 40].fill(0xFF);
    archive.put("claim.zip", &claim);
    // Two gigabytes of zeros.
    let zeros = gzip(&gzip(&vec![0; 1 << 20]).repeat(2048));
    archive.put("zeros.tar.gz.gz", &zeros);
    let mut endless = tar_member("endless", b'0', b"");
    endless[124..136].copy_from_slice(b"77777777777\0");
    put_checksum(&mut endless);
    archive.put("endless.tar", &endless);
    let mut name = tar_member("././@LongLink", b'L', b"");
    name[124..136].copy_from_slice(b"77777777777\0");
    put_checksum(&mut name);
    archive.put("endless name.tar", &name);
    let told = archive.scan();
    assert_eq!(told.summary.indexed, 1, "{told:?}");
    archive.assert_failures(&[
        "claim.zip archive-damaged",
        "endless name.tar archive-damaged",
        "endless.tar archive-truncated",
        "overlapping.zip archive-overlapping",
        "zeros.tar.gz.gz!/zeros.tar.gz!/zeros.tar not-dicom",
    ]);
}

#[test]
fn what_inflates_without_end_is_stopped() {
    let archive = Archive::new();
    // A header that says that two gigabytes are to be passed over before the next wanted element.
    let mut bytes = object(1, 0);
    let at = bytes.len();
    bytes.extend_from_slice(&[0x20, 0, 0x15, 0, b'O', b'B', 0, 0]);
    bytes.extend_from_slice(&0x7FFF_FFFE_u32.to_le_bytes());
    assert!(at > 0);
    let mut tarred = tar_member("1.dcm", b'0', &bytes);
    tarred[124..136].copy_from_slice(b"17777777777\0");
    put_checksum(&mut tarred);
    let parts = [gzip(&tarred), gzip(&vec![0; 1 << 20]).repeat(1100)].concat();
    archive.put("x.tgz", &parts);
    let told = archive.scan();
    assert_eq!(told.numbers(), (1, 0, 0, 0, 0, 1), "{told:?}");
    archive.assert_failures(&["x.tgz archive-inflates-too-far"]);
}

#[test]
fn a_checksum_that_does_not_hold_is_an_error_when_the_object_is_read() {
    let archive = Archive::new();
    let mut zip = Zip::default().with("1.dcm", &object(1, 20_000), Keep::Stored);
    let last = zip.bytes.len() - 1;
    zip.bytes[last] ^= 1;
    archive.put("x.zip", &zip.finish());
    archive.scan();
    let location = &Reader::open(archive.index()).unwrap().locations("1.2.1.1.1").unwrap()[0];
    let mut object = store::open(location).unwrap().unwrap();
    assert_eq!(object.length(), Some(self::object(1, 20_000).len() as u64));
    let error = object.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    let gone = dcmdex::model::location::Location { file_name: "2.dcm".into(), ..location.clone() };
    assert!(store::open(&gone).is_err());
}

#[test]
fn a_member_that_is_longer_than_its_archive_says_is_an_error_when_the_object_is_read() {
    let archive = Archive::new();
    let mut zip = Zip::default().with("1.dcm", &object(1, 20_000), Keep::Deflated);
    // The size and the checksum of nothing.
    (zip.central[0].size, zip.central[0].checksum) = (0, 0);
    archive.put("x.zip", &zip.finish());
    archive.scan();
    let location = &Reader::open(archive.index()).unwrap().locations("1.2.1.1.1").unwrap()[0];
    let mut object = store::open(location).unwrap().unwrap();
    let error = object.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("longer"), "{error}");
}

/// An archive of four members that is cut behind member `last`, in each kind that can be read up to
/// a cut.
fn cut_behind(last: usize) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let objects: Vec<_> = (1..=4).map(|number| object(number, 200_000)).collect();
    let names = ["1.dcm", "2.dcm", "3.dcm", "4.dcm"];
    let members: Vec<_> = names.iter().zip(&objects).map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let mut zip = Zip::default();
    members.iter().for_each(|(name, bytes)| zip.add(name.as_bytes(), bytes, Keep::Stored));
    let in_zip = usize::try_from(zip.central[last].local).unwrap();
    let whole = tar(&members);
    let in_tar = last * tar_member("1.dcm", b'0', &objects[0]).len();
    let mut gz = gzip(&whole[..in_tar + 100_000]);
    gz.truncate(gz.len() - 20_000);
    vec![
        ("x.zip", zip.finish(), zip.bytes[..in_zip + 1000].to_vec()),
        ("x.tar", whole.clone(), whole[..in_tar + 1000].to_vec()),
        ("x.tgz", gzip(&whole), gz),
    ]
}

#[test]
fn members_behind_a_cut_are_missing_until_they_are_dropped_or_back() {
    for (name, whole, cut) in cut_behind(2) {
        for (cut_at, vanished) in [(2, Vanished::Prune), (2, Vanished::Keep)] {
            let case = format!("{name}, cut at {cut_at} s, {vanished:?}");
            let mut archive = Archive::new();
            archive.put(name, &whole);
            set_time(&archive.path(name), 1);
            archive.scan();
            archive.put(name, &cut);
            set_time(&archive.path(name), cut_at);
            let told = archive.scan();
            assert_eq!((told.numbers().5, told.summary.missing), (1, 2), "{case} {told:?}");
            let states = availability(&archive);
            assert_eq!(states, ["ONLINE", "ONLINE", "UNAVAILABLE", "UNAVAILABLE"], "{case}");
            let told = archive.scan();
            assert_eq!((told.numbers(), told.summary.missing), ((3, 0, 0, 2, 0, 1), 2), "{case}");

            archive.options.vanished = vanished;
            archive.options.full = vanished == Vanished::Keep;
            let told = archive.scan();
            assert_eq!(told.numbers(), (3, 0, 0, 2, 0, 1), "{case}");
            if vanished == Vanished::Prune {
                assert_eq!((told.summary.missing, told.summary.removed), (0, 2), "{case}");
                assert_eq!(archive.paths(), [format!("{name}!/1.dcm"), format!("{name}!/2.dcm")], "{case}");
                archive.assert_failures(&[&format!("{name} archive-truncated")]);
            }
            archive.put(name, &whole);
            set_time(&archive.path(name), 1);
            assert_eq!(archive.scan().summary.missing, 0, "{case}");
            assert_eq!(availability(&archive), ["ONLINE"; 4], "{case}");
            archive.assert_failures(&[]);
        }
    }
}

#[test]
fn a_damaged_archive_that_is_read_again_stays_a_failure() {
    for (name, _, cut) in cut_behind(2) {
        let mut archive = Archive::new();
        archive.put(name, &cut);
        let told = archive.scan();
        for full in [true, true, false, true] {
            archive.options.full = full;
            assert_eq!(archive.scan().numbers(), told_again(&told), "{name} {full}");
            archive.assert_failures(&[&format!("{name} archive-truncated")]);
        }
    }
}

#[test]
fn archives_of_a_disk_that_is_back_have_their_members_again() {
    for (name, bytes) in cut_behind(3).into_iter().flat_map(|(name, whole, cut)| [(name, whole), (name, cut)]) {
        let mut archive = Archive::new();
        archive.options.vanished = Vanished::Prune;
        let away = archive.directory.path().join("away");
        archive.put(name, &bytes);
        let count = archive.scan().summary.indexed;
        assert!(count >= 3);
        for full in [false, true] {
            archive.options.full = full;
            fs::rename(archive.root(), &away).unwrap();
            fs::create_dir(archive.root()).unwrap();
            assert_eq!(archive.scan().summary.not_pruned, count, "{name}");
            fs::remove_dir(archive.root()).unwrap();
            fs::rename(&away, archive.root()).unwrap();
            let told = archive.scan();
            assert_eq!((told.numbers().3, told.summary.missing), (count, 0), "{name} {full} {told:?}");
            assert_eq!(availability(&archive), vec!["ONLINE"; usize::try_from(count).unwrap()], "{name} {full}");
        }
    }
}

/// Builds archives with these members, one of each kind that stores members differently.
fn in_every_kind(members: &[(&str, &[u8])]) -> Vec<(&'static str, Vec<u8>)> {
    let zip = |keep| {
        let mut zip = Zip::default();
        members.iter().for_each(|(name, bytes)| zip.add(name.as_bytes(), bytes, keep));
        zip
    };
    let mut cut = zip(Keep::Deflated).finish();
    cut.truncate(zip(Keep::Deflated).bytes.len() + 10);
    vec![
        ("x.tar", tar(members)),
        ("x.tgz", gzip(&tar(members))),
        ("x.zip", zip(Keep::Stored).finish()),
        ("deflated.zip", zip(Keep::Deflated).finish()),
        ("cut.zip", cut),
        ("nested.tar", tar(&[("in.tgz", &gzip(&tar(members)))])),
        ("nested.zip", Zip::default().with("in.zip", &zip(Keep::Streamed).finish(), Keep::Deflated).finish()),
    ]
}

#[test]
fn a_gzip_file_in_an_archive_that_holds_no_object_is_one_failed_member() {
    let (log, twice) = (gzip(b"no object"), gzip(&gzip(b"no object")));
    let [first, last] = [object(1, 0), object(2, 0)];
    let members: [(&str, &[u8]); 4] = [("1.dcm", &first), ("log.gz", &log), ("twice.gz.gz", &twice), ("2.dcm", &last)];
    let is_fit = |name: &str| !name.starts_with("cut") && !name.starts_with("nested");
    for (name, bytes) in in_every_kind(&members).into_iter().filter(|(name, _)| is_fit(name)) {
        let mut archive = Archive::new();
        archive.put(name, &bytes);
        let told = archive.scan();
        assert_eq!(told.numbers(), (4, 2, 0, 0, 0, 2), "{name} {told:?}");
        assert_eq!(told.summary.archives, 1, "{name}");
        let failed = told.events.iter().map(|event| event.rsplit_once('/').unwrap().1).collect::<Vec<_>>();
        assert_eq!(failed, ["log not-dicom", "twice not-dicom"], "{name}");
        assert_eq!(archive.scan().numbers(), told_again(&told), "{name}");
        archive.options.vanished = Vanished::Prune;
        for full in [true, true, false] {
            archive.options.full = full;
            let told = archive.scan();
            assert_eq!((told.numbers(), told.summary.removed), ((4, 0, 0, 2, 0, 2), 0), "{name} {full} {told:?}");
            assert_eq!(archive.paths().len(), 2, "{name} {full}");
        }
    }
}

#[test]
fn the_last_member_of_a_name_is_the_file_and_the_earlier_ones_are_told() {
    let [first, second, third] = [1, 2, 3].map(|number| object(number, 3000));
    let members: [(&str, &[u8]); 5] =
        [("a!.dcm", &first), ("b.dcm", &object(9, 0)), ("a!.dcm", &second), ("c", b"none"), ("a!.dcm", &third)];
    for (name, bytes) in in_every_kind(&members) {
        let archive = Archive::new();
        archive.put(name, &bytes);
        let told = archive.scan();
        let cut = u64::from(name.starts_with("cut"));
        let expected = (5 + cut, 2, 0, 0, 2, 1 + cut);
        assert_eq!(told.numbers(), expected, "{name} {told:?}");
        let instances = archive.instances();
        assert_eq!(instances.len(), 2, "{name} {instances:?}");
        assert!(archive.bytes_of(3) == third && archive.bytes_of(9) == object(9, 0), "{name}");
        assert!(archive.paths().iter().any(|path| path.ends_with("a!.dcm!/!/3")), "{:?}", archive.paths());
        let before = fs::read(archive.index()).unwrap();
        assert_eq!(archive.scan().numbers(), told_again(&told), "{name}");
        assert!(fs::read(archive.index()).unwrap() == before, "{name}: the index has changed");
    }
}

#[test]
fn a_newer_member_of_a_name_replaces_the_object_though_it_has_the_same_uid() {
    let mut archive = Archive::new();
    let (old, new) = (object(1, 3000), object(1, 4000));
    let packed = |members: &[(&str, &[u8])]| tar(members);
    archive.put("x.tar", &packed(&[("1.dcm", &old), ("2.dcm", &object(2, 0))]));
    set_time(&archive.path("x.tar"), 1);
    assert_eq!(archive.scan().numbers(), (2, 2, 0, 0, 0, 0));
    // `tar -u`
    archive.put("x.tar", &packed(&[("1.dcm", &old), ("2.dcm", &object(2, 0)), ("1.dcm", &new)]));
    set_time(&archive.path("x.tar"), 2);
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.conflicts), ((3, 1, 1, 0, 1, 0), 0), "{told:?}");
    assert!(archive.bytes_of(1) == new);
    archive.options.full = true;
    assert_eq!(archive.scan().numbers(), (3, 0, 0, 2, 1, 0));
    archive.options.full = false;
    // And without it again.
    archive.put("x.tar", &packed(&[("1.dcm", &old), ("2.dcm", &object(2, 0))]));
    set_time(&archive.path("x.tar"), 3);
    archive.options.vanished = Vanished::Prune;
    archive.scan();
    assert_eq!(archive.paths(), ["x.tar!/1.dcm", "x.tar!/2.dcm"]);
    assert!(archive.bytes_of(1) == old);
}

#[test]
fn a_member_is_replaced_however_far_behind_it_the_last_of_its_name_lies() {
    let objects: Vec<_> = (1..=1200).map(|number| (format!("{number}.dcm"), object(number, 0))).collect();
    let mut members: Vec<(&str, &[u8])> = objects.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    members.insert(0, ("broken", b"no object"));
    let replacements: Vec<_> = (1..=1200).step_by(100).map(|number| object(5000 + number, 0)).collect();
    for (bytes, (name, _)) in replacements.iter().zip(objects.iter().step_by(100)) {
        members.push((name, bytes));
    }
    let repaired = object(9000, 0);
    members.push(("broken", &repaired));
    for (name, bytes) in in_every_kind(&members).into_iter().filter(|(name, _)| !name.starts_with("cut")) {
        let archive = Archive::new();
        archive.put(name, &bytes);
        let told = archive.scan();
        assert_eq!(told.numbers(), (1214, 1201, 0, 0, 13, 0), "{name} {:?}", told.summary);
        assert_eq!(archive.instances().len(), 1201);
        assert!(archive.bytes_of(9000) == repaired && archive.bytes_of(5001) == replacements[0]);
        assert_eq!(archive.scan().numbers(), told_again(&told), "{name}");
        let mut again = archive;
        again.options.full = true;
        assert_eq!(again.scan().numbers(), (1214, 0, 0, 1201, 13, 0), "{name}");
        assert_eq!(again.instances().len(), 1201);
    }
}

#[test]
fn a_last_member_that_cannot_be_read_leaves_the_one_before() {
    let archive = Archive::new();
    let mut zip = Zip::default().with("1.dcm", &object(1, 0), Keep::Stored).with("1.dcm", &object(2, 0), Keep::Stored);
    zip.central[1].flags |= 1;
    archive.put("x.zip", &zip.finish());
    let told = archive.scan();
    assert_eq!(told.numbers(), (2, 1, 0, 0, 0, 1), "{told:?}");
    assert_eq!(told.events, ["failed x.zip!/1.dcm!/!/2 archive-encrypted"]);
    assert!(archive.bytes_of(1) == object(1, 0));
}

#[test]
fn two_archives_of_one_name_in_an_archive_are_both_read() {
    let archive = Archive::new();
    let [one, other] = [1, 2].map(|number| Zip::default().with("i.dcm", &object(number, 0), Keep::Stored).finish());
    archive.put("x.tar", &tar(&[("in.zip", &one), ("in.zip", &other), ("in.zip", &object(3, 0))]));
    let told = archive.scan();
    assert_eq!(told.numbers(), (3, 3, 0, 0, 0, 0), "{told:?}");
    assert_eq!(archive.paths(), ["x.tar!/in.zip!/!/2!/i.dcm", "x.tar!/in.zip!/!/3", "x.tar!/in.zip!/i.dcm"]);
    for number in 1..=3 {
        assert!(archive.bytes_of(number) == object(number, 0), "{number}");
    }
}

#[test]
fn the_directory_of_a_zip_is_found_in_every_form_that_writers_give_it() {
    let zip = Zip::default().with("1.dcm", &object(1, 3000), Keep::Deflated).with("2.dcm", &object(2, 0), Keep::Stored);
    let program = b"MZ and the rest of the program".repeat(100);
    let wide = zip.finish_as(&End { zip64: true, ..End::default() });
    let forms: [(&str, Vec<u8>); 9] = [
        ("a zip64 end whose numbers fit", wide.clone()),
        ("the same behind a program", [program.clone(), wide.clone()].concat()),
        ("and something behind", [wide.clone(), b"behind".to_vec()].concat()),
        ("an extended zip64 end", zip.finish_as(&End { zip64: true, extended: 50, ..End::default() })),
        (
            "an extended zip64 end behind a program",
            [program.clone(), zip.finish_as(&End { zip64: true, extended: 50, ..End::default() })].concat(),
        ),
        ("something between directory and end", zip.finish_as(&End { gap: 300, ..End::default() })),
        ("the same with a zip64 end", zip.finish_as(&End { gap: 300, zip64: true, ..End::default() })),
        (
            "an end in the comment",
            zip.finish_as(&End {
                comment: b"PK\x05\x06\0\0\0\0\x01\0\x01\0\xFF\0\0\0\xFF\xFF\0\0\0\0".to_vec(),
                ..End::default()
            }),
        ),
        ("behind another zip of the same form", [zip.finish(), zip.finish()].concat()),
    ];
    for (form, bytes) in forms {
        let archive = Archive::new();
        archive.put("x.zip", &bytes);
        let told = archive.scan();
        assert_eq!(told.numbers(), (2, 2, 0, 0, 0, 0), "{form}: {told:?}");
        for (number, pixels) in [(1, 3000), (2, 0)] {
            assert!(archive.bytes_of(number) == object(number, pixels), "{form}: {number}");
        }
    }
}

/// Generates a member: its name, the number of its object, and how it is stored.
fn any_member() -> impl Strategy<Value = (usize, u32, Keep)> {
    (0..4_usize, 1..1000_u32, prop::sample::select(KEEPS.to_vec()))
}

fn any_end() -> impl Strategy<Value = End> {
    (any::<bool>(), 0..60_usize, prop_oneof![Just(0), 1..300_usize], prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(zip64, extended, gap, comment)| End { zip64, extended, gap, comment })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Names may occur twice, in every form of zip and in tar archives. The last member of a name
    /// is in the index and can be read. All members are accounted for, and the next scan gives the
    /// same result.
    #[test]
    fn the_last_members_of_their_names_are_what_an_archive_holds(
        members in prop::collection::vec(any_member(), 1..30),
        end in any_end(),
        program in prop_oneof![Just(0), 1..2000_usize],
        as_zip in any::<bool>(),
    ) {
        let archive = Archive::new();
        // An object of its own for each, so that none is a copy.
        let members: Vec<_> =
            members.into_iter().enumerate().map(|(at, (name, number, keep))| (name, number + 1000 * at as u32, keep)).collect();
        let mut last = std::collections::BTreeMap::new();
        members.iter().for_each(|(name, number, _)| { last.insert(*name, *number); });
        if as_zip {
            let mut zip = Zip::default();
            for (name, number, keep) in &members {
                zip.add(format!("{name}.dcm").as_bytes(), &object(*number, 500), *keep);
            }
            // With something before the archive and something before its end nothing says where the
            // directory is.
            let end = if program > 0 { End { gap: 0, ..end } } else { end };
            archive.put("x.zip", &[vec![b'M'; program], zip.finish_as(&end)].concat());
        } else {
            let mut bytes = Vec::new();
            for (name, number, _) in &members {
                bytes.extend(tar_member(&format!("{name}.dcm"), b'0', &object(*number, 500)));
            }
            bytes.extend([0; 1024]);
            archive.put("x", &if program % 2 == 0 { bytes } else { gzip(&bytes) });
        }
        let told = archive.scan();
        let (found, indexed) = (members.len() as u64, last.len() as u64);
        prop_assert_eq!(told.numbers(), (found, indexed, 0, 0, found - indexed, 0), "{:?}", told);
        prop_assert_eq!(archive.instances().len() as u64, indexed);
        for number in last.into_values() {
            prop_assert!(archive.bytes_of(number) == object(number, 500));
        }
        prop_assert_eq!(archive.scan().numbers(), (found, 0, 0, indexed, found - indexed, 0));
    }
}

#[test]
fn archives_that_zip_made_of_a_pipe_are_read() {
    let archive = Archive::new();
    let bytes = object(1, 5000);
    for (name, arguments) in [("file.zip", vec!["-q", "file.zip", "-"]), ("pipe.zip", vec!["-q", "-", "-"])] {
        let mut zip = Command::new("zip");
        zip.args(arguments).current_dir(archive.root()).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A machine without Info-ZIP has the forms of the test above.
        let Ok(mut running) = zip.spawn() else { return };
        running.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = running.wait_with_output().unwrap();
        assert!(output.status.success());
        if name == "pipe.zip" {
            archive.put(name, &output.stdout);
        }
    }
    let told = archive.scan();
    assert_eq!((told.summary.indexed, told.summary.failed), (2, 0), "{told:?}");
    assert!(archive.bytes_of(1) == bytes);
}

#[test]
fn archives_that_others_made_are_read_byte_for_byte() {
    let archive = Archive::new();
    let source = archive.directory.path().join("source");
    fs::create_dir_all(source.join("sub/folder")).unwrap();
    for number in 0..40 {
        fs::write(source.join(format!("sub/folder/{number}.dcm")), object(number, 5000 * number as usize)).unwrap();
    }
    let mut made = 0;
    for (name, format, flags) in [
        ("gnu.tar", "gnu", "-cf"),
        ("pax.tar", "pax", "-cf"),
        ("v7.tar", "v7", "-cf"),
        ("ustar.tar.gz", "ustar", "-czf"),
    ] {
        let mut tar = Command::new("tar");
        tar.args([&format!("--format={format}"), flags]).arg(archive.path(name)).arg("-C").arg(&source).arg(".");
        if tar.status().is_ok_and(|status| status.success()) {
            made += 1;
        }
    }
    if let Some(mut python) = peers::python_peer("make_zip.py") {
        peers::run(python.arg(archive.root()).arg(&source)).expect_success();
        made += 3;
    }
    let told = archive.scan();
    assert_eq!(told.numbers(), (made * 40, made * 40, 0, 0, 0, 0), "{:?}", told.events);
    let mut reader = Reader::open(archive.index()).unwrap();
    for number in 0..40 {
        let locations = reader.locations(&format!("1.2.1.1.{number}")).unwrap();
        assert_eq!(locations.len() as u64, made);
        for location in locations {
            let mut bytes = Vec::new();
            store::open(&location).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == object(number, 5000 * number as usize), "{location:?}");
        }
    }
}
