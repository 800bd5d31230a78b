//! What goes into an index and what comes out of it, the same for each engine.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::Error;
use crate::model::checksum::Checksum;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;

/// What a commit promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut: for what nobody else keeps.
    Full,
    /// It survives the end of the process, and the index stays whole in a power cut: for scans, whose files are still there.
    Normal,
}

/// Proof that a record is in a committed transaction, durable as the writer was told; only an engine can make one.
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

/// Takes the outcome of [`Arrivals::store`](super::Arrivals::store).
pub type OnStored = Box<dyn FnOnce(Result<Stored, Error>) + Send>;

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
    /// in the index, marked as missing, until [`Arrivals::resolve_missing`](super::Arrivals::resolve_missing).
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

    /// The kind of this word; any other word is a failure.
    pub(in crate::db) fn from_word(text: &str) -> Self {
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
    }
}

/// What the index knows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// Bytes.
    pub size: u64,
    /// Modification time, milliseconds since 1970 UTC.
    pub mtime_ms: i64,
    /// Why it is not indexed; `None` for a location of an instance.
    pub note: Option<Arc<Note>>,
    /// Whether it is a location that was gone when a scan looked last.
    pub missing: bool,
    /// Whether it was read without something that is declared; see `Reader::with_declared`.
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
    /// A snapshot whose files `read` gives, as of the moment when the snapshot is made.
    pub fn new(read: impl FnOnce() -> Result<HashMap<OsString, KnownFile>, Error> + 'r) -> Self {
        Self(Box::new(read))
    }

    /// Reads the files in the directory (not those below it).
    ///
    /// # Errors
    /// That of the engine.
    pub fn files(self) -> Result<HashMap<OsString, KnownFile>, Error> {
        (self.0)()
    }
}

impl std::fmt::Debug for DirectorySnapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectorySnapshot")
    }
}

/// A location of an instance, and what the index says lies there.
#[derive(Clone, PartialEq, Eq)]
pub struct LocatedInstance {
    /// Where.
    pub location: Location,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// The transfer syntax that it lies in.
    pub transfer_syntax: String,
    /// Whether it is a copy known to differ from the first location.
    pub differs: bool,
    /// The checksum of the data set, where the object was received.
    pub checksum: Option<Checksum>,
}

/// How many instances were read with what is declared now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeclaredCoverage {
    /// Instances that were read without a declared attribute.
    pub lacking: u64,
    /// All instances.
    pub all: u64,
}

/// Why a file that was seen is not indexed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// Whether that is a failure or intended.
    pub kind: NotIndexed,
    /// A stable word.
    pub reason: String,
    /// The reason in full.
    pub detail: String,
}

/// What is in the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexStatus {
    /// Schema version of the file.
    pub schema_version: u64,
    /// Number of patients.
    pub patients: u64,
    /// Number of studies.
    pub studies: u64,
    /// Number of series.
    pub series: u64,
    /// Number of instances.
    pub instances: u64,
    /// Further files of instances.
    pub copies: u64,
    /// Locations whose file was gone when a scan looked.
    pub missing: u64,
    /// Instances of which no bytes are kept.
    pub metadata_only: u64,
    /// Files that were indexed in spite of faults in them.
    pub files_with_faults: u64,
    /// The number of the last change (docs/adr/0015).
    pub last_change: u64,
    /// Bytes of the index, write-ahead log included.
    pub size_bytes: u64,
    /// Files that could not be read, by reason, the most frequent first.
    pub failed: Vec<(String, u64)>,
    /// Files that do not belong into the index, by reason, the most frequent first.
    pub skipped: Vec<(String, u64)>,
    /// Contradictions by kind.
    pub conflicts: Vec<(String, u64)>,
    /// The last scans, the newest first.
    pub scans: Vec<ScanEntry>,
}

/// A scan that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEntry {
    /// Its number.
    pub scan: i64,
    /// When, milliseconds since 1970 UTC.
    pub started_ms: i64,
    /// When it ended; `None` while it runs or where it was broken off.
    pub finished_ms: Option<i64>,
    /// The paths, a JSON array.
    pub roots: String,
    /// Its summary, a JSON object.
    pub summary: Option<String>,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureEntry {
    /// Where it lies.
    pub path: PathBuf,
    /// The stable word.
    pub reason: String,
    /// The reason in full.
    pub detail: String,
}

/// A contradiction in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictEntry {
    /// `study-under-two-patients`, `series-under-two-studies`, `patient-id-of-two-people`, `instance-with-other-content` or
    /// `invalid-uid`.
    pub kind: String,
    /// Of the object that contradicts: the further file of an instance, an object of the further patient or in the further
    /// study, an object of the second person, the one whose UIDs are not valid.
    pub study_instance_uid: String,
    /// The study of the first person, where the Patient ID is that of two people; empty for other kinds.
    pub other_study_instance_uid: String,
    /// Of that object.
    pub series_instance_uid: String,
    /// Of that object.
    pub sop_instance_uid: String,
    /// Where that object lies (or one of them); empty where its bytes are not kept.
    pub path: PathBuf,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Every disagreement; none in a sound index.
    pub findings: Vec<Finding>,
}

/// One disagreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// What is wrong, with row numbers and no patient data.
    pub detail: String,
}

/// Interrupts the question that another thread has asked.
#[derive(Clone)]
pub struct Interrupt(Arc<dyn Fn() + Send + Sync>);

impl Interrupt {
    /// An interrupt that calls this.
    pub fn new(interrupt: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(interrupt))
    }

    /// Interrupts the question, if there is one.
    pub fn interrupt(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupt")
    }
}
