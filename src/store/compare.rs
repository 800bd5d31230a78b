//! Compares data sets of objects, byte for byte.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::meta::{START_LENGTH, data_set_offset};
use crate::archive::Object;

/// Bytes to compare at a time.
pub(super) const COMPARED_AT_A_TIME: usize = 64 * 1024;

/// Whether two objects hold the same data set, byte for byte. `None` if one does not begin with our
/// File Meta Information, so that the start of its data set is unknown. The File Meta Information
/// may differ, since it holds the sender and our version.
pub(super) fn same_data_set<R: Read>(one: Option<DataSetReader<R>>, other: Object) -> io::Result<Option<bool>> {
    let length = other.length();
    let (Some(mut one), Some(mut other)) = (one, DataSetReader::of(other, length)?) else { return Ok(None) };
    if let (Some(one), Some(other)) = (one.length, other.length)
        && one != other
    {
        return Ok(Some(false));
    }
    let (mut a, mut b) = (vec![0; COMPARED_AT_A_TIME], vec![0; COMPARED_AT_A_TIME]);
    loop {
        match (one.read(&mut a)?, other.read(&mut b)?) {
            ([], []) => return Ok(Some(true)),
            (one, other) if one == other => {}
            _ => return Ok(Some(false)),
        }
    }
}

/// A reader of the data set of an object.
pub(super) struct DataSetReader<R> {
    reader: R,
    pub(super) length: Option<u64>,
}

impl<R: Read> DataSetReader<R> {
    /// `None` if the object does not begin with our File Meta Information.
    pub(super) fn of(mut reader: R, length: Option<u64>) -> io::Result<Option<Self>> {
        let mut start = [0; START_LENGTH];
        match reader.read_exact(&mut start) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(offset) = data_set_offset(&start) else { return Ok(None) };
        let Some(meta) = offset.checked_sub(START_LENGTH as u64) else { return Ok(None) };
        if io::copy(&mut reader.by_ref().take(meta), &mut io::sink())? < meta {
            return Ok(None);
        }
        Ok(Some(Self { reader, length: length.and_then(|length| length.checked_sub(offset)) }))
    }

    /// Reads until the buffer is full or the data set ends.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let mut done = 0;
        while done < buffer.len() {
            match self.reader.read(&mut buffer[done..]) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&buffer[..done])
    }
}

/// Reads a file from its start. The write position of the file does not move.
pub(super) struct FromStart<'f> {
    pub(super) file: &'f File,
    pub(super) offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
