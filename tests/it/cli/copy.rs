//! `dcmdex copy`: files of a cohort under names of a template.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::Signal;

use super::faults::{SUCCESS, associated, store, uid};
use super::serve::Node;
use super::*;
use crate::util::archives::{Keep, Zip};
use crate::util::disks::Mount;
use crate::util::objects;

/// An index over three studies in files and one in a zip. Two studies have the same description.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    for (number, description) in [(1, "Kopf/Hals"), (2, "kopf/hals"), (3, "../../../../tmp/dcmdex-stray")] {
        let elements: &[(u16, u16, &[u8; 2], &str)] =
            &[(0x0008, 0x0020, b"DA", "20240131"), (0x0008, 0x1030, b"LO", description)];
        fs::write(place.path(format!("archive/{number}.dcm")), objects::file_with(number, elements)).unwrap();
    }
    let member = objects::file_with(4, &[(0x0008, 0x1030, b"LO", "packed")]);
    fs::write(place.path("archive/a.zip"), Zip::default().with("m.dcm", &member, Keep::Deflated).finish()).unwrap();
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    place
}

fn copy<'a>(place: &Place, arguments: impl IntoIterator<Item = &'a str>) -> Run {
    place.run(["copy", "--index", "x.db"].into_iter().chain(arguments))
}

