//! The readers: stat, compare with what the index knows, open, read the header.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, Stat, fadvise, fstat, openat, statat};

use super::archives::{self, KnownMembers, Out};
use super::throttle::Throttle;
use super::walk::{Directory, Entry, Known, Remark, Unit};
use super::watch::{Slot, Standing, UpTo};
use super::{Probe, Stop};
use crate::db::{FileOutcome, KnownFile, Mounted, NotIndexed, Note, ScannedFile};
use crate::ingest::{self, Outcome, Wanted};
use crate::model::location::Place;

/// Text of records that a part may hold before it is handed over although its unit has more files. Real headers leave a
/// unit far below it; it is for archives made to fill memory.
pub(super) const PART_TEXT_BYTES: usize = 1 << 20;

/// Reasons that lie with the system rather than the file: size and time say nothing about whether they still hold.
pub(super) const MAY_PASS: [&str; 5] =
    ["unreadable", "unreadable-directory", "broken-link", "internal-error", TIMED_OUT];

/// Of these, those that say nothing about the object either: an index entry stays until the file is read again or is gone. A
/// file server in trouble must not empty an index.
const SAYS_NOTHING: [&str; 3] = ["unreadable", "internal-error", TIMED_OUT];

/// The reason of what does not answer.
const TIMED_OUT: &str = "timed-out";

/// What became of a unit, or of a part of it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) directory: Arc<Directory>,
    /// Files that the index knows as they are.
    pub(super) unchanged: u64,
    /// Entries that are accounted for and need no writing.
    pub(super) remarks: Vec<Remark>,
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
}

impl Part {
    pub(super) fn of(directory: &Arc<Directory>) -> Self {
        Self {
            directory: Arc::clone(directory),
            unchanged: 0,
            remarks: Vec::new(),
            files: Vec::new(),
            vanished: Vec::new(),
            mounts: Vec::new(),
            returned: Vec::new(),
            begins_directory: false,
            ends_directory: false,
            archives: 0,
        }
    }

    /// Takes what goes before the entries of a unit, once.
    pub(super) fn begin(&mut self, unit: &mut Unit) {
        self.begins_directory = std::mem::take(&mut unit.begins_directory);
        if !unit.remarks.is_empty() {
            let own = std::mem::replace(&mut self.remarks, std::mem::take(&mut unit.remarks));
            self.remarks.extend(own);
        }
        if let Some(error) = unit.unlisted.take() {
            let own = std::mem::take(&mut self.files);
            let reason = if error.kind() == io::ErrorKind::TimedOut { TIMED_OUT } else { "unreadable-directory" };
            note(self, OsString::new(), Marks::NONE, failed(reason, error.to_string()));
            self.files.extend(own);
        }
    }

    /// Takes what goes after the entries of a unit.
    pub(super) fn end(&mut self, unit: &mut Unit) {
        self.vanished = std::mem::take(&mut unit.vanished);
        self.mounts = std::mem::take(&mut unit.mounts);
        self.ends_directory = unit.ends_directory;
    }
}

/// What one reader needs.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) to_read: Receiver<(Unit, Sender<Part>)>,
    pub(super) stop: Stop,
    /// Whether files are read that the index knows as they are.
    pub(super) full: bool,
    pub(super) throttle: Arc<Throttle>,
    pub(super) probe: Probe,
    pub(super) members: Arc<KnownMembers>,
    pub(super) wanted: &'static Wanted,
}

impl Pool {
    /// Works off units until there are no more, or this thread is given up.
    pub(super) fn run(&self, slot: &Arc<Slot>, first: Option<(Unit, Sender<Part>)>) {
        slot.own();
        for (unit, parts) in first.into_iter().chain(&self.to_read) {
            if self.unit(slot, unit, parts) == Standing::GivenUp {
                return;
            }
        }
    }

    fn unit(&self, slot: &Arc<Slot>, unit: Unit, parts: Sender<Part>) -> Standing {
        let directory = Arc::clone(&unit.directory);
        let entries = slot.begin(unit, parts);
        let mut part = Part::of(&directory);
        let mut text_bytes = 0;
        for (number, entry) in entries.iter().enumerate() {
            if self.stop.is_asked() {
                return slot.break_off(part);
            }
            slot.turns_to(number);
            match self.look_at(&mut part, entry) {
                Looked::File(bytes) => text_bytes += bytes,
                Looked::Archive(found) => {
                    text_bytes = 0;
                    let out = Out { slot, entry: number };
                    let before = std::mem::replace(&mut part, Part::of(&directory));
                    let read = out.hand_over(before).and_then(|()| archives::read(*found, &directory, self, &out));
                    if read.is_err()
                        || slot.hand_over(Part::of(&directory), UpTo::Entry(number + 1)) == Standing::GivenUp
                    {
                        return Standing::GivenUp;
                    }
                }
            }
            if text_bytes > PART_TEXT_BYTES {
                text_bytes = 0;
                let next = Part::of(&directory);
                if slot.hand_over(std::mem::replace(&mut part, next), UpTo::Entry(number + 1)) == Standing::GivenUp {
                    return Standing::GivenUp;
                }
            }
        }
        slot.hand_over(part, UpTo::End)
    }

