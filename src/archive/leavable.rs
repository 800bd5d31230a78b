//! The data of a member in a stream, with the way to the next header.

use std::io::{self, BufRead, Read};

use super::problem::ArchiveProblem;
use super::range::{FileRange, SkipRead};

/// The data of a member, with a way to leave it.
pub(super) trait MemberStream: SkipRead {
    /// Skips to the next header.
    fn leave(self: Box<Self>) -> Result<Box<dyn SkipRead>, ArchiveProblem>;
}

pub(super) struct LeavableStream<S, L> {
    pub(super) data: S,
    pub(super) leave: L,
}

impl<S: SkipRead, L: FnOnce(S) -> Result<Box<dyn SkipRead>, ArchiveProblem> + Send> MemberStream
    for LeavableStream<S, L>
{
    fn leave(self: Box<Self>) -> Result<Box<dyn SkipRead>, ArchiveProblem> {
        (self.leave)(self.data)
    }
}

impl<S: SkipRead, L: Send> Read for LeavableStream<S, L> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.data.read(out)
    }
}

impl<S: SkipRead, L: Send> BufRead for LeavableStream<S, L> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.data.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.data.consume(count);
    }
}

impl<S: SkipRead, L: Send> SkipRead for LeavableStream<S, L> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        self.data.skip(count)
    }

    fn as_range(&self, length: u64) -> Option<FileRange> {
        self.data.as_range(length)
    }
}
