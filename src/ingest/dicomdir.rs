//! Reads the references of a DICOMDIR (PS3.3 F, PS3.10 8.6).
//!
//! Offsets chain the records of a DICOMDIR. They may be wrong or form a loop. All records are in
//! one sequence. So this module ignores the offsets and reads the sequence from start to end, with
//! the elements of all levels in one loop.

use std::io::{self, BufRead, Read};

use crate::encoding::header::{self, ElementHeader, HeaderError, LONGEST_HEADER};
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
const CUT_SHORT: &str = "it ends inside a record";
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
pub fn read_references(file: impl BufRead) -> io::Result<References> {
    let mut reader = RecordReader {
        file,
        explicit: true,
        big: false,
        in_records: false,
        in_use: true,
        position: 0,
        record_end: None,
        found: References::default(),
    };
    if let Err(Stopped::Unreadable(error)) = reader.read() {
        return Err(error);
    }
    Ok(reader.found)
}

/// Reads the elements of all levels one after the other.
struct RecordReader<R> {
    file: R,
    explicit: bool,
    big: bool,
    /// Reading has reached the sequence of records.
    in_records: bool,
    /// The current record is in use.
    in_use: bool,
    /// Number of bytes read after the preamble.
    position: u64,
    /// End of the current record, if its length is defined.
    record_end: Option<u64>,
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
        let mut preamble = [0; 132];
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
        let header = match header::read(explicit, self.big, start) {
            Err(HeaderError::Incomplete) => {
                self.fill(more)?;
                header::read(explicit, self.big, &bytes)
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
            self.big = true;
        }
        let group = if self.big { [start[1], start[0]] } else { [start[0], start[1]] };
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

    /// Reads a Referenced File ID. It counts if its record is in use.
    fn reference(&mut self, length: usize) -> Result<(), Stopped> {
        let mut value = vec![0; length];
        self.fill(&mut value)?;
        if std::mem::replace(&mut self.in_use, true) {
            if self.found.file_ids.len() >= MAX_REFERENCES {
                return self.damaged("it has more references than any real one");
            }
            let file_id = String::from_utf8_lossy(&value);
            self.found.file_ids.push(file_id.trim_end_matches([' ', '\0']).to_owned());
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
