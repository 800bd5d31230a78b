//! The index: all SQL of the program.
//!
//! One [`Writer`] thread for each process takes records, groups them and commits; any number of [`Reader`]s answer
//! [`FindRequest`](crate::model::find::FindRequest)s meanwhile. Another process may write the same index at the same
//! time: each batch is one immediate transaction, and a writer that notices a foreign commit drops what it had cached.
//!
//! The schema is in `sqlite/schema/schema.sql`; docs/schema.md explains the compact instance rows and the views.

mod name_words;
mod rules;
mod sqlite;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::checksum::Checksum;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;

pub use sqlite::{
    Backlog, CheckReport, ConflictEntry, DirectorySnapshot, FailureEntry, Finding, IndexFiles, IndexStatus, Interrupt,
    KnownFile, LocatedInstance, Note, Reader, SCHEMA_VERSION, ScanEntry, Suspension, Writer, WriterHandle,
    WriterOptions, can_answer, can_answer_declared,
};

/// What a commit promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut: for what nobody else keeps.
    Full,
    /// It survives the end of the process, and the index stays whole in a power cut: for scans, whose files are still there.
    Normal,
}

/// Proof that a record is in a committed transaction, durable as the [`Writer`] was told; only the writer can make one.
#[must_use]
#[derive(Debug)]
pub struct Committed(pub(in crate::db) ());

/// What is known of a received object beside its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Nothing lay under its name, or nothing is kept.
    Nothing,
    /// The same bytes lay under its name; its location is theirs.
    Same,
    /// Other bytes lay under the names before its own.
    Other,
    /// The file that the index names ([`Stored::first`]) is no longer there.
    FirstIsGone,
    /// The file that the index names holds the same bytes, or nothing is known against it.
    FirstIsSame,
    /// The file that the index names holds other bytes.
    FirstIsOther,
}

/// An instance that was received.
#[derive(Debug)]
pub struct Received {
    /// What it says.
    pub record: Box<InstanceRecord>,
    /// Where its object lies.
    pub location: Location,
    /// The checksum of its data set, where its object is kept.
    pub checksum: Option<Checksum>,
    /// Who sent it.
    pub sender: Arc<ReceivedFrom>,
    /// What becomes of it where the instance is known.
    pub policy: ReceivePolicy,
    /// What comparing its object showed.
    pub compared: Compared,
}

impl Received {
    /// An instance of an unknown sender that was compared with nothing, to be treated as by default.
    #[must_use]
    pub fn new(record: Box<InstanceRecord>, location: Location) -> Self {
        let (sender, policy) = (Arc::default(), ReceivePolicy::default());
        Self { record, location, checksum: None, sender, policy, compared: Compared::Nothing }
    }
}

/// Who sent an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReceivedFrom {
    /// The calling AE title.
    pub calling_ae_title: String,
    /// The address that the association came from.
    pub address: Option<IpAddr>,
}

/// A location of an instance with all that the index knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLocation {
    /// Where.
    pub location: Location,
    /// The checksum of the data set, where the object was received.
    pub checksum: Option<Checksum>,
    /// Whether the object there is known to differ from the one at the first location.
    pub differs: bool,
}

/// What became of a record that was received.
#[derive(Debug)]
pub struct Stored {
    /// That it is durable.
    pub committed: Committed,
    /// What it changed.
    pub outcome: StoreOutcome,
    /// The file that the index goes on naming instead of the new object, where that is not the one under its name. Before
    /// the new object is thrown away, somebody has to see that this one is still there.
    pub first: Option<KnownLocation>,
}

/// What a received instance was to the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Not known before.
    New,
    /// Known with the same content as far as the index holds it; nothing changed, and the new object is not needed.
    Identical {
        /// The object that the index names, where the new one was not compared with it. Then nothing is decided yet: the
        /// record is to be stored again with [`Compared::FirstIsSame`] or [`Compared::FirstIsOther`].
        uncompared: Option<Location>,
    },
    /// Known from another place; the new object is kept as a further location.
    KeptCopy {
        /// Whether it differs from the first one, which is a conflict.
        differs: bool,
    },
    /// Known with other content; the first one was kept, the conflict is recorded, and the new object is to be refused.
    KeptFirst,
    /// Known with other content; the new one took its place.
    Replaced {
        /// The managed objects that the index no longer names.
        previous: Vec<PathBuf>,
    },
    /// Known without its object (metadata only, or a file that was gone), which is now at hand.
    Completed,
}