    /// Looks at one file.
    fn look_at(&self, part: &mut Part, entry: &Entry) -> Looked {
        let directory = Arc::clone(&part.directory);
        let Some(handle) = directory.handle.as_ref() else { return Looked::File(0) };
        // What has not changed needs no name of its own.
        let name = &entry.name;
        if let Some(waited) = entry.waited_for {
            return does_not_answer(part, name.clone(), waited);
        }
        self.probe.call(name);
        let known = directory.known.get(name);
        // A file that is new is opened in any case, and asking the open file costs half of asking by name. Where opening fails,
        // the longer way finds out what to say.
        if entry.is_file
            && known.is_none()
            && let Ok(file) = self.open(handle, name)
            && let Ok(stat) = fstat(&file)
        {
            return match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.read(part, name.clone(), Marks::of(&stat), file),
                _ => skipped(part, name.clone(), "special-file"),
            };
        }
        // Before reading: a file that changes meanwhile looks changed to the next scan.
        let stat = match statat(handle, name, AtFlags::empty()) {
            Ok(stat) => stat,
            Err(error) => return cannot_stat(part, name.clone(), error.into(), handle),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return skipped(part, name.clone(), "directory-link"),
            _ => return skipped(part, name.clone(), "special-file"),
        }
        let marks = Marks::of(&stat);
        if let Some(known) = known
            && known.missing
            && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms)
        {
            part.returned.push(name.clone());
        }
        if let Some(known) = known
            && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms)
            && !may_have_passed(known)
            && !self.full
            && !known.lacks_declared
            && !known.note.as_deref().is_some_and(|note| self.members.lack_declared(&directory.path, name, note))
        {
            match &known.note {
                None => part.unchanged += 1,
                Some(note) => return known_note(part, name.clone(), note),
            }
            return Looked::File(0);
        }
        match self.open(handle, name) {
            Ok(file) => self.read(part, name.clone(), marks, file),
            Err(error) => {
                let outcome = failed("unreadable", error.to_string());
                note(part, name.clone(), marks, outcome);
                Looked::File(0)
            }
        }
    }

    fn open(&self, directory: impl AsFd, name: &OsStr) -> io::Result<File> {
        self.throttle.file(&self.stop);
        // NONBLOCK: what was a file a moment ago may be a FIFO by now.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(openat(directory, name, flags, Mode::empty())?);
        // Only the header is wanted. Unasked, the system reads twice as much ahead: of a cold disk that is twice the time, and
        // of the page cache twice the room, so that an archive's headers do not stay in it until the next scan. Where the
        // file system knows no such advice nothing is lost.
        let _unheeded = fadvise(&file, 0, None, Advice::Random);
        Ok(file)
    }

    /// Reads a file into the part, unless it is an archive.
    fn read(&self, part: &mut Part, name: OsString, marks: Marks, file: File) -> Looked {
        let mut outcome = if marks.size == 0 { failed("empty", String::new()) } else { outcome_of(&file, self.wanted) };
        if self.throttle.counts_bytes() {
            self.throttle.bytes(ingest::take_bytes_read(), &self.stop);
        }
        // What can be read as DICOM is DICOM, whatever its first bytes look like.
        if let FileOutcome::NotIndexed { kind: NotIndexed::Failed, .. } = outcome {
            match archives::kind_of(&file, &name) {
                Ok(Some(kind)) => {
                    let found = archives::Found::File { name, marks, file, kind, otherwise: outcome };
                    return Looked::Archive(Box::new(found));
                }
                Ok(None) => {}
                Err(problem) => outcome = failed(problem.code(), problem.to_string()),
            }
        }
        if let FileOutcome::NotIndexed { reason: archives::DICOMDIR, .. } = outcome {
            note(part, name.clone(), marks, outcome);
            return Looked::Archive(Box::new(archives::Found::Dicomdir { name }));
        }
        let was = part.directory.known.get(&name).and_then(|known| known.note.as_deref());
        if was.is_some_and(archives::is_archive) {
            note(part, name.clone(), marks, outcome);
            return Looked::Archive(Box::new(archives::Found::Former { name }));
        }
        let text_bytes = match &outcome {
            FileOutcome::Instance(record) => record.text_bytes(),
            FileOutcome::NotIndexed { detail, .. } => detail.len(),
        };
        note(part, name, marks, outcome);
        Looked::File(text_bytes)
    }
}

/// What one file turned out to be.
enum Looked {
    /// It is in the part; so many bytes of text came of it.
    File(usize),
    /// An archive file, or what was one when the index was written: its members come next.
    Archive(Box<archives::Found>),
}

