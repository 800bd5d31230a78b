//! Reads the references of a DICOMDIR (PS3.3 F, PS3.10 8.6).
//!
//! Offsets chain the records of a DICOMDIR. They may be wrong or form a loop. All records are in
//! one sequence. So this module finds references without the offsets. It reads the sequence from
//! start to end, with the elements of all levels in one loop. The offsets only say to which study
//! a reference belongs.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use crate::encoding::header::{self, ElementHeader, HeaderError, LONGEST_HEADER};
use crate::encoding::padding::without_trailing_padding;
use crate::encoding::tag::{ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER, UNDEFINED};
use crate::encoding::vr::{self, Form};
use crate::model::uid::{MAX_LENIENT_UID_LENGTH, is_acceptable_uid};

/// Maximum number of references that are read from one DICOMDIR. A DVD holds some 10,000 files. An
/// indexed disk might hold a million.
pub const MAX_REFERENCES: usize = 1_000_000;

/// Maximum length of one Referenced File ID in bytes. The Standard allows eight components of eight
/// characters (PS3.10 8.5), but writers use more.
const MAX_FILE_ID: usize = 1024;

/// Maximum number of records whose offsets are kept.
const MAX_RECORDS: usize = MAX_REFERENCES;

/// Length of the preamble with its prefix. Offsets count from the begin of the file.
const PREAMBLE: usize = 132;

const NEXT_RECORD: u32 = 0x0004_1400;
const IN_USE_FLAG: u32 = 0x0004_1410;
const LOWER_RECORD: u32 = 0x0004_1420;
const STUDY_INSTANCE_UID: u32 = 0x0020_000D;
const REFERENCED_FILE_ID: u32 = 0x0004_1500;
const RECORDS: u32 = 0x0004_1220;
const CUT_SHORT: &str = "it ends inside a record";
const NO_ELEMENT: &str = "a record contains something other than elements";

/// References of a DICOMDIR.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Referenced File IDs (0004,1500) of the records in use, in their order. Components are joined
    /// by `\`.
    pub file_ids: Vec<String>,
    /// The Study Instance UID of each of them. It is empty if no study leads to its record.
    pub studies: Vec<Arc<str>>,
    /// Reason why the DICOMDIR was not read completely.
    pub damage: Option<&'static str>,
}

/// Reads the references of a DICOMDIR. The input is a whole file with preamble and File Meta
/// Information.
///
/// # Errors
/// Returns the error of the reader.
pub fn read_references(file: impl BufRead) -> io::Result<References> {
    let mut reader = RecordReader {
        file,
        explicit: true,
        big_endian: false,
        in_records: false,
        in_use: true,
        position: 0,
        record_end: None,
        records: Vec::new(),
        found: References::default(),
    };
    if let Err(Stopped::Unreadable(error)) = reader.read() {
        return Err(error);
    }
    let mut found = reader.found;
    found.studies = studies_of(&reader.records, found.file_ids.len());
    Ok(found)
}

/// The place of a record among the others.
#[derive(Debug, Default)]
struct DirectoryRecord {
    /// Offset of its start in the file.
    at: u64,
    /// Offset of the next record of its level. 0 is none.
    next: u32,
    /// Offset of the first record of the level below. 0 is none.
    lower: u32,
    study: Option<Arc<str>>,
    /// Number of its reference.
    reference: Option<usize>,
}

/// The study of each reference: the one from whose record offsets lead to that of the reference.
fn studies_of(records: &[DirectoryRecord], references: usize) -> Vec<Arc<str>> {
    let none: Arc<str> = "".into();
    let mut studies = vec![Arc::clone(&none); references];
    let mut was_seen = vec![false; records.len()];
    for study in records {
        let Some(uid) = &study.study else { continue };
        let mut note = |reference: Option<usize>| {
            if let Some(of) = reference.and_then(|reference| studies.get_mut(reference)) {
                *of = Arc::clone(uid);
            }
        };
        // Some writers repeat the UID in the records below.
        note(study.reference);
        let mut to_visit = vec![study.lower];
        while let Some(offset) = to_visit.pop() {
            // Records are in the order of the file.
            let found = records.binary_search_by_key(&u64::from(offset), |record| record.at);
            let Some((record, seen)) = found.ok().and_then(|at| Some((records.get(at)?, was_seen.get_mut(at)?))) else {
                continue;
            };
            // Offsets may form a loop, or lead to another study.
            let is_of_another = record.study.as_ref().is_some_and(|own| own != uid);
            if is_of_another || std::mem::replace(seen, true) {
                continue;
            }
            to_visit.extend([record.lower, record.next].into_iter().filter(|offset| *offset != 0));
            note(record.reference);
        }
    }
    studies
}

