//! Why a scan could not be done.

use std::path::PathBuf;

use crate::db;

/// Why a scan could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that was asked for cannot be found or entered.
    #[error("cannot scan {}", path.display())]
    Path {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A path that was asked for is not there.
    #[error(
        "cannot scan {}: nothing is there; hint: see whether its disk is mounted. If it is gone for good, --prune-emptied \
         drops from the index what lay there", path.display()
    )]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// A path that was asked for belongs to the node.
    #[error("{} lies in the storage directory of the node, which keeps its own account of it", path.display())]
    OwnStorage {
        /// The path as given.
        path: PathBuf,
    },
    /// The index cannot be read or written.
    #[error(transparent)]
    Index(#[from] db::Error),
    /// Too much hangs.
    #[error(
        "the storage does not answer: {reads} reads hang; what was done is kept. See whether a server or a mount is gone, and \
         scan again"
    )]
    NotAnswering {
        /// Reads that hang.
        reads: usize,
    },
    /// The system gives no more threads.
    #[error("no thread can be started")]
    Thread(#[source] std::io::Error),
}