/// A file that has not changed since it was noted why it is not indexed.
fn known_note(part: &mut Part, name: OsString, known: &Note) -> Looked {
    let below = match known.reason == archives::DICOMDIR {
        true => Some(archives::Found::Dicomdir { name: name.clone() }),
        false if archives::is_archive(known) => Some(archives::Found::Unchanged { name: name.clone() }),
        false => None,
    };
    if known.kind != NotIndexed::Container {
        let (reason, detail) = (known.reason.clone().into(), known.detail.clone().into());
        part.remarks.push(Remark { name, kind: known.kind, reason, detail });
    }
    below.map_or(Looked::File(0), |found| Looked::Archive(Box::new(found)))
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

    fn of(stat: &Stat) -> Self {
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

fn outcome_of(file: &File, wanted: &Wanted) -> FileOutcome {
    // The reader does not panic on any input that is known. Should it, one file is lost and not the scan.
    match catch_unwind(AssertUnwindSafe(|| ingest::read_file(file, wanted))) {
        Ok(outcome) => to_outcome(outcome),
        Err(_panic) => failed("internal-error", "reading this file failed inside dcmdex; please report it".to_owned()),
    }
}

fn may_have_passed(known: &KnownFile) -> bool {
    known.note.as_ref().is_some_and(|note| MAY_PASS.contains(&note.reason.as_str()))
}

/// Puts a file into the part, unless the index has exactly this already, or what the index has of it may still be true.
pub(super) fn note(part: &mut Part, name: OsString, marks: Marks, outcome: FileOutcome) {
    let known = part.directory.known.get(&name);
    if let FileOutcome::NotIndexed { kind, reason, detail } = &outcome
        && SAYS_NOTHING.contains(reason)
        && known.is_some_and(KnownFile::is_indexed)
    {
        let (kind, reason, detail) = (*kind, Cow::Borrowed(*reason), Cow::Owned(detail.clone()));
        part.remarks.push(Remark { name, kind, reason, detail });
        return;
    }
    if let (Some(known), FileOutcome::NotIndexed { kind, reason, detail }) = (known, &outcome)
        && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms)
        && let Some(noted) = &known.note
        && (noted.kind, noted.reason.as_str(), &noted.detail) == (*kind, *reason, detail)
    {
        let (kind, reason, detail) = (*kind, Cow::Borrowed(*reason), Cow::Owned(detail.clone()));
        part.remarks.push(Remark { name, kind, reason, detail });
        return;
    }
    // Read again only for what is declared now: where that fails the index keeps what it has.
    if let (Some(known), FileOutcome::NotIndexed { kind, reason, detail }) = (known, &outcome)
        && (part.directory.place == Place::Managed
            || known.lacks_declared && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms))
    {
        let (kind, reason, detail) = (*kind, Cow::Borrowed(*reason), Cow::Owned(detail.clone()));
        part.remarks.push(Remark { name, kind, reason, detail });
        return;
    }
    let reread = part.directory.place == Place::Managed
        || known
            .is_some_and(|known| known.is_indexed() && (known.size, known.mtime_ms) == (marks.size, marks.mtime_ms));
    let known = known.is_some();
    part.files.push(ScannedFile {
        file_name: name,
        size: marks.size,
        mtime_ms: marks.mtime_ms,
        known,
        reread,
        outcome,
    });
}

fn does_not_answer(part: &mut Part, name: OsString, waited: Duration) -> Looked {
    let detail = format!("did not answer for {:.1} s", waited.as_secs_f64());
    note(part, name, Marks::NONE, failed(TIMED_OUT, detail));
    Looked::File(0)
}

fn cannot_stat(part: &mut Part, name: OsString, error: io::Error, directory: impl AsFd) -> Looked {
    let outcome = if error.kind() != io::ErrorKind::NotFound {
        failed("unreadable", error.to_string())
    } else if statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        failed("broken-link", "the symbolic link leads nowhere".to_owned())
    } else {
        // Listed, and gone when its turn came. The next scan will know.
        return skipped(part, name, "vanished");
    };
    note(part, name, Marks::NONE, outcome);
    Looked::File(0)
}

fn skipped(part: &mut Part, name: OsString, reason: &'static str) -> Looked {
    let (reason, detail) = (Cow::Borrowed(reason), Cow::Borrowed(""));
    part.remarks.push(Remark { name, kind: NotIndexed::Skipped, reason, detail });
    Looked::File(0)
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
            FileOutcome::NotIndexed { kind: NotIndexed::Skipped, reason: archives::DICOMDIR, detail: String::new() }
        }
        Outcome::NotDicom { reason } => failed("not-dicom", reason.to_owned()),
        Outcome::Damaged { fault } => failed(fault.code(), fault.to_string()),
        Outcome::Unreadable { error } => failed("unreadable", error.to_string()),
    }
}
