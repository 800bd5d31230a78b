//! Reports of a scan to an index about directories and files.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// The files of a directory, or a part of them, as a scan found them.
#[derive(Debug)]
pub struct ScannedDirectory {
    /// [`Place::InPlace`], or [`Place::Archive`] for the members of an archive file.
    pub place: Place,
    /// Absolute path of the directory or archive file.
    pub directory: PathBuf,
    /// The files that were read, which are new or changed. It has no unchanged files.
    pub files: Vec<ScannedFile>,
    /// Whether `files` is the last part, so that all of the directory was seen.
    pub complete: bool,
    /// Known files that are to be dropped from the index.
    pub vanished: Vec<OsString>,
    /// Locations that are gone. An instance that also lies elsewhere has moved there. Otherwise its
    /// location is marked as missing until
    /// [`Arrivals::resolve_missing`](crate::db::Arrivals::resolve_missing).
    pub missing: Vec<OsString>,
    /// Locations that were marked as missing and are back unchanged.
    pub returned: Vec<OsString>,
}

impl ScannedDirectory {
    /// A part of a directory in which nothing was seen yet.
    #[must_use]
    pub fn new(place: Place, directory: impl Into<PathBuf>) -> Self {
        Self {
            place,
            directory: directory.into(),
            files: Vec::new(),
            complete: false,
            vanished: Vec::new(),
            missing: Vec::new(),
            returned: Vec::new(),
        }
    }
}

/// A file as a scan found it.
#[derive(Debug)]
pub struct ScannedFile {
    /// Its name in the directory.
    pub file_name: OsString,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in milliseconds since 1970 UTC.
    pub mtime_ms: i64,
    /// Whether the index knew a file of this name here with another size or time.
    pub known: bool,
    /// Whether the index knew it with this size and time, and it was read all the same. If its
    /// content is as the index has it, nothing changes.
    pub reread: bool,
    /// The result of reading it.
    pub outcome: FileOutcome,
}

/// The result of reading a file.
#[derive(Debug)]
pub enum FileOutcome {
    /// An instance.
    Instance(Box<InstanceRecord>),
    /// Nothing for the index.
    NotIndexed {
        /// Kind of the reason: failed, skipped, an archive file, or not in the DICOMDIR.
        kind: NotIndexed,
        /// A stable word for counting, such as `not-dicom`.
        reason: &'static str,
        /// The reason in full for people, without values of the data set.
        detail: String,
    },
}

/// Reason why a file is not in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotIndexed {
    /// It should be there but could not be read.
    Failed,
    /// It does not belong there.
    Skipped,
    /// It is an archive file, whose members have rows of their own.
    Container,
    /// It is indexed, but the DICOMDIR of its folder does not list it.
    Unlisted,
}

impl NotIndexed {
    /// The word for it in the index.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Container => "container",
            Self::Unlisted => "unlisted",
        }
    }

    /// The kind that this word stands for. Any other word is a failure.
    pub(in crate::db) fn from_word(text: &str) -> Self {
        let kinds = [Self::Skipped, Self::Container, Self::Unlisted];
        kinds.into_iter().find(|kind| text == kind.as_str()).unwrap_or(Self::Failed)
    }
}

/// State of the disk at a directory, as a scan has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A file system is mounted there.
    Yes,
    /// None is mounted any more, and the files that lie there now count.
    NoLonger,
    /// No file of the index was there, as if another disk were mounted (docs/adr/0069).
    Exchanged,
    /// It is no longer taken for another one.
    NotExchanged,
}

/// Numbers of what scans changed in the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Instances that are new.
    pub indexed: u64,
    /// Known files that have changed and were read again.
    pub updated: u64,
    /// Further files of instances that are known from another place.
    pub copies: u64,
    /// Conflicts that were recorded. One file may be in several.
    pub conflicts: u64,
    /// Files dropped from the index because they are gone.
    pub removed: u64,
    /// Files that were read again although they seemed unchanged, and that the index had otherwise.
    pub corrected: u64,
    /// Locations that are gone, if the instance is known in another place with the same content.
    pub moved: u64,
    /// Files indexed in spite of their faults.
    pub faulty: u64,
    /// New files that were not indexed, because an operator removed their instances.
    pub withheld: u64,
    /// Indexed files that were dropped, because an operator removed their instances.
    pub withheld_updated: u64,
}

impl Tally {
    pub(in crate::db) fn add(&mut self, other: Self) {
        self.indexed += other.indexed;
        self.updated += other.updated;
        self.copies += other.copies;
        self.conflicts += other.conflicts;
        self.removed += other.removed;
        self.corrected += other.corrected;
        self.moved += other.moved;
        self.faulty += other.faulty;
        self.withheld += other.withheld;
        self.withheld_updated += other.withheld_updated;
    }
}
