//! Readers of the index that a service keeps open from one request to the next.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::qr::{FindError, Reader};

/// Readers that are kept open; more are opened and closed as they are needed. Each keeps up to 8 MiB of pages.
const IDLE_READERS: usize = 8;

/// The readers of one service.
#[derive(Debug)]
pub(super) struct Readers {
    index: PathBuf,
    idle: Mutex<Vec<Reader>>,
}

impl Readers {
    /// Readers of this index.
    pub(super) fn new(index: PathBuf) -> Self {
        Self { index, idle: Mutex::new(Vec::new()) }
    }

    /// The index.
    pub(super) fn index(&self) -> &Path {
        &self.index
    }

    /// One that is idle, or a new one.
    pub(super) fn take(&self) -> Result<Reader, FindError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Reader::open(&self.index).map_err(FindError::Index), Ok)
    }

    /// Keeps one that is not needed any more. One that failed may have a reason to: it is not to be given back.
    pub(super) fn give_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_READERS {
            idle.push(reader);
        }
    }
}
