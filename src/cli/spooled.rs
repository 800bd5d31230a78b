//! Standard output that is read slowly, or not at all: what is written waits in memory, then in a file beside the index, so that a
//! query gets to its end and the write-ahead log can be copied back.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::{FreeSpace, Spool};

/// Bytes that wait in memory.
const IN_MEMORY: usize = 256 * 1024;

/// How long the query waits for its reader, all in all, before what it writes goes to a file.
const PATIENCE: Duration = Duration::from_secs(1);

/// The part of the disk that stays free, as a divisor.
const PART_FREE: u64 = 10;

/// What waits between a query and its reader.
#[derive(Debug)]
pub(super) struct Outlet {
    directory: PathBuf,
    space: Arc<FreeSpace>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug)]
struct Waiting {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    /// What comes after the pieces in memory.
    spool: Option<Spool>,
    patience: Duration,
    /// Nothing more will be written.
    ended: bool,
    /// Nobody reads any more.
    gone: bool,
}

impl Outlet {
    /// With its file, if there has to be one, beside this index.
    pub(super) fn beside(index: &Path, min_free_bytes: u64) -> Self {
        let directory = index.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let waiting =
            Waiting { pieces: VecDeque::new(), bytes: 0, spool: None, patience: PATIENCE, ended: false, gone: false };
        Self {
            directory: directory.to_owned(),
            space: Arc::new(FreeSpace::new(directory, min_free_bytes, PART_FREE)),
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
        }
    }

    /// What the query writes to. When it is dropped, there is no more.
    pub(super) fn inlet(&self) -> Inlet<'_> {
        Inlet(self)
    }

    /// The next piece; `None` after the last. Waits for it.
    ///
    /// # Errors
    /// When it cannot be read back.
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

    /// Nobody reads any more.
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
                if !waiting.patience.is_zero() {
                    let (begun, patience) = (Instant::now(), waiting.patience);
                    waiting = self.changed.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner).0;
                    waiting.patience = patience.saturating_sub(begun.elapsed());
                    continue;
                }
                waiting.spool = Spool::new(&self.directory, &self.space).ok();
            }
            if waiting.spool.as_mut().is_some_and(|spool| spool.push(piece).is_ok()) {
                self.changed.notify_all();
                return Ok(());
            }
            // No room on disk: the query waits after all.
            waiting = self.changed.wait_timeout(waiting, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The query's side of an [`Outlet`].
#[derive(Debug)]
pub(super) struct Inlet<'o>(&'o Outlet);

impl Write for Inlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Inlet<'_> {
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
        let outlet = Outlet::beside(&directory.path().join("index.db"), 0);
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
        let outlet = Outlet::beside(&directory.path().join("index.db"), 0);
        outlet.close();
        assert_eq!(outlet.inlet().write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
