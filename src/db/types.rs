//! What goes into an index and what comes out of it. It is the same for each engine.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::Error;
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;

/// Guarantee of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A commit survives a power cut. For objects that nobody else keeps.
    Full,
    /// A commit survives the end of the process, and the index stays whole in a power cut. For
    /// scans, whose files are still there.
    Normal,
}

/// Proof that a record is in a committed transaction, as durable as the writer was opened for. Only
/// an engine can make one.
#[must_use]
#[derive(Debug)]
pub struct Committed(pub(in crate::db) ());

/// What is known of a received object beside its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// There was no object under its name, or none is kept.
    Nothing,
    /// The same bytes lay under its name, and its location is theirs.
    Same,
    /// Other bytes lay under all names before its own.
    Other,
    /// The file that the index names ([`Stored::first`]) is no longer there.
    FirstIsGone,
    /// The file that the index names holds the same bytes, or nothing tells otherwise.
    FirstIsSame,
    /// The file that the index names holds other bytes.
    FirstIsOther,
}

/// An instance that was received.
#[derive(Debug)]
pub struct Received {
    /// The values of its data set.
    pub record: Box<InstanceRecord>,
    /// The location of its object.
    pub location: Location,
    /// The checksum of its data set, if its object is kept.
    pub checksum: Option<Checksum>,
    /// Who sent it.
    pub sender: Arc<ReceivedFrom>,
    /// What becomes of the object if its instance is known.
    pub policy: ReceivePolicy,
    /// The result of comparing its object.
    pub compared: Compared,
    /// Its entry in the journal of the node. An instance that has one is durable before it comes to
    /// the index.
    pub journaled: Option<JournalNumber>,
}

/// An entry of an arrival journal (docs/adr/0039).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalNumber {
    /// The number of the journal.
    pub journal: [u8; 16],
    /// The number of the entry. A later entry has a higher one.
    pub number: u64,
}

impl Received {
    /// An instance of an unknown sender, compared with nothing, with the default policy.
    #[must_use]
    pub fn new(record: Box<InstanceRecord>, location: Location) -> Self {
        let (sender, policy) = (Arc::default(), ReceivePolicy::default());
        Self { record, location, checksum: None, sender, policy, compared: Compared::Nothing, journaled: None }
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

/// AE title and address, for the log.
impl fmt::Display for ReceivedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = match self.calling_ae_title.as_str() {
            "" => "a client over HTTP",
            title => title,
        };
        match self.address {
            Some(address) => write!(f, "{title} at {address}"),
            None => f.write_str(title),
        }
    }
}

/// A location of an instance with all that the index knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLocation {
    /// The location.
    pub location: Location,
    /// The checksum of the data set, if the object was received.
    pub checksum: Option<Checksum>,
    /// Whether the object there is known to differ from the one at the first location.
    pub differs: bool,
    /// What corrections replace in the object when it is sent.
    pub corrected: Option<Arc<CorrectedValues>>,
}

/// What corrections replace in an object when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrectedValues {
    /// The values that are replaced, in the order of their tags.
    pub values: Vec<(AttributeId, String)>,
    /// When the last of the rules was made, in milliseconds since 1970 UTC.
    pub made_ms: i64,
    /// AE title of the node where it was made.
    pub system: String,
}

/// What became of a record that was received.
#[derive(Debug)]
pub struct Stored {
    /// The proof of commit.
    pub committed: Committed,
    /// The change of the index.
    pub outcome: StoreOutcome,
    /// The file that the index still names instead of the new object, if that is not the one under
    /// its name. Before the new object is discarded, somebody must check that this file is still
    /// there.
    pub first: Option<KnownLocation>,
}

/// Receives the outcome of [`Arrivals::store`](super::Arrivals::store).
pub type OnStored = Box<dyn FnOnce(Result<Stored, Error>) + Send>;

/// What a received instance was to the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// It was not known.
    New,
    /// It was known with the same content, as far as the index holds it. Nothing has changed, and
    /// the new object is not needed.
    Identical {
        /// The object that the index names, if the new one was not compared with it. Nothing is
        /// decided then: the record must be stored again with [`Compared::FirstIsSame`] or
        /// [`Compared::FirstIsOther`].
        uncompared: Option<Location>,
    },
    /// It was known from another place. The new object is kept as a further location.
    KeptCopy {
        /// Whether the new object differs from the first one, which is a conflict.
        differs: bool,
    },
    /// It was known with other content. The first object stays, the conflict is recorded, and the
    /// new object must be refused.
    KeptFirst,
    /// It was known with other content. The new object has replaced the first one.
    Replaced {
        /// The managed objects that the index no longer names.
        previous: Vec<PathBuf>,
    },
    /// It was known without its object (metadata only, or a file that was gone), which is now
    /// there.
    Completed,
}

impl StoreOutcome {
    /// Whether the index has an object, or the description of one, that it had not before.
    pub(in crate::db) const fn brings_object(&self) -> bool {
        match self {
            Self::New | Self::Replaced { .. } | Self::Completed => true,
            Self::KeptCopy { differs } => *differs,
            Self::Identical { .. } | Self::KeptFirst => false,
        }
    }
}

/// What to do if an arriving instance is known with other content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuplicatePolicy {
    /// Keep both objects, the new one as a copy that differs.
    #[default]
    KeepBoth,
    /// Keep the first object, record the conflict, and refuse the new one.
    KeepFirst,
    /// Take the new object and record the conflict.
    Replace,
}

