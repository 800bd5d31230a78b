//! DICOMDIRs compared with the files of their folders.

use std::fs;
use std::path::Path;

use super::*;
use crate::util::archives::{Keep, Zip};

/// Appends an element in Explicit VR Little Endian.
fn element(bytes: &mut Vec<u8>, tag: [u16; 2], vr: &[u8; 2], value: &[u8]) {
    bytes.extend_from_slice(&tag[0].to_le_bytes());
    bytes.extend_from_slice(&tag[1].to_le_bytes());
    bytes.extend_from_slice(vr);
    match vr {
        b"SQ" | b"OB" => {
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        }
        _ => bytes.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes()),
    }
    bytes.extend_from_slice(value);
}

/// Builds a DICOMDIR with a record for each file. All offsets lead to the first record.
fn dicomdir(file_ids: &[&str]) -> Vec<u8> {
    let mut records = Vec::new();
    for file_id in file_ids {
        let mut record = Vec::new();
        element(&mut record, [4, 0x1400], b"UL", &396_u32.to_le_bytes());
        element(&mut record, [4, 0x1410], b"US", &[0xFF, 0xFF]);
        element(&mut record, [4, 0x1420], b"UL", &396_u32.to_le_bytes());
        element(&mut record, [4, 0x1430], b"CS", b"IMAGE ");
        let padding = if file_id.len() % 2 == 1 { " " } else { "" };
        element(&mut record, [4, 0x1500], b"CS", format!("{file_id}{padding}").as_bytes());
        records.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
        records.extend_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
        records.extend_from_slice(&record);
    }
    let mut meta = Vec::new();
    element(&mut meta, [2, 1], b"OB", &[0, 1]);
    element(&mut meta, [2, 2], b"UI", b"1.2.840.10008.1.3.10");
    element(&mut meta, [2, 0x10], b"UI", b"1.2.840.10008.1.2.1\0");
    let mut bytes = vec![0; 128];
    bytes.extend_from_slice(b"DICM");
    element(&mut bytes, [2, 0], b"UL", &u32::try_from(meta.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&meta);
    element(&mut bytes, [4, 0x1130], b"CS", b"TEST");
    element(&mut bytes, [4, 0x1220], b"SQ", &records);
    bytes
}

impl Archive {
    fn put_dicomdir(&self, inside: &str, file_ids: &[&str]) {
        fs::create_dir_all(self.path(inside).parent().unwrap()).unwrap();
        fs::write(self.path(inside), dicomdir(file_ids)).unwrap();
    }
}

#[test]
fn what_is_listed_and_missing_or_there_and_not_listed_is_told() {
    let archive = Archive::new();
    archive.put_dicomdir("cd/DICOMDIR", &["IMAGES\\IM1", "IMAGES\\IM2", "IMAGES\\IM3"]);
    archive.write("cd/images/im1.;1", 1);
    archive.write("cd/IMAGES/IM2", 2);
    archive.write("cd/EXTRA/IM4", 4);
    fs::write(archive.path("cd/README.TXT"), "no object").unwrap();
    let told = archive.scan();
    // The DICOMDIR, three instances, the text, and the file that should be there.
    assert_eq!(told.numbers(), (6, 3, 0, 0, 1, 2), "{told:?}");
    assert_eq!(told.summary.unlisted, 1);
    assert_eq!(
        told.events,
        [
            "skipped cd/DICOMDIR dicomdir",
            "unlisted cd/DICOMDIR!/EXTRA/IM4",
            "failed cd/DICOMDIR!/IMAGES/IM3 dicomdir-file-missing",
            "failed cd/README.TXT not-dicom",
        ]
    );
    archive.assert_failures(&["cd/README.TXT not-dicom", "cd/DICOMDIR!/IMAGES/IM3 dicomdir-file-missing"]);

    let before = fs::read(archive.index()).unwrap();
    let again = archive.scan();
    assert_eq!(again.numbers(), (6, 0, 0, 3, 1, 2));
    assert_eq!(again.events, told.events, "told again");
    assert!(fs::read(archive.index()).unwrap() == before, "the index has changed");

    // The missing file turns up, though the DICOMDIR is as it was.
    archive.write("cd/IMAGES/IM3", 3);
    assert_eq!(archive.scan().numbers(), (6, 1, 0, 3, 1, 1));
    archive.assert_failures(&["cd/README.TXT not-dicom"]);
    fs::remove_file(archive.path("cd/DICOMDIR")).unwrap();
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.unlisted, told.summary.missing), ((5, 0, 0, 4, 0, 1), 0, 0));
}

#[test]
fn a_listed_file_is_found_in_any_form_of_its_name() {
    let forms = [
        ("DICOM\\IM1", "DICOM/IM1.dcm"),
        ("DICOM/IM1", "DICOM/IM1"),
        ("DICOM/IM1", "dicom/im1.DCM"),
        ("DICOM\\IM1", "dicom/im1"),
        ("DICOM\\IM1", "DICOM/IM1."),
        ("DICOM\\IM1", "DICOM/IM1.;1"),
        ("DICOM\\IM1", "DICOM/IM1.DCM;2"),
        ("DICOM\\IM1", "DICOM/IM1.mr"),
        ("DICOM\\IM1.DCM", "DICOM/IM1"),
        ("dicom\\im1.dcm", "DICOM/IM1.DCM;1"),
    ];
    for (file_id, file) in forms {
        let archive = Archive::new();
        archive.put_dicomdir("DICOMDIR", &[file_id]);
        archive.write(file, 1);
        let told = archive.scan();
        assert_eq!((told.numbers(), told.summary.unlisted), ((2, 1, 0, 0, 1, 0), 0), "{file_id} {file}: {told:?}");
    }
}

