//! Inflates raw deflate streams, within a budget for each archive file.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flate2::{Decompress, FlushDecompress, Status};

use super::problem::ArchiveProblem;

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
