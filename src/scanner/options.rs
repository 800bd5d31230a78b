//! The settings of a scan.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::depth::Jobs;
use super::filter::Filter;
use super::offline::TapeFiles;
use super::settling::Settling;
use super::throttle::Rate;
use crate::model::declared::DeclaredSet;

/// Action of the scan for files that the index knows and that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vanished {
    /// It counts them and keeps them in the index.
    #[default]
    Keep,
    /// It deletes them from the index, except below directories whose disk may not be mounted. See
    /// [`Why`](super::Why).
    Prune,
    /// It always deletes them from the index. A path to scan may itself be missing.
    PruneEmptied,
}

/// The order in which the walk enters the subdirectories of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalkOrder {
    /// By name.
    #[default]
    Name,
    /// The most recently changed first, so that recent studies are found first. The time of a
    /// directory changes when an entry is added to it or removed from it, not when one is below a
    /// subdirectory. In an archive sorted by patient or by date, the newest directory has the
    /// newest study.
    NewestFirst,
}

/// Settings of a scan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numbers of threads that read files.
    ///
    /// Larger: more seeks on a single disk, and more memory. Smaller: disks and file servers wait
    /// for the scan.
    pub jobs: Jobs,
    /// Whether to read files again whose size and time have not changed.
    pub full: bool,
    /// Directories in which `full` does not hold, because another part of the same scan has read
    /// them.
    pub read_before: Arc<HashSet<PathBuf>>,
    /// Filter for the files that the scan looks at.
    pub filter: Filter,
    /// The order in which the walk enters directories.
    pub order: WalkOrder,
    /// Maximum files and bytes that the scan reads in a second.
    pub throttle: Rate,
    /// Maximum time for one answer of the file system. After it, the file or directory counts as
    /// failed.
    pub read_timeout: Duration,
    /// Makes files wait that may still be written. `None` reads each file at once.
    pub settling: Option<Settling>,
    /// Action of the scan for files on tape.
    pub tape_files: TapeFiles,
    /// Called with each directory before it is listed.
    pub before_listing: BeforeListing,
    /// Action of the scan for files that are gone.
    pub vanished: Vanished,
    /// The index file. The scan skips it, its write-ahead log and its shared memory.
    pub index: PathBuf,
    /// The storage directory. The scan skips it, because the node indexes its own objects.
    pub storage: PathBuf,
    /// Attributes to read besides those of the attribute table.
    pub declared: Arc<DeclaredSet>,
}

/// A function that runs before each directory is listed.
#[derive(Clone, Default)]
pub struct BeforeListing(pub Option<Arc<OnDirectory>>);

/// The function of a [`BeforeListing`].
pub type OnDirectory = dyn Fn(&Path) + Send + Sync;

impl std::fmt::Debug for BeforeListing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BeforeListing").field(&self.0.is_some()).finish()
    }
}