/// Reads the elements of all levels one after the other.
struct RecordReader<R> {
    file: R,
    explicit: bool,
    big_endian: bool,
    /// Reading has reached the sequence of records.
    in_records: bool,
    /// The current record is in use.
    in_use: bool,
    /// Number of bytes read after the preamble.
    position: u64,
    /// End of the current record, if its length is defined.
    record_end: Option<u64>,
    /// The records so far, the current one at the end.
    records: Vec<DirectoryRecord>,
    found: References,
}

/// The reason why reading stops before the end of the file.
enum Stopped {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The rest makes no sense. The references found before count.
    Damaged,
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl<R: BufRead> RecordReader<R> {
    fn read(&mut self) -> Result<(), Stopped> {
        let mut preamble = [0; PREAMBLE];
        if !fill(&mut self.file, &mut preamble)? || !preamble.ends_with(b"DICM") {
            return self.damaged("it has no preamble");
        }
        while !self.file.fill_buf()?.is_empty() {
            match self.header()? {
                Some(header) => self.element(header)?,
                None => self.skip_rest_of_record()?,
            }
        }
        Ok(())
    }

    /// Reads a header. `None` if the rest of the current record is not made of elements.
    fn header(&mut self) -> Result<Option<ElementHeader>, Stopped> {
        let mut bytes = [0; LONGEST_HEADER];
        let (start, more) = bytes.split_at_mut(8);
        self.fill(start)?;
        self.detect_encoding(start);
        // Some files begin with a command set (PS3.7 6.3.1). It is always implicit.
        let is_command =
            !self.in_records && start.starts_with(&[0, 0]) && vr::form([start[4], start[5]]) == Form::Unknown;
        let explicit = self.explicit && !is_command;
        let header = match header::read(explicit, self.big_endian, start) {
            Err(HeaderError::Incomplete) => {
                self.fill(more)?;
                header::read(explicit, self.big_endian, &bytes)
            }
            read => read,
        };
        match header {
            Ok(header) => Ok(Some(header)),
            // The length of the record gives the start of the next one.
            Err(_) if self.left_of_record().is_some_and(|left| left > 0) => Ok(None),
            Err(_) => self.damaged("an element in it has no valid VR").map(|()| None),
        }
    }

    /// PS3.10 8.6 allows Explicit VR Little Endian only, but older files use others. The first
    /// element after the File Meta Information decides.
    fn detect_encoding(&mut self, start: &[u8]) {
        if self.in_records {
            return;
        }
        if start.starts_with(&[0, 4]) {
            self.big_endian = true;
        }
        let group = if self.big_endian { [start[1], start[0]] } else { [start[0], start[1]] };
        if group == [4, 0] {
            self.explicit = vr::form([start[4], start[5]]) != Form::Unknown;
        }
    }

    /// Handles an element or marker, after its header.
    fn element(&mut self, header: ElementHeader) -> Result<(), Stopped> {
        let ElementHeader { tag, length, .. } = header;
        let left = self.left_of_record();
        if tag == ITEM && left.is_none_or(|left| left == 0) {
            self.record_end = (length != UNDEFINED).then(|| self.position + u64::from(length));
            self.begin_record();
        }
        if let Some(left) = left.filter(|left| *left > 0)
            && length != UNDEFINED
            && u64::from(length) > left
        {
            return self.skip_rest_of_record();
        }
        match tag {
            // Elements inside items are read as if they were outside.
            RECORDS => self.in_records = true,
            ITEM | ITEM_DELIMITER | SEQUENCE_DELIMITER => {}
            _ if header.vr == *b"SQ" || length == UNDEFINED => {}
            IN_USE_FLAG if length == 2 => {
                let mut flag = [0; 2];
                self.fill(&mut flag)?;
                self.in_use = flag != [0, 0];
            }
            NEXT_RECORD | LOWER_RECORD if length == 4 => self.offset(tag)?,
            STUDY_INSTANCE_UID if length as usize <= MAX_LENIENT_UID_LENGTH => self.study(length as usize)?,
            REFERENCED_FILE_ID if length as usize <= MAX_FILE_ID => self.reference(length as usize)?,
            _ => {
                let length = u64::from(length);
                if self.skip(length)? < length {
                    return self.damaged(CUT_SHORT);
                }
            }
        }
        Ok(())
    }

    /// A record begins: the header of its item has been read.
    fn begin_record(&mut self) {
        if self.in_records && self.records.len() < MAX_RECORDS {
            let at = self.position + (PREAMBLE - 8) as u64;
            self.records.push(DirectoryRecord { at, ..DirectoryRecord::default() });
        }
    }

    /// Reads an offset of the current record.
    fn offset(&mut self, tag: u32) -> Result<(), Stopped> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        let offset = if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        if let Some(record) = self.records.last_mut() {
            *(if tag == NEXT_RECORD { &mut record.next } else { &mut record.lower }) = offset;
        }
        Ok(())
    }