/// What to do when an instance arrives whose SOP Instance UID is known with other content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuplicatePolicy {
    /// Keep both: the new one as a copy that differs.
    #[default]
    KeepBoth,
    /// Keep what is there, record the conflict, and refuse the new one.
    KeepFirst,
    /// Take the new one and record the conflict.
    Replace,
}

/// What to do when an instance arrives that a scan has found somewhere with the same content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownPolicy {
    /// Keep an object of our own: whoever sent it may delete theirs, and the file is not ours.
    #[default]
    KeepOwn,
    /// Keep none: the archive is trusted to keep the file.
    TrustArchive,
}

/// What becomes of instances that are known when they arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivePolicy {
    /// Where they are known with other content.
    pub duplicates: DuplicatePolicy,
    /// Where they are known from a file in place.
    pub known: KnownPolicy,
}

/// The files of a directory, or a part of them, as a scan found them.
#[derive(Debug)]
pub struct ScannedDirectory {
    /// [`Place::InPlace`], or [`Place::Archive`] for the members of an archive file.
    pub place: Place,
    /// Absolute path; of the archive file in an archive.
    pub directory: PathBuf,
    /// The files that were read: new ones and changed ones, not those found unchanged.
    pub files: Vec<ScannedFile>,
    /// Whether `files` ends the directory: whether all of it has been seen.
    pub complete: bool,
    /// Files that the index knows and that are to be dropped from it.
    pub vanished: Vec<OsString>,
    /// Locations of instances that are gone. Where an instance lies elsewhere as well, it has moved there; otherwise it stays
    /// in the index, marked as missing, until [`WriterHandle::settle_missing`].
    pub missing: Vec<OsString>,
    /// Locations that were marked as missing and are back, unchanged.
    pub returned: Vec<OsString>,
}

/// One file as a scan found it.
#[derive(Debug)]
pub struct ScannedFile {
    /// Its name in the directory.
    pub file_name: OsString,
    /// Bytes.
    pub size: u64,
    /// Modification time, milliseconds since 1970 UTC.
    pub mtime_ms: i64,
    /// Whether the index knew a file of this name here, with another size or time.
    pub known: bool,
    /// Whether the index knew it with this size and time, and it was read all the same. What is as the index has it stays
    /// untouched then.
    pub reread: bool,
    /// What reading it gave.
    pub outcome: FileOutcome,
}

/// What reading a file gave.
#[derive(Debug)]
pub enum FileOutcome {
    /// An instance.
    Instance(Box<InstanceRecord>),
    /// Nothing for the index.
    NotIndexed {
        /// Whether that is a failure or intended.
        kind: NotIndexed,
        /// A stable word for counting, such as `not-dicom`.
        reason: &'static str,
        /// The reason in full, for people; no values from the data set.
        detail: String,
    },
}

/// Why a file is not in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotIndexed {
    /// It should be, and could not be read.
    Failed,
    /// It is nothing that belongs there.
    Skipped,
    /// It is an archive file, whose members have rows of their own.
    Container,
    /// It is indexed, and the DICOMDIR of its folder does not list it.
    Unlisted,
}

impl NotIndexed {
    /// As it stands in the index.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Container => "container",
            Self::Unlisted => "unlisted",
        }
    }

    pub(crate) fn from_sql(text: &str) -> Self {
        let kinds = [Self::Skipped, Self::Container, Self::Unlisted];
        kinds.into_iter().find(|kind| text == kind.as_str()).unwrap_or(Self::Failed)
    }
}

/// Whether something is mounted at a directory that a scan has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// Something is.
    Yes,
    /// Something was, and what lies there now is meant to be what counts.
    NoLonger,
}

/// What a scan changed in the index, in numbers of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Instances that were new.
    pub indexed: u64,
    /// Files that were known, changed, and read again.
    pub updated: u64,
    /// Further files of instances that are known from another place.
    pub copies: u64,
    /// Contradictions newly recorded.
    pub conflicts: u64,
    /// Files dropped from the index because they are gone.
    pub removed: u64,
    /// Files that were read again though nothing seemed to have changed, and were not as the index had them.
    pub corrected: u64,
    /// Locations that are gone, of instances that are known in another place with the same content.
    pub moved: u64,
    /// Files indexed in spite of faults in them.
    pub faulty: u64,
}

