//! Removals and moves by an operator.

use std::path::PathBuf;

use crate::model::checksum::Checksum;
use crate::model::location::Location;

/// The reason of files that are not indexed because an operator removed their instances.
pub const REMOVED: &str = "removed";

/// Numbers of all that a removal took out of the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedCounts {
    /// Instances.
    pub instances: u64,
    /// Objects in the storage directory.
    pub objects: u64,
    /// Size of these objects in bytes.
    pub object_bytes: u64,
    /// Files that were scanned in place, and members of archives.
    pub in_place: u64,
}

impl RemovedCounts {
    /// Adds other counts.
    pub fn add(&mut self, other: Self) {
        self.instances += other.instances;
        self.objects += other.objects;
        self.object_bytes += other.object_bytes;
        self.in_place += other.in_place;
    }
}

/// A removal by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its number.
    pub id: i64,
    /// When it began, in milliseconds since 1970 UTC.
    pub begun_ms: i64,
    /// Whether received objects go to the trash.
    pub takes_objects: bool,
    /// Instances that it removed.
    pub instances: u64,
    /// Instances that were neither brought back nor received again.
    pub still_removed: u64,
    /// Objects that are to go to the trash.
    pub for_trash: u64,
    /// Objects in the trash.
    pub in_trash: u64,
    /// When the trash was emptied, in milliseconds since 1970 UTC.
    pub emptied_ms: Option<i64>,
}

impl Removal {
    /// A removal that has removed nothing yet.
    #[must_use]
    pub const fn begun(id: i64, begun_ms: i64, takes_objects: bool) -> Self {
        Self {
            id,
            begun_ms,
            takes_objects,
            instances: 0,
            still_removed: 0,
            for_trash: 0,
            in_trash: 0,
            emptied_ms: None,
        }
    }
}

/// A file of a removed instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedFile {
    /// Number of the row of its directory.
    pub directory: i64,
    /// Location of the file when its instance was removed.
    pub location: Location,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// Number of the removal.
    pub removal: i64,
    /// When the removal began, in milliseconds since 1970 UTC.
    pub begun_ms: i64,
    /// The checksum of the data set, if the object was received.
    pub checksum: Option<Checksum>,
    /// Whether it was known to differ from the first location.
    pub differs: bool,
    /// Whether it was moved to the trash.
    pub is_in_trash: bool,
}

/// Effect of a change of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relocation {
    /// Directories and archive files with a new path.
    pub directories: u64,
    /// Instances whose first file gets a new path.
    pub instances: u64,
    /// Directories that were known at their new path with copies of the same files.
    pub merged: u64,
    /// Some of the new paths at which the index knows other files. If there are any, nothing is
    /// changed.
    pub taken: Vec<PathBuf>,
}