    /// Reads the Study Instance UID of the current record.
    fn study(&mut self, length: usize) -> Result<(), Stopped> {
        let mut value = vec![0; length];
        self.fill(&mut value)?;
        let uid = String::from_utf8_lossy(&value);
        let uid = without_trailing_padding(&uid);
        if let Some(record) = self.records.last_mut().filter(|_| is_acceptable_uid(uid)) {
            record.study.get_or_insert_with(|| uid.into());
        }
        Ok(())
    }

    /// Reads a Referenced File ID. It counts if its record is in use.
    fn reference(&mut self, length: usize) -> Result<(), Stopped> {
        let mut value = vec![0; length];
        self.fill(&mut value)?;
        if std::mem::replace(&mut self.in_use, true) {
            if self.found.file_ids.len() >= MAX_REFERENCES {
                return self.damaged("it has more references than any real one");
            }
            let file_id = String::from_utf8_lossy(&value);
            if let Some(record) = self.records.last_mut() {
                record.reference = Some(self.found.file_ids.len());
            }
            self.found.file_ids.push(without_trailing_padding(&file_id).to_owned());
        }
        Ok(())
    }

    /// Goes on with the next record.
    fn skip_rest_of_record(&mut self) -> Result<(), Stopped> {
        self.found.damage = Some(NO_ELEMENT);
        self.skip(self.left_of_record().unwrap_or(0)).map(|_| ()).map_err(Stopped::from)
    }

    fn left_of_record(&self) -> Option<u64> {
        self.record_end.map(|end| end.saturating_sub(self.position))
    }

    fn damaged(&mut self, reason: &'static str) -> Result<(), Stopped> {
        self.found.damage = Some(reason);
        Err(Stopped::Damaged)
    }

    /// Fills the buffer, or stops.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Stopped> {
        if !fill(&mut self.file, buffer)? {
            return self.damaged(CUT_SHORT);
        }
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// Skips up to `count` bytes. Returns how many were skipped.
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let skipped = io::copy(&mut self.file.by_ref().take(count), &mut io::sink())?;
        self.position += skipped;
        Ok(skipped)
    }
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
            assert_eq!(
                found,
                References {
                    file_ids: vec!["IM1".into(), "IM3".into()],
                    studies: vec!["".into(); 2],
                    damage: Some(NO_ELEMENT)
                }
            );
        }
    }

    #[test]
    fn command_elements_before_the_records_are_passed_over() {
        let commands = b"\0\0\0\0\x04\0\0\0\x0A\0\0\0\0\0\0\x01\x02\0\0\0\x01\0";
        let found = directory(commands, &[record(b"IM1 ", b"")]);
        assert_eq!(found, References { file_ids: vec!["IM1".into()], studies: vec!["".into()], damage: None });
    }

    /// A record with its offsets, and the UID of a study.
    fn linked(next: u32, lower: u32, file_id: &[u8], study: &[u8]) -> Vec<u8> {
        let mut content = [
            element(4, 0x1400, b"UL", &next.to_le_bytes()),
            element(4, 0x1410, b"US", &[0xFF, 0xFF]),
            element(4, 0x1420, b"UL", &lower.to_le_bytes()),
        ]
        .concat();
        if !file_id.is_empty() {
            content.extend(element(4, 0x1500, b"CS", file_id));
        }
        if !study.is_empty() {
            content.extend(element(0x20, 0xD, b"UI", study));
        }
        [b"\xFE\xFF\0\xE0".as_slice(), &(content.len() as u32).to_le_bytes(), &content].concat()
    }

    #[test]
    fn the_offsets_say_to_which_study_a_reference_belongs() {
        // Where the first record begins, and how long each kind is: a reference adds 12 bytes, a
        // UID 12.
        let start = 132 + 28 + 28 + 12;
        let (study, series, image) = (8 + 34 + 12, 8 + 34, 8 + 34 + 12);
        let first_image = start + 2 * study + 2 * series;
        // All of a level come one after the other. One image leads back to the first, and to a
        // place where no record begins.
        let records = [
            linked(start + study, start + 2 * study, b"", b"1.2\0"),
            linked(0, start + 2 * study + series, b"", b"1.30"),
            linked(0, first_image, b"", b""),
            linked(0, first_image + 2 * image, b"", b""),
            linked(first_image + image, 0, b"IM1 ", b""),
            linked(first_image, 7, b"IM2 ", b""),
            linked(first_image, 0, b"IM3 ", b""),
            linked(0, 0, b"IM4 ", b""),
        ];
        let found = directory(b"", &records);
        assert_eq!(found.damage, None);
        let found: Vec<_> =
            found.file_ids.iter().map(String::as_str).zip(found.studies.iter().map(|uid| &**uid)).collect();
        assert_eq!(found, [("IM1", "1.2"), ("IM2", "1.2"), ("IM3", "1.30"), ("IM4", "")]);
    }
}
