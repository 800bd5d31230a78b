//! The types that walk, readers, watchdog and collector hand to one another: directories, units of
//! work and their results.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Stat;

use crate::db::{FileOutcome, KnownFile, Mounted, NotIndexed, ScannedFile};
use crate::ingest::{EMPTY, Outcome};
use crate::model::location::Place;

/// Maximum files in one unit of work.
///
/// Larger: more memory in the queues, some 1.5 KB for each file. Smaller: a bigger index, since the
/// writer packs the files of one unit together, and more channel traffic.
pub const UNIT_FILES: usize = 256;

/// Maximum bytes of record text in one result. Above it, a reader hands over the result before its
/// unit is done. Results with real headers stay far below. The limit is for archives made to fill
/// memory.
pub(super) const RESULT_TEXT_BYTES: usize = 1 << 20;

/// Reasons that come from the system, not from the file. The file may be readable later although
/// its size and time have not changed.
pub(super) const MAY_PASS: [&str; 6] =
    ["unreadable", "unreadable-directory", "broken-link", "internal-error", TIMED_OUT, OFFLINE];

/// Transient failures that leave an existing index entry unchanged. The entry stays until the file
/// is read again or is gone. Otherwise a file server in trouble would empty the index. The target
/// of a link may lie on a disk that is not mounted.
const SAYS_NOTHING: [&str; 5] = ["unreadable", "broken-link", "internal-error", TIMED_OUT, OFFLINE];

/// The reason for what is no file: a FIFO, a socket or a device.
pub(super) const SPECIAL_FILE: &str = "special-file";

/// The reason for files and directories that do not answer in time.
pub(super) const TIMED_OUT: &str = "timed-out";

/// The reason for files whose content lies on tape.
pub(super) const OFFLINE: &str = "offline";

/// The reason for not indexing a DICOMDIR.
pub(super) const DICOMDIR: &str = "dicomdir";

/// A directory being scanned.
#[derive(Debug)]
pub(super) struct WorkDirectory {
    /// The kind of directory: [`Place::InPlace`] for files on disk, [`Place::Archive`] for an
    /// archive file with its members, or [`Place::Managed`] for the storage of the node. The scan
    /// only reads managed objects again. It records no failures about them.
    pub(super) place: Place,
    /// Absolute path.
    pub(super) path: PathBuf,
    /// The open directory. Readers open files relative to it, so that the system does not resolve
    /// the whole path for each file. `None` if it could not be opened.
    pub(super) handle: Option<OwnedFd>,
    /// The entries that the index has for this directory.
    pub(super) known: HashMap<OsString, KnownFile>,
}

impl WorkDirectory {
    /// The path of a file in it, as messages show it.
    pub(super) fn shown_path(&self, name: &OsStr) -> PathBuf {
        self.place.shown_path(&self.path, name)
    }
}

/// Kind of entry that the index had for a file that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownAs {
    /// A location of an instance.
    Indexed,
    /// A note that the file could not be read or was skipped.
    Noted,
}

impl KnownAs {
    pub(super) fn of(file: &KnownFile) -> Self {
        if file.is_indexed() { Self::Indexed } else { Self::Noted }
    }
}

/// A file to look at.
#[derive(Clone, Debug)]
pub(super) struct WorkEntry {
    pub(super) name: OsString,
    /// Whether the directory lists it as a regular file. False for a symbolic link.
    pub(super) is_file: bool,
    /// Time that a reader waited for it. `None` if it did not hang.
    pub(super) waited_for: Option<Duration>,
}

/// An entry that the summary counts and that needs no write to the index.
#[derive(Debug)]
pub(super) struct EntryReport {
    pub(super) name: OsString,
    pub(super) kind: NotIndexed,
    pub(super) reason: Cow<'static, str>,
    pub(super) detail: Cow<'static, str>,
}

