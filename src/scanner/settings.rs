//! The settings of a scan that the readers of files and archives need.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Stop;
use super::known_members::KnownMembers;
use super::offline::{TapeCheck, TapeFiles};
use super::settling::Settling;
use super::throttle::Throttle;
use crate::ingest::Wanted;

/// The settings that a reader needs.
#[derive(Clone, Debug)]
pub(super) struct ReadSettings {
    pub(super) stop: Stop,
    /// Whether to read files again whose size and time have not changed.
    pub(super) full: bool,
    /// Directories in which that does not hold.
    pub(super) read_before: Arc<HashSet<PathBuf>>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) settling: Option<Settling>,
    pub(super) tape_files: TapeFiles,
    pub(super) tape_check: Arc<TapeCheck>,
    pub(super) members: Arc<KnownMembers>,
    pub(super) wanted: &'static Wanted,
}

impl ReadSettings {
    /// Whether to read a file again whose size and time have not changed, by its directory or
    /// archive.
    pub(super) fn reads_all_in(&self, path: &Path) -> bool {
        self.full && (self.read_before.is_empty() || !path.ancestors().any(|above| self.read_before.contains(above)))
    }
}
