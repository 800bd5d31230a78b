//! Reasons why a scan failed.

use std::path::PathBuf;

use crate::db;

/// Reason why a scan failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path to scan cannot be found or opened.
    #[error("cannot scan {}", path.display())]
    Path {
        /// The path as given.
        path: PathBuf,
        /// Reason why it cannot be found or opened.
        source: std::io::Error,
    },
    /// A path to scan does not exist.
    #[error("cannot scan {}: it does not exist", path.display())]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// A path to scan is a file of the index.
    #[error("cannot scan {}: it is the index itself", path.display())]
    OwnIndex {
        /// The path as given.
        path: PathBuf,
    },
    /// A path to scan lies in the storage directory.
    #[error("{} lies in the storage directory of the node; the node indexes its own objects itself", path.display())]
    OwnStorage {
        /// The path as given.
        path: PathBuf,
    },
    /// A path to scan has a name that databases use for roots.
    #[error("cannot scan {}: names that begin with @ at the top of the file system stand for a [[root]]; hint: mount it \
             elsewhere", path.display())]
    Reserved {
        /// The path as given.
        path: PathBuf,
    },
    /// The index cannot be read or written.
    #[error(transparent)]
    Index(#[from] db::Error),
    /// Too many reads hang.
    #[error(
        "the storage does not answer: {reads} reads hang; the index keeps the results so far. Check the file server and \
         the mount, then scan again"
    )]
    NotAnswering {
        /// Reads that hang.
        reads: usize,
    },
    /// The system starts no more threads.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}