/// What goes wrong with an index.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no index where one is asked.
    #[error("there is no index at {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not an index of this program", path.display())]
    NotAnIndex {
        /// The file.
        path: PathBuf,
    },
    /// SQLite found the file damaged.
    #[error(
        "the index {} is damaged ({detail}): keep the file, and restore the index from a backup; `dcmdex check` may say more",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
    /// A newer program made it.
    #[error("the index {} has schema {found}, and this program knows schemas up to {known}: use the newer program", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// An older program made it, and this access may not change it.
    #[error("the index {} has the older schema {found}; `dcmdex serve` or `dcmdex scan` brings it to schema {known}", path.display())]
    OlderSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The index is on a file system that cannot share memory between processes.
    #[error("the index {} would lie on a network file system ({kind}), where its write-ahead log is not safe: put it on a local disk", path.display())]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// Which one.
        kind: &'static str,
    },
    /// Bringing the schema up to date failed; the index is as it was.
    #[error("could not bring the index {} to the current schema", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file could not be opened.
    #[error("could not open the index {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file system said no.
    #[error("could not reach {}", path.display())]
    Io {
        /// What could not be reached.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A statement failed.
    #[error("the index did not take a statement")]
    Sqlite(#[from] rusqlite::Error),
    /// SQLite met damage in the middle of its work.
    #[error("the index is damaged ({0}): keep the file, and restore it from a backup; `dcmdex check` may say more")]
    Malformed(String),
    /// The file that was opened no longer has its name, or its log or shared memory has not.
    #[error(
        "the index {} is no longer the file that was opened: it, its -wal or its -shm was removed or replaced. Put the files back, \
         or end the node, restore the index and its -wal from one backup, and start the node", path.display()
    )]
    Replaced {
        /// The index.
        path: PathBuf,
    },
    /// The database is gone or empty, and it was needed.
    #[error(
        "the index {0} is gone, and its write-ahead log {0}-wal holds what was acknowledged: put the index back, or move \
         the log and {0}-turn away and restore the index from a backup", path.display()
    )]
    DatabaseGone {
        /// The index.
        path: PathBuf,
    },
    /// The log beside the database is that of another one.
    #[error(
        "the write-ahead log {} was written for another file than {}, and would destroy it: move the log away if the index \
         is a restored backup; if both were copied here together, remove {}",
        log.display(), path.display(), record.display()
    )]
    ForeignLog {
        /// The index.
        path: PathBuf,
        /// The log.
        log: PathBuf,
        /// What says whose log it is.
        record: PathBuf,
    },
    /// The log is gone, and it held commits.
    #[error(
        "the write-ahead log {} is gone, and the index {} lacks what was acknowledged last: put the log back, or restore both \
         from a backup; to go on without it, remove {}",
        log.display(), path.display(), record.display()
    )]
    LogGone {
        /// The index.
        path: PathBuf,
        /// The log.
        log: PathBuf,
        /// What says that it is needed.
        record: PathBuf,
    },
    /// Another process has kept the index locked for too long.
    #[error("another process keeps the index locked; it may have been stopped in the middle")]
    Locked,
    /// The disk below the index is full.
    #[error("no space left for the index")]
    Full,
    /// The writer has stopped; the text says why.
    #[error("the writer of the index has stopped: {0}")]
    WriterStopped(String),
    /// A defect of this program ended the transaction; nothing of it is in the index, and the writer goes on.
    #[error("a defect of this program ended the transaction")]
    WriterPanicked,
    /// The queue of the writer is full.
    #[error("the queue of the index is full")]
    Busy,
    /// The query was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// A query has keys that the index does not hold.
    #[error("the index cannot answer this query: {0}")]
    Unsupported(String),
}

impl Error {
    /// The error for one of SQLite, with the kinds that callers tell apart.
    pub(crate) fn from_sqlite(source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => Self::Interrupted,
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::Locked,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Malformed(source.to_string())
            }
            _ => Self::Sqlite(source),
        }
    }
}