#[test]
fn another_file_is_not_taken_for_a_listed_one() {
    let archive = Archive::new();
    // One file for two references; a text, and an object of another name.
    archive.put_dicomdir("DICOMDIR", &["IM1", "IM1.DCM", "IM2", "IM3", "IM4"]);
    archive.write("IM1.dcm", 1);
    archive.write("IM30.dcm", 3);
    archive.write("IM4", 4);
    archive.write("IM4.dcm", 5);
    fs::write(archive.path("IM2.txt"), "no object").unwrap();
    let told = archive.scan();
    let about: Vec<_> = told.events.iter().filter(|event| event.contains("DICOMDIR!/")).collect();
    assert_eq!(
        about,
        [
            "failed DICOMDIR!/IM1 dicomdir-file-missing",
            "failed DICOMDIR!/IM2 dicomdir-file-missing",
            "failed DICOMDIR!/IM3 dicomdir-file-missing",
            "unlisted DICOMDIR!/IM30.dcm",
            "unlisted DICOMDIR!/IM4.dcm",
        ]
    );
}

#[test]
fn a_dicomdir_in_an_archive_accuses_no_member() {
    let archive = Archive::new();
    let object = objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1");
    let zip = Zip::default().with("DICOMDIR", &dicomdir(&["DICOM\\IM1"]), Keep::Deflated).with(
        "DICOM/IM1.dcm",
        &object,
        Keep::Deflated,
    );
    fs::write(archive.path("x.zip"), zip.finish()).unwrap();
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.unlisted), ((2, 1, 0, 0, 1, 0), 0), "{told:?}");
}

#[test]
fn references_do_not_lead_out_of_the_folder() {
    let archive = Archive::new();
    archive.write("outside", 1);
    archive.put_dicomdir("cd/DICOMDIR", &["..\\outside", "/etc/passwd", "A\\..\\..\\outside", "IM\x1b[31m", ""]);
    let told = archive.scan();
    assert_eq!(told.numbers(), (7, 1, 0, 0, 1, 5), "{told:?}");
    let bad = told.events.iter().filter(|event| event.ends_with("dicomdir-bad-reference")).count();
    assert_eq!(bad, 5);
}

#[test]
fn a_damaged_dicomdir_is_told_and_accuses_no_file() {
    let archive = Archive::new();
    let whole = dicomdir(&["IM1", "IM2"]);
    fs::write(archive.path("DICOMDIR"), &whole[..whole.len() - 5]).unwrap();
    archive.write("IM1", 1);
    archive.write("IM2", 2);
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.unlisted), ((4, 2, 0, 0, 1, 1), 0));
    archive.assert_failures(&["DICOMDIR!/(records) dicomdir-damaged"]);
}

#[test]
fn a_folder_with_a_dicomdir_of_its_own_is_that_ones_business() {
    let archive = Archive::new();
    archive.put_dicomdir("DICOMDIR", &["IM1"]);
    archive.write("IM1", 1);
    archive.put_dicomdir("second/DICOMDIR", &["IM2"]);
    archive.write("second/IM2", 2);
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.unlisted), ((4, 2, 0, 0, 2, 0), 0), "{told:?}");
}

#[test]
fn several_dicomdirs_of_one_folder_tell_each_file_once() {
    let archive = Archive::new();
    archive.put_dicomdir("cd/DICOMDIR", &["IM1", "IM8", "IM9"]);
    archive.put_dicomdir("cd/DICOMDIR;1", &["IM1", "IM2", "IM9"]);
    for number in 1..=3 {
        archive.write(format!("cd/IM{number}"), number);
    }
    let told = archive.scan();
    assert_eq!(
        told.events,
        [
            "skipped cd/DICOMDIR dicomdir",
            "unlisted cd/DICOMDIR!/IM3",
            "failed cd/DICOMDIR!/IM8 dicomdir-file-missing",
            "failed cd/DICOMDIR!/IM9 dicomdir-file-missing",
            "skipped cd/DICOMDIR;1 dicomdir",
        ]
    );
}

#[test]
fn to_scan_a_dicomdir_is_to_scan_its_folder() {
    let archive = Archive::new();
    archive.put_dicomdir("cd/DICOMDIR", &["IM1"]);
    archive.write("cd/IM1", 1);
    archive.write("elsewhere", 2);
    let told = archive.scan_paths(&[archive.path("cd/DICOMDIR")]);
    assert_eq!(told.numbers(), (2, 1, 0, 0, 1, 0));
}

#[test]
fn a_real_file_set_agrees_with_its_dicomdir() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real/fileset");
    let archive = Archive::new();
    let told = archive.scan_paths(&[source.join("DICOMDIR")]);
    assert!(told.summary.indexed > 10, "{told:?}");
    // One of them lists nothing. What another one lists is listed all the same.
    for name in ["DICOMDIR", "DICOMDIR-implicit", "DICOMDIR-bigEnd", "DICOMDIR-empty.dcm"] {
        let about = format!("/{name}!/");
        assert!(!told.events.iter().any(|event| event.contains(&about)), "{:?}", told.events);
    }
}