/// A piece of a directory, for one reader.
#[derive(Debug)]
pub(super) struct WorkUnit {
    pub(super) directory: Arc<WorkDirectory>,
    /// Files to look at, and symbolic links that may point to files.
    pub(super) entries: Vec<WorkEntry>,
    /// Entries that the walk itself skipped.
    pub(super) reports: Vec<EntryReport>,
    /// Reason why the directory could not be listed, or not to its end.
    pub(super) unlisted: Option<io::Error>,
    /// Entries that the index has and the directory no longer has.
    pub(super) vanished: Vec<(OsString, KnownAs)>,
    /// Changes of mount points that the index does not have yet.
    pub(super) mounts: Vec<(PathBuf, Mounted)>,
    pub(super) begins_directory: bool,
    pub(super) ends_directory: bool,
}

impl WorkUnit {
    pub(super) fn of(directory: Arc<WorkDirectory>) -> Self {
        Self {
            directory,
            entries: Vec::new(),
            reports: Vec::new(),
            unlisted: None,
            vanished: Vec::new(),
            mounts: Vec::new(),
            begins_directory: false,
            ends_directory: false,
        }
    }
}

/// Category under which a member of an archive was counted before a later member of the same name
/// replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberCount {
    /// As newly indexed.
    Indexed,
    /// As updated.
    Updated,
    /// As unchanged.
    Unchanged,
    /// As read again and unchanged.
    Reread,
    /// As failed, with the reason.
    Failed(&'static str),
}

/// The result of a unit, or of a part of it.
#[derive(Debug)]
pub(super) struct UnitResult {
    pub(super) directory: Arc<WorkDirectory>,
    /// Number of files that have not changed.
    pub(super) unchanged: u64,
    /// Entries that the summary counts and that need no write.
    pub(super) reports: Vec<EntryReport>,
    /// Files to write to the index.
    pub(super) files: Vec<ScannedFile>,
    pub(super) vanished: Vec<(OsString, KnownAs)>,
    /// Changes of mount points that the index does not have yet.
    pub(super) mounts: Vec<(PathBuf, Mounted)>,
    /// Files that may still be written.
    pub(super) pending: Vec<OsString>,
    /// Files that are back. An earlier scan recorded them as missing, and they have not changed.
    pub(super) returned: Vec<OsString>,
    pub(super) begins_directory: bool,
    pub(super) ends_directory: bool,
    /// Number of archive files whose members have been counted.
    pub(super) archives: u64,
    /// Members that an earlier result counted and that `files` lists again. A later member of the
    /// same name replaced each of them.
    pub(super) replaced: Vec<MemberCount>,
}

impl UnitResult {
    pub(super) fn of(directory: &Arc<WorkDirectory>) -> Self {
        Self {
            directory: Arc::clone(directory),
            unchanged: 0,
            reports: Vec::new(),
            files: Vec::new(),
            vanished: Vec::new(),
            mounts: Vec::new(),
            pending: Vec::new(),
            returned: Vec::new(),
            begins_directory: false,
            ends_directory: false,
            archives: 0,
            replaced: Vec::new(),
        }
    }

    /// Takes from the unit what comes before its entries. Later calls find nothing to take.
    pub(super) fn begin(&mut self, unit: &mut WorkUnit) {
        self.begins_directory = std::mem::take(&mut unit.begins_directory);
        if !unit.reports.is_empty() {
            let own = std::mem::replace(&mut self.reports, std::mem::take(&mut unit.reports));
            self.reports.extend(own);
        }
        if let Some(error) = unit.unlisted.take() {
            let own = std::mem::take(&mut self.files);
            let reason = if error.kind() == io::ErrorKind::TimedOut { TIMED_OUT } else { "unreadable-directory" };
            note(self, OsString::new(), Marks::NONE, failed(reason, error.to_string()));
            self.files.extend(own);
        }
    }

    /// Takes from the unit what comes after its entries.
    pub(super) fn end(&mut self, unit: &mut WorkUnit) {
        self.vanished.append(&mut unit.vanished);
        self.mounts = std::mem::take(&mut unit.mounts);
        self.ends_directory = unit.ends_directory;
    }
}

