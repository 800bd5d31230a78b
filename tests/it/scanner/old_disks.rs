//! Contents of old disks. Each file is counted. A file that is not indexed is classified correctly.

use std::fs;
use std::io::Write as _;

use super::*;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

/// Appends an element in Implicit VR Little Endian.
fn implicit(bytes: &mut Vec<u8>, tag: (u16, u16), value: &[u8]) {
    bytes.extend_from_slice(&tag.0.to_le_bytes());
    bytes.extend_from_slice(&tag.1.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(value);
}

/// Builds a data set in Implicit VR Little Endian, with `more` between groups 0010 and 0020.
fn data_set(instance: u32, more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Without padding: values of odd length.
    implicit(&mut bytes, (0x0008, 0x0016), CT.as_bytes());
    implicit(&mut bytes, (0x0008, 0x0018), format!("1.2.1.1.{instance}").as_bytes());
    implicit(&mut bytes, (0x0008, 0x0060), b"CT");
    implicit(&mut bytes, (0x0010, 0x0020), b"P1");
    more(&mut bytes);
    implicit(&mut bytes, (0x0020, 0x000d), b"1.2.1");
    implicit(&mut bytes, (0x0020, 0x000e), b"1.2.1.1");
    bytes
}

/// Adds a preamble, and a group 0002 that names a transfer syntax.
fn with_meta(transfer_syntax: &str, data_set: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend_from_slice(b"DICM\x02\0\x10\0UI");
    let padded = format!("{transfer_syntax}{}", if transfer_syntax.len().is_multiple_of(2) { "" } else { "\0" });
    bytes.extend_from_slice(&u16::try_from(padded.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(padded.as_bytes());
    bytes.extend_from_slice(data_set);
    bytes
}

#[test]
fn what_wrote_files_before_there_was_a_file_format_is_read() {
    let archive = Archive::new();
    let put = |name: &str, bytes: Vec<u8>| fs::write(archive.path(name), bytes).unwrap();
    put("IM0001", data_set(1, |_| {}));
    // ACR-NEMA: the length of the group first.
    let mut acr = Vec::new();
    implicit(&mut acr, (0x0008, 0x0000), &100_u32.to_le_bytes());
    implicit(&mut acr, (0x0008, 0x0001), &1000_u32.to_le_bytes());
    acr.extend(data_set(2, |_| {}));
    put("IM0002", acr);
    put("wrong-syntax", with_meta("1.2.840.10008.1.2.1", &data_set(3, |_| {})));
    put("no-length", with_meta("1.2.840.10008.1.2", &data_set(4, |_| {})));
    let huge = vec![7; 3 << 20];
    put("huge-private", with_meta("1.2.840.10008.1.2", &data_set(5, |bytes| implicit(bytes, (0x0011, 0x1010), &huge))));
    put("cut-in-private", data_set(6, |bytes| implicit(bytes, (0x0011, 0x1010), &huge))[..1 << 20].to_vec());
    put("text", b"IM0001 IM0002 and so on, nothing that anybody could take for an object".repeat(9).to_vec());
    let told = archive.scan();
    let indexed: Vec<_> = archive.instances().into_keys().collect();
    assert_eq!(indexed, (1..6).map(|number| format!("1.2.1.1.{number}")).collect::<Vec<_>>(), "{told:#?}");
    assert_eq!(told.numbers(), (7, 5, 0, 0, 0, 2));
    assert!(told.events.contains(&"faults wrong-syntax".to_owned()), "{told:#?}");
    archive.assert_failures(&["cut-in-private truncated", "text not-dicom"]);
}

#[test]
fn what_changes_under_the_scan_is_read_as_it_is_or_named_and_right_after_the_next_scan() {
    let mut archive = Archive::new();
    archive.options.jobs = Jobs::fixed(1);
    for number in 1..6 {
        archive.write(format!("{number}"), number);
    }
    let (removed, cut, grown) = (archive.path("1"), archive.path("2"), archive.path("3"));
    let replaced = archive.path("4");
    let at = |name: &str, act: Box<dyn Fn() + Send + Sync>| fail::cfg_callback(archive.fail_point(name), act).unwrap();
    at("1", Box::new(move || fs::remove_file(&removed).unwrap()));
    at("2", Box::new(move || fs::File::options().write(true).open(&cut).unwrap().set_len(150).unwrap()));
    at("3", Box::new(move || fs::File::options().append(true).open(&grown).unwrap().write_all(&[0; 4000]).unwrap()));
    let replace = move || {
        fs::remove_file(&replaced).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &replaced, rustix::fs::Mode::RWXU).unwrap();
    };
    at("4", Box::new(replace));
    let told = archive.scan();
    assert_eq!(told.numbers(), (5, 2, 0, 0, 2, 1), "{told:#?}");
    assert!(told.events.contains(&"skipped 1 vanished".to_owned()), "{told:#?}");
    assert!(told.events.contains(&"skipped 4 special-file".to_owned()), "{told:#?}");
    for name in ["1", "2", "3", "4"] {
        fail::remove(archive.fail_point(name));
    }
    archive.write("2", 2);
    let told = archive.scan();
    assert_eq!(told.numbers(), (4, 1, 0, 2, 1, 0), "{told:#?}");
    archive.assert_failures(&[]);
}

#[test]
fn a_directory_of_100_000_files_is_accounted_for() {
    let archive = Archive::new();
    for number in 0..100_000 {
        fs::File::create(archive.path(format!("{number}"))).unwrap();
    }
    archive.write("100000", 1);
    let told = archive.scan();
    assert_eq!(told.numbers(), (100_001, 1, 0, 0, 0, 100_000));
    assert_eq!(archive.scan().numbers(), (100_001, 0, 0, 1, 0, 100_000));
}

#[test]
fn what_the_index_has_of_a_file_that_cannot_be_read_for_now_stays() {
    let mut archive = Archive::new();
    archive.options.vanished = Vanished::Prune;
    let outside = tempfile::tempdir().unwrap();
    archive.write("a", 1);
    archive.write("b", 2);
    let object = outside.path().join("object");
    fs::rename(archive.path("b"), &object).unwrap();
    let link = |to: &std::path::Path| std::os::unix::fs::symlink(to, archive.path("b")).unwrap();
    link(&object);
    archive.scan();
    assert_eq!(archive.instances().len(), 2);
    // A link to itself: neither there nor gone (ELOOP), as with a server that answers with an I/O
    // error.
    fs::remove_file(archive.path("b")).unwrap();
    link(&archive.path("b"));
    let told = archive.scan();
    assert_eq!((told.numbers(), told.summary.removed), ((2, 0, 0, 1, 0, 1), 0));
    assert!(told.events.contains(&"failed b unreadable".to_owned()), "{:?}", told.events);
    assert_eq!(archive.instances().len(), 2);
    fs::remove_file(archive.path("b")).unwrap();
    link(&object);
    assert_eq!(archive.scan().numbers(), (2, 0, 0, 2, 0, 0));
}
