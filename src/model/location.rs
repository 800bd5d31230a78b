//! The location of an instance's object.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The file of a storage directory that holds its id. Nodes of one database need it.
pub const STORAGE_ID: &str = ".storage";

/// Kind of place that holds an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A directory of an existing archive. dcmdex reads there and never writes.
    InPlace,
    /// A directory below the storage directory of the node. It holds objects that the node
    /// received.
    Managed,
    /// No place: the object was received in metadata-only mode and its bytes were not kept.
    MetadataOnly,
    /// An archive file (zip, tar, gzip) in an existing archive. The archive file takes the place of
    /// the directory. The path of the member takes the place of the file name.
    Archive,
}

impl Place {
    /// Returns the path to show to users, such as `/a/b.zip!/c/d.dcm` for a member of an archive
    /// file.
    ///
    /// For all kinds except [`Place::Archive`] it is the path of the file. The name of a member is
    /// never used as a path on disk.
    #[must_use]
    pub fn shown_path(self, directory: &Path, name: &OsStr) -> PathBuf {
        match self {
            // An empty name stands for the directory or the archive file itself.
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

/// Location of an object, with the size and time by which a later scan sees that it is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Kind of place.
    pub place: Place,
    /// Absolute path of the directory, or of the archive file for [`Place::Archive`]. It is empty
    /// for [`Place::MetadataOnly`].
    pub directory: PathBuf,
    /// Name of the file in the directory, or path of the member in the archive file. It is empty
    /// for [`Place::MetadataOnly`].
    pub file_name: OsString,
    /// Size of the file or member in bytes. In metadata-only mode it is the size of the data set as
    /// received.
    pub size: u64,
    /// Modification time of the file or of the archive file, in milliseconds since 1970 UTC. In
    /// metadata-only mode it is the time of arrival.
    pub mtime_ms: i64,
}

impl Location {
    /// Returns the path of the file. `None` if no bytes are kept.
    ///
    /// For a member of an archive file this path is only for display. `store::open` opens the bytes
    /// of any location.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        (self.place != Place::MetadataOnly).then(|| self.place.shown_path(&self.directory, &self.file_name))
    }

    /// Returns the file on disk that holds the bytes. For a member it is the archive file. `None`
    /// if no bytes are kept.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        match self.place {
            Place::MetadataOnly => None,
            Place::InPlace | Place::Managed => Some(self.directory.join(&self.file_name)),
            Place::Archive => Some(self.directory.clone()),
        }
    }
}

/// A path as part of a URI (RFC 3986).
#[must_use]
pub fn uri_path(path: &[u8]) -> String {
    let mut part = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b'/' => part.push(char::from(*byte)),
            other => part.push_str(&format!("%{other:02X}")),
        }
    }
    part
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
