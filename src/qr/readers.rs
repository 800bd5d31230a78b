//! Readers of the index that a service keeps open between requests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::db::Search as _;
use crate::db::open::{IndexFiles, Reader};
use crate::qr::FindError;
use crate::shares::Turns;

/// Maximum number of readers that stay open. If more are needed, they are opened and closed again.
/// Each keeps up to 4 MiB of pages.
const IDLE_READERS: usize = 8;

/// Minimum number of requests of one service that may query the index at the same time.
///
/// Four for each processor apply if that is more. Further requests wait for their turn. While the
/// index works, each request has a reader and a thread. The reader has three open files and up to 8
/// MiB for pages and sorting. The request has neither while its peer takes answers.
///
/// Larger: more memory. Smaller: slow queries delay others.
const AT_ONE_TIME: usize = 8;

/// The readers of one service.
#[derive(Debug)]
pub(crate) struct Readers {
    index: PathBuf,
    /// Files that belong to the index. No other file is ever queried in their place, and no deleted
    /// one. Only a folder may get further files, and lose some.
    files: Mutex<IndexFiles>,
    turns: Arc<Turns>,
    idle: Mutex<Vec<Reader>>,
    /// Number of times that the files of the folder changed.
    times_changed: AtomicU64,
    /// Reads the version of the index.
    version_reader: Mutex<VersionReader>,
}

/// The reader of the version, and how many there were before it.
#[derive(Debug, Default)]
struct VersionReader {
    reader: Option<Reader>,
    count: u64,
    /// [`Readers::times_changed`] when it was taken.
    times_changed: u64,
}

/// Version of an index. The same version twice means that each query in between has the same
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexVersion {
    /// Number of the reader that found out. Versions of two readers cannot be compared.
    reader: u64,
    version: i64,
}

impl IndexVersion {
    /// Makes a version for tests.
    #[cfg(test)]
    pub(crate) fn new(reader: u64, version: i64) -> Self {
        Self { reader, version }
    }
}

impl Readers {
    /// Creates the readers of this index.
    pub(crate) fn new(index: PathBuf) -> Self {
        let files = Mutex::new(IndexFiles::of(&index));
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let turns = Turns::new(AT_ONE_TIME.max(4 * processors));
        let (idle, times_changed, version_reader) = (Mutex::default(), AtomicU64::new(0), Mutex::default());
        Self { index, files, turns, idle, times_changed, version_reader }
    }

    /// Returns the turns of requests. Each request needs one while it queries the index.
    pub(crate) fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }

    /// Returns the path of the index.
    pub(crate) fn index(&self) -> &Path {
        &self.index
    }

    /// Returns an idle reader, or opens a new one.
    pub(crate) fn take(&self) -> Result<Reader, FindError> {
        let files = self.files_now();
        files.check_database().map_err(FindError::Index)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(reader) = idle {
            return Ok(reader);
        }
        files.check().map_err(FindError::Index)?;
        let opening = self.times_changed.load(Relaxed);
        drop(files);
        Ok(Reader::open(&self.index).map_err(FindError::Index)?.of_opening(opening))
    }

    /// The files of the index. Readers of a folder that has other files now are closed.
    fn files_now(&self) -> MutexGuard<'_, IndexFiles> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.are_all() {
            *files = IndexFiles::of(&self.index);
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.times_changed.fetch_add(1, Relaxed);
            tracing::info!(index = %self.index.display(), "the folder of the index has other files than before");
        }
        files
    }

    /// Returns the version that the index has now.
    pub(crate) fn version(&self) -> Result<IndexVersion, FindError> {
        // A reader of a former index would see no change.
        self.files_now().check_database().map_err(FindError::Index)?;
        let times_changed = self.times_changed.load(Relaxed);
        let mut version_reader = self.version_reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = match version_reader.reader.take() {
            Some(reader) if version_reader.times_changed == times_changed => reader,
            Some(_) | None => {
                version_reader.count += 1;
                version_reader.times_changed = times_changed;
                self.take()?
            }
        };
        let version = reader.version().map_err(FindError::Index)?;
        version_reader.reader = Some(reader);
        Ok(IndexVersion { reader: version_reader.count, version })
    }

    /// Keeps a reader for the next request. A reader that failed must not be given back, since it
    /// may fail again.
    pub(crate) fn give_back(&self, reader: Reader) {
        let is_current = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.are_those_of(&reader) && reader.opening() == self.times_changed.load(Relaxed)
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if is_current && idle.len() < IDLE_READERS {
            idle.push(reader);
        }
    }
}