/// All files below a directory, relative to it.
fn files(place: &Place, directory: &str) -> BTreeSet<String> {
    let root = place.path(directory);
    let mut found = BTreeSet::new();
    let mut waiting = vec![root.clone()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// The rows of a manifest: file, how and note by SOP Instance UID.
fn manifest(text: &str) -> std::collections::BTreeMap<String, (String, String, String)> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows = reader.records().map(|row| row.unwrap());
    rows.map(|row| (row[7].to_owned(), (row[0].to_owned(), row[3].to_owned(), row[4].to_owned()))).collect()
}

const TEMPLATE: &str = "{PatientID}/{StudyDate}_{StudyDescription}/{InstanceNumber:05}.dcm";

#[test]
fn a_reflink_shares_the_blocks_and_not_the_file() {
    let Some(disk) = Mount::with_reflinks() else { return };
    let (archive, out) = (disk.path().join("archive"), disk.path().join("out"));
    fs::create_dir(&archive).unwrap();
    let object = objects::file_with(1, &[(0x0008, 0x1030, b"LO", "one")]);
    // Larger than what btrfs keeps beside the name of a file.
    let object = [object, vec![0; 1 << 20]].concat();
    fs::write(archive.join("1.dcm"), &object).unwrap();
    let place = Place::new();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    place.run(["scan", "--index", "x.db", &text(&archive)]).expect(0);
    copy(&place, ["--to", &text(&out), "--as", "{SOPInstanceUID}.dcm", "--by", "reflink"]).expect(0);
    let clone = out.join("1.2.1.1.1.dcm");
    assert_eq!(fs::read(&clone).unwrap(), object);
    assert_eq!(manifest(&fs::read_to_string(out.join("manifest.csv")).unwrap())["1.2.1.1.1"].1, "reflink");
    assert_ne!(fs::metadata(&clone).unwrap().ino(), fs::metadata(archive.join("1.dcm")).unwrap().ino());
    // Whoever writes into the clone does not change the archive.
    fs::write(&clone, b"changed").unwrap();
    assert_eq!(fs::read(archive.join("1.dcm")).unwrap(), object);
    // Without reflinks between the two, nothing is made, and the user hears what to do.
    let refused = copy(&place, ["--to", "elsewhere", "--as", "{SOPInstanceUID}.dcm", "--by", "reflink"]);
    assert!(refused.code != 0 && refused.stderr.contains("hint: --by copy"), "{refused:?}");
}

#[test]
fn names_come_from_values_and_never_leave_the_folder() {
    let place = place();
    for by in ["hard-link", "symbolic-link", "copy"] {
        let told = copy(&place, ["--to", by, "--by", by, "--as", TEMPLATE]).expect(0).stderr;
        assert!(told.contains("4 files") && told.contains("1 names got a number"), "{told}");
        let expected = [
            "P1/20240131_Kopf_Hals/00001.dcm",
            // A file system that ignores case would take it for the first one.
            "P1/20240131_kopf_hals/00001~2.dcm",
            "P1/20240131_.._.._.._.._tmp_dcmdex-stray/00001.dcm",
            "P1/_packed/00001.dcm",
            "manifest.csv",
        ];
        let made = files(&place, by);
        let folded = |names: &BTreeSet<String>| names.iter().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>();
        assert_eq!(folded(&made), folded(&expected.map(str::to_owned).into()), "{made:?}");
        let rows = manifest(&fs::read_to_string(place.path(by).join("manifest.csv")).unwrap());
        assert_eq!(rows.len(), 4);
        assert_eq!(rows["1.2.4.1.1"].1, "copy");
        for number in 1..=3 {
            let (file, how, _) = &rows[&format!("1.2.{number}.1.1")];
            assert_eq!(how, by);
            let original = place.path(format!("archive/{number}.dcm"));
            assert_eq!(fs::read(place.path(by).join(file)).unwrap(), fs::read(&original).unwrap());
            let is_same =
                fs::metadata(place.path(by).join(file)).unwrap().ino() == fs::metadata(&original).unwrap().ino();
            assert_eq!(is_same, by != "copy");
        }
        assert_eq!(rows.values().filter(|(_, _, note)| note.contains("another file has the name")).count(), 1);
    }
    assert!(!Path::new("/tmp/dcmdex-stray").exists());
}

#[test]
fn a_second_run_makes_only_what_is_new() {
    let place = place();
    copy(&place, ["--to", "out", "--as", TEMPLATE]).expect(0);
    let before = files(&place, "out");
    let told = copy(&place, ["--to", "out", "--as", TEMPLATE]).expect(0).stderr;
    assert!(told.starts_with("0 files") && told.contains("4 were there"), "{told}");
    assert_eq!(files(&place, "out"), before);
    objects::write(&place.path("archive/9.dcm"), 9, 1, 1);
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    let told = copy(&place, ["--to", "out", "--as", TEMPLATE]).expect(0).stderr;
    assert!(told.starts_with("1 files") && told.contains("4 were there"), "{told}");
    assert_eq!(files(&place, "out").len(), before.len() + 1);
}

#[test]
fn a_run_that_was_killed_goes_on_whatever_it_left() {
    let place = place();
    for by in ["hard-link", "symbolic-link", "copy"] {
        copy(&place, ["--to", by, "--by", by, "--as", TEMPLATE]).expect(0);
        let whole = files(&place, by);
        let manifest_path = place.path(by).join("manifest.csv");
        let text = fs::read(&manifest_path).unwrap();
        // Every length that a kill can leave of the manifest, with all files or without the last.
        for end in [0, 5, text.len() / 2, text.len() - 1, text.len()] {
            let _ = fs::remove_file(&manifest_path);
            fs::write(place.path(by).join("manifest.csv.partial"), &text[..end]).unwrap();
            let file = place.path(by).join("P1/20240131_Kopf_Hals/00001.dcm");
            let _ = fs::remove_file(&file);
            let temporary = file.with_file_name(".dcmdex-copy.partial");
            fs::write(&temporary, "half").unwrap();
            copy(&place, ["--to", by, "--by", by, "--as", TEMPLATE]).expect(0);
            // Links need no temporary name.
            assert!(by != "copy" || !temporary.exists());
            let _ = fs::remove_file(temporary);
            assert_eq!(files(&place, by), whole, "{by}: {end}");
            let rows = manifest(&fs::read_to_string(&manifest_path).unwrap());
            assert_eq!(rows.len(), 4, "{by}: {end}");
        }
    }
}

#[test]
fn no_file_is_overwritten_and_no_link_is_followed() {
    let place = place();
    fs::create_dir_all(place.path("out/P1/20240131_Kopf_Hals")).unwrap();
    fs::write(place.path("out/P1/20240131_Kopf_Hals/00001.dcm"), "mine").unwrap();
    copy(&place, ["--to", "out", "--as", TEMPLATE, "StudyInstanceUID=1.2.1"]).expect(0);
    assert_eq!(fs::read_to_string(place.path("out/P1/20240131_Kopf_Hals/00001.dcm")).unwrap(), "mine");
    assert!(place.path("out/P1/20240131_Kopf_Hals/00001~2.dcm").is_file());
    // A directory of the destination that leads elsewhere.
    fs::create_dir_all(place.path("elsewhere")).unwrap();
    fs::create_dir_all(place.path("trap")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("trap/P1")).unwrap();
    copy(&place, ["--to", "trap", "--as", TEMPLATE, "StudyInstanceUID=1.2.1"]).expect(2);
    assert_eq!(files(&place, "elsewhere").len(), 0);
    // A manifest that leads elsewhere.
    fs::create_dir_all(place.path("linked")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere/x"), place.path("linked/manifest.csv.partial")).unwrap();
    copy(&place, ["--to", "linked", "StudyInstanceUID=1.2.1"]).expect(2);
    assert_eq!(files(&place, "elsewhere").len(), 0);
    // A manifest of somebody else.
    fs::create_dir_all(place.path("other")).unwrap();
    fs::write(place.path("other/manifest.csv"), "a,b\r\n1,2\r\n").unwrap();
    assert!(copy(&place, ["--to", "other"]).expect(2).stderr.contains("no manifest of dcmdex"));
}

/// An index over objects whose studies have these descriptions.
fn place_of(descriptions: &[&str]) -> Place {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    for (number, description) in (1..).zip(descriptions) {
        let object = objects::file_with(number, &[(0x0008, 0x1030, b"LO", description)]);
        fs::write(place.path(format!("archive/{number}.dcm")), object).unwrap();
    }
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    place
}

/// Every file that the manifest of a folder names has the bytes of its object.
fn check_copies(place: &Place, directory: &str) {
    for (uid, (file, ..)) in manifest(&fs::read_to_string(place.path(directory).join("manifest.csv")).unwrap()) {
        let number = uid.split('.').nth(2).unwrap();
        let original = fs::read(place.path(format!("archive/{number}.dcm"))).unwrap();
        assert_eq!(fs::read(place.path(directory).join(&file)).unwrap(), original, "{file}");
    }
}

#[test]
fn a_temporary_file_takes_the_place_of_no_other_file() {
    let place = place_of(&["a.partial", "b", "a", "b.partial", "c"]);
    fs::create_dir(place.path("out")).unwrap();
    fs::write(place.path("out/c.partial"), "mine").unwrap();
    copy(&place, ["--to", "out", "--as", "{StudyDescription}"]).expect(0);
    let expected = ["a", "a.partial", "b", "b.partial", "c", "c.partial", "manifest.csv"];
    assert_eq!(files(&place, "out"), expected.map(str::to_owned).into());
    assert_eq!(fs::read_to_string(place.path("out/c.partial")).unwrap(), "mine");
    check_copies(&place, "out");
}

#[test]
fn no_object_gets_a_name_that_the_copy_needs_for_itself() {
    let place = place_of(&["manifest.csv", "MANIFEST.CSV.partial", "DicomDir", "DICOMDIR.partial"]);
    let expected = ["_DICOMDIR.partial", "_DicomDir", "_MANIFEST.CSV.partial", "_manifest.csv", "manifest.csv"];
    copy(&place, ["--to", "out", "--as", "{StudyDescription}"]).expect(0);
    assert_eq!(files(&place, "out"), expected.map(str::to_owned).into());
    check_copies(&place, "out");
    // No folder gets one either.
    copy(&place, ["--to", "folders", "--as", "{StudyDescription}/{StudyDescription}"]).expect(0);
    let expected = expected.map(|name| match name.strip_prefix('_') {
        Some(inner) => format!("{name}/{inner}"),
        None => name.to_owned(),
    });
    assert_eq!(files(&place, "folders"), expected.into());
    check_copies(&place, "folders");
    for name in ["out.zip", "out.tar"] {
        copy(&place, ["--to", name, "--as", "{StudyDescription}/x"]).expect(0);
        // The manifest in it is no DICOM.
        place.run(["scan", "--index", &format!("{name}.db"), name]).expect(1);
        let found = place.run(["find", "--index", &format!("{name}.db"), "--level", "IMAGE", "path"]).expect(0).stdout;
        assert!(found.contains("_manifest.csv/x") && found.contains("_MANIFEST.CSV.partial/x"), "{found}");
    }
}

#[test]
fn a_file_that_changed_or_is_gone_is_left_out_and_named() {
    let place = place();
    fs::remove_file(place.path("archive/1.dcm")).unwrap();
    fs::write(place.path("archive/2.dcm"), "other").unwrap();
    // The member of the same name is another object now.
    let other = objects::file_with(9, &[]);
    fs::write(place.path("archive/a.zip"), Zip::default().with("m.dcm", &other, Keep::Deflated).finish()).unwrap();
    for (to, by) in [("linked", "hard-link"), ("copied", "copy"), ("out.zip", "copy"), ("out.tar", "copy")] {
        let run = copy(&place, ["--to", to, "--by", by]).expect(1);
        for said in ["archive/1.dcm: it is gone", "archive/2.dcm: it has changed", "a.zip!/m.dcm: it has changed"] {
            assert!(run.stderr.contains(said), "{to}: {run:?}");
        }
        assert!(run.stderr.contains("1 files in"), "{to}: {run:?}");
        if !to.contains('.') {
            let rows = manifest(&fs::read_to_string(place.path(to).join("manifest.csv")).unwrap());
            assert_eq!([1, 2, 4].map(|number| rows[&format!("1.2.{number}.1.1")].1.as_str()), ["failed"; 3]);
            assert_eq!(files(&place, to).len(), 2);
        }
    }
}

#[test]
fn the_next_copy_is_taken_where_the_first_file_is_not_there() {
    let place = place();
    let copied = Command::new("cp").args(["-a", "archive", "mirror"]).current_dir(place.path("")).status().unwrap();
    assert!(copied.success());
    place.run(["scan", "--index", "x.db", "mirror"]).expect(0);
    fs::rename(place.path("archive"), place.path("away")).unwrap();
    for (to, by) in [
        ("linked", "hard-link"),
        ("symbolic", "symbolic-link"),
        ("copied", "copy"),
        ("o.zip", "copy"),
        ("o.tar", "copy"),
    ] {
        let run = copy(&place, ["--to", to, "--by", by]).expect(0);
        assert!(run.stderr.contains("4 files in"), "{to}: {run:?}");
        if !to.contains('.') {
            let text = fs::read_to_string(place.path(to).join("manifest.csv")).unwrap();
            assert_eq!(text.matches("/mirror/").count(), 4, "{text}");
            assert_eq!(text.matches("its first file is not as indexed").count(), 4, "{text}");
        }
    }
    copy(&place, ["--to", "media", "--dicomdir"]).expect(0);
    // Members of archives have no path.
    let paths = place.run(["find", "--index", "x.db", "--paths0"]).stdout;
    assert_eq!(paths.split_terminator('\0').filter(|path| path.contains("/mirror/")).count(), 3, "{paths}");
    // Another object under the same name is no copy.
    fs::write(place.path("mirror/1.dcm"), "other").unwrap();
    let run = copy(&place, ["--to", "other", "PatientID=*"]).expect(1);
    assert!(run.stderr.contains("archive/1.dcm: it is gone"), "{run:?}");
}

#[test]
fn tables_are_utf_8_whatever_bytes_a_path_has() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.dcm");
    fs::write(place.path("archive").join(name), objects::file_with(1, &[])).unwrap();
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    copy(&place, ["--to", "out"]).expect(0);
    let manifest = fs::read_to_string(place.path("out/manifest.csv")).unwrap();
    assert!(manifest.contains("/caf\u{fffd}.dcm"), "{manifest}");
    assert!(manifest.contains(",path_hex 2f") && manifest.contains("2f636166e92e64636d,"), "{manifest}");
    let find = ["find", "--index", "x.db", "--level", "IMAGE", "--format", "csv", "path"];
    let found = place.command().args(find).output().unwrap().stdout;
    assert!(String::from_utf8(found).unwrap().contains("/caf\u{fffd}.dcm"));
}

#[test]
fn a_received_object_that_is_damaged_is_not_copied() {
    let place = Place::new();
    let node = Node::start(&place, &["--index", "x.db"]);
    let mut peer = associated(&node);
    for number in 0..2 {
        assert_eq!(store(&mut peer, number, 1000), SUCCESS);
    }
    peer.release();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let damaged = place.path(format!("dcmdex-data/objects/1.2.3/1.2.3.4/{}.dcm", uid(1)));
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let is_left_out = |to: &str| {
        let run = copy(&place, ["--to", to]).expect(1);
        assert!(run.stderr.contains(&format!("{}.dcm: it is damaged", uid(1))), "{to}: {run:?}");
        assert!(run.stderr.contains("1 files in"), "{to}: {run:?}");
    };
    ["copied", "out.zip", "out.tar"].into_iter().for_each(is_left_out);
    place.run(["correct", "--index", "x.db", "StudyInstanceUID=1.2.3", "--set", "PatientID=NEW", "--yes"]).expect(0);
    ["corrected", "corrected.zip"].into_iter().for_each(is_left_out);
}

#[test]
fn a_zip_and_a_tar_are_read_again_with_all_their_members() {
    let place = place();
    for name in ["out.zip", "out.tar"] {
        copy(&place, ["--to", name, "--as", TEMPLATE]).expect(0);
        assert!(!place.path(format!("{name}.partial")).exists());
        // The manifest in it is no DICOM.
        place.run(["scan", "--index", &format!("{name}.db"), name]).expect(1);
        let count = place.run(["find", "--index", &format!("{name}.db"), "--count", "--level", "IMAGE"]).expect(0);
        assert_eq!(count.stdout, "4\n", "{name}");
        let again = copy(&place, ["--to", name]).expect(2);
        assert!(again.stderr.contains("exists"), "{again:?}");
    }
    let refused = copy(&place, ["--to", "x.zip", "--by", "hard-link"]).expect(2);
    assert!(refused.stderr.contains("no links") && !place.path("x.zip").exists(), "{refused:?}");
    copy(&place, ["--to", "none.zip", "PatientID=none"]).expect(1);
    assert!(!place.path("none.zip").exists() && !place.path("none.zip.partial").exists());
}

#[test]
fn a_destination_that_fills_up_is_said_and_nothing_half_written_has_a_final_name() {
    let Some(disk) = Mount::of_bytes(512 << 10) else { return };
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    for number in 1..=4 {
        let object = [objects::file_with(number, &[]), vec![0; 200 << 10]].concat();
        fs::write(place.path(format!("archive/{number}.dcm")), object).unwrap();
    }
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    for name in ["out", "out.zip", "out.tar"] {
        let to = disk.path().join(name);
        let full = copy(&place, ["--to", to.to_str().unwrap(), "--as", "{SOPInstanceUID}", "--by", "copy"]).expect(2);
        assert!(full.stderr.contains("No space left on device"), "{name}: {full:?}");
        assert!(!full.stderr.contains("panicked"), "{name}: {full:?}");
        if !to.is_dir() {
            assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0, "{name}");
            continue;
        }
        for file in files(&place, to.to_str().unwrap()) {
            let number = file.split('.').nth(2).unwrap_or_default();
            let is_whole =
                || fs::read(to.join(&file)).unwrap() == fs::read(place.path(format!("archive/{number}.dcm"))).unwrap();
            assert!(file == "manifest.csv.partial" || is_whole(), "{file}");
        }
        fs::remove_dir_all(&to).unwrap();
    }
}

