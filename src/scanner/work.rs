//! The work that walk, readers, watchdog and collector hand to one another: directories, units, and what became of them.

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
use crate::ingest::Outcome;
use crate::model::location::Place;

/// Files in one unit of work. More make the queues hold more memory (some 1.5 KB for each file); fewer make the index less
/// compact, since it packs what it gets at once, and cost more for handing over.
pub const UNIT_FILES: usize = 256;

/// Text of records that a part may hold before it is handed over although its unit has more files. Real headers leave a
/// unit far below it; it is for archives made to fill memory.
pub(super) const RESULT_TEXT_BYTES: usize = 1 << 20;

/// Reasons that lie with the system rather than the file: size and time say nothing about whether they still hold.
pub(super) const MAY_PASS: [&str; 5] =
    ["unreadable", "unreadable-directory", "broken-link", "internal-error", TIMED_OUT];

/// Of these, those that say nothing about the object either: an index entry stays until the file is read again or is gone. A
/// file server in trouble must not empty an index.
const SAYS_NOTHING: [&str; 3] = ["unreadable", "internal-error", TIMED_OUT];

/// The reason of what does not answer.
pub(super) const TIMED_OUT: &str = "timed-out";

/// The reason for which a DICOMDIR is not indexed.
pub(super) const DICOMDIR: &str = "dicomdir";

/// A directory being scanned.
#[derive(Debug)]
pub(super) struct Directory {
    /// [`Place::InPlace`], [`Place::Archive`] for an archive file, which has members instead of files, or [`Place::Managed`]: of
    /// the node's own objects some are read again, and nothing is noted about them.
    pub(super) place: Place,
    /// Absolute path.
    pub(super) path: PathBuf,
    /// The open directory: files are opened relative to it, which spares the system a walk along the path for each one.
    /// `None` where it could not be opened.
    pub(super) handle: Option<OwnedFd>,
    /// What the index knows of its files.
    pub(super) known: HashMap<OsString, KnownFile>,
}

impl Directory {
    /// The path to tell people for something in it.
    pub(super) fn shown_path(&self, name: &OsStr) -> PathBuf {
        self.place.shown_path(&self.path, name)
    }
}

/// What the index knew of a file that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was a location of an instance.
    Indexed,
    /// It was a note that something could not be read.
    Noted,
}

impl Known {
    pub(super) fn of(file: &KnownFile) -> Self {
        if file.is_indexed() { Self::Indexed } else { Self::Noted }
    }
}

/// Something to look at.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: OsString,
    /// Whether its directory says that it is a file, and no link to one.
    pub(super) is_file: bool,
    /// How long it was waited for, where it did not answer.
    pub(super) waited_for: Option<Duration>,
}

/// An entry that is accounted for and not handed to the index.
#[derive(Debug)]
pub(super) struct EntryReport {
    pub(super) name: OsString,
    pub(super) kind: NotIndexed,
    pub(super) reason: Cow<'static, str>,
    pub(super) detail: Cow<'static, str>,
}

/// A part of a directory, for one reader.
#[derive(Debug)]
pub(super) struct WorkUnit {
    pub(super) directory: Arc<Directory>,
    /// Files (or links to them) to look at.
    pub(super) entries: Vec<Entry>,
    /// What the walk itself passed over.
    pub(super) reports: Vec<EntryReport>,
    /// That the directory could not be listed (to its end), and why.
    pub(super) unlisted: Option<io::Error>,
    /// What the index knows and the directory no longer has.
    pub(super) vanished: Vec<(OsString, Known)>,
    /// What is mounted where, as far as the index does not know.
    pub(super) mounts: Vec<(PathBuf, Mounted)>,
    pub(super) begins_directory: bool,
    pub(super) ends_directory: bool,
}

impl WorkUnit {
    pub(super) fn of(directory: Arc<Directory>) -> Self {
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

/// How a file of an archive was counted before a later one of its name was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// As indexed.
    Indexed,
    /// As updated.
    Updated,
    /// As unchanged.
    Unchanged,
    /// As read again and unchanged.
    Reread,
    /// As failed, for a reason.
    Failed(&'static str),
}

/// What became of a unit, or of a part of it.
#[derive(Debug)]
pub(super) struct UnitResult {
    pub(super) directory: Arc<Directory>,
    /// Files that the index knows as they are.
    pub(super) unchanged: u64,
    /// Entries that are accounted for and need no writing.
    pub(super) reports: Vec<EntryReport>,
    /// Files for the index.
    pub(super) files: Vec<ScannedFile>,
    pub(super) vanished: Vec<(OsString, Known)>,
    /// What is mounted where, as far as the index does not know.
    pub(super) mounts: Vec<(PathBuf, Mounted)>,
    /// Files that are back, unchanged, after a scan had missed them.
    pub(super) returned: Vec<OsString>,
    pub(super) begins_directory: bool,
    pub(super) ends_directory: bool,
    /// Archive files whose members have been accounted for.
    pub(super) archives: u64,
    /// Members that were counted in an earlier part, and are among the files of this one because a later member of the same
    /// name has taken their place.
    pub(super) replaced: Vec<Counted>,
}

impl UnitResult {
    pub(super) fn of(directory: &Arc<Directory>) -> Self {
        Self {
            directory: Arc::clone(directory),
            unchanged: 0,
            reports: Vec::new(),
            files: Vec::new(),
            vanished: Vec::new(),
            mounts: Vec::new(),
            returned: Vec::new(),
            begins_directory: false,
            ends_directory: false,
            archives: 0,
            replaced: Vec::new(),
        }
    }

    /// Takes what goes before the entries of a unit, once.
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

    /// Takes what goes after the entries of a unit.
    pub(super) fn end(&mut self, unit: &mut WorkUnit) {
        self.vanished = std::mem::take(&mut unit.vanished);
        self.mounts = std::mem::take(&mut unit.mounts);
        self.ends_directory = unit.ends_directory;
    }
}

/// By what a later scan sees that a file is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) size: u64,
    pub(super) mtime_ms: i64,
}

impl Marks {
    /// Of what could not even be looked at.
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

/// Puts a file into the part, unless the index has exactly this already, or what the index has of it may still be true.
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
    // Read again only for what is declared now: where that fails the index keeps what it has.
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
        Outcome::Incomplete { missing } => {
            let names: Vec<_> = missing.iter().map(|id| id.attribute().keyword).collect();
            failed("missing-uid", format!("no {}", names.join(", ")))
        }
        Outcome::Dicomdir => {
            FileOutcome::NotIndexed { kind: NotIndexed::Skipped, reason: DICOMDIR, detail: String::new() }
        }
        Outcome::NotDicom { reason } => failed("not-dicom", reason.to_owned()),
        Outcome::Damaged { fault } => failed(fault.code(), fault.to_string()),
        Outcome::Unreadable { error } => failed("unreadable", error.to_string()),
    }
}
