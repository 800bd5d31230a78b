//! Buffers into which objects are read, and from which they are written to the socket.

use std::fmt;
use std::io;

use super::object::DataSet;

/// Bytes of one read: two of the longest PDUs, and a command. Larger: fewer system calls, but a
/// retrieval holds five of these.
pub(crate) const PIECE_LENGTH: usize = 2 * 128 * 1024 + 4096;

/// Minimum bytes of a data set in one read, whatever precedes it.
const LEAST_FILLED: usize = 1024;

/// Room in front of a piece for bytes that go out in the same write, for example a pending
/// response.
pub(crate) const HEADROOM: usize = 512;

/// Bytes to send, with room in front of them.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Empties the buffer.
    pub(crate) fn reset(&mut self) {
        (self.start, self.end) = (HEADROOM, HEADROOM);
    }

    /// Appends bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        self.make_room(end);
        if let Some(place) = self.bytes.get_mut(self.end..end) {
            place.copy_from_slice(bytes);
        }
        self.end = end;
    }

    /// Whether the buffer is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Returns how many bytes fit until the buffer has `piece_length`.
    pub(crate) fn room(&self, piece_length: usize) -> usize {
        (HEADROOM + piece_length).saturating_sub(self.end)
    }

    /// Appends what `write` puts into a space of this length. It returns the number of bytes.
    ///
    /// # Errors
    /// Fails with the error of `write`.
    pub(crate) fn append(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let end = self.end + length;
        self.make_room(end);
        let written = write(self.bytes.get_mut(self.end..end).unwrap_or_default())?;
        self.end += written.min(length);
        Ok(())
    }

    /// Appends bytes of a data set until the buffer has `piece_length`. Returns whether these were
    /// the last.
    ///
    /// # Errors
    /// Fails with the error of the data set.
    pub(crate) fn fill(&mut self, data_set: &mut DataSet, piece_length: usize) -> io::Result<bool> {
        let left = data_set.left().and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        let length = left.min(self.room(piece_length)).max(LEAST_FILLED);
        let mut is_last = false;
        self.append(length, |space| {
            let filled = data_set.fill(space)?;
            is_last = filled.is_last;
            Ok(filled.count)
        })?;
        Ok(is_last)
    }

    fn make_room(&mut self, end: usize) {
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
    }

    /// Puts bytes in front, if there is room for them.
    #[must_use]
    pub(crate) fn put_in_front(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        let Some(place) = self.bytes.get_mut(start..self.start) else { return false };
        place.copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// Returns the bytes to send.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.as_slice().len()).finish()
    }
}

/// Buffers for reuse.
#[derive(Default)]
pub(crate) struct Spares(Vec<Buffer>);

impl Spares {
    /// Returns an empty buffer.
    pub(crate) fn buffer(&mut self) -> Buffer {
        let mut buffer = self.0.pop().unwrap_or_default();
        buffer.reset();
        buffer
    }

    /// Keeps a buffer for reuse.
    pub(crate) fn push(&mut self, buffer: Buffer) {
        self.0.push(buffer);
    }

    /// Takes all buffers of the other.
    pub(crate) fn append(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }
}
