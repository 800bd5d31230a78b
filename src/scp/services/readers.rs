//! Readers of the index that a service keeps open from one request to the next.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::qr::{FindError, Reader};

/// Readers that are kept open; more are opened and closed as they are needed. Each keeps up to 8 MiB of pages.
const IDLE_READERS: usize = 8;

/// Requests of one service that ask the index at one time; more wait for their turn. Each may have a reader (8 MiB, three open
/// files) and a thread, of which the runtime has 512 for all that blocks, receiving objects included.
const AT_ONE_TIME: usize = 128;

/// The readers of one service.
#[derive(Debug)]
pub(super) struct Readers {
    index: PathBuf,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Reader>>,
}

impl Readers {
    /// Readers of this index.
    pub(super) fn new(index: PathBuf) -> Self {
        Self { index, turns: Arc::new(Semaphore::new(AT_ONE_TIME)), idle: Mutex::new(Vec::new()) }
    }

    /// A permit for each request that may ask at this time.
    pub(super) fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turns)
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