/// What to do if an arriving instance is known with the same content from a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownPolicy {
    /// Keep an object of our own. The sender may delete its object, and the scanned file is not
    /// ours.
    #[default]
    KeepOwn,
    /// Keep no object, and trust the archive to keep its file.
    TrustArchive,
}

/// What to do with arriving instances that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivePolicy {
    /// The policy for instances with other content.
    pub duplicates: DuplicatePolicy,
    /// The policy for instances that are known from a file in place.
    pub known: KnownPolicy,
}

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
    /// [`Arrivals::resolve_missing`](super::Arrivals::resolve_missing).
    pub missing: Vec<OsString>,
    /// Locations that were marked as missing and are back unchanged.
    pub returned: Vec<OsString>,
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
        /// Why it is not indexed: failed, skipped, an archive file, or not in the DICOMDIR.
        kind: NotIndexed,
        /// A stable word for counting, such as `not-dicom`.
        reason: &'static str,
        /// The reason in full for people, without values of the data set.
        detail: String,
    },
}

/// Why a file is not in the index.
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

/// Whether something is mounted at a directory that a scan has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A file system is mounted there.
    Yes,
    /// None is mounted any more, and the files that lie there now count.
    NoLonger,
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

/// The reason of files that are not indexed because an operator removed their instances.
pub const REMOVED: &str = "removed";

/// What a removal took out of the index.
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
    /// Those that were neither brought back nor received again.
    pub still_removed: u64,
    /// Objects that are to go to the trash.
    pub for_trash: u64,
    /// Objects in the trash.
    pub in_trash: u64,
    /// When the trash was emptied, in milliseconds since 1970 UTC.
    pub emptied_ms: Option<i64>,
}

/// A file of a removed instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedFile {
    /// Number of the row of its directory.
    pub directory: i64,
    /// Where it was when its instance was removed.
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

/// What a change of paths does.
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

/// What the index knows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in milliseconds since 1970 UTC.
    pub mtime_ms: i64,
    /// Why it is not indexed. `None` for a location of an instance.
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

/// How many instances were read with what is declared now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeclaredCoverage {
    /// Instances that were read without a declared attribute.
    pub lacking: u64,
    /// All instances.
    pub all: u64,
}

/// Why a known file is not indexed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// Why it is not indexed: failed, skipped, an archive file, or not in the DICOMDIR.
    pub kind: NotIndexed,
    /// A stable word for counting.
    pub reason: String,
    /// The reason in full.
    pub detail: String,
}

/// The contents of an index in numbers.
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
    /// Instances whose object is not kept.
    pub metadata_only: u64,
    /// Files that were indexed in spite of their faults.
    pub files_with_faults: u64,
    /// The number of the last change (docs/adr/0015).
    pub last_change: u64,
    /// Bytes of the index with its write-ahead log.
    pub size_bytes: u64,
    /// Files that could not be read, by reason, the most frequent reason first.
    pub failed: Vec<(String, u64)>,
    /// Files that do not belong in the index, by reason, the most frequent reason first.
    pub skipped: Vec<(String, u64)>,
    /// Conflicts by kind.
    pub conflicts: Vec<(String, u64)>,
    /// The last scans, the newest first.
    pub scans: Vec<ScanEntry>,
}

/// A scan in the ledger, the running one included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEntry {
    /// Its number.
    pub scan: i64,
    /// Begin in milliseconds since 1970 UTC.
    pub started_ms: i64,
    /// End in milliseconds since 1970 UTC. `None` while the scan runs, or if it was killed.
    pub finished_ms: Option<i64>,
    /// The scanned paths as a JSON array.
    pub roots: String,
    /// Its summary as a JSON object.
    pub summary: Option<String>,
}

/// A watched directory, and what the last look at it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEntry {
    /// The watched paths as a JSON array.
    pub roots: String,
    /// The state as a JSON object.
    pub state: String,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureEntry {
    /// Its path.
    pub path: PathBuf,
    /// A stable word for counting.
    pub reason: String,
    /// The reason in full.
    pub detail: String,
}

/// A conflict in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictEntry {
    /// `study-under-two-patients`, `series-under-two-studies`, `patient-id-of-two-people`,
    /// `instance-with-other-content` or `invalid-uid`.
    pub kind: String,
    /// Study of the conflicting object. This object is the further file of an instance, or an
    /// object of the further patient or in the further study. For other kinds it is an object of
    /// the second person, or the object with invalid UIDs.
    pub study_instance_uid: String,
    /// Study of the first person, if one Patient ID is that of two people. Empty for other kinds.
    pub other_study_instance_uid: String,
    /// Series of the conflicting object.
    pub series_instance_uid: String,
    /// SOP Instance UID of the conflicting object.
    pub sop_instance_uid: String,
    /// Path of the object, or of one of them. Empty if its bytes are not kept.
    pub path: PathBuf,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Every disagreement. A sound index has none.
    pub findings: Vec<Finding>,
}

/// A disagreement of what the index says of itself with its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that was checked, as `dcmdex check` prints it. `db/sqlite/check.rs` has the list.
    pub check: &'static str,
    /// The disagreement, with row numbers and without patient data.
    pub detail: String,
}

/// Interrupts a question that another thread asks.
#[derive(Clone)]
pub struct Interrupt(Arc<dyn Fn() + Send + Sync>);

impl Interrupt {
    /// Makes an interrupt that calls this function.
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
