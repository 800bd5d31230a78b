//! Sources of bytes: a range of a file, or a stream that only goes forward.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flate2::{Crc, Decompress, FlushDecompress, Status};

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
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
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
    fn pass(&mut self, count: u64) -> io::Result<u64>;

    /// The next bytes as a range of a file, if they lie in one.
    fn window(&self, length: u64) -> Option<FileRange>;
}

/// Reads a range of a file from start to end.
#[derive(Debug)]
pub(crate) struct WindowReader {
    window: FileRange,
    /// Offset of the next read from the file.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl WindowReader {
    pub(crate) fn new(window: FileRange) -> Self {
        Self { window, offset: 0, buffer: Vec::new(), at: 0 }
    }

    /// A reader that already has its first bytes: those in `buffer` from `at` on.
    pub(crate) fn begun(window: FileRange, buffer: Vec<u8>, at: usize) -> Self {
        let held = buffer.len().saturating_sub(at) as u64;
        Self { window, offset: held, buffer, at }
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
    pub(crate) fn at(window: &FileRange, offset: u64, few: usize) -> Result<Self, ArchiveProblem> {
        let Some(window) = window.length().checked_sub(offset).and_then(|left| window.part(offset, left)) else {
            return Err(ArchiveProblem::Truncated);
        };
        let mut buffer = vec![0; few.min(usize::try_from(window.length()).unwrap_or(few))];
        let read = window.read_at(&mut buffer, 0)?;
        buffer.truncate(read);
        Ok(Self::begun(window, buffer, 0))
    }

    pub(crate) fn position(&self) -> u64 {
        self.offset - self.held().len() as u64
    }

    /// The range that it reads.
    pub(crate) fn whole(&self) -> &FileRange {
        &self.window
    }
}

impl Read for WindowReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.held().is_empty() && out.len() >= READ {
            let read = self.window.read_at(out, self.offset)?;
            self.offset += read as u64;
            return Ok(read);
        }
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for WindowReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.buffer.len() {
            let left = usize::try_from(self.window.length.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            self.at = 0;
            self.buffer.resize(READ.min(left), 0);
            let read = self.window.read_at(&mut self.buffer, self.offset)?;
            self.buffer.truncate(read);
            self.offset += read as u64;
        }
        Ok(self.held())
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.buffer.len());
    }
}

impl SkipRead for WindowReader {
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        let held = self.held().len();
        match usize::try_from(count) {
            Ok(count) if count <= held => self.consume(count),
            _ => {
                let before = self.position();
                self.offset = before.saturating_add(count).min(self.window.length);
                self.at = self.buffer.len();
                return Ok(self.offset - before);
            }
        }
        Ok(count)
    }

    fn window(&self, length: u64) -> Option<FileRange> {
        self.window.part(self.position(), length)
    }
}

/// A stream that is no range of a file.
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
    fn pass(&mut self, count: u64) -> io::Result<u64> {
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

    fn window(&self, _length: u64) -> Option<FileRange> {
        None
    }
}

/// Bytes that may still be inflated from one archive file. All its readers share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<AtomicU64>);

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    fn spend(&self, bytes: u64) -> io::Result<()> {
        match self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.0.store(0, Relaxed);
                Err(ArchiveProblem::Inflation.into_io())
            }
        }
    }

    /// Whether it is used up.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// Takes the output of a decompressor from the budget.
pub(crate) struct Metered<R> {
    pub(crate) inner: R,
    pub(crate) budget: Budget,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.budget.spend(read as u64)?;
        Ok(read)
    }
}

/// Inflates a raw deflate stream (RFC 1951). It consumes no byte of `input` after the end of the
/// stream.
pub(crate) struct Inflate<R> {
    input: R,
    state: Decompress,
    ended: bool,
    budget: Budget,
}

impl<R> Inflate<R> {
    /// `state` may be one that was used before.
    pub(crate) fn new(input: R, state: Option<Decompress>, budget: Budget) -> Self {
        let state = match state {
            Some(mut state) => {
                state.reset(false);
                state
            }
            None => Decompress::new(false),
        };
        Self { input, state, ended: false, budget }
    }

    pub(crate) fn into_parts(self) -> (R, Decompress) {
        (self.input, self.state)
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !out.is_empty() {
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let flush = if at_end { FlushDecompress::Finish } else { FlushDecompress::None };
            let status = self.state.decompress(input, out, flush).map_err(|_| ArchiveProblem::Deflate.into_io())?;
            let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.state.total_out() - written).unwrap_or(0);
            self.input.consume(read);
            self.ended = status == Status::StreamEnd;
            if written > 0 {
                self.budget.spend(written as u64)?;
                return Ok(written);
            }
            if at_end && !self.ended {
                return Err(ArchiveProblem::Truncated.into_io());
            }
        }
        Ok(0)
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

impl<S: SkipRead + ?Sized> SkipRead for &mut S {
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        (**self).pass(count)
    }

    fn window(&self, length: u64) -> Option<FileRange> {
        (**self).window(length)
    }
}

impl<S: SkipRead + ?Sized> SkipRead for Box<S> {
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        (**self).pass(count)
    }

    fn window(&self, length: u64) -> Option<FileRange> {
        (**self).window(length)
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
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        let passed = self.source.pass(count.min(self.left))?;
        self.left -= passed;
        Ok(passed)
    }

    fn window(&self, length: u64) -> Option<FileRange> {
        (length <= self.left).then(|| self.source.window(length)).flatten()
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
        let read = crate::archive::source::fill(&mut source, &mut head)?;
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
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        let here = count.min(self.head().len() as u64);
        self.at += usize::try_from(here).unwrap_or(0);
        Ok(here + self.source.pass(count - here)?)
    }

    fn window(&self, length: u64) -> Option<FileRange> {
        self.head().is_empty().then(|| self.source.window(length)).flatten()
    }
}

/// Reads until the buffer is full or the bytes end. Returns the number of bytes.
pub(crate) fn fill<R: Read + ?Sized>(source: &mut R, buffer: &mut [u8]) -> Result<usize, ArchiveProblem> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveProblem::of(error)),
        }
    }
    Ok(done)
}
