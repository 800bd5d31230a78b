//! Watched directories: looked at again and again, so that the index stays current.
//!
//! Polling is the base, because it works on every file system: to find a file unchanged costs two
//! microseconds. What the kernel tells of changes (inotify) is a hint, which leads to an early look
//! at what changed. One scheduler thread runs one scan at a time, with the writer of the node.
//!
//! A file that changed a moment ago may still be written. It is not read, and does not count as
//! failed. A look a few seconds later reads it.

mod changes;
#[cfg(target_os = "linux")]
mod events;
mod follower;
#[cfg(not(target_os = "linux"))]
mod no_events;
mod plan;
mod scheduler;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::scanner;

pub use follower::{LookKind, WatchContext};
pub use plan::{DailyTime, Interval, PlanError, WatchPlan};
pub use scheduler::{Scheduler, WatchControl, WatchEvent};
pub use state::{LookCost, LookFigures, WatchState};

/// Time for which a file must not have changed before a look reads it.
///
/// Larger: new files are found later. Smaller: a file whose writer pauses is read half-written.
pub const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// A directory to watch.
#[derive(Clone, Debug)]
pub struct WatchedRoots {
    /// The paths, absolute. They need not exist.
    pub paths: Vec<PathBuf>,
    /// When they are looked at.
    pub plan: WatchPlan,
    /// Whether to take hints of the kernel, where there are any.
    pub events: bool,
    /// Settings of their scans.
    pub options: scanner::Options,
}

impl WatchedRoots {
    /// The paths as the index names them.
    #[must_use]
    pub fn roots_json(&self) -> String {
        let paths: Vec<_> = self.paths.iter().map(|path| Value::from(path.to_string_lossy())).collect();
        Value::Array(paths).to_string()
    }

    /// Whether another one would be looked at in the same way.
    fn is_same(&self, other: &Self) -> bool {
        // Options have no equality, but their text shows all of them.
        format!("{self:?}") == format!("{other:?}")
    }
}