/// Size and time of a file. If they are the same in a later scan, the file has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) size: u64,
    pub(super) mtime_ms: i64,
}

impl Marks {
    /// For a file whose size and time are unknown.
    pub(super) const NONE: Self = Self { size: 0, mtime_ms: 0 };

    pub(super) fn of(stat: &Stat) -> Self {
        // The types of these fields differ between systems.
        #[expect(clippy::allow_attributes, reason = "whether the conversions do anything depends on the system")]
        #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions, reason = "see above")]
        let (size, seconds, nanoseconds) = (
            u64::try_from(stat.st_size).unwrap_or(0),
            i64::try_from(stat.st_mtime).unwrap_or(i64::MAX),
            i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        );
        Self { size, mtime_ms: seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000) }
    }
}

/// Adds the outcome of a file to the result. It goes to `reports` if the index needs no change: it
/// has the same note, or its entry may still be true.
pub(super) fn note(result: &mut UnitResult, name: OsString, marks: Marks, outcome: FileOutcome) {
    let known = result.directory.known.get(&name);
    if let FileOutcome::NotIndexed { kind, reason, detail } = &outcome
        && SAYS_NOTHING.contains(reason)
        && known.is_some_and(KnownFile::is_indexed)
    {
        let (kind, reason, detail) = (*kind, Cow::Borrowed(*reason), Cow::Owned(detail.clone()));
        result.reports.push(EntryReport { name, kind, reason, detail });
        return;
    }
    if let (Some(known), FileOutcome::NotIndexed { kind, reason, detail }) = (known, &outcome)
        && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms)
        && let Some(noted) = &known.note
        && (noted.kind, noted.reason.as_str(), &noted.detail) == (*kind, *reason, detail)
    {
        let (kind, reason, detail) = (*kind, Cow::Borrowed(*reason), Cow::Owned(detail.clone()));
        result.reports.push(EntryReport { name, kind, reason, detail });
        return;
    }
    // The file was read again only for attributes declared since. If that fails, the index keeps
    // its entry.
    if let (Some(known), FileOutcome::NotIndexed { kind, reason, detail }) = (known, &outcome)
        && (result.directory.place == Place::Managed
            || known.lacks_declared && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms))
    {
        let (kind, reason, detail) = (*kind, Cow::Borrowed(*reason), Cow::Owned(detail.clone()));
        result.reports.push(EntryReport { name, kind, reason, detail });
        return;
    }
    let reread = result.directory.place == Place::Managed
        || known
            .is_some_and(|known| known.is_indexed() && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms));
    let known = known.is_some();
    result.files.push(ScannedFile {
        file_name: name,
        size: marks.size,
        mtime_ms: marks.mtime_ms,
        known,
        reread,
        outcome,
    });
}

pub(super) fn failed(reason: &'static str, detail: String) -> FileOutcome {
    FileOutcome::NotIndexed { kind: NotIndexed::Failed, reason, detail }
}

pub(super) fn to_outcome(outcome: Outcome) -> FileOutcome {
    match outcome {
        Outcome::Instance(record) => FileOutcome::Instance(record),
        Outcome::Incomplete { missing, read_up_to } => {
            let names: Vec<_> = missing.iter().map(|id| id.attribute().keyword).collect();
            // Elements may stand out of order, and then the object has them.
            let place = read_up_to.map_or_else(String::new, |tag| format!(" before {tag}, where reading ends"));
            failed("missing-uid", format!("no {}{place}", names.join(", ")))
        }
        Outcome::Dicomdir => {
            FileOutcome::NotIndexed { kind: NotIndexed::Skipped, reason: DICOMDIR, detail: String::new() }
        }
        Outcome::NotDicom { reason: EMPTY } => failed(EMPTY, String::new()),
        Outcome::NotDicom { reason } => failed("not-dicom", reason.to_owned()),
        Outcome::Damaged { fault } => failed(fault.code(), fault.to_string()),
        Outcome::Unreadable { error } => failed("unreadable", error.to_string()),
    }
}
