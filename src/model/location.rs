//! Where the object of an instance lies.

use std::path::{Path, PathBuf};

/// What kind of place a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A directory of somebody else's archive: dcmdex reads there and never writes.
    InPlace,
    /// A directory below the node's own storage directory: objects that it received.
    Managed,
    /// No bytes kept: received in metadata-only mode.
    MetadataOnly,
}

/// Where an object lies, and the marks by which a later scan sees that it is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What kind of place it is.
    pub place: Place,
    /// Absolute path of the directory; empty for [`Place::MetadataOnly`].
    pub directory: PathBuf,
    /// The name of the file in the directory, or empty.
    pub file_name: std::ffi::OsString,
    /// Bytes of the file (of the data set as received, in metadata-only mode).
    pub size: u64,
    /// Modification time of the file, milliseconds since 1970 UTC (time of arrival, in metadata-only mode).
    pub mtime_ms: i64,
}

impl Location {
    /// The path of the file; `None` where no bytes are kept.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        (self.place != Place::MetadataOnly).then(|| Path::new(&self.directory).join(&self.file_name))
    }
}
