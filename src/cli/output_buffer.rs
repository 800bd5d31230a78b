//! A buffer for standard output that is read slowly or not at all. Output waits in memory, then in
//! a file beside the index. So the query ends, and the write-ahead log can be checkpointed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::output::{Audience, Output};
use crate::db::open::directory_beside;
use crate::store::{Spool, SpoolDirectory};

/// Maximum bytes that wait in memory.
const IN_MEMORY: usize = 256 * 1024;

/// Total time that a query waits for its reader. After it, output goes to a file.
const READER_WAIT: Duration = Duration::from_secs(1);

/// The buffer between a query and the reader of its output.
#[derive(Debug)]
pub(super) struct OutputBuffer {
    spools: SpoolDirectory,
    waiting: Mutex<BufferState>,
    changed: Condvar,
}

#[derive(Debug)]
struct BufferState {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The output after the pieces in memory.
    spool: Option<Spool>,
    time_limit: Duration,
    /// The query has ended.
    ended: bool,
    /// The reader has gone.
    gone: bool,
}

impl OutputBuffer {
    /// Creates a buffer. If it needs a file, the file lies beside this index.
    pub(super) fn beside(index: &Path, min_free_bytes: u64) -> Self {
        let waiting = BufferState {
            pieces: VecDeque::new(),
            bytes: 0,
            spool: None,
            time_limit: READER_WAIT,
            ended: false,
            gone: false,
        };
        Self {
            spools: SpoolDirectory::new(directory_beside(index), min_free_bytes),
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
        }
    }

    /// The writing end for the query. Dropping it marks the end of the output.
    pub(super) fn inlet(&self) -> OutputBufferWriter<'_> {
        OutputBufferWriter(self)
    }

    /// Waits for the next piece. `None` after the last.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn next(&self) -> io::Result<Option<Vec<u8>>> {
        let mut waiting = self.lock();
        loop {
            if let Some(piece) = waiting.pieces.pop_front() {
                waiting.bytes -= piece.len();
                self.changed.notify_all();
                return Ok(Some(piece));
            }
            if let Some(spool) = &mut waiting.spool {
                match spool.pop()? {
                    Some(piece) => return Ok(Some(piece)),
                    None => waiting.spool = None,
                }
            }
            if waiting.ended {
                return Ok(None);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes what waits to `output` until the query ends or nobody reads it.
    pub(super) fn pass_on<W: Write>(&self, output: &mut Output<W>) -> io::Result<()> {
        // The close below must also run after an error. Otherwise the query would wait for ever.
        let passed_on = (|| {
            while let Some(piece) = self.next()? {
                if output.bytes(&piece)? == Audience::Gone || output.flush()? == Audience::Gone {
                    break;
                }
            }
            Ok(())
        })();
        self.close();
        passed_on
    }

    /// Marks that the reader has gone.
    pub(super) fn close(&self) {
        self.lock().gone = true;
        self.changed.notify_all();
    }

    fn put(&self, piece: &[u8]) -> io::Result<()> {
        let mut waiting = self.lock();
        loop {
            if waiting.gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if waiting.spool.is_none() {
                if waiting.bytes < IN_MEMORY {
                    waiting.bytes += piece.len();
                    waiting.pieces.push_back(piece.to_vec());
                    self.changed.notify_all();
                    return Ok(());
                }
                if !waiting.time_limit.is_zero() {
                    let (begun, time_limit) = (Instant::now(), waiting.time_limit);
                    waiting = self.changed.wait_timeout(waiting, time_limit).unwrap_or_else(PoisonError::into_inner).0;
                    waiting.time_limit = time_limit.saturating_sub(begun.elapsed());
                    continue;
                }
                waiting.spool = self.spools.spool().ok();
            }
            if waiting.spool.as_mut().is_some_and(|spool| spool.push(piece).is_ok()) {
                self.changed.notify_all();
                return Ok(());
            }
            // The disk is too full, so the query waits.
            waiting = self.changed.wait_timeout(waiting, READER_WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BufferState> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing end of an [`OutputBuffer`].
#[derive(Debug)]
pub(super) struct OutputBufferWriter<'o>(&'o OutputBuffer);

impl Write for OutputBufferWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OutputBufferWriter<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_yet_comes_later_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let outlet = OutputBuffer::beside(&directory.path().join("index.db"), 0);
        let mut inlet = outlet.inlet();
        for number in 0..200_u8 {
            inlet.write_all(&[number; 8192]).unwrap();
        }
        drop(inlet);
        let mut read = Vec::new();
        while let Some(piece) = outlet.next().unwrap() {
            read.extend_from_slice(&piece);
        }
        let written: Vec<u8> = (0..200_u8).flat_map(|number| [number; 8192]).collect();
        assert!(read == written);
    }

    #[test]
    fn a_reader_that_leaves_ends_the_writing() {
        let directory = tempfile::tempdir().unwrap();
        let outlet = OutputBuffer::beside(&directory.path().join("index.db"), 0);
        outlet.close();
        assert_eq!(outlet.inlet().write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
