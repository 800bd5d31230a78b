//! This system does not tell about changes of files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::changes::PathChanges;

/// Returns why the kernel does not tell about changes of a directory.
pub(super) fn why_silent(_path: &Path) -> Option<&'static str> {
    Some("this system")
}

/// The events of one watch. There are none.
#[derive(Debug)]
pub(super) struct NoFileEvents;

impl NoFileEvents {
    pub(super) fn start(_bases: Vec<PathBuf>, _changes: &Arc<Mutex<PathChanges>>) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(super) fn admit(&self, _directory: &Path) {}

    pub(super) fn coverage(&self) -> (usize, bool) {
        (0, false)
    }
}
