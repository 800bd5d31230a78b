//! Knowledge of an index about files and their instances.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use super::scanned::NotIndexed;
use crate::db::error::Error;
use crate::model::checksum::Checksum;
use crate::model::location::Location;

/// Knowledge of the index about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in milliseconds since 1970 UTC.
    pub mtime_ms: i64,
    /// Reason why it is not indexed. `None` for a location of an instance.
    pub note: Option<Arc<Note>>,
    /// Whether it is a location that was gone when a scan last looked.
    pub missing: bool,
    /// Whether it was read without an attribute that is declared now: see `Reader::with_declared`.
    pub lacks_declared: bool,
}

impl KnownFile {
    /// Whether it is a location of an instance.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        self.note.is_none()
    }
}

/// The files of a directory as the index knew them at one moment.
pub struct DirectorySnapshot<'r>(Box<ReadFiles<'r>>);

type ReadFiles<'r> = dyn FnOnce() -> Result<HashMap<OsString, KnownFile>, Error> + 'r;

impl<'r> DirectorySnapshot<'r> {
    /// Makes a snapshot whose files `read` returns as of this moment.
    pub fn new(read: impl FnOnce() -> Result<HashMap<OsString, KnownFile>, Error> + 'r) -> Self {
        Self(Box::new(read))
    }

    /// Reads the files in the directory, without those below it.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn files(self) -> Result<HashMap<OsString, KnownFile>, Error> {
        (self.0)()
    }
}

impl std::fmt::Debug for DirectorySnapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectorySnapshot")
    }
}

/// A location of an instance, and the object that the index expects there.
#[derive(Clone, PartialEq, Eq)]
pub struct LocatedInstance {
    /// The location.
    pub location: Location,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// The transfer syntax of the file.
    pub transfer_syntax: String,
    /// Whether it is a copy that is known to differ from the first location.
    pub differs: bool,
    /// The checksum of the data set, if the object was received.
    pub checksum: Option<Checksum>,
}

/// Number of instances that were read without a declared attribute, and number of all instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeclaredCoverage {
    /// Instances that were read without a declared attribute.
    pub lacking: u64,
    /// All instances.
    pub all: u64,
}

/// Reason why a known file is not indexed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// Kind of the reason: failed, skipped, an archive file, or not in the DICOMDIR.
    pub kind: NotIndexed,
    /// A stable word for counting.
    pub reason: String,
    /// The reason in full.
    pub detail: String,
}
