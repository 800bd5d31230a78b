//! Reads the references of a DICOMDIR (PS3.3 F, PS3.10 8.6).
//!
//! Offsets chain the records of a DICOMDIR. They may be wrong or form a loop. All records are in
//! one sequence. So this module ignores the offsets and reads the sequence from start to end, with
//! the elements of all levels in one loop.

use std::io::{self, BufRead, Read};

use crate::encoding::tag::{ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER, UNDEFINED};
use crate::encoding::vr::{self, Form};

/// Maximum number of references that are read from one DICOMDIR. A DVD holds some 10,000 files. An
/// indexed disk might hold a million.
pub const MAX_REFERENCES: usize = 1_000_000;

/// Maximum length of one Referenced File ID in bytes. The Standard allows eight components of eight
/// characters (PS3.10 8.5), but writers use more.
const MAX_FILE_ID: usize = 1024;

const IN_USE_FLAG: u32 = 0x0004_1410;
const REFERENCED_FILE_ID: u32 = 0x0004_1500;
const RECORDS: u32 = 0x0004_1220;
const DELIMITERS: [u32; 2] = [ITEM_DELIMITER, SEQUENCE_DELIMITER];
const NO_ELEMENT: &str = "a record contains something other than elements";

/// References of a DICOMDIR.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Referenced File IDs (0004,1500) of the records in use, in their order. Components are joined
    /// by `\`.
    pub file_ids: Vec<String>,
    /// Reason why the DICOMDIR was not read completely.
    pub damage: Option<&'static str>,
}

/// Reads the references of a DICOMDIR. The input is a whole file with preamble and File Meta
/// Information.
///
/// # Errors
/// Returns the error of the reader.
pub fn read_references(mut file: impl BufRead) -> io::Result<References> {
    let mut found = References::default();
    let mut preamble = [0; 132];
    if !fill(&mut file, &mut preamble)? || !preamble.ends_with(b"DICM") {
        found.damage = Some("it has no preamble");
        return Ok(found);
    }
    let (mut explicit, mut big, mut in_records, mut in_use) = (true, false, false, true);
    // `at` is the number of bytes read. `record_end` is the end of the current record, if its
    // length is defined.
    let (mut at, mut record_end) = (0_u64, None);
    loop {
        let mut header = [0; 8];
        if file.fill_buf()?.is_empty() {
            return Ok(found);
        }
        if !fill(&mut file, &mut header)? {
            found.damage = Some("it ends inside a record");
            return Ok(found);
        }
        at += 8;
        let [g0, g1, e0, e1, v0, v1, l0, l1] = header;
        // PS3.10 8.6 allows Explicit VR Little Endian only, but older files use others. The first
        // element after the File Meta Information decides.
        if !in_records && [g0, g1] == [0, 4] {
            big = true;
        }
        let number = |bytes: [u8; 4]| if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        let tag = if big { number([g0, g1, e0, e1]) } else { u32::from_be_bytes([g1, g0, e1, e0]) };
        if tag >> 16 == 0x0004 && !in_records {
            explicit = vr::form([v0, v1]) != Form::Unknown;
        }
        let is_mark = tag == ITEM || DELIMITERS.contains(&tag);
        let mut letters = [v0, v1];
        // Some files begin with a command set (PS3.7 6.3.1). It is always implicit.
        let explicit = explicit && !(tag >> 16 == 0 && !in_records && vr::form(letters) == Form::Unknown);
        let left_of_record = record_end.map(|end: u64| end.saturating_sub(at));
        let length = match vr::form(letters) {
            Form::Short if explicit && !is_mark => {
                u32::from(if big { u16::from_be_bytes([l0, l1]) } else { u16::from_le_bytes([l0, l1]) })
            }
            Form::Long if explicit && !is_mark => {
                let mut length = [0; 4];
                if !fill(&mut file, &mut length)? {
                    found.damage = Some("it ends inside a record");
                    return Ok(found);
                }
                at += 4;
                number(length)
            }
            // The length of the record gives the start of the next one.
            Form::Unknown if explicit && !is_mark && left_of_record.is_some_and(|left| left > 0) => {
                found.damage = Some(NO_ELEMENT);
                at += pass(&mut file, left_of_record.unwrap_or(0))?;
                continue;
            }
            Form::Unknown if explicit && !is_mark => {
                found.damage = Some("an element in it has no valid VR");
                return Ok(found);
            }
            Form::Short | Form::Long | Form::Unknown => {
                letters = [0, 0];
                number([v0, v1, l0, l1])
            }
        };
        if tag == ITEM && left_of_record.is_none_or(|left| left == 0) {
            record_end = (length != UNDEFINED).then(|| at + u64::from(length));
        }
        if let Some(left) = left_of_record.filter(|left| *left > 0)
            && length != UNDEFINED
            && u64::from(length) > left
        {
            found.damage = Some(NO_ELEMENT);
            at += pass(&mut file, left)?;
            continue;
        }
        match tag {
            // Elements inside items are read as if they were outside.
            RECORDS => in_records = true,
            _ if is_mark || letters == *b"SQ" || length == UNDEFINED => {}
            IN_USE_FLAG if length == 2 => {
                let mut flag = [0; 2];
                if !fill(&mut file, &mut flag)? {
                    found.damage = Some("it ends inside a record");
                    return Ok(found);
                }
                at += 2;
                in_use = flag != [0, 0];
            }
            REFERENCED_FILE_ID if length as usize <= MAX_FILE_ID => {
                let mut value = vec![0; length as usize];
                if !fill(&mut file, &mut value)? {
                    found.damage = Some("it ends inside a record");
                    return Ok(found);
                }
                at += u64::from(length);
                if in_use && found.file_ids.len() >= MAX_REFERENCES {
                    found.damage = Some("it has more references than any real one");
                    return Ok(found);
                }
                if in_use {
                    found.file_ids.push(String::from_utf8_lossy(&value).trim_end_matches([' ', '\0']).to_owned());
                }
                in_use = true;
            }
            _ => {
                let passed = pass(&mut file, u64::from(length))?;
                at += passed;
                if passed < u64::from(length) {
                    found.damage = Some("it ends inside a record");
                    return Ok(found);
                }
            }
        }
    }
}

