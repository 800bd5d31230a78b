//! A range of a file, and readers that can skip.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::problem::ArchiveProblem;

/// Bytes of one read, when a range is read from start to end.
const READ: usize = 32 << 10;

/// A range of a file.
#[derive(Clone, Debug)]
pub(crate) struct FileRange {
    file: Arc<TrackedFile>,
    start: u64,
    length: u64,
}

/// A file, with a callback for each read.
struct TrackedFile {
    file: File,
    on_read: OnRead,
}

impl std::fmt::Debug for TrackedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrackedFile").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Callback after each read of an archive file, with the number of bytes. Any thread may call it.
pub type OnRead = Arc<dyn Fn(u64) + Send + Sync>;

impl FileRange {
    /// The range that is the whole file. `on_read` is called after each read.
    pub(crate) fn whole(file: File, on_read: OnRead) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(TrackedFile { file, on_read }), start: 0, length })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// A range within this range. `None` if it does not lie within.
    pub(crate) fn part(&self, start: u64, length: u64) -> Option<Self> {
        let end = start.checked_add(length)?;
        (end <= self.length).then(|| Self { file: Arc::clone(&self.file), start: self.start + start, length })
    }

    /// Reads from `offset` until `buffer` is full or the range ends. Returns the number of bytes.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.file.read_at(rest, self.start + offset + done as u64) {
                // The file has become shorter since it was opened.
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.file.on_read)(done as u64);
        Ok(done)
    }

    pub(crate) fn exact<const N: usize>(&self, offset: u64) -> Result<[u8; N], ArchiveProblem> {
        let mut bytes = [0; N];
        match self.read_at(&mut bytes, offset)? {
            read if read == N => Ok(bytes),
            _ => Err(ArchiveProblem::Truncated),
        }
    }
}

/// Bytes in order. The reader can skip some.
pub(crate) trait SkipRead: BufRead + Send {
    /// Skips `count` bytes. Returns the bytes skipped, which are fewer than `count` only at the
    /// end.
    fn skip(&mut self, count: u64) -> io::Result<u64>;

    /// The next bytes as a range of a file, if they lie in one.
    fn as_range(&self, length: u64) -> Option<FileRange>;
}

/// Reads a range of a file from start to end.
#[derive(Debug)]
pub(crate) struct RangeReader {
    range: FileRange,
    /// Offset of the next read from the file.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl RangeReader {
    pub(crate) fn new(range: FileRange) -> Self {
        Self { range, offset: 0, buffer: Vec::new(), at: 0 }
    }

    /// A reader that already has its first bytes: those in `buffer` from `at` on.
    pub(crate) fn begun(range: FileRange, buffer: Vec<u8>, at: usize) -> Self {
        let held = buffer.len().saturating_sub(at) as u64;
        Self { range, offset: held, buffer, at }
    }

    /// Returns the buffer for reuse.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    pub(crate) fn held(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// A reader that begins at `offset`. Its first read takes only `few` bytes, enough for a
    /// header.
    pub(crate) fn at(range: &FileRange, offset: u64, few: usize) -> Result<Self, ArchiveProblem> {
        let Some(range) = range.length().checked_sub(offset).and_then(|left| range.part(offset, left)) else {
            return Err(ArchiveProblem::Truncated);
        };
        let mut buffer = vec![0; few.min(usize::try_from(range.length()).unwrap_or(few))];
        let read = range.read_at(&mut buffer, 0)?;
        buffer.truncate(read);
        Ok(Self::begun(range, buffer, 0))
    }

    pub(crate) fn position(&self) -> u64 {
        self.offset - self.held().len() as u64
    }

    /// The range that it reads.
    pub(crate) fn whole(&self) -> &FileRange {
        &self.range
    }
}

impl Read for RangeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.held().is_empty() && out.len() >= READ {
            let read = self.range.read_at(out, self.offset)?;
            self.offset += read as u64;
            return Ok(read);
        }
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for RangeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.buffer.len() {
            let left = usize::try_from(self.range.length.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            self.at = 0;
            self.buffer.resize(READ.min(left), 0);
            let read = self.range.read_at(&mut self.buffer, self.offset)?;
            self.buffer.truncate(read);
            self.offset += read as u64;
        }
        Ok(self.held())
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.buffer.len());
    }
}

impl SkipRead for RangeReader {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let held = self.held().len();
        match usize::try_from(count) {
            Ok(count) if count <= held => self.consume(count),
            _ => {
                let before = self.position();
                self.offset = before.saturating_add(count).min(self.range.length);
                self.at = self.buffer.len();
                return Ok(self.offset - before);
            }
        }
        Ok(count)
    }

    fn as_range(&self, length: u64) -> Option<FileRange> {
        self.range.part(self.position(), length)
    }
}

impl<S: SkipRead + ?Sized> SkipRead for &mut S {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        (**self).skip(count)
    }

    fn as_range(&self, length: u64) -> Option<FileRange> {
        (**self).as_range(length)
    }
}

impl<S: SkipRead + ?Sized> SkipRead for Box<S> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        (**self).skip(count)
    }

    fn as_range(&self, length: u64) -> Option<FileRange> {
        (**self).as_range(length)
    }
}

/// Reads until the buffer is full or the bytes end. Returns the number of bytes.
pub(crate) fn fill<R: Read + ?Sized>(source: &mut R, buffer: &mut [u8]) -> Result<usize, ArchiveProblem> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveProblem::of(error)),
        }
    }
    Ok(done)
}
