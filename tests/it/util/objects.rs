//! Small handmade objects.

use std::fs;
use std::path::Path;

/// Explicit VR Little Endian, the transfer syntax of [`file`].
const TRANSFER_SYNTAX: &str = "1.2.840.10008.1.2.1";

/// CT Image Storage.
pub(crate) const SOP_CLASS: &str = "1.2.840.10008.5.1.4.1.1.2";

/// Builds a complete CT file (PS3.10 7.1) with these UIDs and this Patient ID.
pub(crate) fn file(patient_id: &str, study: &str, series: &str, instance: &str) -> Vec<u8> {
    let mut meta = Vec::new();
    element(&mut meta, 0x0002, 0x0002, b"UI", SOP_CLASS);
    element(&mut meta, 0x0002, 0x0003, b"UI", instance);
    element(&mut meta, 0x0002, 0x0010, b"UI", TRANSFER_SYNTAX);
    let mut bytes = vec![0; 128];
    bytes.extend_from_slice(b"DICM");
    bytes.extend_from_slice(&[2, 0, 0, 0, b'U', b'L', 4, 0]);
    bytes.extend_from_slice(&u32::try_from(meta.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&meta);
    bytes.extend_from_slice(&data_set(patient_id, study, series, instance));
    bytes
}

/// Builds [`file`] with another Instance Number.
pub(crate) fn file_numbered(patient_id: &str, study: &str, series: &str, instance: &str, number: &str) -> Vec<u8> {
    let mut bytes = file(patient_id, study, series, instance);
    let last = [0x20, 0, 0x13, 0, b'I', b'S', 2, 0, b'1', b' '];
    assert!(bytes.ends_with(&last));
    bytes.truncate(bytes.len() - last.len());
    element(&mut bytes, 0x0020, 0x0013, b"IS", number);
    bytes
}

/// Builds the data set of [`file`].
pub(crate) fn data_set(patient_id: &str, study: &str, series: &str, instance: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    element(&mut bytes, 0x0008, 0x0016, b"UI", SOP_CLASS);
    element(&mut bytes, 0x0008, 0x0018, b"UI", instance);
    element(&mut bytes, 0x0008, 0x0060, b"CS", "CT");
    element(&mut bytes, 0x0010, 0x0010, b"PN", "Test^Person");
    element(&mut bytes, 0x0010, 0x0020, b"LO", patient_id);
    element(&mut bytes, 0x0020, 0x000d, b"UI", study);
    element(&mut bytes, 0x0020, 0x000e, b"UI", series);
    element(&mut bytes, 0x0020, 0x0013, b"IS", "1");
    bytes
}

/// Builds a complete file of the study `1.2.<number>`. The given elements of group 0008 come
/// between its UIDs and its Modality.
pub(crate) fn file_with(number: u32, elements: &[(u16, u16, &[u8; 2], &str)]) -> Vec<u8> {
    let (study, series, instance) = (format!("1.2.{number}"), format!("1.2.{number}.1"), format!("1.2.{number}.1.1"));
    with_elements(&file("P1", &study, &series, &instance), elements)
}

/// Adds elements of group 0008 to a file, between its UIDs and its Modality.
pub(crate) fn with_elements(whole: &[u8], elements: &[(u16, u16, &[u8; 2], &str)]) -> Vec<u8> {
    let modality = [8, 0, 0x60, 0, b'C', b'S'];
    let at = whole.windows(6).position(|window| window == modality).unwrap();
    let mut bytes = whole[..at].to_vec();
    for (group, number, vr, value) in elements {
        element(&mut bytes, *group, *number, vr, value);
    }
    bytes.extend_from_slice(&whole[at..]);
    bytes
}

/// Writes [`file`] for the instance `1.2.<study>.<series>.<instance>` and creates its directories.
pub(crate) fn write(path: &Path, study: u32, series: u32, instance: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let (study, series) = (format!("1.2.{study}"), format!("1.2.{study}.{series}"));
    fs::write(path, file("P1", &study, &series, &format!("{series}.{instance}"))).unwrap();
}

fn element(bytes: &mut Vec<u8>, group: u16, number: u16, vr: &[u8; 2], value: &str) {
    bytes.extend_from_slice(&group.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(vr);
    let padding = value.len() % 2;
    bytes.extend_from_slice(&u16::try_from(value.len() + padding).unwrap().to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
    // PS3.5 6.2: UI is padded with NUL, text with a space.
    bytes.extend(std::iter::repeat_n(if vr == b"UI" { 0 } else { b' ' }, padding));
}
