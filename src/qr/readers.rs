//! Readers of the index that a service keeps open from one request to the next.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::db::open::{IndexFiles, Reader};
use crate::qr::FindError;
use crate::shares::Turns;

/// Readers that are kept open; more are opened and closed as they are needed. Each keeps up to 8 MiB of pages.
const IDLE_READERS: usize = 8;

/// Requests of one service that ask the index at one time, at least; four for each processor where that is more. More wait for
/// their turn. Each has a reader (8 MiB, three open files) and a thread while the index works, and neither while its peer
/// takes answers. Larger: memory. Smaller: slow queries hold up others.
const AT_ONE_TIME: usize = 16;

/// The readers of one service.
#[derive(Debug)]
pub(crate) struct Readers {
    index: PathBuf,
    /// The files that have the name of the index when the node starts. Another index is never asked, nor one without a name.
    files: IndexFiles,
    turns: Arc<Turns>,
    idle: Mutex<Vec<Reader>>,
}

impl Readers {
    /// Readers of this index.
    pub(crate) fn new(index: PathBuf) -> Self {
        let files = IndexFiles::of(&index);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let turns = Turns::new(AT_ONE_TIME.max(4 * processors));
        Self { index, files, turns, idle: Mutex::new(Vec::new()) }
    }

    /// A turn for each request that may ask at this time.
    pub(crate) fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }

    /// The index.
    pub(crate) fn index(&self) -> &Path {
        &self.index
    }

    /// One that is idle, or a new one.
    pub(crate) fn take(&self) -> Result<Reader, FindError> {
        self.files.check().map_err(FindError::Index)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Reader::open(&self.index).map_err(FindError::Index), Ok)
    }

    /// Keeps one that is not needed any more. One that failed may have a reason to: it is not to be given back.
    pub(crate) fn give_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_READERS {
            idle.push(reader);
        }
    }
}