#[test]
fn a_template_that_leads_out_is_refused() {
    let place = place();
    for template in ["/tmp/{PatientID}", "../{PatientID}", "{PatientID}/../x", "x.dcm", "{PatientNam}", "{path}"] {
        let refused = copy(&place, ["--to", "out", "--as", template]).expect(2);
        assert!(!place.path("out").exists(), "{template}: {refused:?}");
    }
}

#[test]
fn a_link_where_a_dicomdir_is_written_is_not_followed() {
    let place = place();
    fs::create_dir(place.path("cd")).unwrap();
    fs::write(place.path("other"), "of somebody else").unwrap();
    std::os::unix::fs::symlink(place.path("other"), place.path("cd/DICOMDIR.partial")).unwrap();
    let refused = copy(&place, ["--to", "cd", "--dicomdir", "--by", "hard-link"]).expect(2).stderr;
    assert!(refused.contains("cannot write"), "{refused}");
    assert_eq!(fs::read_to_string(place.path("other")).unwrap(), "of somebody else");
}

#[test]
fn a_dicomdir_lists_every_file() {
    let place = place();
    let told = copy(&place, ["--to", "cd", "--dicomdir", "--by", "hard-link"]).expect(0).stderr;
    assert!(told.starts_with("4 files"), "{told}");
    // Our own scanner finds that it lists what is there, and nothing else. The manifest is no
    // DICOM.
    place.run(["scan", "--index", "cd.db", "cd"]).expect(1);
    let status = place.run(["status", "--index", "cd.db", "--json"]).expect(0).json();
    assert_eq!((&status[0]["instances"], &status[0]["failed"]), (&4.into(), &1.into()), "{status:?}");
    assert_ne!(place.run(["report", "--index", "cd.db", "--csv", "r.csv"]).code, 2);
    let mut report = csv::Reader::from_path(place.path("r.csv")).unwrap();
    let names = report.headers().unwrap().clone();
    let about_dicomdirs: Vec<_> = (0..names.len()).filter(|at| names[*at].contains("dicomdir")).collect();
    assert_eq!(about_dicomdirs.len(), 2, "{names:?}");
    for row in report.records().map(Result::unwrap) {
        assert!(about_dicomdirs.iter().all(|at| row[*at].is_empty()), "{row:?}");
    }
    if let Some(mut dcmdump) = crate::util::peers::dcmtk("dcmdump") {
        let dump = crate::util::peers::run(dcmdump.arg(place.path("cd/DICOMDIR"))).expect_success();
        assert_eq!(dump.matches("DirectoryRecordType").count(), 3 * 4 + 1, "{dump}");
        assert_eq!(dump.matches("ReferencedFileID").count(), 4, "{dump}");
    }
    // A second run finds all of it.
    let again = copy(&place, ["--to", "cd", "--dicomdir", "--by", "hard-link"]).expect(0).stderr;
    assert!(again.contains("4 were there"), "{again}");
    copy(&place, ["--to", "cd.zip", "--dicomdir"]).expect(2);
}
