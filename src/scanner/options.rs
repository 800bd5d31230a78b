//! What can be set about a scan.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::filter::Filter;
use super::throttle::Rate;
use crate::model::declared::DeclaredSet;

/// What becomes of files that the index knows and that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vanished {
    /// They are counted and stay in the index.
    #[default]
    Keep,
    /// They are dropped from the index, except below directories that look as if their disk were not mounted: see [`Why`](super::Why).
    Prune,
    /// They are dropped from the index in any case, and a path to scan may be gone itself.
    PruneEmptied,
}

/// In which order the directories of a directory are entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By name.
    #[default]
    Name,
    /// Those first that were changed last, so that recent studies are found first. The time of a directory says when
    /// something was put into it or taken out, at its own level: of an archive by patients or by dates that is the newest study.
    NewestFirst,
}

/// Settings of a scan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that read files. Too low: disks and file servers wait for us. Too high: seeks on a single disk, and memory.
    pub jobs: usize,
    /// Whether files are read that the index knows with the same size and time.
    pub full: bool,
    /// Which files are looked at.
    pub filter: Filter,
    /// In which order directories are entered.
    pub order: Order,
    /// How much may be read in a second.
    pub throttle: Rate,
    /// How long the file system may take for an answer about one file or directory, before that is given up as failed.
    pub read_timeout: Duration,
    /// For tests.
    #[doc(hidden)]
    pub probe: Probe,
    /// What becomes of what is gone.
    pub vanished: Vanished,
    /// The index file; it, its write-ahead log and its shared memory are not looked at.
    pub index: PathBuf,
    /// The directory of managed objects, which is the node's own business.
    pub storage: PathBuf,
    /// What is read of a file besides the attributes of the table.
    pub declared: Arc<DeclaredSet>,
}

/// Something to call before the file system is asked, with the name of the file or directory: by it tests make one hang.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Probe(pub Option<Arc<OnName>>);

#[doc(hidden)]
pub type OnName = dyn Fn(&OsStr) + Send + Sync;

impl Probe {
    pub(super) fn call(&self, name: &OsStr) {
        if let Some(call) = &self.0 {
            call(name);
        }
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Probe").field(&self.0.is_some()).finish()
    }
}
