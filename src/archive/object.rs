//! The bytes of one member, or of a plain file.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::adapters::Checked;
use super::range::{FileRange, RangeReader};

/// The bytes of a member, from first to last.
///
/// The last read fails if the size or the checksum differs from that in the archive.
pub struct Object {
    pub(super) reader: Box<dyn Read + Send>,
    pub(super) length: Option<u64>,
}

impl Object {
    /// A plain file.
    ///
    /// # Errors
    /// If the system does not return its length.
    pub fn of_file(file: File) -> io::Result<Self> {
        let range = FileRange::whole(file, Arc::new(|_| ()))?;
        let length = range.length();
        let reader = Checked::new(RangeReader::new(range), length, None);
        Ok(Self { reader: Box::new(reader), length: Some(length) })
    }

    /// An empty object. It takes the place of an object that is handed back.
    pub(crate) fn nothing() -> Self {
        Self { reader: Box::new(io::empty()), length: Some(0) }
    }

    /// The size, if the archive states it before the data.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("length", &self.length).finish_non_exhaustive()
    }
}
