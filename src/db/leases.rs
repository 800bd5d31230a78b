//! Shared scans: several processes scan parts of the same paths (docs/adr/0049).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A shared scan, as a process that joins it sees it.
#[derive(Clone, Debug, Default)]
pub struct SharedScan {
    /// The paths to scan.
    pub roots: Vec<PathBuf>,
    /// The parts of them that have something in them. If the scan is under way, those are added
    /// that it knows no part of.
    pub units: Vec<PathBuf>,
    /// Places below the paths where a file system is mounted that has something in it. Each is a
    /// part of the scan, because it may not be mounted on another machine.
    pub mounted: Vec<PathBuf>,
    /// The settings that decide what the scan finds, by name. All processes need the same.
    pub rules: BTreeMap<String, String>,
    /// Time for which a worker has a unit.
    pub lease: Duration,
}

/// Next unit of a shared scan for a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextUnit {
    /// It has the unit of this path now. What the worker writes is refused as soon as somebody else
    /// has the unit.
    Leased(PathBuf),
    /// It has all of the scan now, after all other units.
    Last {
        /// Whether a worker left out units. Some files may then be missing here that are there for
        /// another one.
        is_partly: bool,
    },
    /// Others have all units that are left, or have to take them.
    Wait {
        /// Whether this process cannot see some of them.
        elsewhere: bool,
    },
    /// This process can see none of the units that are left, and nobody has one of them now.
    Elsewhere,
    /// Nothing is left.
    Finished,
    /// Another process has begun the scan anew, because no worker has asked for a unit for long.
    Replaced,
}
