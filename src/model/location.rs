//! Where the object of an instance lies.

use std::ffi::{OsStr, OsString};
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
    /// An archive file (zip, tar, gzip) in somebody else's archive: what stands for the directory is that file, and what
    /// stands for the name of a file is the path of a member in it.
    Archive,
}

impl Place {
    /// The path to show people for something in a directory of this kind; `/a/b.zip!/c/d.dcm` for a member of an archive.
    ///
    /// For all but [`Place::Archive`] it is the path of the file; the name of a member is never made a path on the disk.
    #[must_use]
    pub fn shown_path(self, directory: &Path, name: &OsStr) -> PathBuf {
        match self {
            // Something about the directory (the archive) itself.
            _ if name.is_empty() => directory.to_owned(),
            Self::InPlace | Self::Managed | Self::MetadataOnly => directory.join(name),
            Self::Archive => {
                let mut shown = directory.as_os_str().to_owned();
                shown.push("!/");
                shown.push(name);
                shown.into()
            }
        }
    }
}

/// Where an object lies, and the marks by which a later scan sees that it is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What kind of place it is.
    pub place: Place,
    /// Absolute path of the directory, or of the archive file for [`Place::Archive`]; empty for [`Place::MetadataOnly`].
    pub directory: PathBuf,
    /// The name of the file in the directory, the path of the member in the archive file, or empty.
    pub file_name: OsString,
    /// Bytes of the file or member (of the data set as received, in metadata-only mode).
    pub size: u64,
    /// Modification time of the file or of the archive file, milliseconds since 1970 UTC (time of arrival, in metadata-only
    /// mode).
    pub mtime_ms: i64,
}

impl Location {
    /// The path of the file; `None` where no bytes are kept. For a member of an archive it is what to show people: to get at
    /// its bytes, and those of any other place, there is `store::open`.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        (self.place != Place::MetadataOnly).then(|| self.place.shown_path(&self.directory, &self.file_name))
    }

    /// The file on disk that holds the bytes: for a member of an archive the archive file. `None` where none are kept.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        match self.place {
            Place::MetadataOnly => None,
            Place::InPlace | Place::Managed => Some(self.directory.join(&self.file_name)),
            Place::Archive => Some(self.directory.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_member_does_not_lead_out_of_its_archive() {
        let shown = |name: &str| Place::Archive.shown_path("/a/b.zip".as_ref(), name.as_ref());
        assert_eq!(shown("c/d.dcm").as_os_str(), "/a/b.zip!/c/d.dcm");
        assert_eq!(shown("/etc/passwd").as_os_str(), "/a/b.zip!//etc/passwd");
        assert_eq!(Place::InPlace.shown_path("/a".as_ref(), "b".as_ref()).as_os_str(), "/a/b");
    }
}
