//! Adapters of readers: streams that only go forward, limits, bytes that were read ahead, and
//! checks.

use std::io::{self, BufRead, ErrorKind, Read};

use flate2::Crc;

use super::problem::ArchiveProblem;
use super::range::{FileRange, SkipRead, fill};

/// Forward-only stream over any reader.
pub(crate) struct Streamed<R>(pub(crate) R);

impl<R: BufRead> Read for Streamed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl<R: BufRead> BufRead for Streamed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl<R: BufRead + Send> SkipRead for Streamed<R> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut left = count;
        while left > 0 {
            let held = match self.0.fill_buf() {
                Ok([]) => break,
                Ok(held) => held.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.0.consume(held);
            left -= held as u64;
        }
        Ok(count - left)
    }

    fn as_range(&self, _length: u64) -> Option<FileRange> {
        None
    }
}

/// The next bytes of a stream, up to a limit.
pub(crate) struct Limited<S> {
    source: S,
    left: u64,
}

impl<S: SkipRead> Limited<S> {
    pub(crate) fn new(source: S, length: u64) -> Self {
        Self { source, left: length }
    }

    /// Bytes not yet read.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn into_inner(self) -> S {
        self.source
    }
}

impl<S: SkipRead> Read for Limited<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

impl<S: SkipRead> BufRead for Limited<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let held = self.source.fill_buf()?;
        Ok(held.get(..most).unwrap_or(held))
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.source.consume(count);
        self.left -= count as u64;
    }
}

impl<S: SkipRead> SkipRead for Limited<S> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let passed = self.source.skip(count.min(self.left))?;
        self.left -= passed;
        Ok(passed)
    }

    fn as_range(&self, length: u64) -> Option<FileRange> {
        (length <= self.left).then(|| self.source.as_range(length)).flatten()
    }
}

/// A stream whose first bytes are already in memory.
pub(crate) struct Peeked<S> {
    head: Vec<u8>,
    at: usize,
    source: S,
}

impl<S: SkipRead> Peeked<S> {
    /// Reads the first `count` bytes, or fewer if the stream is shorter.
    pub(crate) fn fill(mut source: S, count: usize) -> Result<Self, ArchiveProblem> {
        let mut head = vec![0; count];
        let read = fill(&mut source, &mut head)?;
        head.truncate(read);
        Ok(Self { head, at: 0, source })
    }

    /// The bytes in memory that nobody has consumed yet.
    pub(crate) fn head(&self) -> &[u8] {
        self.head.get(self.at..).unwrap_or_default()
    }
}

impl<S: SkipRead> Read for Peeked<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

impl<S: SkipRead> BufRead for Peeked<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.head.get(self.at..) {
            Some(head) if !head.is_empty() => Ok(head),
            Some(_) | None => self.source.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        if self.at < self.head.len() {
            self.at = (self.at + count).min(self.head.len());
        } else {
            self.source.consume(count);
        }
    }
}

impl<S: SkipRead> SkipRead for Peeked<S> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let here = count.min(self.head().len() as u64);
        self.at += usize::try_from(here).unwrap_or(0);
        Ok(here + self.source.skip(count - here)?)
    }

    fn as_range(&self, length: u64) -> Option<FileRange> {
        self.head().is_empty().then(|| self.source.as_range(length)).flatten()
    }
}

/// Checks size and checksum of a member. The last read fails if they differ.
pub(crate) struct Checked<R> {
    inner: R,
    left: u64,
    /// The member is longer than its size. This flag keeps the error for later calls.
    is_longer: bool,
    checksum: Option<u32>,
    crc: Crc,
}

impl<R> Checked<R> {
    pub(crate) fn new(inner: R, length: u64, checksum: Option<u32>) -> Self {
        Self { inner, left: length, is_longer: false, checksum, crc: Crc::new() }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.is_longer = self.is_longer || self.inner.read(&mut [0]).is_ok_and(|more| more > 0);
            return match self.checksum {
                Some(checksum) if checksum != self.crc.sum() => Err(ArchiveProblem::Checksum.into_io()),
                // An empty member and a zeroed directory entry both have CRC 0. So a matching CRC
                // does not prove that the member is empty.
                _ if self.is_longer => Err(ArchiveProblem::Damaged("a member that is longer than its size").into_io()),
                _ => Ok(0),
            };
        }
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(out) = out.get_mut(..most).filter(|out| !out.is_empty()) else { return Ok(0) };
        let read = self.inner.read(out)?;
        if read == 0 {
            return Err(ArchiveProblem::Truncated.into_io());
        }
        if self.checksum.is_some() {
            self.crc.update(out.get(..read).unwrap_or_default());
        }
        self.left -= read as u64;
        Ok(read)
    }
}