/// Skips up to `count` bytes. Returns how many were skipped.
fn pass(file: &mut impl BufRead, count: u64) -> io::Result<u64> {
    io::copy(&mut file.take(count), &mut io::sink())
}

/// Fills the buffer. Returns false at the end of the file.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(group: u16, element: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut out = [group.to_le_bytes(), element.to_le_bytes(), *vr].concat();
        if vr == b"SQ" {
            out.extend([0, 0]);
            out.extend((value.len() as u32).to_le_bytes());
        } else {
            out.extend((value.len() as u16).to_le_bytes());
        }
        out.extend(value);
        out
    }

    fn record(file_id: &[u8], junk: &[u8]) -> Vec<u8> {
        let content = [&element(4, 0x1410, b"US", &[0xFF, 0xFF]), junk, &element(4, 0x1500, b"CS", file_id)].concat();
        [b"\xFE\xFF\0\xE0".as_slice(), &(content.len() as u32).to_le_bytes(), &content].concat()
    }

    fn directory(before: &[u8], records: &[Vec<u8>]) -> References {
        let meta = [element(2, 2, b"UI", b"1.2.840.10008.1.3.10"), element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0")];
        let records = element(4, 0x1220, b"SQ", &records.concat());
        let prefix = [&[0; 128][..], b"DICM"].concat();
        read_references([prefix, meta.concat(), before.to_vec(), records].concat().as_slice()).unwrap()
    }

    #[test]
    fn junk_in_a_record_costs_that_record() {
        for junk in [&b"text that is no element"[..], b"\x08\0\x60\0CS\xFF\0CT"] {
            let found = directory(b"", &[record(b"IM1 ", b""), record(b"IM2 ", junk), record(b"IM3 ", b"")]);
            assert_eq!(found, References { file_ids: vec!["IM1".into(), "IM3".into()], damage: Some(NO_ELEMENT) });
        }
    }

    #[test]
    fn command_elements_before_the_records_are_passed_over() {
        let commands = b"\0\0\0\0\x04\0\0\0\x0A\0\0\0\0\0\0\x01\x02\0\0\0\x01\0";
        let found = directory(commands, &[record(b"IM1 ", b"")]);
        assert_eq!(found, References { file_ids: vec!["IM1".into()], damage: None });
    }
}
